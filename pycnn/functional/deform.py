"""Deformable convolution: each tap of the filter looks at a place of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.arrays import is_half, module_of
from pycnn.functional._arrays import composed, tensors
from pycnn.functional.conv import IntPair, conv2d
from pycnn.functional.grid import combined, linear_taps
from pycnn.functional.sampling import Sample
from pycnn.shape import pair

__all__ = ["deform_conv2d"]


@composed
def deform_conv2d(
    x: Any,
    offset: Any,
    weight: Any,
    bias: Any = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    mask: Any = None,
) -> Any:
    """Convolution whose taps are moved by offsets, and with `mask` weighed too (version 2).

        y[n, k, p, q] = b[k] + sum over c, r, s of w[k, c, r, s] * mask[n, g, r, s, p, q]
            * x[n, c](p*stride_h - pad_h + r*dilation_h + dh, q*stride_w - pad_w + s*dilation_w + dw)

    with (dh, dw) = offset[n, g, r, s, :, p, q], g the offset group of channel c, and x between the pixels by bilinear
    interpolation, 0 outside.  The columns that the filters are multiplied with are gathered first, C*R*S*P*Q numbers an
    image.

    Args:
        x: (N, C, H, W); a Tensor or an array.
        offset: (N, 2*G*R*S, P, Q), pairs (dh, dw), for G offset groups of C / G channels.
        weight: (K, C / groups, R, S).
        bias: (K,) or None.
        stride, padding, dilation: an int or a pair (height, width).
        mask: (N, G*R*S, P, Q) or None.

    Returns:
        y, (N, K, P, Q) with P = (H + 2*pad_h - dilation_h*(R - 1) - 1) // stride_h + 1.

    Raises:
        TypeError: not arrays, dtypes that differ or are unsupported, or a parameter of a wrong type.
        ValueError: shapes that do not fit.

    Reference: Dai et al., "Deformable convolutional networks", 2017; Zhu et al., "Deformable ConvNets v2", 2019;
    torchvision.ops.deform_conv2d.

    >>> import numpy as np, pycnn
    >>> x, half = np.array([[[[1.0, 2.0, 4.0]]]]), np.zeros((1, 2, 1, 3))
    >>> half[:, 1] = 0.5
    >>> pycnn.functional.deform_conv2d(x, half, np.ones((1, 1, 1, 1)))
    array([[[[1.5, 3. , 2. ]]]])
    """
    x, offset, weight = tensors(x=x, offset=offset, weight=weight)
    if mask is not None:
        (mask,) = tensors(mask=mask)
    if bias is not None:
        (bias,) = tensors(bias=bias)
    for name, tensor in {"x": x, "offset": offset, "weight": weight, "mask": mask}.items():
        if tensor is None:
            continue
        if tensor.ndim != 4:
            raise ValueError(f"{name} must have 4 dimensions, got shape {tuple(tensor.shape)}")
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {tensor.dtype}")
    if is_half(x._data):  # positions need more
        wide = [None if one is None else one.to(np.float32) for one in (x, offset, weight, bias, mask)]
        y = deform_conv2d(wide[0], wide[1], wide[2], wide[3], stride, padding, dilation, wide[4])
        return y.to(x.dtype)
    (n, c, h, w), (k, group_channels, r, s) = x.shape, weight.shape
    steps, sides, apart = (
        pair("stride", stride, 1),
        pair("padding", padding, 0),
        pair("dilation", dilation, 1),
    )
    p, q = (
        (size + 2 * side - step_in * (taps - 1) - 1) // step + 1
        for size, side, step_in, taps, step in zip((h, w), sides, apart, (r, s), steps, strict=True)
    )
    if min(r, s) < 1:
        raise ValueError(f"weight must have at least one row and column of taps, got shape {tuple(weight.shape)}")
    if group_channels < 1 or c < 1 or c % group_channels or k % (c // group_channels):
        raise ValueError(
            f"weight must be (K, C / groups, R, S) with groups dividing K, got {tuple(weight.shape)} for {c} channels"
        )
    if p < 1 or q < 1:
        raise ValueError(f"the output must have at least one element a dimension, got {p} x {q}")
    groups = offset.shape[1] // (2 * r * s)
    if groups < 1 or c % groups or tuple(offset.shape) != (n, 2 * groups * r * s, p, q):
        raise ValueError(
            f"offset must have the shape {(n, f'2*G*{r * s}', p, q)} for G that divides {c}, got {tuple(offset.shape)}"
        )
    if mask is not None and tuple(mask.shape) != (n, groups * r * s, p, q):
        raise ValueError(f"mask must have the shape {(n, groups * r * s, p, q)}, got {tuple(mask.shape)}")
    moves = offset.reshape(n * groups, r * s, 2, p * q)
    along = []
    for axis, (size, taps) in enumerate(((h, r), (w, s))):
        at = np.arange((p, q)[axis]) * steps[axis] - sides[axis]
        tap = np.arange(taps) * apart[axis]
        # (R, S, P, Q), of which two vary
        base = (tap[:, None, None, None] + at[:, None]) if axis == 0 else (tap[:, None, None] + at)
        base = np.broadcast_to(base, (r, s, p, q)).reshape(1, r * s, p * q).astype(x.dtype)
        position = (moves[:, :, axis] + module_of(x._data).asarray(base)).reshape(n * groups, r * s * p * q)
        along.append(linear_taps(position, size))
    index, weights = combined(along, (h, w))
    if mask is not None:
        weights = weights * mask.reshape(n * groups, 1, r * s * p * q)
    images = module_of(x._data).arange(n * groups)
    columns = Sample.apply(x.reshape(n * groups, c // groups, h * w), weights, images, index)
    filters = weight.reshape(k, group_channels * r * s, 1, 1)
    return conv2d(columns.reshape(n, c * r * s, p, q), filters, bias, groups=c // group_channels)
