"""What the kernels' tests share: a simulated device for each order of threads, and problems nobody thought of."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device import Argument, Extent
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import Operands, half_dtypes, oracle
from pycnn.testing.regimes import dtype_of

ORDERS = ("forward", "reverse", "random")
DEVICES = {order: Simulated(Host(SimDevice(order=order, seed=7))) for order in ORDERS}


def random_problems(count: int) -> list[Problem]:
    """Shapes that nobody thought of: filters, strides, dilations, paddings and groups mixed; the same in every run."""
    rng = random.Random(2026)
    found: list[Problem] = []
    while len(found) < count:
        groups, any_filter = rng.choice([1, 1, 2, 3]), (rng.randint(1, 6), rng.randint(1, 6))
        R, S = rng.choice([(1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (11, 11), any_filter])
        stride = rng.choice([(1, 1), (2, 2), (4, 4), (rng.randint(1, 4), rng.randint(1, 4))])
        dilation = rng.choice([(1, 1), (1, 1), (rng.randint(1, 3), rng.randint(1, 3))])
        top, bottom, left, right = (rng.randint(0, 6) for _ in range(4))
        sizes = (rng.randint(1, 3), groups * rng.randint(1, 20), rng.randint(1, 40), rng.randint(1, 70))
        try:
            shape = Conv2dShape(
                *sizes, groups * rng.randint(1, 70), R, S, stride, (top, bottom, left, right), dilation, groups
            )
        except ValueError:
            continue  # the filter does not fit
        if shape.macs < 5_000_000:
            found.append(Problem(shape))
    return found


HALVES = tuple(str(dtype) for dtype in half_dtypes())


def ending(problem: Problem) -> str:
    """How the names of the instances end that are for the problem's dtype."""
    return str(DEVICES["forward"].host.ending("a convolution", problem.dtype))


def in_halves(given: Iterable[Problem]) -> list[Problem]:
    """The problems in float16 and in bfloat16."""
    return [replace(problem, dtype=dtype) for dtype in HALVES for problem in given]


def by_cost(problem: Problem, most_macs: int = 60_000) -> tuple[()] | pytest.MarkDecorator:
    """Of 16 bits the fast run has small problems, and no bfloat16, which differs from float16 in conversions alone."""
    fast = problem.dtype == "float32" or (problem.dtype == "float16" and problem.shape.macs <= most_macs)
    return () if fast else pytest.mark.slow


def rounded(problem: Problem, operands: Operands) -> np.ndarray:
    """The exact result, rounded once."""
    return oracle(problem, operands).astype(dtype_of(problem))


class Ends(SimDevice):
    """Runs the first and the last block of every launch, for arrays too large to go through, and those `also` named."""

    also: tuple[int, ...] = ()

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        last = grid[0] * grid[1] * grid[2] - 1
        self.blocks = sorted({0, last, *(block for block in self.also if block < last)})
        super().launch(kernel, grid, block, shared, arguments)


def results(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)


def in_every_order(call: Callable[[Any], Any]) -> tuple[np.ndarray, ...]:
    """What `call` makes of a backend, after asserting that the order of threads and blocks does not change a bit."""
    found = [results(call(DEVICES[order])) for order in ORDERS]
    for other in found[1:]:
        assert [array.tobytes() for array in other] == [array.tobytes() for array in found[0]]
    return found[0]


def wide(*arrays: Any) -> list[Any]:
    """The float32 arrays among the arguments, in float64: for an oracle that rounds nothing."""
    return [
        array.astype(np.float64) if isinstance(array, np.ndarray) and array.dtype == np.float32 else array
        for array in arrays
    ]


def close(found: np.ndarray, expected: np.ndarray, roundings: float, scale: float | None = None) -> None:
    """|found - expected| is at most `roundings` of float32 at `scale`, by default the largest magnitude."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    if scale is None:
        scale = float(np.abs(expected[finite]).max(initial=0.0))
    np.testing.assert_allclose(found[finite], expected[finite], rtol=0, atol=roundings * 2.0**-24 * scale)


def ulps(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest error of float32 results in units in the last place; infinities and NaN must agree."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    errors = np.abs(found[finite].astype(np.float64) - expected[finite]) / np.spacing(np.abs(rounded[finite]))
    return float(errors.max(initial=0))


def view_off_by_one(device: SimDevice, array: np.ndarray) -> Any:
    """A copy on the device that starts one element past a multiple of 16 bytes, as a view into something else may."""
    room = device.alloc((array.size + 1,), array.dtype)
    view = room[1:].reshape(array.shape)
    device.fill(view, array)
    return view
