"""What everybody agrees on in a step of training, and how its gradients are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["LEARNING_RATE", "MOMENTUM", "digest", "loss_of", "sums"]

LEARNING_RATE = 1e-5  # so small that the weights stay what they are over any number of steps
MOMENTUM = 0.9
_HEADS = 0.3  # the weight of GoogLeNet's heads, as in its paper
_SUMS = 17  # of each parameter's gradient: a prime, so that no sum is one over all classes, whose gradients cancel


def loss_of(outputs: Any, cross_entropy: Any) -> Any:
    """The loss: `cross_entropy` of the logits, plus 0.3 times those of the heads where a network has them."""
    if not isinstance(outputs, tuple):
        return cross_entropy(outputs)
    logits, *heads = outputs
    return cross_entropy(logits) + _HEADS * sum(cross_entropy(head) for head in heads)


def sums(gradients: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Seventeen sums of each gradient, in float64, the j-th over every seventeenth element from the j-th on.

    >>> sums([np.ones((2, 17))])[0].tolist() == [2.0] * 17
    True
    """
    return [
        np.array([gradient.reshape(-1)[j::_SUMS].sum(dtype=np.float64) for j in range(min(_SUMS, gradient.size))])
        for gradient in gradients
    ]


def digest(loss: float, gradients: Iterable[np.ndarray], scales: Sequence[float] | np.ndarray) -> np.ndarray:
    """The loss and the `sums` of all gradients as one array, each divided by its scale.

    Args:
        loss: of the step.
        gradients: of the parameters, in the model's order.
        scales: of the loss, then of each parameter; in a right step no value of the digest is far from 1, and a wrong
            gradient of any parameter shows, however small it is beside the others.
    """
    parts = [np.array([loss]), *sums(gradients)]
    return np.concatenate([part / scale for part, scale in zip(parts, scales, strict=True)])
