"""The compiler's own form of a network: values of known shape, and the operations that make them, in order.

The first axis of every array is the batch and is left out of all shapes here: an operation never mixes images, so one
graph serves every batch size.  Operations and what they take are in `pycnn.compiler.operations`.

>>> x = Value((3, 8, 8))
>>> relu = Node("relu", (x,), {}, {}, "act")
>>> print(Graph([x], [relu], [relu.output], 0))
inputs  %0 3x8x8
%1 = relu(%0)  3x8x8  # act
outputs %1
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pycnn.compiler.operations import infer

__all__ = ["CompileError", "Graph", "Node", "Value"]

Shape = tuple[int, ...]
Array = Any  # numpy.ndarray, or a Weight that will make one


class CompileError(RuntimeError):
    """A network that cannot be compiled as it is; the message names the operation and the module it is in."""


class Value:
    """An array of float32 that has `shape` for each image.  Values are told apart by identity."""

    __slots__ = ("shape",)

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


class Node:
    """One operation: `output` = op(`inputs`).

    Attributes:
        op: a name that `pycnn.compiler.operations` knows.
        inputs: values, made by earlier nodes or inputs of the graph.
        settings: numbers, strings, bools and tuples of them.
        constants: weights in their plain layout, by name.
        name: dotted path of the module that asked for it.
        output: the value it makes, whose shape follows from all of these.

    Raises:
        ValueError: settings or constants that the operation does not have, or shapes that do not go together.
    """

    __slots__ = ("constants", "inputs", "name", "op", "output", "settings")

    def __init__(
        self,
        op: str,
        inputs: tuple[Value, ...],
        settings: Mapping[str, Any],
        constants: Mapping[str, Array],
        name: str = "",
        output: Value | None = None,
    ) -> None:
        self.op, self.inputs, self.name = op, inputs, name
        self.settings, self.constants = dict(settings), dict(constants)
        shape = infer(op, [value.shape for value in inputs], self.settings, self.constants)
        if output is not None and output.shape != shape:
            raise ValueError(f"{op} makes {shape}, not {output.shape}")
        self.output = output or Value(shape)

    def but(self, **changes: Any) -> Node:
        """The same operation, making the same value, with other inputs, settings or constants."""
        given = {name: getattr(self, name) for name in ("op", "inputs", "settings", "constants", "name", "output")}
        return Node(**{**given, **changes})

    def __getitem__(self, setting: str) -> Any:
        return self.settings[setting]


@dataclass
class Graph:
    """A network.

    Attributes:
        inputs: the values a caller gives, in order.
        nodes: each behind those that make its inputs.
        outputs: the values a caller gets, the leaves of `structure` in order.
        structure: how they are handed back: the number of an output, None, or [kind, parts] of a tuple, list or dict.
    """

    inputs: list[Value]
    nodes: list[Node]
    outputs: list[Value]
    structure: Any

    def numbers(self) -> dict[Value, int]:
        """A number for each value: inputs first, then in the order they are made."""
        return {value: i for i, value in enumerate([*self.inputs, *(node.output for node in self.nodes)])}

    def makers(self) -> dict[Value, Node]:
        """The node that makes each value; inputs have none."""
        return {node.output: node for node in self.nodes}

    def uses(self) -> dict[Value, int]:
        """How often each value is read, by nodes and as an output."""
        counts = dict.fromkeys(self.numbers(), 0)
        for value in [*(value for node in self.nodes for value in node.inputs), *self.outputs]:
            counts[value] += 1
        return counts

    def replaced(self, nodes: list[Node], values: Mapping[Value, Value]) -> Graph:
        """The graph with other nodes, in which each value of `values` is taken from another one."""

        def final(value: Value) -> Value:
            while value in values:
                value = values[value]
            return value

        changed = []
        for node in nodes:
            inputs = tuple([final(value) for value in node.inputs])
            changed.append(node if inputs == node.inputs else node.but(inputs=inputs))
        return Graph(self.inputs, changed, [final(value) for value in self.outputs], self.structure)

    def __str__(self) -> str:
        number = self.numbers()

        def names(values: Any) -> str:
            return ", ".join(f"%{number[value]}" for value in values)

        lines = ["inputs  " + ", ".join(f"%{number[value]} {by(value.shape)}" for value in self.inputs)]
        for node in self.nodes:
            given = [(key, value) for key, value in node.settings.items() if value is not None and value is not False]
            settings = [f"{key}={_text(value)}" for key, value in given]
            settings += [f"{key}:{by(array.shape)}" for key, array in node.constants.items()]
            made = f"%{number[node.output]} = {node.op}({names(node.inputs)})"
            lines.append(
                "  ".join([made, by(node.output.shape), *settings, *([f"# {node.name}"] if node.name else [])])
            )
        return "\n".join([*lines, "outputs " + names(self.outputs)])


def by(sizes: Shape) -> str:
    """Sizes as people write them: 3x224x224."""
    return "x".join(map(str, sizes)) or "one"


def _text(value: Any) -> str:
    if not isinstance(value, tuple):
        return f"{value}"
    return (".." if any(isinstance(one, float) for one in value) else "x").join(map(_text, value))


def assemble(structure: Any, leaf: Callable[[int], Any]) -> Any:
    """What a caller gets: `structure` with ``leaf(number)`` in the place of each number."""
    if structure is None or isinstance(structure, int):
        return None if structure is None else leaf(structure)
    kind, parts = structure
    if kind == "dict":
        return {name: assemble(part, leaf) for name, part in parts.items()}
    built = [assemble(part, leaf) for part in parts]
    return tuple(built) if kind == "tuple" else built


def leaves_of(structure: Any) -> Iterator[int]:
    """The numbers in a structure, in order."""
    if isinstance(structure, int):
        yield structure
    elif structure is not None:
        kind, parts = structure
        for part in parts.values() if kind == "dict" else parts:
            yield from leaves_of(part)
