"""The large arrays of a compiled network, held once: as plain arrays, in a file, or only in the layout of a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn.backends import cpu

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
        scale: a factor for each row, in float64; the products are rounded once.

    >>> w = Weight.of(np.arange(6, dtype=np.float32).reshape(3, 2)).scaled(np.array([1.0, 0.5, 0.1]))
    >>> w.shape, w.rows(1, 2)
    ((3, 2), array([[1. , 1.5]], dtype=float32))
    """

    __slots__ = ("_source", "shape")

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], rows: Rows, scale: Array | None = None) -> None:
        self.shape = shape
        self._source = rows, scale  # one attribute, so that no thread sees half of a change

    @staticmethod
    def of(array: Array) -> Weight:
        """The rows of an array, which is kept."""
        return Weight(array.shape, _Plain(array))

    def scaled(self, factors: Array) -> Weight:
        """Each row times a factor."""
        rows, scale = self._source
        return Weight(self.shape, rows, factors if scale is None else scale * factors)

    def rows(self, first: int, last: int) -> Array:
        """Rows [first, last), which nobody may write to."""
        rows, scale = self._source
        part = rows(first, last)
        return part if scale is None else cpu.scaled_rows(part, scale[first:last])

    def become(self, rows: Rows) -> None:
        """Have the same rows, scaled already, made another way."""
        self._source = rows, None

    def own(self) -> None:
        """Copy what is still a plain array of somebody else's."""
        rows, scale = self._source
        if isinstance(rows, _Plain):
            self._source = _Plain(rows.array.copy()), scale

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
        """All rows; in float64 the products before they are rounded."""
        if dtype is not None and np.dtype(dtype) == np.float64:
            rows, scale = self._source
            wide = rows(0, self.shape[0]).astype(np.float64)
            return wide if scale is None else wide * _column(scale, wide)
        array = self.rows(0, self.shape[0])
        return np.array(array, dtype) if copy or dtype not in (None, array.dtype) else array


class _Plain:
    """The rows of an array in memory."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __call__(self, first: int, last: int) -> Array:
        return self.array[first:last]


def _column(vector: Array, like: Array) -> Array:
    return vector.reshape(-1, *(1,) * (like.ndim - 1))
