"""PyTorch as a peer: convolutions, networks, steps of training; and the network as an ONNX file for the others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pycnn.bench.tasks import (
    INPUT,
    LABELS,
    MODEL,
    ONE_IMAGE,
    SCALES,
    Call,
    FirstCall,
    Inference,
    Task,
    TrainingStep,
    Work,
    fill,
)
from pycnn.bench.training import LEARNING_RATE, MOMENTUM, digest, loss_of
from pycnn.shape import Conv2dShape

__all__ = ["Torch", "TorchChannelsLast", "TorchCompiled", "TorchFrozen", "export"]


class Torch:
    """PyTorch, its tensors in NCHW."""

    # The memory of large tensors is kept, in huge pages, and given out again: by default the C library hands it back to
    # the system, and a quarter to a half of a training step's time are page faults.
    environment: ClassVar[dict[str, str]] = {
        "GLIBC_TUNABLES": f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={2**36}"
        f":glibc.malloc.trim_threshold={2**36}:glibc.malloc.top_pad={2**26}"
    }
    layouts: ClassVar[dict[str, str]] = {"torch": "contiguous_format"}  # by contestant

    def __init__(self, threads: int) -> None:
        import torch

        self._torch = torch
        torch.set_num_threads(threads)

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`; of layers convolutions only."""
        if isinstance(task, FirstCall):
            return {}  # nothing is made ready, or for a minute
        calls = {name: self._call(task, getattr(self._torch, layout)) for name, layout in self.layouts.items()}
        return {name: call for name, call in calls.items() if call is not None}

    def _call(self, task: Task | Inference | TrainingStep, layout: Any) -> Call | None:
        if isinstance(task, Inference):
            x = self._tensor(np.load(Path(task.folder) / INPUT)).contiguous(memory_format=layout)
            return self._inference(_load(task).eval().to(memory_format=layout), x)
        if isinstance(task, TrainingStep):
            return self._step(task, layout)
        return self._layer(task, layout)

    def _inference(self, model: Any, x: Any) -> Call:
        def forward() -> Any:
            with self._torch.inference_mode():
                return model(x)

        return forward

    def _step(self, task: TrainingStep, layout: Any) -> Call | None:
        torch, folder = self._torch, Path(task.folder)
        model = _load(task).train().to(memory_format=layout)
        run = self._trained(model)
        if not task.dropout:
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        x = self._tensor(np.load(folder / INPUT)).contiguous(memory_format=layout)
        labels, scales = self._tensor(np.load(folder / LABELS)), np.load(folder / SCALES)
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, fused=True)

        def call() -> _Digest:
            optimizer.zero_grad()
            loss = loss_of(run(x), lambda logits: torch.nn.functional.cross_entropy(logits, labels))
            loss.backward()
            optimizer.step()
            return _Digest(model, loss, scales)

        return call

    def _trained(self, model: Any) -> Any:
        return model

    def _layer(self, task: Task, layout: Any) -> Call | None:
        shape = task.shape
        if not isinstance(shape, Conv2dShape):
            return None
        top, bottom, side, other = shape.padding
        if (top, side) != (bottom, other):
            return None  # torch pads asymmetrically only by a copy of its own
        dtype = getattr(self._torch, task.dtype)
        a, b = (self._tensor(array).to(dtype).contiguous(memory_format=layout) for array in task.arrays)
        return self._fprop(shape, a, b) if task.operator == "fprop" else self._backward(shape, task.operator, a, b)

    def _tensor(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array)

    def _fprop(self, shape: Conv2dShape, x: Any, w: Any) -> Call:
        torch = self._torch
        padding = (shape.padding[0], shape.padding[2])

        def fprop() -> Any:
            with torch.inference_mode():
                return torch.nn.functional.conv2d(x, w, None, shape.stride, padding, shape.dilation, shape.groups)

        return fprop

    def _backward(self, shape: Conv2dShape, operator: str, dy: Any, other: Any) -> Call | None:
        torch = self._torch
        padding = (shape.padding[0], shape.padding[2])
        # The operand a pass does not read still has to be named, with its shape.
        mask = [operator == "dgrad", operator == "wgrad", False]
        unread = torch.empty_like(other.new_empty(shape.x_shape if operator == "dgrad" else shape.w_shape))
        if other.is_contiguous(memory_format=torch.channels_last):
            unread = unread.contiguous(memory_format=torch.channels_last)
        x, w = (unread, other) if operator == "dgrad" else (other, unread)

        def backward() -> Any:
            with torch.inference_mode():
                results = torch.ops.aten.convolution_backward(
                    dy, x, w, None, shape.stride, padding, shape.dilation, False, (0, 0), shape.groups, mask
                )
                return results[mask.index(True)]

        return backward


class TorchChannelsLast(Torch):
    """PyTorch, its tensors resident in channels-last."""

    layouts: ClassVar[dict[str, str]] = {"torch_cl": "channels_last"}


class TorchFrozen(Torch):
    """PyTorch with its weights frozen and packed ahead: networks by torch.compile, layers as that would have them.

    Forward only.
    """

    layouts: ClassVar[dict[str, str]] = {"torch_frozen": "channels_last"}

    def _inference(self, model: Any, x: Any) -> Call:
        torch = self._torch
        _set_inductor(torch, freezing=True)
        compiled = torch.compile(model)

        def forward() -> Any:
            with torch.no_grad():
                return compiled(x)

        return forward

    def _step(self, task: TrainingStep, layout: Any) -> Call | None:
        return None

    def _fprop(self, shape: Conv2dShape, x: Any, w: Any) -> Call:
        torch = self._torch
        padding = [shape.padding[0], shape.padding[2]]
        how = (padding, list(shape.stride), list(shape.dilation), shape.groups)
        packed = torch.ops.mkldnn._reorder_convolution_weight(w, *how, list(shape.x_shape))

        def fprop() -> Any:
            with torch.inference_mode():
                return torch.ops.mkldnn._convolution_pointwise(x, packed, None, *how, "none", [], "")

        return fprop

    def _backward(self, shape: Conv2dShape, operator: str, dy: Any, other: Any) -> Call | None:
        return None


class TorchCompiled(TorchChannelsLast):
    """PyTorch's torch.compile in training, nothing else: it compiles for minutes and is seldom the fastest."""

    layouts: ClassVar[dict[str, str]] = {"torch_compile": "channels_last"}

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        return super().contestants(task) if isinstance(task, TrainingStep) else {}

    def _trained(self, model: Any) -> Any:
        _set_inductor(self._torch)
        return self._torch.compile(model)


def _set_inductor(torch: Any, **settings: Any) -> None:
    """Begin anew with torch.compile, in this process alone, so that nobody is left when it ends."""
    from torch._inductor import config

    torch._dynamo.reset()
    for name, value in {"compile_threads": 1, **settings}.items():
        setattr(config, name, value)


class _Digest:
    """What a step has left behind, as an array where that is asked for."""

    def __init__(self, model: Any, loss: Any, scales: np.ndarray) -> None:
        self._model, self._loss, self._scales = model, loss, scales

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        gradients = [parameter.grad.contiguous().numpy() for parameter in self._model.parameters()]
        return digest(self._loss.item(), gradients, self._scales)


def _load(task: Inference | TrainingStep) -> Any:
    """The task's network with its weights."""
    import torch

    from pycnn.bench.peers.torch_networks import BUILDERS

    with torch.device("meta"):
        model = BUILDERS[task.network]()
    model = model.to_empty(device="cpu")
    fill(task.folder, (tensor.numpy() for tensor in model.state_dict().values()))
    return model


def export(task: Inference) -> None:
    """Write the network as ONNX files, for the whole batch and for one image, beside its other files."""
    import torch

    folder = Path(task.folder)
    model, x = _load(task).eval(), torch.from_numpy(np.load(folder / INPUT))
    for name, batch in ((MODEL, len(x)), (ONE_IMAGE, 1)):
        with warnings.catch_warnings(action="ignore"):  # there is a newer exporter, which needs more packages
            torch.onnx.export(
                model,
                (x[:batch],),
                folder / name,
                input_names=["x"],
                output_names=["y"],
                opset_version=17,
                dynamo=False,
            )
