"""Convolution and transposed convolution of one axis: views of the 2-D ones whose images are one row high."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.functional._arrays import expect_arrays, of_one_image
from pycnn.functional.conv import Algo, conv2d, conv_transpose2d
from pycnn.ops._checks import expect_rank
from pycnn.spatial import each, sides_of

__all__ = ["conv1d", "conv_transpose1d", "lifted", "lowered"]

Int = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def conv1d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Int = 1,
    padding: Padding = 0,
    dilation: Int = 1,
    groups: int = 1,
    *,
    algo: Algo = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Any:
    """Convolve the sequences `x` with the filters `w`, differentiably.

        y[n, k, q] = b[k] + sum over c, s of x[n, c, q*stride - left + s*dilation] * w[k, c, s]

    Args:
        x: input, (N, C, L), or one sequence (C, L); a Tensor or an array.
        w: filters, (K, C // groups, S), of the same dtype.
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation: an int or a tuple of one.
        padding: an int, a tuple of one, (left, right), "same" or "valid".
        groups: number of independent groups of channels.
        algo, accuracy, precision: as `pycnn.conv2d`, which computes it on images one row high, without a copy.

    Returns:
        (N, K, Q) with Q = (L + left + right - dilation*(S - 1) - 1) // stride + 1, without N for one sequence.

    Raises:
        TypeError, ValueError: as `pycnn.conv2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.conv1d(np.arange(4.0).reshape(1, 1, 4), np.ones((1, 1, 2)))
    array([[[1., 3., 5.]]])
    """
    expect_arrays(x=x, w=w)
    options: dict[str, Any] = {"algo": algo, "accuracy": accuracy, "precision": precision}
    if len(x.shape) != 3:
        return of_one_image(conv1d, x, w, b, stride, padding, dilation, groups, spatial=1, **options)
    expect_rank("w", w.shape, 3, "(K, C/groups, S)")
    steps, reach = each("stride", stride, 1, 1), each("dilation", dilation, 1, 1)
    sides = sides_of(padding, (w.shape[2],), steps, reach)
    how = (1, *steps), (0, 0, *sides), (1, *reach), groups
    return lowered(conv2d(lifted(x), lifted(w), b, *how, **options))


def conv_transpose1d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Int = 1,
    padding: int | Sequence[int] | Sequence[Sequence[int]] = 0,
    output_padding: Int = 0,
    groups: int = 1,
    dilation: Int = 1,
    *,
    algo: Algo = "auto",
    accuracy: str | None = None,
    precision: str | None = None,
) -> Any:
    """Transposed convolution of sequences: the gradient of a convolution with respect to its input, as an operator.

        y[n, k, v] = b[k] + sum over c, s, q with v = q*stride - left + s*dilation of x[n, c, q] * w[c, k, s]

    Args:
        x: input, (N, C, L), or one sequence (C, L); a Tensor or an array.
        w: filters, (C, K // groups, S).
        b: bias, (K,), or None; of x's dtype, or float32 beside 16 bits.
        stride, dilation, output_padding: an int or a tuple of one.
        padding: taken away from each end of the output: an int, a tuple of one or (left, right).
        groups: number of independent groups of channels.
        algo, accuracy, precision: as `pycnn.conv_transpose2d`, which computes it on images one row high.

    Returns:
        (N, K, Q) with Q = (L - 1)*stride - left - right + dilation*(S - 1) + output_padding + 1, without N for one
        sequence.

    Raises:
        TypeError, ValueError: as `pycnn.conv_transpose2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.conv_transpose1d(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
    array([[[1., 1., 2., 1., 1.]]])
    """
    expect_arrays(x=x, w=w)
    options: dict[str, Any] = {"algo": algo, "accuracy": accuracy, "precision": precision}
    if len(x.shape) != 3:
        how = stride, padding, output_padding, groups, dilation
        return of_one_image(conv_transpose1d, x, w, b, *how, spatial=1, **options)
    expect_rank("w", w.shape, 3, "(C, K/groups, S)")
    if isinstance(padding, str):
        raise ValueError(f"padding of a transposed convolution must be numbers, got {padding!r}")
    steps, reach = each("stride", stride, 1, 1), each("dilation", dilation, 1, 1)
    extra = each("output_padding", output_padding, 0, 1)
    sides = sides_of(padding, (1,), (1,), (1,))
    how = (1, *steps), (0, 0, *sides), (0, *extra), groups, (1, *reach)
    return lowered(conv_transpose2d(lifted(x), lifted(w), b, *how, **options))


def lifted(x: Any) -> Any:
    """(..., L) as (..., 1, L): the same memory."""
    return x.reshape(*x.shape[:-1], 1, x.shape[-1])


def lowered(y: Any) -> Any:
    """(..., 1, L) as (..., L): the same memory."""
    return y.reshape(*y.shape[:-2], y.shape[-1])
