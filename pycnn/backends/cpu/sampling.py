"""Interpolation and sampling of the CPU engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense
from pycnn.resampling import Taps


def resample(x: np.ndarray, rows: Taps | None, columns: Taps | None) -> np.ndarray:
    """x (..., H, W) with each table applied to its axis; None leaves the axis as it is."""
    return _cpu.resample(dense(x), _table(rows, x.dtype), _table(columns, x.dtype))


def sample_fwd(x: np.ndarray, image: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """y[r, c, p] = sum over k of weight[r, k, p] * x[image[r], c, index[r, k, p]], where an index is not -1."""
    return _cpu.sample_fwd(dense(x), dense(image), dense(index), dense(weight))


def sample_dx(
    dy: np.ndarray, image: np.ndarray, index: np.ndarray, weight: np.ndarray, x_shape: tuple[int, int, int]
) -> np.ndarray:
    """dx: each point's gradient times its weights, added in a fixed order to the elements it was made of."""
    return _cpu.sample_dx(dense(dy), dense(image), dense(index), dense(weight), x_shape)


def sample_dw(dy: np.ndarray, x: np.ndarray, image: np.ndarray, index: np.ndarray) -> np.ndarray:
    """dw[r, k, p] = sum over c of dy[r, c, p] * x[image[r], c, index[r, k, p]]; 0 where the index is -1."""
    return _cpu.sample_dw(dense(dy), dense(x), dense(image), dense(index))


def _table(taps: Taps | None, dtype: Any) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | None:
    """A table as the native module takes it."""
    if taps is None:
        return None
    return taps.size, taps.start, taps.count, taps.single if dtype == np.float32 else taps.weight
