"""Weights that others trained, from PyTorch, Keras and TensorFlow.js, as dictionaries of arrays.

`load` looks at a file's contents, not at its name, and gives what `Module.load_state_dict` takes.  Nothing in a file is
executed and no size in it is believed, so one from a stranger can be opened: PyTorch's pickles are run by a machine of
our own that builds tensors and refuses all else by name, and memory stays below four times the file and 64 MiB.
HDF5 is read by its own library, which damaged files can make crash or loop for ever: it runs in a process of its own,
with limits of time and memory, and what happens there is one more reason to refuse a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pycnn.arrays import is_array, to_host
from pycnn.tensor import Tensor
from pycnn.weights.errors import WeightsError
from pycnn.weights.hdf5 import is_hdf5, read_hdf5
from pycnn.weights.nested import flatten, select_part
from pycnn.weights.safetensors import is_safetensors, read_safetensors, write_safetensors
from pycnn.weights.source import Source
from pycnn.weights.tfjs import is_tfjs, read_tfjs
from pycnn.weights.torch_files import is_older_checkpoint, is_tar, is_zip, read_older_checkpoint, read_zip_checkpoint

__all__ = ["WeightsError", "load", "save"]

Array = np.ndarray[Any, Any]

_KINDS = "safetensors, a PyTorch checkpoint, HDF5 or a manifest of TensorFlow.js"


def load(path: str | os.PathLike[str], select: str | None = None, *, convert: bool = True) -> dict[str, Array]:
    """The arrays of a file by name.

    Args:
        path: safetensors; a PyTorch checkpoint (the zip archive, or the pickles from before PyTorch 1.6); an HDF5 file,
            of Keras or of arrays alone; or a manifest or model.json of TensorFlow.js, its shards beside it.
        select: which part of a checkpoint that holds more than a network: a dotted path such as "ema.state_dict"; ""
            for everything, under its full name.  By default the network: of PyTorch's and our own checkpoints what
            lies under "state_dict", "model_state_dict", "model", ... if there is no array outside such parts, without
            the "module." that torch.nn.DataParallel puts before all names; everything of the others.
        convert: give the weights of Keras and TensorFlow.js PyTorch's names and layouts, as the table in
            `pycnn.weights.channels_last` says; otherwise they stay as the file has them.

    Returns:
        Arrays by dotted name, in the file's order, "" if one was saved alone; numbers and strings are left out.  Most
        are views of the mapped file, so they are read-only and must not outlive a change of it;
        `Module.load_state_dict` copies.  Tensors that share a storage share memory.  bfloat16 and 8-bit floats have the
        dtypes of ml_dtypes.

    Raises:
        FileNotFoundError, OSError: no such file, no permission, or a folder, a pipe or a device.
        WeightsError: another kind of file, a damaged or truncated one, a pickle that refers to anything but what builds
            tensors (quantised and sparse ones are not read), no such part, or no arrays.
        ModuleNotFoundError: bfloat16 or an 8-bit float without ml_dtypes, HDF5 without h5py.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = pathlib.Path(folder.name, "net.safetensors")
    >>> save(file, {"weight": np.eye(2, dtype=np.float32)})
    >>> load(file)
    {'weight': array([[1., 0.],
                      [0., 1.]], dtype=float32)}
    """
    source = Source(path)
    if is_safetensors(source):
        arrays = read_safetensors(source)
    elif is_zip(source):
        arrays = flatten(source, read_zip_checkpoint(source))
    elif is_older_checkpoint(source):
        arrays = flatten(source, read_older_checkpoint(source))
    elif is_hdf5(source):
        arrays, select = read_hdf5(source, convert), select or ""  # no training script's names: nothing is left out
    elif is_tfjs(source):
        arrays, select = read_tfjs(source, convert), select or ""
    elif is_tar(source):
        raise source.error("a tar archive, as PyTorch wrote before version 0.1.10", "a newer format: save it again")
    else:
        raise source.error(f"a file that begins with {bytes(source.data[:8])!r}", _KINDS)
    return select_part(source, arrays, select)


def save(path: str | os.PathLike[str], state_dict: Mapping[str, Any]) -> None:
    """Write arrays as safetensors, whole or not at all; `load` and the safetensors package read them.

    Args:
        path: the file; its folder must exist.
        state_dict: arrays or tensors of any device by name, such as `Module.state_dict` gives.

    Raises:
        TypeError: a value that is no array, or a name that is no string.
        WeightsError: a dtype that the format lacks.
        OSError: no folder, no permission, a full disk; an older file of that name is then untouched.
    """
    arrays = {}
    for name, value in state_dict.items():
        array = value.detach().data if isinstance(value, Tensor) else value
        if not isinstance(name, str) or not is_array(array):
            raise TypeError(f"state_dict must map strings to arrays, got {name!r}: {type(value).__name__}")
        arrays[name] = to_host(array)
    write_safetensors(path, arrays)
