"""Philox4x32-10 and dropout of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense

_64 = 0xFFFFFFFFFFFFFFFF


def philox_uint32(count: int, seed: int, offset: int) -> np.ndarray:
    """`count` words of the stream: block i encrypts the 128-bit counter offset + i under the key `seed`, four words."""
    return _cpu.philox_uint32(count, seed & _64, offset & _64, offset >> 64 & _64)


def dropout(x: np.ndarray, p: float, seed: int, offset: int) -> np.ndarray:
    """x / (1 - p) where the element's word of the stream, as a fraction of 2^32, is at least p; 0 elsewhere."""
    if p == 1:
        return np.zeros(x.shape, x.dtype)
    return _cpu.dropout(dense(x), p, seed & _64, offset & _64, offset >> 64 & _64)
