"""ldmatrix and mma: what a warp does as one, for all the warps at the instruction together.

Lane 4*g + t of a warp holds of a matrix of 8 rows (of b: columns) row g and there, in each register, element t of 32
bits or elements 2*t and 2*t + 1 of 16 bits, the first of them in the lower half.  Wider operands have more registers:
for a and d the rows 8 below come first, then the columns to the right of it.

Reference: NVIDIA, "Parallel Thread Execution ISA" 9.2, section 9.7.14.5.7, "Matrix Fragments for mma.m16n8k8", section
9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with floating point type", and section 9.7.14.5.15, "ldmatrix".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pycnn.testing.ptx.conversions import float16_values, toward_zero, widened
from pycnn.testing.ptx.parse import Instruction, Selector, vector

if TYPE_CHECKING:
    from pycnn.testing.ptx.machine import Machine

_MATRICES = {"x1": 1, "x2": 2, "x4": 4}
_DEPTHS = {
    **{("m16n8k8", number): 8 for number in ("f16", "bf16", "tf32")},
    **{("m16n8k16", number): 16 for number in ("f16", "bf16")},
}


def execute_ldmatrix(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """ldmatrix: lane 8*j + i brings the address of row i of matrix j, 16 bytes of shared memory."""
    shape, *rest = instruction.modifiers[2:]
    transposed = "trans" in rest
    count = _MATRICES.get(rest[0])
    if shape != "m8n8" or count is None or rest[1 + transposed :] != ["shared", "b16"]:
        raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")
    warps = _whole_warps(machine, instruction)
    everyone = machine.active
    rows = machine.address(instruction.operands[1], lanes).reshape(warps, 32)[:, : 8 * count].reshape(-1)
    machine.active = everyone.reshape(warps, 32)[:, : 8 * count].reshape(-1)
    ((memory, offsets, _),) = machine.memory(instruction, "shared", rows, 16, writing=False)
    machine.active = everyone
    elements = memory.view(np.uint16)[(offsets // 2)[:, None] + np.arange(8)].reshape(warps, count, 8, 8)
    if transposed:
        elements = elements.swapaxes(2, 3)
    fragments = np.ascontiguousarray(elements).view(np.uint32).reshape(warps, count, 32)
    for matrix, register in enumerate(vector(instruction.operands[0])):
        machine.write(register, fragments[:, matrix].reshape(-1), lanes)


def execute_mma(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """mma: d = a * b + c in float32.  Products are exact, added up in float64 in the order of k, and rounded once.

    The rounding is toward zero, as the hardware's.  How many bits beyond float32 the hardware keeps of a sum differs
    between its generations; here it is all that a float64 has.
    """
    shape, number = instruction.modifiers[2], instruction.modifiers[-2]
    depth = _DEPTHS.get((shape, number))
    known = ("sync", "aligned", shape, "row", "col", "f32", number, number, "f32")
    if depth is None or instruction.modifiers != known:
        raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")
    warps = _whole_warps(machine, instruction)
    targets, *sources = map(vector, instruction.operands)
    each = 1 if number == "tf32" else 2  # elements of a register
    right = depth // (4 * each)  # matrices side by side along k

    def registers(names: list[str], kind: str) -> np.ndarray:
        return np.stack([machine.read_each(name, kind, lanes) for name in names])

    def elements(names: list[str]) -> np.ndarray:
        """Of each matrix of a fragment: (matrix, warp, g, the matrix's elements along k)."""
        return _elements(registers(names, "b32"), number).reshape(len(names), warps, 8, 4 * each)

    a = elements(sources[0]).reshape(right, 2, warps, 8, 4 * each)  # right, below, warp, g, k
    a = a.transpose(2, 1, 3, 0, 4).reshape(warps, 16, depth, 1)
    b = elements(sources[1]).transpose(1, 0, 3, 2).reshape(warps, 1, depth, 8)  # from matrix, warp, g, k
    c = registers(sources[2], "f32").reshape(2, 2, warps, 8, 4)  # below, column of a pair, warp, g, t
    c = c.transpose(2, 0, 3, 4, 1).reshape(warps, 16, 8)
    d = toward_zero(c + np.add.reduce(a * b, axis=2, initial=0.0))
    d = d.reshape(warps, 2, 8, 4, 2).transpose(1, 4, 0, 2, 3).reshape(4, -1)
    for register, values in zip(targets, d, strict=True):
        machine.write(register, values, lanes)


def _elements(bits: np.ndarray, number: str) -> np.ndarray:
    """What registers hold, as float64; the 16-bit types have two in each."""
    if number == "tf32":  # the lowest 13 bits are not looked at
        return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    halves = bits.view(np.uint16)
    return (float16_values(halves) if number == "f16" else widened(halves)).astype(np.float64)


def _whole_warps(machine: Machine, instruction: Instruction) -> int:
    """How many warps execute it.  Raises PtxError where a warp is not all here."""
    active = machine.active
    first, last = active[::32], active[31::32]
    if len(active) % 32 == 0 and (last - first == 31).all() and (first % machine.threads % 32 == 0).all():
        return len(first)
    warp = active - active % machine.threads % 32
    starts, counts = np.unique(warp, return_counts=True)
    here = active[warp == starts[counts != 32][0]]
    raise machine.error(instruction, f"{len(here)} of the 32 lanes of its warp are here", here)
