"""A device that computes nothing and writes down what it is asked to launch.

The host code plans on it as it does on a GPU, so what it would launch there is known without one.  The arrays are as
large as they say and take no memory, and arithmetic on them gives more of the kind.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Extent
from pycnn.jit.sources import Instance

__all__ = ["Hollow", "TraceDevice", "hollow"]

_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Hollow(np.ndarray):
    """An array of zeros that nothing can be written into: pages of memory that are never there.

    NumPy's ufuncs, reductions, ``concatenate`` and ``where`` give hollow arrays of the shape and dtype that their
    results would have, and compute nothing.  What asks for its values (an element, a sort, a copy by a function of
    NumPy's) finds zeros.
    """

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "at":
            return None
        out = options.pop("out", None)
        if out is not None:
            return out[0] if len(out) == 1 else out
        if method == "__call__" and ufunc.signature is None:
            return _broadcast(ufunc, inputs, options)
        if method == "reduce":
            return _reduced(ufunc, inputs[0], *inputs[1:], **options)
        return getattr(ufunc, method)(*map(_plain, inputs), **options)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, options: Any) -> Any:
        if function is np.copyto:
            return None
        if function is np.concatenate:
            return _joined(*args, **options)
        if function is np.where and len(args) == 3:
            shape = np.broadcast_shapes(*map(np.shape, args))
            return hollow(shape, np.where(*map(_sample, args)).dtype)
        return super().__array_function__(function, types, args, options)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Nothing to write into."""

    def fill(self, value: Any) -> None:
        """Nothing to write into."""

    def copy(self, order: Any = "C") -> Hollow:
        """Another one."""
        return hollow(self.shape, self.dtype)

    def astype(self, dtype: Any, *rest: Any, copy: bool = True, **options: Any) -> Hollow:  # type: ignore[override]
        """Another one, of that dtype."""
        return self if not copy and np.dtype(dtype) == self.dtype else hollow(self.shape, dtype)


def hollow(shape: Sequence[int], dtype: Any) -> Hollow:
    """A C-contiguous array that takes no memory, at the start of a page.

    >>> huge = hollow((2**20, 2**20), "float32")
    >>> (huge + 1.0).sum(axis=0).shape, (huge + np.float64(1)).dtype
    ((1048576,), dtype('float64'))
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    # Read-only private pages are not counted as memory by any policy of Linux, and reading them maps the page of zeros.
    pages = mmap.mmap(-1, max(size, 1), flags=_FLAGS, prot=mmap.PROT_READ)
    return np.ndarray.__new__(Hollow, tuple(shape), dtype, pages)


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, Hollow) else value


def _sample(value: Any) -> Any:
    """One element in as many dimensions; a number as it is."""
    return np.ones((1,) * value.ndim, value.dtype) if isinstance(value, np.ndarray) else value


def _broadcast(ufunc: np.ufunc, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    shape = np.broadcast_shapes(*map(np.shape, inputs))
    options.pop("where", None)
    results = ufunc(*map(_sample, inputs), **options)
    if isinstance(results, tuple):
        return tuple(hollow(shape, result.dtype) for result in results)
    return hollow(shape, results.dtype)


def _reduced(ufunc: np.ufunc, x: Any, axis: Any = 0, dtype: Any = None, *rest: Any, **options: Any) -> Hollow:
    every = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = {int(one) % max(x.ndim, 1) for one in every}
    keep = options.get("keepdims", False)
    shape = [1 if i in axes else size for i, size in enumerate(x.shape) if keep or i not in axes]
    return hollow(shape, ufunc.reduce(_sample(x), axis=axis, dtype=dtype).dtype)


def _joined(arrays: Sequence[Any], axis: int = 0, **options: Any) -> Hollow:
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    return hollow(shape, np.result_type(*arrays))


class TraceDevice:
    """Nowhere: a `Device` that writes down.

    Args:
        arch: what to plan for.

    Attributes:
        launches: the instances launched so far, in order.
    """

    name = "cuda"
    chip = ("", 0)

    def __init__(self, arch: str = "sm_90a") -> None:
        self.arch = arch
        self.launches: list[Instance] = []

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A hollow array."""
        return hollow(shape, dtype)

    def fill(self, array: Array, value: Array | float) -> None:
        """Nothing to write into."""

    def load(self, instance: Instance) -> Instance:
        """The instance itself.  Raises ValueError if it is not made for this arch."""
        if self.arch not in instance.archs:
            raise ValueError(f"{instance} is for {', '.join(instance.archs)}, not {self.arch}")
        return instance

    def launch(self, kernel: Instance, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        """Write down."""
        self.launches.append(kernel)

    def sync(self) -> None:
        """Nothing to wait for."""
