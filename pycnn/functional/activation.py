"""ReLU, tanh, sigmoid, softmax and log-softmax.

Their backward runs one fused kernel; when it is itself recorded (create_graph) it is written out in Tensor operations.
"""

from __future__ import annotations

from typing import Any

from pycnn import ops
from pycnn.functional._arrays import expect_arrays, fused
from pycnn.graph import Function, is_grad_enabled

__all__ = ["log_softmax", "relu", "sigmoid", "softmax", "tanh"]

Array = Any


class Relu(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = ops.relu(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return ReluBackward.apply(dy, ctx.saved[0].detach())


class ReluBackward(Function):
    """dx = dy where y > 0; linear in dy, and constant in y wherever it has a derivative."""

    @staticmethod
    def forward(ctx: Any, dy: Array, y: Array) -> Array:
        ctx.save(y)
        return ops.relu_backward(dy, y)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return ReluBackward.apply(g, ctx.saved[0]), None


class Tanh(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = ops.tanh(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (y,) = ctx.saved
        return dy * (1.0 - y * y) if is_grad_enabled() else fused(ops.tanh_backward(dy._data, y._data))


class Sigmoid(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = ops.sigmoid(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (y,) = ctx.saved
        return dy * (y * (1.0 - y)) if is_grad_enabled() else fused(ops.sigmoid_backward(dy._data, y._data))


class Softmax(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, axis: int) -> Array:
        y = ops.softmax(x, axis)
        ctx.save(y)
        ctx.axis = axis
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (y,) = ctx.saved
        axis = ctx.axis
        if is_grad_enabled():
            return y * (dy - (dy * y).sum(axis, keepdim=True)), None
        return fused(ops.softmax_backward(dy._data, y._data, axis)), None


class LogSoftmax(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, axis: int) -> Array:
        y = ops.log_softmax(x, axis)
        ctx.save(y)
        ctx.axis = axis
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (y,) = ctx.saved
        axis = ctx.axis
        if is_grad_enabled():
            return dy - y.exp() * dy.sum(axis, keepdim=True), None
        return fused(ops.log_softmax_backward(dy._data, y._data, axis)), None


def relu(x: Any) -> Any:
    """y = max(x, 0); a NaN stays one, and the derivative at 0 is 0.

    Args:
        x: any shape; a Tensor or an array, float16, bfloat16, float32 or float64.

    Raises:
        TypeError: not an array, or an unsupported dtype.

    >>> import numpy as np, pycnn
    >>> pycnn.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return Relu.apply(x)


def tanh(x: Any) -> Any:
    """y = (e^x - e^-x) / (e^x + e^-x).

    Args, Raises: as `relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.tanh(np.array([0.0]))
    array([0.])
    """
    return Tanh.apply(x)


def sigmoid(x: Any) -> Any:
    """y = 1 / (1 + e^-x).

    Args, Raises: as `relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.sigmoid(np.array([0.0]))
    array([0.5])
    """
    return Sigmoid.apply(x)


def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """y[i] = e^x[i] / sum over j of e^x[j], along one dimension, without overflow.

    Args:
        x: at least one dimension; a Tensor or an array.
        dim: negative counts from the end.
        dtype: what x is converted to first.

    Raises:
        TypeError: not an array, or an unsupported dtype.
        ValueError: a dimension that x does not have.

    >>> import numpy as np, pycnn
    >>> pycnn.softmax(np.array([1000.0, 1000.0]), 0)
    array([0.5, 0.5])
    """
    return _along(Softmax, x, dim, dtype)


def log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """y[i] = x[i] - log(sum over j of e^x[j]), along one dimension, without overflow.

    Args, Raises: as `softmax`.

    >>> import numpy as np, pycnn
    >>> pycnn.log_softmax(np.array([0.0, 0.0]), 0).round(4)
    array([-0.6931, -0.6931])
    """
    return _along(LogSoftmax, x, dim, dtype)


def _along(function: type[Function], x: Any, dim: int, dtype: Any) -> Any:
    """By one of the two; the one element of a scalar lies along dimension 0 of it, as PyTorch has it."""
    if dtype is not None:
        expect_arrays(x=x)
        x = x.astype(dtype) if hasattr(x, "astype") else x.to(dtype)  # torch's tensors alone have no astype
    if getattr(x, "ndim", 1) == 0 and dim in (0, -1):
        return function.apply(x.reshape(1), 0).reshape(())
    return function.apply(x, dim)
