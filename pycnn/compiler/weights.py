"""The large arrays of a compiled network, held once: as plain arrays, in a file, or only in the layout of a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Weight"]

Array = np.ndarray[Any, Any]
Rows = Callable[[int, int], Array]  # rows [first, last)


class Weight:
    """Filters or a matrix in float32, known by shape; its rows are made when they are asked for.

    A network's weights are read twice at most: when they are packed, and when they are saved.  In between they need
    not lie in memory a second time: `become` takes them from somewhere else from then on.

    Args:
        shape: rows first.
        rows: makes rows [first, last) as a C-contiguous array, which nobody writes to.

    Attributes:
        array: the plain array, if it is kept.

    >>> w = Weight.of(np.arange(6, dtype=np.float32).reshape(3, 2))
    >>> w.shape, w.rows(1, 2)
    ((3, 2), array([[2., 3.]], dtype=float32))
    """

    __slots__ = ("array", "rows", "shape")

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], rows: Rows) -> None:
        self.shape, self.rows = shape, rows
        self.array: Array | None = None

    @staticmethod
    def of(array: Array) -> Weight:
        """The rows of an array, which is kept."""
        weight = Weight(array.shape, lambda first, last: array[first:last])
        weight.array = array
        return weight

    def become(self, rows: Rows) -> None:
        """Make the same rows another way, and let go of the array."""
        self.rows, self.array = rows, None

    @property
    def ndim(self) -> int:
        """Dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as a plain array."""
        return 4 * self.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.rows(0, self.shape[0])
        return np.array(array, dtype) if copy or dtype not in (None, array.dtype) else array
