"""The machine that is played: GPUs, their memory and streams, and a driver whose launches run in the simulator.

It is stricter than the original where that is lenient: streams that do not wait for each other may not share an array,
and while a stream captures, nothing runs and nothing may be read.
Kernels arrive as they do on a GPU: a cubin, and the addresses of its parameters.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Writes
from pycnn.backends.cuda.device_sim import SimArray, SimDevice
from pycnn.jit import cubin
from pycnn.jit.sources import Instance, Sources, installed

# Streams by their handle, as those find them who are given one.
_STREAMS: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


class RaceError(RuntimeError):
    """Memory that one stream used is used by another that did not wait for it."""


class CaptureRefused(RuntimeError):
    """cudaErrorStreamCaptureUnsupported: something that cannot be part of a graph."""


class NoGpuError(RuntimeError):
    """cudaErrorInvalidDevice."""


class Block:
    """A piece of memory that some arrays share; it goes back to its pool when the last of them is gone."""

    def __init__(self, memory: np.ndarray, device_id: int) -> None:
        self.memory, self.device_id = memory, device_id


class MemoryPool:
    """cupy.cuda.MemoryPool: what is given back is given out again, with what it holds."""

    def __init__(self, allocator: Callable[[int], Any] | None = None) -> None:
        self._allocator = allocator or Memory
        self._free: dict[tuple[int, int], list[np.ndarray]] = {}
        self._total: dict[int, int] = {}

    def malloc(self, size: int) -> MemoryPointer:
        """A block of `size` bytes of the current device."""
        gpu = Gpu.playing
        size = -(-size // 512) * 512  # CuPy's unit of allocation
        key = (gpu.current, size)
        waiting = self._free.setdefault(key, [])
        if waiting:
            memory = waiting.pop()
        else:
            memory = self._allocator(size).mem.memory
            self._total[gpu.current] = self._total.get(gpu.current, 0) + size
        block = Block(memory, gpu.current)
        weakref.finalize(block, waiting.append, memory)
        return MemoryPointer(block, 0)

    def total_bytes(self) -> int:
        """Bytes taken from the current device so far."""
        return self._total.get(Gpu.playing.current, 0)


class MemoryPointer:
    """A block, and where in it."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem = getattr(mem, "block", mem)
        self.offset = offset


class Memory:
    """Fresh memory of the current device, poisoned and fenced."""

    def __init__(self, size: int) -> None:
        gpu = Gpu.playing
        gpu.allocations += 1
        self.block = Block(gpu.simulator.alloc((size,), np.uint8), gpu.current)
        self.mem = self.block


class Stream:
    """A stream: what is given to it happens at once, or is written down while it captures.

    Streams that do not wait for each other may run in any order, so each keeps count of what it did, and of how far it
    has seen the others come: an array may be used where its last use was seen.
    """

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = id(self) if not null else 0
        _STREAMS[self.ptr] = self
        self.recorded: list[Callable[[], None]] | None = None
        self.captured: dict[int, Any] = {}  # the memory that what it captures uses
        self.done = 0
        self.seen: dict[Stream, int] = {}

    def use(self, memory: Any) -> None:
        """Something started here uses this memory."""
        if self.recorded is not None:
            self.captured[id(memory)] = memory
            return
        stream, count = getattr(memory, "last_use", (self, 0))
        if stream is not self and max(self.seen.get(stream, 0), Gpu.playing.waited.get(stream, 0)) < count:
            raise RaceError("an array is used in a stream that did not wait for the one that used it before")
        self.done += 1
        memory.last_use = self, self.done

    def __enter__(self) -> Stream:
        Gpu.playing.streams.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        Gpu.playing.streams.remove(self)

    def synchronize(self) -> None:
        if self.recorded is not None:
            raise CaptureRefused("cudaStreamSynchronize while a stream captures")
        Gpu.playing.transfers.append("synchronize")
        Gpu.playing.wait(self)

    def begin_capture(self, mode: int | None = None) -> None:
        assert self.recorded is None
        self.recorded, self.captured = [], {}

    def end_capture(self) -> Graph:
        recorded, self.recorded = self.recorded, None
        assert recorded is not None
        return Graph(recorded, list(self.captured.values()))

    def is_capturing(self) -> bool:
        return self.recorded is not None

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.seen = {**self.seen, self: self.done}
        return event

    def wait_event(self, event: Event) -> None:
        for stream, count in event.seen.items():
            self.seen[stream] = max(self.seen.get(stream, 0), count)


class Graph:
    """What a stream captured."""

    def __init__(self, works: list[Callable[[], None]], memory: list[Any]) -> None:
        self.works, self.memory = works, memory

    def launch(self, stream: Stream | None = None) -> None:
        for memory in self.memory:
            (stream or Gpu.playing.stream).use(memory)
        for work in self.works:
            work()

    def upload(self, stream: Stream | None = None) -> None: ...


class Event:
    """A point in time."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.time = time.perf_counter()
        self.seen: dict[Stream, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        Gpu.playing.stream.synchronize()


class Device:
    """One of the played GPUs."""

    compute_capability = "90"

    def __init__(self, number: int | None = None) -> None:
        gpu = Gpu.playing
        self.id = gpu.current if number is None else number
        if not 0 <= self.id < gpu.count:
            raise NoGpuError(f"cudaErrorInvalidDevice: there is no GPU {number}")

    def __enter__(self) -> Device:
        gpu = Gpu.playing
        switched = self.id != gpu.current
        gpu.device_stack.append(self.id)
        if switched:
            gpu.enter_context()
        return self

    def __exit__(self, *exc: object) -> None:
        Gpu.playing.device_stack.pop()
        Gpu.playing.enter_context()  # cudaSetDevice

    def use(self) -> None:
        Gpu.playing.device_stack[-1] = self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def __str__(self) -> str:
        return f"<CUDA Device {self.id}>"


def do(work: Callable[[], None]) -> None:
    stream = Gpu.playing.stream
    if stream.recorded is not None:
        stream.recorded.append(work)
    else:
        with np.errstate(all="ignore"):
            work()


def hand_over(stream: int | None) -> None:
    """The stream of a consumer, as DLPack and the CUDA array interface number it, waits for the current one."""
    if stream != -1:
        _STREAMS[_handle(stream)].wait_event(Gpu.playing.stream.record())


def take_over(stream: int | None) -> None:
    """The current stream waits for that of a producer."""
    if stream is not None:
        Gpu.playing.stream.wait_event(_STREAMS[_handle(stream)].record())


def _handle(stream: int | None) -> int:
    assert stream != 0, "0 is ambiguous, so both protocols forbid it"
    return 0 if stream in (None, 1) else stream


class Gpu:
    """The played machine: how many GPUs, and what has been asked of them.

    Attributes:
        module: the stand-in for `cupy`.
        launches: names of the kernels launched, `kernel[instance]`, in order.
        transfers: what the host has waited for.
        loaded: modules loaded, (GPU, instance).
    """

    playing: Gpu
    module: Any

    def __init__(self, count: int = 1, sources: Sources | None = None, simulator: SimDevice | None = None) -> None:
        Gpu.playing = self
        self.count, self.peers = count, False
        self.simulator = simulator or SimDevice(sources=sources)
        self.sources = sources or installed()
        self.launches: list[str] = []
        self.transfers: list[str] = []
        self.loaded: list[tuple[int, Instance]] = []
        self.given: list[Instance] = []  # kernels from elsewhere that may come, too
        self.attributes: list[tuple[int, int]] = []
        self.allocations = self.uploads = 0
        self.waited: dict[Stream, int] = {}  # how far the host has seen each stream come
        self.device_stack = [0]
        self.streams = [Stream(null=True)]
        self.allocators: list[Callable[[int], Any]] = []
        self._contexts: set[tuple[int, int]] = set()  # (thread, GPU)
        self._arrays: dict[int, weakref.ref[Any]] = {}
        self._functions: dict[int, tuple[Any, cubin.Cubin, int]] = {}

    @property
    def current(self) -> int:
        """The current device."""
        return self.device_stack[-1]

    @property
    def stream(self) -> Stream:
        """The current stream."""
        return self.streams[-1]

    def enter_context(self) -> tuple[int, int]:
        """A call of the runtime (here cudaMemGetInfo), which gives its thread the context of the current GPU."""
        self._contexts.add((threading.get_ident(), self.current))
        return 0, 0

    def transfer(self, what: str) -> None:
        """The host waits for the GPU."""
        if self.stream.recorded is not None:
            raise CaptureRefused(f"{what}: the host waits for a result while a stream captures")
        self.transfers.append(what)
        self.wait(self.stream)

    def wait(self, stream: Stream) -> None:
        """The host has seen all of a stream, and what that had waited for."""
        for other, count in {**stream.seen, stream: stream.done}.items():
            self.waited[other] = max(self.waited.get(other, 0), count)

    def know(self, host: np.ndarray) -> None:
        """Remember the memory of an array, so that a launch finds it by its address."""
        memory = getattr(host, "memory", None)
        assert memory is not None
        if memory.begin not in self._arrays:
            gone = partial(self._arrays.pop, memory.begin, None)
            self._arrays[memory.begin] = weakref.ref(memory, lambda _: gone())

    def memory_at(self, address: int) -> Any:
        """The memory that holds an address."""
        for reference in self._arrays.values():
            memory = reference()
            if memory is not None and memory.begin <= address < memory.begin + max(memory.size, 1):
                return memory
        raise AssertionError(f"{address:#x} is no memory of a GPU")

    def _argument(self, value: bytes) -> Argument:
        """A parameter as the simulator checks it: a pointer into an array that is there, or plain bytes."""
        if len(value) != 8:
            return value
        address = int.from_bytes(value, "little")
        if address < 2**20:
            return value
        for begin, reference in self._arrays.items():
            memory = reference()
            if memory is not None and begin <= address <= begin + memory.size:
                offset = address - begin
                self.stream.use(memory)
                rest = (memory.size - offset,)
                host = np.ndarray.__new__(SimArray, rest, np.uint8, memory.map, memory.offset + offset)
                host.memory = memory
                return Writes(f"the array at {address:#x}", host)
        return value

    def launch(self, function: int, *rest: Any) -> None:
        """cuLaunchKernel: reads each parameter from the address in the list, as many bytes as the cubin says."""
        grid, block, (shared, stream, parameters, extra) = rest[0:3], rest[3:6], rest[6:]
        assert (threading.get_ident(), self.current) in self._contexts, "a launch in a thread without a context"
        assert stream == self.stream.ptr, "a launch outside the current stream"
        assert extra == 0
        kernel, compiled, owner = self._functions[function]
        assert owner == self.current, f"{kernel.instance} of GPU {owner} launched on GPU {self.current}"
        addresses = (ctypes.c_void_p * len(compiled.parameters)).from_address(parameters)
        values = [
            self._argument(ctypes.string_at(address, size))
            for address, (_, size) in zip(addresses, compiled.parameters, strict=True)
        ]
        label = str(kernel.instance)

        def work() -> None:
            self.simulator.launch(kernel, grid, block, shared, values)
            self.launches.append(label)

        do(work)

    def load(self, image: bytes) -> tuple[int, cubin.Cubin]:
        """cuModuleLoadData and cuModuleGetFunction."""
        if self.stream.recorded is not None:
            raise CaptureRefused("a module is loaded while a stream captures")
        compiled = cubin.Cubin.read(image)
        instance = next(i for i in (*self.sources.instances, *self.given) if is_entry(compiled.entry, i))
        handle = len(self._functions) + 1
        self._functions[handle] = (self.simulator.load(instance), compiled, self.current)
        self.loaded.append((self.current, instance))
        return handle, compiled


def is_entry(name: str, instance: Instance) -> bool:
    """Whether `name` is the mangled name of an instance's kernel: it holds kernel, tile and the tile's values."""
    if not instance.tile_type:
        return name.startswith(f"_Z{len(instance.kernel)}{instance.kernel}")
    values = list(instance.tile.values())
    tiles = set()
    for count in (len(values), *(i for i in range(len(values)) if not any(values[i:]))):  # zeros at the end may lack
        listed = "".join(f"ELi{value}" if value >= 0 else f"ELin{-value}" for value in values[:count])
        tiles.add(f"{instance.tile_type}{listed}EE")
    return f"{len(instance.kernel)}{instance.kernel}I" in name and any(tile in name for tile in tiles)
