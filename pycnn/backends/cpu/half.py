"""float16 and bfloat16 as float32 and back: how arrays of half precision reach any backend, on the CPU."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def widen(x: np.ndarray) -> np.ndarray:
    """`x`, float16 or bfloat16, in float32: exact."""
    return _cpu.widen(dense(x).view(np.uint16), _is_bfloat16(x.dtype))


def narrow(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`x` rounded to the nearest number of `dtype`, float16 or bfloat16; what is too large for it is infinite."""
    if x.dtype != np.float32:
        raise TypeError(f"narrow takes float32, got {x.dtype}")
    return _cpu.narrow(dense(x), _is_bfloat16(dtype)).view(dtype)


def _is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.char != "e"  # NumPy's own 16-bit float is the other one
