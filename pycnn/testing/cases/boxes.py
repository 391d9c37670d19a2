"""Regions and boxes."""

from __future__ import annotations

import numpy as np

from pycnn.testing.cases.operands import Arguments, Case, gap, special, whole

__all__ = ["CASES"]


def _regions(n: int, c: int, h: int, w: int, regions: int, p: int, q: int) -> Arguments:
    rng = np.random.default_rng(4)
    rows, columns = (
        np.sort(rng.integers(0, size + 1, (regions, windows, 2)), axis=2) for size, windows in ((h, p), (w, q))
    )
    return rng.integers(0, n, regions), rows, columns


def _boxes(count: int, groups: int | None, spread: int = 40) -> Arguments:
    """Boxes with whole corners, many of which overlap; the thresholds are met exactly by some."""
    rng = np.random.default_rng(count)
    corners = rng.integers(0, spread, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 12, (count, 2))], 1).astype(np.float32)
    return boxes, None if groups is None else rng.integers(0, groups, count)


def _nested() -> np.ndarray:
    """Each box half of the next."""
    return np.array([[0, 0, 2, 2.0**i] for i in range(6)], np.float32)


CASES: tuple[Case, ...] = (
    Case("roi_max", "windows of all sizes", lambda: (special(2, 3, 8, 9), *_regions(2, 3, 8, 9, 5, 3, 4))),
    Case("roi_max", "equal maxima", lambda: (whole(1, 5, 6, 6, most=1), *_regions(1, 5, 6, 6, 40, 2, 2))),
    Case("roi_max", "no regions", lambda: (whole(1, 2, 4, 4), *_regions(1, 2, 4, 4, 0, 2, 2))),
    Case("nms", "one group", lambda: (*_boxes(150, None), 0.5)),
    Case("nms", "a threshold met exactly", lambda: (_nested(), None, 0.5)),
    Case("nms", "groups", lambda: (*_boxes(300, 4), 0.3)),
    Case("nms", "a word exactly", lambda: (*_boxes(64, None, 12), 0.2)),
    Case("nms", "gaps", lambda: (gap(_boxes(33, None)[0]), None, 0.4)),
    Case("nms", "nothing stays beside the best", lambda: (*_boxes(70, None), -1.0)),
    Case("nms", "one box", lambda: (*_boxes(1, None), 0.5)),
    Case("nms", "no boxes", lambda: (*_boxes(0, None), 0.5)),
)
