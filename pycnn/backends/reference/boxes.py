"""Boxes: maxima over regions of images, and which of overlapping boxes stay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._common import Array

Indices = NDArray[np.int64]


def roi_max(x: Array, image: Indices, rows: Indices, columns: Indices) -> tuple[Array, Indices]:
    """The largest value of each window, and where it is: the first in scan order; 0 and -1 of an empty window.

    x (N, C, H, W); image (R,); rows (R, P, 2) and columns (R, Q, 2): begin and end of window (p, q) of region r, which
    lies in image[r].  A NaN wins, the last one of a window.  Both results are (R, C, P, Q), the index h*W + w.
    """
    n, c, h, w = x.shape
    if image.size and not 0 <= image.min() <= image.max() < n:
        raise IndexError("image must hold numbers of images")
    shape = (len(image), c, rows.shape[1], columns.shape[1])
    y, indices = np.zeros(shape, x.dtype), np.full(shape, -1, np.int64)
    places = np.arange(h * w).reshape(h, w)
    for r, p, q in np.ndindex(shape[0], *shape[2:]):
        window = slice(*rows[r, p]), slice(*columns[r, q])
        pixels = places[window].ravel()
        if pixels.size:
            values = x[image[r]][:, *window].reshape(c, pixels.size)
            nan = np.isnan(values)
            last_nan = pixels.size - 1 - np.argmax(nan[:, ::-1], axis=1)
            best = np.where(nan.any(axis=1), last_nan, np.argmax(values, axis=1))
            indices[r, :, p, q] = pixels[best]
            y[r, :, p, q] = values[np.arange(c), best]
    return y, indices


def nms(boxes: Array, groups: Indices | None, threshold: float) -> Indices:
    """1 for each box that stays, else 0: boxes (K, 4) as (x1, y1, x2, y2), the best first.

    A box goes if one before it stays, is of its group (K,), and overlaps it by more than `threshold`: the area of their
    intersection over that of their union, each operation rounded to the boxes' dtype.
    """
    keep = np.ones(len(boxes), np.int64)
    with np.errstate(all="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        for i, box in enumerate(boxes):
            if not keep[i]:
                continue
            sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
            common = np.prod(np.maximum(sides, boxes.dtype.type(0)), axis=1)
            overlap = common / (areas[i] + areas - common)
            goes = overlap.astype(np.float64) > threshold
            if groups is not None:
                goes &= groups == groups[i]
            goes[: i + 1] = False
            keep[goes] = 0
    return keep
