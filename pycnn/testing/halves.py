"""float16 and bfloat16 in the checks: arguments in them, what their one rounding may cost, and conversions.

>>> float(half_unit(np.array([1.0]), np.dtype(np.float16))[0]) == 2.0**-11
True
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pycnn.memory_format import is_dense, new_array, wants_channels_last

__all__ = ["check_conversions", "half_dtypes", "half_unit", "in_dtype", "rounded", "widened"]


@cache
def half_dtypes() -> tuple[np.dtype[Any], ...]:
    """float16 and, where ml_dtypes is installed, bfloat16."""
    try:
        import ml_dtypes
    except ImportError:
        return (np.dtype(np.float16),)
    return np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def in_dtype(arguments: tuple[Any, ...], dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """The arguments of a backend function with their float32 arrays rounded to `dtype`.

    Vectors beside arrays of more dimensions have one value a channel or class, and stay float32.
    """
    most = max((array.ndim for array in _arrays(arguments)), default=0)

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(each) for each in value]
        if not isinstance(value, np.ndarray) or value.dtype != np.float32 or (value.ndim == 1 and most > 1):
            return value
        if is_dense(value):
            result = new_array(np.empty, value.shape, dtype, wants_channels_last(value))
        else:
            result = _gapped(value.shape, dtype)
        result[...] = rounded(value, dtype)
        return result

    return tuple(map(one, arguments))


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    return [array for each in value for array in _arrays(each)] if isinstance(value, (list, tuple)) else []


def _gapped(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.zeros((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]


def widened(value: Any) -> Any:
    """`value`, an argument of a backend function, in float32 if it is an array of 16 bits: for the oracle."""
    if isinstance(value, list):
        return [widened(each) for each in value]
    return value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype in half_dtypes() else value


def rounded(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Rounded once, what is too large to infinity; integers stay."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array if array.dtype.kind in "iu" else array.astype(dtype)


def half_unit(right: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The largest error of rounding each number to `dtype`: half a unit in the last place, 0 for float32."""
    if dtype == np.float32:
        return np.zeros(right.shape)
    digits, smallest = (10, -14) if dtype == np.float16 else (7, -126)
    exponent = np.frexp(right.astype(np.float64))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, smallest) - digits - 1)


def check_conversions(backend: Any) -> int:
    """Assert that a device converts between float32, float16 and bfloat16 as NumPy does, NaN to NaN.

    All numbers of 16 bits; of float32 all of those, what lies halfway between two of them, and the neighbours of that.
    Returns how many pairs of dtypes were tried.

    Args:
        backend: a `pycnn.backends.sim.Simulated`, or what has its functions.

    Raises:
        AssertionError: naming the dtypes and the first number that is wrong.
    """
    dtypes = (np.dtype(np.float32), *half_dtypes())
    pairs = [(given, wanted) for given in dtypes for wanted in dtypes if given != wanted]
    for given, wanted in pairs:
        x = _every_number(given)
        # By way of float32, which holds every number of either: bfloat16 and float16 do not know each other.
        right = rounded(x.astype(np.float32), wanted)
        found = backend.convert(x, wanted)
        assert found.dtype == wanted, f"{given} to {wanted}: {found.dtype}"
        same = (found == right) & (np.signbit(found) == np.signbit(right)) | (np.isnan(found) & np.isnan(right))
        wrong = np.flatnonzero(~same)
        assert not wrong.size, f"{given} to {wanted}: {x[wrong[0]]} became {found[wrong[0]]}, not {right[wrong[0]]}"
    return len(pairs)


def _every_number(dtype: np.dtype[Any]) -> np.ndarray:
    if dtype != np.float32:
        return np.arange(2**16, dtype=np.uint16).view(dtype)
    found = []
    for half in half_dtypes():
        places = _every_number(half).astype(np.float32).view(np.uint32)
        ties = places + np.uint32(1 << (12 if half == np.float16 else 15))
        found += [places, ties, ties - np.uint32(1), ties + np.uint32(1)]
    return np.concatenate(found).view(np.float32)
