"""A CuPy that is played: its arrays lie in the simulator's fenced memory, and the driver's launches run there.

`Gpu().module` stands in for `cupy`.  It is stricter than the original where that is lenient, so that what runs here
runs there: arrays are no NumPy arrays and never become one unasked, NumPy's functions and arrays are refused, a scalar
read from an array is a transfer that is counted, streams that do not wait for each other may not share an array, and
while a stream captures, nothing runs and nothing may be read.
Kernels arrive as they do on a GPU: a cubin, and the addresses of its parameters.
"""

from __future__ import annotations

import ctypes
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import played_dlpack

from pycnn.backends.cuda.device import Argument, Writes
from pycnn.backends.cuda.device_sim import SimArray, SimDevice
from pycnn.jit import cubin, nvrtc
from pycnn.jit.sources import Instance, Sources, installed

# Streams by their handle, as those find them who are given one.
_STREAMS: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


class RaceError(RuntimeError):
    """Memory that one stream used is used by another that did not wait for it."""


class CaptureRefused(RuntimeError):
    """cudaErrorStreamCaptureUnsupported: something that cannot be part of a graph."""


class NoGpuError(RuntimeError):
    """cudaErrorInvalidDevice."""


class _Block:
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
        block = _Block(memory, gpu.current)
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
        self.block = _Block(gpu.simulator.alloc((size,), np.uint8), gpu.current)
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
        import time

        self.time = time.perf_counter()
        self.seen: dict[Stream, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        import time

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


class Ndarray:
    """cupy.ndarray.  `host` is the memory as the simulator sees it; nothing but this file and kernels may touch it."""

    __array_ufunc__ = None  # NumPy's functions and operators leave it alone
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray, block: _Block, base: Ndarray | None = None) -> None:
        self._host, self.block, self.base = host, block, base

    @property
    def _used(self) -> Any:
        """The memory, to be used in the current stream."""
        Gpu.playing.stream.use(self._host.memory)  # type: ignore[attr-defined]
        return self._host

    # -- what it is

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: Device(self.block.device_id))
    T = property(lambda self: self.transpose())

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=int(self._host.ctypes.data), device_id=self.block.device_id, mem=self.block)

    def __array__(self, *given: Any, **options: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __len__(self) -> int:
        return len(self._host)

    # -- to other libraries

    def __dlpack_device__(self) -> tuple[int, int]:
        return played_dlpack.CUDA, self.block.device_id

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        hand_over(stream)
        return played_dlpack.capsule(_plain(self._host), self.block.device_id, options)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return played_dlpack.interface(self._host, Gpu.playing.stream.ptr)

    # -- back to the host

    def get(self) -> np.ndarray:
        host = self._used
        Gpu.playing.transfer("get")
        return np.array(host, order="C")  # whatever the order of the original

    def set(self, values: np.ndarray) -> None:
        assert (self.shape, self.dtype) == (values.shape, values.dtype)
        Gpu.playing.transfer("set")
        copy = values.copy()
        target = self._used
        _do(lambda: np.copyto(target, copy))

    def item(self) -> Any:
        host = self._used
        Gpu.playing.transfer("item")
        return host.item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        host = self._used
        Gpu.playing.transfer("bool")
        return bool(host)

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __repr__(self) -> str:
        return f"played {self._used!r}"

    def __reduce__(self) -> Any:
        return asarray, (self.get(),)

    # -- views

    def _view(self, host: np.ndarray) -> Ndarray:
        return Ndarray(host, self.block, self if self.base is None else self.base)

    def view(self, dtype: Any = None) -> Ndarray:
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def transpose(self, *axes: Any) -> Ndarray:
        return self._view(self._host.transpose(*axes))

    def squeeze(self, axis: Any = None) -> Ndarray:
        return self._view(self._host.squeeze(axis))

    def reshape(self, *shape: Any, order: str = "C") -> Ndarray:
        result = self._host.reshape(*shape)
        if self.size == 0 or np.shares_memory(result, self._host, max_work=1):
            return self._view(result)
        host = _plain(self._used)
        return _compute(lambda: host.reshape(*shape))

    def ravel(self, order: str = "C") -> Ndarray:
        return self.reshape(-1)

    def __getitem__(self, index: Any) -> Ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, np.ndarray):
                raise TypeError(f"Unsupported type {type(part)}")
        basic = all(part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)) for part in parts)
        if basic and not any(isinstance(part, bool) for part in parts):
            whole = any(part is Ellipsis for part in parts)
            return self._view(self._host[parts if whole else (*parts, ...)])
        if any(isinstance(part, Ndarray) and part.dtype.kind == "b" for part in parts):
            Gpu.playing.transfer("boolean index")  # how many there are
        host = _plain(self._used)
        place = _index(index)
        return _compute(lambda: host[place])

    def __setitem__(self, index: Any, value: Any) -> None:
        other, host = _operand(value), self._used
        if other is NotImplemented:
            raise TypeError(f"Unsupported type {type(value)}")
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if isinstance(part, np.ndarray):
                raise TypeError(f"Unsupported type {type(part)}")

        place = _index(index)

        def work() -> None:
            host[place] = other

        _do(work)

    # -- copies and reductions

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> Ndarray:
        if not copy and self.dtype == dtype:
            return self
        host = _plain(self._used)
        return _compute(lambda: host.astype(dtype, order=order), order)

    def copy(self, order: str = "C") -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.copy(order), order)

    def fill(self, value: Any) -> None:
        self[...] = value

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.sum(axis=axis, dtype=dtype, keepdims=keepdims))

    def argmax(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: np.argmax(host, axis=axis, keepdims=keepdims))

    def argmin(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: np.argmin(host, axis=axis, keepdims=keepdims))

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.max(axis=axis, keepdims=keepdims))

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.min(axis=axis, keepdims=keepdims))

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.mean(axis=axis, keepdims=keepdims))

    def all(self, axis: Any = None) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.all(axis=axis))

    def any(self, axis: Any = None) -> Ndarray:
        host = _plain(self._used)
        return _compute(lambda: host.any(axis=axis))


Ndarray.__name__ = Ndarray.__qualname__ = "ndarray"
Ndarray.__module__ = "cupy"


def _plain(host: np.ndarray) -> np.ndarray:
    return host.view(np.ndarray)


def _operand(value: Any) -> Any:
    """What NumPy computes with: the memory itself, which keeps no array alive, a scalar, or NotImplemented."""
    if isinstance(value, Ndarray):
        gpu = Gpu.playing
        if value.block.device_id != gpu.current and not gpu.peers:
            raise ValueError(f"Array device must be same as the current device: {value.block.device_id}, {gpu.current}")
        return _plain(value._used)
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value if isinstance(value, (int, float, complex, bool, np.generic)) else NotImplemented


def _value(value: Any) -> Any:
    found = _operand(value)
    if found is NotImplemented:
        raise TypeError(f"Unsupported type {type(value)}")
    return found


def _index(index: Any) -> Any:
    def one(part: Any) -> Any:
        return _plain(part._used) if isinstance(part, Ndarray) else part

    return tuple(map(one, index)) if isinstance(index, tuple) else one(index)


def _do(work: Callable[[], None]) -> None:
    stream = Gpu.playing.stream
    if stream.recorded is not None:
        stream.recorded.append(work)
    else:
        with np.errstate(all="ignore"):
            work()


def _compute(function: Callable[[], Any], order: str = "C") -> Ndarray:
    """A new array of what `function` gives; while a stream captures, of its shape, and the values come in a replay.

    It is in C order, as CuPy's ufuncs have it, unless the caller of a copy asked for that of the original ("K").
    """
    with np.errstate(all="ignore"):
        value = np.asarray(function())
    axes = sorted(range(value.ndim), key=lambda i: -value.strides[i]) if order == "K" else range(value.ndim)
    inner = empty([value.shape[i] for i in axes], value.dtype)
    host = inner._used.transpose(np.argsort(axes))
    out = inner if order != "K" else Ndarray(host, inner.block)

    def work() -> None:
        host[...] = value

    def again() -> None:
        with np.errstate(all="ignore"):
            host[...] = function()

    _do(again if Gpu.playing.stream.recorded is not None else work)
    return out


def _binary(function: Callable[[Any, Any], Any], swapped: bool = False) -> Callable[[Ndarray, Any], Any]:
    def method(self: Ndarray, other: Any) -> Any:
        right = _operand(other)
        if right is NotImplemented:
            return NotImplemented
        left = _operand(self)
        return _compute(lambda: function(right, left) if swapped else function(left, right))

    return method


def _unary(function: Callable[[Any], Any]) -> Callable[[Ndarray], Ndarray]:
    return lambda self: _compute(partial(function, _plain(self._used)))


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[[Ndarray, Any], Ndarray]:
    def method(self: Ndarray, other: Any) -> Ndarray:
        right, left = _operand(other), _operand(self)
        if right is NotImplemented:
            return NotImplemented

        def work() -> None:
            with np.errstate(all="ignore"):
                function(left, right)

        _do(work)
        return self

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "and_", "or_", "mod"):
    _word = _name.rstrip("_")
    setattr(Ndarray, f"__{_word}__", _binary(getattr(operator, _name)))
    setattr(Ndarray, f"__r{_word}__", _binary(getattr(operator, _name), True))
    if _name != "matmul":
        setattr(Ndarray, f"__i{_word}__", _in_place(getattr(operator, f"i{_word}")))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Ndarray, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Ndarray, f"__{_name}__", _unary(getattr(operator, _name)))


# ------------------------------------------------------------------------------------------------ functions of cupy


def empty(shape: Any, dtype: Any = float, order: str = "C") -> Ndarray:
    """Memory of the pool in force: poisoned where it is fresh."""
    gpu = Gpu.playing
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if gpu.allocators:
        block = gpu.allocators[-1](size).mem
        host = block.memory[:size].view(dtype).reshape(shape)
    else:
        host = gpu.simulator.alloc(shape, dtype)
        block = _Block(host, gpu.current)
    gpu.know(host)
    return Ndarray(host, block)


def asarray(value: Any, dtype: Any = None) -> Ndarray:
    """An array of the current device: `value` itself where it is one."""
    if not isinstance(value, Ndarray) and hasattr(value, "__cuda_array_interface__"):
        found = value.__cuda_array_interface__
        take_over(found["stream"])
        return Gpu.playing.find(played_dlpack.from_interface(found), Gpu.playing.current)
    if isinstance(value, Ndarray):
        if value.block.device_id != Gpu.playing.current:
            other = value._used
            value = _compute(lambda: _plain(other))
        return value if dtype is None or value.dtype == dtype else value.astype(dtype)
    value = np.asarray(value, dtype)
    gpu = Gpu.playing
    if gpu.stream.recorded is not None:
        raise CaptureRefused("a copy from pageable memory while a stream captures")
    gpu.uploads += 1
    result = empty(value.shape, value.dtype)
    result._used[...] = value
    return result


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


def from_dlpack(array: Any) -> Ndarray:
    """A view of what another library holds on a GPU."""
    kind, number = array.__dlpack_device__()
    assert kind == played_dlpack.CUDA, "the copy from the host is left out"
    ptr = Gpu.playing.stream.ptr
    made = array.__dlpack__(stream=1 if ptr == 0 else ptr, max_version=(1, 0))
    return Gpu.playing.find(played_dlpack.view(made), number)


def _filled(shape: Any, value: Any, dtype: Any) -> Ndarray:
    result = empty(shape, dtype)
    result[...] = value
    return result


def _like(function: Callable[..., Ndarray]) -> Callable[..., Ndarray]:
    def wrapped(array: Ndarray, *rest: Any, dtype: Any = None, order: str = "K") -> Ndarray:
        return function(array.shape, *rest, dtype=array.dtype if dtype is None else dtype)

    return wrapped


def zeros(shape: Any, dtype: Any = float) -> Ndarray:
    return _filled(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> Ndarray:
    return _filled(shape, 1, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Ndarray:
    return _filled(shape, fill_value, np.asarray(fill_value).dtype if dtype is None else dtype)


class _Ufunc:
    """A function of one or two arrays, element by element."""

    def __init__(self, name: str) -> None:
        self._function = getattr(np, name)

    def __call__(self, *arrays: Any, out: Ndarray | None = None) -> Ndarray:
        values = [_value(array) for array in arrays]
        if out is None:
            return _compute(partial(self._function, *values))
        target = out._used
        _do(lambda: np.copyto(target, self._function(*values), casting="same_kind"))
        return out

    def at(self, array: Ndarray, index: Any, value: Any) -> None:
        _do(partial(self._function.at, _plain(array._used), _index(index), _value(value)))


UFUNCS = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", "exp", "log", "sqrt", "sign", "isfinite"),
    *("floor", "ceil", "rint", "sin", "cos", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "arcsinh", "arccosh", "arctanh", "fmod"),
)


def concatenate(arrays: Sequence[Ndarray], axis: int = 0) -> Ndarray:
    return _compute(partial(np.concatenate, [_value(array) for array in arrays], axis))


def stack(arrays: Sequence[Ndarray], axis: int = 0) -> Ndarray:
    return _compute(partial(np.stack, [_value(array) for array in arrays], axis))


def where(condition: Any, a: Any, b: Any) -> Ndarray:
    return _compute(partial(np.where, _value(condition), _value(a), _value(b)))


def clip(x: Any, low: Any, high: Any, out: Ndarray | None = None) -> Ndarray:
    if out is None:
        return _compute(partial(np.clip, _value(x), low, high))
    _do(partial(np.clip, _value(x), low, high, out=_plain(out._used)))
    return out


def take_along_axis(x: Ndarray, index: Ndarray, axis: int) -> Ndarray:
    return _compute(partial(np.take_along_axis, _value(x), _value(index), axis))


def copyto(target: Ndarray, source: Any, casting: Any = "same_kind", where: Any = None) -> None:
    _do(partial(np.copyto, target._used, _value(source), casting=casting))


def expand_dims(x: Ndarray, axis: int) -> Ndarray:
    return x._view(np.expand_dims(x._host, axis))


def broadcast_to(x: Ndarray, shape: Any) -> Ndarray:
    return x._view(np.broadcast_to(x._host, shape, subok=True))


def vdot(a: Ndarray, b: Ndarray) -> Ndarray:
    return _compute(partial(np.vdot, _value(a), _value(b)))


def arange(*given: Any, dtype: Any = None) -> Ndarray:
    value = np.arange(*given, dtype=dtype)
    return _compute(lambda: value)


class _Ogrid:
    def __getitem__(self, slices: Any) -> list[Ndarray]:
        return [_compute(lambda one=one: one) for one in np.ogrid[slices]]


class Gpu:
    """The played machine: how many GPUs, and what has been asked of them.

    Attributes:
        module: the stand-in for `cupy`.
        launches: names of the kernels launched, `kernel[instance]`, in order.
        transfers: what the host has waited for.
        loaded: modules loaded, (GPU, instance).
    """

    playing: Gpu

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
        self.module = _cupy(self)

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

    def find(self, seen: np.ndarray, number: int) -> Ndarray:
        """The array of a GPU whose memory NumPy has been shown."""
        address = int(seen.ctypes.data)
        for reference in self._arrays.values():
            memory = reference()
            if memory is not None and memory.begin <= address < memory.begin + max(memory.size, 1):
                offset = memory.offset + address - memory.begin
                host = np.ndarray.__new__(SimArray, seen.shape, seen.dtype, memory.map, offset, seen.strides)
                host.memory = memory
                return Ndarray(host, _Block(host, number))
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

        _do(work)

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


def _cupy(gpu: Gpu) -> Any:
    """The module."""
    module: Any = ModuleType("cupy")
    module.__path__ = []
    for function in (
        *(empty, asarray, zeros, ones, full, concatenate, stack, where, clip, take_along_axis, copyto, expand_dims),
        *(broadcast_to, vdot, arange, from_dlpack),
    ):
        setattr(module, function.__name__, function)
    for name in UFUNCS:
        setattr(module, name, _Ufunc(name))
    for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "uint32", "uint64", "bool_", "newaxis"):
        setattr(module, name, getattr(np, name))
    module.ndarray, module.__version__ = Ndarray, "14.0.0"
    module.array = lambda value, dtype=None: asarray(value, dtype).copy()
    module.ascontiguousarray = lambda x: x if x.flags.c_contiguous else x.copy()
    module.asnumpy = lambda x: x.get() if isinstance(x, Ndarray) else np.asarray(x)
    module.empty_like, module.zeros_like, module.ones_like = _like(empty), _like(zeros), _like(ones)
    module.full_like = _like(full)
    module.abs = lambda x: abs(x)
    module.ogrid = _Ogrid()
    module.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    module.RawKernel = lambda code, name: lambda grid, block, arguments: None  # somebody else's, so not run

    class Module:
        def load(self, image: bytes) -> None:
            self._handle, self._cubin = gpu.load(image)

        def get_function(self, name: str) -> Any:
            assert name == self._cubin.entry
            return SimpleNamespace(ptr=self._handle, module=self)

    @contextmanager
    def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
        gpu.allocators.append(allocator)
        try:
            yield
        finally:
            gpu.allocators.pop()

    cuda: Any = ModuleType("cupy.cuda")
    cuda.Device, cuda.Stream, cuda.Event, cuda.Graph = Device, Stream, Event, Graph
    cuda.MemoryPool, cuda.Memory, cuda.MemoryPointer = MemoryPool, Memory, MemoryPointer
    cuda.using_allocator = using_allocator
    cuda.set_allocator = lambda allocator: None  # fenced one by one as they are
    cuda.get_current_stream = lambda: gpu.stream
    cuda.get_elapsed_time = lambda start, end: (end.time - start.time) * 1e3
    cuda.function = SimpleNamespace(Module=Module)
    cuda.driver = SimpleNamespace(launchKernel=gpu.launch, funcSetAttribute=lambda *given: gpu.attributes.append(given))
    cuda.runtime = SimpleNamespace(
        getDevice=lambda: gpu.current,
        getDeviceCount=lambda: gpu.count,
        memGetInfo=gpu.enter_context,
        CUDARuntimeError=NoGpuError,
        driverGetVersion=lambda: 13000,
        deviceGetAttribute=lambda attribute, number: {13: 1980000, 16: 132}[attribute],
        getDeviceProperties=lambda number: {"name": b"played", "l2CacheSize": 2**20, "multiProcessorCount": 132},
    )
    cuda.nvrtc = nvrtc._load()
    module.cuda = cuda
    return module


@contextmanager
def playing(count: int = 1, **options: Any) -> Iterator[Gpu]:
    """A played machine in place of CuPy until the end of the block."""
    from pycnn.backends.cuda import bound

    gpu = Gpu(count, **options)
    before = {name: each for name, each in sys.modules.items() if name.partition(".")[0] == "cupy"}
    for name in before:
        del sys.modules[name]
    sys.modules["cupy"], sys.modules["cupy.cuda"] = gpu.module, gpu.module.cuda
    hosts = dict(bound._hosts)
    bound._hosts.clear()
    try:
        yield gpu
    finally:
        bound._hosts.clear()
        bound._hosts.update(hosts)
        for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
            del sys.modules[name]
        sys.modules.update(before)
