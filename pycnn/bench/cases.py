"""What a contest needs to know of one pass of one layer: the task, the exact result, our ways to do it, the bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn import backends, ops
from pycnn.algorithms import FAMILIES
from pycnn.arrays import parse_device, place
from pycnn.bench.gpu import on_device
from pycnn.bench.tasks import Call, Task
from pycnn.bench.workloads import Workload
from pycnn.custom import registry
from pycnn.shape import Conv2dShape, Pool2dShape
from pycnn.testing import Operands, channels_last, error_bound, magnitudes, oracle

__all__ = ["Case", "case_of", "conv_call"]


@dataclass(frozen=True)
class Case:
    """One pass of one layer, solved exactly.

    Attributes:
        task: what there is to do.
        y64: the exact result.
        ours: our ways to do it, by name, for the backend in force when they are called.
        own: the registered kernels among those asked for, likewise.
        bounds: the largest |y - y64| that still counts as right, for each of `ours` and `own`.
        bound: the same for everybody else: the widest of ours, since they choose their algorithms themselves.
        auto, why: what ``algo="auto"`` takes, and the sentence saying why.
        refused: algorithms that cannot run the problem, and why.
    """

    task: Task
    y64: np.ndarray
    ours: dict[str, Call]
    own: dict[str, Call]
    bounds: dict[str, float]
    bound: float
    auto: str
    why: str
    refused: dict[str, str]


def case_of(workload: Workload, operator: str, backend: str, algos: Sequence[str]) -> Case:
    """The case of one pass of one layer on `backend`; see `pycnn.bench.contest.contest`."""
    if isinstance(workload.shape, Conv2dShape):
        return _conv_case(workload, workload.shape, operator, backend, algos)
    return _pool_case(workload, workload.shape, operator, backend)


# ---------------------------------------------------------------------------------------------------- convolution


def _conv_case(workload: Workload, shape: Conv2dShape, operator: str, backend: str, algos: Sequence[str]) -> Case:
    module = backends.get(backend)
    problem, operands = replace(workload.problem, operator=operator), _conv_operands(workload, shape, operator)
    asked_for: tuple[Any, ...] = (operator, shape, np.dtype(np.float32))  # which 16 bits are widened to elsewhere
    if backend in ("sim", "cuda"):
        asked_for = (operator, shape, workload.x.dtype, problem.layout == "nhwc")
    known = dict(module.conv2d_algorithms(*asked_for))
    auto, why = module.conv2d_choose(*asked_for)
    kernels = [kernel for name in algos if (kernel := registry.find(name))]
    own = [kernel.name for kernel in kernels]
    asked = [name for name in algos if name not in own]
    alone = bool(own) and not asked  # beside kernels of the user's own alone, auto's choice races
    reasons = known | {kernel.name: kernel.refuses(operator, shape, problem.dtype, backend) for kernel in kernels}
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    ours = [name for name in ([auto] if alone else _asked(asked, known)) if name not in refused]
    own = [name for name in own if name not in refused]

    y64, largest = oracle(problem, operands), oracle(problem, magnitudes(operands))
    task = Task("conv2d", operator, shape, (operands.left, operands.right), dtype=problem.dtype)
    here = on_device(task) if backend == "cuda" else task
    return Case(
        replace(task, arrays=tuple(np.ascontiguousarray(array, np.float32) for array in task.arrays)),
        y64,
        {name: conv_call(here, name) for name in ours},
        {name: conv_call(here, name) for name in own},
        {name: error_bound(problem, operands, y64, registry.stands_for(name), largest) for name in (*ours, *own)},
        error_bound(problem, operands, y64, "auto", largest),
        auto,
        why,
        refused,
    )


def _asked(algos: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The names in `known` that `algos` means: variants by name, or all of a family."""
    unknown = [algo for algo in algos if algo not in known and algo not in FAMILIES]
    if unknown:
        names = ", ".join(dict.fromkeys((*FAMILIES, *known)))
        raise ValueError(f"algorithms must be among {names} and the registered kernels, got {unknown[0]!r}")
    return [name for name in known if not algos or name in algos or name.partition("_")[0] in algos]


def _conv_operands(workload: Workload, shape: Conv2dShape, operator: str) -> Operands:
    w = workload.w
    assert w is not None, "a convolution's workload has filters"
    if operator == "fprop":
        return Operands(workload.x, w)
    dy = _gradient(shape.y_shape).astype(w.dtype)
    dy = dy if workload.x.flags.c_contiguous else channels_last(dy)
    return Operands(dy, w) if operator == "dgrad" else Operands(dy, workload.x)


def conv_call(task: Task, algo: str) -> Call:
    """A convolution task as a function without arguments: the public operator, with `algo` forced."""
    shape, (left, right) = task.shape, task.arrays
    assert isinstance(shape, Conv2dShape), "a convolution's task has a convolution's shape"
    how = (shape.stride, shape.padding, shape.dilation, shape.groups)
    if task.operator == "fprop":
        return lambda: ops.conv2d_fprop(left, right, None, *how, algo=algo)
    if task.operator == "dgrad":
        return lambda: ops.conv2d_dgrad(left, right, shape.x_shape, *how, algo=algo)
    return lambda: ops.conv2d_wgrad(left, right, shape.w_shape, *how, algo=algo)


# -------------------------------------------------------------------------------------------------------- pooling


def _pool_case(workload: Workload, shape: Pool2dShape, operator: str, backend: str) -> Case:
    solve = _max_pool if workload.op == "max_pool2d" else _avg_pool
    with backends.use_backend("reference"):
        make, y64, arrays, inputs = solve(workload, shape, operator)
    call = make(*(place(array, parse_device("cuda")) for array in inputs) if backend == "cuda" else inputs)
    # No value of a result is a sum of more than R * S of the first operand's, each with its rounding.
    bound = shape.kernel[0] * shape.kernel[1] * 2.0**-23 * float(np.abs(arrays[0]).max(initial=0.0))
    task = Task(workload.op, operator, shape, arrays, workload.count_pad)
    return Case(task, y64, {"native": call}, {}, {"native": bound}, bound, "native", "the only one", {})


Arrays = tuple[np.ndarray, ...]
Solution = tuple[Callable[..., Call], Any, Arrays, tuple[Any, ...]]


def _max_pool(workload: Workload, shape: Pool2dShape, operator: str) -> Solution:
    """What makes our call from the arrays that come last, the exact result, and what the task is made from."""
    x = workload.x
    top, _, left, _ = shape.padding
    how = (shape.kernel, shape.stride, (top, left), shape.dilation, shape.ceil_mode)
    y64, indices = ops.max_pool2d(x.astype(np.float64), *how)
    if operator == "forward":
        return lambda x: lambda: ops.max_pool2d(x, *how)[0], y64, (x,), (x,)
    dy = _gradient(y64.shape)
    dx64 = ops.max_pool2d_backward(dy.astype(np.float64), indices, x.shape, *how)
    return (
        lambda dy, indices: lambda: ops.max_pool2d_backward(dy, indices, x.shape, *how),
        dx64,
        (dy, x, y64.astype(np.float32)),
        (dy, indices),
    )


def _avg_pool(workload: Workload, shape: Pool2dShape, operator: str) -> Solution:
    x = workload.x
    top, _, left, _ = shape.padding
    how = (shape.kernel, shape.stride, (top, left), shape.ceil_mode, workload.count_pad)
    y64 = ops.avg_pool2d(x.astype(np.float64), *how)
    if operator == "forward":
        return lambda x: lambda: ops.avg_pool2d(x, *how), y64, (x,), (x,)
    dy = _gradient(y64.shape)
    dx64 = ops.avg_pool2d_backward(dy.astype(np.float64), x.shape, *how)
    return lambda dy: lambda: ops.avg_pool2d_backward(dy, x.shape, *how), dx64, (dy,), (dy,)


def _gradient(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)
