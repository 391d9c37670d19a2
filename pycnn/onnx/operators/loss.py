"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.onnx.operators._common import like
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

_NOWHERE = -(2**31)  # a class that no target has, where the node ignores none


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(
    x: Tensor,
    target: np.ndarray,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    ignored = _NOWHERE if ignore_index is None else ignore_index
    places = Tensor(like(target.astype(np.int64), x))
    return F.nll_loss(x, places, weight, ignored, reduction)


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(
    x: Tensor,
    target: np.ndarray,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> Any:
    log_probability = F.log_softmax(x, 1)
    loss = negative_log_likelihood_loss(log_probability, target, weight, ignore_index=ignore_index, reduction=reduction)
    return loss if outputs == 1 else (loss, log_probability)
