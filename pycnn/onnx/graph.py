"""An ONNX model as plain data: what is in a file, validated, with nothing of protobuf left.

Everything that can be wrong with a model is found here, before anything runs: a damaged file, tensors whose bytes do
not fit their shape, names that nothing makes, opsets that are too new, and operators that pycnn does not have, which
are all named at once.
"""

from __future__ import annotations

import contextlib
import functools
import graphlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn._files import size_of
from pycnn.onnx import registry
from pycnn.onnx.errors import ModelError, UnsupportedModelError
from pycnn.onnx.wire import expect_modest, locations

with extra("onnx", "onnx"):
    import onnx
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

__all__ = ["LATEST_OPSET", "Graph", "Node", "ValueInfo", "from_model", "load"]

LATEST_OPSET = 28  # the newest whose operators were compared with those here

Shape = tuple[int | str | None, ...]

_DEEPEST = 64  # functions that call each other
_SHARED = 16 << 20  # bytes that tensors may take from a file of weights again, with half of what it has


@dataclass(frozen=True)
class ValueInfo:
    """A graph's input or output: dtype and shape are None where the model does not say, or it is no tensor."""

    name: str
    dtype: np.dtype[Any] | None = None
    shape: Shape | None = None


@dataclass(frozen=True)
class Node:
    """One operation; `version` is the opset in which the operator took the form that the node uses."""

    operator: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.operator} {self.name!r}"

    @property
    def graphs(self) -> Iterator[Graph]:
        """The graphs among its attributes: branches and bodies."""
        return (value for value in self.attributes.values() if isinstance(value, Graph))


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each can run, and the constants that they start from.

    Attributes:
        inputs: what the caller gives; an input that also is a constant may be left out.
        captured: names that a branch or a body takes from the graph around it.
    """

    name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray] = field(repr=False)
    captured: frozenset[str] = frozenset()

    @property
    def required(self) -> tuple[ValueInfo, ...]:
        """The inputs without those that have a default."""
        return tuple(one for one in self.inputs if one.name not in self.constants)


def load(path: str | Path) -> Graph:
    """Read and validate a file, and the files with its weights that it names.

    Raises:
        OSError: a file that cannot be read, or a folder, a pipe or a device.
        ModelError: one that is damaged or no valid model, or that needs far more memory than it is long (see `wire`);
            the message names it.
        UnsupportedModelError: operators that pycnn does not have, all of them.
    """
    path = Path(path)
    size_of(path)
    content = path.read_bytes()
    try:
        expect_modest(content, ModelProto.DESCRIPTOR, functools.partial(bytes_beside, content, path.parent))
        try:
            model = ModelProto.FromString(content)
        except _decode_error() as error:
            raise ModelError(f"not an ONNX model, or cut off: {error}") from None
        del content
        return from_model(model, path.parent)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(error.missing, f"{path}: ") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error.__cause__


def bytes_beside(content: bytes, folder: Path) -> int:
    """How large the files in the model's folder are that it names for its weights."""
    folder, sizes = folder.resolve(), dict[Path, int]()
    for name in locations(content):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # what is wrong is said where the file is read
            file = (folder / name).resolve()
            if file.is_relative_to(folder):
                sizes[file] = size_of(file)
    return sum(sizes.values())


def from_model(model: ModelProto, folder: str | Path = ".") -> Graph:
    """Validate a model; `folder` is where files with its weights lie.

    Raises:
        TypeError: no ModelProto.
        ModelError, UnsupportedModelError, OSError: as `load`.
    """
    if not isinstance(model, ModelProto):
        raise TypeError(f"model must be an onnx.ModelProto, as onnx.load reads one, got {type(model).__name__}")
    if not model.HasField("graph"):
        raise ModelError("it holds no graph: an empty or cut off file, or no ONNX model")
    for body in (model.graph, *model.functions):
        _expect_text(body)
    if model.functions:
        model = _inlined(model)
    opsets = {_domain(each.domain): each.version for each in model.opset_import} or {"": 1}
    newest = opsets.get("", LATEST_OPSET)
    if not 1 <= newest <= LATEST_OPSET:
        raise ModelError(f"it uses opset {newest}; opsets 1 to {LATEST_OPSET} are known")
    _expect_supported(model.graph, opsets)
    _load_external(model.graph, Path(folder))
    return _Reader(opsets).graph(model.graph, frozenset())


def from_node(node: NodeProto, opset: int) -> Node:
    """One node by itself.  Raises ModelError, UnsupportedModelError as `from_model`."""
    graph = GraphProto(node=[node])
    opsets = {_domain(node.domain): opset}
    _expect_supported(graph, opsets)
    return _Reader(opsets).node(node, 0, frozenset(node.input))


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    kind: type[Exception] = DecodeError
    return kind


def _inlined(model: ModelProto) -> ModelProto:
    """The model with the functions that it brings along written out.

    onnx's inliner leaves out the defaults of their attributes, and the functions of another opset than the model's.
    """
    from onnx import inliner

    prepared = ModelProto()
    prepared.CopyFrom(model)
    defaults = {(one.domain, one.name, one.overload): one.attribute_proto for one in model.functions}
    bodies = (prepared.graph, *prepared.functions)
    for node in (node for body in bodies for _, node in _all_nodes(body)):
        given = {attribute.name for attribute in node.attribute}
        called = defaults.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend(one for one in called if one.name not in given)
    opsets = {_domain(one.domain): one.version for one in model.opset_import}
    for function in prepared.functions:
        _raise_opset(function, opsets.get("", LATEST_OPSET))
    _expect_short(model)
    try:
        return inliner.inline_local_functions(prepared)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"its functions cannot be written out: {_first_line(error)}") from None


def _raise_opset(function: FunctionProto, opset: int) -> None:
    """Write that a function is of the model's opset.  The standard has its operators take the same form in both."""
    for one in function.opset_import:
        if _domain(one.domain) or one.version == opset:
            continue
        for _, node in _all_nodes(function):
            kind = _domain(node.domain)
            if _version(node.op_type, kind, one.version) != _version(node.op_type, kind, opset):
                raise ModelError(
                    f"function {function.name!r} has the {node.op_type} of opset {one.version}, which is not that of "
                    f"the model's opset {opset}"
                )
        one.version = opset


def _expect_short(model: ModelProto) -> None:
    """Whether the graph stays small once functions are written out: of some that call each other twice, it would not.

    Raises:
        ModelError: more than the model's size again and 1 MiB, or a function that calls itself.
    """
    functions = {(_domain(one.domain), one.name, one.overload): one for one in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def written_out(nodes: Iterable[NodeProto], around: tuple[tuple[str, str, str], ...]) -> int:
        size = 0
        for node in nodes:
            size += node.ByteSize()
            calls = [node, *(inner for graph in _graphs_of(node) for _, inner in _all_nodes(graph))]
            for which in [(_domain(call.domain), call.op_type, call.overload) for call in calls]:
                if which in around or len(around) > _DEEPEST:
                    raise ModelError(f"its functions call each other without end, or too deep, {which[1]!r} among them")
                if which in functions and which not in sizes:
                    sizes[which] = written_out(functions[which].node, (*around, which))
                size += sizes.get(which, 0)
        return size

    size, most = written_out(model.graph.node, ()), model.ByteSize() + (1 << 20)
    if size > most:
        raise ModelError(f"its functions written out would take {size:,} bytes, and {most:,} are the most")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _expect_text(graph: GraphProto | FunctionProto) -> None:
    """Names that are no UTF-8, which protobuf hands out as bytes, are in damaged files alone."""
    if isinstance(graph, FunctionProto):
        names = [graph.name, graph.domain, *graph.input, *graph.output]
    else:
        names = [one.name for one in (*graph.input, *graph.output, *graph.initializer)]
    for _, node in _all_nodes(graph):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
        for inner in _graphs_of(node):
            names += [one.name for one in (*inner.input, *inner.output, *inner.initializer)]
    for name in names:
        if not isinstance(name, str):
            raise ModelError(f"{name!r:.60} is no name: the file is damaged")


def _graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _expect_supported(graph: GraphProto, opsets: Mapping[str, int]) -> None:
    missing: dict[tuple[str, str, int], list[str]] = {}
    for place, node in _all_nodes(graph):
        domain = _domain(node.domain)
        opset = opsets.get(domain, 0)
        version = _version(node.op_type, domain, opset)
        if version is None or registry.find(node.op_type, version) is None:
            missing.setdefault((node.op_type, domain, opset), []).append(_label(node, place))
    if missing:
        raise UnsupportedModelError([(*which, tuple(nodes)) for which, nodes in missing.items()])


def _all_nodes(graph: GraphProto | FunctionProto) -> Iterator[tuple[int, NodeProto]]:
    for place, node in enumerate(graph.node):
        yield place, node
        for inner in _graphs_of(node):
            yield from _all_nodes(inner)


def _in_order(graph: GraphProto) -> Iterable[tuple[int, NodeProto]]:
    """The nodes with their places, each behind those whose results it reads: some tools append what they insert.

    Raises ModelError for nodes that wait for each other.
    """
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    before = {place: {makers[name] for name in _read(node) if name in makers} for place, node in enumerate(graph.node)}
    if all(max(each, default=-1) < place for place, each in before.items()):
        return enumerate(graph.node)
    try:
        order = tuple(graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        circle = ", ".join(_label(graph.node[place], place) for place in error.args[1][:-1])
        raise ModelError(f"these nodes wait for each other: {circle}") from None
    return [(place, graph.node[place]) for place in order]


def _read(node: NodeProto) -> set[str]:
    """What a node reads, and what its branches and bodies take from the graph around them."""
    return {*node.input}.union(*map(_free, _graphs_of(node)))


def _free(graph: GraphProto) -> set[str]:
    made = {one.name for one in (*graph.input, *graph.initializer)}.union(*(node.output for node in graph.node))
    return {one.name for one in graph.output}.union(*map(_read, graph.node)) - made


def _label(node: NodeProto, place: int) -> str:
    """The node's name, or else what it makes, or else its place."""
    return node.name or next((f"-> {name}" for name in node.output if name), f"#{place}")


@functools.cache
def _schema(operator: str, opset: int) -> Any:
    try:
        return onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None


def _version(operator: str, domain: str, opset: int) -> int | None:
    """The opset in which `operator` took the form that it has in `opset`; None if it is not of the standard."""
    schema = None if domain or opset < 1 else _schema(operator, opset)
    return None if schema is None else int(schema.since_version)


def _load_external(graph: GraphProto, folder: Path) -> None:
    """Put in the weights that lie in files beside the model's."""
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    tensors = [*graph.initializer]
    for _, node in _all_nodes(graph):
        for attribute in node.attribute:
            tensors += [*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors]
        for inner in _graphs_of(node):
            tensors += inner.initializer
    read: dict[str, int] = {}  # bytes by file
    for tensor in tensors:
        if uses_external_data(tensor):
            file = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            try:
                load_external_data_for_tensor(tensor, str(folder))
                read[file] = read.get(file, 0) + tensor.ByteSize()
                size = (folder / file).stat().st_size
            except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
                raise ModelError(f"the weights of tensor {tensor.name!r}: {_first_line(error)}") from None
            if read[file] > size + size // 2 + _SHARED:
                raise ModelError(f"its tensors take more than {read[file]:,} bytes from {file}, which has {size:,}")
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


class _Reader:
    """Makes plain data of what was checked."""

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self._opset = opsets.get("", 1)

    def graph(self, proto: GraphProto, around: frozenset[str]) -> Graph:
        """`around` are the names that a branch or a body may take from the graphs that it is in."""
        if proto.sparse_initializer:
            raise ModelError(f"graph {proto.name!r} holds sparse tensors, which are not supported")
        constants = {tensor.name: array_of(tensor) for tensor in proto.initializer}
        inputs = tuple(map(_value_info, proto.input))
        known = {*constants, *(one.name for one in inputs)}
        captured: set[str] = set()
        nodes = []
        for place, each in _in_order(proto):
            node = self.node(each, place, around | known if any(_graphs_of(each)) else around)
            inner = {name for graph in node.graphs for name in graph.captured}
            for name in (*node.inputs, *inner):
                if not name or name in known:
                    continue
                if name not in around:
                    raise ModelError(f"node {node} reads {name!r}, which nothing before it makes")
                captured.add(name)
            for name in filter(None, node.outputs):
                if name in known:
                    raise ModelError(f"node {node} makes {name!r}, which there already is")
                known.add(name)
            nodes.append(node)
        for one in proto.output:
            if one.name not in known:
                if one.name not in around:
                    raise ModelError(f"the output {one.name!r} is made by nothing")
                captured.add(one.name)
        outputs = tuple(map(_value_info, proto.output))
        return Graph(proto.name, inputs, outputs, tuple(nodes), constants, frozenset(captured))

    def node(self, proto: NodeProto, place: int, around: frozenset[str]) -> Node:
        """One node, with the defaults of the attributes that it leaves out."""
        schema = _schema(proto.op_type, self._opset)
        label = _label(proto, place)
        _check(proto, schema, f"{proto.op_type} {label!r}")
        attributes: dict[str, Any] = {
            name: _attribute(one.default_value)
            for name, one in schema.attributes.items()
            if one.default_value.type != AttributeProto.UNDEFINED
        }
        for attribute in proto.attribute:
            if attribute.type == AttributeProto.GRAPH:
                attributes[attribute.name] = self.graph(attribute.g, around)
            else:
                attributes[attribute.name] = _attribute(attribute)
        version = int(schema.since_version)
        return Node(proto.op_type, version, label, tuple(proto.input), tuple(proto.output), attributes)


def _check(node: NodeProto, schema: Any, label: str) -> None:
    """Whether the node has the attributes, and as many inputs and outputs, as its operator."""
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is None:
            raise ModelError(f"node {label} has an attribute {attribute.name!r}, which its operator does not know")
        if attribute.ref_attr_name or attribute.type != known.type.value:
            raise ModelError(f"attribute {attribute.name!r} of node {label} must be of type {known.type.name}")
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            raise ModelError(f"node {label} holds a sparse tensor, which is not supported")
    given = {attribute.name for attribute in node.attribute}
    for name, known in schema.attributes.items():
        if known.required and name not in given:
            raise ModelError(f"node {label} lacks the attribute {name!r}")
    for kind, count, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            raise ModelError(f"node {label} has {count} {kind}; its operator has {least} to {most}")
    if any(not name for name in node.input[: _required(schema)]):
        raise ModelError(f"node {label} leaves an input out that its operator needs")


def _required(schema: Any) -> int:
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return sum(1 for one in schema.inputs if one.option == single)


_FIELDS = {
    AttributeProto.FLOAT: lambda one: float(one.f),
    AttributeProto.INT: lambda one: int(one.i),
    AttributeProto.STRING: lambda one: one.s.decode("utf-8", "replace"),
    AttributeProto.TENSOR: lambda one: array_of(one.t),
    AttributeProto.FLOATS: lambda one: tuple(one.floats),
    AttributeProto.INTS: lambda one: tuple(one.ints),
    AttributeProto.STRINGS: lambda one: tuple(text.decode("utf-8", "replace") for text in one.strings),
}


def _attribute(proto: AttributeProto) -> Any:
    """The value of an attribute; of a kind that no operator here has, the message itself."""
    reader = _FIELDS.get(proto.type)
    return proto if reader is None else reader(proto)


def array_of(tensor: TensorProto) -> np.ndarray:
    """The elements of a tensor.  Raises ModelError if there are not as many bytes as its shape needs."""
    try:
        if any(size < 0 for size in tensor.dims):
            raise ValueError("a negative size")
        return _of_numbers(tensor) if _is_plain(tensor) else np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        raise ModelError(f"tensor {tensor.name!r} ({shape}) is damaged: {_first_line(error)}") from None


def _of_numbers(tensor: TensorProto) -> np.ndarray:
    """The elements that stand in the field of their type; onnx would make a list of Python's numbers first.

    The bytes of an element in a wider field are its lowest, and complex numbers are two.
    """
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    stored = np.dtype(
        onnx.helper.tensor_dtype_to_np_dtype(onnx.helper.tensor_dtype_to_storage_tensor_dtype(tensor.data_type))
    )
    numbers = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
    array = np.fromiter(numbers, stored, len(numbers))
    if stored.kind in "iu" and dtype.itemsize < stored.itemsize:
        array = array.astype(f"u{dtype.itemsize}")
    return array.view(dtype).reshape(tensor.dims)


def _is_plain(tensor: TensorProto) -> bool:
    """Whether each element is a number in the field of its type."""
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or tensor.HasField("raw_data"):
        return False
    name = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    return not name.startswith(("int4", "uint4", "int2", "uint2", "float4", "float6"))  # some in a byte


def dtype_of(number: int) -> np.dtype[Any]:
    """The dtype that a number of TensorProto.DataType stands for.  Raises ModelError for one that is none."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
    except KeyError:
        raise ModelError(f"{number} is no data type") from None


def _value_info(proto: onnx.ValueInfoProto) -> ValueInfo:
    kind = proto.type.tensor_type
    if not proto.type.HasField("tensor_type") or not kind.elem_type:
        return ValueInfo(proto.name)
    shape = tuple(_dimensions(kind.shape.dim)) if kind.HasField("shape") else None
    return ValueInfo(proto.name, dtype_of(kind.elem_type), shape)


def _dimensions(dims: Iterable[Any]) -> Iterator[int | str | None]:
    for dim in dims:
        yield dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
