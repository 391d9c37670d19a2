"""Pooling of three axes, by the 2-D kernels: over the rows and columns of every slice, then over depth.

The maximum of the maxima is the maximum of the volume, and the first of equal ones (the last NaN) in depth, then in the
plane, is the first (last) in scan order, so values and indices are what one scan would find.  A mean over a window is
the mean over depth of the means over planes, with one rounding more; a divisor is the product of its axes' counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import graph
from pycnn.arrays import is_half, module_of
from pycnn.functional._arrays import composed, of_one_image
from pycnn.functional.pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from pycnn.ops._checks import expect_rank, flag
from pycnn.spatial import each, sides_of

__all__ = ["adaptive_avg_pool3d", "adaptive_max_pool3d", "avg_pool3d", "max_pool3d"]

Array = Any
IntTriple = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[Sequence[int]]
OutSize = int | Sequence[int | None] | None


@composed
def max_pool3d(
    x: Any,
    kernel_size: IntTriple,
    stride: IntTriple | None = None,
    padding: Padding = 0,
    dilation: IntTriple = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of a volume.

        y[n, c, o, p, q] = max over t, r, s of x[n, c, o*stride_d - front + t*dilation_d, p*stride_h - top + ..., ...]

    Args:
        x: (N, C, D, H, W), or one volume (C, D, H, W); a Tensor or an array.
        kernel_size, stride, dilation: an int or three (depth, height, width); `stride` defaults to `kernel_size`.
        padding: with -inf, at most half the window: an int, three, or a pair for each axis.
        ceil_mode: round the output size up, so that a last, partial window counts.
        return_indices: give (y, indices), int64, flat (d*H + h)*W + w in each volume.

    Returns:
        (N, C, O, P, Q), sizes as `pycnn.max_pool2d` has them, without N for one volume.

    Raises:
        TypeError, ValueError: as `pycnn.max_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.max_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 2, return_indices=True)
    (array([[[[7.]]]]), array([[[[7]]]]))
    """
    if x.ndim != 5:
        how = kernel_size, stride, padding, dilation, ceil_mode, return_indices
        return of_one_image(max_pool3d, x, *how, spatial=3)
    window, steps, sides = _windows(x, kernel_size, stride, padding)
    reach = each("dilation", dilation, 1, 3)
    wanted = flag("return_indices", return_indices)

    def planes(image: Any) -> Any:
        return max_pool2d(image, window[1:], steps[1:], sides[2:], reach[1:], ceil_mode, wanted)

    def depth(image: Any) -> Any:
        how = (window[0], 1), (steps[0], 1), (*sides[:2], 0, 0), (reach[0], 1), ceil_mode, wanted
        return max_pool2d(image, *how)

    return _largest(x, wanted, planes, depth)


@composed
def avg_pool3d(
    x: Any,
    kernel_size: IntTriple,
    stride: IntTriple | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Mean of each window of a volume.

        y[n, c, o, p, q] = 1/d * sum over t, r, s of x[n, c, o*stride_d - front + t, p*stride_h - top + r, ...]

    Args:
        x, kernel_size, stride, padding, ceil_mode: as `max_pool3d`.
        count_include_pad, divisor_override: as `pycnn.avg_pool2d`.

    Returns:
        (N, C, O, P, Q), without N for one volume.

    Raises:
        TypeError, ValueError: as `pycnn.avg_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 2)
    array([[[[3.5]]]])
    """
    if x.ndim != 5:
        how = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        return of_one_image(avg_pool3d, x, *how, spatial=3)
    window, steps, sides = _windows(x, kernel_size, stride, padding)
    within = None if divisor_override is None else 1  # the sums of the planes, then

    def planes(image: Any) -> Any:
        return avg_pool2d(image, window[1:], steps[1:], sides[2:], ceil_mode, count_include_pad, within)

    def depth(image: Any) -> Any:
        how = (window[0], 1), (steps[0], 1), (*sides[:2], 0, 0), ceil_mode, count_include_pad, divisor_override
        return avg_pool2d(image, *how)

    return _rounded_once(x, lambda wide: _in_turn(wide, planes, depth))


@composed
def adaptive_avg_pool3d(x: Any, output_size: OutSize) -> Any:
    """Mean of each of O x P x Q windows that divide a volume, along each axis as `pycnn.adaptive_avg_pool2d`.

    Args:
        x: (N, C, D, H, W), or one volume (C, D, H, W); a Tensor or an array.
        output_size: (O, P, Q), or one int for all; None keeps the input's.

    Returns:
        (N, C, O, P, Q), without N for one volume.

    Raises:
        TypeError, ValueError: as `pycnn.adaptive_avg_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.adaptive_avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), (1, 2, 1))
    array([[[[2.5],
             [4.5]]]])
    """
    if x.ndim != 5:
        return of_one_image(adaptive_avg_pool3d, x, output_size, spatial=3)
    o, p, q = _out_size(x, output_size)

    def planes(image: Any) -> Any:
        return adaptive_avg_pool2d(image, (p, q))

    def depth(image: Any) -> Any:
        return adaptive_avg_pool2d(image, (o, image.shape[3]))

    return _rounded_once(x, lambda wide: _in_turn(wide, planes, depth))


@composed
def adaptive_max_pool3d(x: Any, output_size: OutSize, return_indices: bool = False) -> Any:
    """Largest element of each of O x P x Q windows that divide a volume; arguments as `adaptive_avg_pool3d`.

    Returns:
        (N, C, O, P, Q), without N for one volume; with `return_indices` (y, indices), int64, flat (d*H + h)*W + w.

    Raises:
        TypeError, ValueError: as `pycnn.adaptive_max_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.adaptive_max_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 1)
    array([[[[7.]]]])
    """
    if x.ndim != 5:
        return of_one_image(adaptive_max_pool3d, x, output_size, return_indices, spatial=3)
    o, p, q = _out_size(x, output_size)
    wanted = flag("return_indices", return_indices)

    def planes(image: Any) -> Any:
        return adaptive_max_pool2d(image, (p, q), wanted)

    def depth(image: Any) -> Any:
        return adaptive_max_pool2d(image, (o, image.shape[3]), wanted)

    return _largest(x, wanted, planes, depth)


def _in_turn(x: Any, planes: Callable[[Any], Any], depth: Callable[[Any], Any]) -> Any:
    """Both poolings of a volume, one after the other."""
    n, c, d = x.shape[:3]
    inner = planes(x.reshape(n, c * d, *x.shape[3:]))
    p, q = inner.shape[2:]
    y = depth(inner.reshape(n, c, d, p * q))
    return y.reshape(n, c, y.shape[2], p, q)


def _largest(x: Any, wanted: bool, planes: Callable[[Any], Any], depth: Callable[[Any], Any]) -> Any:
    """Both maximum poolings in turn; (y, indices) if `wanted`, when they give their indices too."""
    if not wanted:
        return _in_turn(x, planes, depth)
    n, c, d, h, w = x.shape
    inner, place = planes(x.reshape(n, c * d, h, w))
    p, q = inner.shape[2:]
    y, slices = depth(inner.reshape(n, c, d, p * q))
    shape = (n, c, y.shape[2], p, q)
    within, across = place._data.reshape(n * c, d * p * q), slices._data.reshape(n * c, y.shape[2] * p * q)
    indices = _joined(within, across, p * q, h * w)
    return y.reshape(*shape), graph.wrap(indices.reshape(shape))


def _joined(place: Array, slices: Array, positions: int, pixels: int) -> Array:
    """Indices into volumes: of a window's slice, d*positions + position, and in that slice's plane, h*W + w; or -1."""
    inside = module_of(place).take_along_axis(place, slices.clip(0), 1)
    found = (slices >= 0) & (inside >= 0)
    return module_of(place).where(found, slices // positions * pixels + inside, np.int64(-1))


def _rounded_once(x: Any, function: Callable[[Any], Any]) -> Any:
    """`function` of a Tensor; one of 16 bits is widened for it, so that the result alone is rounded to them."""
    return function(x.float()).to(x.dtype) if is_half(x._data) else function(x)


def _windows(
    x: Any, kernel_size: IntTriple, stride: IntTriple | None, padding: Padding
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Window and stride, and the six sides of padding."""
    _expect_volume(x)
    window = each("kernel_size", kernel_size, 1, 3)
    steps = window if stride is None else each("stride", stride, 1, 3)
    if isinstance(padding, str):
        raise ValueError(f"padding of a pooling must be numbers, got {padding!r}")
    return window, steps, sides_of(padding, window, (1, 1, 1), (1, 1, 1))


def _out_size(x: Any, output_size: OutSize) -> tuple[int, ...]:
    _expect_volume(x)
    sizes = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * 3
    if len(sizes) != 3:
        raise ValueError(f"output_size must be an int, None or three of them, got {output_size!r}")
    kept = [x.shape[2 + i] if size is None else size for i, size in enumerate(sizes)]
    return each("output_size", kept, 1, 3)


def _expect_volume(x: Any) -> None:
    expect_rank("x", x.shape, 5, "(N, C, D, H, W)")
    if 0 in x.shape[1:]:
        raise ValueError(f"x must have at least one channel, slice, row and column, got shape {tuple(x.shape)}")
