"""Activation functions.  Their input is floating, so it is a Tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.arithmetic import where
from pycnn.onnx.operators._common import axis_of, host, tensor_of
from pycnn.onnx.operators.pointwise import pointwise
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor


@operator("Relu")
def relu(x: Any) -> Any:
    return F.relu(x) if isinstance(x, Tensor) else np.maximum(x, 0)


@operator("Sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    return F.sigmoid(x)


@operator("Tanh")
def tanh(x: Tensor) -> Tensor:
    return F.tanh(x)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return where((x >= 0).data, x, x * alpha)


@operator("PRelu")
def prelu(x: Any, slope: Any) -> Any:
    """The slope is broadcast to x; before opset 7 it had one value a channel, which exporters still write."""
    if slope.ndim == 1 and x.ndim > 2 and slope.shape[0] == x.shape[1] != 1 and slope.shape[0] != x.shape[-1]:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    if not isinstance(x, Tensor):
        return np.where(x < 0, x * slope, x).astype(x.dtype)
    return where((x < 0).data, x * slope, x)


@operator("PRelu", since=6)
def prelu_of_channels(x: Tensor, slope: Tensor) -> Tensor:
    if slope.ndim == 1:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    return prelu(x, slope)


operator("PRelu", since=7)(prelu)


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return _exponential(x, alpha, 1.0, 1.0)


@operator("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632, gamma: float = 1.0507009) -> Tensor:
    return _exponential(x, alpha, gamma, 1.0)


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return _exponential(x, alpha, 1.0, alpha)


def _exponential(x: Tensor, alpha: float, gamma: float, width: float) -> Tensor:
    """gamma * x for x > 0, gamma * alpha * (e^(x / width) - 1) below."""
    below = (x.clamp(max=0) / width).exp() - 1.0
    return where((x > 0).data, x * gamma, below * (alpha * gamma))


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (x * alpha + beta).clamp(0, 1)


@operator("HardSwish")
def hard_swish(x: Tensor) -> Tensor:
    return x * (x / 6.0 + 0.5).clamp(0, 1)


@operator("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * F.sigmoid(x if alpha == 1.0 else x * alpha)


@operator("Softplus")
def softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + pointwise("log1p", (-abs(x)).exp())


@operator("Softsign")
def softsign(x: Tensor) -> Tensor:
    return x / (abs(x) + 1.0)


@operator("Mish")
def mish(x: Tensor) -> Tensor:
    return x * F.tanh(softplus(x))


@operator("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "tanh":
        return x * 0.5 * (F.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1.0)
    return x * 0.5 * (pointwise("erf", x * math.sqrt(0.5)) + 1.0)


@operator("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return where((x > alpha).data, x, 0.0)


@operator("Shrink")
def shrink(x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    if not isinstance(x, Tensor):
        return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)
    return where((x < -lambd).data, x + bias, where((x > lambd).data, x - bias, 0.0))


@operator("Softmax")
def softmax_of_rows(x: Tensor, *, axis: int = 1) -> Tensor:
    return _rows(x, axis, F.softmax)


@operator("LogSoftmax")
def log_softmax_of_rows(x: Tensor, *, axis: int = 1) -> Tensor:
    return _rows(x, axis, F.log_softmax)


def _rows(x: Tensor, axis: int, function: Any) -> Tensor:
    """Before opset 13 all dimensions from `axis` on were one row."""
    rows = math.prod(x.shape[: axis_of(axis, x.ndim)])
    return function(x.reshape(rows, math.prod(x.shape) // max(rows, 1)), 1).reshape(x.shape)


@operator("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return F.softmax(x, axis)


@operator("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return F.log_softmax(x, axis)


@operator("Hardmax")
def hardmax_of_rows(x: Tensor, *, axis: int = 1) -> Tensor:
    return _rows(x, axis, lambda rows, _: hardmax(rows))


@operator("Hardmax", since=13)
def hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    array = host(x)
    hot = np.zeros_like(array)
    np.put_along_axis(hot, np.expand_dims(array.argmax(axis), axis), 1, axis)
    return tensor_of(hot, x)
