"""What a contestant has to do, in plain values, so that it can be sent to a process of another framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.shape import Conv2dShape, Pool2dShape

__all__ = [
    "COMPILED",
    "INPUT",
    "LABELS",
    "MODEL",
    "ONE_IMAGE",
    "SCALES",
    "WEIGHTS",
    "Call",
    "FirstCall",
    "Inference",
    "Task",
    "TrainingStep",
    "Work",
    "fill",
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
            and for a maximum x and y too.  Ours as they are; a peer is given float32 in NCHW.
        count_pad: whether an average counts the padding.
        dtype: what a peer is to compute in; the values are of it.
    """

    op: str
    operator: str
    shape: Conv2dShape | Pool2dShape
    arrays: tuple[np.ndarray, ...]
    count_pad: bool = True
    dtype: str = "float32"


# The files of a network's task.
WEIGHTS = "weights.f32"  # all of them in a row, in the order of the state dict; see `fill`
INPUT = "x.npy"
LABELS = "labels.npy"
SCALES = "scales.npy"  # what `pycnn.bench.training.digest` divides by
MODEL = "model.onnx"  # for the whole batch; missing where there was no torch to write it
ONE_IMAGE = "image.onnx"  # the same for one image
COMPILED = "compiled.pycnn"  # what `pycnn.load_compiled` reads; missing where nobody asked for it


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


@dataclass(frozen=True)
class FirstCall:
    """All that makes a network ready, from memory or a file of the framework's own, and its first result.

    Attributes:
        network: its name in `pycnn.models`.
        folder: where its files are.
    """

    network: str
    folder: str


Work = Task | Inference | TrainingStep | FirstCall


def fill(folder: str, state: Iterable[np.ndarray]) -> None:
    """Read the weights in a task's folder into these arrays, with no second copy in memory.

    Args:
        folder: of the task.
        state: the state dict's arrays, in its order.
    """
    with open(Path(folder) / WEIGHTS, "rb") as file:
        for array in state:
            if array.dtype == np.float32 and array.ndim:
                file.readinto(array.data.cast("B"))
            else:
                array[...] = np.fromfile(file, np.float32, array.size).reshape(array.shape)
