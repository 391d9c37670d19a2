"""Activations as layers."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(Module):
    """max(x, 0); NaN stays NaN.

    `inplace` is accepted for PyTorch's sake and has no effect: the result is always a new tensor.

    >>> import pycnn
    >>> pycnn.nn.ReLU()(pycnn.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return F.relu(x)


class Tanh(Module):
    """tanh(x).

    >>> import pycnn
    >>> pycnn.nn.Tanh()(pycnn.tensor([0.0])).tolist()
    [0.0]
    """

    def forward(self, x: Any) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> import pycnn
    >>> pycnn.nn.Sigmoid()(pycnn.tensor([0.0])).tolist()
    [0.5]
    """

    def forward(self, x: Any) -> Tensor:
        return F.sigmoid(x)


class Softmax(Module):
    """exp(x) / sum of exp(x) along `dim`.

    >>> import pycnn
    >>> pycnn.nn.Softmax()(pycnn.tensor([[5.0, 5.0]])).tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x - log(sum of exp(x)) along `dim`.

    >>> import pycnn
    >>> pycnn.nn.LogSoftmax(0)(pycnn.tensor([3.0])).tolist()
    [0.0]
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
