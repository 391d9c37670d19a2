"""Windows side by side and back, of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense
from pycnn.shape import Pair


def unfold2d(
    x: np.ndarray, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, out: Pair, rows_first: bool
) -> np.ndarray:
    """The elements of each window, 0 outside the image."""
    return _cpu.unfold2d(dense(x), kernel, stride, before, dilation, out, rows_first)


def fold2d(y: np.ndarray, size: Pair, kernel: Pair, stride: Pair, before: Pair, dilation: Pair) -> np.ndarray:
    """Every element of a window added to its pixel, tap by tap."""
    return _cpu.fold2d(dense(y), size, kernel, stride, before, dilation)
