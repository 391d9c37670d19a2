"""``pycnn explain``: every algorithm of a convolution, which of them `auto` takes, and why."""

from __future__ import annotations

import argparse
from typing import Any

_CUDA_COLUMNS = ("algorithm", "workspace", "work", "")
_CPU_COLUMNS = ("algorithm", "work", "")


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        help="list a convolution's algorithms and say which is taken, and why",
        description="Lists every algorithm of a convolution with the workspace it needs and the work it does, in units "
        "of the direct form's multiply-adds (idle lanes, and memory between kernels, included), or the condition that "
        "keeps it from running, and says which one algo='auto' takes and why. Needs no GPU.",
        epilog="example: pycnn explain n32c64h56w56_k64r3s3_st1pd1 --backend cuda",
    )
    parser.add_argument("problem", metavar="PROBLEM", help="such as n32c64h56w56_k64r3s3_st1pd1, perhaps with a pass")
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu"), help="whose algorithms (default: cuda)")
    parser.add_argument("--accuracy", default="fast", choices=("fast", "strict"), help="what auto may trade")
    parser.add_argument("--workspace-limit", type=int, metavar="BYTES", help="of memory beside operands and result")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from pycnn.algorithms import use_accuracy, use_workspace_limit
    from pycnn.shape import PASSES, Problem

    problem = Problem.parse(args.problem)
    named = any(word in args.problem.split("_") for word in PASSES)
    table = _cuda if args.backend == "cuda" else _cpu
    with use_accuracy(args.accuracy), use_workspace_limit(args.workspace_limit):
        for operator in (problem.operator,) if named else PASSES:
            columns, rows, taken = table(operator, problem)
            print(f"{operator}: {problem.shape.macs:,} multiply-adds, {problem.shape.bytes():,} bytes at least")
            _print(columns, rows)
            print(f"  auto takes {taken[0]}: {taken[1]}\n")


def _cuda(operator: str, problem: Any) -> tuple[Any, Any, tuple[str, str]]:
    from pycnn.backends.cuda import Host
    from pycnn.backends.cuda.device_trace import TraceDevice

    host = Host(TraceDevice())
    rows = []
    try:
        taken = host.conv2d_choose(operator, problem.shape, problem.dtype)
    except ValueError as error:  # the workspace limit allows none
        taken = ("none", str(error))
    for name, reason, workspace, work in host.conv2d_table(operator, problem.shape, problem.dtype):
        if reason is None:
            share = work / max(problem.shape.macs, 1)
            rows.append((name, _size(workspace), f"{share:.2f}", "taken" if name == taken[0] else ""))
        else:
            rows.append((name, "", "", reason))
    return _CUDA_COLUMNS, rows, taken


def _cpu(operator: str, problem: Any) -> tuple[Any, Any, tuple[str, str]]:
    from pycnn import algorithms, winograd

    taken = algorithms.choose(operator, problem.shape, problem.dtype)
    rows = []
    for name, reason in algorithms.candidates(operator, problem.shape, problem.dtype):
        tile = winograd.tile_of(name)
        work = winograd.cost(operator, problem.shape, tile) if tile and reason is None else problem.shape.macs
        share = f"{work / max(problem.shape.macs, 1):.2f}" if reason is None else ""
        rows.append((name, share, ("taken" if name == taken[0] else "") if reason is None else reason))
    return _CPU_COLUMNS, rows, taken


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count else "none"


def _print(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) - 1)]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:], strict=True)),
        ]
        print("  " + "  ".join([*cells, line[-1]]).rstrip())
