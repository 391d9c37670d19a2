"""Convolution and its two gradients: a loop over the filter taps, a contraction over channels at each.

A tap (r, s) sees a strided view of the padded image, one pixel for each output pixel; with the views as matrices of
channels x pixels, each tap is one small matrix product a group.  Padding is real zeros here, so an infinite weight over
the padding gives NaN, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._common import Array, Padding, Pair, Window, rounded, wide


def conv2d_fprop(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
    scale: Array | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> Array:
    """relu(scale[k] * y + b[k] + residual), each step where it is given, with the convolution

    y[n, k, p, q] = sum over c, r, s of padded_x[n, c, p*stride + r*dilation, ...] * w[k, c, r, s].
    """
    _only_direct(algo)
    image, filters = _padded(x, padding, groups), _grouped_filters(w, groups)
    p, q = _out_size(image.shape[3:], w.shape[2:], stride, dilation)
    n, k = x.shape[0], w.shape[0]
    y = np.zeros((n, groups, k // groups, p * q))
    with np.errstate(all="ignore"):
        for r, s, pixels in _taps(w.shape[2:], (p, q), stride, dilation):
            y += filters[r, s] @ _matrix(image[pixels])
        y = y.reshape(n, k, p, q)
        if scale is not None:
            y *= wide(scale)[:, None, None]
        if b is not None:
            y += wide(b)[:, None, None]
        if residual is not None:
            y += wide(residual)
        if relu:
            y = np.maximum(y, 0.0)  # NaN stays
    return rounded(y, x.dtype)


def conv2d_dgrad(
    dy: Array,
    w: Array,
    x_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
) -> Array:
    """dx: every output pixel's gradient goes back, times w, to the pixels it was computed from."""
    _only_direct(algo)
    n, c, h, width = x_shape
    top, bottom, left, right = padding
    k, p, q = dy.shape[1:]
    filters = _grouped_filters(w, groups)
    gradient = wide(dy).reshape(n, groups, k // groups, p * q)
    image = np.zeros((n, groups, c // groups, top + h + bottom, left + width + right))
    with np.errstate(all="ignore"):
        for r, s, pixels in _taps(w.shape[2:], (p, q), stride, dilation):
            share = filters[r, s].swapaxes(1, 2) @ gradient
            image[pixels] += share.reshape(n, groups, c // groups, p, q)
    dx = image[..., top : top + h, left : left + width].reshape(x_shape)
    return rounded(dx, dy.dtype)


def conv2d_wgrad(
    dy: Array,
    x: Array,
    w_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
    bias: bool = False,
) -> Array | tuple[Array, Array]:
    """dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q] * padded_x[n, c, p*stride + r*dilation, ...].

    With `bias`, (dw, db): the gradient of the bias too.
    """
    _only_direct(algo)
    n, k, p, q = dy.shape
    image = _padded(x, padding, groups)
    gradient = wide(dy).reshape(n, groups, k // groups, p * q)
    dw = np.empty((groups, k // groups, *w_shape[1:]))
    with np.errstate(all="ignore"):
        for r, s, pixels in _taps(w_shape[2:], (p, q), stride, dilation):
            dw[:, :, :, r, s] = (gradient @ _matrix(image[pixels]).swapaxes(2, 3)).sum(axis=0)
    gradient_of_w = rounded(dw.reshape(w_shape), dy.dtype)
    return (gradient_of_w, channel_sum(dy)) if bias else gradient_of_w


def conv2d_algorithms(operator: str, shape: object, dtype: object) -> list[tuple[str, str | None]]:
    """The reference has one way for everything."""
    return [("direct", None)]


def conv2d_choose(operator: str, shape: object, dtype: object) -> tuple[str, str]:
    """The one algorithm there is, and why."""
    return "direct", "the reference sums over the filter taps in float64, whatever the problem"


def channel_sum(dy: Array) -> Array:
    """Sum over all axes but the second: the gradient of a bias, (C,)."""
    with np.errstate(all="ignore"):
        return rounded(wide(dy).sum(axis=(0, *range(2, dy.ndim))), dy.dtype)


def _only_direct(algo: str) -> None:
    if algo not in ("auto", "direct"):
        raise ValueError(
            f"algo={algo!r}: the reference backend has only 'auto' and 'direct' (its sum over filter taps)"
        )


def _padded(x: Array, padding: Padding, groups: int) -> np.ndarray:
    """x with its zeros around it, as (N, groups, C/groups, H + top + bottom, W + left + right)."""
    top, bottom, left, right = padding
    n, c, h, w = x.shape
    image = np.zeros((n, groups, c // groups, top + h + bottom, left + w + right))
    image[:, :, :, top : top + h, left : left + w] = x.reshape(n, groups, c // groups, h, w)
    return image


def _grouped_filters(w: Array, groups: int) -> np.ndarray:
    """w as (R, S, groups, K/groups, C/groups): one matrix a tap and group, laid out so that BLAS takes it."""
    k, c, r, s = w.shape
    return np.ascontiguousarray(wide(w).reshape(groups, k // groups, c, r, s).transpose(3, 4, 0, 1, 2))


def _out_size(image: tuple[int, ...], window: tuple[int, ...], stride: Pair, dilation: Pair) -> Pair:
    p, q = ((image[i] - dilation[i] * (window[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    return p, q


def _taps(window: tuple[int, ...], out: Pair, stride: Pair, dilation: Pair) -> Iterator[tuple[int, int, Window]]:
    """Each tap (r, s) of the filter, with the index of the padded image's pixels it meets, one an output pixel."""
    for r in range(window[0]):
        rows = slice(r * dilation[0], r * dilation[0] + (out[0] - 1) * stride[0] + 1, stride[0])
        for s in range(window[1]):
            columns = slice(s * dilation[1], s * dilation[1] + (out[1] - 1) * stride[1] + 1, stride[1])
            yield r, s, (..., rows, columns)


def _matrix(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(*pixels.shape[:3], pixels.shape[3] * pixels.shape[4])
