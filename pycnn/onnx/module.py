"""A model from a file as an `nn.Module`: its weights are parameters, and gradients flow through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycnn._extras import extra
from pycnn.arrays import device_of
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter
from pycnn.onnx import operators  # noqa: F401  (they register themselves)
from pycnn.onnx.backend import named, placed
from pycnn.onnx.execute import Program
from pycnn.onnx.graph import Graph, from_model
from pycnn.onnx.graph import load as load_graph
from pycnn.tensor import Tensor

with extra("onnx", "onnx"):
    from onnx import ModelProto

__all__ = ["OnnxModule", "load"]

_STATISTICS = {"BatchNormalization": (3, 4)}  # inputs that training does not learn by gradients


class OnnxModule(Module):
    """What a graph computes, as a module.

    Floating constants that are computed with are parameters, or buffers where they are the running statistics of a
    batch norm or single numbers.  They have the names that the file gives them: what PyTorch exported has the keys of
    its state_dict (``layer1.0.conv1.weight``), unless the exporter folded layers into each other.

    It computes what the graph says, in training mode as in evaluation mode: nearly all files hold a network as it is
    applied, with batch norms that use their running statistics and without dropout.  Batches may have another size than
    the file says, as far as its nodes do not fix it.

    Args:
        graph: a validated graph, as `pycnn.onnx.graph.load` reads one.

    Attributes:
        graph: the same.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self._program = Program(graph)
        self._places: dict[str, tuple[Module, str]] = {}
        weights = self._program.weights()
        fixed = {
            node.inputs[place]
            for node in graph.nodes
            for place in _STATISTICS.get(node.operator, ())
            if place < len(node.inputs)
        }
        leaves = set(weights)
        for name, tensor in weights.items():
            holder, last = self._place_of(name, leaves)
            array = tensor.data.copy()  # what was read from a file cannot be written to
            if name in fixed or tensor.ndim == 0:
                holder.register_buffer(last, Tensor(array))
            else:
                holder.register_parameter(last, Parameter(array))
            self._places[name] = holder, last

    def _place_of(self, name: str, leaves: set[str]) -> tuple[Module, str]:
        """The module that holds a tensor, and its name there: a dot in a file's names is a step down the tree."""
        parts = name.split(".")
        inner = (".".join(parts[:end]) for end in range(1, len(parts)))
        if any(not part or hasattr(Module, part) for part in parts) or any(prefix in leaves for prefix in inner):
            parts = [f"tensor_{len(self._places)}"]
        holder: Module = self
        for part in parts[:-1]:
            if part not in holder._modules:
                holder.add_module(part, Module())
            child = holder._modules[part]
            assert child is not None
            holder = child
        return holder, parts[-1]

    def forward(self, *inputs: Any) -> Any:
        """The outputs as Tensors, or arrays of integers; a tuple if the graph has several.

        Args:
            *inputs: Tensors or arrays, in the graph's order; those that have a default may be left out.

        Raises:
            ModelError: inputs that do not fit what the model says, or a node that cannot compute; the message names it.
        """
        tensors = {name: getattr(holder, last) for name, (holder, last) in self._places.items()}
        device = next((device_of(one.data) for one in tensors.values()), "cpu")
        values = placed(named(self.graph, inputs, any_batch=True), device)
        results = self._program.run({**tensors, **values}, device)
        return results[0] if len(results) == 1 else tuple(results)

    def extra_repr(self) -> str:
        """Name, size and inputs of the graph."""
        inputs = ", ".join(f"{one.name} {one.shape}" for one in self.graph.required)
        return f"{self.graph.name}: {len(self.graph.nodes)} nodes, inputs {inputs}"


def load(source: str | Path | ModelProto) -> OnnxModule:
    """A model as an `nn.Module`, to run, to train, to compile or to take apart.

    Args:
        source: a file, or what the package onnx read from one.

    Raises:
        OSError: a file that cannot be read.
        ModelError: a damaged file or an invalid model; the message names it.
        UnsupportedModelError: operators that pycnn does not have, all of them with their nodes.

    >>> import tempfile, numpy as np, pycnn, pycnn.onnx
    >>> path = tempfile.mkdtemp() + "/lenet5.onnx"
    >>> pycnn.onnx.export(pycnn.models.lenet5(), np.zeros((1, 1, 32, 32), np.float32), path)
    >>> network = pycnn.onnx.load(path)
    >>> network(pycnn.zeros(2, 1, 32, 32)).sum().backward()
    >>> all(parameter.grad is not None for parameter in network.parameters())
    True
    """
    return OnnxModule(from_model(source) if isinstance(source, ModelProto) else load_graph(source))
