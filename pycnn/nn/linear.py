"""The fully connected layer, and the small layers around it: flatten, identity, dropout."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter, unset
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["Dropout", "Flatten", "Identity", "Linear"]


class Linear(Module):
    """y = x w^T + b on the last axis.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        bias: whether to add b.

    Attributes:
        weight: (out_features, in_features), drawn as PyTorch does: uniform in +-1/sqrt(in_features).
        bias: (out_features,), drawn likewise, or None.

    Raises:
        ValueError: a size below 1; when called, input whose last axis is not `in_features` long.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.Linear(400, 120)(np.zeros((2, 400), np.float32)).shape
    (2, 120)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = whole("in_features", in_features, 1)
        self.out_features = whole("out_features", out_features, 1)
        self.weight = Parameter(unset((self.out_features, self.in_features)))
        self.bias = Parameter(unset((self.out_features,))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.default_(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim`: (N, C, H, W) -> (N, C*H*W).

    >>> import pycnn
    >>> pycnn.nn.Flatten()(pycnn.zeros(2, 3, 4, 5)).shape
    (2, 60)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Any) -> Tensor:
        return F.flatten(x, self.start_dim, self.end_dim)


class Identity(Module):
    """Hands its input on."""

    def forward(self, x: Any) -> Any:
        return x


class Dropout(Module):
    """In training, zero each element with probability `p` and scale the rest by 1/(1 - p); else the identity.

    The mask comes from `pycnn.random`, so a seed fixes it.

    Raises ValueError for a `p` outside 0 to 1.

    >>> import pycnn
    >>> pycnn.nn.Dropout(1.0)(pycnn.ones(2)).tolist(), pycnn.nn.Dropout(1.0).eval()(pycnn.ones(2)).tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability between 0 and 1, got {p!r}")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
