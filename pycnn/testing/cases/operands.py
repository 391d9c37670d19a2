"""What the cases of operators are made of: the case itself, operands, and bounds with their reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.memory_format import new_array

Arguments = tuple[Any, ...]
Shape = tuple[int, ...]

# Factors with their reasons.  One function of the mathematical library: CUDA's and libm's own errors are up to 2 units
# in the last place (CUDA C++ Programming Guide, "Mathematical Functions", table of maximum errors), a unit being
# 2 * 2^-24 of the value, and a product or quotient or two come on top.
FUNCTION = 12.0
# Sums of terms of which each carries such errors, added in some sixteen or more partial sums: they partly cancel.
SUM = 40.0
# Differences of such sums, divided by a deviation.
STATISTICS = 100.0


@dataclass(frozen=True)
class Case:
    """One call of one backend function.

    Attributes:
        function: the backend's function.
        about: what the arguments are like.
        arguments: makes them, the same in every run.
        factor: the largest error allowed, in units of 2^-24 times the largest magnitude of the result; 0: none at all.
    """

    function: str
    about: str
    arguments: Callable[[], Arguments]
    factor: float = 0.0

    @property
    def name(self) -> str:
        """What it is, unique."""
        return f"{self.function}: {self.about}"


def normal(*shape: int, seed: int = 0, mean: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return (mean + spread * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def whole(*shape: int, seed: int = 0, most: int = 9) -> np.ndarray:
    """Small integers, whose sums and products are exact."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.float32)


def special(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers among which are NaN, both infinities, both zeros, the largest and the smallest."""
    x = normal(*shape, seed=seed)
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-38, 90.0, -90.0], np.float32)
    places = np.random.default_rng(seed).choice(x.size, min(x.size, 2 * values.size), replace=False)
    x.ravel()[places] = np.resize(values, places.size)
    return x


def classes(*shape: int, classes: int, ignored: int = -100, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.2, ignored, rng.integers(0, classes, shape)).astype(np.int64)


def gap(array: np.ndarray) -> np.ndarray:
    """The same values in an array with gaps."""
    room = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    room[..., ::2] = array
    return room[..., ::2]


def last(array: np.ndarray) -> np.ndarray:
    """The same values in an array that lies channels-last."""
    placed = new_array(np.empty, array.shape, array.dtype, True)
    placed[...] = array
    return placed


def on_normal(shape: Shape, *settings: Any, spread: float = 1.0) -> Arguments:
    return (normal(*shape, spread=spread), *settings)
