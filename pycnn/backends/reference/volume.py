"""3-D convolution and its two gradients: a loop over the filter's taps, a contraction over channels at each.

Backends have no such functions: `pycnn.ops.conv3d` makes them of 2-D ones.  These share nothing with that, and so are
its oracle; they are what runs where the reference is selected.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ._common import Array, rounded, wide

Ints = tuple[int, ...]


def conv3d_fprop(
    x: Array, w: Array, b: Array | None, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> Array:
    """y[n, k, o, p, q] = b[k] + sum over c, t, r, s of padded_x[n, c, o*stride + t*dilation, ...] * w[k, c, t, ...]."""
    volume, filters = _padded(x, padding, groups), _grouped(w, groups)
    out = tuple((volume.shape[3 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(3))
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *out))
    with np.errstate(all="ignore"):
        for tap, voxels in _taps(w.shape[2:], out, stride, dilation):
            y += np.einsum("gkc,ngcopq->ngkopq", filters[(..., *tap)], volume[voxels])
        y = y.reshape(x.shape[0], w.shape[0], *out)
        if b is not None:
            y += wide(b)[:, None, None, None]
    return rounded(y, x.dtype)


def conv3d_dgrad(dy: Array, w: Array, x_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Array:
    """dx: every output voxel's gradient goes back, times w, to the voxels it was computed from."""
    n, c, *size = x_shape
    filters, gradient = _grouped(w, groups), wide(dy).reshape(n, groups, w.shape[0] // groups, *dy.shape[2:])
    room = [size[i] + padding[2 * i] + padding[2 * i + 1] for i in range(3)]
    volume = np.zeros((n, groups, c // groups, *room))
    with np.errstate(all="ignore"):
        for tap, voxels in _taps(w.shape[2:], dy.shape[2:], stride, dilation):
            volume[voxels] += np.einsum("gkc,ngkopq->ngcopq", filters[(..., *tap)], gradient)
    inside: Any = tuple(slice(padding[2 * i], padding[2 * i] + size[i]) for i in range(3))
    return rounded(volume[(..., *inside)].reshape(x_shape), dy.dtype)


def conv3d_wgrad(dy: Array, x: Array, w_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Array:
    """dw[k, c, t, r, s] = sum over n, o, p, q of dy[n, k, o, p, q] * padded_x[n, c, o*stride + t*dilation, ...]."""
    volume = _padded(x, padding, groups)
    gradient = wide(dy).reshape(x.shape[0], groups, w_shape[0] // groups, *dy.shape[2:])
    dw = np.empty((groups, w_shape[0] // groups, *w_shape[1:]))
    with np.errstate(all="ignore"):
        for tap, voxels in _taps(w_shape[2:], dy.shape[2:], stride, dilation):
            dw[(..., *tap)] = np.einsum("ngkopq,ngcopq->gkc", gradient, volume[voxels])
    return rounded(dw.reshape(w_shape), dy.dtype)


def _padded(x: Array, padding: Ints, groups: int) -> np.ndarray:
    """x with its zeros around it, its channels by group."""
    sides = [(0, 0), (0, 0), *[(padding[2 * i], padding[2 * i + 1]) for i in range(3)]]
    padded = np.pad(wide(x), sides)
    return padded.reshape(x.shape[0], groups, x.shape[1] // groups, *padded.shape[2:])


def _grouped(w: Array, groups: int) -> np.ndarray:
    return wide(w).reshape(groups, w.shape[0] // groups, *w.shape[1:])


def _taps(window: Ints, out: Ints, stride: Ints, dilation: Ints) -> Iterator[tuple[Any, Any]]:
    """Each tap of the filter, with the index of the padded voxels it meets, one for each output voxel."""
    for tap in product(*map(range, window)):
        first = [one * reach for one, reach in zip(tap, dilation, strict=True)]
        yield tap, (..., *[slice(first[i], first[i] + (out[i] - 1) * stride[i] + 1, stride[i]) for i in range(3)])
