"""``pycnn bench``: every layer of the lecture's networks through every algorithm, checked first, then timed."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycnn.algorithms import PRECISIONS

if TYPE_CHECKING:
    from pycnn.bench.contest import Result, Row
    from pycnn.bench.machine import Machine
    from pycnn.bench.processes import PeerProcess
    from pycnn.bench.summary import NetworkRun
    from pycnn.bench.workloads import Workload

DEFAULT_NETWORKS = "lenet5,alexnet,vgg16,googlenet,resnet50"
QUICK_NETWORKS = "lenet5,alexnet"
_CELLS = "with --peers: of fprop, dgrad, wgrad, inference, training, first (call), memory (default: all)"
_BACKEND = "default: cpu, or where a kernel of yours runs"
_ALGO = "only these families, variants and kernels of yours, by comma; yours race what auto takes if they are alone"
_KERNEL = "a file of yours, or a module, that calls pycnn.register_conv2d; verified first, then raced; may be repeated"
_MOST_MACS = "verify kernels of yours on problems of at most N multiply-adds"
_NOT_FOR_FILES = (
    *("net", "layers", "problem", "passes", "precision", "algo", "kernel", "most_macs", "cells", "only", "image"),
    "quick",
)
_LONGEST = 60.0  # seconds of a contestant in a cell
_LARGEST_BATCH = 4096
_FILE_WIDTH = 200  # characters of a line that no terminal has to show


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "bench",
        help="time every layer of the networks through every algorithm, beside NumPy",
        description="Runs each network on a photograph, then each distinct convolution and pooling layer, forward and "
        "backward, through every algorithm that can run it. Every result is checked against float64 before it is "
        "timed. Prints a table a network and writes bench.html and bench.json.",
    )
    parser.add_argument(
        "model", nargs="?", metavar="FILE.onnx", help="instead of networks, a model of a file as a whole"
    )
    parser.add_argument("--net", default=None, metavar="NAMES", help=f"networks, by comma (default {DEFAULT_NETWORKS})")
    parser.add_argument("--layers", default=None, metavar="WORD", help="only layers whose name contains WORD")
    parser.add_argument(
        "--problem",
        action="append",
        default=[],
        metavar="STRING",
        help="instead of networks, a problem such as n1c64h56_k64r3_pd1, perhaps with a dtype (f16, bf16), nhwc and a "
        "pass; may be repeated",
    )
    parser.add_argument("--passes", default=None, metavar="NAMES", help="of fprop, dgrad, wgrad (default: all)")
    parser.add_argument("--backend", default=None, choices=("cpu", "reference", "sim", "cuda"), help=_BACKEND)
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="what float32 may be multiplied in")
    parser.add_argument("--algo", default=None, metavar="NAMES", help=_ALGO)
    parser.add_argument("--kernel", action="append", default=[], metavar="FILE", help=_KERNEL)
    parser.add_argument("--most-macs", type=int, default=None, metavar="N", help=_MOST_MACS)
    parser.add_argument(
        "--peers",
        default=None,
        metavar="NAMES",
        help="compare with these instead: torch, onnxruntime, openvino, ncnn, mnn or all (those installed)",
    )
    parser.add_argument("--cells", default=None, metavar="NAMES", help=_CELLS)
    parser.add_argument(
        "--only", default=None, metavar="WORDS", help="with --peers: cells with one of them in its name"
    )
    parser.add_argument("--seconds", type=float, default=None, help="with --peers: for each contestant in a cell (0.1)")
    parser.add_argument("--threads", type=int, default=None, help="threads for every contestant")
    parser.add_argument("--batch", default=None, help="images at once (default: 1; with --peers 1,8)")
    parser.add_argument("--image", default=None, metavar="FILE", help="a photograph of yours as the networks' input")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NETWORKS} alone, and shorter timing")
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), metavar="FOLDER", help="for the report (default: bench)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark; 1 if any result was wrong."""
    from pycnn.cli._bench_own import prepare, verified

    prepare(args)
    _check(args)
    from pycnn._extras import extra

    with extra("train", "rich"):
        from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
    _make_folder(args.out)  # now, not when minutes of results are to be written
    if args.model is not None:
        from pycnn.cli._bench_model import bench_model

        return bench_model(args, console)
    if args.peers and args.backend == "cpu" and not args.own:
        from pycnn.cli._bench_peers import compare

        return compare(args, console)
    if not verified(args, console):
        return 1
    from pycnn.algorithms import use_precision
    from pycnn.bench import gpu
    from pycnn.bench import machine as machines
    from pycnn.bench.peers import NumPy, find_peers
    from pycnn.bench.processes import peer_processes

    threads = machines.set_threads(args.threads)
    cuda = args.backend == "cuda"
    machine = gpu.measure() if cuda else None
    factories = {"numpy": NumPy, **(find_peers(args.peers.split(","), args.backend) if args.peers else {})}
    if args.peers and len(factories) == 1:
        console.print("no peer is installed: pip install 'pycnn[peers]'", markup=False)
    machine = machine or machines.measure()
    console.print(
        f"{machine.processor}, {'' if cuda else f'{machine.threads} threads, '}{machine.isa}: "
        f"{machine.fma_peak / 1e9:.0f} GFLOP/s of "
        f"multiply-adds, {machine.bandwidth / 1e9:.1f} GB/s of copying"
    )
    runs = []
    with peer_processes(factories, threads) as peers, use_precision(args.precision):
        for measured in _measured(args, peers):
            _print_network(console, machine, measured)
            runs.append(measured)
    report, values = _write(args.out, machine, runs)
    console.print(f"report: {report}  values: {values}")
    wrong = [(result, row) for run in runs for result in run.results for row in result.rows if row.note]
    for result, row in wrong:
        console.print(f"[red]{result.workload.name} {result.operator} {row.contestant}: {row.note}[/red]")
    return 1 if wrong else 0


def _check(args: argparse.Namespace) -> None:
    """ValueError for arguments that cannot be meant; `batch` as numbers."""
    from pycnn.machine import MOST_THREADS
    from pycnn.shape import PASSES, Problem

    for name in (args.passes or "fprop").split(","):
        if name not in PASSES:
            raise ValueError(f"--passes must be among {', '.join(PASSES)}, got {name!r}")
    if args.threads is not None and not 1 <= args.threads <= MOST_THREADS:
        raise ValueError(f"--threads must be from 1 to {MOST_THREADS}, got {args.threads}")
    if args.seconds is not None and not 0 < args.seconds <= _LONGEST:
        raise ValueError(f"--seconds must be above 0 and at most {_LONGEST}, got {args.seconds}")
    comparing = bool(args.peers) and args.backend == "cpu" and not args.own
    if args.model is not None:
        _check_model(args)
        return
    if comparing and any(
        problem.dtype != "float32" or problem.layout != "nchw" for problem in map(Problem.parse, args.problem)
    ):
        raise ValueError("--peers on the CPU compares float32 in NCHW")
    idle = ("net", "layers", "image", "algo") if comparing else ("cells", "only", "seconds")
    for name in idle:
        if getattr(args, name) is not None:
            where = "has no meaning beside --peers" if comparing else "needs --peers on the CPU"
            raise ValueError(f"--{name} {where}")
    if args.batch is not None:
        args.batch = _batches(args.batch, several=comparing)
    given = [name for name in ("net", "layers", "image") if getattr(args, name) is not None]
    if args.problem and given:
        raise ValueError(f"--problem stands for itself: leave out --{given[0]}")


def _check_model(args: argparse.Namespace) -> None:
    """The same for a model of a file, which only few arguments mean something for."""
    given = [name for name in _NOT_FOR_FILES if getattr(args, name) not in (None, [], False, "float32")]
    if given or args.backend != "cpu":
        raise ValueError(f"--{given[0].replace('_', '-') if given else 'backend'} has no meaning for a model of a file")
    if args.batch is not None:
        args.batch = _batches(args.batch, several=False)


def _batches(text: str, several: bool) -> list[int]:
    """Images at once, as numbers by comma."""
    numbers = text.split(",")
    if not all(number.isdecimal() and 1 <= int(number) <= _LARGEST_BATCH for number in numbers):
        raise ValueError(f"--batch must be at least 1 and at most {_LARGEST_BATCH}, got {text!r}")
    if len(numbers) > 1 and not several:
        raise ValueError(f"--batch must be one number without --peers, got {text!r}")
    return [int(number) for number in numbers]


def _measured(args: argparse.Namespace, peers: Sequence[PeerProcess]) -> Iterator[NetworkRun]:
    """What was asked for, one network after the other."""
    from pycnn.bench import workloads
    from pycnn.shape import PASSES, Problem

    passes = args.passes.split(",") if args.passes else PASSES
    batch = args.batch[0] if args.batch else 1
    if args.problem:
        given = [Problem.parse(text) for text in args.problem]
        named = [(problem.operator,) if problem.operator != "fprop" else passes for problem in given]
        layers = [workloads.from_problem(problem) for problem in given]
        yield _run("", None, list(zip(layers, named, strict=True)), args, peers, None)
        return
    names = (args.net or (QUICK_NETWORKS if args.quick else DEFAULT_NETWORKS)).split(",")
    photo = workloads.photograph(args.image)
    found = False
    for name in _known(names):
        forward, layers = workloads.of_network(name, batch, photo)
        layers = [layer for layer in layers if args.layers is None or args.layers in layer.name]
        if layers:
            found = True
            yield _run(name, batch, [(layer, passes) for layer in layers], args, peers, forward)
    if not found:
        raise ValueError(f"--layers {args.layers!r} is in no layer's name of {', '.join(names)}")


def _known(names: list[str]) -> list[str]:
    from pycnn import models

    for name in names:
        models.info(name)  # a mistyped name is said before minutes are spent on the others
    return names


def _run(
    network: str,
    batch: int | None,
    layers: list[tuple[Workload, Sequence[str]]],
    args: argparse.Namespace,
    peers: Sequence[PeerProcess],
    forward: Callable[[], object] | None,
) -> NetworkRun:
    """Race every pass of every layer; `layers` are with the passes of their convolution that are wanted."""
    from pycnn.bench.contest import CONV_PASSES, POOL_PASSES, contest
    from pycnn.bench.summary import NetworkRun
    from pycnn.bench.timing import Racer, race, timed_slice
    from pycnn.cli._progress import bar

    seconds = 0.015 if args.quick else 0.03
    algos = args.algo.split(",") if args.algo else []
    whole = None
    if forward is not None and args.backend == "cpu":
        whole = race([Racer("forward", "pycnn", partial(timed_slice, forward))], 10 * seconds)["forward"]
    work = [
        (layer, operator)
        for layer, passes in layers
        for operator in (POOL_PASSES if layer.op != "conv2d" else [name for name in CONV_PASSES if name in passes])
        if layer.op == "conv2d" or not args.own
    ]
    results: list[Result] = []
    missing: dict[str, None] = {}
    with bar(f"bench {network or 'problems'}") as drawn:
        for done, (layer, operator) in enumerate(work):
            drawn.update(done, len(work), f"{layer.name} {operator}")
            try:
                results.append(contest(layer, operator, args.backend, algos, peers, seconds))
                for name in args.own:
                    if name in results[-1].refused:
                        missing[f"{name} in {operator} of {layer.shape}: {results[-1].refused[name]}"] = None
            except NotImplementedError as error:  # a backend that has not every operator yet
                missing[str(error)] = None
    if not results:
        raise ValueError("; ".join(missing))
    return NetworkRun(network, batch, results, whole, tuple(missing))


def _print_network(console: Any, machine: Machine, run: NetworkRun) -> None:
    from rich import box
    from rich.table import Table

    from pycnn.bench.summary import OURS, peer_names, totals

    peers = peer_names(run.results)
    title = run.network or "problems"
    title = title if run.batch is None else f"{title}, batch {run.batch}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in ("layer", "problem"):  # these two give way where the terminal is narrow
        table.add_column(name, overflow="ellipsis", max_width=40)
    for name in ("pass", "algorithm"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "±", "GFLOP/s", "of peak", "error", "x numpy", *(f"x {peer}" for peer in peers), "why"):
        table.add_column(name, justify="right", no_wrap=True)
    reasons: dict[str, int] = {}
    for result in run.results:
        row = result.taken
        cells = [result.workload.name, _problem(result), result.operator]
        if row is None:
            wrong = any(row.kind == "ours" for row in result.rows)
            table.add_row(*cells, result.auto, "wrong" if wrong else "cannot run")
            continue
        cells += [row.contestant, *_figures(result, row, ["numpy", *peers], machine)]
        if row.contestant == result.auto:
            cells.append(str(reasons.setdefault(result.why, len(reasons) + 1)))
        table.add_row(*cells)
    console.print(table)
    for reason, number in reasons.items():
        console.print(f"  {number}: {reason}", highlight=False)
    for operator, by_name in totals(run.results).items():
        ours = by_name.get(OURS)
        if ours:
            others = [f"{seconds / ours:.2f}x {name}" for name, seconds in by_name.items() if name != OURS]
            console.print(f"  {operator}, all layers: {ours * 1e3:.2f} ms; {', '.join(others)}", highlight=False)
    if run.forward is not None:
        console.print(f"  whole forward pass: {run.forward.median * 1e3:.2f} ms ±{run.forward.spread:.0%}")
    for sentence in run.missing:
        console.print(f"  left out: {sentence}", highlight=False)


def _figures(result: Result, row: Row, others: Sequence[str], machine: Machine) -> list[str]:
    """The cells from "ms" to the last speed-up."""
    from pycnn.bench.summary import gflops

    assert row.timing is not None, "a row that was taken has a time"
    cells = [f"{row.timing.median * 1e3:.3f}", f"{row.timing.spread:.0%}"]
    rate = gflops(result, row)
    cells += [f"{rate:.1f}", f"{rate * 1e9 / machine.fma_peak:.0%}"] if result.flops else ["", ""]
    cells.append(f"{row.error:.0e}")
    for name in others:
        other = result.row(name)
        cells.append(f"{other.timing.median / row.timing.median:.2f}" if other and other.timing else "")
    return cells


def _problem(result: Result) -> str:
    workload = result.workload
    text = str(workload.problem) if workload.op == "conv2d" else f"{workload.op.removesuffix('2d')}_{workload.shape}"
    return text if workload.count == 1 else f"{text} x{workload.count}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"--out must be a folder that can be written to, got {folder}: {error.strerror}") from error


def _write(folder: Path, machine: Machine, runs: list[NetworkRun]) -> tuple[Path, Path]:
    from pycnn._files import replacing
    from pycnn.bench.report import render
    from pycnn.bench.summary import as_dict

    data = as_dict(machine, runs)
    texts = {"bench.html": render(data), "bench.json": json.dumps(data, indent=1, allow_nan=False) + "\n"}
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "bench.html", folder / "bench.json"
