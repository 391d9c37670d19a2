"""What each PTX instruction does, by name: a table of functions on lanes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pycnn.testing.ptx.async_copy import execute_copy
from pycnn.testing.ptx.conversions import execute_cvt
from pycnn.testing.ptx.matrix import execute_ldmatrix, execute_mma
from pycnn.testing.ptx.parse import TYPES, Instruction, Selector, vector

if TYPE_CHECKING:
    from pycnn.testing.ptx.machine import Machine

Handler = Callable[["Machine", Instruction, Selector], None]

_WIDE = {"s32": "s64", "u32": "u64", "s16": "s32", "u16": "u32"}


def _unordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.not_equal(a, a) | np.not_equal(b, b)


_COMPARE: dict[str, Callable[..., np.ndarray]] = {
    "eq": operator.eq,
    "ne": lambda a, b: (a < b) | (a > b),  # ordered: NaN is not unequal to anything
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "num": lambda a, b: ~_unordered(a, b),
    "nan": _unordered,
    "equ": lambda a, b: _unordered(a, b) | (a == b),
    "neu": operator.ne,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
}


def execute(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """Execute one instruction that is neither a jump nor a barrier.  Raises NotImplementedError for an unknown one."""
    handler = _HANDLERS.get(instruction.name)
    if handler is None:
        raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")
    handler(machine, instruction, lanes)


def _sources(machine: Machine, instruction: Instruction, lanes: Selector) -> list[np.ndarray]:
    """The operands after the first, read as the type that the instruction names."""
    return [machine.read(operand, instruction.type, lanes) for operand in instruction.operands[1:]]


def _plain(function: Callable[..., np.ndarray]) -> Handler:
    """An instruction whose result and sources all have the type it names."""

    def handler(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
        values = function(*_sources(machine, instruction, lanes))
        machine.write(instruction.operands[0], values.astype(TYPES[instruction.type], copy=False), lanes)

    return handler


def _directed(exact: np.ndarray, instruction: Instruction) -> np.ndarray:
    """A float64 result rounded as the instruction says: to nearest (.rn), down (.rm), up (.rp) or toward zero (.rz)."""
    rounded = exact.astype(TYPES[instruction.type])
    if "rn" in instruction.modifiers or not {"rm", "rp", "rz"} & set(instruction.modifiers):
        return rounded
    down = "rm" in instruction.modifiers or ("rz" in instruction.modifiers) & (exact > 0)
    too_far = np.where(down, rounded > exact, rounded < exact)
    return np.where(too_far, np.nextafter(rounded, np.where(down, -np.inf, np.inf).astype(rounded.dtype)), rounded)


def _add(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """add: floats in the direction asked for.  A float64 holds the sum of two float32, but for what is far below."""
    a, b = _sources(machine, instruction, lanes)
    exact = a.astype(np.float64) + b.astype(np.float64) if instruction.type == "f32" else None
    total = a + b if exact is None else _directed(exact, instruction)
    machine.write(instruction.operands[0], total, lanes)


def _fma(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """fma: a product is exact in float64; the sum is rounded there first, which matters only in ties."""
    a, b, c = (values.astype(np.float64) for values in _sources(machine, instruction, lanes))
    machine.write(instruction.operands[0], _directed(a * b + c, instruction), lanes)


def _approximate(function: Callable[[np.ndarray], np.ndarray]) -> Handler:
    """A float function of one operand, correctly rounded: within an ulp or two of the hardware's .approx.

    Where .ftz says so, subnormal operands and results are zero.
    """

    def handler(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
        (value,) = _sources(machine, instruction, lanes)
        flush = "ftz" in instruction.modifiers
        exact = function(_flushed(value) if flush else value.astype(np.float64))
        result = exact.astype(TYPES[instruction.type])
        machine.write(instruction.operands[0], _flushed(result).astype(result.dtype) if flush else result, lanes)

    return handler


def _flushed(value: np.ndarray) -> np.ndarray:
    small = np.abs(value) < np.finfo(np.float32).tiny
    return np.where(small, np.copysign(0.0, value), value.astype(np.float64))


def _multiply(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """mul and mad: .lo keeps the low half, .hi the high half, .wide the whole; floats have none of them."""
    a, b, *addend = _sources(machine, instruction, lanes)
    kind = instruction.type
    if "wide" in instruction.modifiers:
        wide = TYPES[_WIDE[kind]]
        product = a.astype(wide) * b.astype(wide)
        if addend:
            product = product + machine.read(instruction.operands[3], _WIDE[kind], lanes)
    elif "hi" in instruction.modifiers:
        bits = a.dtype.itemsize * 8
        whole = a.astype(object) * b.astype(object) >> bits if bits == 64 else _high_half(a, b, kind)
        product = whole.astype(a.dtype)
        if addend:
            product = product + addend[0]
    else:
        product = a * b
        if addend:
            product = product + addend[0]
    machine.write(instruction.operands[0], product, lanes)


def _high_half(a: np.ndarray, b: np.ndarray, kind: str) -> np.ndarray:
    wide = TYPES[_WIDE[kind]]
    return a.astype(wide) * b.astype(wide) >> wide.type(a.dtype.itemsize * 8)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Toward zero, as in C; by zero gives all ones (as GPUs do)."""
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // safe
    if a.dtype.kind == "i":
        quotient = quotient + ((a % safe != 0) & ((a < 0) != (safe < 0)))
    return np.where(b == 0, ~np.zeros_like(a), quotient)


def _remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a - _divide(a, b) * b


def _shift(left: bool) -> Handler:
    """shl and shr: the distance has 32 bits; past the last bit the register is empty (or full of its sign)."""

    def handler(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
        value = machine.read(instruction.operands[1], instruction.type, lanes)
        distance = machine.read(instruction.operands[2], "u32", lanes)
        bits = value.dtype.itemsize * 8
        clamped = np.minimum(distance, bits - 1).astype(value.dtype)
        shifted = value << clamped if left else value >> clamped
        emptied = np.zeros_like(value) if left or value.dtype.kind == "u" else value >> value.dtype.type(bits - 1)
        machine.write(instruction.operands[0], np.where(distance >= bits, emptied, shifted), lanes)

    return handler


def _set_predicate(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    a, b = (machine.read(operand, instruction.type, lanes) for operand in instruction.operands[1:3])
    machine.write(instruction.operands[0], _COMPARE[instruction.modifiers[0]](a, b), lanes)


def _select(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    a, b = (machine.read(operand, instruction.type, lanes) for operand in instruction.operands[1:3])
    chosen = machine.read(instruction.operands[3], "pred", lanes)
    machine.write(instruction.operands[0], np.where(chosen, a, b), lanes)


def _insert_bits(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """bfi: the low `length` bits of a, put into b at `position`."""
    a, b = (machine.read(operand, instruction.type, lanes) for operand in instruction.operands[1:3])
    position, length = (machine.read(operand, "u32", lanes).astype(b.dtype) for operand in instruction.operands[3:5])
    one = b.dtype.type(1)
    mask = ((one << length) - one) << position
    machine.write(instruction.operands[0], (b & ~mask) | ((a << position) & mask), lanes)


def _to_address(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """cvta between generic and global addresses: the same number."""
    machine.write(instruction.operands[0], machine.read(instruction.operands[1], instruction.type, lanes), lanes)


def _move(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """mov: a register, or one register and the parts of it in several, the lowest first."""
    target, source = instruction.operands
    whole = TYPES[instruction.type]
    if source.startswith("{"):
        parts = vector(source)
        narrow = f"b{8 * whole.itemsize // len(parts)}"
        values = np.stack([machine.read_each(part, narrow, lanes) for part in parts], axis=1)
        machine.write(target, values.view(whole)[:, 0], lanes)
    elif target.startswith("{"):
        parts = vector(target)
        value = machine.read_each(source, instruction.type, lanes)
        pieces = np.ascontiguousarray(value).view(f"u{whole.itemsize // len(parts)}").reshape(-1, len(parts))
        for part, piece in zip(parts, pieces.T, strict=True):
            machine.write(part, piece, lanes)
    else:
        machine.write(target, machine.read(source, instruction.type, lanes), lanes)


def _permute(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """prmt: four of the eight bytes of two registers, each chosen by 4 bits, of which the highest repeats its sign."""
    if instruction.modifiers != ("b32",):
        raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")
    sources = (machine.read(operand, "b32", lanes) for operand in instruction.operands[1:])
    low, high, selector = (source.astype(np.uint64) for source in sources)
    both = low | high << np.uint64(32)
    result = np.zeros_like(both)
    for byte in range(4):
        choice = selector >> np.uint64(4 * byte) & np.uint64(0xF)
        value = both >> (choice & np.uint64(7)) * np.uint64(8) & np.uint64(0xFF)
        sign = (value >> np.uint64(7)) * np.uint64(0xFF)
        result = result | np.where(choice & np.uint64(8), sign, value) << np.uint64(8 * byte)
    machine.write(instruction.operands[0], result.astype(np.uint32), lanes)


def _load(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    dtype = TYPES[instruction.type]
    registers = vector(instruction.operands[0])
    space = next((name for name in ("param", "shared") if name in instruction.modifiers), "global")
    addresses = machine.address(instruction.operands[1], lanes)
    size = dtype.itemsize * len(registers)
    for memory, offsets, lanes in machine.memory(instruction, space, addresses, size, writing=False):
        cells, places = machine.cells(memory, offsets, dtype)
        for i, register in enumerate(registers):
            machine.write(register, cells[places + i], lanes)


def _store(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    dtype = TYPES[instruction.type]
    registers = vector(instruction.operands[1])
    space = "shared" if "shared" in instruction.modifiers else "global"
    addresses = machine.address(instruction.operands[0], lanes)
    size = dtype.itemsize * len(registers)
    for memory, offsets, lanes in machine.memory(instruction, space, addresses, size, writing=True):
        cells, places = machine.cells(memory, offsets, dtype)
        for i, register in enumerate(registers):
            cells[places + i] = machine.read(register, instruction.type, lanes)


_ATOMIC: dict[str, np.ufunc] = {
    "add": np.add,
    "max": np.maximum,
    "or": np.bitwise_or,
}


def _update(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """atom of global memory: joined with each lane's value, one lane after another; each gets what was there before."""
    join = _ATOMIC.get(instruction.modifiers[1])
    if join is None or instruction.modifiers[0] != "global":
        raise NotImplementedError(f"the PTX interpreter does not know `{instruction.text}`")
    result, place, value = instruction.operands
    dtype = TYPES[instruction.type]
    addresses = machine.address(place, lanes)
    for memory, offsets, some in machine.memory(instruction, "global", addresses, dtype.itemsize, writing=True):
        cells, places = machine.cells(memory, offsets, dtype)
        values = machine.read(value, instruction.type, some)
        before = np.empty_like(values)
        for lane, (cell, one) in enumerate(zip(places, values, strict=True)):
            before[lane] = cells[cell]
            cells[cell] = join(cells[cell], one)
        machine.write(result, before, some)


def _assembled(machine: Machine, instruction: Instruction, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each thread's number within its warp and the first of the warp, where all of its mask's lanes execute this."""
    lane = (machine.active % machine.threads % 32).astype(np.int64)
    warp = machine.active - lane
    here = np.zeros(machine.lanes, np.uint32)  # of the warp that begins at a lane: who executes this
    np.bitwise_or.at(here, warp, np.uint32(1) << lane.astype(np.uint32))
    absent = (here[warp] & members) != members
    if absent.any():
        raise machine.error(instruction, "not every lane of its mask is here", machine.active[absent])
    return lane, warp


def _meet(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """bar.warp.sync, the only form of bar that is not the block's: nothing is left to wait for."""
    _assembled(machine, instruction, machine.read(instruction.operands[0], "u32", lanes))


def _shuffle(machine: Machine, instruction: Instruction, lanes: Selector) -> None:
    """shfl.sync: a register of another lane of the warp, as the PTX manual's pseudocode has it."""
    mode = instruction.modifiers[1]
    distance, bounds, members = (machine.read(operand, "u32", lanes) for operand in instruction.operands[2:5])
    lane, warp = _assembled(machine, instruction, members)
    b, last, segment = distance & 31, (bounds & 31).astype(np.int64), (bounds >> 8 & 31).astype(np.int64)
    first, last = lane & segment, (lane & segment) | (last & ~segment)
    source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": first | (b & ~segment)}[mode]
    within = source >= last if mode == "up" else source <= last
    source = np.where(within, source, lane)
    if ((members >> source.astype(np.uint32) & 1) == 0).any():
        raise machine.error(instruction, "it reads a lane that is not in its mask")
    target, _, predicate = instruction.operands[0].partition("|")
    machine.write(target, machine.read(instruction.operands[1], "u32", warp + source), lanes)
    if predicate:
        machine.write(predicate, within, lanes)


_HANDLERS: dict[str, Handler] = {
    "abs": _plain(np.abs),
    "add": _add,
    "and": _plain(np.bitwise_and),
    "atom": _update,
    "bar": _meet,
    "bfi": _insert_bits,
    "copysign": _plain(lambda sign, value: np.copysign(value, sign)),
    "cp": execute_copy,
    "cvt": execute_cvt,
    "cvta": _to_address,
    "div": _plain(_divide),
    "ex2": _approximate(np.exp2),
    "fma": _fma,
    "ld": _load,
    "ldmatrix": execute_ldmatrix,
    "mad": _multiply,
    "max": _plain(np.fmax),
    "min": _plain(np.fmin),
    "mma": execute_mma,
    "mov": _move,
    "mul": _multiply,
    "neg": _plain(operator.neg),
    "not": _plain(np.invert),
    "or": _plain(np.bitwise_or),
    "prmt": _permute,
    "rcp": _approximate(np.reciprocal),
    "rem": _plain(_remainder),
    "rsqrt": _approximate(lambda value: 1 / np.sqrt(value)),
    "selp": _select,
    "setp": _set_predicate,
    "shfl": _shuffle,
    "shl": _shift(left=True),
    "shr": _shift(left=False),
    "sqrt": _approximate(np.sqrt),
    "st": _store,
    "sub": _plain(operator.sub),
    "xor": _plain(np.bitwise_xor),
}
