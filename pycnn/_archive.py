"""Arrays, and JSON about them, in one safetensors file, with a checksum over everything, written whole or not at all.

Nothing in such a file is executed or unpickled when it is read, so one from a stranger can be opened.
"""

from __future__ import annotations

import json
import os
import zlib
from types import ModuleType
from typing import Any

import numpy as np

from pycnn._files import replacing

__all__ = ["ArchiveError", "read", "write"]

Array = np.ndarray[Any, Any]


class ArchiveError(ValueError):
    """A file that cannot be written, or that is no whole archive; the message says why."""


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write `header`, whose "format" tells files of one kind and version from all others, and C-contiguous arrays.

    Raises:
        TypeError: a header that is not JSON.
        ArchiveError: no folder, no permission, a full disk; an older file of that name is then untouched and no
            temporary file is left.
        ImportError: safetensors is not installed.
    """
    library, text = _safetensors(), json.dumps(header)
    try:
        with replacing(path, durable=True) as temporary:
            # Not save_file: it has a temporary name of its own making, which a killed run would leave behind each time.
            metadata = {"pycnn": text, "crc32": str(_checksum(text, arrays))}
            temporary.write_bytes(library.numpy.save(arrays, metadata))
    except (OSError, library.SafetensorError) as error:
        raise ArchiveError(str(error)) from None


def read(path: str | os.PathLike[str], form: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header, whose "format" must be `form`, and the arrays of a file.

    Raises:
        OSError: no such file, or no permission.
        ArchiveError: it is truncated or damaged, of another format, or something else.
        ImportError: safetensors is not installed.
    """
    library = _safetensors()
    try:
        with library.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            text = metadata["pycnn"]
            header = json.loads(text)
            if header["format"] != form:
                raise ArchiveError(f"it has the format {header['format']!r}, and this pycnn reads {form!r}")
            expected = metadata["crc32"]
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, the file is no mapping
    except KeyError as error:
        raise ArchiveError(f"its header has no {error}") from None
    except (library.SafetensorError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ArchiveError(str(error)) from None
    if expected != str(_checksum(text, arrays)):
        raise ArchiveError("it is damaged: its contents do not have the checksum saved with them")
    return header, arrays


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError("these files need safetensors: pip install 'pycnn[train]'") from None
    return safetensors


def _checksum(text: str, arrays: dict[str, Array]) -> int:
    """CRC-32 of everything: the library checks lengths alone, and would let a flipped bit pass."""
    total = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total)
        total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
    return total
