"""Compiled networks in files: one safetensors file, the graph as JSON in its header and the weights in plain layout.

What depends on the machine is not in it: vector width, algorithms and memory are planned anew where it is loaded.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import _archive
from pycnn.compiler.graph import Graph, Node, Value, leaves_of
from pycnn.compiler.weights import Weight

if TYPE_CHECKING:
    from pycnn.compiler.model import CompiledModel

__all__ = ["CompiledFileError", "load_compiled", "save"]

FORMAT = "pycnn-compiled-2"


class CompiledFileError(ValueError):
    """A compiled network that cannot be written or read; the message names the file and the reason."""


def save(path: str | os.PathLike[str], graph: Graph, accuracy: str) -> None:
    """See `CompiledModel.save`."""
    from pycnn import __version__

    number = graph.numbers()
    arrays = {
        f"{i}.{name}": np.asarray(array) for i, node in enumerate(graph.nodes) for name, array in node.constants.items()
    }
    header = {
        "format": FORMAT,
        "pycnn": __version__,
        "accuracy": accuracy,
        "inputs": [value.shape for value in graph.inputs],
        "nodes": [
            {
                "op": node.op,
                "inputs": [number[value] for value in node.inputs],
                "settings": node.settings,
                "constants": list(node.constants),
                "name": node.name,
                "shape": node.output.shape,
            }
            for node in graph.nodes
        ],
        "outputs": [number[value] for value in graph.outputs],
        "structure": graph.structure,
    }
    try:
        _archive.write(path, header, arrays)
    except _archive.ArchiveError as error:
        raise CompiledFileError(f"cannot write the compiled network {path}: {error}") from None


def load_compiled(path: str | os.PathLike[str]) -> CompiledModel:
    """Read a network that `CompiledModel.save` wrote.  The Python model is not needed.

    Everything in the file is checked: the checksum, each operation with its settings and the shapes that follow from
    them.  Nothing is unpickled, so a file from a stranger can be opened.  The weights are read when they are packed, at
    the first call; until then the file must not be written to, though it may be removed.

    Args:
        path: the file.

    Raises:
        CompiledFileError: a file that is missing, truncated, damaged, of another version or no compiled network.
        ImportError: safetensors is not installed.

    >>> import pathlib, tempfile
    >>> import numpy as np, pycnn
    >>> folder, x = tempfile.TemporaryDirectory(), np.zeros((1, 1, 28, 28), np.float32)
    >>> file = pathlib.Path(folder.name, "lenet5.pycnn")
    >>> fast = pycnn.compile(pycnn.models.lenet5(), x)
    >>> fast.save(file)
    >>> bool((pycnn.load_compiled(file)(x) == fast(x)).all())
    True
    """
    from pycnn.compiler.model import CompiledModel

    try:
        header, arrays = _archive.stored(path, FORMAT)
        return CompiledModel(_graph(header, arrays), header["accuracy"])
    except OSError as error:
        raise CompiledFileError(f"cannot read the compiled network {path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CompiledFileError(f"{path} is no compiled network of pycnn: {error}") from None


def _graph(header: dict[str, Any], arrays: dict[str, _archive.Stored]) -> Graph:
    """The graph that a header describes; whatever is wrong with it raises."""
    inputs = [Value(_sizes(shape)) for shape in header["inputs"]]
    values, nodes = list(inputs), []
    for i, entry in enumerate(header["nodes"]):
        constants = {name: _constant(name, arrays.pop(f"{i}.{name}")) for name in entry["constants"]}
        settings = {name: _tuples(setting) for name, setting in entry["settings"].items()}
        given = tuple([values[_index(number, values)] for number in entry["inputs"]])
        node = Node(entry["op"], given, settings, constants, str(entry["name"]), Value(_sizes(entry["shape"])))
        nodes.append(node)
        values.append(node.output)
    if arrays:
        raise ValueError(f"it holds arrays that nothing uses: {', '.join(sorted(arrays)[:3])}")
    outputs = [values[_index(number, values)] for number in header["outputs"]]
    structure = header["structure"]
    if not inputs or list(leaves_of(_checked(structure))) != list(range(len(outputs))) or not outputs:
        raise ValueError("its inputs or outputs are not whole")
    return Graph(inputs, nodes, outputs, structure)


def _constant(name: str, array: _archive.Stored) -> Any:
    """The layers' large weights stay in the file until they are packed."""
    return Weight(array.shape, array.rows) if name == "w" else array.rows(0, array.shape[0])


def _sizes(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= 2**40 for size in shape):
        raise ValueError(f"{shape!r:.60} is no shape")
    return tuple(shape)


def _index(number: Any, values: list[Value]) -> int:
    if type(number) is not int or not 0 <= number < len(values):
        raise ValueError(f"there is no value {number!r:.60} at that place")
    return number


def _tuples(setting: Any) -> Any:
    return tuple(map(_tuples, setting)) if isinstance(setting, list) else setting


def _checked(structure: Any) -> Any:
    """A structure as `Graph` has it, or ValueError."""
    if structure is None or type(structure) is int:
        return structure
    kind, parts = structure
    if kind == "dict" and isinstance(parts, dict):
        parts = list(parts.values())
    elif kind not in ("tuple", "list") or not isinstance(parts, list):
        raise ValueError(f"{kind!r:.60} is no kind of result")
    for part in parts:
        _checked(part)
    return structure
