"""The simulated device: kernels compiled by g++, one fiber a CUDA thread, in memory fenced by unmapped pages.

For tests.  Beyond what a GPU does it checks what a GPU lets pass: every byte outside a buffer, every byte of shared
memory read before it is written (it is NaN), writes to inputs, barriers that not all threads reach, launch limits.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Extent, Pointers, Reads, Writes, pointers_of
from pycnn.backends.replay import CaptureError
from pycnn.jit import host
from pycnn.jit.sources import Instance, Sources

T = TypeVar("T")

ORDERS = {"forward": 0, "reverse": 1, "random": 2}

_PAGE = mmap.PAGESIZE
_FENCE = 2**24  # bytes on either side of an array: an index that is wrong by an image still ends up there
_NORESERVE = 0x4000  # Linux's MAP_NORESERVE, which Python's mmap names from 3.13 on
_POISON = 0xFF
_MOST_POISONED = 2**28  # a larger array stays an untouched mapping, so that 2^31 elements cost nothing

_MOST_THREADS = 1024
_MOST_BLOCK = (1024, 1024, 64)
_MOST_GRID = (2**31 - 1, 65535, 65535)
# Most shared memory of a block, static and dynamic.  CUDA C++ Programming Guide, "Compute Capabilities", table
# "Technical Specifications per Compute Capability": maximum amount of shared memory per thread block.
_MOST_SHARED_KIB = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}


class SimulationError(RuntimeError):
    """A kernel or its launch broke a rule.  The message names kernel, block and thread."""


class SimArray(np.ndarray):
    """An array in fenced memory; knows the memory it lies in."""

    memory: _Memory | None

    def __array_finalize__(self, parent: object) -> None:
        self.memory = getattr(parent, "memory", None)


class _Memory:
    """Pages of memory between two fences that nobody may touch; the bytes end as close to the last one as 16 allows."""

    def __init__(self, size: int) -> None:
        pages = -(-max(size, 1) // _PAGE) * _PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        self.map = mmap.mmap(-1, pages + 2 * _FENCE, flags=flags)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.pages, self.pages_size = base + _FENCE, pages
        self.size = size
        self.offset = _FENCE + (pages - size) // 16 * 16
        self.begin = base + self.offset
        _protect(base, _FENCE, 0)
        _protect(base + _FENCE + pages, _FENCE, 0)
        if pages <= _MOST_POISONED:
            ctypes.memset(self.pages, _POISON, pages)

    def allow_writing(self, allowed: bool) -> None:
        _protect(self.pages, self.pages_size, mmap.PROT_READ | (mmap.PROT_WRITE if allowed else 0))

    def spoiled(self) -> bool:
        """Whether a byte beside the array, on its pages, has changed."""
        if self.pages_size > _MOST_POISONED:
            return False
        before = ctypes.string_at(self.pages, self.begin - self.pages)
        after = ctypes.string_at(self.begin + self.size, self.pages + self.pages_size - self.begin - self.size)
        return bool((before + after).strip(bytes([_POISON])))


_libc = ctypes.CDLL(None, use_errno=True)


def _protect(address: int, size: int, protection: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection):
        raise OSError(ctypes.get_errno(), "mprotect failed")


class _Buffer(ctypes.Structure):  # sim::Buffer of csrc/sim/engine.h
    _fields_ = (("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("name", ctypes.c_char_p))


class _Launch(ctypes.Structure):  # sim::Launch of csrc/sim/engine.h
    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint64),
        ("shared_limit", ctypes.c_uint64),
        ("order", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
        ("blocks", ctypes.POINTER(ctypes.c_uint64)),
        ("block_count", ctypes.c_uint64),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_uint64),
        ("message", ctypes.c_char_p),
        ("message_size", ctypes.c_uint64),
        ("patience", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class SimKernel:
    """A kernel compiled for this machine, and its parameters' offsets and sizes in bytes."""

    instance: Instance
    library: ctypes.CDLL
    parameters: tuple[tuple[int, int], ...]


# A library keeps the state of the launch that runs in it, and all of them handle the same signals.
_one_launch = threading.Lock()


class SimDevice:
    """A simulated GPU.

    Args:
        arch: whose launch limits hold.
        order: which threads and blocks go first: "forward", "reverse" or "random".
        seed: of the random order.
        sources: the kernels.
        options: more options for g++.
        patience: seconds of CPU time after which a launch is taken to run for ever.

    Attributes:
        blocks: if set, only these blocks of a launch run (for launches too large to run whole).
        launches: the instances launched so far, in order.
        recorded: where launches and fills are written down instead of run, or None.
    """

    name = "sim"
    chip = ("", 0)

    def __init__(
        self,
        arch: str = "sm_90a",
        order: str = "forward",
        seed: int = 0,
        sources: Sources | None = None,
        options: tuple[str, ...] = (),
        patience: int = 120,
    ) -> None:
        self.arch = arch
        self.blocks: Sequence[int] | None = None
        self.launches: list[Instance] = []
        self.recorded: list[Callable[[], None]] | None = None
        self._order = ORDERS[order]
        self._seed = seed
        self._sources = sources
        self._options = options
        self._patience = patience
        self._kernels: dict[Instance, SimKernel] = {}

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of NaN (all bits set) between unmapped pages."""
        dtype = np.dtype(dtype)
        memory = _Memory(int(np.prod(shape, dtype=object)) * dtype.itemsize)
        array = np.ndarray.__new__(SimArray, shape, dtype, memory.map, memory.offset)
        array.memory = memory
        return array

    def fill(self, array: Array, value: Array | float) -> None:
        """Set or copy."""

        def work() -> None:
            array[...] = value

        self._do(work)

    def load(self, instance: Instance) -> SimKernel:
        """The kernel, compiled by g++."""
        if instance not in self._kernels:
            if self.recorded is not None:
                raise CaptureError(f"{instance} would have to be loaded while a step is recorded; run the step before")
            if self.arch not in instance.archs:
                raise SimulationError(f"{instance} is for {', '.join(instance.archs)}, not {self.arch}")
            self._kernels[instance] = _load(instance, host.build(instance, self._sources, self._options))
        return self._kernels[instance]

    def launch(
        self, kernel: SimKernel, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]
    ) -> None:
        """Run the kernel, at once and to its end.  Raises SimulationError if it breaks a rule."""
        self._do(lambda: self._launch(kernel, grid, block, shared, arguments))

    def _launch(
        self, kernel: SimKernel, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]
    ) -> None:
        label = str(kernel.instance)
        limit = _MOST_SHARED_KIB[int(self.arch[3:].rstrip("a"))] * 1024
        _check_limits(label, grid, block, shared, limit)
        packed = _pack(label, kernel.parameters, arguments)
        pointers = [_checked(label, each) for each in pointers_of(arguments)]
        buffers = (_Buffer * len(pointers))(*map(_buffer, pointers))
        blocks = range(grid[0] * grid[1] * grid[2]) if self.blocks is None else self.blocks
        chosen = None if self.blocks is None else (ctypes.c_uint64 * len(blocks))(*blocks)
        message = ctypes.create_string_buffer(1024)
        request = _Launch(
            label.encode(),
            grid,
            block,
            shared,
            limit,
            self._order,
            self._seed,
            chosen,
            len(blocks),
            buffers,
            len(buffers),
            ctypes.cast(message, ctypes.c_char_p),
            len(message),
            self._patience,
        )
        with _one_launch:
            _set_writable(pointers, only_outputs=True)
            try:
                failed = kernel.library.pycnn_sim_launch(ctypes.byref(request), packed)
            finally:
                _set_writable(pointers, only_outputs=False)
        if failed:
            raise SimulationError(message.value.decode())
        for pointer in pointers:
            if pointer.memory.spoiled():
                raise SimulationError(f"{label}: some thread wrote just outside {pointer.name}")
        self.launches.append(kernel.instance)

    def sync(self) -> None:
        """Nothing to wait for."""

    def recorder(self) -> SimRecorder:
        """Somewhere to record launches and fills."""
        return SimRecorder(self)

    def _do(self, work: Callable[[], None]) -> None:
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)


class SimRecorder:
    """A list of launches and fills, with the very arguments that they were given."""

    def __init__(self, device: SimDevice) -> None:
        self._device = device
        self._works: list[Callable[[], None]] = []

    def run(self, step: Callable[[], T]) -> tuple[T, int]:
        """Run it; memory costs nothing here."""
        return step(), 0

    def record(self, step: Callable[[], T]) -> T:
        """Write it down."""
        self._works = self._device.recorded = []
        try:
            return step()
        finally:
            self._device.recorded = None

    def replay(self) -> None:
        """Run what was written down."""
        for work in self._works:
            work()


def _load(instance: Instance, path: Path) -> SimKernel:
    library = ctypes.CDLL(str(path))
    offsets, sizes = (ctypes.c_uint32 * 32)(), (ctypes.c_uint32 * 32)()
    count = library.pycnn_sim_parameters(offsets, sizes, 32)
    return SimKernel(instance, library, tuple(zip(offsets[:count], sizes[:count], strict=True)))


def _check_limits(label: str, grid: Extent, block: Extent, shared: int, shared_limit: int) -> None:
    threads = block[0] * block[1] * block[2]
    if not 1 <= threads <= _MOST_THREADS or any(b > most for b, most in zip(block, _MOST_BLOCK, strict=True)):
        raise SimulationError(f"{label}: a block of {block} threads; at most {_MOST_BLOCK} and {_MOST_THREADS} in all")
    if any(not 1 <= blocks <= most for blocks, most in zip(grid, _MOST_GRID, strict=True)):
        raise SimulationError(f"{label}: a grid of {grid} blocks; at least 1 and at most {_MOST_GRID}")
    if shared > shared_limit:
        raise SimulationError(f"{label}: {shared} bytes of dynamic shared memory; at most {shared_limit}")


def _pack(label: str, parameters: Sequence[tuple[int, int]], arguments: Sequence[Argument]) -> bytes:
    if len(arguments) != len(parameters):
        raise SimulationError(f"{label} takes {len(parameters)} arguments, the launch has {len(arguments)}")
    packed = bytearray(max((offset + size for offset, size in parameters), default=0))
    for (offset, size), argument in zip(parameters, arguments, strict=True):
        value = _packed(argument)
        if len(value) != size:
            raise SimulationError(f"{label}: the parameter at offset {offset} has {size} bytes, got {len(value)}")
        packed[offset : offset + size] = value
    return bytes(packed)


def _packed(argument: Argument) -> bytes:
    if isinstance(argument, Pointers):
        return argument.pack(_address)
    return argument if isinstance(argument, bytes) else _address(argument).to_bytes(8, "little")


def _address(argument: Reads | Writes) -> int:
    return 0 if argument.array is None else int(argument.array.ctypes.data)


@dataclass(frozen=True)
class _Pointer:
    """A pointer argument, and the fenced memory it points to."""

    name: str
    memory: _Memory
    written: bool


def _checked(label: str, argument: Reads | Writes) -> _Pointer:
    memory = getattr(argument.array, "memory", None)
    if memory is None:
        raise SimulationError(f"{label}: {argument.name} is not in the simulated device's memory")
    return _Pointer(argument.name, memory, isinstance(argument, Writes))


def _buffer(pointer: _Pointer) -> _Buffer:
    memory = pointer.memory
    return _Buffer(memory.begin, memory.begin + memory.size, pointer.name.encode())


def _set_writable(pointers: Sequence[_Pointer], only_outputs: bool) -> None:
    for pointer in sorted(pointers, key=lambda pointer: pointer.written):  # an output wins over an input it shares
        pointer.memory.allow_writing(pointer.written or not only_outputs)
