"""Activation functions.  Their input is floating, so it is a Tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.arithmetic import where
from pycnn.onnx.operators._common import axis_of, host, tensor_of
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


@operator("Erf")
def erf(x: Tensor) -> Tensor:
    return F.erf(x)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@operator("PRelu")
def prelu(x: Any, slope: Any) -> Any:
    """The slope is broadcast to x; before opset 7 it had one value a channel, which exporters still write."""
    if slope.ndim == 1 and x.ndim > 2 and slope.shape[0] == x.shape[1] != 1 and slope.shape[0] != x.shape[-1]:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    if not isinstance(x, Tensor):
        return np.where(x < 0, x * slope, x).astype(x.dtype)
    if slope.shape == (x.shape[1] if x.ndim > 1 else 0, *(1,) * (x.ndim - 2)):
        return F.prelu(x, slope.reshape(-1))
    return where((x < 0).data, x * slope, x)


@operator("PRelu", since=6)
def prelu_of_channels(x: Tensor, slope: Tensor) -> Tensor:
    if slope.ndim == 1:
        slope = slope.reshape((-1, *(1,) * (x.ndim - 2)))
    return prelu(x, slope)


operator("PRelu", since=7)(prelu)


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@operator("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632, gamma: float = 1.0507009) -> Tensor:
    return F.elu(x, alpha) * gamma


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (x * alpha + beta).clamp(0, 1)


@operator("HardSwish")
def hard_swish(x: Tensor) -> Tensor:
    return F.hardswish(x)


@operator("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.silu(x) if alpha == 1.0 else x * F.sigmoid(x * alpha)


@operator("Softplus")
def softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=_NEVER)


_NEVER = 1e4  # PyTorch's shortcut for large x; the standard has none


@operator("Softsign")
def softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


@operator("Mish")
def mish(x: Tensor) -> Tensor:
    return F.mish(x)


@operator("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate)


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
