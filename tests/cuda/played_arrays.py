"""The arrays of the played CuPy, which lie in the simulator's fenced memory, and the functions that make them.

They are stricter than the originals where those are lenient, so that what runs here runs there: they are no NumPy
arrays and never become one unasked, NumPy's functions and arrays are refused, and a scalar read from an array is a
transfer that is counted.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import played_dlpack
from played_gpu import Block, CaptureRefused, Device, Gpu, do, hand_over, take_over

from pycnn.backends.cuda.device_sim import SimArray


class Ndarray:
    """cupy.ndarray.  `host` is the memory as the simulator sees it; nothing but this file and kernels may touch it."""

    __array_ufunc__ = None  # NumPy's functions and operators leave it alone
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray, block: Block, base: Ndarray | None = None) -> None:
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
        do(lambda: np.copyto(target, copy))

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

        do(work)

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

    do(again if Gpu.playing.stream.recorded is not None else work)
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

        do(work)
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
        block = Block(host, gpu.current)
    gpu.know(host)
    return Ndarray(host, block)


def asarray(value: Any, dtype: Any = None) -> Ndarray:
    """An array of the current device: `value` itself where it is one."""
    if not isinstance(value, Ndarray) and hasattr(value, "__cuda_array_interface__"):
        found = value.__cuda_array_interface__
        take_over(found["stream"])
        return array_at(played_dlpack.from_interface(found), Gpu.playing.current)
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


def array_at(seen: np.ndarray, number: int) -> Ndarray:
    """The array of GPU `number` whose memory NumPy has been shown."""
    address = int(seen.ctypes.data)
    memory = Gpu.playing.memory_at(address)
    host = np.ndarray.__new__(
        SimArray, seen.shape, seen.dtype, memory.map, memory.offset + address - memory.begin, seen.strides
    )
    host.memory = memory
    return Ndarray(host, Block(host, number))


def from_dlpack(array: Any) -> Ndarray:
    """A view of what another library holds on a GPU."""
    kind, number = array.__dlpack_device__()
    assert kind == played_dlpack.CUDA, "the copy from the host is left out"
    ptr = Gpu.playing.stream.ptr
    made = array.__dlpack__(stream=1 if ptr == 0 else ptr, max_version=(1, 0))
    return array_at(played_dlpack.view(made), number)


def _filled(shape: Any, value: Any, dtype: Any) -> Ndarray:
    result = empty(shape, dtype)
    result[...] = value
    return result


def like(function: Callable[..., Ndarray]) -> Callable[..., Ndarray]:
    def wrapped(array: Ndarray, *rest: Any, dtype: Any = None, order: str = "K") -> Ndarray:
        return function(array.shape, *rest, dtype=array.dtype if dtype is None else dtype)

    return wrapped


def zeros(shape: Any, dtype: Any = float) -> Ndarray:
    return _filled(shape, 0, dtype)


def ones(shape: Any, dtype: Any = float) -> Ndarray:
    return _filled(shape, 1, dtype)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Ndarray:
    return _filled(shape, fill_value, np.asarray(fill_value).dtype if dtype is None else dtype)


class Ufunc:
    """A function of one or two arrays, element by element."""

    def __init__(self, name: str) -> None:
        self._function = getattr(np, name)

    def __call__(self, *arrays: Any, out: Ndarray | None = None) -> Ndarray:
        values = [_value(array) for array in arrays]
        if out is None:
            return _compute(partial(self._function, *values))
        target = out._used
        do(lambda: np.copyto(target, self._function(*values), casting="same_kind"))
        return out

    def at(self, array: Ndarray, index: Any, value: Any) -> None:
        do(partial(self._function.at, _plain(array._used), _index(index), _value(value)))


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
    do(partial(np.clip, _value(x), low, high, out=_plain(out._used)))
    return out


def take_along_axis(x: Ndarray, index: Ndarray, axis: int) -> Ndarray:
    return _compute(partial(np.take_along_axis, _value(x), _value(index), axis))


def copyto(target: Ndarray, source: Any, casting: Any = "same_kind", where: Any = None) -> None:
    do(partial(np.copyto, target._used, _value(source), casting=casting))


def expand_dims(x: Ndarray, axis: int) -> Ndarray:
    return x._view(np.expand_dims(x._host, axis))


def broadcast_to(x: Ndarray, shape: Any) -> Ndarray:
    return x._view(np.broadcast_to(x._host, shape, subok=True))


def vdot(a: Ndarray, b: Ndarray) -> Ndarray:
    return _compute(partial(np.vdot, _value(a), _value(b)))


def arange(*given: Any, dtype: Any = None) -> Ndarray:
    value = np.arange(*given, dtype=dtype)
    return _compute(lambda: value)


class Ogrid:
    def __getitem__(self, slices: Any) -> list[Ndarray]:
        return [_compute(lambda one=one: one) for one in np.ogrid[slices]]
