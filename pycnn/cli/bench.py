"""``pycnn bench``: every layer of the lecture's networks through every algorithm, checked first, then timed."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycnn.bench.contest import Result
    from pycnn.bench.machine import Machine
    from pycnn.bench.summary import NetworkRun

DEFAULT_NETWORKS = "lenet5,alexnet,vgg16,googlenet,resnet50"
QUICK_NETWORKS = "lenet5,alexnet"


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "bench",
        help="time every layer of the networks through every algorithm, beside NumPy",
        description="Runs each network on a photograph, then each distinct convolution and pooling layer, forward and "
        "backward, through every algorithm that can run it. Every result is checked against float64 before it is "
        "timed. Prints a table a network and writes bench.html and bench.json.",
    )
    parser.add_argument("--net", default=None, metavar="NAMES", help=f"networks, by comma (default {DEFAULT_NETWORKS})")
    parser.add_argument("--layers", default=None, metavar="WORD", help="only layers whose name contains WORD")
    parser.add_argument(
        "--problem", action="append", default=[], metavar="STRING", help="a problem such as n1c64h56_k64r3_pd1 instead"
    )
    parser.add_argument("--passes", default="fprop,dgrad,wgrad", help="of fprop, dgrad, wgrad (default: all)")
    parser.add_argument("--backend", default="cpu", choices=("cpu", "reference", "cuda", "sim"))
    parser.add_argument("--algo", default=None, metavar="NAMES", help="only these algorithms, by comma")
    parser.add_argument("--peers", default=None, metavar="NAMES", help="torch, onnxruntime or all (those installed)")
    parser.add_argument("--threads", type=int, default=None, help="threads for every contestant")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--image", default=None, metavar="FILE", help="a photograph of yours as the networks' input")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NETWORKS} alone, and shorter timing")
    parser.add_argument("--out", default="bench", metavar="FOLDER", help="where the report goes (default: bench)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark; 1 if any result was wrong."""
    _check(args)
    from pycnn._extras import extra

    with extra("train", "rich"):
        from rich.console import Console
    from pycnn.bench import machine as machines
    from pycnn.bench.peers import load_peers

    threads = machines.set_threads(args.threads)
    peers = load_peers(args.peers.split(","), threads) if args.peers else []
    console = Console()
    machine = machines.measure(threads)
    console.print(
        f"{machine.processor}, {machine.threads} threads, {machine.isa}: {machine.fma_peak / 1e9:.0f} GFLOP/s of "
        f"multiply-adds, {machine.bandwidth / 1e9:.1f} GB/s of copying"
    )
    runs = []
    for network in [""] if args.problem else _networks(args):
        runs.append(_run_network(network, args, peers))
        _print_network(console, machine, runs[-1])
    paths = _write(Path(args.out), machine, runs)
    console.print(f"report: {paths[0]}  values: {paths[1]}")
    wrong = [(result, row) for run in runs for result in run.results for row in result.rows if row.note]
    for result, row in wrong:
        console.print(f"[red]{result.workload.name} {result.operator} {row.contestant}: {row.note}[/red]")
    return 1 if wrong else 0


def _check(args: argparse.Namespace) -> None:
    from pycnn.shape import PASSES

    for name in args.passes.split(","):
        if name not in PASSES:
            raise ValueError(f"--passes must be among {', '.join(PASSES)}, got {name!r}")
    for name, value in (("--threads", args.threads), ("--batch", args.batch)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _networks(args: argparse.Namespace) -> list[str]:
    from pycnn import models

    names = (args.net or (QUICK_NETWORKS if args.quick else DEFAULT_NETWORKS)).split(",")
    for name in names:
        if name not in models.list_models():
            raise ValueError(f"--net must name networks of `pycnn models`, got {name!r}")
    return names


def _run_network(network: str, args: argparse.Namespace, peers: Sequence[Any]) -> NetworkRun:
    from pycnn import Tensor, backends, no_grad
    from pycnn.bench import workloads
    from pycnn.bench.contest import CONV_PASSES, POOL_PASSES, contest
    from pycnn.bench.summary import NetworkRun
    from pycnn.bench.timing import race
    from pycnn.cli._progress import bar
    from pycnn.shape import Problem

    seconds = 0.02 if args.quick else 0.05
    algos = args.algo.split(",") if args.algo else []
    forward = None
    if args.problem:
        layers = [workloads.from_problem(Problem.parse(text)) for text in args.problem]
    else:
        model, x, layers = workloads.of_network(network, args.batch, workloads.photograph(args.image))
        if args.layers:
            layers = [layer for layer in layers if args.layers in layer.name]
            if not layers:
                raise ValueError(f"--layers {args.layers!r} names no layer of {network}")

        def whole() -> None:
            with no_grad(), backends.use_backend(args.backend):
                model(Tensor(x))

        if args.backend == "cpu":
            forward = race({"forward": whole}, seconds=0.5)["forward"]
    passes = [name for name in CONV_PASSES if name in args.passes.split(",")]
    work = [(w, name) for w in layers for name in (passes if w.op == "conv2d" else POOL_PASSES)]
    results = []
    with bar(f"bench {network or 'problems'}") as drawn:
        for done, (workload, operator) in enumerate(work):
            drawn.update(done, len(work), f"{workload.name} {operator}")
            results.append(contest(workload, operator, args.backend, algos, peers, seconds))
    return NetworkRun(network, args.batch, results, forward)


def _print_network(console: Any, machine: Machine, run: NetworkRun) -> None:
    from rich import box
    from rich.table import Table

    from pycnn.bench.summary import gflops, peer_names, totals

    peers = peer_names(run.results)
    title = f"{run.network or 'problems'}, batch {run.batch}"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in ("layer", "problem", "pass", "auto takes"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=34)
    for name in ("ms", "±", "GFLOP/s", "of peak", "error", "x numpy", *(f"x {peer}" for peer in peers), "why"):
        table.add_column(name, justify="right", no_wrap=True)
    reasons: dict[str, str] = {}
    for result in run.results:
        row = result.taken
        cells = [result.workload.name, _problem(result), result.operator, result.auto]
        if row is None or row.timing is None:
            table.add_row(*cells, "wrong" if row is None else "")
            continue
        rate = gflops(result, row)
        cells += [f"{row.timing.median * 1e3:.3f}", f"{row.timing.spread:.0%}"]
        cells += [f"{rate:.1f}", f"{rate * 1e9 / machine.fma_peak:.0%}"] if result.flops else ["", ""]
        cells.append(f"{row.error:.0e}")
        for name in ("numpy", *peers):
            other = result.row(name)
            cells.append(f"{other.timing.median / row.timing.median:.2f}" if other and other.timing else "")
        table.add_row(*cells, reasons.setdefault(result.why, chr(ord("a") + len(reasons) % 26)))
    console.print(table)
    for reason, letter in reasons.items():
        console.print(f"  {letter}: {reason}", highlight=False)
    for operator, by_name in totals(run.results).items():
        ours = by_name.get("auto")
        if ours:
            others = [f"{seconds / ours:.2f}x {name}" for name, seconds in by_name.items() if name != "auto"]
            console.print(f"  {operator}, all layers: {ours * 1e3:.2f} ms; {', '.join(others)}", highlight=False)
    if run.forward is not None:
        console.print(f"  whole forward pass: {run.forward.median * 1e3:.2f} ms ±{run.forward.spread:.0%}")


def _problem(result: Result) -> str:
    text = str(result.workload.shape) if result.workload.op == "conv2d" else result.workload.op
    return text if result.workload.count == 1 else f"{text} x{result.workload.count}"


def _write(folder: Path, machine: Machine, runs: list[NetworkRun]) -> tuple[Path, Path]:
    from pycnn.bench.report import render
    from pycnn.bench.summary import as_dict

    data = as_dict(machine, runs)
    folder.mkdir(parents=True, exist_ok=True)
    report, values = folder / "bench.html", folder / "bench.json"
    _publish(report, render(data))
    _publish(values, json.dumps(data, indent=1))
    return report, values


def _publish(path: Path, text: str) -> None:
    """Written beside its place and renamed, so that nobody ever reads half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
