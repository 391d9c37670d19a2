"""From results to what is read: totals of a network, and the whole run as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycnn.bench.contest import Result, Row
from pycnn.bench.machine import Machine
from pycnn.bench.timing import Timing

__all__ = ["OURS", "NetworkRun", "as_dict", "gflops", "peer_names", "totals"]

OURS = "pycnn"  # what `auto` takes, layer by layer, as one contestant


@dataclass(frozen=True)
class NetworkRun:
    """What was measured of one network.

    Attributes:
        network: its name, "" for problems given by hand.
        batch: images at once; None for problems given by hand.
        results: its distinct layers, pass by pass.
        forward: of the whole network, where it was timed.
        missing: what could not run because the backend has no kernel for it, a sentence each.
    """

    network: str
    batch: int | None
    results: list[Result]
    forward: Timing | None = None
    missing: tuple[str, ...] = ()


def gflops(result: Result, row: Row) -> float:
    """10^9 floating-point operations of the direct form a second: Winograd may pass the machine's peak."""
    assert row.timing is not None, "only a timed row has a rate"
    return result.flops / row.timing.median / 1e9


def peer_names(results: Sequence[Result]) -> list[str]:
    """The registered kernels and the contestants of other frameworks, in order of appearance."""
    rows = [row for result in results for row in result.rows]
    return list(dict.fromkeys(row.contestant for row in rows if row.kind in ("own", "peer")))


def totals(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Seconds over all layers of a network (each times its count), by operator and contestant.

    OURS is `Result.taken` layer by layer; a contestant that misses a layer of an operator is left out there.
    """
    table: dict[str, dict[str, float]] = {}
    for operator in dict.fromkeys(result.operator for result in results):
        mine = [result for result in results if result.operator == operator]
        table[operator] = {}
        for name in (OURS, "numpy", *peer_names(mine)):
            rows = [result.taken if name == OURS else result.row(name) for result in mine]
            timings = [row.timing for row in rows if row is not None and row.timing is not None]
            if len(timings) == len(mine):
                counts = [result.workload.count for result in mine]
                table[operator][name] = sum(t.median * count for t, count in zip(timings, counts, strict=True))
    return table


def as_dict(machine: Machine, runs: Sequence[NetworkRun]) -> dict[str, Any]:
    """The whole run as plain values for JSON; times in seconds, rates in GFLOP/s."""
    return {
        "machine": machine.as_dict(),
        "networks": [
            {
                "network": run.network,
                "batch": run.batch,
                "missing": list(run.missing),
                "forward_seconds": None if run.forward is None else run.forward.median,
                "totals_seconds": totals(run.results),
                "layers": [_layer(result) for result in run.results],
            }
            for run in runs
        ],
    }


def _layer(result: Result) -> dict[str, Any]:
    workload, taken = result.workload, result.taken
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
        "taken": None if taken is None else taken.contestant,
        "refused": result.refused,
        "contestants": [_row(result, row) for row in result.rows],
    }


def _row(result: Result, row: Row) -> dict[str, Any]:
    timing = row.timing
    return {
        "name": row.contestant,
        "kind": row.kind,
        "seconds": None if timing is None else timing.median,
        "quartiles": None if timing is None else [timing.low, timing.high],
        "runs": 0 if timing is None else timing.runs,
        "gflops": None if timing is None else gflops(result, row),
        "error": row.error if math.isfinite(row.error) else None,  # JSON has no NaN
        "error_allowed": row.allowed,
        "note": row.note,
    }
