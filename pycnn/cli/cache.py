"""``pycnn cache``: the compiled kernels kept on disk."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "cache",
        help="list, size or clear the compiled kernels kept on disk",
        description="The compiled kernels kept on disk, in $PYCNN_CACHE_DIR or the user's cache folder.  "
        "Removing them is safe: what is needed again is compiled again.",
    )
    parser.add_argument("action", choices=["list", "size", "clear"], help="what to do")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from pycnn.jit import cache

    entries = list(cache.entries())
    total = sum(size for _, size in entries)
    if args.action == "clear":
        print(f"removed {cache.clear()} files, {total / 2**20:.1f} MiB, from {cache.folder()}")
        return
    if args.action == "list":
        for file, size in entries:
            print(f"{size:10d}  {file.name}")
    print(f"{len(entries)} files, {total / 2**20:.1f} MiB, in {cache.folder()}")
