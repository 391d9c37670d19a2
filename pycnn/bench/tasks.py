"""What a contestant has to do, in plain values, so that it can be sent to a process of another framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.shape import Conv2dShape, Pool2dShape

__all__ = [
    "INPUT",
    "LABELS",
    "MODEL",
    "ONE_IMAGE",
    "SCALES",
    "WEIGHTS",
    "Call",
    "Inference",
    "Task",
    "TrainingStep",
    "Work",
]

Call = Callable[[], Any]  # does the task once and returns the result


@dataclass(frozen=True)
class Task:
    """One pass of one layer.

    Attributes:
        op: "conv2d", "max_pool2d" or "avg_pool2d".
        operator: one of `pycnn.shape.PASSES` for a convolution; "forward" or "backward" for pooling.
        shape: the problem in plain integers.
        arrays: what the pass reads.  A convolution: as in `pycnn.testing.Operands`; pooling forward: x; backward: dy,
            and for a maximum x and y too.
        count_pad: whether an average counts the padding.
    """

    op: str
    operator: str
    shape: Conv2dShape | Pool2dShape
    arrays: tuple[np.ndarray, ...]
    count_pad: bool = True


# The files of a network's task.
WEIGHTS = "weights.npz"  # torchvision's keys
INPUT = "x.npy"
LABELS = "labels.npy"
SCALES = "scales.npy"  # what `pycnn.bench.training.digest` divides by
MODEL = "model.onnx"  # for the whole batch; missing where there was no torch to write it
ONE_IMAGE = "image.onnx"  # the same for one image


@dataclass(frozen=True)
class Inference:
    """A network on a batch, in evaluation mode.

    Attributes:
        network: its name in `pycnn.models`.
        folder: where its files are.
    """

    network: str
    folder: str


@dataclass(frozen=True)
class TrainingStep:
    """Forward, loss, backward and a step of gradient descent with momentum; the result is a digest of the gradients.

    Attributes:
        network: its name in `pycnn.models`.
        folder: where its files are.
        dropout: whether values are dropped; without, everybody has to find the same gradients.
    """

    network: str
    folder: str
    dropout: bool


Work = Task | Inference | TrainingStep
