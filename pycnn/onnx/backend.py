"""`pycnn.onnx` as a backend in the sense of the package onnx: prepare a model once, run it often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn.algorithms import accuracy_of_call, use_accuracy
from pycnn.arrays import parse_device, to_host
from pycnn.autograd import no_grad
from pycnn.jit.errors import MissingToolError
from pycnn.onnx import operators  # noqa: F401  (they register themselves)
from pycnn.onnx.errors import ModelError
from pycnn.onnx.execute import Program, Value, as_value, in_main_memory, is_floating
from pycnn.onnx.graph import LATEST_OPSET, Graph, ValueInfo, from_model, from_node
from pycnn.tensor import Tensor

with extra("onnx", "onnx"):
    from onnx import ModelProto, NodeProto
    from onnx.backend.base import Backend, BackendRep

__all__ = ["PycnnBackend", "PycnnRep"]


class PycnnRep(BackendRep):
    """A model ready to run.

    Attributes:
        graph: what it computes.
        device: where.
        accuracy: what convolutions may trade, as `pycnn.use_accuracy` has it.
    """

    def __init__(self, graph: Graph, device: str, accuracy: str) -> None:
        with accuracy_of_call(accuracy):  # raises where there is no such accuracy
            self.graph, self.device, self.accuracy = graph, device, accuracy
        self._program = Program(graph)
        self._weights = {name: tensor.to(device) for name, tensor in self._program.weights().items()}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs as NumPy arrays (lists of them for sequences).

        Args:
            inputs: the arrays in the graph's order, those of the inputs that have a default or all; one array; or a
                mapping by name.

        Raises:
            ModelError: too few or too many of them, one of another dtype or shape than the model says, or a node that
                cannot compute with what it got; the message names it.
        """
        _expect_no_more(kwargs)
        values = placed(named(self.graph, inputs), self.device)
        with no_grad(), use_accuracy(self.accuracy):
            return tuple(map(_plain, self._program.run({**self._weights, **values}, self.device)))


def _expect_no_more(options: Mapping[str, Any]) -> None:
    for name in options:
        raise TypeError(f"there is no option {name!r}")


def named(graph: Graph, inputs: Any, any_batch: bool = False) -> dict[str, Value]:
    """Inputs by name, as the graph holds them; checked against what the model says of them.

    With `any_batch` the first dimension may have another size than the one that the exporter saw.
    """
    if isinstance(inputs, Mapping):
        known = {one.name: one for one in graph.inputs}
        for name in inputs:
            if name not in known:
                raise ModelError(f"there is no input {name!r}; there are {', '.join(map(repr, known))}")
        given = [(known[name], value) for name, value in inputs.items()]
    else:
        several = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        names = graph.inputs if len(several) == len(graph.inputs) else graph.required
        if len(several) != len(names):
            raise ModelError(
                f"it takes {len(names)} inputs ({', '.join(one.name for one in names)}), got {len(several)}"
            )
        given = list(zip(names, several, strict=True))
    values = {info.name: _checked(info, value, any_batch) for info, value in given}
    for info in graph.required:
        if info.name not in values:
            raise ModelError(f"the input {info.name!r} is missing")
    return values


def placed(values: Mapping[str, Value], device: str) -> dict[str, Value]:
    """The Tensors among them on a device."""
    return {name: one.to(device) if isinstance(one, Tensor) else one for name, one in values.items()}


def _checked(info: ValueInfo, value: Any, any_batch: bool) -> Value:
    if value is None:
        return None
    if isinstance(value, list) and info.dtype is None:
        return [as_value(_array(one)) for one in value]
    array = value if isinstance(value, Tensor) else _array(value)
    if info.dtype is not None and array.dtype != info.dtype and not _is_text(array.dtype, info.dtype):
        raise ModelError(f"the input {info.name!r} must be {info.dtype}, got {array.dtype}")
    if info.shape is not None:
        fits = len(array.shape) == len(info.shape) and all(
            size == wanted or not isinstance(wanted, int) or (any_batch and place == 0)
            for place, (size, wanted) in enumerate(zip(array.shape, info.shape, strict=False))
        )
        if not fits:
            wanted = ", ".join(str(one or "?") for one in info.shape)
            raise ModelError(f"the input {info.name!r} must have shape ({wanted}), got {tuple(array.shape)}")
    if isinstance(array, Tensor):
        return array if is_floating(array.dtype) else to_host(array._data)
    return as_value(array)


def _is_text(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    return given.kind in "OUT" and wanted.kind in "OUT"


def _array(value: Any) -> Any:
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    return Tensor(value).data if hasattr(value, "__dlpack__") else np.asarray(value)


def _plain(value: Value) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list) else in_main_memory(value)


def device_of_name(device: str) -> str:
    """onnx's name of a device, "CPU", "CUDA" or "CUDA:1", as ours."""
    return parse_device(device.lower())


class PycnnBackend(Backend):
    """pycnn as `onnx.backend.base.Backend`; all its methods are also functions of `pycnn.onnx`."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` would take the model."""
        try:
            from_model(model)
        except ModelError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", *, accuracy: str = "strict", **kwargs: Any) -> PycnnRep:
        """Validate a model and put its weights on a device.

        Args:
            model: of opset 1 to 28.
            device: "CPU", "CUDA" or "CUDA:1".
            accuracy: "strict", or "fast" for those algorithms of a convolution too that round more than its plain sum
                does (see `pycnn.use_accuracy`).

        Raises:
            ModelError: a model that is not valid.
            UnsupportedModelError: operators that pycnn does not have, all of them with their nodes.
            ValueError, MissingToolError: a device or an accuracy that there is not.
        """
        _expect_no_more(kwargs)
        return PycnnRep(from_model(model), device_of_name(device), accuracy)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node; ``opset_version`` says in which opset's form (the newest known by default).

        Raises:
            ModelError, UnsupportedModelError: as `prepare` and `PycnnRep.run`.
        """
        one = from_node(node, kwargs.get("opset_version", LATEST_OPSET))
        names = [name for name in dict.fromkeys(node.input) if name]
        graph = Graph(
            one.name,
            tuple(map(ValueInfo, names)),
            tuple(ValueInfo(name) for name in one.outputs if name),
            (one,),
            {},
        )
        given = inputs if isinstance(inputs, (list, tuple, Mapping)) else [inputs]
        if not isinstance(given, Mapping) and len(given) == len(node.input):
            given = {name: value for name, value in zip(node.input, given, strict=True) if name}
        return PycnnRep(graph, device_of_name(device), "strict").run(given)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is "CPU", or a GPU that is there."""
        try:
            name = device_of_name(device)
            return name == "cpu" or Tensor(np.zeros(1, np.float32)).to(name).device == name
        except (MissingToolError, ValueError):
            return False
