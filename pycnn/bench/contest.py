"""One layer, one pass: every algorithm that can run it is checked against the oracle, then they race.

A contestant is a function without arguments that returns the result; what it returns is compared with the float64
reference before any clock starts, and one that is wrong is reported as wrong and never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn import backends, ops
from pycnn.algorithms import FAMILIES
from pycnn.bench import numpy_rows
from pycnn.bench.peers import Peer
from pycnn.bench.timing import Timing, race
from pycnn.bench.workloads import Workload
from pycnn.shape import PASSES, Conv2dShape, Pool2dShape, Problem
from pycnn.testing import Operands, error_bound, magnitudes, oracle

__all__ = ["CONV_PASSES", "POOL_PASSES", "Contestant", "Result", "Row", "contest", "conv_call"]

CONV_PASSES = PASSES
POOL_PASSES = ("forward", "backward")

Call = Callable[[], Any]


@dataclass(frozen=True)
class Contestant:
    """What takes part.

    Attributes:
        name: an algorithm of ours, "numpy", or a peer.
        kind: "ours", "numpy" or "peer".
        call: returns the result.
        bound: the largest |y - y64| that still counts as right.
    """

    name: str
    kind: str
    call: Call
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
        """Fewest bytes this pass must move, in float32."""
        return self.workload.shape.bytes()


def contest(
    workload: Workload,
    operator: str,
    backend: str = "cpu",
    algos: Sequence[str] = (),
    peers: Sequence[Peer] = (),
    seconds: float = 0.1,
) -> Result:
    """Check, then time, every algorithm of `backend` on one pass of one layer, beside NumPy and the peers.

    Args:
        workload: the layer, with its real input.
        operator: one of CONV_PASSES for a convolution, of POOL_PASSES for pooling.
        backend: whose algorithms run, on NumPy arrays: "cpu", "reference" or "sim".
        algos: only these families and variants; empty for all that can run the problem.  Pooling has only one.
        peers: frameworks to run beside ours; convolutions only.
        seconds: time to spend on each contestant, roughly.

    Raises:
        ValueError: a name in `algos` that the backend does not know.
        NotImplementedError: the backend has no kernel for this operator.
    """
    if isinstance(workload.shape, Conv2dShape):
        return _contest_conv(workload, workload.shape, operator, backend, algos, peers, seconds)
    return _contest_pool(workload, workload.shape, operator, backend, seconds)


# ---------------------------------------------------------------------------------------------------- convolution


def _contest_conv(
    workload: Workload,
    shape: Conv2dShape,
    operator: str,
    backend: str,
    algos: Sequence[str],
    peers: Sequence[Peer],
    seconds: float,
) -> Result:
    module = backends.get(backend)
    known = dict(module.conv2d_algorithms(operator, shape, np.dtype(np.float32)))
    auto, why = module.conv2d_choose(operator, shape, np.dtype(np.float32))
    refused = {name: reason for name, reason in known.items() if reason is not None}
    ours = [name for name in _asked(algos, known) if name not in refused]

    problem, operands = Problem(shape, operator), _conv_operands(workload, shape, operator)
    y64, largest = oracle(problem, operands), oracle(problem, magnitudes(operands))

    def bound(algo: str) -> float:
        return error_bound(problem, operands, y64, algo, largest)

    contestants = [Contestant(name, "ours", conv_call(problem, operands, name), bound(name)) for name in ours]
    # Peers and NumPy are held to the widest of our own bounds: they choose their algorithms themselves.
    contestants.append(Contestant("numpy", "numpy", conv_call(problem, operands, "numpy"), bound("auto")))
    for peer in peers:
        calls = peer.contestants(shape, operator, operands.left, operands.right)
        contestants += [Contestant(name, "peer", call, bound("auto")) for name, call in calls.items()]
    with backends.use_backend(backend):
        rows = _judge(contestants, y64, seconds)
    return Result(workload, operator, rows, auto, why, refused)


def _asked(algos: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The names in `known` that `algos` means: variants by name, or all of a family."""
    unknown = [algo for algo in algos if algo not in known and algo not in FAMILIES]
    if unknown:
        raise ValueError(f"algorithms must be among {', '.join((*FAMILIES, *known))}, got {unknown[0]!r}")
    return [name for name in known if not algos or name in algos or name.partition("_")[0] in algos]


def _conv_operands(workload: Workload, shape: Conv2dShape, operator: str) -> Operands:
    w = workload.w
    assert w is not None, "a convolution's workload has filters"
    if operator == "fprop":
        return Operands(workload.x, w)
    dy = np.random.default_rng(0).standard_normal(shape.y_shape, np.float32)
    return Operands(dy, w) if operator == "dgrad" else Operands(dy, workload.x)


def conv_call(problem: Problem, operands: Operands, name: str) -> Call:
    """One pass of a convolution as a function without arguments.

    Args:
        name: an algorithm, through the public operator and the backend in force when it is called; or "numpy".
    """
    shape, left, right = problem.shape, operands.left, operands.right
    if name == "numpy":
        row = {"fprop": numpy_rows.fprop, "dgrad": numpy_rows.dgrad, "wgrad": numpy_rows.wgrad}[problem.operator]
        return lambda: row(left, right, shape)
    how = (shape.stride, shape.padding, shape.dilation, shape.groups)
    if problem.operator == "fprop":
        return lambda: ops.conv2d_fprop(left, right, None, *how, algo=name)
    if problem.operator == "dgrad":
        return lambda: ops.conv2d_dgrad(left, right, shape.x_shape, *how, algo=name)
    return lambda: ops.conv2d_wgrad(left, right, shape.w_shape, *how, algo=name)


# -------------------------------------------------------------------------------------------------------- pooling


def _contest_pool(workload: Workload, shape: Pool2dShape, operator: str, backend: str, seconds: float) -> Result:
    calls = _max_pool_calls if workload.op == "max_pool2d" else _avg_pool_calls
    with backends.use_backend("reference"):
        ours, numpy_row, y64, operand = calls(workload, shape, operator)
    # No value of a result is a sum of more than R * S of the operand's, each with its rounding.
    bound = shape.kernel[0] * shape.kernel[1] * 2.0**-23 * float(np.abs(operand).max(initial=0.0))
    contestants = [Contestant("native", "ours", ours, bound), Contestant("numpy", "numpy", numpy_row, bound)]
    with backends.use_backend(backend):
        rows = _judge(contestants, y64, seconds)
    return Result(workload, operator, rows, "native", "the only one", {})


def _max_pool_calls(workload: Workload, shape: Pool2dShape, operator: str) -> tuple[Call, Call, np.ndarray, np.ndarray]:
    """Our call, NumPy's, the exact result, and what it is made from."""
    x = workload.x
    top, _, left, _ = shape.padding
    how = (shape.kernel, shape.stride, (top, left), shape.dilation, shape.ceil_mode)
    y64, indices = ops.max_pool2d(x.astype(np.float64), *how)
    if operator == "forward":
        return lambda: ops.max_pool2d(x, *how)[0], lambda: numpy_rows.max_pool_fwd(x, shape), y64, x
    y, dy = y64.astype(np.float32), _gradient(y64)
    dx64 = ops.max_pool2d_backward(dy.astype(np.float64), indices, x.shape, *how)
    return (
        lambda: ops.max_pool2d_backward(dy, indices, x.shape, *how),
        lambda: numpy_rows.max_pool_bwd(dy, x, y, shape),
        dx64,
        dy,
    )


def _avg_pool_calls(workload: Workload, shape: Pool2dShape, operator: str) -> tuple[Call, Call, np.ndarray, np.ndarray]:
    x, count_pad = workload.x, workload.count_pad
    top, _, left, _ = shape.padding
    how = (shape.kernel, shape.stride, (top, left), shape.ceil_mode, count_pad)
    y64 = ops.avg_pool2d(x.astype(np.float64), *how)
    if operator == "forward":
        return lambda: ops.avg_pool2d(x, *how), lambda: numpy_rows.avg_pool_fwd(x, shape, count_pad), y64, x
    dy = _gradient(y64)
    dx64 = ops.avg_pool2d_backward(dy.astype(np.float64), x.shape, *how)
    return (
        lambda: ops.avg_pool2d_backward(dy, x.shape, *how),
        lambda: numpy_rows.avg_pool_bwd(dy, shape, count_pad),
        dx64,
        dy,
    )


def _gradient(y: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(y.shape, np.float32)


# -------------------------------------------------------------------------------------------------------- judging


def _judge(contestants: Sequence[Contestant], y64: np.ndarray, seconds: float) -> list[Row]:
    scale = float(np.abs(y64).max(initial=0.0)) or 1.0
    errors = {one.name: _error(np.asarray(one.call()), y64) for one in contestants}
    right = {one.name: one.call for one in contestants if errors[one.name] <= one.bound}  # false for NaN
    timings = race(right, seconds)
    return [
        Row(
            one.name,
            one.kind,
            timings.get(one.name),
            errors[one.name] / scale,
            one.bound / scale,
            "" if one.name in right else f"wrong: error {errors[one.name]:.3g}, allowed {one.bound:.3g}",
        )
        for one in contestants
    ]


def _error(y: np.ndarray, y64: np.ndarray) -> float:
    return float(np.abs(y - y64).max(initial=0.0)) if y.shape == y64.shape else float("nan")
