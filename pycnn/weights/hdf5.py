"""Keras' HDF5 files, of all its versions, and HDF5 files of arrays alone.

Keras 1 and 2 list their layers in an attribute and name each variable; Keras 3 has a group for each layer and numbers
the variables, so that their names follow from the layer's class, which is the group's name, and from their shapes.

h5py reads the file.  Damage that the HDF5 library reports is refused; over some that it does not see it never returns
(seen with HDF5 2.0 and a changed byte in an attribute).  What a sound file could do, refer to other files or claim a
size of a million times its own, is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn.weights.channels_last import convert
from pycnn.weights.errors import WeightsError
from pycnn.weights.source import Source, brief

__all__ = ["is_hdf5", "read_hdf5"]

Array = np.ndarray[Any, Any]
Path = tuple[str, ...]

_DEEPEST = 64
_OPTIMISERS = {"optimizer", "optimizer_weights"}
_VARIABLES = "vars"  # Keras 3's group of a layer's variables


def is_hdf5(source: Source) -> bool:
    """Whether the first bytes are HDF5's."""
    return bytes(source.data[:8]) == b"\x89HDF\r\n\x1a\n"


def read_hdf5(source: Source, converted: bool) -> dict[Path, Array]:
    """The arrays by the path of their layer and their name.

    Args:
        source: the file.
        converted: give a Keras file's arrays PyTorch's names and layouts (see `channels_last`).

    Raises:
        WeightsError: a damaged file, links to other files, arrays of other things than numbers.
        ModuleNotFoundError: h5py is not installed.
    """
    with extra("weights", "h5py"):
        import h5py
    try:
        with h5py.File(source.path, "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs or "layer_names0" in root.attrs:
                found = dict(_listed(source, root))
            else:
                found = dict(_walk(source, file, ()))
                if not any(_VARIABLES in path[:-1] for path in found):
                    return found
                found = _named(found)
    except WeightsError:
        raise
    # What h5py raises over damaged files.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise source.error(f"a damaged HDF5 file ({' '.join(str(error).split())[:200]})", "a whole one") from None
    return convert(found) if converted else found


def _listed(source: Source, root: Any) -> Iterator[tuple[Path, Array]]:
    """Keras 1 and 2: layers and variables by the lists in the attributes."""
    for layer in _strings(root, "layer_names"):
        for variable in _strings(root[layer], "weight_names"):
            parts = [part for part in variable.split(":")[0].split("/") if part]
            while len(parts) > 1 and parts[0] == layer:
                parts = parts[1:]
            yield (layer, *parts), _read(source, root[layer][variable], f"{layer}/{variable}")


def _strings(group: Any, name: str) -> list[str]:
    """A list of strings, in one attribute or, if it is long, in numbered ones."""
    names = [name] if name in group.attrs else [f"{name}{i}" for i in range(len(group.attrs))]
    texts = [text for one in names if one in group.attrs for text in group.attrs[one]]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _walk(source: Source, group: Any, path: Path) -> Iterator[tuple[Path, Array]]:
    """Every array below a group, optimisers left out; numbers in names are sorted by value."""
    import h5py

    if len(path) > _DEEPEST:
        raise source.error(f"groups more than {_DEEPEST} deep", "layers")
    for name in sorted(group, key=_natural):
        source.spend(1000)
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise source.error(f"{brief('/'.join((*path, name)))}, a link to elsewhere", "arrays in this file")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield (*path, name), _read(source, item, "/".join((*path, name)))
        elif name not in _OPTIMISERS:
            yield from _walk(source, item, (*path, name))


def _natural(name: str) -> list[str]:
    return [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read(source: Source, item: Any, name: str) -> Array:
    import h5py

    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiubc" or item.is_virtual or item.external:
        raise source.error(f"{brief(name)}, which is no array of numbers in this file", "one")
    source.spend(item.nbytes + item.nbytes // 2)  # once as it is and, for a moment, once turned
    array: Array = item[()] if item.shape else np.asarray(item[()])
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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
