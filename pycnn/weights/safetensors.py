"""The safetensors format: eight bytes with the length of a JSON header, the header, and the bytes of the arrays.

Reference: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from pycnn._archive import checksum
from pycnn._files import replacing
from pycnn.weights.errors import WeightsError
from pycnn.weights.source import Source, brief, extended_dtype

__all__ = ["is_safetensors", "read_safetensors", "write_safetensors"]

Array = np.ndarray[Any, Any]

_DTYPES = {
    **{"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8"},
    **{"I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8"},
}
_EXTENDED = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
_MAX_HEADER = 100_000_000  # the format's own limit
_CHECKPOINT = "pycnn"  # the metadata that only `pycnn.checkpoint` writes; it joins the levels of names with slashes


def is_safetensors(source: Source) -> bool:
    """Whether the first bytes are a length and a JSON object."""
    return len(source) >= 9 and source.data[8] == ord("{")


def read_safetensors(source: Source) -> dict[tuple[str, ...], Array]:
    """The arrays by name, each name a path of one part (of two or more in a checkpoint of pycnn).

    Raises:
        WeightsError: a header that is no JSON or too large, an unknown dtype, a size that does not fit its shape,
            arrays that overlap, leave a hole or end before or after the file does; a damaged checkpoint of pycnn.
        ModuleNotFoundError: bfloat16 or an 8-bit float, and ml_dtypes is not installed.
    """
    header, start = _header(source)
    metadata = header.pop("__metadata__", {})
    checkpoint = isinstance(metadata, dict) and _CHECKPOINT in metadata
    entries = sorted(((*_entry(source, name, entry), name) for name, entry in header.items()), key=lambda row: row[:2])
    arrays, end = {}, 0
    for first, last, dtype, shape, name in entries:
        if first != end:
            raise source.error(f"{brief(name)} at byte {first:,} of the arrays", f"it at {end:,}, where the last ends")
        array = source.array(start + first, dtype, shape, brief(name))
        if array.nbytes != last - first:
            raise source.error(
                f"{last - first:,} bytes of {brief(name)}", f"{array.nbytes:,} for {brief(shape)} of {dtype}"
            )
        arrays[name], end = array, last
    if start + end != len(source):
        raise source.error(f"a file of {len(source):,} bytes", f"{start + end:,}, as its header adds up")
    if checkpoint and metadata.get("crc32") != str(checksum(str(metadata[_CHECKPOINT]), arrays)):
        raise source.error("contents without the checksum that was saved with them", "undamaged bytes")
    # In the header's order, which is the writer's.
    return {tuple(name.split("/")) if checkpoint else (name,): arrays[name] for name in header}


def _header(source: Source) -> tuple[dict[str, Any], int]:
    """The JSON object and the byte after it."""
    length = int.from_bytes(source.data[:8], "little")
    if length > min(_MAX_HEADER, len(source) - 8):
        raise source.error(f"a header of {length:,} bytes", f"at most the {len(source) - 8:,} that follow")
    text = bytes(source.data[8 : 8 + length])
    # What the parser will make of it, at most: containers, numbers and strings, each bounded by what ends it.
    source.spend(4 * length + 100 * (text.count(b"{") + text.count(b"[")) + 60 * text.count(b","))
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise source.error(f"a header that is no JSON ({error})", "the safetensors format") from None
    if not isinstance(header, dict):
        raise source.error(f"a header that is {brief(header)}", "a JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _entry(source: Source, name: str, entry: Any) -> tuple[int, int, np.dtype[Any], list[int]]:
    """First byte, byte after the last, dtype and shape of one array."""
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise source.error(f"an entry {brief(name)} without dtype, shape and data_offsets", "all three")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (_whole(shape) and _whole(offsets) and len(offsets) == 2):
        raise source.error(
            f"{brief(name)} with shape {brief(shape)} and data_offsets {brief(offsets)}", "lists of whole numbers"
        )
    if isinstance(kind, str) and kind in _DTYPES:
        return offsets[0], offsets[1], np.dtype(_DTYPES[kind]), shape
    if isinstance(kind, str) and kind in _EXTENDED:
        return offsets[0], offsets[1], extended_dtype(_EXTENDED[kind]), shape
    raise source.error(
        f"{brief(name)} with dtype {brief(kind)}", f"one of {', '.join(_DTYPES)} or {', '.join(_EXTENDED)}"
    )


def _whole(values: Any) -> bool:
    """Whether it is a list of non-negative whole numbers (JSON's true is a bool and an int to Python)."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write C-contiguous host arrays, whole or not at all.

    Raises:
        WeightsError: an array of a dtype that the format lacks.
        OSError: no folder, no permission, a full disk.
    """
    codes = {np.dtype(name): code for code, name in _DTYPES.items()}
    names = {name: code for code, name in _EXTENDED.items()}
    header: dict[str, Any] = {}
    end = 0
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))  # each is then aligned
    for name, array in arrays.items():
        code = codes.get(array.dtype) or names.get(str(array.dtype))
        if code is None:
            raise WeightsError(
                path, f"{name} of dtype {array.dtype}", f"{', '.join(_DTYPES)} or {', '.join(_EXTENDED)}"
            )
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the first array is aligned
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
