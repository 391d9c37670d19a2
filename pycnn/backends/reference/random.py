"""Philox4x32-10, the counter-based random stream that every backend gives the same numbers of, and dropout on it.

Reference: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._common import Array, rounded, wide

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85  # the golden ratio and sqrt(3) - 1: what each round adds to the key
_ROUNDS = 10


def philox_uint32(count: int, seed: int, offset: int) -> NDArray[np.uint32]:
    """`count` words of the stream: four to a block, block i encrypting the 128-bit counter offset + i.

    The key is (low, high) half of the 64-bit seed; the counter's words are little-endian, lowest first.
    """
    blocks = -(-count // 4)
    low, high = offset & 0xFFFFFFFFFFFFFFFF, offset >> 64 & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        counter = np.uint64(low) + np.arange(blocks, dtype=np.uint64)
        upper = np.uint64(high) + (counter < np.uint64(low)).astype(np.uint64)
        c0, c1, c2, c3 = counter & _LOW, counter >> _32, upper & _LOW, upper >> _32
        key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
        for _ in range(_ROUNDS):
            first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
            c0, c1, c2, c3 = (
                second >> _32 ^ c1 ^ np.uint64(key[0]),
                second & _LOW,
                first >> _32 ^ c3 ^ np.uint64(key[1]),
                first & _LOW,
            )
            key = [(key[i] + _WEYL[i]) & 0xFFFFFFFF for i in range(2)]
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).ravel()[:count]


def dropout(x: Array, p: float, seed: int, offset: int) -> Array:
    """x / (1 - p) where the element's word of the stream, as a fraction of 2^32, is at least p; 0 elsewhere."""
    if p == 1:
        return np.zeros(x.shape, x.dtype)
    kept = philox_uint32(x.size, seed, offset).reshape(x.shape) * 2.0**-32 >= p
    with np.errstate(all="ignore"):
        return rounded(np.where(kept, wide(x) * (1 / (1 - p)), 0.0), x.dtype)
