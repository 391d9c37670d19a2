"""A device without memory and without arithmetic: it knows the shapes of its arrays and writes down what is launched.

For finding out which kernels a network needs, and which algorithm a problem gets, on a machine with neither a GPU nor
NVRTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Extent
from pycnn.jit.sources import Instance


class ShapeArray(np.ndarray):
    """An array whose elements nobody looks at, so that its memory is never touched and costs nothing.

    NumPy's functions of such arrays, element by element, and their reductions give such arrays again.
    """

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if out is not None and isinstance(out[0], ShapeArray):
            return out[0]
        plain = [one.view(np.ndarray) if isinstance(one, ShapeArray) else one for one in inputs]
        if out is not None or ufunc.signature is not None or method not in ("__call__", "reduce"):
            return getattr(ufunc, method)(*plain, **({} if out is None else {"out": out}), **options)
        # One element of each will do to find out the dtype, and one line of a reduction's operand.
        first = [np.zeros((1,) * one.ndim, one.dtype) if isinstance(one, np.ndarray) else one for one in plain]
        with np.errstate(all="ignore"):
            result = getattr(ufunc, method)(*first, **options)
        if method == "__call__":
            return untouched(np.broadcast_shapes(*(np.shape(one) for one in plain)), result.dtype)
        return untouched(_reduced(plain[0].shape, options.get("axis", 0), options.get("keepdims", False)), result.dtype)


def untouched(shape: Sequence[int], dtype: Any) -> ShapeArray:
    """Such an array."""
    return np.empty(tuple(shape), dtype).view(ShapeArray)


def _reduced(shape: Sequence[int], axis: Any, keepdims: bool) -> list[int]:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {one % len(shape) for one in axes}
    return [1 if i in gone else size for i, size in enumerate(shape) if keepdims or i not in gone]


class ShapesDevice:
    """See the module.

    Args:
        arch: what it pretends to be.

    Attributes:
        launched: the instances launched so far, each once, in order.
    """

    name = "cuda"

    def __init__(self, arch: str = "sm_90a") -> None:
        self.arch = arch
        self.launched: dict[Instance, None] = {}

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Only its shape will be looked at."""
        return untouched(shape, dtype)

    def fill(self, array: Array, value: Array | float) -> None:
        """Nothing to do."""

    def load(self, instance: Instance) -> Instance:
        """Its name will do."""
        return instance

    def launch(self, kernel: Instance, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        """Write it down."""
        self.launched[kernel] = None

    def sync(self) -> None:
        """Nothing to wait for."""
