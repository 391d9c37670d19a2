"""``pycnn explain``: every algorithm of a convolution, which of them `auto` takes, and why."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from pycnn.algorithms import PRECISIONS

if TYPE_CHECKING:
    from pycnn.shape import Problem
    from pycnn.tuning import Table

_CUDA_COLUMNS = ("algorithm", "predicted", "measured", "workspace", "work", "")
_CPU_COLUMNS = ("algorithm", "predicted", "measured", "")


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        help="list a convolution's algorithms and say which is taken, and why",
        description="Lists every algorithm of a convolution with the time that the table in force predicts, the time "
        "that `pycnn tune` measured if it has measured this very problem, and on CUDA the workspace it needs and its "
        "work in units of the direct form's multiply-adds (idle lanes, and memory between kernels, included); or the "
        "condition that keeps it from running. Says which one algo='auto' takes and why. Needs no GPU.",
        epilog="example: pycnn explain n32c64h56w56_k64r3s3_st1pd1_bf16_nhwc --backend cuda",
    )
    parser.add_argument(
        "problem",
        metavar="PROBLEM",
        help="such as n32c64h56w56_k64r3s3_st1pd1, perhaps with a dtype (f16, bf16), nhwc and a pass",
    )
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu"), help="whose algorithms (default: cuda)")
    parser.add_argument("--accuracy", default="fast", choices=("fast", "strict"), help="what auto may trade")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="what float32 may be multiplied in")
    parser.add_argument("--workspace-limit", type=int, metavar="BYTES", help="of memory beside operands and result")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from pycnn.algorithms import use_accuracy, use_precision, use_workspace_limit
    from pycnn.shape import PASSES, Problem

    problem = Problem.parse(args.problem)
    named = any(word in args.problem.split("_") for word in PASSES)
    explained = _cuda if args.backend == "cuda" else _cpu
    with use_accuracy(args.accuracy), use_precision(args.precision), use_workspace_limit(args.workspace_limit):
        for operator in (problem.operator,) if named else PASSES:
            columns, rows, taken, table = explained(operator, problem)
            print(f"{operator}: {problem.shape.macs:,} multiply-adds, {_bytes(problem):,} bytes at least")
            _print(columns, rows)
            print(f"  auto takes {taken[0]}: {taken[1]}\n")
        print(_told(table))


def _bytes(problem: Problem) -> int:
    """Of operands and result."""
    return problem.shape.bytes({"float64": 8, "float32": 4}.get(problem.dtype, 2))


def _told(table: Table) -> str:
    """What the times rest on."""
    if not table.calibrated:
        return f"table: {table.source}; `pycnn tune --backend cuda` measures on a GPU"
    where = f"{table.identity.device}, {table.identity.kind}"
    threads = f", {table.threads} threads" if table.identity.backend == "cpu" else ""
    return f"times: {table.source}, measured on {where}{threads}"


def _times(table: Table, operator: str, problem: Any, predicted: dict[str, float], name: str) -> tuple[str, str]:
    """The cells of an algorithm's two times."""
    from pycnn.shape import Problem
    from pycnn.tuning import duration

    measured = table.measured.get(str(Problem(problem.shape, operator, problem.dtype)), {})
    return tuple(duration(times[name]) if name in times else "" for times in (predicted, measured))  # type: ignore


def _cuda(operator: str, problem: Any) -> tuple[Any, Any, tuple[str, str], Table]:
    from pycnn import tuning

    host = _host()
    asked = (operator, problem.shape, problem.dtype, problem.layout == "nhwc")
    rows = []
    try:
        taken = host.conv2d_choose(*asked)
    except ValueError as error:  # the workspace limit allows none
        taken = ("none", str(error))
    table = tuning.in_force(host.identity)
    predicted = host.conv2d_predicted(operator, problem.shape, problem.dtype)
    for name, reason, workspace, work in host.conv2d_table(*asked):
        if reason is None:
            share = f"{work / max(problem.shape.macs, 1):.2f}"
            times = _times(table, operator, problem, predicted, name)
            rows.append((name, *times, _size(workspace), share, "taken" if name == taken[0] else ""))
        else:
            rows.append((name, "", "", "", "", reason))
    return _CUDA_COLUMNS, rows, taken, table


def _host() -> Any:
    """The current GPU's, where tables of GPUs are kept, else one that only plans."""
    from pycnn import backends
    from pycnn._files import cache_folder
    from pycnn.backends.cuda import Host
    from pycnn.backends.cuda.device_trace import TraceDevice
    from pycnn.jit.errors import MissingToolError

    if any(cache_folder().glob("tuning-cuda-*.json")):
        with contextlib.suppress(MissingToolError):
            return backends.get("cuda").host_on()
    return Host(TraceDevice())


def _cpu(operator: str, problem: Any) -> tuple[Any, Any, tuple[str, str], Table]:
    from pycnn import algorithms, tuning

    try:
        taken = algorithms.choose(operator, problem.shape, problem.dtype)
    except ValueError as error:  # the workspace limit allows none
        taken = ("none", str(error))
    table = tuning.in_force(tuning.of_cpu())
    predicted = algorithms.predicted(operator, problem.shape, problem.dtype)
    rows = []
    for name, reason in algorithms.candidates(operator, problem.shape, problem.dtype):
        times = ("", "") if reason else _times(table, operator, problem, predicted, name)
        spared = algorithms.spared(name, operator, problem.shape, problem.dtype)
        rows.append((name, *times, reason or ("taken" if name == taken[0] else spared or "")))
    return _CPU_COLUMNS, rows, taken, table


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count else "none"


def _print(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    filled = [i for i in range(len(columns)) if i == len(columns) - 1 or any(row[i] for row in rows)]
    lines = [tuple(line[i] for i in filled) for line in (columns, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(filled) - 1)]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:], strict=True)),
        ]
        print("  " + "  ".join([*cells, line[-1]]).rstrip())
