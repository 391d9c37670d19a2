"""Convolution: plain and transposed.  That of integers is in quantize.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn import functional as F
from pycnn.onnx.operators._common import Value
from pycnn.onnx.operators.shape import padded
from pycnn.onnx.operators.windows import Windows, windows
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Ints = tuple[int, ...] | None


@operator("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    if kernel_shape and tuple(kernel_shape) != tuple(w.shape[2:]):
        raise ValueError(f"kernel_shape is {kernel_shape} and the filters are {tuple(w.shape)}")
    view = windows(x.shape[2:], w.shape[2:], strides, pads, dilations, auto_pad)
    function = _of_rank(_CONV, len(view.kernel))
    return function(x, w, b, view.stride, sides(view), view.dilation, group)


def sides(view: Windows) -> tuple[int, ...]:
    """Padding as `pycnn.functional` has it: (left, right), (top, bottom, left, right), ..."""
    return tuple(side for pair in zip(view.before, view.after, strict=True) for side in pair)


@operator("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    output_padding: Ints = None,
    output_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    rank = x.ndim - 2
    stride, dilation = strides or (1,) * rank, dilations or (1,) * rank
    more = output_padding or (0,) * rank
    full = [(x.shape[2 + i] - 1) * stride[i] + (w.shape[2 + i] - 1) * dilation[i] + 1 for i in range(rank)]
    if output_shape or auto_pad.startswith("SAME"):
        wanted = output_shape[-rank:] if output_shape else [x.shape[2 + i] * stride[i] for i in range(rank)]
        total = [full[i] + more[i] - wanted[i] for i in range(rank)]
        half = [one // 2 for one in total]
        rest = [one - first for one, first in zip(total, half, strict=True)]
        before, after = (half, rest) if auto_pad == "SAME_UPPER" else (rest, half)
    else:
        given = pads if pads and auto_pad == "NOTSET" else (0,) * (2 * rank)
        before, after = list(given[:rank]), list(given[rank:])
    function = _of_rank(_CONV_TRANSPOSE, rank)
    plain = all(extra < max(step, reach) for extra, step, reach in zip(more, stride, dilation, strict=True))
    if plain and min((*before, *after), default=0) >= 0:
        padding = tuple(side for pair in zip(before, after, strict=True) for side in pair)
        return function(x, w, b, stride, padding, more, group, dilation)
    # Rows that no filter reaches are the bias alone: they are added before it is.
    y = function(x, w, None, stride, (0,) * (2 * rank), (0,) * rank, group, dilation)
    behind = [extra - side for extra, side in zip(more, after, strict=True)]
    y = padded(y, (0, 0, *[-side for side in before], 0, 0, *behind))
    return y if b is None else F.bias(y, b)


def _of_rank(table: dict[int, Callable[..., Value]], rank: int) -> Callable[..., Value]:
    if rank not in table:
        raise ValueError(f"a convolution over {rank} dimensions; there are those over {', '.join(map(str, table))}")
    return table[rank]


_CONV: dict[int, Callable[..., Any]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE: dict[int, Callable[..., Any]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
