"""Checkpoints: one safetensors file that holds all a run needs to go on bit for bit.

The arrays (model, optimiser) are the file's tensors; everything else is JSON in its header: scheduler, epoch and step,
position in the data order, random state, instruction set, backend and tuning tables, and whatever the caller adds.
Which algorithm ``auto`` takes follows from the shapes, the instruction set, the tables (`pycnn.tuning`) and pycnn's
version, so `restore` puts set and tables right and warns if the others differ.  Nothing in it is pickled, so a file
from a stranger can be opened.

A file is written under a temporary name beside its place, flushed to the disk and renamed: whoever reads the name finds
the old checkpoint or the new one, whole, even if the process is killed or the disk fills up meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pycnn import __version__, _archive, backends, machine, random, tuning
from pycnn.arrays import is_array, to_host
from pycnn.tensor import Tensor

__all__ = ["Checkpoint", "CheckpointError", "load", "restore", "save"]

FORMAT = "pycnn-checkpoint-1"
_ARRAY = "pycnn array"  # the one key of what stands in the header for an array


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message names the file and the reason."""


class Stateful(Protocol):
    """What can be saved: a module, an optimiser, a schedule, a loader."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass
class Checkpoint:
    """What `load` read.

    Attributes:
        parts: state_dict by the name that `save` was given it under: "model", "optimizer", ...
        random_state: of `pycnn.random`.
        environment: pycnn's version, instruction set and backend of the run that saved, and what it added.
        extra: the caller's own values: epoch, step, seed, history, ...
        tables: by which ``auto`` chose in that run.
    """

    parts: dict[str, Any]
    random_state: tuple[int, int]
    environment: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    tables: list[tuning.Table] = field(default_factory=list)


def save(
    path: str | os.PathLike[str],
    parts: Mapping[str, Stateful],
    extra: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file; its folder must exist.
        parts: whatever has a `state_dict`, by name: model, optimizer, scheduler, loader, ...
        extra: more that JSON can hold: epoch, step, history, ...
        environment: more to know about where the run takes place; pycnn's version, instruction set and backend are
            always there.

    Raises:
        CheckpointError: a file that cannot be written (no folder, no permission, a full disk); an older file of that
            name is then untouched and no temporary file is left.
        TypeError: a value that is neither array nor JSON.
        ImportError: safetensors is not installed.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> import pycnn
    >>> file, net = pathlib.Path(folder.name, "run.safetensors"), pycnn.nn.Linear(2, 1)
    >>> save(file, {"model": net}, extra={"epoch": 3})
    >>> load(file).extra
    {'epoch': 3}
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    header = {
        "format": FORMAT,
        "parts": {name: _pack(part.state_dict(), name, arrays) for name, part in parts.items()},
        "random_state": list(random.get_state()),
        "environment": {**_environment(), **(environment or {})},
        "tables": [table.as_dict() for table in tuning.all_in_force()],
        "extra": dict(extra or {}),
    }
    try:
        _archive.write(path, header, arrays)
    except _archive.ArchiveError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from None


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read and verify a checkpoint; nothing is changed.

    Raises:
        CheckpointError: a file that is missing, truncated, corrupt or no checkpoint of pycnn.
        ImportError: safetensors is not installed.

    Args:
        path: the file.
    """
    try:
        header, arrays = _archive.read(path, FORMAT)
        return Checkpoint(
            {name: _unpack(packed, arrays) for name, packed in header["parts"].items()},
            (header["random_state"][0], header["random_state"][1]),
            header["environment"],
            header["extra"],
            [tuning.Table.from_dict(values, str(path)) for values in header.get("tables", ())],
        )
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is no whole checkpoint of pycnn: {error}") from None


def restore(path: str | os.PathLike[str], parts: Mapping[str, Stateful]) -> Checkpoint:
    """`load`, then give every part its state, `pycnn.random` its position, the engine its instruction set and tables.

    Warns where this run cannot be the same to the bit: an instruction set that this machine lacks, another backend or
    another version of pycnn.

    Raises:
        CheckpointError: as `load`; also a part that the file does not hold.
        RuntimeError, ValueError: a state that does not fit its part, as its `load_state_dict` raises them.

    Args:
        path: the file.
        parts: what to set, by the names that `save` was given.

    Returns:
        what `load` read.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> import pycnn
    >>> file, net = pathlib.Path(folder.name, "run.safetensors"), pycnn.nn.Linear(2, 1)
    >>> save(file, {"model": net})
    >>> other = pycnn.nn.Linear(2, 1)
    >>> _ = restore(file, {"model": other})
    >>> bool((other.weight == net.weight).all())
    True
    """
    checkpoint = load(path)
    absent = [name for name in parts if name not in checkpoint.parts]
    if absent:
        raise CheckpointError(
            f"{path} does not hold {', '.join(absent)}; it holds {', '.join(checkpoint.parts) or 'nothing'}"
        )
    for name, part in parts.items():
        part.load_state_dict(checkpoint.parts[name])
    random.set_state(checkpoint.random_state)
    tuning.adopt(checkpoint.tables)
    _same_environment(path, checkpoint.environment)
    return checkpoint


def _environment() -> dict[str, str]:
    return {"pycnn": __version__, "isa": machine.get_isa(), "backend": backends.selected() or "auto"}


def _same_environment(path: str | os.PathLike[str], saved: Mapping[str, Any]) -> None:
    with contextlib.suppress(ValueError, KeyError):  # what cannot be set is found to differ below
        machine.set_isa(saved["isa"])
    other = [
        f"{name} {saved.get(name)} (now {value})" for name, value in _environment().items() if saved.get(name) != value
    ]
    if other:
        warnings.warn(f"{path} was saved with {', '.join(other)}: results will differ in rounding", stacklevel=3)


def _pack(value: Any, name: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """`value` as JSON, its arrays taken out into `arrays` under their path."""
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    if is_array(value):
        if name in arrays:
            raise TypeError(f"two arrays of a checkpoint have the name {name}")
        arrays[name] = np.ascontiguousarray(to_host(value)).reshape(value.shape)
        return {_ARRAY: name}
    if isinstance(value, Mapping):
        return {str(key): _pack(item, f"{name}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds arrays, numbers, strings, lists and dicts; {name} is {type(value).__name__}")


def _unpack(packed: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(packed, dict):
        if packed.keys() == {_ARRAY}:
            return arrays[packed[_ARRAY]]
        return {key: _unpack(item, arrays) for key, item in packed.items()}
    if isinstance(packed, list):
        return [_unpack(item, arrays) for item in packed]
    return packed
