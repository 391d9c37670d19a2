"""Following a network's own code: it runs on arrays that have a shape and no values, and what it does is written down.

Every operation on Tensors passes `Function.apply`, which asks the tracer first.  One of which no argument comes from
the network's inputs is computed as always, so what a network derives from its parameters becomes a constant.  Any other
is turned into nodes by `pycnn.compiler.rules`.  As the arrays have no values, nothing can pass by unseen: whatever asks
for a value (``numpy()``, ``item()``, an ``if``, a function of NumPy's, a write into an array) is refused by name.

The network is run twice, with different numbers of images.  What differs between the two runs depends on the batch
itself and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from pycnn import graph as autograd_graph
from pycnn.compiler.graph import CompileError, Graph, Node, Value
from pycnn.graph import Function, Variable, no_grad, wrap
from pycnn.nn.module import Module, evaluating
from pycnn.tensor import Tensor

__all__ = ["Trace", "Traced", "trace"]

Array = np.ndarray[Any, Any]
_BATCHES = (2, 3)
_FLAGS = SimpleNamespace(c_contiguous=True, f_contiguous=False, writeable=False, aligned=True)


class Traced:
    """Stands for an array of the network that is followed.

    Attributes:
        value: what it is in the graph.
        trace: the run it belongs to.
    """

    __slots__ = ("trace", "value")
    __hash__ = object.__hash__

    dtype = np.dtype(np.float32)
    itemsize = 4
    base = None
    device = "cpu"
    flags = _FLAGS

    def __init__(self, trace: Trace, value: Value) -> None:
        self.trace, self.value = trace, value

    @property
    def shape(self) -> tuple[int, ...]:
        """With the batch."""
        return (self.trace.batch, *self.value.shape)

    @property
    def ndim(self) -> int:
        """With the batch."""
        return 1 + len(self.value.shape)

    @property
    def size(self) -> int:
        """With the batch."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """With the batch."""
        return self.itemsize * self.size

    def __repr__(self) -> str:
        return f"<values of shape {self.shape}, which are not computed while the network is compiled>"

    def __getattr__(self, name: str) -> Any:
        raise self.trace.refuse(f"asks for {_NAMES.get(name, name)} of")


_NAMES = {
    "item": "item(), float(), int() or the truth",
    **dict.fromkeys(("get", "__array__", "__array_interface__", "__array_struct__"), "numpy()"),
    "strides": "strides (or __dlpack__, which looks at them)",
}
_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_OPERATORS = {
    **{"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@"},
    **{"and": "&", "or": "|", "xor": "^"},
}
_ASKED = {
    **{name: f"compares (by {sign})" for name, sign in _COMPARED.items()},
    **{side + name: f"computes ({sign}) with the array of" for name, sign in _OPERATORS.items() for side in ("", "r")},
    **{"i" + name: f"changes in place (by {sign}=)" for name, sign in _OPERATORS.items()},
    "setitem": "changes elements in place of",
    **dict.fromkeys(("getitem", "iter", "contains", "len"), "asks for elements of the array of"),
    **dict.fromkeys(("bool", "float", "int", "complex", "index"), "asks for the value of"),
    **dict.fromkeys(("neg", "pos", "abs", "invert"), "computes with the array of"),
    "array": "asks for numpy() of",
    "array_ufunc": "calls NumPy's {0.__name__}() on",
    "array_function": "calls NumPy's {0.__name__}() on",
}


def _refusing(asked: str) -> Callable[..., Any]:
    def method(self: Traced, *args: Any, **options: Any) -> Any:
        raise self.trace.refuse(asked.format(*args))

    return method


for _name, _asked in _ASKED.items():
    setattr(Traced, f"__{_name}__", _refusing(_asked))


class Trace:
    """One run of a network.

    Attributes:
        batch: how many images it is given.
        nodes: what it has done so far.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.nodes: list[Node] = []
        self._modules: list[str] = []

    def add(self, op: str, *inputs: Value, constants: dict[str, Array] | None = None, **settings: Any) -> Value:
        """Write an operation down; what it makes."""
        node = Node(op, inputs, settings, constants or {}, self._modules[-1] if self._modules else "")
        self.nodes.append(node)
        return node.output

    def call(self, function: type[Function], args: tuple[Any, ...]) -> Any:
        """See `pycnn.graph.Tracer`."""
        if not any(map(_follows, args)):
            return NotImplemented
        from pycnn.compiler.rules import RULES

        given = [arg._data if isinstance(arg, Variable) else arg for arg in args]
        if any(isinstance(one, Traced) and one.trace is not self for one in given):
            raise self.error(
                f"{function.__name__} is given a tensor of an earlier run of the network, which it has kept"
            )
        rule = RULES.get(function)
        if rule is None:
            raise self.error(f"{function.__name__} has no compiled form")
        result = Traced(self, rule(self, *given))
        return wrap(result) if any(isinstance(arg, Variable) for arg in args) else result

    @contextmanager
    def inside(self, model: Module) -> Iterator[None]:
        """While `model` runs: know which of its modules is running."""
        hooks = []

        def enter(path: str, module: Module, args: Any) -> None:
            self._modules.append(path)

        def leave(module: Module, args: Any, result: Any) -> None:
            self._modules.pop()

        try:
            for path, module in model.named_modules():
                hooks.append(module.register_forward_pre_hook(lambda *given, path=path: enter(path, *given)))
                hooks.append(module.register_forward_hook(leave))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def error(self, words: str) -> CompileError:
        """The exception that says what stands in the way, and where."""
        place = self._modules[-1] if self._modules else ""
        return CompileError(f"the network cannot be compiled: {words}" + (f" (in module {place})" if place else ""))

    def refuse(self, asked: str) -> CompileError:
        """The exception for code that needs a value."""
        return self.error(f"its code {asked} a tensor that depends on the input, whose values differ in each call")


def _follows(value: Any) -> bool:
    if isinstance(value, Variable):
        value = value._data
    return isinstance(value, Traced) or (isinstance(value, (tuple, list)) and any(map(_follows, value)))


def trace(model: Module, shapes: Iterable[tuple[int, ...]]) -> Graph:
    """What `model` does in evaluation mode with inputs of these shapes (of one image).

    Args:
        model: parameters and buffers in float32, in main memory.  It is left in the mode it was in.
        shapes: of each argument of its forward, without the batch.

    Returns:
        the graph, whose constants are the model's own arrays where it uses them as they are.

    Raises:
        CompileError: an operation that has no compiled form, code that depends on values, or on the size of the batch.
        Whatever the network's own code raises.

    >>> from pycnn import nn
    >>> print(trace(nn.Sequential(nn.Linear(4, 2), nn.Tanh()), [(4,)]))
    inputs  %0 4
    %1 = linear(%0)  2  w:2x4  b:2  # 0
    %2 = tanh(%1)  2  # 1
    outputs %2
    """
    shapes = list(shapes)
    first = _run(model, shapes, _BATCHES[0])
    try:
        second = _run(model, shapes, _BATCHES[1])
    except CompileError:
        raise
    except Exception as error:
        raise CompileError(
            f"the network cannot be compiled: it runs with {_BATCHES[0]} images and not with {_BATCHES[1]}: {error}"
        ) from error
    _expect_same(first, second)
    return first


def _run(model: Module, shapes: list[tuple[int, ...]], batch: int) -> Graph:
    run = Trace(batch)
    inputs = [Value(shape) for shape in shapes]
    with evaluating(model), no_grad(), autograd_graph.tracing(run), run.inside(model):
        result = model(*[wrap(Traced(run, value)) for value in inputs])
    outputs: list[Value] = []
    structure = _structure(run, result, outputs)
    if not outputs:
        raise run.error("its result holds no tensor that depends on the input")
    return Graph(inputs, run.nodes, outputs, structure)


def _structure(run: Trace, result: Any, outputs: list[Value]) -> Any:
    """See `Graph.structure`; the values go to `outputs`."""
    if result is None:
        return None
    array = result._data if isinstance(result, Tensor) else result
    if isinstance(array, Traced):
        outputs.append(array.value)
        return len(outputs) - 1
    if isinstance(result, (tuple, list)):
        kind = "tuple" if isinstance(result, tuple) else "list"
        return [kind, [_structure(run, part, outputs) for part in result]]
    if isinstance(result, dict) and all(isinstance(name, str) for name in result):
        return ["dict", {name: _structure(run, part, outputs) for name, part in result.items()}]
    found = "a tensor that does not depend on the input" if isinstance(result, Tensor) else type(result).__name__
    raise run.error(
        f"its result must consist of Tensors that depend on the input, None, tuples, lists and dicts; got {found}"
    )


def _expect_same(first: Graph, second: Graph) -> None:
    numbers, others = first.numbers(), second.numbers()
    for a, b in zip(first.nodes, second.nodes, strict=False):
        same = (
            (a.op, a.settings, a.output.shape, a.constants.keys())
            == (b.op, b.settings, b.output.shape, b.constants.keys())
            and [numbers[value] for value in a.inputs] == [others[value] for value in b.inputs]
            and all(_equal(array, b.constants[name]) for name, array in a.constants.items())
        )
        if not same:
            where = f" in module {a.name}" if a.name else ""
            raise CompileError(
                f"the network cannot be compiled: {a.op}{where} was not the same in two runs with {_BATCHES[0]} and "
                f"{_BATCHES[1]} images, so it depends on the batch as a whole, or on chance"
            )
    if (
        len(first.nodes) != len(second.nodes)
        or first.structure != second.structure
        or [numbers[value] for value in first.outputs] != [others[value] for value in second.outputs]
    ):
        raise CompileError(
            f"the network cannot be compiled: it does more, or other things, with {_BATCHES[1]} images than with "
            f"{_BATCHES[0]}"
        )


def _equal(a: Array, b: Array) -> bool:
    return a is b or np.array_equal(a, b, equal_nan=True)
