"""What a network consists of: output shapes, parameters, multiply-adds, memory and receptive field of every layer.

The lecture's arithmetic.  A 7x7 input with 3x3 filters gives 5x5 at stride 1, 3x3 at stride 2 and 7x7 with padding 1:

>>> from pycnn import nn
>>> def maps(*layers, size):
...     return summary(nn.Sequential(*layers), size)[-1].output_shape
>>> maps(nn.Conv2d(1, 1, 3), size=(1, 7, 7)), maps(nn.Conv2d(1, 1, 3, stride=2), size=(1, 7, 7))
((1, 5, 5), (1, 3, 3))
>>> maps(nn.Conv2d(1, 1, 3, padding=1), size=(1, 7, 7))
(1, 7, 7)

At stride 3 it does not fit: one row and one column of the input are left over.

>>> maps(nn.Conv2d(1, 1, 3, stride=3), size=(1, 7, 7))
(1, 2, 2)

Three stacked 3x3 layers see 7x7 pixels, as one 7x7 layer does, with 27 instead of 49 weights for each pair of channels:

>>> stack = summary(nn.Sequential(*[nn.Conv2d(1, 1, 3, bias=False) for _ in range(3)]), (1, 32, 32))
>>> single = summary(nn.Sequential(nn.Conv2d(1, 1, 7, bias=False)), (1, 32, 32))
>>> stack[-1].receptive_field, sum(row.parameters for row in stack)
((7, 7), 27)
>>> single[-1].receptive_field, sum(row.parameters for row in single)
((7, 7), 49)

100 filters of 10x10 on an image of 1000x1000 are 10,000 parameters and a response map of 1000x1000x100, where a full
layer of a million units would have a million million:

>>> (row,) = summary(nn.Sequential(nn.Conv2d(1, 100, 10, padding="same", bias=False)), (1, 1000, 1000))
>>> row.parameters, row.output_shape
(10000, (100, 1000, 1000))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pycnn import nn
from pycnn.autograd import no_grad
from pycnn.backends import use_backend
from pycnn.models.lenet import PartialConv2d, Subsampling
from pycnn.nn.module import Module, evaluating
from pycnn.shape import pair
from pycnn.tensor import Tensor

__all__ = ["Row", "format_rows", "summary"]


@dataclass(frozen=True)
class Row:
    """One layer's share, for a batch of one.

    Attributes:
        name: dotted path; "" where a layer is the whole network.
        kind: the layer's class.
        output_shape: without the batch.
        parameters: trainable numbers, those of shared layers at their first use only.
        macs: multiply-adds of one forward pass: those of convolutions and full layers, padding counted as data; other
            layers count none.
        activation_bytes: of the output, in the dtype of the weights.
        receptive_field: pixels of the input, (height, width), that one element of the output can see, cut to the
            input's size.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    receptive_field: tuple[int, int]


@dataclass(frozen=True)
class _Field:
    """How far an element sees: pixels, and the step in pixels between neighbours; each for height and width."""

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)

    def through(self, window: tuple[int, int], stride: tuple[int, int]) -> _Field:
        size = tuple(s + (w - 1) * j for s, w, j in zip(self.size, window, self.step, strict=True))
        step = tuple(j * t for j, t in zip(self.step, stride, strict=True))
        return _Field(size, step)  # type: ignore[arg-type]

    def joined(self, other: _Field) -> _Field:
        return _Field(
            (max(self.size[0], other.size[0]), max(self.size[1], other.size[1])),
            (max(self.step[0], other.step[0]), max(self.step[1], other.step[1])),
        )


def summary(model: Module, input_shape: Sequence[int]) -> list[Row]:
    """One row for each use of a layer, in the order a forward pass in evaluation mode takes.

    The pass runs on a batch of one without arithmetic, so a model built within ``nn.init.skip()`` will do.  What a
    network's own code does between its layers (a ReLU as a function, a sum, a concatenation) has no row.

    Args:
        model: a network of the layers in `pycnn.nn`; it is left in the mode it was in.
        input_shape: (C, H, W).

    Raises:
        ValueError: as the network's own layers do, for an input that does not fit.

    >>> from pycnn import nn
    >>> chain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3))
    >>> [(row.output_shape, row.receptive_field) for row in summary(chain, (1, 16, 16))]
    [((4, 14, 14), (3, 3)), ((4, 14, 14), (3, 3)), ((4, 7, 7), (4, 4)), ((8, 5, 5), (8, 8))]
    """
    recorder = _Recorder(model, tuple(input_shape))
    dtypes = [parameter.dtype for parameter in model.parameters()]
    try:
        with evaluating(model), no_grad(), use_backend("shapes"):
            model(recorder.input(dtypes[0] if dtypes else np.dtype(np.float32)))
    finally:
        recorder.remove()
    return recorder.rows


class _Recorder:
    """Hooks on every module: leaves make rows; the others pass the receptive field over what their forward does itself.

    The field of a tensor is known by its identity.  Where a module's own code has made a new one (a sum, a
    concatenation, a ReLU), what it made sees what the widest of the tensors inside the module sees.
    """

    def __init__(self, model: Module, input_shape: tuple[int, ...]) -> None:
        self.rows: list[Row] = []
        self._shape = input_shape
        self._fields: dict[int, _Field] = {}
        self._alive: list[Any] = []  # so that no identity is used twice
        self._open: list[_Field] = []  # the widest field so far within each module that is running
        self._last = _Field()
        self._counted: set[int] = set()
        self._hooks = []
        for name, module in model.named_modules():
            leaf = not any(True for _ in module.children()) or bool(module._parameters)
            leave = partial(self._leave, name, leaf)
            self._hooks += [module.register_forward_pre_hook(self._enter), module.register_forward_hook(leave)]

    def input(self, dtype: Any) -> Tensor:
        x = Tensor(np.zeros((1, *self._shape), dtype))
        self._know(x, _Field())
        return x

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _know(self, tensor: Any, field: _Field) -> None:
        self._fields[id(tensor)] = field
        self._alive.append(tensor)

    def _enter(self, module: Module, args: tuple[Any, ...]) -> None:
        self._open.append(self._fields.get(id(args[0]), self._last))

    def _leave(self, name: str, leaf: bool, module: Module, args: tuple[Any, ...], result: Any) -> None:
        widest = self._open.pop()
        outputs = result if isinstance(result, tuple) else (result,)
        if leaf:
            before = self._fields.get(id(args[0]), self._last)
            widest = _see(module, before, args[0].shape, self._shape)
            self.rows.append(self._row(name, module, args[0].shape, outputs[0], widest))
        for output in outputs:
            self._know(output, self._fields.get(id(output), widest) if not leaf else widest)
        self._last = widest
        if self._open:
            self._open[-1] = self._open[-1].joined(widest)

    def _row(self, name: str, module: Module, x_shape: tuple[int, ...], y: Tensor, field: _Field) -> Row:
        fresh = [p for p in module.parameters() if id(p) not in self._counted]
        self._counted.update(id(p) for p in fresh)
        return Row(
            name,
            type(module).__name__,
            tuple(y.shape[1:]),
            sum(p.numel() for p in fresh if p.requires_grad),
            _macs(module, x_shape, tuple(y.shape)),
            y.numel() * y.dtype.itemsize,
            (min(field.size[0], self._shape[-2]), min(field.size[1], self._shape[-1])),
        )


def _see(module: Module, field: _Field, x_shape: tuple[int, ...], whole: tuple[int, ...]) -> _Field:
    """The field behind `module`, given the one before it."""
    if isinstance(module, nn.Conv2d):
        reach = [d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True)]
        return field.through((reach[0], reach[1]), (module.stride[0], module.stride[1]))
    if isinstance(module, PartialConv2d):
        return field.through((module.dense_shape[2], module.dense_shape[3]), (1, 1))
    if isinstance(module, Subsampling):
        return field.through((2, 2), (2, 2))
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        kernel, stride = pair("kernel_size", module.kernel_size, 1), pair("stride", module.stride, 1)
        dilation = pair("dilation", getattr(module, "dilation", 1), 1)
        return field.through((dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1), stride)
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        wanted = module.output_size if isinstance(module.output_size, (tuple, list)) else (module.output_size,) * 2
        ratio = [1 if n is None else -(-size // n) for size, n in zip(x_shape[2:], wanted, strict=True)]
        return field.through((ratio[0], ratio[1]), (ratio[0], ratio[1]))
    if isinstance(module, nn.Linear):
        return _Field((whole[-2], whole[-1]), field.step)
    return field


def _macs(module: Module, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
    if isinstance(module, nn.ConvTranspose2d):
        return math.prod(x_shape[2:]) * module.weight.numel()
    if isinstance(module, (nn.Conv2d, PartialConv2d)):
        return math.prod(y_shape[2:]) * module.weight.numel()
    if isinstance(module, nn.Linear):
        return math.prod(y_shape[1:-1]) * module.weight.numel()
    return 0


def format_rows(rows: Iterable[Row], input_shape: Sequence[int]) -> str:
    """The rows as a table of text, with totals."""
    rows = list(rows)
    lines = [("layer", "kind", "output", "parameters", "multiply-adds", "memory", "field")]
    lines += [
        (
            row.name,
            row.kind,
            _by(row.output_shape),
            f"{row.parameters:,}",
            f"{row.macs:,}",
            f"{row.activation_bytes / 1024:,.0f} KiB",
            _by(row.receptive_field),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(7)]
    aligned = [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * len(aligned[0])
    parameters, macs = sum(row.parameters for row in rows), sum(row.macs for row in rows)
    memory = sum(row.activation_bytes for row in rows)
    totals = (
        f"input {_by(tuple(input_shape))}: {parameters:,} parameters, {macs:,} multiply-adds "
        f"({macs / 1e9:.2f} G), {memory / 2**20:,.1f} MiB of activations an image"
    )
    return "\n".join([aligned[0], rule, *aligned[1:], rule, totals])


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
