"""One layer, one pass: every algorithm that can run it is checked against the oracle, then they race.

What a contestant returns is compared with the float64 reference before any clock starts, and one that is wrong is
reported as wrong and never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.bench.cases import Case, case_of
from pycnn.bench.gpu import event_slice, result_of
from pycnn.bench.processes import PeerProcess
from pycnn.bench.tasks import Call
from pycnn.bench.timing import Racer, Timing, race, timed_slice
from pycnn.bench.workloads import Workload
from pycnn.shape import PASSES, Conv2dShape

__all__ = ["CONV_PASSES", "POOL_PASSES", "Contestant", "Result", "Row", "contest"]

CONV_PASSES = PASSES
POOL_PASSES = ("forward", "backward")


@dataclass(frozen=True)
class Contestant(Racer):
    """A racer that is judged first.

    Attributes:
        kind: "ours", "own" (a registered kernel), "numpy" or "peer".
        result: returns what is judged.
        bound: the largest |y - y64| that still counts as right.
    """

    kind: str
    result: Callable[[], Any]
    bound: float


@dataclass(frozen=True)
class Row:
    """One contestant's figures on one pass of one layer.

    Attributes:
        contestant, kind: its name and kind.
        timing: None if the result was wrong.
        error: max |y - y64| / max |y64|; NaN for a result of another shape.
        allowed: the error's bound in the same units.
        note: what was wrong, else "".
    """

    contestant: str
    kind: str
    timing: Timing | None
    error: float
    allowed: float
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Everything measured of one pass of one layer.

    Attributes:
        auto, why: what ``algo="auto"`` takes, and the sentence saying why.
        refused: algorithms that cannot run the problem, and why.
    """

    workload: Workload
    operator: str
    rows: list[Row]
    auto: str
    why: str
    refused: dict[str, str]

    def row(self, contestant: str) -> Row | None:
        """The row of a contestant that has a time, or None."""
        return next((row for row in self.rows if row.contestant == contestant and row.timing is not None), None)

    @property
    def taken(self) -> Row | None:
        """The row of what `auto` takes; of the fastest of ours where that did not take part; None if none has a time.

        One that took part and was wrong is no reason to show another in its place.
        """
        ours = [row for row in self.rows if row.kind == "ours"]
        if any(row.contestant == self.auto for row in ours):
            return self.row(self.auto)
        timed = [(row.timing.median, i) for i, row in enumerate(ours) if row.timing is not None]
        return ours[min(timed)[1]] if timed else None

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct form of this pass; 0 for pooling."""
        shape = self.workload.shape
        return shape.flops if isinstance(shape, Conv2dShape) else 0

    @property
    def bytes(self) -> int:
        """Fewest bytes this pass must move."""
        return self.workload.shape.bytes(self.workload.x.dtype.itemsize)


def contest(
    workload: Workload,
    operator: str,
    backend: str = "cpu",
    algos: Sequence[str] = (),
    peers: Sequence[PeerProcess] = (),
    seconds: float = 0.1,
) -> Result:
    """Check, then time, every algorithm of `backend` on one pass of one layer, beside NumPy and the peers.

    Args:
        workload: the layer, with its real input.
        operator: one of CONV_PASSES for a convolution, of POOL_PASSES for pooling.
        backend: whose algorithms run: "cpu", "reference" or "sim" on NumPy arrays, "cuda" on a GPU's, timed by events.
        algos: only these families, variants and registered kernels; empty for all of pycnn's that can run the problem.
            Registered kernels alone race what auto takes.  Pooling has only one.
        peers: whom to run beside ours, NumPy among them.
        seconds: time to spend on each contestant, roughly.

    Raises:
        ValueError: a name in `algos` that the backend does not know.
        NotImplementedError: the backend has no kernel for this operator.
        ChildProcessError: a peer failed.
    """
    case = case_of(workload, operator, backend, algos)
    contestants = [_ours(name, call, "ours", case, backend) for name, call in case.ours.items()]
    contestants += [_ours(name, call, "own", case, backend) for name, call in case.own.items()]
    contestants += [_theirs(peer, name, case) for peer in peers for name in peer.prepare(case.task)]
    with backends.use_backend(backend):
        rows = _judge(contestants, case.y64, seconds)
    return Result(workload, operator, rows, case.auto, case.why, case.refused)


def _ours(name: str, call: Call, kind: str, case: Case, backend: str) -> Contestant:
    if backend == "cuda":
        return Contestant(name, "pycnn", event_slice(call), kind, result_of(call), case.bounds[name])
    return Contestant(name, "pycnn", partial(timed_slice, call), kind, call, case.bounds[name])


def _theirs(peer: PeerProcess, name: str, case: Case) -> Contestant:
    kind = "numpy" if name == "numpy" else "peer"
    return Contestant(name, peer.name, partial(peer.slice, name), kind, partial(peer.result, name), case.bound)


def _judge(contestants: Sequence[Contestant], y64: np.ndarray, seconds: float) -> list[Row]:
    scale = float(np.abs(y64).max(initial=0.0)) or 1.0
    errors = {one.name: _error(np.asarray(one.result()), y64) for one in contestants}
    right = [one for one in contestants if errors[one.name] <= one.bound]  # false for NaN
    timings = race(right, seconds)
    return [
        Row(
            one.name,
            one.kind,
            timings.get(one.name),
            errors[one.name] / scale,
            one.bound / scale,
            "" if one in right else f"wrong: error {errors[one.name]:.3g}, allowed {one.bound:.3g}",
        )
        for one in contestants
    ]


def _error(y: np.ndarray, y64: np.ndarray) -> float:
    return float(np.abs(y - y64).max(initial=0.0)) if y.shape == y64.shape else float("nan")
