"""How the four axes (N, C, H, W) of an array lie in memory: as NCHW, or channels-last, as N, H, W, C.

Strides alone say it; no array carries a mark.  Where C = 1 or H = W = 1 both are the same memory, and the strides of
the axes of size 1, which no element's place depends on, say what its maker meant: canonical ones are

                     n        c        h        w
    NCHW             C*H*W    H*W      W        1
    channels-last    H*W*C    1        W*C      C

Reference: PyTorch, c10/core/MemoryFormat.h, is_channels_last_strides_2d, for telling them apart by strides.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

__all__ = [
    "MemoryFormat",
    "channels_last",
    "contiguous_format",
    "is_channels_last",
    "is_dense",
    "is_last",
    "lie_alike",
    "lies_as",
    "new_array",
    "wants_channels_last",
]

Array = Any


class MemoryFormat(Enum):
    """PyTorch's names for the two; `pycnn.channels_last` and `pycnn.contiguous_format` are its members."""

    contiguous_format = "contiguous_format"
    channels_last = "channels_last"

    def __repr__(self) -> str:
        return f"pycnn.{self.value}"


contiguous_format, channels_last = MemoryFormat.contiguous_format, MemoryFormat.channels_last


def is_channels_last(array: Array) -> bool:
    """Whether neighbouring channels are neighbours in memory, then columns, rows and images, without gaps.

    >>> import numpy as np
    >>> is_channels_last(np.zeros((2, 5, 5, 3)).transpose(0, 3, 1, 2)), is_channels_last(np.zeros((2, 3, 5, 5)))
    (True, False)
    """
    if array.ndim != 4:
        return False
    n, c, h, w = array.shape
    if array.flags.c_contiguous:  # then both only where the order of the axes does not matter
        return bool(n == 0 or c <= 1 or h * w <= 1)
    step = array.dtype.itemsize
    to_n, to_c, to_h, to_w = array.strides
    for size, stride in ((c, to_c), (w, to_w), (h, to_h), (n, to_n)):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def is_dense(array: Array) -> bool:
    """Whether its elements are one piece of memory, in C order or channels-last."""
    return bool(array.flags.c_contiguous) or is_channels_last(array)


def lies_as(array: Array, last: bool) -> bool:
    """Whether it is dense and channels-last (`last`) or in C order."""
    return is_channels_last(array) if last else bool(array.flags.c_contiguous)


def lie_alike(a: Array, b: Array) -> bool:
    """Whether two arrays of one shape are dense and have the same element at the same place, whatever their dtypes."""
    return bool(a.flags.c_contiguous and b.flags.c_contiguous) or (is_channels_last(a) and is_channels_last(b))


def wants_channels_last(*arrays: Array) -> bool:
    """Whether what is computed from these is to be channels-last.

    The first that is dense in one way only decides; if there is none, the strides of the first.

    >>> import numpy as np
    >>> last = np.zeros((2, 5, 5, 3)).transpose(0, 3, 1, 2)
    >>> wants_channels_last(last), wants_channels_last(np.zeros((2, 3, 1, 1)), last)
    (True, True)
    """
    first = arrays[0]
    if first.ndim != 4:
        return False
    for array in arrays:
        last = is_channels_last(array)
        if last != bool(array.flags.c_contiguous):
            return last
    step = first.dtype.itemsize
    _, c, h, w = first.strides
    _, _, height, width = first.shape
    return bool(c == step and w >= step and (c, h, w) != (height * width * step, width * step, step))


def new_array(empty: Callable[[tuple[int, ...], Any], Array], shape: tuple[int, ...], dtype: Any, last: bool) -> Array:
    """What ``empty(shape, dtype)`` gives; seen as channels-last where it is to be so."""
    if not last:
        return empty(tuple(shape), dtype)
    n, c, h, w = shape
    return empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)


def is_last(memory_format: Any) -> bool:
    """Whether it is channels_last.  Raises TypeError if it is no memory format."""
    if not isinstance(memory_format, MemoryFormat):
        raise TypeError(
            f"memory_format must be pycnn.channels_last or pycnn.contiguous_format, got {memory_format!r:.60}"
        )
    return memory_format is channels_last
