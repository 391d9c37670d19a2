"""Moving elements, sums of two arrays, and rows times factors, of the CPU engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def pad2d(x: np.ndarray, padding: tuple[int, int, int, int], value: float) -> np.ndarray:
    """x with `value` around the last two axes."""
    return _cpu.pad2d(dense(x), padding, value)


def concat(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """The arrays one after another along `axis`."""
    return _cpu.concat([dense(array) for array in arrays], axis)


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b, of one shape."""
    return _cpu.add(dense(a), dense(b))


def add_to(a: np.ndarray, b: np.ndarray) -> None:
    """a += b, of one shape; `a` dense."""
    _cpu.add_to(a, dense(b))


def scaled_rows(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """x[i] * scale[i] for every i, in float64 and rounded once; x in float32."""
    return _cpu.scaled_rows(dense(x), np.ascontiguousarray(scale, np.float64))
