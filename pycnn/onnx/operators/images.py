"""Images put together from windows, and the places where an affine map looks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from pycnn.arithmetic import PutItem
from pycnn.onnx.operators._common import Value, ints, is_tensor, tensor_of
from pycnn.onnx.operators.shape import padded
from pycnn.onnx.operators.windows import windows
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor


@operator("Col2Im", host=(1, 2))
def col2im(
    x: Value,
    image_shape: np.ndarray,
    block_shape: np.ndarray,
    *,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Value:
    """The sum of the windows, each put where it was taken from, tap by tap."""
    size, kernel = ints(image_shape), ints(block_shape)
    view = windows(size, kernel, strides, pads, dilations)
    n, taps = x.shape[0], math.prod(kernel)
    parts = x.reshape((n, x.shape[1] // taps, taps, *view.out))
    whole = tuple(one + a + b for one, a, b in zip(size, view.before, view.after, strict=True))
    shape = (n, x.shape[1] // taps, *whole)
    y: Any = None
    for number, place in enumerate(itertools.product(*map(range, kernel))):
        rows = zip(place, view.dilation, view.out, view.stride, strict=True)
        index: Any = (..., *(slice(k * d, k * d + (p - 1) * s + 1, s) for k, d, p, s in rows))
        part = parts[:, :, number]
        if is_tensor(part):
            put = PutItem.apply(part, index, shape)
        else:
            put = np.zeros(shape, x.dtype)
            put[index] = part
        y = put if y is None else y + put
    return padded(y, (0, 0, *(-a for a in view.before), 0, 0, *(-b for b in view.after)))


@operator("AffineGrid", host=(1,))
def affine_grid(theta: Tensor, size: np.ndarray, *, align_corners: int = 0) -> Tensor:
    """theta times (x, y, 1) or (x, y, z, 1) of every pixel; -1 and 1 are the image's edges, or the pixels there."""
    n, _, *space = ints(size)
    axes = [_positions(one, bool(align_corners)) for one in space]
    mesh = np.meshgrid(*axes, indexing="ij")
    base = np.stack([*reversed(mesh), np.ones(space)], -1).reshape(-1, len(space) + 1)
    grid = tensor_of(base.astype(theta.dtype), theta) @ theta.transpose(1, 2)
    return grid.reshape(n, *space, len(space))


def _positions(size: int, align_corners: bool) -> np.ndarray:
    if align_corners:
        return np.linspace(-1.0, 1.0, size)
    return (2 * np.arange(size) + 1) / size - 1
