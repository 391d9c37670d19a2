"""Regions and boxes of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def roi_max(x: np.ndarray, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of each window of each region, and where it is; 0 and -1 of an empty window."""
    return _cpu.roi_max(dense(x), dense(image), dense(rows), dense(columns))


def nms(boxes: np.ndarray, groups: np.ndarray | None, threshold: float) -> np.ndarray:
    """1 for each box (best first) that stays, 0 for those that one before it of its group overlaps too much."""
    return _cpu.nms(dense(boxes), None if groups is None else dense(groups), threshold)
