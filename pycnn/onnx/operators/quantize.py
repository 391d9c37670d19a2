"""Quantised tensors: to them, from them, and convolutions and matrix products of them.

A sum of products of 8-bit numbers is a whole number far below 2^53, so float64 computes it exactly (rounded to the next
whole number, whatever algorithm a convolution takes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.onnx.graph import dtype_of
from pycnn.onnx.operators._common import Value, axis_of, host
from pycnn.onnx.operators.arithmetic import converted
from pycnn.onnx.operators.conv import conv
from pycnn.onnx.operators.linear import matmul
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Array = np.ndarray[Any, Any]

_BITS = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def _bounds(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The least and the largest number of an integer dtype; None if it is no integer."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return _BITS.get(dtype.name)


def _spread(parameter: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or a zero point as it is broadcast: one for all, one for each slice of `axis`, or one for each block."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = axis_of(axis, len(shape))
    if block_size:
        return np.repeat(parameter, block_size, axis)[tuple(slice(size) for size in shape)]
    return parameter.reshape((-1, *(1,) * (len(shape) - 1 - axis)))


@operator("QuantizeLinear", host=(0, 1, 2))
def quantize_linear(
    x: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    dtype = zero.dtype if zero is not None else dtype_of(output_dtype) if output_dtype else np.dtype(np.uint8)
    scale = _spread(scale, x.shape, axis, block_size)
    if precision:
        x, scale = x.astype(dtype_of(precision)), scale.astype(dtype_of(precision))
    scaled = x / scale
    offset = None if zero is None else _spread(zero, x.shape, axis, block_size)
    bounds = _bounds(dtype)
    if bounds is None:
        return converted(scaled, dtype, bool(saturate))
    whole = np.rint(scaled.astype(np.float64))
    if offset is not None:
        whole = whole + offset.astype(np.float64)
    return np.clip(np.nan_to_num(whole), *bounds).astype(np.int32).astype(dtype)


@operator("DequantizeLinear", host=(0, 1, 2))
def dequantize_linear(
    x: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    wide = x.astype(np.float32)
    if zero is not None:
        wide = wide - _spread(zero, x.shape, axis, block_size).astype(np.float32)
    dtype = dtype_of(output_dtype) if output_dtype else scale.dtype
    return (wide * _spread(scale, x.shape, axis, block_size).astype(np.float32)).astype(dtype)


@operator("DynamicQuantizeLinear", host=(0,))
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    """The 8-bit numbers, and the scale and the zero point with which they cover all of x, and 0."""
    low, high = (np.float32(bound(0, extreme())) for bound, extreme in ((min, x.min), (max, x.max)))
    scale = np.float32(1 if low == high else high - low) / np.float32(255)
    zero = np.rint(np.clip(-low / scale, 0, 255)).astype(np.uint8)
    return quantize_linear(x, np.asarray(scale), np.asarray(zero)), np.asarray(scale), np.asarray(zero)


def _centred(x: Array, zero: Array | None, axis: int) -> Tensor:
    """x without its zero point, in float64; a vector of zero points belongs to the slices of `axis`."""
    wide = x.astype(np.float64)
    return Tensor(wide if zero is None else wide - _spread(zero, x.shape, axis, 0))


@operator("ConvInteger")
def conv_integer(
    x: Array,
    w: Array,
    x_zero: Array | None = None,
    w_zero: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Array:
    y = conv(
        _centred(x, x_zero, 1),
        _centred(w, w_zero, 0),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return np.rint(host(y)).astype(np.int32)


@operator("QLinearConv", host=(1, 4, 6))
def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    bias: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Array:
    total = conv_integer(
        x,
        w,
        x_zero,
        w_zero,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    column = (-1, *(1,) * (x.ndim - 2))
    if bias is not None:
        total = total + bias.reshape(column)
    scale = x_scale * (w_scale.reshape(column) if w_scale.size > 1 else w_scale) / y_scale
    return _requantized(total, scale, y_zero)


def _requantized(total: Array, scale: Array, zero: Array) -> Array:
    bounds = _bounds(zero.dtype)
    assert bounds is not None  # the standard has integers alone here
    return np.clip(np.rint(total * scale) + zero.astype(np.float64), *bounds).astype(zero.dtype)


@operator("MatMulInteger")
def matmul_integer(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    """A vector of zero points has one for each row of a, or for each column of b."""
    y: Value = matmul(_centred(a, a_zero, a.ndim - 2), _centred(b, b_zero, b.ndim - 1))
    return np.rint(host(y)).astype(np.int32)


@operator("QLinearMatMul", host=(1, 4, 6))
def qlinear_matmul(
    a: Array, a_scale: Array, a_zero: Array, b: Array, b_scale: Array, b_zero: Array, y_scale: Array, y_zero: Array
) -> Array:
    total = matmul_integer(a, b, a_zero, b_zero)
    left = _spread(a_scale, total.shape, total.ndim - 2, 0)
    return _requantized(total, left * b_scale / y_scale, y_zero)
