"""Blocks of a PTX kernel: all their threads as lanes of NumPy arrays.

Threads that stand at the same instruction execute it together.  The group with the lowest program counter goes first,
so threads that parted at a branch meet again where their paths join.  At a barrier a thread waits until every thread of
its block is there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pycnn.testing.ptx.async_copy import AsyncCopies
from pycnn.testing.ptx.instructions import execute
from pycnn.testing.ptx.parse import TYPES, Code, Instruction, Selector

Lanes = np.ndarray  # indices of threads, ascending

_EVERYONE = slice(None)  # as a Selector; NumPy need not copy
_MOST_LANES = 8192  # blocks run together up to this many threads: enough to hide Python behind NumPy

# Registers hold bits; an instruction says how to read them.
_REGISTERS = {"%p": "?", "%f": "u4", "%r": "u4", "%rd": "u8", "%rs": "u2", "%fd": "u8"}

_REGISTER = re.compile(r"%[a-z]+(?=\d)")
_ADDRESS = re.compile(r"\[\s*([%$\w.]+)\s*(?:\+\s*(-?\d+))?\s*\]")


class PtxError(RuntimeError):
    """A kernel broke a rule.  The message names the kernel, the block and the instruction."""


@dataclass(frozen=True)
class GlobalBuffer:
    """Global memory that the kernel may touch: `bytes` at `address`."""

    name: str
    address: int
    bytes: np.ndarray
    writable: bool


class Machine:
    """Runs a launch, a batch of blocks at a time.

    Args:
        code: the kernel.
        arguments: its parameters, packed.
        buffers: the global memory that exists.
        grid, block: launch geometry.
        dynamic_shared: bytes beyond the static shared memory.
        patience: instructions, whatever the number of threads, after which a batch of blocks is taken to run for ever.
    """

    def __init__(
        self,
        code: Code,
        arguments: bytes,
        buffers: Sequence[GlobalBuffer],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        dynamic_shared: int = 0,
        patience: int = 10_000_000,
    ) -> None:
        self.code = code
        self.arguments = np.frombuffer(arguments + bytes(-len(arguments) % 16), np.uint8)  # whole vectors of any type
        # The addresses that names stand for: offsets into the parameters and into shared memory.
        self.symbols = {name: offset for name, offset, _ in code.parameters} | code.shared
        self.buffers = sorted(buffers, key=lambda buffer: buffer.address)
        self.grid, self.block = grid, block
        self.threads = block[0] * block[1] * block[2]
        self.shared_bytes = -(-(code.shared_bytes + dynamic_shared) // 16) * 16
        self.patience = patience
        self.executed = 0  # thread instructions

    def run(self) -> None:
        """Execute every block.  Raises PtxError if the kernel breaks a rule."""
        blocks = np.arange(self.grid[0] * self.grid[1] * self.grid[2])
        batch = max(1, _MOST_LANES // self.threads)
        with np.errstate(all="ignore"):
            for first in range(0, len(blocks), batch):
                self._run_batch(blocks[first : first + batch])

    def _run_batch(self, blocks: np.ndarray) -> None:
        self.block_of = np.repeat(np.arange(len(blocks)), self.threads)  # lane -> number within the batch
        self.blocks = blocks
        self.lanes = len(self.block_of)
        self.shared = np.full(len(blocks) * self.shared_bytes, 0xFF, np.uint8)  # NaN until written
        self.registers = self._special()
        self.copies = AsyncCopies(self.lanes)
        self.steps = 0
        runnable: dict[int, Lanes] = {0: np.arange(self.lanes)}
        waiting: dict[int, Lanes] = {}  # at barriers
        while runnable:
            counter = min(runnable)
            lanes = runnable.pop(counter)
            for target, arriving in self._straight(counter, lanes, min(runnable, default=-1)):
                if len(arriving):  # after a jump that all take there may be no instruction
                    _join(waiting if self._is_barrier(target) else runnable, target, arriving)
            for barrier in list(waiting):
                _join(runnable, barrier + 1, self._released(waiting, barrier))
        for barrier, arrived in waiting.items():
            block = self.block_of[arrived[0]]
            missing = np.setdiff1d(np.flatnonzero(self.block_of == block), arrived)[0] % self.threads
            raise self.error(self.code.instructions[barrier], f"thread {missing} never reaches it", arrived)

    def _released(self, waiting: dict[int, Lanes], barrier: int) -> Lanes:
        """Takes those lanes from a barrier whose whole block is there."""
        arrived = waiting.pop(barrier)
        complete = np.bincount(self.block_of[arrived], minlength=len(self.blocks)) == self.threads
        free = complete[self.block_of[arrived]]
        _join(waiting, barrier, arrived[~free])
        return arrived[free]

    def _special(self) -> dict[str, np.ndarray]:
        thread = np.tile(np.arange(self.threads, dtype=np.uint32), len(self.blocks))
        block = self.blocks[self.block_of]
        width, height, _ = self.block
        x, y, _ = self.grid
        values = {
            "%tid": (thread % width, thread // width % height, thread // (width * height)),
            "%ctaid": (block % x, block // x % y, block // (x * y)),
            "%ntid": self.block,
            "%nctaid": self.grid,
        }
        return {
            f"{name}.{axis}": np.broadcast_to(np.asarray(value, np.uint32), self.lanes)
            for name, axes in values.items()
            for axis, value in zip("xyz", axes, strict=True)
        }

    def _is_barrier(self, counter: int) -> bool:
        """Whether it is one of the block."""
        instruction = self.code.instructions[counter]
        return instruction.name in ("bar", "barrier") and "warp" not in instruction.modifiers

    def _straight(self, counter: int, lanes: Lanes, join: int) -> list[tuple[int, Lanes]]:
        """Execute from `counter` until the lanes part, jump, or come to a barrier or to `join`; where they go then."""
        instructions = self.code.instructions
        while True:
            instruction = instructions[counter]
            taken, passed = lanes, lanes[:0]
            if instruction.guard:
                guard = self.registers[instruction.guard][lanes] ^ instruction.negated
                taken, passed = lanes[guard], lanes[~guard]
            self.executed += len(taken)
            self.steps += 1
            if self.steps > self.patience:
                raise self.error(instruction, f"still runs after {self.patience} instructions", lanes)
            counter += 1
            if instruction.name == "bra":
                return [(self.code.labels[instruction.operands[0]], taken), (counter, passed)]
            if instruction.name in ("ret", "exit"):
                return [(counter, passed)] if len(passed) else []
            if len(taken):
                self.active = taken
                execute(self, instruction, _EVERYONE if len(taken) == self.lanes else taken)
            if counter == join or self._is_barrier(counter):
                return [(counter, lanes)]

    # ---- registers

    def read(self, operand: str, kind: str, lanes: Selector) -> np.ndarray:
        """The operand's values in `lanes`, read as PTX type `kind`; a constant is a single value."""
        dtype = TYPES[kind]
        register = self.registers.get(operand)
        if register is None:
            if operand.startswith("-%"):
                return -self.read(operand[1:], kind, lanes)
            return self._constant(operand, dtype)
        bits = register[lanes]
        if bits.dtype.itemsize > dtype.itemsize:
            bits = bits.astype(f"u{dtype.itemsize}")
        return bits.view(dtype) if bits.dtype.itemsize == dtype.itemsize else bits.astype(dtype)

    def read_each(self, operand: str, kind: str, lanes: Selector) -> np.ndarray:
        """The same with a value for every lane, also of a constant."""
        return np.broadcast_to(self.read(operand, kind, lanes), len(self.active))

    def _constant(self, operand: str, dtype: np.dtype) -> np.ndarray:
        if operand in self.symbols:
            return np.array(self.symbols[operand], dtype)
        if operand.startswith(("0f", "0F")):
            return np.array(int(operand[2:], 16), np.uint32).view(np.float32)
        if operand.startswith(("0d", "0D")):
            return np.array(int(operand[2:], 16), np.uint64).view(np.float64)
        if operand.startswith("%"):
            raise PtxError(f"{self.code.name}: register {operand} is read before anything is written to it")
        if dtype.kind == "b":
            return np.array(int(operand, 0) != 0)
        return np.array(int(operand, 0) % 2**64, np.uint64).astype(f"u{dtype.itemsize}").view(dtype)

    def write(self, register: str, values: np.ndarray, lanes: Selector) -> None:
        """Set a register in `lanes`; narrower values are extended by their own sign."""
        if register == "_":
            return
        prefix = _REGISTER.match(register)
        if prefix is None:
            raise ValueError(f"not a register: {register}")
        storage = np.dtype(_REGISTERS[prefix[0]])
        if values.dtype != storage:
            if values.dtype.itemsize < storage.itemsize:
                values = values.astype(f"{values.dtype.kind}{storage.itemsize}")
            values = values.view(storage)
        if register not in self.registers:
            self.registers[register] = np.zeros(self.lanes, storage)
        self.registers[register][lanes] = values

    # ---- memory

    def address(self, operand: str, lanes: Selector) -> np.ndarray:
        """The addresses that ``[register+offset]`` or ``[symbol+offset]`` names in `lanes`."""
        match = _ADDRESS.fullmatch(operand)
        if match is None:
            raise ValueError(f"not an address: {operand}")
        base = match[1]
        start = self.registers[base][lanes].astype(np.int64) if base in self.registers else self.symbols[base]
        return np.broadcast_to(start + int(match[2] or 0), len(self.active))

    def memory(
        self, instruction: Instruction, space: str, addresses: np.ndarray, size: int, writing: bool
    ) -> list[tuple[np.ndarray, np.ndarray, Lanes]]:
        """Where the accesses go: (bytes, offsets into them, the lanes that do).  Raises PtxError if they may not."""
        misses = addresses % size != 0
        if misses.any():
            what = f"an access of {size} bytes at an address that is no multiple of it"
            raise self.error(instruction, what, self.active[misses])
        if space == "param":
            strays = (addresses < 0) | (addresses + size > len(self.arguments))
            if strays.any():
                what = f"an access outside the {len(self.arguments)} bytes of parameters"
                raise self.error(instruction, what, self.active[strays])
            return [(self.arguments, addresses, self.active)]
        if space == "shared":
            strays = (addresses < 0) | (addresses + size > self.shared_bytes)
            if strays.any():
                what = f"an access outside the {self.shared_bytes} bytes of shared memory"
                raise self.error(instruction, what, self.active[strays])
            return [(self.shared, addresses + self.block_of[self.active] * self.shared_bytes, self.active)]
        starts = np.array([buffer.address for buffer in self.buffers], np.int64)
        which = np.searchsorted(starts, addresses, side="right") - 1
        places = []
        for number in np.unique(which):
            chosen = which == number
            buffer = self.buffers[max(number, 0)]
            offsets = addresses[chosen] - buffer.address
            strays = (offsets < 0) | (offsets + size > len(buffer.bytes))
            if strays.any():
                what = f"an access {offsets[strays][0]} bytes from the start of {buffer.name}, outside of it"
                raise self.error(instruction, what, self.active[chosen][strays])
            if writing and not buffer.writable:
                raise self.error(instruction, f"a write to {buffer.name}, which is an input")
            places.append((buffer.bytes, offsets, self.active[chosen]))
        return places

    @staticmethod
    def cells(memory: np.ndarray, offsets: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """The memory as an array of `dtype`, and the places in it of what lies `offsets` bytes from the start.

        The start may be between two multiples of the type's size, as that of a view into 16-bit elements; then so is
        every offset, for the addresses are multiples.
        """
        size = dtype.itemsize
        skipped = offsets[0] % size
        whole = memory[skipped : skipped + (len(memory) - skipped) // size * size]
        return whole.view(dtype), (offsets - skipped) // size

    def error(self, instruction: Instruction, what: str, lanes: Lanes | None = None) -> PtxError:
        """An error about an instruction and the first of `lanes`, by default of those that execute it."""
        lane = (self.active if lanes is None else lanes)[0]
        where = f"block {self.blocks[self.block_of[lane]]}, thread {lane % self.threads}"
        return PtxError(f"{self.code.name}, {where}, `{instruction.text}`: {what}")


def _join(groups: dict[int, Lanes], counter: int, lanes: Lanes) -> None:
    if len(lanes):
        groups[counter] = np.union1d(groups[counter], lanes) if counter in groups else lanes
