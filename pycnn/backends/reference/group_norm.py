"""Normalisation of each group of neighbouring channels of each sample."""

from __future__ import annotations

import numpy as np

from ._common import Array, rounded, wide


def group_norm_fwd(
    x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float, centred: bool = True
) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + eps) * weight[c] + bias[c], the mean and the biased variance, both (N, groups).

    x is (N, C, ...), and a group has C / groups neighbouring channels and all that they hold of one sample.  Not
    `centred`, the mean counts as 0 and the variance is the mean of the squares.
    """
    x64 = wide(x)
    rows = x64.reshape(x.shape[0], groups, _length(x, groups))
    with np.errstate(all="ignore"):
        mean = rows.sum(2) / np.float64(rows.shape[2]) if centred else np.zeros(rows.shape[:2])
        var = ((rows - mean[..., None]) ** 2).sum(2) / np.float64(rows.shape[2])
        y = ((rows - mean[..., None]) / np.sqrt(var[..., None] + eps)).reshape(x.shape)
        if weight is not None:
            y = y * _by_channel(wide(weight), x64)
        if bias is not None:
            y = y + _by_channel(wide(bias), x64)
    return rounded(y, x.dtype), rounded(mean, x.dtype), rounded(var, x.dtype)


def group_norm_bwd(
    dy: Array,
    x: Array,
    groups: int,
    weight: Array | None,
    mean: Array,
    var: Array,
    eps: float,
    centred: bool = True,
    affine: bool = True,
) -> tuple[Array, Array | None, Array | None]:
    """dx, dweight and dbias; mean and var are functions of x here.  Without `affine` the latter two are None."""
    dy64, x64 = wide(dy), wide(x)
    shape = (x.shape[0], groups, _length(x, groups))
    axes = (0, *range(2, x.ndim))
    with np.errstate(all="ignore"):
        scale = 1 / np.sqrt(wide(var)[..., None] + eps)
        unit = (x64.reshape(shape) - wide(mean)[..., None]) * scale
        product = dy64 * unit.reshape(x.shape)
        slope = (dy64 if weight is None else dy64 * _by_channel(wide(weight), x64)).reshape(shape)
        count = np.float64(shape[2])
        dx = slope - unit * ((slope * unit).sum(2, keepdims=True) / count)
        if centred:
            dx = dx - slope.sum(2, keepdims=True) / count
        dx = rounded((dx * scale).reshape(x.shape), dy.dtype)
    if not affine:
        return dx, None, None
    return dx, rounded(product.sum(axes), dy.dtype), rounded(dy64.sum(axes), dy.dtype)


def _length(x: Array, groups: int) -> int:
    """Elements of a group."""
    length = x.shape[1] // groups
    for size in x.shape[2:]:
        length *= size
    return length


def _by_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *(1,) * (x.ndim - 2))
