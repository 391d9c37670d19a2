"""``pycnn cache``: the compiled kernels kept on disk."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycnn.jit.cache import Entry


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "cache",
        help="list or clear the compiled kernels kept on disk",
        description="List the compiled kernels kept on disk, by kind.  They are in $PYCNN_CACHE_DIR or else in the "
        "user's cache folder.  Removing them is safe: what is needed again is compiled again.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clear", action="store_true", help="remove them")
    what.add_argument("--path", action="store_true", help="print where they are, and nothing else")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from pycnn.jit import cache

    if args.path:
        print(cache.folder())
    elif args.clear:
        print(f"removed {_total(cache.clear())} from {cache.folder()}")
    else:
        entries = list(cache.entries())
        for line in _table(entries):
            print(line)
        print(f"{_total(entries)} in {cache.folder()}")


def _table(entries: Sequence[Entry]) -> list[str]:
    from pycnn.jit import cache

    lines = []
    for kind, words in {**cache.KINDS, cache.UNFINISHED: "left behind unfinished"}.items():
        found = [entry for entry in entries if entry.kind == kind]
        if found:
            newest, oldest = (_age(time.time() - pick(entry.time for entry in found)) for pick in (max, min))
            age = newest if newest == oldest else f"{newest} to {oldest}"
            size = sum(entry.size for entry in found)
            lines.append(f"{kind:7}{len(found):7}{size / 2**20:10.1f} MiB  {age + ' old':24}{words}")
    return [f"{'kind':7}{'files':>7}{'size':>14}  age", *lines] if lines else []


def _total(entries: Sequence[Entry]) -> str:
    files = "1 file" if len(entries) == 1 else f"{len(entries)} files"
    return f"{files}, {sum(entry.size for entry in entries) / 2**20:.1f} MiB,"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
