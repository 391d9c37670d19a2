"""A network as an ONNX model: what `pycnn.compile` reads out of its code, written in ONNX's operators.

Reference: Open Neural Network Exchange, operator set 17 (docs/Operators.md of onnx).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn._files import replacing
from pycnn.compiler import CompiledModel, CompileError, graph_of
from pycnn.compiler.graph import Graph, Node, Value, leaves_of
from pycnn.nn.module import Module

with extra("onnx", "onnx"):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

__all__ = ["export", "to_model"]

OPSET = 17
IR_VERSION = 8  # what goes with it
_LARGEST = 2**31 - 1  # bytes that a file of protocol buffers can have

Array = np.ndarray[Any, Any]


def export(
    model: Module | CompiledModel,
    example: Any,
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> None:
    """Write a network to an ONNX file, for inference in float32 with batches of any size.

    The network is followed as `pycnn.compile` does: in evaluation mode, batch norm folded into the convolution before
    it.  A layer's weights keep its name (``layer1.0.conv1.weight``).

    Args:
        model: an `nn.Module` with float32 parameters in main memory, or what `pycnn.compile` made of one.
        example: as `pycnn.compile` takes it; not looked at for a compiled model.
        path: the file; an older one is replaced when the new one is whole.
        input_names: ``input`` or ``input_0``, ``input_1``, ... by default.
        output_names: ``output`` and so on; the leaves of what the network returns, in order.

    Raises:
        CompileError: what `pycnn.compile` raises; or an operation with settings that ONNX has no operator for.
        ValueError: another number of names than there are inputs or outputs, or a name twice.
        ModuleNotFoundError: the package onnx is missing.

    >>> import tempfile, numpy as np, pycnn, pycnn.onnx
    >>> path = tempfile.mkdtemp() + "/lenet5.onnx"
    >>> pycnn.onnx.export(pycnn.models.lenet5(), np.zeros((1, 1, 32, 32), np.float32), path)
    """
    proto = to_model(model, example, input_names=input_names, output_names=output_names)
    size = proto.ByteSize()
    if size > _LARGEST:
        raise CompileError(f"an ONNX file of one piece holds {_LARGEST} bytes, the network has {size}")
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def to_model(
    model: Module | CompiledModel,
    example: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """The model that `export` writes.

    Args, Raises: as `export`.

    >>> import numpy as np, pycnn
    >>> net = pycnn.nn.Sequential(pycnn.nn.Conv2d(3, 8, 3), pycnn.nn.BatchNorm2d(8), pycnn.nn.ReLU())
    >>> [node.op_type for node in to_model(net, np.zeros((1, 3, 8, 8), np.float32)).graph.node]
    ['Conv', 'Relu']
    """
    from pycnn import __version__

    network = model.graph if isinstance(model, CompiledModel) else graph_of(model, example)
    leaves = list(leaves_of(network.structure))
    writer = _Writer(
        network,
        _names("input_names", input_names, "input", len(network.inputs)),
        _names("output_names", output_names, "output", len(leaves)),
    )
    inputs = [_described(writer.names[value], value) for value in network.inputs]
    for node in network.nodes:
        _WRITERS[node.op](writer, node)
    outputs = writer.finish([network.outputs[leaf] for leaf in leaves])
    graph = helper.make_graph(writer.nodes, "pycnn", inputs, outputs, list(writer.constants.values()))
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pycnn",
        producer_version=__version__,
    )
    if proto.ByteSize() <= _LARGEST:
        onnx.checker.check_model(proto, full_check=True)
    return proto


def _names(argument: str, given: Sequence[str] | None, plain: str, count: int) -> list[str]:
    if given is None:
        return [plain] if count == 1 else [f"{plain}_{i}" for i in range(count)]
    if len(given) != count:
        raise ValueError(f"{argument} must be {count} names, got {len(given)}: {', '.join(given)}")
    if len(set(given)) != count or "" in given:
        raise ValueError(f"{argument} must be different and not empty, got {', '.join(map(repr, given))}")
    return list(given)


def _described(name: str, value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *value.shape])


class _Writer:
    """The nodes and constants so far, and the names of values.

    Attributes:
        names: of the values that are there.
        nodes: ONNX's.
        constants: the initializers, by name.
    """

    def __init__(self, network: Graph, inputs: list[str], outputs: list[str]) -> None:
        self.names: dict[Value, str] = dict(zip(network.inputs, inputs, strict=True))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._outputs = outputs
        self._taken = {*inputs, *outputs}

    def constant(self, name: str, array: Array) -> str:
        """An initializer; its name, which is `name` unless that is taken."""
        name = self._free(name)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, op: str, node: Node, *inputs: str, **attributes: Any) -> str:
        """An ONNX node for `node`; what its result is called."""
        name = self._free(f"{node.name or 'network'}/{op}")
        output = self._free(f"{name}:0")
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def ends(self, node: Node, output: str) -> None:
        """`output` is what `node` makes, but for the ReLU or other clamp that it may end with."""
        if (bounds := node.settings.get("clamp")) is not None:
            output = _clamped(self, node, output, *bounds)
        self.names[node.output] = output

    def finish(self, values: Sequence[Value]) -> list[onnx.ValueInfoProto]:
        """Give the results their names; what is handed back twice, or is an input, gets a copy."""
        makers = {name: node for node in self.nodes for name in node.output}
        renamed: dict[str, str] = {}
        for name, value in zip(self._outputs, values, strict=True):
            made = self.names[value]
            if made in makers and made not in renamed:
                renamed[made] = name
            else:
                self.nodes.append(helper.make_node("Identity", [made], [name], name=f"{name}/Identity"))
        for node in self.nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        return [_described(name, value) for name, value in zip(self._outputs, values, strict=True)]

    def _free(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _inputs(writer: _Writer, node: Node) -> list[str]:
    return [writer.names[value] for value in node.inputs]


def _weights(writer: _Writer, node: Node) -> list[str]:
    """The names of `w` and, where there is one, `b`."""
    kinds = {"w": "weight", "b": "bias"}
    return [
        writer.constant(f"{node.name}.{kinds[key]}".lstrip("."), np.asarray(node.constants[key], np.float32))
        for key in ("w", "b")
        if key in node.constants
    ]


def _pads(padding: tuple[int, int, int, int]) -> list[int]:
    top, bottom, left, right = padding
    return [top, left, bottom, right]


def _conv2d(writer: _Writer, node: Node) -> None:
    x, *residual = _inputs(writer, node)
    y = writer.add(
        "Conv",
        node,
        x,
        *_weights(writer, node),
        kernel_shape=node.constants["w"].shape[2:],
        strides=node["stride"],
        pads=_pads(node["padding"]),
        dilations=node["dilation"],
        group=node["groups"],
    )
    writer.ends(node, writer.add("Add", node, y, *residual) if residual else y)


def _linear(writer: _Writer, node: Node) -> None:
    writer.ends(node, writer.add("Gemm", node, *_inputs(writer, node), *_weights(writer, node), transB=1))


def _affine(writer: _Writer, node: Node) -> None:
    (y,) = _inputs(writer, node)
    around = (-1,) + (1,) * (len(node.output.shape) - 1)
    for key, op in (("scale", "Mul"), ("shift", "Add")):
        if key in node.constants:
            array = np.asarray(node.constants[key], np.float32).reshape(around)
            y = writer.add(op, node, y, writer.constant(f"{node.name}.{key}".lstrip("."), array))
    writer.ends(node, y)


def _plain(op: str) -> Callable[[_Writer, Node], None]:
    return lambda writer, node: writer.ends(node, writer.add(op, node, *_inputs(writer, node)))


def _number(writer: _Writer, value: float) -> str:
    return writer.constant("number", np.array(value, np.float32))


def _activation(writer: _Writer, node: Node) -> None:
    (x,) = _inputs(writer, node)
    if node["name"] not in _ACTIVATIONS:
        raise _refusal(node, node["name"])
    writer.ends(node, _ACTIVATIONS[node["name"]](writer, node, x, node["a"], node["b"], node["c"]))


def _hardtanh(writer: _Writer, node: Node, x: str, a: float, b: float, c: float) -> str:
    return _clamped(writer, node, x, a, b)


def _clamped(writer: _Writer, node: Node, x: str, low: float, high: float) -> str:
    if (low, high) == (0, np.inf):
        return writer.add("Relu", node, x)
    bounds = [_number(writer, value) if np.isfinite(value) else "" for value in (low, high)]
    return writer.add("Clip", node, x, *(bounds if bounds[1] else bounds[:1]))


def _elu(writer: _Writer, node: Node, x: str, a: float, b: float, c: float) -> str:
    if b == c == 1:
        return writer.add("Elu", node, x, alpha=a)
    if c == 1:
        return writer.add("Selu", node, x, alpha=a / b, gamma=b)
    if b == 1 and a * c == 1:
        return writer.add("Celu", node, x, alpha=a)
    raise _refusal(node, f"elu with settings {a:g}, {b:g} and {c:g}")


def _softplus(writer: _Writer, node: Node, x: str, a: float, b: float, c: float) -> str:
    if a == 1:
        return writer.add("Softplus", node, x)
    inner = writer.add("Softplus", node, writer.add("Mul", node, x, _number(writer, a)))
    return writer.add("Div", node, inner, _number(writer, a))


def _gelu(writer: _Writer, node: Node, x: str, a: float, b: float, c: float) -> str:
    part = writer.add("Erf", node, writer.add("Mul", node, x, _number(writer, 0.5**0.5)))
    half = writer.add("Mul", node, x, _number(writer, 0.5))
    return writer.add("Mul", node, half, writer.add("Add", node, part, _number(writer, 1.0)))


def _gelu_tanh(writer: _Writer, node: Node, x: str, a: float, b: float, c: float) -> str:
    cube = writer.add("Mul", node, writer.add("Mul", node, x, x), writer.add("Mul", node, x, _number(writer, 0.044715)))
    inner = writer.add("Mul", node, writer.add("Add", node, x, cube), _number(writer, 2 * (2 / np.pi) ** 0.5))
    return writer.add("Mul", node, x, writer.add("Sigmoid", node, inner))


def _threshold(writer: _Writer, node: Node, x: str, a: float, b: float, c: float) -> str:
    above = writer.add("Greater", node, x, _number(writer, a))
    return writer.add("Where", node, above, x, _number(writer, b))


_Activation = Callable[[_Writer, Node, str, float, float, float], str]

_ACTIVATIONS: dict[str, _Activation] = {
    "elu": _elu,
    "erf": lambda writer, node, x, a, b, c: writer.add("Erf", node, x),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hardshrink": lambda writer, node, x, a, b, c: writer.add("Shrink", node, x, lambd=a, bias=0.0),
    "hardsigmoid": lambda writer, node, x, a, b, c: writer.add("HardSigmoid", node, x, alpha=1 / 6, beta=0.5),
    "hardswish": lambda writer, node, x, a, b, c: writer.add("HardSwish", node, x),
    "hardtanh": _hardtanh,
    "leaky_relu": lambda writer, node, x, a, b, c: writer.add("LeakyRelu", node, x, alpha=a),
    "logsigmoid": lambda writer, node, x, a, b, c: writer.add(
        "Neg", node, writer.add("Softplus", node, writer.add("Neg", node, x))
    ),
    "mish": lambda writer, node, x, a, b, c: writer.add(
        "Mul", node, x, writer.add("Tanh", node, writer.add("Softplus", node, x))
    ),
    "silu": lambda writer, node, x, a, b, c: writer.add("Mul", node, x, writer.add("Sigmoid", node, x)),
    "softplus": _softplus,
    "softshrink": lambda writer, node, x, a, b, c: writer.add("Shrink", node, x, lambd=a, bias=a),
    "softsign": lambda writer, node, x, a, b, c: writer.add("Softsign", node, x),
    "tanhshrink": lambda writer, node, x, a, b, c: writer.add("Sub", node, x, writer.add("Tanh", node, x)),
    "threshold": _threshold,
}


def _permute(writer: _Writer, node: Node) -> None:
    perm = [0, *(axis + 1 for axis in node["order"])]
    writer.ends(node, writer.add("Transpose", node, *_inputs(writer, node), perm=perm))


def _concat(writer: _Writer, node: Node) -> None:
    writer.ends(node, writer.add("Concat", node, *_inputs(writer, node), axis=node["axis"] + 1))


def _pad(writer: _Writer, node: Node) -> None:
    sides = [(0, 0), *node["sides"]]
    pads = np.array([before for before, _ in sides] + [after for _, after in sides], np.int64)
    writer.ends(node, writer.add("Pad", node, *_inputs(writer, node), writer.constant("pads", pads)))


def _sliced(writer: _Writer, node: Node, x: str, axes: Sequence[int], *bounds: Sequence[int]) -> str:
    """x[starts:stops:steps] along `axes`, the batch being axis 0."""
    starts, stops, *steps = (
        writer.constant(name, np.array(numbers, np.int64))
        for name, numbers in zip(("starts", "stops", "steps"), bounds, strict=False)
    )
    return writer.add("Slice", node, x, starts, stops, writer.constant("axes", np.array(axes, np.int64)), *steps)


def _slice(writer: _Writer, node: Node) -> None:
    (x,) = _inputs(writer, node)
    axes = range(1, 1 + len(node.output.shape))
    writer.ends(node, _sliced(writer, node, x, axes, node["starts"], node["stops"], node["steps"]))


def _reshape(writer: _Writer, node: Node) -> None:
    shape = writer.constant("shape", np.array([0, *node["shape"]], np.int64))  # 0: the batch, as it comes
    writer.ends(node, writer.add("Reshape", node, *_inputs(writer, node), shape))


def _max_pool2d(writer: _Writer, node: Node) -> None:
    y = writer.add(
        "MaxPool",
        node,
        *_inputs(writer, node),
        kernel_shape=node["kernel"],
        strides=node["stride"],
        pads=_pads(node["padding"]),
        dilations=node["dilation"],
        ceil_mode=int(node["ceil_mode"]),
    )
    writer.ends(node, y)


def _avg_pool2d(writer: _Writer, node: Node) -> None:
    kernel, divisor = node["kernel"], node["divisor"]
    if divisor is not None and node["ceil_mode"]:
        raise _refusal(node, "an average pooling with a divisor of its own and ceil_mode")
    y = writer.add(
        "AveragePool",
        node,
        *_inputs(writer, node),
        kernel_shape=kernel,
        strides=node["stride"],
        pads=_pads(node["padding"]),
        ceil_mode=int(node["ceil_mode"]),
        count_include_pad=int(node["count_include_pad"] or divisor is not None),
    )
    if divisor is not None:
        factor = np.array(kernel[0] * kernel[1] / divisor, np.float32)
        y = writer.add("Mul", node, y, writer.constant("factor", factor))
    writer.ends(node, y)


def _adaptive(reduction: str) -> Callable[[_Writer, Node], None]:
    """Windows of different sizes: cut out and reduced one by one, along rows and then along columns."""

    def write(writer: _Writer, node: Node) -> None:
        (y,) = _inputs(writer, node)
        for axis, (size, count) in enumerate(zip(node.inputs[0].shape[1:], node["size"], strict=True), start=2):
            parts = []
            for i in range(count):
                start, stop = i * size // count, -(-(i + 1) * size // count)
                window = _sliced(writer, node, y, [axis], [start], [stop])
                parts.append(writer.add(reduction, node, window, axes=[axis], keepdims=1))
            y = writer.add("Concat", node, *parts, axis=axis)
        writer.ends(node, y)

    return write


def _lrn(writer: _Writer, node: Node) -> None:
    if node["size"] % 2 == 0:  # an even window is one channel longer on the other side there
        raise _refusal(node, f"a local response normalisation over {node['size']} channels, an even number,")
    y = writer.add(
        "LRN",
        node,
        *_inputs(writer, node),
        size=node["size"],
        alpha=node["alpha"],
        beta=node["beta"],
        bias=node["k"],
    )
    writer.ends(node, y)


def _softmax(writer: _Writer, node: Node) -> None:
    op = "LogSoftmax" if node["log"] else "Softmax"
    writer.ends(node, writer.add(op, node, *_inputs(writer, node), axis=node["axis"] + 1))


def _refusal(node: Node, what: str) -> CompileError:
    return CompileError(
        f"the network cannot be exported: {what} is no operator of ONNX's"
        + (f" (in module {node.name})" * bool(node.name))
    )


_WRITERS: dict[str, Callable[[_Writer, Node], None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "affine": _affine,
    "relu": _plain("Relu"),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "activation": _activation,
    "add": _plain("Add"),
    "mul": _plain("Mul"),
    "scale": _plain("Mul"),
    "permute": _permute,
    "concat": _concat,
    "pad": _pad,
    "slice": _slice,
    "reshape": _reshape,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive("ReduceMean"),
    "adaptive_max_pool2d": _adaptive("ReduceMax"),
    "mean": _plain("GlobalAveragePool"),
    "lrn": _lrn,
    "softmax": _softmax,
}
