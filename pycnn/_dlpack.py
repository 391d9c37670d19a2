"""Arrays from and for other libraries by DLPack, bfloat16 included, which NumPy and CuPy leave out of it.

A capsule says what its bits are in two bytes.  Those of bfloat16 travel as uint16 as far as the reader is concerned,
and the two bytes are rewritten on the way: of a capsule that nobody has consumed yet, which is the caller's alone.
Memory, lifetime, strides, streams, versions and the read-only flag stay the business of the two libraries.

Reference: DLPack 1.0, dlpack.h; "Python specification for DLPack" of the array API standard.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["CPU", "CUDA", "Exporter", "capsule", "device", "read"]

Array = Any

CPU, CUDA = "cpu", "cuda"

# DLDeviceType: what main memory is, or can be read as such (pinned), and what a GPU's is (managed memory, too).
_PLACES = {1: CPU, 3: CPU, 2: CUDA, 13: CUDA}

# DLDataTypeCode with 16 bits.
_UINT16, _BFLOAT16 = (1, 16), (4, 16)

# Where a capsule of each name holds code and bits: behind data, device and ndim of its DLTensor.
_DTYPE_AT = {b"dltensor": 20, b"dltensor_versioned": 32 + 20}

_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.argtypes, _name_of.restype = [ctypes.py_object], ctypes.c_char_p
_address_in = ctypes.pythonapi.PyCapsule_GetPointer
_address_in.argtypes, _address_in.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


def device(array: Array) -> tuple[str, int]:
    """Where an array with ``__dlpack_device__`` lies: ("cpu", 0), ("cuda", 1) and so on.

    Raises BufferError for memory that neither NumPy nor CuPy can see.
    """
    kind, number = array.__dlpack_device__()
    place = _PLACES.get(int(kind))
    if place is None:
        raise BufferError(f"it lies on DLPack's device type {int(kind)}, which is neither a CPU nor CUDA")
    return place, int(number)


def capsule(array: Array, **options: Any) -> Any:
    """``array.__dlpack__(**options)`` of a NumPy or CuPy array of any dtype of theirs, or of bfloat16.

    Of a reversed axis it is a copy's: PyTorch ends the process where it meets a negative stride.  Raises BufferError
    where that copy is not allowed.
    """
    if any(step < 0 for step in array.strides):
        if options.get("copy") is False:
            raise BufferError(f"strides {array.strides} are negative, which readers do not take: this needs a copy")
        array = array.copy()
    if array.dtype.name != "bfloat16":
        return array.__dlpack__(**options)
    made = array.view(np.uint16).__dlpack__(**options)
    _dtype_in(made)[:] = _BFLOAT16
    return made


def read(array: Array, reader: Callable[[Any], Array]) -> Array:
    """What `reader`, `numpy.from_dlpack` or `cupy.from_dlpack`, makes of any array with ``__dlpack__``; no copy.

    Raises ImportError for bfloat16 without the package ml_dtypes; else what the two libraries raise.
    """
    source = _Source(array)
    found = reader(source)
    if not source.is_bfloat16:
        return found
    import ml_dtypes

    return found.view(ml_dtypes.bfloat16)


class Exporter:
    """An array of NumPy's or CuPy's as others may read it."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return capsule(self._array, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class _Source:
    """An array of others as NumPy or CuPy may read it."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.is_bfloat16 = False

    def __dlpack__(self, **options: Any) -> Any:
        made = self._array.__dlpack__(**options)
        dtype = _dtype_in(made)
        if tuple(dtype) == _BFLOAT16:
            self.is_bfloat16 = True
            dtype[:] = _UINT16
        return made

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def _dtype_in(made: Any) -> Any:
    """The two bytes of a capsule that say what its elements are."""
    name = _name_of(made)
    if name not in _DTYPE_AT:
        raise BufferError(f"__dlpack__ gave a capsule named {name!r}; one that is not yet consumed is a dltensor")
    return (ctypes.c_uint8 * 2).from_address(_address_in(made, name) + _DTYPE_AT[name])
