"""TensorFlow.js: a manifest in JSON, and the weights in shards beside it, often quantised to one or two bytes each.

Reference: tfjs-core 4.22, src/io/io_utils.ts (`decodeWeights`); tfjs-converter, python/tensorflowjs/quantization.py.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from pycnn.weights.channels_last import convert
from pycnn.weights.source import MAX_RANK, Source, brief

__all__ = ["is_tfjs", "read_tfjs"]

Array = np.ndarray[Any, Any]

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "complex64": "<c8", "uint8": "u1", "float16": "<f2"}
_QUANTISED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}
_PIECE = 1 << 20  # numbers that are widened at a time


def is_tfjs(source: Source) -> bool:
    """Whether the first character is one of JSON's brackets."""
    return bytes(source.data[:64]).lstrip()[:1] in (b"[", b"{")


def read_tfjs(source: Source, converted: bool) -> dict[tuple[str, ...], Array]:
    """The arrays by the parts of their names.

    Args:
        source: a weights manifest, or a model.json that contains one; the shards lie in the same folder.
        converted: give them PyTorch's names and layouts (see `channels_last`).

    Raises:
        WeightsError: JSON that is no manifest, a shard that is not in the folder or too short, an unknown dtype.
        FileNotFoundError: a shard is missing.
    """
    text = bytes(source.data)
    source.spend(4 * len(text) + 100 * (text.count(b"{") + text.count(b"[")) + 60 * text.count(b","))
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise source.error(f"no JSON ({error})", "a manifest of TensorFlow.js") from None
    if isinstance(manifest, dict):
        manifest = manifest.get("weightsManifest")
    if not isinstance(manifest, list) or not all(isinstance(group, dict) for group in manifest):
        raise source.error("JSON without a weightsManifest", "a manifest of TensorFlow.js")
    found: dict[tuple[str, ...], Array] = {}
    opened: set[str] = set()
    for group in manifest:
        for name, array in _group(source, group, opened):
            path = tuple(name.split("/"))
            if path in found:
                raise source.error(f"two arrays named {brief(name)}", "one")
            found[path] = array
    return convert(found) if converted else found


class _Shards:
    """The files of a group, one after the other."""

    def __init__(self, source: Source, names: Any, opened: set[str]) -> None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise source.error(f"the paths {brief(names)}", "a list of file names")
        folder = os.path.dirname(os.fspath(source.path))
        for name in names:
            if name in opened:
                raise source.error(f"the shard {brief(name)} twice", "each once")
            opened.add(name)
            if os.path.basename(name) != name or name in ("", ".", "..") or not name.isprintable():
                raise source.error(f"a shard at {brief(name)}", "files in the manifest's own folder")
        self._source = source
        self._files = [Source(os.path.join(folder, name)) for name in names]
        for file in self._files:
            source.take_in(file)
        self._at = 0
        self._size = sum(len(file) for file in self._files)

    def take(self, count: int, name: str) -> memoryview:
        """The next `count` bytes, which belong to weight `name`."""
        if self._at + count > self._size:
            raise self._source.error(
                f"shards of {self._size:,} bytes", f"{self._at + count:,} up to the end of {brief(name)}"
            )
        parts, at, left = [], self._at, count
        for file in self._files:
            part = file.data[at : at + left] if at < len(file) else file.data[:0]
            at, left = max(0, at - len(file)), left - len(part)
            if part:
                parts.append(part)
        self._at += count
        if len(parts) == 1:
            return parts[0]
        self._source.spend(count)
        return memoryview(b"".join(parts))

    def end(self) -> None:
        """Raise WeightsError unless everything was taken; what was looked at need not stay in memory."""
        if self._at != self._size:
            raise self._source.error(f"shards of {self._size:,} bytes", f"{self._at:,}, as the weights add up")
        for file in self._files:
            file.release()


def _group(source: Source, group: dict[str, Any], opened: set[str]) -> Iterator[tuple[str, Array]]:
    """The arrays of a group; `opened` are the shards of all groups so far."""
    shards, entries = _Shards(source, group.get("paths"), opened), group.get("weights")
    if not isinstance(entries, list):
        raise source.error(f"the weights {brief(entries)}", "a list")
    for entry in entries:
        name, shape, dtype = (entry.get(key) if isinstance(entry, dict) else None for key in ("name", "shape", "dtype"))
        sizes = shape if isinstance(shape, list) and len(shape) <= MAX_RANK else [-1]
        good = (
            all(type(size) is int and size >= 0 for size in sizes)
            and math.prod(max(size, 1) for size in sizes) < 1 << 48
        )
        if not isinstance(name, str) or not good:
            raise source.error(f"a weight {brief(name)} of shape {brief(shape)}", "a name and a list of sizes")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise source.error(f"{brief(name)} of dtype {brief(dtype)}", f"one of {', '.join(_DTYPES)}")
        quantisation = entry.get("quantization")
        stored = quantisation.get("dtype") if isinstance(quantisation, dict) else None
        if quantisation is not None and (stored not in _QUANTISED or dtype not in ("float32", "int32")):
            raise source.error(
                f"{brief(name)} of {dtype} quantised to {brief(stored)}", f"float32 or int32 to {', '.join(_QUANTISED)}"
            )
        kind = np.dtype(_DTYPES[dtype] if quantisation is None else _QUANTISED[str(stored)])
        count = math.prod(sizes)
        data = shards.take(count * kind.itemsize, name)
        numbers = np.frombuffer(data, kind, count)
        if kind == np.bool_ and count and numbers.view(np.uint8).max() > 1:
            raise source.error(f"truth values of {brief(name)} with a byte above 1", "bytes 0 and 1")
        if quantisation is not None:
            source.spend(count * np.dtype(_DTYPES[dtype]).itemsize - len(data))  # without the pages, which are released
            numbers = _widened(source, name, numbers, np.dtype(_DTYPES[dtype]), quantisation)
        yield name, numbers.reshape(sizes)
    shards.end()


def _widened(source: Source, name: str, stored: Array, dtype: np.dtype[Any], quantisation: dict[str, Any]) -> Array:
    """``scale * q + min``, computed in float64 and rounded once, as JavaScript does; float16 is only widened."""
    scale, least = (1.0, 0.0) if stored.dtype.kind == "f" else (quantisation.get("scale"), quantisation.get("min"))
    if not all(isinstance(number, (int, float)) and abs(number) <= sys.float_info.max for number in (scale, least)):
        raise source.error(f"{brief(name)} quantised with scale {brief(scale)} and min {brief(least)}", "two numbers")
    values = np.empty(stored.size, dtype)
    for at in range(0, stored.size, _PIECE):
        exact = stored[at : at + _PIECE] * np.float64(scale) + np.float64(least)
        with np.errstate(over="ignore", invalid="ignore"):  # an absurd scale is the file's business
            values[at : at + _PIECE] = np.floor(exact + 0.5) if dtype.kind == "i" else exact
    return values
