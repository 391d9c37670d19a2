"""The storages and tensors of a PyTorch checkpoint: described by its pickle, checked, and views of the file."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from pycnn.weights.source import MAX_RANK, Source, brief, extended_dtype

__all__ = ["DTYPES", "EXTENDED_DTYPES", "Elements", "Storage", "TensorValue", "is_whole"]

Array = np.ndarray[Any, Any]

DTYPES = {
    **{"float64": "<f8", "float32": "<f4", "float16": "<f2", "int64": "<i8", "int32": "<i4", "int16": "<i2"},
    **{"int8": "i1", "uint8": "u1", "bool": "?", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8"},
    **{"complex64": "<c8", "complex128": "<c16"},
}
EXTENDED_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
_SMALL = 1 << 20  # bytes to which a broadcast tensor may extend, however short the file


@dataclass(frozen=True)
class Elements:
    """What a storage or a tensor consists of, by torch's name; None for untyped bytes."""

    name: str | None

    def dtype(self) -> np.dtype[Any]:
        """NumPy's; ml_dtypes is needed only by those who have such elements."""
        name = self.name or "uint8"
        return np.dtype(DTYPES[name]) if name in DTYPES else extended_dtype(name)


def is_whole(value: Any) -> bool:
    """Whether it is a non-negative integer that fits 62 bits."""
    return type(value) is int and 0 <= value < 1 << 62


class Storage:
    """Numbers that tensors are views of; where they lie is known when all of the file has been read.

    Args:
        source: the file.
        elements: of what.
        key: by which the file names it.
        count: of elements.

    Raises:
        WeightsError: values of other kinds.
    """

    def __init__(self, source: Source, elements: Any, key: Any, count: Any) -> None:
        if not isinstance(elements, Elements) or not isinstance(key, str) or not is_whole(count):
            found = f"a storage with type {brief(elements)}, key {brief(key)} and {brief(count)} elements"
            raise source.error(found, "a storage type, a string and a whole number")
        source.spend(400)
        self.source, self.elements, self.key, self.count = source, elements, key, count
        self._bytes: Array | None = None
        self._truths = False  # whether its bytes are known to be 0 or 1
        self._parent: tuple[Storage, int] | None = None

    @property
    def nbytes(self) -> int:
        """Its size."""
        return int(self.count) * self.elements.dtype().itemsize

    def place(self, at: int) -> None:
        """Say that its bytes begin at byte `at` of the file."""
        found = self.source.array(at, np.dtype(np.uint8), (self.nbytes,), f"storage {brief(self.key)}")
        if at % 8:  # a mapped file begins at a page, so these numbers are not aligned
            self.source.spend(self.nbytes)
            found = found.copy()
            found.flags.writeable = False
        self._bytes = found

    def part(self, key: Any, first: Any, count: Any) -> Storage:
        """A storage that is a stretch of this one."""
        if not is_whole(first) or not is_whole(count) or first + count > self.count:
            raise self.source.error(
                f"elements {brief(first)} and {brief(count)} more of storage {brief(self.key)}", f"{self.count} in all"
            )
        view = Storage(self.source, self.elements, key, count)
        view._parent = self, first * self.elements.dtype().itemsize
        return view

    def bytes(self) -> Array:
        """All of it, read-only."""
        if self._parent is not None:
            whole, first = self._parent
            return whole.bytes()[first : first + self.nbytes]
        if self._bytes is None:
            raise self.source.error(f"no numbers for storage {brief(self.key)}", "them in the file")
        return self._bytes

    def truths(self) -> Array:
        """All of it, where tensors of truth values view it.  Raises WeightsError for a byte that is neither."""
        found = self.bytes()
        if not self._truths and found.size and int(found.max()) > 1:
            raise self.source.error(f"truth values in storage {brief(self.key)} with a byte above 1", "bytes 0 and 1")
        self._truths = True
        return found


class TensorValue:
    """A tensor of the pickle: a view of a storage that may not have its numbers yet.

    Args:
        storage: what it views.
        offset: its first element.
        size, stride: in elements.
        elements: of what, where the storage is untyped.

    Raises:
        WeightsError: values of other kinds, elements that the storage does not have, or a broadcast to far more bytes
            than the file has.
    """

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, elements: Any = None) -> None:
        if not isinstance(storage, Storage):
            raise TypeError
        source = storage.source
        good = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= MAX_RANK
        if not good or not all(map(is_whole, (offset, *size, *stride))):
            raise source.error(
                f"a tensor at {brief(offset)} of size {brief(size)} and stride {brief(stride)}",
                f"as many strides as sizes, at most {MAX_RANK}, all whole numbers",
            )
        dtype = (storage.elements if elements is None else elements).dtype()
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if prod(size) and (last + 1) * dtype.itemsize > storage.nbytes:
            raise source.error(
                f"a tensor of size {brief(size)} and stride {brief(stride)} at element {offset:,} of storage "
                f"{brief(storage.key)}",
                f"one within its {storage.nbytes:,} bytes",
            )
        extent = prod(max(n, 1) for n in size) * dtype.itemsize
        if extent > max(_SMALL, len(source)):  # only strides of zero, or none to hold, can make it so
            raise source.error(f"a tensor broadcast to {extent:,} bytes", f"at most the file's {len(source):,}")
        source.spend(400)
        self._storage, self._offset, self._dtype = storage, offset, dtype
        self._size: tuple[int, ...] = size
        self._stride: tuple[int, ...] = stride

    def array(self) -> Array:
        """The numbers, read-only, sharing memory with whatever shares the storage."""
        item = self._dtype.itemsize
        if not prod(self._size):
            return np.empty(self._size, self._dtype)
        # The stride of an axis of one element is arbitrary in a file, and may be more than NumPy can hold.
        strides = [step * item if n > 1 else item for n, step in zip(self._size, self._stride, strict=True)]
        whole = self._storage.truths() if self._dtype == np.bool_ else self._storage.bytes()
        array: Array = np.ndarray(self._size, self._dtype, whole.data, self._offset * item, strides)
        return array
