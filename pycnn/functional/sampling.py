"""Weighted sums of elements, differentiable any number of times: what interpolation, grid_sample, RoIAlign and
deformable convolution are made of.

Both kinds are linear in the array, and `Sample` in its weights too, so the gradients of each are one another:

    y  = resample(x, taps)            dx = resample(dy, taps transposed)
    y  = sample(x, w)                 dx = scatter(dy, w)         dw = dot(dy, x)
    dx = scatter(dy, w)            d(dy) = sample(g, w)           dw = dot(dy, g)
    dw = dot(dy, x)                d(dy) = sample(x, g)           dx = scatter(dy, g)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pycnn import ops
from pycnn.graph import Function
from pycnn.resampling import Taps

__all__ = ["Resample", "Sample", "SampleDot", "SampleScatter", "resample"]

Array = Any


class Resample(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, taps: Mapping[int, Taps]) -> Array:
        ctx.taps = taps
        return ops.resample(x, taps)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Resample.apply(dy, {axis: table.transposed for axis, table in ctx.taps.items()}), None


class Sample(Function):
    """y[r, c, p] = sum over k of w[r, k, p] * x[image[r], c, index[r, k, p]]."""

    @staticmethod
    def forward(ctx: Any, x: Array, w: Array, image: Array, index: Array) -> Array:
        need_x, need_w = ctx.needs_input_grad[:2]
        ctx.save(x if need_w else None, w if need_x else None, image, index)
        ctx.x_shape = tuple(x.shape)
        return ops.sample(x, image, index, w)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, w, *places = ctx.saved
        need_x, need_w = ctx.needs_input_grad[:2]
        dx = SampleScatter.apply(dy, w, *places, ctx.x_shape) if need_x else None
        return dx, SampleDot.apply(dy, x, *places) if need_w else None, None, None


class SampleScatter(Function):
    """dx[n, c, s] = sum of w * dy over the points that look there."""

    @staticmethod
    def forward(ctx: Any, dy: Array, w: Array, image: Array, index: Array, x_shape: tuple[int, int, int]) -> Array:
        need_dy, need_w = ctx.needs_input_grad[:2]
        ctx.save(dy if need_w else None, w if need_dy else None, image, index)
        return ops.sample_backward_input(dy, image, index, w, x_shape)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        dy, w, *places = ctx.saved
        need_dy, need_w = ctx.needs_input_grad[:2]
        ddy = Sample.apply(g, w, *places) if need_dy else None
        return ddy, SampleDot.apply(dy, g, *places) if need_w else None, None, None, None


class SampleDot(Function):
    """dw[r, k, p] = sum over c of dy[r, c, p] * x[image[r], c, index[r, k, p]]."""

    @staticmethod
    def forward(ctx: Any, dy: Array, x: Array, image: Array, index: Array) -> Array:
        need_dy, need_x = ctx.needs_input_grad[:2]
        ctx.save(dy if need_x else None, x if need_dy else None, image, index)
        ctx.x_shape = tuple(x.shape)
        return ops.sample_backward_weight(dy, x, image, index)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        dy, x, *places = ctx.saved
        need_dy, need_x = ctx.needs_input_grad[:2]
        ddy = Sample.apply(x, g, *places) if need_dy else None
        return ddy, SampleScatter.apply(dy, g, *places, ctx.x_shape) if need_x else None, None, None


def resample(x: Any, taps: Mapping[int, Taps]) -> Any:
    """Axes made anew by tables (`pycnn.resampling`), each element a weighted sum of neighbours.

    Args:
        x: any shape; a Tensor or an array.
        taps: by axis (not negative), its table.

    Raises:
        TypeError, ValueError: as `pycnn.ops.resample`.

    >>> import numpy as np, pycnn
    >>> from pycnn.resampling import Taps
    >>> pycnn.functional.resample(np.array([1.0, 2.0]), {0: Taps.of([[0, 1]], [[0.5, 0.5]], 2)})
    array([1.5])
    """
    return Resample.apply(x, taps)
