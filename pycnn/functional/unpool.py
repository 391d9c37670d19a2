"""Maximum unpooling: values go back to where they were the maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn import ops
from pycnn.functional._arrays import expect_arrays
from pycnn.graph import Function
from pycnn.ops._checks import expect_rank, expect_shape
from pycnn.shape import whole
from pycnn.spatial import each

__all__ = ["MaxUnpool", "MaxUnpoolBackward", "max_unpool1d", "max_unpool2d", "max_unpool3d"]

Array = Any
Ints = int | Sequence[int]


class MaxUnpool(Function):
    """y[n, c].flat[indices[n, c, i]] = x[n, c, i], zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Array, indices: Array, size: tuple[int, int]) -> Array:
        ctx.save(indices)
        return ops.plane_put(x, indices, size)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return MaxUnpoolBackward.apply(dy, ctx.saved[0]), None, None


class MaxUnpoolBackward(Function):
    """dx[n, c, i] = dy[n, c].flat[indices[n, c, i]], for all that one place was given, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, dy: Array, indices: Array) -> Array:
        ctx.save(indices)
        ctx.size = tuple(dy.shape[2:])
        return ops.plane_take(dy, indices)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return MaxUnpool.apply(g, ctx.saved[0], ctx.size), None


def max_unpool1d(
    x: Any,
    indices: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Any:
    """The partial inverse of `pycnn.max_pool1d`; `max_unpool2d` has the details.

    Args:
        x, indices: (N, C, Q) or (C, Q), as `pycnn.max_pool1d` gives them.

    >>> import numpy as np, pycnn
    >>> pycnn.max_unpool1d(np.array([[3.0, 4.0]]), np.array([[1, 2]]), 2)
    array([[0., 3., 4., 0.]])
    """
    return _unpool(1, x, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    x: Any,
    indices: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Any:
    """The partial inverse of `pycnn.max_pool2d`: maxima where they were, zeros elsewhere.

        y[n, c].flat[indices[n, c, p, q]] = x[n, c, p, q]

    Args:
        x: (N, C, P, Q) or (C, P, Q); a Tensor or an array.
        indices: integers of x's shape, as `pycnn.max_pool2d` gives them: flat h*W + w; -1 for none.  Of several values
            for one place the last stays.
        kernel_size, stride, padding: of the pooling, an int or one an axis; `stride` defaults to `kernel_size`.
        output_size: (H, W), or a whole shape that ends so; less than a stride away from what H is without it,
            (P - 1)*stride_h + R - 2*pad_h.

    Returns:
        (N, C, H, W), without N where x has none.

    Raises:
        TypeError: not arrays, or indices that are no integers.
        ValueError: shapes that disagree, another output size, or an index outside the plane.

    Reference: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1.

    >>> import numpy as np, pycnn
    >>> y, indices = pycnn.max_pool2d(np.array([[[1.0, 2.0], [3.0, 0.0]]]), 2, return_indices=True)
    >>> pycnn.max_unpool2d(y, indices, 2)
    array([[[0., 0.],
            [3., 0.]]])
    """
    return _unpool(2, x, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    x: Any,
    indices: Any,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Any:
    """The partial inverse of `pycnn.max_pool3d`; `max_unpool2d` has the details.

    Args:
        x, indices: (N, C, O, P, Q) or (C, O, P, Q), as `pycnn.max_pool3d` gives them.

    >>> import numpy as np, pycnn
    >>> pycnn.max_unpool3d(np.full((1, 1, 1, 1), 7.0), np.full((1, 1, 1, 1), 2), (2, 1, 2)).ravel()
    array([0., 0., 7., 0.])
    """
    return _unpool(3, x, indices, kernel_size, stride, padding, output_size)


def _unpool(
    axes: int,
    x: Any,
    indices: Any,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    output_size: Sequence[int] | None,
) -> Any:
    expect_arrays(x=x, indices=indices)
    expect_rank("x", x.shape, axes + 1, "(C, ...) or (N, C, ...)", axes + 2)
    expect_shape("indices", tuple(indices.shape), tuple(x.shape), "x's shape")
    lead, size = x.shape[:-axes], x.shape[-axes:]
    if 0 in (*x.shape[-axes:], lead[-1]):
        raise ValueError(f"x must have at least one channel and element, got shape {tuple(x.shape)}")
    window = each("kernel_size", kernel_size, 1, axes)
    steps = window if stride is None else each("stride", stride, 1, axes)
    sides = each("padding", padding, 0, axes)
    usual = [(size[i] - 1) * steps[i] + window[i] - 2 * sides[i] for i in range(axes)]
    out = usual if output_size is None else _wanted(output_size, usual, steps)
    if min(out) < 1:
        raise ValueError(f"the output would be smaller than 1: {tuple(out)} from x {tuple(x.shape)}")
    n, c = lead if len(lead) == 2 else (1, *lead)
    flat = (n, c, 1, math.prod(size))
    y = MaxUnpool.apply(x.reshape(*flat), indices.reshape(*flat), (1, math.prod(out)))
    return y.reshape(*lead, *out)


def _wanted(output_size: Sequence[int], usual: list[int], steps: tuple[int, ...]) -> list[int]:
    """The last sizes of `output_size`, each less than a stride from the usual one."""
    sizes = [whole(f"output_size[{i}]", one, 0) for i, one in enumerate(output_size)]
    if len(sizes) not in (len(usual), len(usual) + 1, len(usual) + 2):
        raise ValueError(f"output_size must have {len(usual)} sizes, got {tuple(output_size)}")
    sizes = sizes[-len(usual) :]
    for axis, (one, middle, step) in enumerate(zip(sizes, usual, steps, strict=True)):
        if not middle - step < one < middle + step:
            raise ValueError(
                f"output_size must lie between {middle - step + 1} and {middle + step - 1} in axis {axis}, got {one}"
            )
    return sizes
