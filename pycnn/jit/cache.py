"""Compiled code on disk, under names that say everything it depends on.

A key is the hash of all that went into a result, so an entry is never stale and never changed: it is written under a
temporary name and renamed, and whoever reads it, in this process or another, finds the whole of it or nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pycnn
from pycnn._files import replacing


def folder() -> Path:
    """Where results are kept: $PYCNN_CACHE_DIR, else pycnn under $XDG_CACHE_HOME, else ~/.cache/pycnn."""
    chosen = os.environ.get("PYCNN_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pycnn"


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
    """Keep `data` under `key` for everyone; harmless if others publish the same at the same time."""
    target = path(key, suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return target


def entries() -> Iterator[tuple[Path, int]]:
    """Every file in the cache and its size in bytes."""
    if folder().is_dir():
        for file in sorted(folder().iterdir()):
            if file.is_file():
                yield file, file.stat().st_size


def clear() -> int:
    """Remove every file in the cache; returns how many there were."""
    count = 0
    for file, _ in entries():
        file.unlink(missing_ok=True)
        count += 1
    return count
