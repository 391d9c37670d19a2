"""A device without memory and without arithmetic: it knows the shapes of its arrays and writes down what is launched.

For finding out which kernels a network needs, and which algorithm a problem gets, on a machine with neither a GPU nor
NVRTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Extent
from pycnn.jit.sources import Instance


class ShapeArray(np.ndarray):
    """Zeros of any shape that take no memory: NumPy's functions of them, element by element, give such arrays again."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if out is not None and isinstance(out[0], ShapeArray):
            return out[0]  # nobody will look at what would be written there
        plain = [one.view(np.ndarray) if isinstance(one, ShapeArray) else one for one in inputs]
        if method != "__call__" or out is not None or ufunc.signature is not None:
            return getattr(ufunc, method)(*plain, **({} if out is None else {"out": out}), **options)
        shape = np.broadcast_shapes(*(np.shape(one) for one in plain))
        first = [one.reshape(-1)[:1].reshape(()) if isinstance(one, np.ndarray) and one.size else one for one in plain]
        with np.errstate(all="ignore"):
            return zeros(shape, ufunc(*first, **options).dtype) if math.prod(shape) else ufunc(*plain, **options)


def zeros(shape: Sequence[int], dtype: Any) -> ShapeArray:
    """Such an array."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape)).view(ShapeArray)


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
        """Only its shape."""
        return zeros(shape, dtype)

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
