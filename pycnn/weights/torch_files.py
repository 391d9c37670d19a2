"""PyTorch checkpoints: the zip archive of PyTorch 1.6 and later, and the row of pickles that came before.

Reference: PyTorch 2.13, torch/serialization.py (`_load` and `_legacy_load`).
"""

from __future__ import annotations

from typing import Any

from pycnn.weights import pickles
from pycnn.weights.source import Source, brief
from pycnn.weights.torch_names import vocabulary
from pycnn.weights.torch_values import Storage
from pycnn.weights.zips import records

__all__ = ["is_older_checkpoint", "is_tar", "is_zip", "read_older_checkpoint", "read_zip_checkpoint"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def is_zip(source: Source) -> bool:
    """Whether the first bytes are a zip archive's."""
    return bytes(source.data[:4]) in (b"PK\x03\x04", b"PK\x05\x06")


def is_older_checkpoint(source: Source) -> bool:
    """Whether the first bytes are a pickle's."""
    return len(source) >= 2 and source.data[0] == 0x80 and 2 <= source.data[1] <= 5


def is_tar(source: Source) -> bool:
    """Whether it is a tar archive, such as PyTorch wrote before version 0.1.10."""
    return bytes(source.data[257:262]) == b"ustar"


def read_zip_checkpoint(source: Source) -> Any:
    """The value that was saved, its tensors as `TensorValue`.

    Raises:
        WeightsError: no whole archive of PyTorch's, or one that names what tensors do not need.
        ModuleNotFoundError: bfloat16 or an 8-bit float, and ml_dtypes is not installed.
    """
    found = records(source)
    folder = next((name.removesuffix("data.pkl") for name in found if _is_pickle(name)), None)
    if folder is None:
        some = ", ".join(brief(name) for name in list(found)[:5]) or "nothing"
        raise source.error(f"a zip archive that holds {some}", "PyTorch's data.pkl")
    if f"{folder}byteorder" in found and bytes(found[f"{folder}byteorder"].bytes()) != b"little":
        raise source.error("numbers with the highest byte first", "the lowest first")
    storages: dict[str, Storage] = {}

    def storage(saved: Any) -> Storage:
        if not isinstance(saved, tuple) or len(saved) != 5 or saved[0] != "storage":
            raise source.error(f"the persistent id {brief(saved)}", "a storage's")
        _, elements, key, _, count = saved
        if isinstance(key, str) and key in storages:
            return storages[key]
        made = Storage(source, elements, key, count)
        record = found.get(f"{folder}data/{key}")
        if record is None:
            raise source.error(f"no record data/{key} for a storage", "one in the archive")
        if made.nbytes > record.size:
            raise source.error(f"record data/{key} of {record.size:,} bytes", f"{made.nbytes:,} for its storage")
        made.place(record.place())
        storages[key] = made
        return made

    value, _ = pickles.run(source, found[f"{folder}data.pkl"].bytes(), 0, vocabulary(source), storage)
    return value


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)


def read_older_checkpoint(source: Source) -> Any:
    """As `read_zip_checkpoint`, of the format before: four pickles, the keys of the storages, the storages.

    Raises as `read_zip_checkpoint`.
    """
    data, at = source.data, 0
    for expected in (_MAGIC, _PROTOCOL):
        value, at = pickles.run(source, data, at, vocabulary(source))
        if type(value) is not int or value != expected:
            raise source.error(f"a pickle of {brief(value)}", f"PyTorch's {expected}; plain pickles hold no weights")
    machine, at = pickles.run(source, data, at, {})
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise source.error("numbers with the highest byte first", "the lowest first")
    storages: dict[str, Storage] = {}
    views: dict[tuple[str, str], Storage] = {}

    def storage(saved: Any) -> Storage:
        if not isinstance(saved, tuple) or len(saved) not in (5, 6) or saved[0] != "storage":
            raise source.error(f"the persistent id {brief(saved)}", "a storage's")
        _, elements, key, _, count = saved[:5]
        if not isinstance(key, str) or key not in storages:
            made = Storage(source, elements, key, count)
            storages[key] = made
        whole, view = storages[key], saved[5] if len(saved) == 6 else None
        if view is None:
            return whole
        if not isinstance(view, tuple) or len(view) != 3 or not isinstance(view[0], str):
            raise source.error(f"the view {brief(view)} of a storage", "its key, offset and length")
        if (key, view[0]) not in views:
            views[key, view[0]] = whole.part(*view)
        return views[key, view[0]]

    value, at = pickles.run(source, data, at, vocabulary(source), storage)
    keys, at = pickles.run(source, data, at, {})
    if not isinstance(keys, list):
        raise source.error(f"{brief(keys)} after the tensors", "the list of their storages")
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise source.error(f"the storage {brief(key)}, which no tensor views", "one that was named before")
        if at + 8 > len(data):
            raise source.error(f"a file cut off at byte {len(data):,}", f"storage {brief(key)} from byte {at:,}")
        made, count = storages[key], int.from_bytes(data[at : at + 8], "little")
        if count != made.count:
            raise source.error(f"{count:,} elements of storage {brief(key)}", f"{made.count:,}, as the pickle says")
        made.place(at + 8)
        at += 8 + made.nbytes
    return value
