"""Arrays, and JSON about them, in one safetensors file, with a checksum over everything, written whole or not at all.

Nothing in such a file is executed or unpickled when it is read, so one from a stranger can be opened.
"""

from __future__ import annotations

import json
import math
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from pycnn._files import replacing, size_of

__all__ = ["ArchiveError", "Stored", "checksum", "read", "stored", "write"]

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
            metadata = {"pycnn": text, "crc32": str(checksum(text, arrays))}
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
    size_of(path)
    with _refusing(library), library.safe_open(path, framework="np") as file:
        header, text, expected = _header(file.metadata(), form)
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, the file is no mapping
    _verify(expected, checksum(text, arrays))
    return header, arrays


def stored(path: str | os.PathLike[str], form: str) -> tuple[dict[str, Any], dict[str, Stored]]:
    """As `read`, for files that hold float32 alone: the arrays stay in the file, which is verified all the same.

    Raises:
        OSError, ArchiveError, ImportError: as `read`.
    """
    library = _safetensors()
    size_of(path)
    file = _File(path)
    with _refusing(library):
        with library.safe_open(path, framework="np") as whole:  # the library knows best what a whole file is
            header, text, expected = _header(whole.metadata(), form)
        length = int.from_bytes(file.read(0, 8), "little")
        entries = json.loads(file.read(8, length))
        arrays = {name: Stored(file, entry, 8 + length) for name, entry in entries.items() if name != "__metadata__"}
    _verify(expected, checksum(text, arrays))
    return header, arrays


class Stored:
    """A float32 array in an open file, read when it is asked for.

    Attributes:
        shape, dtype: the array's.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, file: _File, entry: dict[str, Any], data: int) -> None:
        begin, end = entry["data_offsets"]
        self.shape: tuple[int, ...] = tuple(entry["shape"])
        if entry["dtype"] != "F32" or end - begin != 4 * math.prod(self.shape) or not 0 <= begin <= file.size - data:
            raise ValueError(f"an array of {entry['dtype']} and shape {self.shape} does not fit")
        self._file, self._begin, self._length = file, data + begin, end - begin

    def rows(self, first: int, last: int) -> Array:
        """Elements [first, last) of the first axis, read-only.  Raises OSError if the file is not what it was."""
        width = self._length // max(1, self.shape[0])
        data = self._file.read(self._begin + first * width, (last - first) * width)
        return np.frombuffer(data, np.float32).reshape(last - first, *self.shape[1:])

    def pieces(self) -> Iterator[bytes]:
        """All bytes, some at a time."""
        for at in range(0, self._length, _PIECE):
            yield self._file.read(self._begin + at, min(_PIECE, self._length - at))


_PIECE = 2**24


class _File:
    """A file that stays open as long as somebody may read from it, whatever becomes of its name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, at: int, count: int) -> bytes:
        parts = []
        while count:
            part = os.pread(self._descriptor, min(count, _PIECE), at)
            if not part:
                raise OSError("the file has become shorter")
            parts.append(part)
            at, count = at + len(part), count - len(part)
        return b"".join(parts)


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError("these files need safetensors: pip install 'pycnn[train]'") from None
    return safetensors


@contextmanager
def _refusing(library: ModuleType) -> Iterator[None]:
    """Whatever is wrong with a file as ArchiveError."""
    try:
        yield
    except OSError:
        raise
    except KeyError as error:
        raise ArchiveError(f"its header has no {error}") from None
    except (library.SafetensorError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ArchiveError(str(error)) from None


def _header(metadata: dict[str, str] | None, form: str) -> tuple[dict[str, Any], str, str]:
    """The header, its text and the checksum."""
    text = (metadata or {})["pycnn"]
    header = json.loads(text)
    if header["format"] != form:
        raise ValueError(f"it has the format {header['format']!r}, and this pycnn reads {form!r}")
    return header, text, (metadata or {})["crc32"]


def _verify(expected: str, found: int) -> None:
    if expected != str(found):
        raise ArchiveError("it is damaged: its contents do not have the checksum saved with them")


def checksum(text: str, arrays: Mapping[str, Any]) -> int:
    """CRC-32 of everything: the library checks lengths alone, and would let a flipped bit pass."""
    total = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total)
        for piece in array.pieces() if isinstance(array, Stored) else [array.reshape(-1).view(np.uint8).data]:
            total = zlib.crc32(piece, total)
    return total
