"""Pooling of one axis: views of the 2-D ones whose planes are one row high."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.functional._arrays import expect_arrays, of_one_image
from pycnn.functional.conv1d import lifted, lowered
from pycnn.functional.pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from pycnn.spatial import each, sides_of

__all__ = ["adaptive_avg_pool1d", "adaptive_max_pool1d", "avg_pool1d", "max_pool1d"]

Int = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[Sequence[int]]


def max_pool1d(
    x: Any,
    kernel_size: Int,
    stride: Int | None = None,
    padding: Padding = 0,
    dilation: Int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of a sequence.

        y[n, c, q] = max over s of x[n, c, q*stride - left + s*dilation]

    Args:
        x: (N, C, L), or one sequence (C, L); a Tensor or an array.
        kernel_size, stride, dilation: an int or a tuple of one; `stride` defaults to `kernel_size`.
        padding: with -inf, at most half the window: an int, a tuple of one or (left, right).
        ceil_mode, return_indices: as `pycnn.max_pool2d`; indices are places in the sequence.

    Returns:
        (N, C, Q) with Q = (L + left + right - dilation*(S - 1) - 1) // stride + 1 (rounded up with `ceil_mode`),
        without N for one sequence.

    Raises:
        TypeError, ValueError: as `pycnn.max_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.max_pool1d(np.array([[1.0, 3.0, 2.0, 4.0]]), 2, return_indices=True)
    (array([[3., 4.]]), array([[1, 3]]))
    """
    expect_arrays(x=x)
    if len(x.shape) != 3:
        how = kernel_size, stride, padding, dilation, ceil_mode, return_indices
        return of_one_image(max_pool1d, x, *how, spatial=1)
    window, steps, sides = _windows(kernel_size, stride, padding)
    reach = 1, *each("dilation", dilation, 1, 1)
    result = max_pool2d(lifted(x), window, steps, sides, reach, ceil_mode, return_indices)
    return tuple(map(lowered, result)) if isinstance(result, tuple) else lowered(result)


def avg_pool1d(
    x: Any,
    kernel_size: Int,
    stride: Int | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Mean of each window of a sequence.

        y[n, c, q] = 1/d * sum over s of x[n, c, q*stride - left + s]

    Args:
        x, kernel_size, stride, padding, ceil_mode: as `max_pool1d`.
        count_include_pad: as `pycnn.avg_pool2d`.

    Returns:
        (N, C, Q), as `max_pool1d`.

    Raises:
        TypeError, ValueError: as `pycnn.avg_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.avg_pool1d(np.array([[1.0, 3.0, 2.0, 4.0]]), 2)
    array([[2., 3.]])
    """
    expect_arrays(x=x)
    if len(x.shape) != 3:
        return of_one_image(avg_pool1d, x, kernel_size, stride, padding, ceil_mode, count_include_pad, spatial=1)
    window, steps, sides = _windows(kernel_size, stride, padding)
    return lowered(avg_pool2d(lifted(x), window, steps, sides, ceil_mode, count_include_pad))


def adaptive_avg_pool1d(x: Any, output_size: int | Sequence[int] | None) -> Any:
    """Mean of each of Q windows that divide a sequence.

    Args:
        x: (N, C, L), or one sequence (C, L); a Tensor or an array.
        output_size: Q, an int or a tuple of one; None keeps the input's.

    Returns:
        (N, C, Q), without N for one sequence.

    Raises:
        TypeError, ValueError: as `pycnn.adaptive_avg_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.adaptive_avg_pool1d(np.arange(4.0).reshape(1, 4), 2)
    array([[0.5, 2.5]])
    """
    expect_arrays(x=x)
    if len(x.shape) != 3:
        return of_one_image(adaptive_avg_pool1d, x, output_size, spatial=1)
    return lowered(adaptive_avg_pool2d(lifted(x), _out_size(output_size)))


def adaptive_max_pool1d(x: Any, output_size: int | Sequence[int] | None, return_indices: bool = False) -> Any:
    """Largest element of each of Q windows that divide a sequence; arguments as `adaptive_avg_pool1d`.

    Returns:
        (N, C, Q); with `return_indices` (y, indices), int64, places in the sequence.

    Raises:
        TypeError, ValueError: as `pycnn.adaptive_max_pool2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.adaptive_max_pool1d(np.arange(4.0).reshape(1, 4), 2)
    array([[1., 3.]])
    """
    expect_arrays(x=x)
    if len(x.shape) != 3:
        return of_one_image(adaptive_max_pool1d, x, output_size, return_indices, spatial=1)
    result = adaptive_max_pool2d(lifted(x), _out_size(output_size), return_indices)
    return tuple(map(lowered, result)) if isinstance(result, tuple) else lowered(result)


def _windows(
    kernel_size: Int, stride: Int | None, padding: Padding
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Window, stride and the four sides of padding, of planes one row high."""
    window = each("kernel_size", kernel_size, 1, 1)
    steps = window if stride is None else each("stride", stride, 1, 1)
    if isinstance(padding, str):
        raise ValueError(f"padding of a pooling must be numbers, got {padding!r}")
    return (1, *window), (1, *steps), (0, 0, *sides_of(padding, window, (1,), (1,)))


def _out_size(output_size: int | Sequence[int] | None) -> tuple[int, int | None]:
    return 1, None if output_size is None else each("output_size", output_size, 1, 1)[0]
