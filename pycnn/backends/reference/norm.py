"""Normalisation: across neighbouring channels (LRN), over the batch, and by given coefficients a channel."""

from __future__ import annotations

import numpy as np

from ._common import Array, rounded, wide


def lrn_fwd(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """y[c] = x[c] / (k + alpha/size * sum of x^2 over channels c - size//2 .. c + (size - 1)//2)^beta."""
    x64 = wide(x)
    with np.errstate(all="ignore"):
        return rounded(x64 / _lrn_base(x64, size, alpha, k) ** beta, x.dtype)


def lrn_bwd(dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """dx[c] = dy[c] / s[c]^beta - 2*alpha*beta/size * x[c] * sum of dy*x/s^(beta + 1) over the channels that see c."""
    dy64, x64 = wide(dy), wide(x)
    with np.errstate(all="ignore"):
        base = _lrn_base(x64, size, alpha, k)
        seen = _channel_window(dy64 * x64 * base ** (-beta - 1), (size - 1) // 2, size // 2)
        return rounded(dy64 * base**-beta - 2 * alpha * beta / size * x64 * seen, dy.dtype)


def batch_norm_fwd(
    x: Array, weight: Array | None, bias: Array | None, eps: float, residual: Array | None = None, relu: bool = False
) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + eps) * weight + bias, the mean and the biased variance over all axes but the second.

    Then `residual` is added and a ReLU taken.
    """
    x64 = wide(x)
    axes = _all_but_channels(x64)
    count = x64.size // x64.shape[1]
    with np.errstate(all="ignore"):
        mean = x64.sum(axis=axes) / np.float64(count)
        centred = x64 - _by_channel(mean, x64)
        var = (centred * centred).sum(axis=axes) / np.float64(count)
        y = centred / np.sqrt(_by_channel(var, x64) + eps)
        if weight is not None:
            y *= _by_channel(wide(weight), x64)
        if bias is not None:
            y += _by_channel(wide(bias), x64)
        if residual is not None:
            y += wide(residual)
        if relu:
            y = np.maximum(y, 0)
    return rounded(y, x.dtype), rounded(mean, x.dtype), rounded(var, x.dtype)


def batch_norm_bwd(
    dy: Array, x: Array, weight: Array | None, mean: Array, var: Array, eps: float, y: Array | None = None
) -> tuple[Array, Array, Array]:
    """dx, dweight and dbias; mean and var are functions of x here, so dx is free of its mean and of its slope in x.

    `y`, if any, is what a ReLU gave at the end; dy counts where that is not <= 0.
    """
    dy64, x64 = wide(dy if y is None else np.where(y <= 0, dy.dtype.type(0), dy)), wide(x)
    axes = _all_but_channels(x64)
    count = np.float64(x64.size // x64.shape[1])
    with np.errstate(all="ignore"):
        scale = 1 / np.sqrt(wide(var) + eps)
        unit = (x64 - _by_channel(wide(mean), x64)) * _by_channel(scale, x64)
        dbias, dweight = dy64.sum(axis=axes), (dy64 * unit).sum(axis=axes)
        dx = dy64 - _by_channel(dbias / count, x64) - unit * _by_channel(dweight / count, x64)
        dx *= _by_channel(scale if weight is None else scale * wide(weight), x64)
    return rounded(dx, dy.dtype), rounded(dweight, dy.dtype), rounded(dbias, dy.dtype)


def batch_norm_eval(x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics that are given."""
    x64 = wide(x)
    with np.errstate(all="ignore"):
        y = (x64 - _by_channel(wide(mean), x64)) / np.sqrt(_by_channel(wide(var), x64) + eps)
        if weight is not None:
            y *= _by_channel(wide(weight), x64)
        if bias is not None:
            y += _by_channel(wide(bias), x64)
    return rounded(y, x.dtype)


def channel_affine(x: Array, scale: Array | None, shift: Array) -> Array:
    """x * scale[c] + shift[c]; a scale of None is 1."""
    x64 = wide(x)
    with np.errstate(all="ignore"):
        scaled = x64 if scale is None else x64 * _by_channel(wide(scale), x64)
        return rounded(scaled + _by_channel(wide(shift), x64), x.dtype)


def _lrn_base(x: np.ndarray, size: int, alpha: float, k: float) -> np.ndarray:
    return k + alpha / size * _channel_window(x * x, size // 2, (size - 1) // 2)


def _channel_window(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """For each channel c, the sum over channels c - before .. c + after, as far as they exist."""
    total = np.zeros_like(x)
    for step in range(-before, after + 1):
        first, stop = max(0, -step), min(x.shape[1], x.shape[1] - step)
        if first < stop:
            total[:, first:stop] += x[:, first + step : stop + step]
    return total


def _all_but_channels(x: np.ndarray) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _by_channel(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *(1,) * (x.ndim - 2))
