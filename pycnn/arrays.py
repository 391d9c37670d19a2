"""Where an array lives: NumPy on the CPU, CuPy on a GPU.  The one place that asks which, and that moves arrays.

Everything above the backends computes through `module_of` and stays on the array's own device; nothing here waits for a
GPU but `to_host`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from pycnn import _dlpack
from pycnn.memory_format import lies_as, new_array, wants_channels_last

__all__ = [
    "beside",
    "copied",
    "device_of",
    "from_others",
    "is_array",
    "is_device",
    "is_floating",
    "is_half",
    "is_host",
    "laid",
    "module_of",
    "parse_device",
    "place",
    "same_elements",
    "to_host",
]

Array = Any  # numpy.ndarray or cupy.ndarray


def module_of(array: Array) -> ModuleType:
    """The library of `array`: NumPy, or CuPy for its arrays.

    >>> module_of(np.zeros(1)).__name__
    'numpy'
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    return sys.modules["cupy"] if type(array).__module__.partition(".")[0] == "cupy" else np


def is_host(array: Array) -> bool:
    """Whether NumPy holds it."""
    return isinstance(array, np.ndarray)


def is_floating(array: Array) -> bool:
    """Whether it holds floats, bfloat16 among them.

    >>> is_floating(np.ones(1, np.float32)), is_floating(np.ones(1, np.int64))
    (True, False)
    """
    return array.dtype.kind in "fV"


def is_half(array: Array) -> bool:
    """Whether it holds float16 or bfloat16.

    >>> is_half(np.ones(1, np.float16)), is_half(np.ones(1, np.int16))
    (True, False)
    """
    return array.dtype.itemsize == 2 and array.dtype.kind in "fV"


def is_array(value: Any) -> bool:
    """Whether it is an array of NumPy's or CuPy's, which the library computes on as it is."""
    return isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy"


def device_of(array: Array) -> str:
    """``"cpu"``, or ``"cuda:0"`` and so on."""
    if isinstance(array, (np.ndarray, np.generic)):
        return "cpu"
    place = array.device  # CuPy's is an object; arrays that are followed by `pycnn.compiler` say their name
    return place if isinstance(place, str) else f"cuda:{place.id}"


def to_host(array: Array) -> np.ndarray:
    """The array in NumPy: itself, or a copy of what a GPU holds, once that is computed, which lies as that does."""
    if isinstance(array, np.ndarray):
        return array
    if wants_channels_last(array):  # CuPy copies into C order
        return array.transpose(0, 2, 3, 1).get().transpose(0, 3, 1, 2)
    return array.get()


def same_elements(a: Array, b: Array) -> bool:
    """Whether two arrays are one view of the same memory."""
    if type(a) is not type(b) or a.shape != b.shape:
        return False
    if isinstance(a, np.ndarray):
        return bool(a.__array_interface__ == b.__array_interface__)
    return bool(a.data.ptr == b.data.ptr and a.strides == b.strides and a.dtype == b.dtype)


def beside(value: Any, array: Array) -> Any:
    """`value` (an array of any place, a NumPy scalar, or a plain number, which stays one) where `array` lives."""
    if not is_array(value):
        return value
    if isinstance(array, np.ndarray):
        return to_host(value)
    if isinstance(value, np.ndarray) or value.device.id != array.device.id:
        return place(value, f"cuda:{array.device.id}")
    return value


def parse_device(device: Any) -> str:
    """The full name of a device: "cpu", "cuda:0", ...; "cuda" is the current GPU.

    Args:
        device: such a name, or anything that prints as one, as torch's devices do.

    Raises:
        ValueError: another name.
        MissingToolError: "cuda" where there is no CuPy, no driver or no GPU.

    >>> parse_device("cuda:1"), parse_device("cpu")
    ('cuda:1', 'cpu')
    """
    name, colon, number = str(device).partition(":")
    if name == "cpu" and number in ("", "0"):
        return "cpu"
    if name != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f'a device is "cpu", "cuda" or "cuda:N", got {device!r}')
    if colon:
        return f"cuda:{int(number)}"
    from pycnn.backends.cuda.device_cupy import current_device

    return f"cuda:{current_device()}"


def _is_dtype(name: str) -> bool:
    try:
        np.dtype(name)
    except TypeError:
        return False
    return True


def is_device(value: Any) -> bool:
    """Whether `value` names a device rather than a dtype.

    >>> is_device("cuda:0"), is_device("float32")
    (True, False)
    """
    if isinstance(value, str):
        return not _is_dtype(value)
    return type(value).__name__ == "device"  # torch's


def place(array: Array, device: str) -> Array:
    """`array` on `device` (a full name): itself where it lies there, else a copy, channels-last where it is.

    Raises MissingToolError where there is no CuPy, no driver or no such GPU.
    """
    if device_of(array) == device:
        return array
    if device == "cpu":
        return to_host(array)
    from pycnn.backends.cuda.device_cupy import put

    number = int(device.partition(":")[2])
    if wants_channels_last(array):
        return put(array.transpose(0, 2, 3, 1), number).transpose(0, 3, 1, 2)
    return put(array, number)


def from_others(array: Any) -> Array:
    """A view of another library's array, NumPy's or, of what a GPU holds, CuPy's; no copy.

    Raises what the two libraries do, MissingToolError for a GPU's array without CuPy, or TypeError for bfloat16
    without the package ml_dtypes.
    """
    try:
        if not hasattr(array, "__dlpack__") or _dlpack.device(array)[0] == _dlpack.CUDA:
            from pycnn.backends.cuda.device_cupy import shared

            return shared(array)
        return _dlpack.read(array, np.from_dlpack)
    except ImportError:
        raise TypeError("bfloat16 needs the package ml_dtypes") from None


def copied(array: Array, last: bool, dtype: Any = None) -> Array:
    """A copy, channels-last or in C order; in another dtype, if one is given."""
    if not last:
        return array.copy() if dtype is None else array.astype(dtype, order="C", copy=True)
    copy = new_array(module_of(array).empty, array.shape, array.dtype if dtype is None else dtype, True)
    copy[...] = array
    return copy


def laid(array: Array, last: bool) -> Array:
    """`array` channels-last, or in C order: itself if it lies so; a view where both are the same memory; else a copy.

    Raises ValueError for channels-last if it has not four axes.
    """
    if last and array.ndim != 4:
        raise ValueError(f"only arrays of 4 axes lie channels-last, got shape {tuple(array.shape)}")
    if lies_as(array, last) and wants_channels_last(array) == last:
        return array
    if lies_as(array, not last) and lies_as(array, last):  # one channel, or one pixel: the same memory
        n, c, h, w = array.shape
        return array.reshape(n, h, w, c).transpose(0, 3, 1, 2) if last else array.reshape(-1).reshape(n, c, h, w)
    return copied(array, last)
