"""Random numbers: one counter-based stream, Philox4x32-10, the same on every backend.

A `Generator` is two integers, the seed (key) and the offset (how many counters were used), so its state is easily
written into a checkpoint, and any stretch of the stream can be computed again without a copy of anything.

Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import ops

__all__ = [
    "Generator",
    "default_generator",
    "get_state",
    "integers",
    "manual_seed",
    "normal",
    "permutation",
    "set_state",
    "truncated_normal",
    "uniform",
]

Shape = int | Sequence[int]
Float = type[np.floating[Any]] | np.dtype[Any] | str


class Generator:
    """A position in one Philox stream.

    Args:
        seed: 0 to 2**64 - 1.
        offset: counters already used; each gives four 32-bit words.

    >>> g = Generator(1)
    >>> state = g.get_state()
    >>> first = g.uniform(3)
    >>> g.set_state(state)
    >>> bool((g.uniform(3) == first).all())
    True
    """

    def __init__(self, seed: int = 0, offset: int = 0) -> None:
        self._lock = threading.Lock()
        self.set_state((seed, offset))

    def manual_seed(self, seed: int) -> Generator:
        """Start again at the beginning of the stream of `seed`."""
        self.set_state((seed, 0))
        return self

    def get_state(self) -> tuple[int, int]:
        """(seed, offset)."""
        return self._seed, self._offset

    def set_state(self, state: Sequence[int]) -> None:
        """Go to a position that `get_state` returned.  Raises ValueError if it cannot be one."""
        if len(state) != 2 or not all(isinstance(part, int) and 0 <= part < 2**64 for part in state):
            raise ValueError(f"a state is (seed, offset), two ints from 0 to 2**64 - 1, got {state!r}")
        with self._lock:
            self._seed, self._offset = state

    def reserve(self, words: int) -> tuple[int, int]:
        """Take the next `words` 32-bit words: their (seed, offset), for an operator that draws them itself."""
        with self._lock:
            taken = self._seed, self._offset
            self._offset += -(-words // 4)
        return taken

    def words(self, count: int) -> np.ndarray:
        """The next `count` words, uint32."""
        return ops.philox_uint32(count, *self.reserve(count))

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: Float = np.float64) -> np.ndarray:
        """Uniform numbers in [low, high): low + (high - low) * k / 2**53 with k of 53 random bits."""
        sizes = _sizes(shape)
        unit = self._unit(math.prod(sizes))
        return (low + (high - low) * unit).astype(dtype, copy=False).reshape(sizes)

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: Float = np.float64) -> np.ndarray:
        """Normal numbers: sqrt(-2 ln u) cos(2 pi v) and sqrt(-2 ln u) sin(2 pi v), computed in float64.

        float32 is drawn from one word a number and computed in float32, which is five times as fast; its largest
        deviation is sqrt(2 ln 2**24) = 5.8.

        Reference: Box & Muller, "A Note on the Generation of Random Normal Deviates", 1958.
        """
        sizes = _sizes(shape)
        if np.dtype(dtype) == np.float32:
            return (mean + std * self._standard_normal32(math.prod(sizes))).reshape(sizes)
        return (mean + std * self._standard_normal(math.prod(sizes))).astype(dtype, copy=False).reshape(sizes)

    def truncated_normal(
        self,
        shape: Shape,
        mean: float = 0.0,
        std: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        dtype: Float = np.float64,
    ) -> np.ndarray:
        """Normal numbers, drawn again while they lie outside [low, high] (absolute bounds, not multiples of `std`).

        Raises ValueError if the interval is empty or lies beyond 4 standard deviations on one side of the mean.
        """
        if not low < high or not std > 0 or low > mean + 4 * std or high < mean - 4 * std:
            raise ValueError(f"truncated_normal cannot draw from [{low}, {high}] with mean {mean}, std {std}")
        sizes = _sizes(shape)
        values = mean + std * self._standard_normal(math.prod(sizes))
        while (outside := np.flatnonzero((values < low) | (values > high))).size:
            values[outside] = mean + std * self._standard_normal(outside.size)
        return values.astype(dtype, copy=False).reshape(sizes)

    def integers(self, low: int, high: int, shape: Shape = ()) -> np.ndarray:
        """Whole numbers with low <= value < high, int64; of ranges up to 2**31 (bias below 2**-32 of the range)."""
        if not 0 < high - low <= 2**31:
            raise ValueError(f"integers needs 1 to 2**31 values, got low={low}, high={high}")
        sizes = _sizes(shape)
        words = self.words(math.prod(sizes)).astype(np.uint64)
        return (((words * np.uint64(high - low)) >> np.uint64(32)).astype(np.int64) + low).reshape(sizes)

    def permutation(self, count: int) -> np.ndarray:
        """The numbers 0 .. count-1 in random order, int64: sorted by 64 random bits each."""
        keys = self.words(2 * count).view(np.uint64) if count else np.empty(0, np.uint64)
        return np.argsort(keys, kind="stable")

    def _unit(self, count: int) -> np.ndarray:
        words = self.words(2 * count).astype(np.uint64).reshape(count, 2)
        return ((words[:, 0] << np.uint64(21)) | (words[:, 1] >> np.uint64(11))).astype(np.float64) * 2.0**-53

    def _standard_normal(self, count: int) -> np.ndarray:
        pairs = (count + 1) // 2
        unit = self._unit(2 * pairs).reshape(pairs, 2)
        radius = np.sqrt(-2.0 * np.log(1.0 - unit[:, 0]))  # 1 - u lies in (0, 1]: its logarithm is finite
        angle = 2.0 * np.pi * unit[:, 1]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]

    def _standard_normal32(self, count: int) -> np.ndarray:
        pairs = (count + 1) // 2
        words = self.words(2 * pairs).reshape(pairs, 2) >> np.uint32(8)
        radius = np.sqrt(
            np.float32(-2) * np.log((words[:, 0] + np.uint32(1)).astype(np.float32) * np.float32(2.0**-24))
        )
        angle = words[:, 1].astype(np.float32) * np.float32(2 * np.pi * 2.0**-24)
        values = np.empty((pairs, 2), np.float32)
        np.multiply(radius, np.cos(angle), out=values[:, 0])
        np.multiply(radius, np.sin(angle), out=values[:, 1])
        return values.reshape(-1)[:count]


def _sizes(shape: Shape) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(size) for size in shape)


default_generator = Generator(0)
get_state = default_generator.get_state
set_state = default_generator.set_state
manual_seed = default_generator.manual_seed
uniform = default_generator.uniform
normal = default_generator.normal
truncated_normal = default_generator.truncated_normal
integers = default_generator.integers
permutation = default_generator.permutation
