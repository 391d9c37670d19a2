"""Losses as layers; arguments and meaning are PyTorch's."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
]


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


class L1Loss(Module):
    """|x - target|.

    Args, Raises: as `functional.l1_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.L1Loss()(pycnn.tensor([1.0, 3.0]), pycnn.tensor([1.0, 1.0])).item()
    1.0
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.l1_loss(x, target, reduction=self.reduction)


class SmoothL1Loss(Module):
    """d^2 / (2 beta) where d = |x - target| is below beta, else d - beta/2.

    Args, Raises: as `functional.smooth_l1_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.SmoothL1Loss()(pycnn.tensor([4.0]), pycnn.tensor([0.0])).item()
    3.5
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__()
        self.reduction = reduction
        self.beta = beta

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.smooth_l1_loss(x, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(Module):
    """d^2 / 2 where d = |x - target| is at most delta, else delta * (d - delta/2).

    Args, Raises: as `functional.huber_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.HuberLoss()(pycnn.tensor([4.0]), pycnn.tensor([0.0])).item()
    3.5
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__()
        self.reduction = reduction
        self.delta = delta

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.huber_loss(x, target, reduction=self.reduction, delta=self.delta)


class BCELoss(Module):
    """-(t log x + (1 - t) log(1 - x)) for probabilities x.

    Args, Raises: as `functional.binary_cross_entropy`.

    >>> import numpy as np, pycnn
    >>> round(pycnn.nn.BCELoss()(pycnn.tensor([0.5]), pycnn.tensor([1.0])).item(), 4)
    0.6931
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__()
        self.register_buffer("weight", _as_tensor(weight))
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy(x, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(Module):
    """`BCELoss` of sigmoid(x), without overflow.

    Args, Raises: as `functional.binary_cross_entropy_with_logits`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.BCEWithLogitsLoss()(pycnn.tensor([-1000.0]), pycnn.tensor([1.0])).item()
    1000.0
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__()
        self.register_buffer("weight", _as_tensor(weight))
        self.reduction = reduction
        self.register_buffer("pos_weight", _as_tensor(pos_weight))

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            x, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class SoftMarginLoss(Module):
    """log(1 + e^(-t x)) for targets of 1 and -1.

    Args, Raises: as `functional.soft_margin_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.SoftMarginLoss()(pycnn.tensor([1000.0]), pycnn.tensor([-1.0])).item()
    1000.0
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.soft_margin_loss(x, target, reduction=self.reduction)


class HingeEmbeddingLoss(Module):
    """x where t = 1, max(0, margin - x) where t = -1.

    Args, Raises: as `functional.hinge_embedding_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.HingeEmbeddingLoss()(pycnn.tensor([0.25]), pycnn.tensor([-1.0])).item()
    0.75
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.hinge_embedding_loss(x, target, margin=self.margin, reduction=self.reduction)


class MarginRankingLoss(Module):
    """max(0, -t * (x1 - x2) + margin).

    Args, Raises: as `functional.margin_ranking_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.MarginRankingLoss()(pycnn.tensor([1.0]), pycnn.tensor([3.0]), pycnn.tensor([1.0])).item()
    2.0
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction

    def forward(self, x1: Any, x2: Any, target: Any) -> Tensor:
        return F.margin_ranking_loss(x1, x2, target, margin=self.margin, reduction=self.reduction)


class TripletMarginLoss(Module):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin).

    Args, Raises: as `functional.triplet_margin_loss`.

    >>> import numpy as np, pycnn
    >>> a, n = pycnn.zeros(1, 2), pycnn.tensor([[3.0, 4.0]])
    >>> pycnn.nn.TripletMarginLoss()(a, a, n).item()
    0.0
    """

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap
        self.reduction = reduction

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Tensor:
        return F.triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class CosineEmbeddingLoss(Module):
    """1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1.

    Args, Raises: as `functional.cosine_embedding_loss`.

    >>> import numpy as np, pycnn
    >>> x1, x2 = pycnn.tensor([[1.0, 0.0]]), pycnn.tensor([[0.0, 1.0]])
    >>> pycnn.nn.CosineEmbeddingLoss()(x1, x2, pycnn.tensor([1.0])).item()
    1.0
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction

    def forward(self, x1: Any, x2: Any, target: Any) -> Tensor:
        return F.cosine_embedding_loss(x1, x2, target, margin=self.margin, reduction=self.reduction)


class KLDivLoss(Module):
    """t * (log t - x) for log-probabilities x.

    Args, Raises: as `functional.kl_div`.

    >>> import numpy as np, pycnn
    >>> round(pycnn.nn.KLDivLoss("sum")(pycnn.tensor([[0.0]]), pycnn.tensor([[1.0]])).item(), 4)
    0.0
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__()
        self.reduction = reduction
        self.log_target = log_target

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.kl_div(x, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(Module):
    """e^x - t x, the negative log-likelihood of counts.

    Args, Raises: as `functional.poisson_nll_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.PoissonNLLLoss()(pycnn.tensor([0.0]), pycnn.tensor([3.0])).item()
    1.0
    """

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__()
        self.log_input = log_input
        self.full = full
        self.eps = eps
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.poisson_nll_loss(
            x, target, log_input=self.log_input, full=self.full, eps=self.eps, reduction=self.reduction
        )


class GaussianNLLLoss(Module):
    """(log v + (x - t)^2 / v) / 2, v = max(var, eps).

    Args, Raises: as `functional.gaussian_nll_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.GaussianNLLLoss()(pycnn.tensor([1.0]), pycnn.tensor([3.0]), pycnn.tensor([1.0])).item()
    2.0
    """

    def __init__(self, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__()
        self.full = full
        self.eps = eps
        self.reduction = reduction

    def forward(self, x: Any, target: Any, var: Any) -> Tensor:
        return F.gaussian_nll_loss(x, target, var, full=self.full, eps=self.eps, reduction=self.reduction)


class MultiMarginLoss(Module):
    """Sum over the other classes of max(0, margin - x[t] + x[c])^p, over C.

    Args, Raises: as `functional.multi_margin_loss`.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.MultiMarginLoss()(pycnn.tensor([[1.0, 2.0]]), np.array([0])).item()
    1.0
    """

    weight: Tensor | None

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__()
        self.p = p
        self.margin = margin
        self.register_buffer("weight", _as_tensor(weight))
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.multi_margin_loss(
            x, target, p=self.p, margin=self.margin, weight=self.weight, reduction=self.reduction
        )


class MultiLabelSoftMarginLoss(Module):
    """Mean over the classes of -(t log sigmoid(x) + (1 - t) log sigmoid(-x)).

    Args, Raises: as `functional.multilabel_soft_margin_loss`.

    >>> import numpy as np, pycnn
    >>> round(pycnn.nn.MultiLabelSoftMarginLoss()(pycnn.zeros(1, 3), pycnn.ones(1, 3)).item(), 4)
    0.6931
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__()
        self.register_buffer("weight", _as_tensor(weight))
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return F.multilabel_soft_margin_loss(x, target, weight=self.weight, reduction=self.reduction)
