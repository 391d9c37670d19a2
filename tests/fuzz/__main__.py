"""Fuzz a reader of files.

    python -m tests.fuzz idx --seconds 60

With the package atheris inputs are found by coverage, without it (or with --mutations) they are damaged copies of
sound files.  The first input on which a reader does what it must not (see watch.py) is written to --found and ends the
run with status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .mutate import mutations
from .targets import TARGETS, Target

if TYPE_CHECKING:
    from .watch import Watch


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz a reader of files.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutations", action="store_true", help="damaged copies of sound files, without atheris")
    parser.add_argument("--found", default=".", help="the folder that an input which was found is written to")
    parser.add_argument("--input", help="only this file")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    guided = not (arguments.mutations or arguments.input or importlib.util.find_spec("atheris") is None)
    with _instrumented(target) if guided else nullcontext():
        from .watch import Watch

        watch = Watch(target)
        watch(target.seeds()[0])  # imports the rest
    if arguments.input:
        print("taken" if watch(Path(arguments.input).read_bytes()) else "refused")
        return 0
    return _guide(watch, target, arguments) if guided else _mutate(watch, target, arguments)


def _instrumented(target: Target) -> AbstractContextManager[object]:
    """What is imported inside tells atheris which way it went."""
    import atheris

    return atheris.instrument_imports(include=list(target.modules), enable_loader_override=False)


def _mutate(watch: Watch, target: Target, arguments: argparse.Namespace) -> int:
    end, taken, count = time.monotonic() + arguments.seconds, 0, 0
    for content in mutations(target.seeds(), arguments.seed):
        try:
            taken += watch(content)
        except AssertionError as finding:
            return _found(content, finding, arguments)
        count += 1
        if time.monotonic() > end:
            break
    print(f"{count} inputs, {taken} taken, the others refused; nothing found")
    return 0


def _found(content: bytes, finding: AssertionError, arguments: argparse.Namespace) -> int:
    path = Path(arguments.found, f"found-{arguments.target}")
    path.write_bytes(content)
    print(f"FOUND {finding}; the input is {path}", flush=True)
    return 1


def _guide(watch: Watch, target: Target, arguments: argparse.Namespace) -> int:
    import atheris

    def one(content: bytes) -> None:
        try:
            watch(content)
        except AssertionError as finding:
            _found(content, finding, arguments)
            raise

    corpus = tempfile.mkdtemp()
    for number, seed in enumerate(target.seeds()):
        Path(corpus, str(number)).write_bytes(seed)
    limits = (f"-max_total_time={arguments.seconds}", "-rss_limit_mb=0", f"-seed={arguments.seed}", "-max_len=65536")
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={arguments.found}/", corpus], one)
    atheris.Fuzz()  # ends the process
    return 0


sys.exit(main())
