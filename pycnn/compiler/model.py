"""A network as one native program: `compile` and what it returns."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn import _cpu, algorithms, machine
from pycnn.arrays import device_of, is_array
from pycnn.compiler import files, report
from pycnn.compiler.calls import arguments, is_channels_last, names, pixels
from pycnn.compiler.gpu import CompiledOnGpu
from pycnn.compiler.graph import CompileError, Graph, assemble, by
from pycnn.compiler.lower import lower
from pycnn.compiler.passes import optimized
from pycnn.compiler.plan import Plan
from pycnn.compiler.tracer import trace
from pycnn.graph import Variable
from pycnn.nn.module import Module

__all__ = ["CompiledModel", "compile", "graph_of"]

_PROGRAMS = 8  # batch sizes, layouts and instruction sets whose programs are kept
_SHAPES = 64  # of inputs that are remembered as right


def compile(model: Module, example: Any, *, accuracy: str | None = None) -> CompiledModel | CompiledOnGpu:
    """Make one native program of a network, for inference in float32.

    The network's own code runs twice, in evaluation mode and on arrays without values, and is written down: batch norm
    is folded into the convolution before it; biases, ReLUs and the sums of shortcuts become the end of a convolution;
    activations stay packed in vectors of channels between the layers, concatenations included; all of them share one
    stretch of memory.  A call then runs without Python between the layers.

    The weights are taken now: the compiled network has copies of its own, and training `model` further does not change
    it.  On a GPU (where the parameters or the example are there) the result replays a CUDA graph instead, see
    `CompiledOnGpu`, and reads the model's own parameters.

    What it computes is what `model` computes in evaluation mode, with roundings of their own: each convolution and full
    layer stays within c * sqrt(n) * 2^-24 * max conv(|x|, |w|) of the exact sum of its n products, c = 2 for direct
    ones, 4, 32 and 80 for Winograd's tiles of 2, 4 and 6 (`pycnn.testing.regimes` has them), and each folded weight is
    rounded once.

    Args:
        model: parameters and buffers in float32.  No other thread may use it meanwhile.
        example: an array or Tensor such as the network takes, the batch first; several in a tuple or list.  Only
            shapes are looked at; the batch may be of any size later, and its own is prepared for.
        accuracy: "fast" or "strict", as in `pycnn.use_accuracy`; what is in force now by default.

    Returns:
        a `CompiledModel`, to be called like the network.

    Raises:
        CompileError: an operation that has no compiled form, code that depends on values or on the size of the batch.
        TypeError: a model that is no `nn.Module`, or an example that is no array.
        Whatever the network raises for such an input.

    >>> import numpy as np, pycnn
    >>> net = pycnn.models.resnet20()
    >>> x = np.zeros((1, 3, 32, 32), np.float32)
    >>> fast = pycnn.compile(net, x)
    >>> fast(x).shape, fast(np.zeros((5, 3, 32, 32), np.float32)).shape
    ((1, 10), (5, 10))
    """
    examples = _examples(model, example)
    if _is_on_gpu(model, examples):
        return CompiledOnGpu(model)
    arrays, _ = arguments(examples)
    compiled = CompiledModel(_followed(model, arrays), algorithms.accuracy() if accuracy is None else accuracy)
    compiled.prepare(arrays[0].shape[0] or 1, channels_last=is_channels_last(arrays))
    for node in compiled.graph.nodes:
        if "w" in node.constants:
            node.constants["w"].own()  # where no kernel has packed it as a whole
    return compiled


def graph_of(model: Module, example: Any) -> Graph:
    """The network as `compile` sees it before it is made a program, after all passes.

    Args, Raises: as `compile`; CompileError for a network on a GPU.
    """
    examples = _examples(model, example)
    if _is_on_gpu(model, examples):
        raise CompileError("the network is on a GPU: model.cpu() brings it to main memory")
    return _followed(model, arguments(examples)[0])


def _examples(model: Module, example: Any) -> list[Any]:
    if not isinstance(model, Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    return list(example) if isinstance(example, (tuple, list)) else [example]


def _followed(model: Module, arrays: Sequence[Any]) -> Graph:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype.kind in "fV" and tensor.dtype != np.float32:
            raise CompileError(f"compiled networks are float32, {name} is {tensor.dtype}: model.float() converts it")
    for name, array in zip(names(len(arrays)), arrays, strict=True):
        if not array.ndim:
            raise CompileError(f"{name} must have a batch as its first dimension, got a single number")
    return optimized(trace(model, [array.shape[1:] for array in arrays]))


def _is_on_gpu(model: Module, examples: Sequence[Any]) -> bool:
    arrays = [one._data if isinstance(one, Variable) else one for one in examples]
    arrays += [tensor.data for tensor in [*model.parameters(), *model.buffers()]]
    return any(is_array(array) and device_of(array) != "cpu" for array in arrays)


class CompiledModel:
    """What `pycnn.compile` and `pycnn.load_compiled` return: call it.

    May be called from several threads at once.

    Attributes:
        graph: what is computed, to be printed.
        accuracy: "fast" or "strict": which algorithms may be chosen.
    """

    def __init__(self, graph: Graph, accuracy: str, engine: Any = _cpu) -> None:
        with algorithms.accuracy_of_call(accuracy):  # raises where there is no such accuracy
            self.graph, self.accuracy = graph, accuracy
        self._engine = engine
        self._lock = threading.Lock()
        self._batches: dict[tuple[tuple[int, ...], ...], int] = {}  # by the shapes of inputs that were found right
        self._filters: dict[str, dict[tuple[Any, ...], Any]] = {}  # by instruction set
        self._programs: OrderedDict[tuple[str, int, bool], tuple[Plan, Any]] = OrderedDict()

    def __call__(self, *inputs: Any) -> Any:
        """The network's result.

        Args:
            *inputs: what the network takes, by position: NumPy, torch or JAX arrays in main memory, or Tensors, of
                the shapes that it was compiled for, but for the batch.

        Returns:
            as the network returns it, in arrays of the caller's kind (named tuples become plain ones).  Images that lie
            channels-last in memory, (N, C, H, W) in shape, are read as they lie, and the results lie so too.

        Raises:
            TypeError: another number of inputs, no arrays, or another dtype than float32 (halves are converted).
            ValueError: another shape, batches of different sizes, or a Tensor that requires a gradient.
        """
        arrays, back = arguments(self._counted(inputs))
        results = self._run(arrays)
        return assemble(self.graph.structure, lambda number: back(results[number]))

    def prepare(self, batch: int, channels_last: bool = False) -> Plan:
        """Make the program for batches of this size, and for images of this layout, now; its plan."""
        return self._program(batch, channels_last)[0]

    def profile(self, *inputs: Any, rounds: int = 10) -> report.Profile:
        """Time every step of the program for these inputs: the median of `rounds` runs, with one before to warm up.

        Print the result; it is a table of rich where rich is installed and a console prints it.

        Args, Raises: as a call; ValueError for fewer rounds than one or an empty batch.
        """
        arrays, _ = arguments(self._counted(inputs))
        batch = self._batch(arrays)
        if rounds < 1 or not batch:
            raise ValueError(f"there must be a round and an image to profile, got {rounds} and {batch}")
        plan, program, inside, outside, _ = self._bound(arrays, batch)
        program.run(inside, outside)
        return report.Profile.of(plan, program.profile(inside, outside, rounds), machine.get_isa())

    def summary(self, batch: int = 1) -> str:
        """The steps of the program for batches of this size, and what memory it takes, as text."""
        return report.summary(self.graph, self.prepare(batch), machine.get_isa())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to one file, which `pycnn.load_compiled` reads on any machine, without the Python model.

        Raises:
            CompiledFileError: a file that cannot be written; an older one of that name is then untouched.
            ImportError: safetensors is not installed.
        """
        files.save(path, self.graph, self.accuracy)

    def _counted(self, inputs: Sequence[Any]) -> Sequence[Any]:
        if len(inputs) != len(self.graph.inputs):
            raise TypeError(f"the network takes {len(self.graph.inputs)} inputs, got {len(inputs)}")
        return inputs

    def _batch(self, arrays: Sequence[Any]) -> int:
        """How many images they are; ValueError for shapes that the network does not take."""
        shapes = tuple([array.shape for array in arrays])
        batch = self._batches.get(shapes)
        if batch is None:
            for name, shape, value in zip(names(len(arrays)), shapes, self.graph.inputs, strict=True):
                if shape[1:] != value.shape or not shape:
                    raise ValueError(f"{name} must be a batch of {by(value.shape)}, got shape {shape}")
                if shape[0] != shapes[0][0]:
                    raise ValueError(f"{name} has {shape[0]} images, inputs[0] {shapes[0][0]}")
            batch = int(shapes[0][0])
            if len(self._batches) < _SHAPES:
                self._batches[shapes] = batch
        return batch

    def _run(self, arrays: Sequence[Any]) -> list[Any]:
        batch = self._batch(arrays)
        if not batch:
            return [np.empty((0, *value.shape), np.float32) for value in self.graph.outputs]
        _, program, inside, outside, outputs = self._bound(arrays, batch)
        program.run(inside, outside)
        return outputs

    def _bound(self, arrays: Sequence[Any], batch: int) -> tuple[Plan, Any, Sequence[Any], list[Any], list[Any]]:
        """The plan and program for these arrays; the arrays and new ones for the results as the program sees them, both
        in the order of memory; and the results as the caller does."""
        last = is_channels_last(arrays)
        plan, program = self._program(batch, last)
        if not last:
            outputs = [_cpu.empty((batch, *value.shape)) for value in self.graph.outputs]
            return plan, program, arrays, outputs, outputs
        inside = [pixels(array) if array.ndim == 4 else array for array in arrays]
        outside, outputs = [], []
        for value in self.graph.outputs:
            shape = (batch, *value.shape)
            if len(shape) == 4:
                outside.append(_cpu.empty([shape[i] for i in (0, 2, 3, 1)]))
                outputs.append(outside[-1].transpose(0, 3, 1, 2))
            else:
                outside.append(_cpu.empty(shape))
                outputs.append(outside[-1])
        return plan, program, inside, outside, outputs

    def _program(self, batch: int, channels_last: bool = False) -> tuple[Plan, Any]:
        with self._lock:
            while True:
                key = (machine.get_isa(), batch, channels_last)
                if key in self._programs:
                    self._programs.move_to_end(key)
                    return self._programs[key]
                filters = dict(self._filters.get(key[0], {}))
                try:
                    with algorithms.accuracy_of_call(self.accuracy):
                        plan = lower(self.graph, batch, self._engine.lanes(), channels_last)
                    program = plan.program(self._engine, filters)
                except ValueError:
                    if key[0] == machine.get_isa():
                        raise
                    continue
                if key[0] == machine.get_isa():  # another thread may have set it meanwhile
                    self._filters[key[0]] = filters
                    self._programs[key] = plan, program
                    if len(self._programs) > _PROGRAMS:
                        self._programs.popitem(last=False)

    def __repr__(self) -> str:
        inputs = ", ".join(by(value.shape) for value in self.graph.inputs)
        outputs = ", ".join(by(value.shape) for value in self.graph.outputs)
        return f"<compiled network of {len(self.graph.nodes)} operations, {inputs} to {outputs}>"
