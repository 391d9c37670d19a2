"""Proof of the CUDA kernels on a real GPU, in one command that may be stopped at any moment.

    python -m benchmarks.evidence --budget 540 --slice 1      prove, race-check and time; most important first
    python -m benchmarks.evidence status                      which kernels changed since they were last proven

Each task (one algorithm against the oracle over the problem lists, one layer beside cuDNN, ...) is written to
``benchmarks/evidence/<gpu>.json`` as soon as it ends, with the hash of the sources that it proved.  A second run skips
what is already there and still true, so slices and interrupted runs add up.  Without a GPU the command says so and ends
with status 2; ``--device sim`` rehearses it on the simulator.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pycnn
from pycnn._files import replacing
from pycnn.backends.cuda import LAUNCHERS, conv, direct, layout, pool
from pycnn.jit import MissingToolError, cache
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Problem
from pycnn.testing import (
    ADAPTIVE_POOLS,
    check_adaptive_pool2d,
    check_conv2d,
    check_pool2d,
    float_operands,
    layers,
    pools,
    problems,
    random_pools,
    run,
)

FOLDER = Path(__file__).with_name("evidence")
OK, FAILED, NO_DEVICE = 0, 1, 2

# The layers timed first: every filter size, stride and tile shape, from 3 channels to 512, the largest of each network.
FIRST_LAYERS = {
    "alexnet": ("conv1", "conv2", "conv3"),
    "vgg16": ("conv1-1", "conv1-2", "conv2-2", "conv3-2", "conv4-2", "conv5-1"),
    "googlenet": ("conv1", "conv2", "3a-1x1", "4b-3x3"),
    "resnet50": ("2-reduce", "2-3x3", "2-expand", "3-shortcut", "4-3x3", "4-expand", "5-3x3"),
}
BATCHES = {1: 32, 2: 1, 3: 128}  # slice: batch


class Place(Protocol):
    """Somewhere the kernels run: a GPU, or the simulator for a rehearsal."""

    backend: Any  # backend functions with NumPy arrays in and out

    def describe(self) -> dict[str, str]:
        """Device, driver and versions; "device" names it."""

    def peaks(self) -> dict[str, float]:
        """Measured copy bandwidth (GB/s) and FMA rate (GFLOP/s)."""

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """Timings of one layer, ours and the peer's."""

    def sanitize(self, tool: str) -> dict[str, Any]:
        """The verdict of compute-sanitizer's `tool` on every algorithm, after it has caught a planted bug."""


@dataclass(frozen=True)
class Task:
    """One piece of evidence.

    Attributes:
        name: what it is, unique; the key in the evidence file.
        kernels: which kernels it is about, by name.
        slice: when it is due.
        seconds: a generous guess of how long it takes.
        work: does it; returns what to write down, raises AssertionError if the kernel is wrong.
    """

    name: str
    kernels: tuple[str, ...]
    slice: int
    seconds: float
    work: Callable[[Place], dict[str, Any]]


# ---------------------------------------------------------------------------------------------------------------------
# What there is to prove


def plan(quick: bool = False) -> list[Task]:
    """Every task, most important first; `quick` keeps to a few small ones, for the rehearsal."""
    fprop, every = (direct.TILED, direct.ANY), (direct.TILED, direct.ANY, direct.DGRAD)
    tasks = []
    for operator, algo, kernels in _algorithms():
        asked = [replace(problem, operator=operator) for problem in _proving_problems(quick)]
        chosen = [problem for problem in asked if _able(problem, algo)]
        tasks.append(Task(f"correct/{operator}/{algo}", kernels, 1, 60, _correct(algo, chosen)))
    tasks.append(Task("correct/pool2d", pool.KERNELS, 1, 60, _correct_pooling(quick)))
    for problem in _repeat_problems(quick):
        tasks.append(Task(f"repeat/{problem}", fprop, 1, 20, _repeat(problem)))
    for tool in ("memcheck", "racecheck"):
        tasks.append(Task(f"sanitizer/{tool}", every, 1, 120, _sanitize(tool)))
    tasks.append(Task("machine/peaks", (), 1, 20, lambda place: place.peaks()))
    for number, batch in BATCHES.items():
        timed = _first_layers() if number == 1 else layers()
        for problem in timed[:1] if quick else timed:
            layer = replace(problem, shape=replace(problem.shape, N=1 if quick else batch))
            tasks.append(Task(f"time/{layer}", fprop, number, 15, _time(layer)))
    return sorted(_unique(tasks), key=lambda task: task.slice)


def _algorithms() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every pass and algorithm of convolution, and the kernels it launches."""
    shape = Problem.parse("n1c1h1_k1r1").shape
    for operator in PASSES:
        for each in conv.plans(operator, shape, installed()):
            yield operator, each.name, tuple(instance.kernel for instance in each.kernels)


def _able(problem: Problem, algo: str) -> bool:
    plans = conv.plans(problem.operator, problem.shape, installed())
    return any(each.name == algo and each.reason is None for each in plans)


def _proving_problems(quick: bool) -> list[Problem]:
    return problems("tail", "stride and tail") if quick else problems() + layers(most_macs=50_000_000)


def _repeat_problems(quick: bool) -> list[Problem]:
    text = "n2c9h9w10_k30r3_pd1" if quick else "n16c256h28_k256r3_pd1"
    return [Problem.parse(text), Problem.parse(text.replace("_pd1", "_pd2dl2"))]


def _first_layers() -> list[Problem]:
    return [problem for network, names in FIRST_LAYERS.items() for problem in layers(network) if problem.name in names]


def _unique(tasks: list[Task]) -> Iterator[Task]:
    seen = set()
    for task in tasks:
        if task.name not in seen:
            seen.add(task.name)
            yield task


def _correct(algo: str, chosen: list[Problem]) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        assert chosen, f"no problem on the lists can be run by {algo}"
        for problem in chosen:
            check_conv2d(place.backend, problem, algo)
        return {"problems": len(chosen)}

    return work


def _correct_pooling(quick: bool) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        shapes = pools("ceil mode") if quick else pools() + random_pools(40)
        for shape in shapes:
            check_pool2d(place.backend, shape)
        for x_shape, out in ADAPTIVE_POOLS:
            check_adaptive_pool2d(place.backend, x_shape, out)
        return {"problems": len(shapes) + len(ADAPTIVE_POOLS)}

    return work


def _repeat(problem: Problem) -> Callable[[Place], dict[str, Any]]:
    def work(place: Place) -> dict[str, Any]:
        operands = float_operands(problem)
        first = run(place.backend, problem, operands, "auto").tobytes()
        times = 10
        for _ in range(times):
            assert run(place.backend, problem, operands, "auto").tobytes() == first, f"{problem}: two runs differ"
        return {"runs": times + 1}

    return work


def _sanitize(tool: str) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.sanitize(tool)


def _time(problem: Problem) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.seconds(problem)


# ---------------------------------------------------------------------------------------------------------------------
# What has been proven


def source_hashes() -> dict[str, str]:
    """Of each kernel: the hash of its sources, its instances and the host code that launches it."""
    hashes = {}
    for kernel in sorted({instance.kernel for instance in installed().instances}):
        instances = installed().of(kernel)
        files = installed().closure(next(iter(instances.values())).source)
        launcher = next(module for module in LAUNCHERS if kernel in module.KERNELS)
        host = {
            Path(module.__file__ or "").name: Path(module.__file__ or "").read_text() for module in (launcher, layout)
        }
        expressions = "\n".join(instance.expression for instance in instances.values())
        hashes[kernel] = cache.key(files=files, instances=expressions, host=host)
    return hashes


class Ledger:
    """One device's evidence file.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"device": {}, "results": {}}
        if path.is_file():
            self.content = json.loads(path.read_text())

    def holds(self, task: Task, hashes: dict[str, str]) -> bool:
        """Whether the task has succeeded with the sources as they are."""
        result = self.content["results"].get(task.name)
        return bool(
            result and result["ok"] and result["sources"] == {kernel: hashes[kernel] for kernel in task.kernels}
        )

    def write(self, task: Task, hashes: dict[str, str], ok: bool, result: dict[str, Any], seconds: float) -> None:
        """Add one result and save everything."""
        self.content["results"][task.name] = {
            "ok": ok,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "sources": {kernel: hashes[kernel] for kernel in task.kernels},
            **result,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n")


def status(folder: Path) -> list[str]:
    """A line for each kernel: on which devices it is proven as it stands, on which it was before it changed."""
    hashes = source_hashes()
    tasks = [task for task in plan() if task.slice == 1 and not task.name.startswith("time/") and task.kernels]
    ledgers = [Ledger(path) for path in sorted(folder.glob("*.json"))]
    ledgers = [ledger for ledger in ledgers if "rehearsal" not in ledger.content["device"]]
    lines = []
    for kernel in hashes:
        wanted = [task for task in tasks if kernel in task.kernels]
        words = []
        for ledger in ledgers:
            device = ledger.content["device"].get("device", ledger.path.stem)
            done = sum(ledger.holds(task, hashes) for task in wanted)
            stale = sum(task.name in ledger.content["results"] for task in wanted) - done
            if done == len(wanted):
                words.append(f"proven on {device}")
            elif done or stale:
                words.append(
                    f"{device}: {done} of {len(wanted)} proofs hold, {stale} are older than the sources or failed"
                )
        lines.append(f"{kernel}: {'; '.join(words) or 'never proven on a GPU'}")
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# Doing it


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
    ledger = Ledger(folder / f"{_file_name(device['device'])}.json")
    ledger.content["device"] = device
    hashes = source_hashes()
    due = [task for task in plan(quick) if only_slice in (None, task.slice)]
    waiting = [task for task in due if not ledger.holds(task, hashes)]
    print(f"{device['device']}: {len(due) - len(waiting)} of {len(due)} tasks hold already; evidence in {ledger.path}")
    failures = done = 0
    for task in waiting:
        if clock() - start + task.seconds > budget:
            break
        began = clock()
        try:
            ok, result = True, task.work(place)
        except (AssertionError, RuntimeError) as error:
            ok, result = False, {"error": f"{type(error).__name__}: {error}"}
        ledger.write(task, hashes, ok, result, clock() - began)
        done += 1
        failures += not ok
        print(f"{'ok    ' if ok else 'FAILED'} {task.name} {_brief(result)}", flush=True)
        if result.get("error", "").startswith("CUDA"):
            print("the GPU reports an error, after which nothing in this process can be believed; stopping")
            break
    left = len(waiting) - done
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
    parser.add_argument("command", nargs="?", choices=["prove", "status"], default="prove")
    parser.add_argument("--budget", type=float, default=540, metavar="SECONDS", help="stop before this (default 540)")
    parser.add_argument("--slice", type=int, choices=sorted(BATCHES), help="only this part; 1 is the most important")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="where the evidence is kept")
    parser.add_argument("--device", choices=["gpu", "sim"], default="gpu", help="sim: rehearse on the simulator")
    args = parser.parse_args(argv)
    if args.command == "status":
        print("\n".join(status(args.out)))
        return OK
    try:
        place = _place(args.device)
    except MissingToolError as error:
        print(f"pycnn {pycnn.__version__}: {error}", file=sys.stderr)
        return NO_DEVICE
    return prove(place, args.out, args.budget, args.slice, quick=args.device == "sim")


if __name__ == "__main__":
    sys.exit(main())
