"""Power-average pooling of one, two and three axes, composed of powers and average pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pycnn.functional._arrays import composed
from pycnn.functional.pool import avg_pool2d, max_pool2d
from pycnn.functional.pool1d import avg_pool1d, max_pool1d
from pycnn.functional.pool3d import avg_pool3d, max_pool3d
from pycnn.functional.shaping import where
from pycnn.ops._checks import real
from pycnn.spatial import each

__all__ = ["lp_pool1d", "lp_pool2d", "lp_pool3d"]

Ints = int | Sequence[int]


@composed
def lp_pool1d(x: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False) -> Any:
    """Root of the sum of powers of each window of a sequence; `lp_pool2d` has the details.

    Args:
        x: (N, C, L), or one sequence (C, L); a Tensor or an array.

    >>> import numpy as np, pycnn
    >>> pycnn.lp_pool1d(np.array([[3.0, 4.0]]), 2, 2)
    array([[5.]])
    """
    return _lp_pool(1, (max_pool1d, avg_pool1d), x, norm_type, kernel_size, stride, ceil_mode)


@composed
def lp_pool2d(x: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False) -> Any:
    """Root of the sum of powers of each window.

        y[n, c, p, q] = (sum over r, s of x[n, c, p*stride_h + r, q*stride_w + s] ** norm) ** (1 / norm)

    Args:
        x: (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        norm_type: the norm, any number but 0; infinity gives the largest magnitude, minus infinity the smallest.
        kernel_size, stride: an int or one an axis; `stride` defaults to `kernel_size`.
        ceil_mode: round the output size up; a last, partial window counts as if its mean went on, as in PyTorch.

    Returns:
        (N, C, P, Q), sizes as `pycnn.avg_pool2d` has them.  Where a sum is 0 the gradient is 0; a negative sum, of odd
        powers, has no root: NaN.

    Raises:
        TypeError, ValueError: as `pycnn.avg_pool2d`; a norm of 0 or NaN.

    Reference: Gulcehre et al., "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural Networks", 2014.

    >>> import numpy as np, pycnn
    >>> pycnn.lp_pool2d(np.array([[[3.0, 4.0]]]), 2, (1, 2))
    array([[[5.]]])
    """
    return _lp_pool(2, (max_pool2d, avg_pool2d), x, norm_type, kernel_size, stride, ceil_mode)


@composed
def lp_pool3d(x: Any, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False) -> Any:
    """Root of the sum of powers of each window of a volume; `lp_pool2d` has the details.

    Args:
        x: (N, C, D, H, W), or one volume (C, D, H, W); a Tensor or an array.

    >>> import numpy as np, pycnn
    >>> pycnn.lp_pool3d(np.full((1, 2, 2, 1), 3.0), 2, (2, 2, 1))
    array([[[[6.]]]])
    """
    return _lp_pool(3, (max_pool3d, avg_pool3d), x, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(
    axes: int,
    pools: tuple[Callable[..., Any], Callable[..., Any]],
    x: Any,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None,
    ceil_mode: bool,
) -> Any:
    largest, mean = pools
    norm, window = real("norm_type", norm_type), each("kernel_size", kernel_size, 1, axes)
    if norm == 0 or math.isnan(norm):
        raise ValueError(f"norm_type must be a number other than 0, got {norm_type!r}")
    if math.isinf(norm):
        sign = math.copysign(1.0, norm)
        return sign * largest(sign * abs(x), window, stride, 0, 1, ceil_mode)
    total = mean(x**norm, window, stride, 0, ceil_mode) * float(math.prod(window))
    none = total == 0
    return where(none, 0.0, where(none, 1.0, total) ** (1.0 / norm))
