"""What every part of the reference shares: arithmetic in float64, one rounding at the end."""

from __future__ import annotations

from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right
Window = tuple[EllipsisType, slice, slice]  # an index of rows and columns


def wide(array: Array) -> NDArray[np.float64]:
    """`array` in float64 and C order; the same array where it is so already, so never written to."""
    return np.asarray(array, dtype=np.float64, order="C")


def rounded(result: NDArray[np.float64], dtype: np.dtype) -> Array:
    """`result` rounded once to `dtype`; overflow becomes infinity, silently, as in any float arithmetic."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(result, dtype=dtype, order="C")
