"""pycnn as a contestant beside the others: call by call, compiled, and compiled ahead into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import pycnn
from pycnn import Tensor, functional, models, nn, no_grad, optim
from pycnn.bench.cases import conv_call
from pycnn.bench.tasks import (
    COMPILED,
    INPUT,
    LABELS,
    SCALES,
    Call,
    FirstCall,
    Inference,
    TrainingStep,
    Work,
    fill,
)
from pycnn.bench.training import LEARNING_RATE, MOMENTUM, digest, loss_of
from pycnn.shape import Conv2dShape

__all__ = ["OWN", "Compiled", "CompiledChannelsLast", "Eager", "Loaded", "gradients", "load", "step", "without_dropout"]


class Eager:
    """pycnn as it is called, ``algo="auto"``."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`; of layers convolutions only."""
        if isinstance(task, FirstCall):
            return {}  # nothing is made ready
        if isinstance(task, Inference):
            model, x = load(task).eval(), Tensor(_input(task))

            def forward() -> Any:
                with no_grad():
                    return model(x).data

            return {"pycnn": forward}
        if isinstance(task, TrainingStep):
            return {"pycnn": _step_call(task)}
        return {"pycnn": conv_call(task, "auto")} if isinstance(task.shape, Conv2dShape) else {}


class Compiled:
    """pycnn compiled, a convolution as a model of one layer; forward only."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        if isinstance(task, FirstCall):
            model, x = load(task).eval(), _input(task)
            return {"pycnn_compiled": lambda: pycnn.compile(model, x)(x)}
        if isinstance(task, Inference):
            return {"pycnn_compiled": _run(pycnn.compile(load(task).eval(), _input(task)), _input(task))}
        if isinstance(task, TrainingStep) or task.operator != "fprop" or not isinstance(task.shape, Conv2dShape):
            return {}
        shape, (x, w) = task.shape, task.arrays
        layer = nn.Conv2d(
            shape.C, shape.K, w.shape[2:], shape.stride, shape.padding, shape.dilation, shape.groups, bias=False
        )
        layer.load_state_dict({"weight": w})
        x = self.resident(x)
        return {"pycnn_compiled": _run(pycnn.compile(layer.eval(), x), x)}

    @staticmethod
    def resident(x: np.ndarray) -> np.ndarray:
        """A layer's input as it is to lie in memory."""
        return x


class CompiledChannelsLast(Compiled):
    """The same with arrays resident in channels-last; layers only, for a network's input makes no difference."""

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        if isinstance(task, (Inference, FirstCall)):
            return {}
        return {f"{name}_cl": call for name, call in super().contestants(task).items()}

    @staticmethod
    def resident(x: np.ndarray) -> np.ndarray:
        """See `Compiled`."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


class Loaded:
    """pycnn with a network that was compiled ahead and saved: what starts, and what stays in memory."""

    def __init__(self, threads: int) -> None:
        pycnn.set_num_threads(threads)

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        if not isinstance(task, (Inference, FirstCall)) or not (Path(task.folder) / COMPILED).exists():
            return {}
        path, x = Path(task.folder) / COMPILED, _input(task)
        if isinstance(task, FirstCall):
            return {"pycnn_loaded": lambda: pycnn.load_compiled(path)(x)}
        return {"pycnn_loaded": _run(pycnn.load_compiled(path), x)}


def load(task: Inference | TrainingStep | FirstCall) -> nn.Module:
    """The task's network with its weights."""
    with nn.init.skip():
        model = models.create(task.network)
    fill(task.folder, (np.asarray(tensor.data) for tensor in model.state_dict().values()))
    return model


def _input(task: Inference | TrainingStep | FirstCall) -> np.ndarray:
    return np.load(Path(task.folder) / INPUT)


def _run(compiled: Any, x: np.ndarray) -> Call:
    return lambda: compiled(x)


def without_dropout(model: nn.Module) -> nn.Module:
    """The same model, whose dropout drops nothing from now on."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def step(model: nn.Module, x: Tensor, labels: np.ndarray) -> Tensor:
    """Forward, loss and backward; the loss."""
    loss = loss_of(model(x), lambda logits: functional.cross_entropy(logits, labels))
    loss.backward()
    return loss


def gradients(model: nn.Module) -> list[np.ndarray]:
    """Of its parameters, in its order, after a backward pass."""
    return [np.asarray(parameter.grad.data) for parameter in model.parameters() if parameter.grad is not None]


def _step_call(task: TrainingStep) -> Call:
    folder = Path(task.folder)
    model = load(task).train()
    model = model if task.dropout else without_dropout(model)
    x, labels, scales = Tensor(_input(task)), np.load(folder / LABELS), np.load(folder / SCALES)
    optimizer = optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)

    def call() -> _Digest:
        optimizer.zero_grad()
        loss = step(model, x, labels)
        optimizer.step()
        return _Digest(model, loss, scales)

    return call


class _Digest:
    """What a step has left behind, as an array where that is asked for."""

    def __init__(self, model: nn.Module, loss: Tensor, scales: np.ndarray) -> None:
        self._model, self._loss, self._scales = model, loss, scales

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return digest(float(self._loss.data), gradients(self._model), self._scales)


OWN: dict[str, Any] = {
    "pycnn": Eager,
    "pycnn_compiled": Compiled,
    "pycnn_compiled_cl": CompiledChannelsLast,
    "pycnn_loaded": Loaded,
}
