"""How the played CuPy shows its memory to others and sees theirs: capsules and interfaces that say "on a GPU"."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

CPU, CUDA = 1, 2  # kDLCPU, kDLCUDA
_DEVICE_AT = {b"dltensor": 8, b"dltensor_versioned": 32 + 8}

_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.argtypes, _name_of.restype = [ctypes.py_object], ctypes.c_char_p
_address_in = ctypes.pythonapi.PyCapsule_GetPointer
_address_in.argtypes, _address_in.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


def device_in(made: Any) -> Any:
    """The two numbers of a capsule that say where its elements are."""
    name = _name_of(made)
    return (ctypes.c_int32 * 2).from_address(_address_in(made, name) + _DEVICE_AT[name])


def capsule(host: np.ndarray, number: int, options: dict[str, Any]) -> Any:
    """A capsule of NumPy's that says it is of GPU `number`, and that none but `view` may look into."""
    made = host.__dlpack__(**options)
    device_in(made)[:] = CUDA, number
    return made


def view(made: Any) -> np.ndarray:
    """What lies behind such a capsule, to find it in the simulator's memory by its address."""

    class Shown:
        def __dlpack__(self, **options: Any) -> Any:
            return made

        def __dlpack_device__(self) -> tuple[int, int]:
            return CPU, 0

    device_in(made)[:] = CPU, 0
    return np.from_dlpack(Shown())


def interface(host: np.ndarray, stream: int) -> dict[str, Any]:
    """`__cuda_array_interface__` of memory that `stream` uses."""
    return {
        "shape": host.shape,
        "typestr": host.dtype.str,
        "data": (int(host.ctypes.data), False),
        "strides": host.strides,
        "version": 3,
        "stream": stream or 1,
    }


def from_interface(found: dict[str, Any]) -> np.ndarray:
    """What lies behind such an interface."""
    shown = {name: value for name, value in found.items() if name != "stream"}
    return np.asarray(SimpleNamespace(__array_interface__=shown))
