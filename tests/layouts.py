"""The same values in memory in other ways: what a caller's arrays may look like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _channels_last(array: np.ndarray) -> np.ndarray:
    if array.ndim < 3:
        return array.copy()
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def _fortran(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def _backwards(array: np.ndarray) -> np.ndarray:
    every = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[every])[every]


def _sliced(array: np.ndarray) -> np.ndarray:
    """A stretch of a larger array, every other element of its last axis."""
    if array.ndim == 0:
        return array.copy()
    room = np.full((*(size + 2 for size in array.shape[:-1]), 2 * array.shape[-1] + 3), 99, array.dtype)
    view = room[(*(slice(1, -1) for _ in array.shape[:-1]), slice(2, -1, 2))]
    view[...] = array
    return view


def _unaligned(array: np.ndarray) -> np.ndarray:
    view = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _foreign(array: np.ndarray) -> np.ndarray:
    """In the other byte order, where NumPy knows one for the dtype (it knows none for bfloat16)."""
    return array.astype(array.dtype.newbyteorder()) if array.dtype.kind in "fi" else array.copy()


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.copy()
    view.flags.writeable = False
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dense": np.copy,
    "channels last": _channels_last,
    "fortran": _fortran,
    "backwards": _backwards,
    "sliced": _sliced,
    "unaligned": _unaligned,
    "foreign byte order": _foreign,
    "read-only": _read_only,
}
