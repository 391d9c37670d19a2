"""A file of weights in memory: mapped, not read, with an allowance for all that a reader makes beside it."""

from __future__ import annotations

import importlib
import mmap
import os
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn._files import size_of
from pycnn.weights.errors import WeightsError

__all__ = ["MAX_RANK", "Source", "extended_dtype"]

Array = np.ndarray[Any, Any]

MAX_RANK = 32  # what every NumPy since 1.26 can hold
_SMALL = 48 << 20  # bytes that any file may need; with the interpreter's own noise this stays under 64 MiB
_TIMES = 3  # beside the mapped file itself, which counts once as its pages are touched


def extended_dtype(name: str) -> np.dtype[Any]:
    """A dtype that NumPy itself lacks, such as bfloat16.  Raises ModuleNotFoundError without ml_dtypes."""
    with extra("weights", "ml_dtypes"):
        module = importlib.import_module("ml_dtypes")
    return np.dtype(getattr(module, name))


class Source:
    """The bytes of a file and an allowance of memory.

    Nothing that a file says about sizes is believed: arrays are views of bytes that are there, and what has to be made
    beside them (objects, aligned copies, wider numbers) is paid for beforehand with `spend`.

    Args:
        path: the file.

    Attributes:
        path: the same.
        data: all bytes, read-only, mapped.

    Raises:
        OSError: no such file, no permission, or a folder, a pipe or a device.
        WeightsError: an empty file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        size_of(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise WeightsError(path, "an empty file", "weights")
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self.data = memoryview(self._map)
        self._left = _SMALL + _TIMES * size

    def __len__(self) -> int:
        return len(self.data)

    def error(self, found: str, expected: str) -> WeightsError:
        """What to raise."""
        return WeightsError(self.path, found, expected)

    def spend(self, count: int) -> None:
        """Take `count` bytes from the allowance.  Raises WeightsError when it is used up."""
        self._left -= count
        if self._left < 0:
            raise self.error(
                "contents that need far more memory than the file is long",
                f"at most {_TIMES} times its {len(self.data):,} bytes and {_SMALL >> 20} MiB beside it",
            )

    def take_in(self, other: Source) -> None:
        """Allow for what another file, that belongs to this one, has."""
        self._left += _TIMES * len(other)

    def release(self) -> None:
        """Have the system take back the pages that were looked at; they are read anew where they are needed again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def array(self, at: int, dtype: np.dtype[Any], shape: Sequence[int], what: str) -> Array:
        """The array at byte `at`: a read-only view of the file, or a copy where the bytes are not aligned.

        Raises WeightsError, naming `what`, if the file does not hold all of it.
        """
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise self.error(f"{what} with the shape {brief(shape)}", f"at most {MAX_RANK} sizes, none negative")
        count = prod(shape) * dtype.itemsize
        if at < 0 or at + count > len(self.data) or prod(max(size, 1) for size in shape) >= 1 << 48:
            raise self.error(
                f"{what} of {count:,} bytes at byte {at:,}", f"a place within the file's {len(self.data):,} bytes"
            )
        array: Array = np.ndarray(tuple(shape), dtype, self.data, at) if count else np.empty(tuple(shape), dtype)
        if not array.flags.aligned:
            self.spend(count)
            array = array.copy()
        if dtype == np.bool_ and count and int(array.view(np.uint8).max()) > 1:
            raise self.error(f"{what} of truth values with a byte above 1", "bytes 0 and 1")
        array.flags.writeable = False
        return array


def brief(value: Any, depth: int = 3) -> str:
    """`value` as text of bounded length."""
    if isinstance(value, (tuple, list)) and depth:
        items = [brief(item, depth - 1) for item in value[:8]] + ["..."] * (len(value) > 8)
        if isinstance(value, list):
            return f"[{', '.join(items)}]"
        return f"({', '.join(items)}{',' * (len(items) == 1)})"
    if not isinstance(value, (str, bytes, int, float, type(None))):
        return f"a {type(value).__name__}"
    text = repr(value[:80] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= 80 else text[:77] + "..."
