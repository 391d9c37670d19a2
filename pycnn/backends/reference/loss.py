"""Negative log-likelihood: the scores at the targets, taken by index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._common import Array, rounded, wide

Target = NDArray[np.int64]


def nll_fwd(x: Array, target: Target, weight: Array | None, ignore_index: int, reduction: str) -> Array:
    """-weight[t] * x[n, t, ...] with t = target[n, ...], 0 where it is ignored; summed, or averaged by weight."""
    factors = _factors(x.shape, target, weight, ignore_index)
    counted = target != ignore_index
    picked = np.take_along_axis(wide(x), np.expand_dims(np.where(counted, target, 0), 1), 1)[:, 0]
    with np.errstate(all="ignore"):
        losses = np.where(counted, -factors * picked, 0.0)
        if reduction == "none":
            return rounded(losses, x.dtype)
        return rounded(losses.sum() / (factors.sum() if reduction == "mean" else 1.0), x.dtype)


def nll_bwd(
    dy: Array, target: Target, weight: Array | None, x_shape: tuple[int, ...], ignore_index: int, reduction: str
) -> Array:
    """dx: -weight[t] * dy at each target's class, over the sum of the weights for a mean; 0 elsewhere."""
    factors = _factors(x_shape, target, weight, ignore_index)
    counted = target != ignore_index
    dx = np.zeros(x_shape)
    with np.errstate(all="ignore"):
        share = -factors * wide(dy) / (factors.sum() if reduction == "mean" else 1.0)
        place = np.expand_dims(np.where(counted, target, 0), 1)
        np.put_along_axis(dx, place, np.expand_dims(np.where(counted, share, 0.0), 1), 1)
    return rounded(dx, dy.dtype)


def _factors(x_shape: tuple[int, ...], target: Target, weight: Array | None, ignore_index: int) -> NDArray[np.float64]:
    counted = target != ignore_index
    if (counted & ((target < 0) | (target >= x_shape[1]))).any():
        raise IndexError("target must hold classes of x, or the ignored one")
    return counted * (1.0 if weight is None else wide(weight)[np.where(counted, target, 0)])
