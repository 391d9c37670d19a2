"""The half of the HDF5 reader that runs in a process of its own: whatever the HDF5 library does happens here.

`pycnn.weights.hdf5` runs this file as a script, so it imports nothing of pycnn.  Its arguments are the file, how many
seconds of processor time and how many bytes of memory the file may take, and the parent's sys.path as JSON.  It writes
lines of JSON to standard output:

    ["ready"]                               h5py is imported: from here on it is the file that takes time
    ["array", path, dtype, shape, offset]   an array; an offset of null says that its bytes follow in pieces, any other
                                            that they lie there in the file, where the parent takes them itself
    ["bytes", count]                        a piece of them, behind the line
    ["error", found, expected]              the file is refused
    ["end", listed]                         that was all; whether Keras' lists say what there is
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

Path = tuple[str, ...]

_DEEPEST = 64
_OPTIMISERS = {"optimizer", "optimizer_weights"}
_PIECE = 1 << 20  # bytes that are read at a time, or whole chunks
# What h5py raises over damaged files, in any of its calls.
_DAMAGE = (OSError, KeyError, IndexError, RuntimeError, ValueError, TypeError, AttributeError, ArithmeticError)


class Refused(Exception):
    """What was found, and what was expected."""


def main(path: str, seconds: str, memory: str, search: str) -> None:
    """Read a file, all imports first, for they are not its doing."""
    sys.path[:] = json.loads(search)
    import h5py

    limit(int(seconds), int(memory))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a crash is told by the exit status
    out = sys.stdout.buffer
    _line(out, ["ready"])
    out.flush()
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            listed = "layer_names" in root.attrs or "layer_names0" in root.attrs
            for place, item in _listed(root) if listed else _walk(file, ()):
                _write(out, place, item)
        record: list[Any] = ["end", listed]
    except Refused as error:
        record = ["error", *error.args]
    except MemoryError:
        record = ["error", "contents that need far more memory than the file is long", "weights"]
    except _DAMAGE as error:
        record = ["error", f"a damaged HDF5 file ({' '.join(str(error).split())[:200]})", "a whole one"]
    _line(out, record)
    out.flush()


def limit(seconds: int, memory: int) -> None:
    """Have the system end this process after so much more processor time, and refuse it more memory than that."""
    try:
        import resource
    except ModuleNotFoundError:  # no Unix: the parent's clock is the only limit
        return
    seconds += 1 + int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if os.path.exists("/proc/self/statm"):  # Linux: the sixth number is what RLIMIT_DATA counts
        with open("/proc/self/statm") as pages:
            memory += int(pages.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _listed(root: Any) -> Iterator[tuple[Path, Any]]:
    """Keras 1 and 2: layers and variables by the lists in the attributes."""
    for layer in _strings(root, "layer_names"):
        group = _member(root, layer)
        for variable in _strings(group, "weight_names"):
            parts = [part for part in variable.split(":")[0].split("/") if part]
            while len(parts) > 1 and parts[0] == layer:
                parts = parts[1:]
            yield (layer, *parts), _member(group, variable)


def _strings(group: Any, name: str) -> list[str]:
    """A list of strings, in one attribute or, if it is long, in numbered ones."""
    names = [name] if name in group.attrs else [f"{name}{i}" for i in range(len(group.attrs))]
    texts = [text for one in names if one in group.attrs for text in group.attrs[one]]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _member(group: Any, names: str) -> Any:
    """What lies below a group under names joined by slashes, in this file."""
    import h5py

    for name in names.split("/"):
        if not isinstance(group, h5py.Group) or name not in group:
            raise Refused(f"no {names[:80]!r}, which a list of layers or weights names", "all that are listed")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Refused(f"{names[:80]!r}, a link to elsewhere", "arrays in this file")
        group = group[name]
    return group


def _walk(group: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every array below a group, optimisers left out; numbers in names are sorted by value."""
    import h5py

    if len(path) > _DEEPEST:
        raise Refused(f"groups more than {_DEEPEST} deep", "layers")
    for name in sorted(group, key=_natural):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"{'/'.join((*path, name))[:80]!r}, a link to elsewhere", "arrays in this file")
        item = group[name]
        if not isinstance(item, h5py.Group):
            yield (*path, name), item
        elif name not in _OPTIMISERS:
            yield from _walk(item, (*path, name))


def _natural(name: str) -> list[str]:
    return [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _write(out: IO[bytes], path: Path, item: Any) -> None:
    """An array's line, and its bytes unless they lie in the file as NumPy would have them."""
    import h5py
    import numpy as np

    if (
        not isinstance(item, h5py.Dataset)
        or item.shape is None
        or item.dtype.kind not in "fiubc"
        or item.is_virtual
        or item.external
    ):
        raise Refused(f"{'/'.join(path)[:80]!r}, which is no array of numbers in this file", "one")
    shape, size = [int(length) for length in item.shape], item.dtype.itemsize
    if math.prod(max(length, 1) for length in shape) >= 1 << 48:
        raise Refused(f"{'/'.join(path)[:80]!r} of shape {shape[:8]}", "a size that fits a file")
    offset, whole = item.id.get_offset(), item.id.get_storage_size() == math.prod(shape) * size
    plain = whole and item.id.get_type() == h5py.h5t.py_create(item.dtype)
    _line(out, ["array", path, item.dtype.str, shape, offset if plain else None])
    if plain and offset is not None:
        return
    if not shape:
        _piece(out, np.ascontiguousarray(item[()]).data)
    elif math.prod(shape):
        rows = item.chunks[0] if item.chunks else 1
        rows *= max(1, _PIECE // (rows * math.prod(shape[1:]) * size))
        for first in range(0, shape[0], rows):
            _piece(out, np.ascontiguousarray(item[first : first + rows]).data)


def _piece(out: IO[bytes], bytes_: memoryview) -> None:
    """Bytes of an array, once they have been read: an error takes the place of the line."""
    _line(out, ["bytes", bytes_.nbytes])
    out.write(bytes_)


def _line(out: IO[bytes], record: list[Any]) -> None:
    out.write(json.dumps(record).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
