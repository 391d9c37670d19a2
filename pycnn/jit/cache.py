"""Compiled code on disk, under names that say everything it depends on.

A key is the hash of all that went into a result, so an entry is never stale and never changed: it is written under a
temporary name and renamed, and whoever reads it, in this process or another, finds the whole of it or nothing.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pycnn
from pycnn._files import cache_folder, replacing

KINDS = {
    ".cubin": "kernels for GPUs",
    ".ptx": "kernels for the PTX interpreter",
    ".log": "what ptxas said of them",
    ".so": "kernels for the simulator",
    ".o": "the simulator",
}
folder = cache_folder  # where the results are

UNFINISHED = ".part"  # of a process that was killed while it wrote

_NAME = re.compile(r"(?P<hidden>\.?)[0-9a-f]{32}(?P<kind>\.[a-z]+)(?P<rest>\.\d+\.\d+\.part)?")
_WRITING = 600  # seconds for which an unfinished file may still be somebody's


def key(**parts: str | Mapping[str, str]) -> str:
    """The hash of everything a result depends on, each part under a name of its own, and of pycnn's version."""
    digest = hashlib.sha256()

    def feed(text: str) -> None:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)

    feed(pycnn.__version__)
    for name, part in sorted(parts.items()):
        feed(name)
        if isinstance(part, str):
            feed(part)
        else:
            for inner, text in sorted(part.items()):
                feed(inner)
                feed(text)
    return digest.hexdigest()[:32]


def path(key: str, suffix: str) -> Path:
    """Where the result with this key and kind is or will be."""
    return folder() / f"{key}{suffix}"


def publish(key: str, suffix: str, data: bytes) -> Path:
    """Keep `data` under `key` for everyone; harmless if others publish the same at the same time.

    Raises ValueError for a suffix that is none of `KINDS`.
    """
    if suffix not in KINDS:
        raise ValueError(f"the cache keeps {', '.join(KINDS)}, not {suffix!r}")
    target = path(key, suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return target


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Attributes:
        path: where it is.
        kind: its suffix, one of `KINDS`, or `UNFINISHED`.
        size: in bytes.
        time: when it was written, in seconds since 1970.
    """

    path: Path
    kind: str
    size: int
    time: float


def entries() -> Iterator[Entry]:
    """Every file that the cache has written, by name; what else may lie in its folder is not among them."""
    if not folder().is_dir():
        return
    for file in sorted(folder().iterdir()):
        kind = _kind(file.name)
        if kind is None:
            continue
        try:
            state = file.stat()
        except FileNotFoundError:  # somebody else has just cleared
            continue
        yield Entry(file, kind, state.st_size, state.st_mtime)


def _kind(name: str) -> str | None:
    found = _NAME.fullmatch(name)
    if found is None or found["kind"] not in KINDS or bool(found["hidden"]) != bool(found["rest"]):
        return None
    return UNFINISHED if found["hidden"] else found["kind"]


def clear() -> list[Entry]:
    """Remove every file that the cache has written, but what another process may be writing now; returns them."""
    removed = []
    for entry in entries():
        if entry.kind != UNFINISHED or time.time() - entry.time > _WRITING:
            entry.path.unlink(missing_ok=True)
            removed.append(entry)
    return removed
