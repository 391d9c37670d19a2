"""One layer, one pass: every algorithm that can run it is checked against the oracle, then they race.

A contestant is a function without arguments that returns the result; what it returns is compared with the float64
reference before any clock starts, and one that is wrong is reported as wrong and never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pycnn import backends, ops
from pycnn.backends import reference
from pycnn.bench import numpy_rows
from pycnn.bench.peers import Peer
from pycnn.bench.timing import Timing, race
from pycnn.bench.workloads import Workload
from pycnn.shape import PASSES, Conv2dShape, Pool2dShape, Problem
from pycnn.testing import Operands, error_bound, run

__all__ = ["CONV_PASSES", "POOL_PASSES", "Result", "Row", "contest"]

CONV_PASSES = PASSES
POOL_PASSES = ("forward", "backward")


@dataclass(frozen=True)
class Row:
    """One contestant's figures on one pass of one layer.

    Attributes:
        contestant: an algorithm of ours, "numpy", or a peer.
        timing: None if the result was wrong (or it could not run, see `note`).
        error: max |y - y64| / max |y64|.
        allowed: the error's bound in the same units.
        note: why there is no figure, else "".
    """

    contestant: str
    timing: Timing | None
    error: float
    allowed: float
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Everything measured of one pass of one layer."""

    workload: Workload
    operator: str
    rows: list[Row]
    auto: str
    why: str
    refused: dict[str, str] = field(default_factory=dict)

    def row(self, contestant: str) -> Row | None:
        """The row of a contestant that has a time, or None."""
        return next((row for row in self.rows if row.contestant == contestant and row.timing is not None), None)

    @property
    def taken(self) -> Row | None:
        """The row of the algorithm that `auto` takes."""
        return self.row(self.auto)

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct form of this pass; 0 for pooling."""
        shape = self.workload.shape
        return shape.flops if isinstance(shape, Conv2dShape) else 0

    @property
    def bytes(self) -> int:
        """Fewest bytes this pass must move, in float32."""
        return self.workload.shape.bytes() if isinstance(self.workload.shape, Conv2dShape) else _pool_bytes(self)


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
        backend: whose algorithms run.
        algos: only these; empty for all that can run the problem.
        peers: frameworks to run beside ours.
        seconds: time to spend on each contestant.
    """
    if isinstance(workload.shape, Conv2dShape):
        return _contest_conv(workload, workload.shape, operator, backend, algos, peers, seconds)
    return _contest_pool(workload, workload.shape, operator, backend, seconds)


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
    problem = Problem(shape, operator)
    operands = _conv_operands(workload, shape, operator)
    known = dict(module.conv2d_algorithms(operator, shape, np.dtype(np.float32)))
    auto, why = module.conv2d_choose(operator, shape, np.dtype(np.float32))
    refused = {name: reason for name, reason in known.items() if reason is not None}
    wanted = [name for name in algos or known if name not in refused]
    contestants: dict[str, Callable[[], Any]] = {}
    for name in wanted:
        contestants[name] = _ours(shape, operator, operands, backend, name)
    contestants["numpy"] = _numpy(shape, operator, operands)
    for peer in peers:
        contestants.update(peer.contestants(shape, operator, operands.left, operands.right))
    wide = Operands(operands.left.astype(np.float64), operands.right.astype(np.float64))
    y64 = run(reference, problem, wide, "auto")
    # Peers and NumPy are held to the widest of our own bounds: they choose their algorithms themselves.
    bounds = {name: error_bound(problem, operands, y64, name if name in known else "auto") for name in contestants}
    return _judge(workload, operator, contestants, y64, bounds, auto, why, refused, seconds)


def _conv_operands(workload: Workload, shape: Conv2dShape, operator: str) -> Operands:
    w = workload.w
    assert w is not None, "a convolution's workload has filters"
    if operator == "fprop":
        return Operands(workload.x, w)
    dy = np.random.default_rng(0).standard_normal(shape.y_shape, np.float32)
    return Operands(dy, w) if operator == "dgrad" else Operands(dy, workload.x)


def _ours(shape: Conv2dShape, operator: str, operands: Operands, backend: str, algo: str) -> Callable[[], Any]:
    rest = (shape.stride, shape.padding, shape.dilation, shape.groups)
    left, right = operands.left, operands.right

    def call() -> Any:
        with backends.use_backend(backend):
            if operator == "fprop":
                return ops.conv2d_fprop(left, right, None, *rest, algo=algo)
            if operator == "dgrad":
                return ops.conv2d_dgrad(left, right, shape.x_shape, *rest, algo=algo)
            return ops.conv2d_wgrad(left, right, shape.w_shape, *rest, algo=algo)

    return call


def _numpy(shape: Conv2dShape, operator: str, operands: Operands) -> Callable[[], Any]:
    function = {"fprop": numpy_rows.fprop, "dgrad": numpy_rows.dgrad, "wgrad": numpy_rows.wgrad}[operator]
    return lambda: function(operands.left, operands.right, shape)


def _contest_pool(workload: Workload, shape: Pool2dShape, operator: str, backend: str, seconds: float) -> Result:
    maximum = workload.op == "max_pool2d"
    x = workload.x
    top, _, left, _ = shape.padding
    window = (shape.kernel, shape.stride, (top, left))
    pool = (*window, shape.dilation, shape.ceil_mode) if maximum else (*window, shape.ceil_mode, workload.count_pad)
    wide = x.astype(np.float64)
    indices = None
    with backends.use_backend("reference"):
        if maximum:
            y64, indices = ops.max_pool2d(wide, *pool)
        else:
            y64 = ops.avg_pool2d(wide, *pool)
        dy = np.random.default_rng(0).standard_normal(y64.shape, np.float32)
        dx64 = _pool_backward(dy.astype(np.float64), indices, x.shape, maximum, pool)

    def ours() -> Any:
        with backends.use_backend(backend):
            if operator == "backward":
                return _pool_backward(dy, indices, x.shape, maximum, pool)
            return ops.max_pool2d(x, *pool)[0] if maximum else ops.avg_pool2d(x, *pool)

    y = y64.astype(np.float32)
    if operator == "forward":
        row = (
            (lambda: numpy_rows.max_pool_fwd(x, shape))
            if maximum
            else (lambda: numpy_rows.avg_pool_fwd(x, shape, workload.count_pad))
        )
    else:
        row = (
            (lambda: numpy_rows.max_pool_bwd(dy, x, y, shape))
            if maximum
            else (lambda: numpy_rows.avg_pool_bwd(dy, shape, workload.count_pad))
        )
    contestants = {"native": ours, "numpy": row}
    right = y64 if operator == "forward" else dx64
    # At most one rounding for each of the values added up; the maximum itself is exact, its gradient a short sum.
    taps = shape.kernel[0] * shape.kernel[1]
    allowed = 2.0**-23 * taps * float(np.abs(right).max(initial=0.0))
    bounds = dict.fromkeys(contestants, allowed)
    return _judge(workload, operator, contestants, right, bounds, "native", "the only one", {}, seconds)


def _pool_backward(dy: Any, indices: Any, x_shape: tuple[int, ...], maximum: bool, pool: tuple[Any, ...]) -> Any:
    if maximum:
        return ops.max_pool2d_backward(dy, indices, x_shape, *pool)
    return ops.avg_pool2d_backward(dy, x_shape, *pool)


def _pool_bytes(result: Result) -> int:
    shape = result.workload.shape
    return 4 * shape.N * shape.C * (shape.H * shape.W + shape.P * shape.Q)


def _judge(
    workload: Workload,
    operator: str,
    contestants: dict[str, Callable[[], Any]],
    y64: np.ndarray,
    bounds: dict[str, float],
    auto: str,
    why: str,
    refused: dict[str, str],
    seconds: float,
) -> Result:
    scale = float(np.abs(y64).max(initial=0.0)) or 1.0
    rows: dict[str, Row] = {}
    for name, contestant in contestants.items():
        y = np.asarray(contestant())
        error = float(np.abs(y - y64).max(initial=0.0)) if y.shape == y64.shape else float("nan")
        right = error <= bounds[name]  # false for NaN
        note = "" if right else f"wrong: error {error:.3g}, allowed {bounds[name]:.3g}"
        rows[name] = Row(name, None, error / scale, bounds[name] / scale, note)
    timings = race({name: contestants[name] for name, row in rows.items() if not row.note}, seconds)
    finished = [Row(r.contestant, timings.get(name), r.error, r.allowed, r.note) for name, r in rows.items()]
    return Result(workload, operator, finished, auto, why, refused)
