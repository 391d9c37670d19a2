"""Interpolation by tables, and points that are weighted sums of an image's elements."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ._common import Array, rounded, wide

Indices = NDArray[np.int64]


class Table(Protocol):
    """What the elements of an output axis are made of; see `resample`."""

    @property
    def start(self) -> Indices: ...
    @property
    def count(self) -> Indices: ...
    @property
    def weight(self) -> NDArray[np.float64]: ...


def resample(x: Array, rows: Table | None, columns: Table | None) -> Array:
    """x (..., H, W) with each table applied to its axis; None leaves the axis as it is.

    y[..., i] = sum over t < count[i] of weight[t, i] * x[..., start[i] + t]
    """
    y = wide(x)
    with np.errstate(all="ignore"):
        if columns is not None:
            y = _along_last(y, columns)
        if rows is not None:
            y = _along_last(y.swapaxes(-1, -2), rows).swapaxes(-1, -2)
    return rounded(y, x.dtype)


def _along_last(x: NDArray[np.float64], table: Table) -> NDArray[np.float64]:
    y = np.zeros((*x.shape[:-1], len(table.start)))
    for t in range(len(table.weight)):
        (some,) = np.nonzero(t < table.count)
        y[..., some] += table.weight[t, some] * x[..., table.start[some] + t]
    return y


def sample_fwd(x: Array, image: Indices, index: Indices, weight: Array) -> Array:
    """y[r, c, p] = sum over k of weight[r, k, p] * x[image[r], c, index[r, k, p]], where an index is not -1.

    x (N, C, S); image (R,); index and weight (R, K, P); y (R, C, P).
    """
    _expect_inside(image, index, x.shape)
    y = np.zeros((len(image), x.shape[1], index.shape[2]))
    with np.errstate(all="ignore"):
        for r, n in enumerate(image):
            for at, w in zip(index[r], wide(weight[r]), strict=True):
                (some,) = np.nonzero(at >= 0)
                y[r][:, some] += w[some] * x[n][:, at[some]]
    return rounded(y, x.dtype)


def sample_dx(dy: Array, image: Indices, index: Indices, weight: Array, x_shape: tuple[int, int, int]) -> Array:
    """dx[n, c, s] = sum of weight[r, k, p] * dy[r, c, p] over the r, k, p with image[r] = n and index[r, k, p] = s."""
    _expect_inside(image, index, x_shape)
    dx = np.zeros(x_shape)
    with np.errstate(all="ignore"):
        for r, n in enumerate(image):
            for at, w in zip(index[r], wide(weight[r]), strict=True):
                (some,) = np.nonzero(at >= 0)
                np.add.at(dx[n].T, at[some], (w[some] * dy[r][:, some]).T)
    return rounded(dx, dy.dtype)


def sample_dw(dy: Array, x: Array, image: Indices, index: Indices) -> Array:
    """dw[r, k, p] = sum over c of dy[r, c, p] * x[image[r], c, index[r, k, p]]; 0 where the index is -1."""
    _expect_inside(image, index, x.shape)
    dw = np.zeros(index.shape)
    with np.errstate(all="ignore"):
        for r, n in enumerate(image):
            for k, at in enumerate(index[r]):
                (some,) = np.nonzero(at >= 0)
                dw[r, k, some] = (wide(dy[r][:, some]) * x[n][:, at[some]]).sum(0)
    return rounded(dw, dy.dtype)


def _expect_inside(image: Indices, index: Indices, x_shape: tuple[int, ...]) -> None:
    if image.size and not 0 <= image.min() <= image.max() < x_shape[0]:
        raise IndexError("image must hold numbers of images")
    if index.size and not -1 <= index.min() <= index.max() < x_shape[2]:
        raise IndexError("index must hold positions inside an image, or -1")
