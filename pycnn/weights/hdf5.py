"""Keras' HDF5 files, of all its versions, and HDF5 files of arrays alone.

Keras 1 and 2 list their layers in an attribute and name each variable; Keras 3 has a group for each layer and numbers
the variables, so that their names follow from the layer's class, which is the group's name, and from their shapes.

The HDF5 library crashes or never returns over some damaged files, so it runs in a process of its own (`hdf5_child`)
with a limit of time and memory.  Most arrays lie in the file as NumPy has them: that process only says where, and they
are views of the mapped file; compressed ones come through a pipe.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import IO, Any

import numpy as np

from pycnn._extras import extra
from pycnn.weights import hdf5_child
from pycnn.weights.channels_last import convert
from pycnn.weights.source import Source, brief

__all__ = ["is_hdf5", "read_hdf5"]

Array = np.ndarray[Any, Any]
Path = tuple[str, ...]

_VARIABLES = "vars"  # Keras 3's group of a layer's variables
# The other process: processor time, which a busy machine does not use up, and a clock in case it waits for ever.
_SECONDS, _BYTES_A_SECOND, _CLOCK = 2, 2 << 20, 10
_MEMORY = 24 << 20  # beside the file's size, which it may read whole; this comes off what the reader may use
_LONGEST_LINE = 1 << 20
_ALONE = {"OPENBLAS_NUM_THREADS": "1"}  # importing NumPy would start a thread for each processor


def is_hdf5(source: Source) -> bool:
    """Whether the first bytes are HDF5's."""
    return bytes(source.data[:8]) == b"\x89HDF\r\n\x1a\n"


def read_hdf5(source: Source, converted: bool) -> dict[Path, Array]:
    """The arrays by the path of their layer and their name.

    Args:
        source: the file.
        converted: give a Keras file's arrays PyTorch's names and layouts (see `channels_last`).

    Raises:
        WeightsError: a damaged file, links to other files, arrays of other things than numbers, a file over which the
            HDF5 library crashes, or takes longer than 2 s and another for each 2 MiB.
        ModuleNotFoundError: h5py is not installed.
    """
    with extra("weights", "h5py"):
        if importlib.util.find_spec("h5py") is None:
            raise ModuleNotFoundError(name="h5py")
    found, listed = _read(source)
    if not listed:
        if not any(_VARIABLES in path[:-1] for path in found):
            return found
        found = _named(found)
    return convert(found) if converted else found


def _read(source: Source) -> tuple[dict[Path, Array], bool]:
    """The arrays as the file has them, and whether Keras' lists named them."""
    found: dict[Path, Array] = {}
    source.spend(_MEMORY)
    with _child(source) as pipe:
        while (record := _record(source, pipe))[0] == "array":
            path, dtype, shape, offset = record[1:]
            found[tuple(path)] = _array(source, pipe, "/".join(path), np.dtype(dtype), shape, offset)
    return found, bool(record[1])


def _record(source: Source, pipe: IO[bytes]) -> list[Any]:
    """A line of the other process.  Raises WeightsError where it refuses the file, EOFError where it has ended."""
    line = pipe.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise source.error(f"names of more than {_LONGEST_LINE >> 20} MiB", "names of layers")
    if not line.endswith(b"\n"):
        raise EOFError
    source.spend(4 * len(line) + 1000)
    record: list[Any] = json.loads(line)
    if record[0] == "error":
        raise source.error(*record[1:])
    return record


def _array(
    source: Source, pipe: IO[bytes], name: str, dtype: np.dtype[Any], shape: list[int], offset: int | None
) -> Array:
    """One array, from the mapped file or, without an offset, from the pipe, in this machine's order of bytes."""
    count = prod(shape) * dtype.itemsize
    source.spend(count if offset is not None else count + count // 2)  # what turning it takes, or it and a part turned
    if offset is not None:
        array = source.array(offset, dtype, shape, brief(name))
    else:
        array = np.empty(shape, dtype)
        bytes_, at = array.reshape(-1).view(np.uint8), 0
        while at < count:
            part = bytes_[at : at + _record(source, pipe)[1]]
            if pipe.readinto(part.data) < part.size:  # type: ignore[attr-defined]  # of every buffered reader
                raise EOFError
            at += part.size
        if dtype == np.bool_ and count and bytes_.max() > 1:
            raise source.error(f"truth values of {brief(name)} with a byte above 1", "bytes 0 and 1")
    return array.astype(dtype.newbyteorder("="), copy=False)


@contextmanager
def _child(source: Source) -> Iterator[IO[bytes]]:
    """The standard output of a process that reads the file, and that is gone after the ``with`` block.

    Raises:
        WeightsError: the block raised EOFError, because the process ended before it was done.
        ImportError, OSError: h5py could not be imported there, or no process be started.
    """
    seconds = _SECONDS + len(source) // _BYTES_A_SECOND
    limits = str(seconds), str(_MEMORY + len(source)), json.dumps(list(map(str, sys.path)))
    # -S -P: sys.path is ours, and neither site's nor the folder of the script, whose modules are not what they seem.
    command = [sys.executable, "-S", "-P", hdf5_child.__file__, os.path.abspath(source.path), *limits]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=os.environ | _ALONE)
    clock = threading.Timer(_CLOCK * seconds, child.kill)
    assert child.stdout is not None
    try:
        if not child.stdout.readline():
            raise ImportError(f"h5py cannot be imported by {sys.executable}, which ends with status {child.wait()}")
        clock.start()
        yield child.stdout
    except EOFError:
        status = child.wait()
        late = status in (-signal.SIGKILL, -signal.SIGXCPU)
        why = f"takes more than {seconds} s" if late else f"ends it with status {status}"
        raise source.error(f"a damaged HDF5 file (reading it {why})", "a whole one") from None
    finally:
        clock.cancel()
        child.kill()
        child.wait()
        child.stdout.close()


def _named(numbered: dict[Path, Array]) -> dict[Path, Array]:
    """Keras 3: the variables of each layer by their names, or by number where these cannot be told."""
    layers: dict[Path, list[Array]] = {}
    for path, array in numbered.items():
        layers.setdefault(path[:-1], []).append(array)
    found: dict[Path, Array] = {}
    for path, arrays in layers.items():
        layer = path[:-1] if path[-1] == _VARIABLES else path
        names = _names(layer[-1] if layer else "", arrays)
        found |= {(*layer, name): array for name, array in zip(names, arrays, strict=True)}
    return found


def _names(layer: str, arrays: Sequence[Array]) -> Sequence[str]:
    """What Keras calls the variables of a layer of this class with these shapes."""
    count, first = len(arrays), arrays[0]
    vectors = all(array.ndim == 1 for array in arrays)
    if vectors and len({array.shape for array in arrays}) == 1 and count in (2, 4):
        batch = layer.startswith("batch_norm")
        statistics = ("moving_mean", "moving_variance")
        return ("gamma", "beta", *statistics) if count == 4 else statistics if batch else ("gamma", "beta")
    if layer.startswith("separable") and count in (2, 3):
        return ("depthwise_kernel", "pointwise_kernel", "bias")[:count]
    if layer.startswith("p_re_lu") and count == 1:
        return ("alpha",)
    if first.ndim >= 2 and count <= 2 and all(array.ndim == 1 for array in arrays[1:]):
        # A depthwise kernel (R, S, C, M) and a plain one (R, S, C, K) differ in how many biases they need.
        depthwise = layer.startswith("depthwise") or (
            count == 2 and first.ndim == 4 and len(arrays[1]) == first.shape[2] * first.shape[3] != first.shape[3]
        )
        return ("depthwise_kernel" if depthwise else "kernel", "bias")[:count]
    return [str(i) for i in range(count)]
