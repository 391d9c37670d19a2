"""Pooling: maximum, average and Lp, of windows and of whole planes, and the way back from a maximum."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.movement import SetItem
from pycnn.onnx.operators._common import Value, host, ints, is_tensor, like, tensor_of
from pycnn.onnx.operators.conv import sides
from pycnn.onnx.operators.shape import padded
from pycnn.onnx.operators.windows import Windows, windows
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Ints = tuple[int, ...] | None


@operator("MaxPool")
def max_pool(
    x: Value,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    pads: Ints = None,
    storage_order: int = 0,
    strides: Ints = None,
    outputs: int = 1,
) -> Any:
    """y, and the place of each maximum in the flattened x if asked for."""
    if not is_tensor(x):  # 8 bits, each of which float32 holds
        found = max_pool(
            Tensor(x.astype(np.float32)),
            kernel_shape=kernel_shape,
            auto_pad=auto_pad,
            ceil_mode=ceil_mode,
            dilations=dilations,
            pads=pads,
            storage_order=storage_order,
            strides=strides,
            outputs=outputs,
        )
        y, *places = found if type(found) is tuple else (found,)
        return (host(y).astype(x.dtype), *places)
    size = x.shape[2:]
    view = windows(size, kernel_shape, strides, pads, dilations, auto_pad, bool(ceil_mode))
    after = _behind(view, size)
    inside = all(max(side) * 2 <= k for *side, k in zip(view.before, after, view.kernel, strict=True))
    if inside:
        padding, offset = tuple(zip(view.before, after, strict=True)), (0,) * len(size)
    else:  # more padding than pooling itself takes
        x = padded(x, (0, 0, *view.before, 0, 0, *after), value=-math.inf)
        padding, offset = ((0, 0),) * len(size), view.before
    if outputs == 1:
        return _max(x, view, padding)
    y, places = _max(x, view, padding, True)
    planes = np.unravel_index(host(places), x.shape[2:])
    within = [one - skip for one, skip in zip(planes, offset, strict=True)]
    flat = np.ravel_multi_index(within, size, order="F" if storage_order else "C")
    first = np.arange(x.shape[0] * x.shape[1]).reshape((*x.shape[:2], *(1,) * len(size))) * math.prod(size)
    return y, (flat + first).astype(np.int64)


def _behind(view: Windows, size: tuple[int, ...]) -> tuple[int, ...]:
    """The padding behind each dimension, with what the last, partial windows of ceil_mode hang over it."""
    rows = zip(view.reach, size, view.before, view.after, strict=True)
    return tuple(max(reach - one - first, last) for reach, one, first, last in rows)


_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _max(x: Tensor, view: Windows, padding: Any, places: bool = False) -> Any:
    rank = len(view.kernel)
    if rank not in _MAX:
        raise ValueError(f"maximum pooling over {rank} dimensions; there is that over {', '.join(map(str, _MAX))}")
    return _MAX[rank](x, view.kernel, view.stride, padding, view.dilation, False, places)


@operator("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    size = x.shape[2:]
    view = windows(size, kernel_shape, strides, pads, dilations, auto_pad, bool(ceil_mode))
    after = _behind(view, size)
    if max(view.dilation) == 1 and after == view.after and len(size) == 2:
        halves = all(max(side) * 2 <= k for *side, k in zip(view.before, after, view.kernel, strict=True))
        if halves:
            return F.avg_pool2d(x, view.kernel, view.stride, sides(view), False, bool(count_include_pad))
    total = _window_sum(padded(x, (0, 0, *view.before, 0, 0, *after)), view)
    counts = [_counts(view, size, i, bool(count_include_pad)) for i in range(len(size))]
    return total / tensor_of(reduce(np.multiply.outer, counts).astype(x.dtype), x)


def _counts(view: Windows, size: tuple[int, ...], i: int, include_pad: bool) -> np.ndarray:
    """How many elements each window along dimension `i` covers: of the input, or of the padded one."""
    place = np.arange(view.out[i])[:, None] * view.stride[i] + np.arange(view.kernel[i]) * view.dilation[i]
    place = place - view.before[i]
    low, high = (-view.before[i], size[i] + view.after[i]) if include_pad else (0, size[i])
    return ((place >= low) & (place < high)).sum(1)


def _window_sum(x: Tensor, view: Windows) -> Tensor:
    """The sum of each window of a padded x; windows divide into their dimensions, and so does the sum."""
    if len(view.kernel) == 2 and max(view.dilation) == 1:
        return F.avg_pool2d(x, view.kernel, view.stride, 0, False, True, 1)
    for i, (kernel, stride, dilation, out) in enumerate(
        zip(view.kernel, view.stride, view.dilation, view.out, strict=True)
    ):
        whole = (slice(None),) * (2 + i)
        taps = [(*whole, slice(k * dilation, k * dilation + (out - 1) * stride + 1, stride)) for k in range(kernel)]
        x = reduce(lambda total, tap, x=x: total + x[tap], taps[1:], x[taps[0]])  # type: ignore[misc]
    return x


@operator("LpPool")
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    p: float = 2,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    size = x.shape[2:]
    view = windows(size, kernel_shape, strides, pads, dilations, auto_pad, bool(ceil_mode))
    padding = (0, 0, *view.before, 0, 0, *_behind(view, size))
    return _root(_window_sum(padded(_power(x, p), padding), view), p)


def _power(x: Tensor, p: float) -> Tensor:
    return x * x if p == 2 else abs(x) if p == 1 else abs(x) ** p


def _root(x: Tensor, p: float) -> Tensor:
    return x.sqrt() if p == 2 else x if p == 1 else x ** (1.0 / p)


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1) if x.ndim == 4 else x.mean(tuple(range(2, x.ndim)), True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return F.adaptive_max_pool2d(x, 1) if x.ndim == 4 else x.amax(tuple(range(2, x.ndim)), True)


@operator("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: float = 2) -> Tensor:
    return _root(_power(x, p).sum(tuple(range(2, x.ndim)), True), p)


@operator("MaxUnpool", host=(1, 2))
def max_unpool(
    x: Tensor,
    places: np.ndarray,
    output_shape: np.ndarray | None = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    rank = len(kernel_shape)
    stride, sides = strides or (1,) * rank, pads or (0,) * (2 * rank)
    inner = [(x.shape[2 + i] - 1) * stride[i] - sides[i] - sides[rank + i] + kernel_shape[i] for i in range(rank)]
    shape = (*x.shape[:2], *inner)
    nothing = tensor_of(np.zeros(math.prod(shape), x.dtype), x)
    index = like(places.reshape(-1).astype(np.int64), x)._data
    y = SetItem.apply(nothing, x.reshape(-1), (index,)).reshape(shape)
    if output_shape is None:
        return y
    wanted = ints(output_shape)
    return padded(y, (*(0,) * x.ndim, *[after - one for after, one in zip(wanted, shape, strict=True)]))
