"""Runs a graph: node after node, each value forgotten after its last use.

Floating values are Tensors on one device; integers and booleans are NumPy arrays, so that shapes are computed where
they are needed, in main memory.  A sequence is a list.  What is computed from integers alone is floating in main memory
too, and goes to the device when it meets something that lies there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pycnn.arrays import to_host
from pycnn.graph import wrap
from pycnn.onnx import registry
from pycnn.onnx.errors import ModelError
from pycnn.onnx.graph import Graph, Node
from pycnn.tensor import Tensor

__all__ = ["Body", "Program", "Value", "as_value", "in_main_memory", "is_floating"]

Value = Any  # Tensor | numpy.ndarray | list of them | None


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether values of `dtype` are Tensors: 16, 32 and 64 bits; smaller floats are only stored and converted."""
    return (dtype.kind == "f" and dtype.itemsize in (2, 4, 8)) or dtype.name == "bfloat16"


def as_value(one: Any) -> Value:
    """A result as the graph holds it."""
    if isinstance(one, (Tensor, list)) or one is None:
        return one
    array = np.asarray(one) if isinstance(one, (np.generic, int, float, bool)) else one
    return wrap(array) if is_floating(array.dtype) else array


def in_main_memory(value: Value) -> Any:
    """A value as a NumPy array."""
    if isinstance(value, Tensor):
        return to_host(value._data)
    return value


class _Step:
    """One node, with everything looked up that does not depend on values."""

    def __init__(self, node: Node) -> None:
        form = registry.find(node.operator, node.version)
        assert form is not None  # the graph was validated
        self.node, self.operator = node, form
        self.inputs, self.outputs = node.inputs, node.outputs
        self.last: tuple[str, ...] = ()
        given = {"outputs": len(node.outputs), "version": node.version, **node.attributes}
        self.keywords = {name: value for name, value in given.items() if name in form.keywords}
        self.bodies = {name: Program(value) for name, value in self.keywords.items() if isinstance(value, Graph)}

    def run(self, values: dict[str, Value], device: str) -> Sequence[Value]:
        operands = [values[name] if name else None for name in self.inputs]
        for place in self.operator.host:
            if place < len(operands):
                operands[place] = in_main_memory(operands[place])
        if device != "cpu":
            operands = _together(operands, device)
        keywords = self.keywords
        if self.bodies:
            keywords = {**keywords, **{name: body.within(values, device) for name, body in self.bodies.items()}}
        try:
            results = self.operator.function(*operands, **keywords)
        except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"node {self.node} of {_described(operands)}: {error}") from error
        return results if type(results) is tuple else (results,)


def _together(operands: list[Value], device: str) -> list[Value]:
    """The Tensors among them on the device, if one of them is there."""
    tensors = [one for one in operands if isinstance(one, Tensor)]
    if not any(one.device != "cpu" for one in tensors):
        return operands
    return [one.to(device) if isinstance(one, Tensor) else one for one in operands]


def _described(operands: Sequence[Value]) -> str:
    shown = [
        "nothing" if one is None else f"{one.dtype} {tuple(one.shape)}" if hasattr(one, "dtype") else "a sequence"
        for one in operands
    ]
    return ", ".join(shown) or "no inputs"


class Program:
    """A graph ready to run.

    Args:
        graph: a validated graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._steps = [_Step(node) for node in graph.nodes]
        kept = {one.name for one in graph.outputs}
        for step in reversed(self._steps):
            read = {*step.inputs, *(name for inner in step.node.graphs for name in inner.captured)}
            step.last = tuple(name for name in {*read, *step.outputs} - kept if name)
            kept |= read
        self._constants = {name: as_value(array) for name, array in graph.constants.items()}

    def weights(self) -> dict[str, Tensor]:
        """The floating constants that are computed with: all but those that only nodes read which want them at hand."""
        computed = {one.name for one in self.graph.outputs}
        for step in self._steps:
            computed.update(name for i, name in enumerate(step.inputs) if i not in step.operator.host)
            computed.update(name for inner in step.node.graphs for name in inner.captured)
        return {name: one for name, one in self._constants.items() if name in computed and isinstance(one, Tensor)}

    def run(self, values: Mapping[str, Value], device: str = "cpu") -> list[Value]:
        """The outputs, in the graph's order.

        Args:
            values: by name: the inputs, and the constants where these are not the graph's own.
            device: the full name of the device that computes.
        """
        held = {**self._constants, **values}
        for step in self._steps:
            with np.errstate(all="ignore"):  # 1/0 and the root of -1 have their values, without a word
                results = step.run(held, device)
            for name, result in zip(step.outputs, results, strict=False):
                if name:
                    held[name] = as_value(result)
            for name in step.last:
                held.pop(name, None)
        return [held[one.name] for one in self.graph.outputs]

    def within(self, around: Mapping[str, Value], device: str) -> Body:
        """This graph as a function of its inputs, inside a graph whose values are `around`."""
        return Body(self, {name: around[name] for name in self.graph.captured}, device)


class Body:
    """A branch, or the body of a loop, as a function of its inputs.

    Attributes:
        outputs: what the model says of its results.
    """

    def __init__(self, program: Program, captured: Mapping[str, Value], device: str) -> None:
        self.outputs = program.graph.outputs
        self._program, self._captured, self._device = program, captured, device

    def __call__(self, *values: Value) -> tuple[Value, ...]:
        graph = self._program.graph
        if len(values) != len(graph.inputs):
            raise ModelError(f"graph {graph.name!r} takes {len(graph.inputs)} values, got {len(values)}")
        given = {one.name: as_value(value) for one, value in zip(graph.inputs, values, strict=True)}
        return tuple(self._program.run({**self._captured, **given}, self._device))
