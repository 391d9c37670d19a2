"""Arrays of a nested checkpoint by name: which part of it is meant, and what is left out of the names."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.weights.numpy_values import ArrayValue
from pycnn.weights.source import Source, brief
from pycnn.weights.torch_values import TensorValue

__all__ = ["NETWORKS", "flatten", "select_part"]

Array = np.ndarray[Any, Any]

# Under these names training scripts keep the network beside its optimiser; the first that is there counts.
NETWORKS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_PARALLEL = "module."  # what torch.nn.DataParallel puts before every name
_DEEPEST = 64


def flatten(source: Source, value: Any) -> dict[tuple[str, ...], Array]:
    """Every array in dicts, lists and tuples, by its path; numbers and strings are left out.

    Raises:
        WeightsError: no array at all, containers that contain themselves, or two paths that read alike.
    """
    found: dict[tuple[str, ...], Array] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, (TensorValue, ArrayValue)):
            source.spend(400)
            if path in found:
                raise source.error(f"two arrays named {brief('.'.join(path))}", "one")
            found[path] = item.array()
        elif isinstance(item, (dict, list, tuple)):
            if len(path) >= _DEEPEST:
                raise source.error(f"containers more than {_DEEPEST} deep", "dicts and lists of arrays")
            source.spend((150 + 8 * len(path)) * len(item))
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            waiting += reversed([((*path, str(key)), inner) for key, inner in pairs])
    return found


def select_part(source: Source, arrays: dict[tuple[str, ...], Array], select: str | None) -> dict[str, Array]:
    """The arrays of one part, by dotted names.

    Args:
        source: the file, for errors.
        arrays: all, by path.
        select: the dotted path of a part; "" for everything under its full name; None for the network: the part under
            one of `NETWORKS` unless there are arrays outside all parts, then without a "module." that all names share.

    Raises:
        WeightsError: no array, no such part, or two arrays with one name.
    """
    if select is None:
        while not any(len(path) <= 1 for path in arrays):
            part = next((name for name in NETWORKS if any(path[0] == name for path in arrays)), None)
            if part is None:
                break
            arrays = {path[1:]: array for path, array in arrays.items() if path[0] == part}
    elif select:
        parts = dict.fromkeys(path[:depth] for path in arrays for depth in range(1, len(path)))
        under = next((path for path in parts if ".".join(path) == select), None)
        if under is None:
            there = ", ".join(".".join(path) for path in list(parts)[:8]) or "arrays alone"
            raise source.error(there, f"a part {brief(select)}, as select says")
        arrays = {path[len(under) :]: array for path, array in arrays.items() if path[: len(under)] == under}
    named = {".".join(path): array for path, array in arrays.items()}
    if len(named) != len(arrays):
        raise source.error("two arrays whose dotted names are the same", "a name for each")
    if not named:
        raise source.error("no array", "weights")
    if select is None and all(name.startswith(_PARALLEL) for name in named):
        named = {name.removeprefix(_PARALLEL): array for name, array in named.items()}
    return named
