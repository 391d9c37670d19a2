"""From results to what is read: totals of a network, and the whole run as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycnn.bench.contest import Result, Row
from pycnn.bench.machine import Machine
from pycnn.bench.timing import Timing

__all__ = ["NetworkRun", "as_dict", "gflops", "peer_names", "totals"]


@dataclass(frozen=True)
class NetworkRun:
    """One network's layers, and the time of its whole forward pass (None for problems given by hand)."""

    network: str
    batch: int
    results: list[Result]
    forward: Timing | None


def gflops(result: Result, row: Row) -> float:
    """10^9 floating-point operations of the direct form a second: Winograd may pass the machine's peak."""
    assert row.timing is not None, "only a timed row has a rate"
    return result.flops / row.timing.median / 1e9


def peer_names(results: Sequence[Result]) -> list[str]:
    """The contestants that are neither ours nor NumPy, in order of appearance."""
    ours = {"numpy"} | {name for result in results for name in (*result.refused, result.auto)}
    ours |= {row.contestant for result in results for row in result.rows if row.contestant.startswith(_FAMILIES)}
    return list(dict.fromkeys(r.contestant for result in results for r in result.rows if r.contestant not in ours))


_FAMILIES = ("direct", "im2col", "winograd", "native")


def totals(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Seconds over all layers of a network (each times its count), by operator and contestant.

    "auto" is what `auto` takes layer by layer; a contestant that misses a layer of an operator is left out there.
    """
    table: dict[str, dict[str, float]] = {}
    for operator in dict.fromkeys(result.operator for result in results):
        mine = [result for result in results if result.operator == operator]
        names = ["auto", "numpy", *peer_names(mine)]
        for name in names:
            rows = [result.row(result.auto if name == "auto" else name) for result in mine]
            if all(row is not None for row in rows):
                seconds = sum(
                    row.timing.median * result.workload.count
                    for row, result in zip(rows, mine, strict=True)
                    if row is not None and row.timing is not None
                )
                table.setdefault(operator, {})[name] = seconds
    return table


def as_dict(machine: Machine, runs: Sequence[NetworkRun]) -> dict[str, Any]:
    """The whole run as plain values; times in seconds, rates in GFLOP/s."""
    return {
        "machine": machine.as_dict(),
        "networks": [
            {
                "network": run.network,
                "batch": run.batch,
                "forward_seconds": None if run.forward is None else run.forward.median,
                "totals_seconds": totals(run.results),
                "layers": [_layer(result) for result in run.results],
            }
            for run in runs
        ],
    }


def _layer(result: Result) -> dict[str, Any]:
    workload = result.workload
    return {
        "layer": workload.name,
        "op": workload.op,
        "count": workload.count,
        "problem": str(workload.shape),
        "pass": result.operator,
        "flops": result.flops,
        "bytes": result.bytes,
        "auto": result.auto,
        "why": result.why,
        "refused": result.refused,
        "contestants": [_row(result, row) for row in result.rows],
    }


def _row(result: Result, row: Row) -> dict[str, Any]:
    timing = row.timing
    return {
        "name": row.contestant,
        "seconds": None if timing is None else timing.median,
        "quartiles": None if timing is None else [timing.low, timing.high],
        "runs": 0 if timing is None else timing.runs,
        "gflops": None if timing is None else gflops(result, row),
        "error": row.error,
        "error_allowed": row.allowed,
        "note": row.note,
    }
