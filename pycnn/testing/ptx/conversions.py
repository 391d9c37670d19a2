"""cvt, and what the bits of the types that NumPy lacks stand for.

bfloat16 is the upper half of a float32; tf32 is a float32 whose last 13 bits are zero.  NaN becomes the type's
canonical one, all bits set but the sign.

Reference: NVIDIA, "Parallel Thread Execution ISA" 9.0, section 9.7.9.21, "Data Movement and Conversion Instructions:
cvt".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pycnn.testing.ptx.parse import TYPES, Instruction, Selector

if TYPE_CHECKING:
    from pycnn.testing.ptx.machine import Machine

_TO_INTEGER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}


def execute_cvt(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """cvt.to.from: numbers keep their value, integers wrap; .sat keeps floats within 0 and 1."""
    to, source = instruction.modifiers[-2:]
    if {to, source} & {"f16", "bf16", "f16x2", "bf16x2", "tf32"}:
        _convert_narrow(machine, instruction, lanes)
        return
    values = machine.read(instruction.operands[1], source, lanes)
    for modifier, rounding in _TO_INTEGER.items():
        if modifier in instruction.modifiers:
            values = rounding(values)
    if "sat" in instruction.modifiers:
        values = np.where(np.isnan(values), 0, np.clip(values, 0, 1))
    machine.write(instruction.operands[0], values.astype(TYPES[to]), lanes)


def _convert_narrow(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """cvt between float32 and the narrower floats, with the roundings that exist for each."""

    def values() -> list[np.ndarray]:
        return [machine.read(operand, "f32", lanes) for operand in instruction.operands[1:]]

    match instruction.modifiers:
        case ("f32", "f16" | "bf16" as source):
            bits = machine.read(instruction.operands[1], "b16", lanes)
            result = float16_values(bits) if source == "f16" else widened(bits)
        case ("rn" | "rz" as rounding, "f16" | "bf16" as to, "f32"):
            (result,) = (_NARROW[to](value, rounding) for value in values())
        case ("rn" | "rz" as rounding, "f16x2" | "bf16x2" as to, "f32"):
            high, low = (_NARROW[to[:-2]](value, rounding).astype(np.uint32) for value in values())
            result = high << np.uint32(16) | low
        case ("rna", "tf32", "f32"):
            (result,) = map(_tf32_bits, values())
        case _:
            raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")
    machine.write(instruction.operands[0], result, lanes)


def float16_values(bits: np.ndarray) -> np.ndarray:
    """What 16 bits are as a float16, in float32."""
    return bits.view(np.float16).astype(np.float32)


def widened(bits: np.ndarray) -> np.ndarray:
    """What 16 bits are as a bfloat16, in float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def toward_zero(exact: np.ndarray) -> np.ndarray:
    """A float64 rounded toward zero to float32; what is too large for one is infinite."""
    nearest = exact.astype(np.float32)
    too_far = (np.abs(nearest) > np.abs(exact)) & ~np.isinf(nearest)
    return np.where(too_far, np.nextafter(nearest, np.float32(0)), nearest)


def _float16_bits(value: np.ndarray, rounding: str) -> np.ndarray:
    nearest = value.astype(np.float16)
    if rounding == "rz":
        too_far = np.abs(nearest.astype(np.float32)) > np.abs(value)
        nearest = np.where(too_far, np.nextafter(nearest, np.float16(0)), nearest)
    return np.where(np.isnan(value), np.uint16(0x7FFF), nearest.view(np.uint16))


def _bfloat16_bits(value: np.ndarray, rounding: str) -> np.ndarray:
    bits = value.view(np.uint32)
    even = bits >> np.uint32(16) & np.uint32(1)
    rounded = bits + (np.uint32(0x7FFF) + even if rounding == "rn" else np.uint32(0)) >> np.uint32(16)
    return np.where(np.isnan(value), np.uint32(0x7FFF), rounded).astype(np.uint16)


def _tf32_bits(value: np.ndarray) -> np.ndarray:
    """To nearest, ties away from zero."""
    rounded = value.view(np.uint32) + np.uint32(0x1000) & np.uint32(0xFFFFE000)
    return np.select([np.isnan(value), np.isinf(value)], [np.uint32(0x7FFFFFFF), value.view(np.uint32)], rounded)


_NARROW: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {"f16": _float16_bits, "bf16": _bfloat16_bits}
