"""Proof of the CUDA kernels on a real GPU, in one command that may be stopped at any moment.

    python -m benchmarks.evidence --budget 540                prove, time and race-check; most important first
    python -m benchmarks.evidence --slice 2                   only a part of it
    python -m benchmarks.evidence status                      which kernels changed since they were last proven
    python -m benchmarks.evidence readme                      write README.md's section about GPUs from the evidence

Slice 1 proves every kernel.  Slice 2 times the first layers on tensor cores beside cuDNN, and a training step beside
torch's.  Slice 3 has compute-sanitizer watch, and times the first layers in the other arithmetics, layouts and passes.
Slices 4 to 6 time every layer and pass in float32, at batch 32, 1 and 128, and what bandwidth limits.

Each task (one algorithm against the oracle over the problem lists, one layer beside cuDNN, ...) is written to
``benchmarks/evidence/<gpu>.json`` as soon as it ends, with the hash of the sources that it proved.  A second run skips
what is already there and still true, so slices and interrupted runs add up.  Without a GPU the command says so and ends
with status 2; ``--device sim`` rehearses it on the simulator.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycnn
from benchmarks import ledger, section, tasks
from benchmarks.tasks import SLICES, Place
from pycnn.jit import MissingToolError

FOLDER = Path(__file__).with_name("evidence")
OK, FAILED, NO_DEVICE, INTERRUPTED = 0, 1, 2, 130


def prove(
    place: Place,
    folder: Path,
    budget: float,
    only_slice: int | None = None,
    quick: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run what is due and not yet proven, as far as `budget` seconds reach, a line a task.  Returns the exit status."""
    start = clock()
    device = place.describe()
    book = ledger.Ledger(folder / f"{_file_name(device['device'])}.json")
    book.content["device"] = device
    hashes = ledger.source_hashes()
    due = [task for task in tasks.plan(quick) if only_slice in (None, task.slice)]
    waiting = [task for task in due if not book.holds(task, hashes)]
    waiting.sort(key=lambda task: book.failed(task, hashes))  # last, for it may take the GPU with it
    print(f"{device['device']}: {len(due) - len(waiting)} of {len(due)} tasks hold already; evidence in {book.path}")
    if waiting:
        place.prepare()
    failures = done = 0
    for task in waiting:
        if clock() - start + task.seconds > budget:
            continue  # a shorter one may fit
        began = clock()
        book.write(task, hashes, False, {"error": "did not end"}, 0.0)  # stands where the process is killed
        try:
            ok, result = True, task.work(place)
        except (AssertionError, RuntimeError, MemoryError) as error:
            ok, result = False, {"error": f"{type(error).__name__}: {error}"}
        book.write(task, hashes, ok, result, clock() - began)
        done += 1
        failures += not ok
        print(f"{'ok    ' if ok else 'FAILED'} {task.name} {_brief(result)}", flush=True)
        if "CUDA" in result.get("error", "").partition(": ")[0] or "CUDA error" in result.get("error", ""):
            print("the GPU reports an error, after which nothing in this process can be believed; stopping")
            break
    left = len(waiting) - done
    if left and not done:
        print(f"a budget of {budget:.0f} s holds no task: the next is given {waiting[0].seconds:.0f} s")
        return FAILED
    print(f"{done} tasks in {clock() - start:.0f} s, {failures} failed; {left} left" + (": run again" if left else ""))
    return FAILED if failures else OK


def _file_name(device: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in device.lower()).split())


def _brief(result: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in result.items()
    )


def _place(name: str) -> Place:
    if name == "sim":
        from benchmarks.rehearsal import Rehearsal

        return Rehearsal()
    from benchmarks.gpu import Gpu

    return Gpu()


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.split("\n\n")[0])
    parser.add_argument("command", nargs="?", choices=["prove", "status", "readme"], default="prove")
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS", help="stop before this (default 540)")
    parser.add_argument("--slice", type=int, choices=SLICES, help="only this part; 1 is the most important")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="where the evidence is kept")
    parser.add_argument("--device", choices=["gpu", "sim"], default="gpu", help="sim: rehearse on the simulator")
    args = parser.parse_args(argv)
    try:
        if args.command == "status":
            print("\n".join(ledger.status(args.out)))
            return OK
        if args.command == "readme":
            section.rewrite(Path(__file__).parents[1] / "README.md", args.out)
            return OK
        return prove(_place(args.device), args.out, args.budget, args.slice, quick=args.device == "sim")
    except MissingToolError as error:
        print(f"pycnn {pycnn.__version__}: {error}", file=sys.stderr)
        return NO_DEVICE
    except ledger.DamagedError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\ninterrupted; what was done is written, run again for the rest", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
