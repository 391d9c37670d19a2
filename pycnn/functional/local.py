"""Locally connected layers: convolutions whose every window has filters of its own.

The windows are laid side by side (`pycnn.unfold`); what is left is a matrix product a window, of its filters with its
elements in all images.  That is a convolution too, of one pixel high images as wide as there are images in the batch,
with a group for each window: so it runs on the convolution kernels of every backend, and differentiates as they do.
The windows take N*C*R*S*P*Q elements and the filters K*C*R*S*P*Q: more memory than the layer has anyway only where the
batch is larger than K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.functional._arrays import composed, of_one_image
from pycnn.functional.conv import conv2d
from pycnn.functional.conv1d import lifted, lowered
from pycnn.functional.unfold import Unfold2d
from pycnn.ops._checks import expect_image, expect_rank, expect_shape
from pycnn.shape import Conv2dShape, normalize_padding, pair, whole
from pycnn.spatial import each, sides_of

__all__ = ["locally_connected1d", "locally_connected2d"]

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


@composed
def locally_connected2d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Any:
    """A convolution with filters of its own for every window: nothing is shared between places.

        y[n, k, p, q] = b[k, p, q] + sum over c, r, s of
            x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[p, q, k, c, r, s]

    Args:
        x: input, (N, C, H, W), or one image (C, H, W); a Tensor or an array.
        w: filters, (P, Q, K, C // groups, R, S), of the same dtype.
        b: bias, (K, P, Q), or None.
        stride, padding, dilation, groups: as `pycnn.conv2d`.

    Returns:
        (N, K, P, Q), P and Q as `pycnn.conv2d` has them, without N for one image.

    Raises:
        TypeError, ValueError: as `pycnn.conv2d`; also filters for other windows than there are.

    Reference: LeCun, "Generalization and Network Design Strategies", 1989; Taigman et al., "DeepFace", CVPR 2014.

    >>> import numpy as np, pycnn
    >>> pycnn.locally_connected2d(np.ones((1, 1, 1, 3)), np.arange(3.0).reshape(1, 3, 1, 1, 1, 1))
    array([[[[0., 1., 2.]]]])
    """
    if x.ndim != 4:
        return of_one_image(locally_connected2d, x, w, b, stride, padding, dilation, groups)
    expect_image("x", x.shape)
    expect_rank("w", w.shape, 6, "(P, Q, K, C/groups, R, S)")
    p, q, k, group, *window = w.shape
    kernel, steps, reach = (window[0], window[1]), pair("stride", stride, 1), pair("dilation", dilation, 1)
    sides = normalize_padding(padding, kernel, steps, reach)
    shape = Conv2dShape.of(x.shape, (k, group, *kernel), steps, sides, reach, whole("groups", groups, 1))
    expect_shape("w", (p, q), (shape.P, shape.Q), "filters for the output's size")
    if b is not None:
        expect_shape("b", b.shape, (k, p, q), "one value an output channel and place, shape")
    n, places, taps = shape.N, p * q, shape.C * kernel[0] * kernel[1]
    windows = Unfold2d.apply(x, (p, q), kernel, steps, (sides[0], sides[2]), reach).reshape(n, taps, places)
    # Of no images, as many: none.
    rows = windows.permute(2, 1, 0).reshape(min(n, 1), places * taps, 1, max(n, 1))
    y = conv2d(rows, w.reshape(places * k, group * kernel[0] * kernel[1], 1, 1), groups=places * shape.groups)
    y = y.reshape(places, k, n).permute(2, 1, 0).reshape(n, k, p, q)
    return y if b is None else (y + b).to(y.dtype)


@composed
def locally_connected1d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Any:
    """A 1-D convolution with filters of its own for every window; `locally_connected2d` has the details.

    Args:
        x: input, (N, C, L), or one sequence (C, L); a Tensor or an array.
        w: filters, (Q, K, C // groups, S), of the same dtype.
        b: bias, (K, Q), or None.
        stride, padding, dilation, groups: as `pycnn.conv1d`.

    Returns:
        (N, K, Q), without N for one sequence.

    Raises:
        TypeError, ValueError: as `locally_connected2d`.

    >>> import numpy as np, pycnn
    >>> pycnn.locally_connected1d(np.ones((1, 1, 3)), np.arange(3.0).reshape(3, 1, 1, 1))
    array([[[0., 1., 2.]]])
    """
    if x.ndim != 3:
        return of_one_image(locally_connected1d, x, w, b, stride, padding, dilation, groups, spatial=1)
    expect_rank("w", w.shape, 4, "(Q, K, C/groups, S)")
    steps, reach = each("stride", stride, 1, 1), each("dilation", dilation, 1, 1)
    sides = sides_of(padding, (w.shape[3],), steps, reach)
    filters = w.reshape(1, *w.shape[:3], 1, w.shape[3])
    how = (1, *steps), (0, 0, *sides), (1, *reach), groups
    return lowered(locally_connected2d(lifted(x), filters, None if b is None else lifted(b), *how))
