"""What a classifier is worth: loss, accuracy, every probability, and who is taken for whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import functional as F
from pycnn.arrays import place, to_host
from pycnn.autograd import no_grad
from pycnn.tensor import Tensor

if TYPE_CHECKING:
    from pycnn.data.loader import Batch
    from pycnn.nn import Module

__all__ = ["Evaluation", "evaluate", "first_output"]


@dataclass(frozen=True)
class Evaluation:
    """A classifier's answers on a set of images, in the set's order.

    Attributes:
        labels: the true classes, int64 (N,).
        probabilities: float32, (N, classes).
        loss: mean cross-entropy.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    loss: float

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class of each image, int64 (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Share of images whose likeliest class is the true one."""
        return float((self.predicted == self.labels).mean())

    @property
    def confusion(self) -> np.ndarray:
        """Counts, int64 (classes, classes), true class first."""
        classes = self.probabilities.shape[1]
        cells = np.bincount(self.labels * classes + self.predicted, minlength=classes * classes)
        return cells.reshape(classes, classes)

    def mistakes(self, most: int) -> np.ndarray:
        """Indices of at most `most` wrongly classified images, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        sure = self.probabilities[wrong].max(1)
        return wrong[np.argsort(-sure, kind="stable")[:most]]


def first_output(output: Any) -> Tensor:
    """The logits of a network that may also give those of auxiliary heads."""
    return output[0] if isinstance(output, (tuple, list)) else output


def device_of_network(net: Module) -> str:
    """Where its parameters (or else its buffers) are: "cpu", "cuda:0", ..."""
    for tensor in (*net.parameters(), *net.buffers()):
        return tensor.device
    return "cpu"


def evaluate(net: Module, batches: Iterable[Batch]) -> Evaluation:
    """Run a network, in eval mode, over batches of images and labels.  Its mode is restored afterwards.

    Raises ValueError if there are no batches.

    Args:
        net: gives logits, (N, classes), or a tuple whose first they are.
        batches: pairs of images, as the network takes them, and labels, int64; NumPy's, moved to where the network is.

    >>> import pycnn
    >>> net = pycnn.nn.Sequential(pycnn.nn.Flatten(), pycnn.nn.Linear(4, 2))
    >>> found = evaluate(net, [(np.zeros((3, 1, 2, 2), np.float32), np.array([0, 1, 1]))])
    >>> found.probabilities.shape, int(found.confusion.sum())
    ((3, 2), 3)
    """
    was_training, device = net.training, device_of_network(net)
    net.eval()
    labels, logits = [], []
    try:
        with no_grad():
            for images, truth in batches:
                logits.append(to_host(first_output(net(Tensor(place(images, device)))).data))
                labels.append(truth)
            if not labels:
                raise ValueError("there are no images to evaluate on")
            scores, truth = Tensor(np.concatenate(logits)), np.concatenate(labels)
            loss = F.cross_entropy(scores, Tensor(truth))
            probabilities = F.softmax(scores, 1).data
    finally:
        net.train(was_training)
    return Evaluation(truth, probabilities, float(loss.item()))
