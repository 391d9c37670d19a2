"""NumPy arrays and numbers inside a PyTorch checkpoint's pickle."""

from __future__ import annotations

from math import prod
from typing import Any, NoReturn

import numpy as np

from pycnn.weights.pickles import Stateful
from pycnn.weights.source import MAX_RANK, Source, brief
from pycnn.weights.torch_values import is_whole

__all__ = ["ArrayValue", "NumpyType", "scalar"]

Array = np.ndarray[Any, Any]

_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


class NumpyType(Stateful):
    """A NumPy dtype of the pickle; its state gives the order of bytes."""

    def __init__(self, source: Source, code: Any) -> None:
        if not isinstance(code, str) or code not in _CODES:
            raise source.error(f"the NumPy dtype {brief(code)}", f"one of {', '.join(_CODES)}")
        self._source = source
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        """(version, order of bytes, ...); the rest is for records, which are not read."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", ">", "|", "="):
            raise self._source.error(f"a NumPy dtype with the state {brief(state)}", "one with an order of bytes")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]


class ArrayValue(Stateful):
    """A NumPy array of the pickle, empty until its state is set."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._array: Array = np.empty(0, np.float32)

    def set_state(self, state: Any) -> None:
        """(version, shape, dtype, whether the first axis is the fastest, the bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            self._refuse(state)
        self.fill(*state[1:])

    def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> ArrayValue:
        """Take shape, dtype, order and bytes; returns this value."""
        state = (shape, dtype, fortran, data)
        if isinstance(data, str):  # as Python 2 wrote it
            data = data.encode("latin-1", "replace")
        good = isinstance(shape, tuple) and len(shape) <= MAX_RANK and all(map(is_whole, shape))
        if not good or not isinstance(dtype, NumpyType) or not isinstance(data, bytes):
            self._refuse(state)
        if prod(shape) * dtype.dtype.itemsize != len(data) or prod(max(n, 1) for n in shape) >= 1 << 48:
            self._refuse(state)
        self._source.spend(2 * len(data))
        array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")
        if dtype.dtype == np.bool_ and any(byte > 1 for byte in set(data)):
            self._refuse(state)
        self._array = array.astype(dtype.dtype.newbyteorder("="), copy=False)
        self._array.flags.writeable = False
        return self

    def array(self) -> Array:
        """The numbers, read-only."""
        return self._array

    def _refuse(self, state: Any) -> NoReturn:
        raise self._source.error(f"a NumPy array with the state {brief(state)}", "shape, dtype and bytes that agree")


def scalar(source: Source, kind: Any, data: Any) -> Any:
    """A NumPy number as Python's."""
    if isinstance(data, str):
        data = data.encode("latin-1", "replace")
    if not isinstance(kind, NumpyType) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise source.error(f"a NumPy number of type {brief(kind)} and bytes {brief(data)}", "bytes for one number")
    return np.frombuffer(data, kind.dtype)[0].item()
