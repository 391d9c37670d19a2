"""Losses as layers; arguments and meaning are PyTorch's."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["CrossEntropyLoss", "MSELoss", "NLLLoss"]


def _as_tensor(weight: Any) -> Tensor | None:
    return weight if weight is None or isinstance(weight, Tensor) else Tensor(weight)


class CrossEntropyLoss(Module):
    """-log softmax(x)[target]: classes on axis 1, targets as class numbers or as probabilities.

    Args:
        weight: one factor a class, or None.
        ignore_index: a class number that counts for nothing.
        reduction: "mean", "sum" or "none".
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        TypeError, ValueError, IndexError: when called, as `pycnn.cross_entropy`.

    >>> import numpy as np, pycnn
    >>> loss = pycnn.nn.CrossEntropyLoss()(pycnn.zeros(1, 2), np.array([1]))
    >>> round(loss.item(), 4)
    0.6931
    """

    weight: Tensor | None

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("weight", _as_tensor(weight))
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.cross_entropy(
            x,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(Module):
    """-x[target] for log probabilities x, classes on axis 1.

    Args:
        weight, ignore_index, reduction: as `CrossEntropyLoss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.NLLLoss()(pycnn.tensor([[-2.0, -1.0]]), np.array([0])).item()
    2.0
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.register_buffer("weight", _as_tensor(weight))
        self.ignore_index = ignore_index
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.nll_loss(x, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(Module):
    """(x - target)^2, reduced by "mean", "sum" or "none".

    >>> import pycnn
    >>> pycnn.nn.MSELoss()(pycnn.tensor([1.0, 3.0]), pycnn.tensor([1.0, 1.0])).item()
    2.0
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.mse_loss(x, target, reduction=self.reduction)
