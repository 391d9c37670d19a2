"""Windows of an image side by side, and their sum back into an image: a loop over the windows' taps.

Element (r, s) of window (p, q) is the pixel (p*stride_h - before_h + r*dilation_h, q*stride_w - before_w +
s*dilation_w); `before` may be negative, `out` counts the windows, and pixels outside the image are 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._common import Array, Pair, rounded, wide


def unfold2d(x: Array, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, out: Pair, rows_first: bool) -> Array:
    """(N, C*R*S, P, Q), the elements of each window; (N, P, C*R*S, Q) with `rows_first`."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, *kernel, *out), x.dtype)
    for r, s, windows, pixels in _taps((h, w), kernel, stride, before, dilation, out):
        y[:, :, r, s][windows] = x[pixels]
    side_by_side = y.reshape(n, c * kernel[0] * kernel[1], *out)
    return np.ascontiguousarray(side_by_side.transpose(0, 2, 1, 3)) if rows_first else side_by_side


def fold2d(y: Array, size: Pair, kernel: Pair, stride: Pair, before: Pair, dilation: Pair) -> Array:
    """(N, C, *size): every element of a window added to its pixel."""
    n, taps, *out = y.shape
    c = taps // (kernel[0] * kernel[1])
    elements = wide(y).reshape(n, c, *kernel, *out)
    dx = np.zeros((n, c, *size))
    with np.errstate(all="ignore"):
        for r, s, windows, pixels in _taps(size, kernel, stride, before, dilation, (out[0], out[1])):
            dx[pixels] += elements[:, :, r, s][windows]
    return rounded(dx, y.dtype)


def _taps(
    size: Pair, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, out: Pair
) -> Iterator[tuple[int, int, tuple, tuple]]:
    """Each tap, and for it the indices of the windows whose pixel lies inside the image, and of these pixels."""
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            windows, pixels = [], []
            for axis, tap in enumerate((r, s)):
                first = tap * dilation[axis] - before[axis]
                inside = [i for i in range(out[axis]) if 0 <= i * stride[axis] + first < size[axis]]
                windows.append(np.array(inside, np.intp))
                pixels.append(windows[-1] * stride[axis] + first)
            yield r, s, (..., *np.ix_(*windows)), (..., *np.ix_(*pixels))
