"""Pooling on the CUDA backend's host code and kernels, in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, pool
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.backends.cuda.layout import PoolAxis
from pycnn.backends.cuda.pool import KERNELS, PoolProblem, pool_plan
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Pair, Pool2dShape
from pycnn.testing import ADAPTIVE_POOLS, check_adaptive_pool2d, check_pool2d, pools, random_pools
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

DEVICES = {order: Simulated(Host(SimDevice(order=order, seed=7))) for order in ("forward", "reverse", "random")}
FORWARD = DEVICES["forward"]
LISTED = [*pools(), *random_pools(40)]
NO_PADDING = (0, 0, 0, 0)


@pytest.fixture(params=["narrow", "wide"])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the instances with 32-bit coordinates run, or those with 64-bit ones."""
    if request.param == "wide":
        monkeypatch.setattr(pool, "NARROW", 0)
    return str(request.param)


def ran(backend: Simulated, before: int) -> set[str]:
    return {instance.name for instance in backend.host.device.launches[before:]}


@pytest.mark.parametrize("shape", LISTED, ids=str)
def test_problem_list(shape: Pool2dShape, width: str) -> None:
    backend = DEVICES["random"]
    before = len(backend.host.device.launches)
    check_pool2d(backend, shape)
    assert ran(backend, before) == ({width} if shape.N else set())


@pytest.mark.parametrize(("x_shape", "out"), ADAPTIVE_POOLS, ids=str)
def test_adaptive_list(x_shape: tuple[int, int, int, int], out: Pair, width: str) -> None:
    backend = DEVICES["random"]
    before = len(backend.host.device.launches)
    check_adaptive_pool2d(backend, x_shape, out)
    assert ran(backend, before) == ({f"adaptive_{width}"} if x_shape[0] else set())


@pytest.mark.parametrize("order", DEVICES)
def test_every_order_of_threads(order: str) -> None:
    check_pool2d(DEVICES[order], Pool2dShape(2, 3, 17, 19, (3, 3), (2, 1), (1, 0, 1, 1)))
    check_adaptive_pool2d(DEVICES[order], (2, 3, 13, 17), (5, 4))


def calls(kernel: str) -> list[Callable[[Any], Any]]:
    """Regular and adaptive pooling by one kernel, on integers that every divisor divides."""
    rng = np.random.default_rng(0)
    x = rng.choice(np.array([0, 1, 2, 4, np.nan, -np.inf], np.float32), (2, 3, 9, 10))
    image = 36 * np.nan_to_num(x, neginf=-3)
    window, average = ((3, 3), (2, 2), (1, 1, 1, 1)), (False, False, None)
    _, indices = reference.max_pool2d_fwd(x, *window, (1, 1), False)
    _, even = reference.adaptive_max_pool2d_fwd(x, (4, 3))
    dy, dy_even = (36 * rng.integers(-9, 10, like.shape).astype(np.float32) for like in (indices, even))
    return {
        "max_pool2d_fwd": [
            lambda backend: backend.max_pool2d_fwd(x, *window, (1, 1), False),
            lambda backend: backend.adaptive_max_pool2d_fwd(x, (4, 3)),
        ],
        "max_pool2d_bwd": [
            lambda backend: backend.max_pool2d_bwd(dy, indices, x.shape, *window, (1, 1)),
            lambda backend: backend.adaptive_max_pool2d_bwd(dy_even, even, x.shape),
        ],
        "avg_pool2d_fwd": [
            lambda backend: backend.avg_pool2d_fwd(image, *window, *average),
            lambda backend: backend.adaptive_avg_pool2d_fwd(image, (4, 3)),
        ],
        "avg_pool2d_bwd": [
            lambda backend: backend.avg_pool2d_bwd(dy, x.shape, *window, *average),
            lambda backend: backend.adaptive_avg_pool2d_bwd(dy_even, x.shape),
        ],
        "plane_take": [lambda backend: backend.plane_take(x, indices)],
    }[kernel]


@pytest.mark.nvrtc
@pytest.mark.parametrize("kernel", KERNELS)
def test_ptx_is_exact(kernel: str, width: str) -> None:
    device = PtxDevice()
    for call in calls(kernel):
        for one, wanted in zip(_tuple(call(Simulated(Host(device)))), _tuple(call(reference)), strict=True):
            np.testing.assert_array_equal(one, wanted)
    names = {f"{form}{width}" for form in ("", "adaptive_")} if kernel != "plane_take" else {width}
    assert {(instance.kernel, instance.name) for instance in device.launches} == {(kernel, name) for name in names}


def _tuple(result: object) -> tuple:
    return result if isinstance(result, tuple) else (result,)


def test_index_outside_its_plane_or_window_reads_nothing() -> None:
    x, indices = np.ones((1, 1, 2, 2), np.float32), np.array([[-1, 3, 4], [-(2**63), 3, 2**63 - 1]])[None, None]
    nan = np.nan
    np.testing.assert_array_equal(FORWARD.plane_take(x, indices)[0, 0], [[0, 1, nan], [nan, 1, nan]])
    dy = np.ones(indices.shape, np.float32)
    dx = FORWARD.max_pool2d_bwd(dy, indices, x.shape, (2, 2), (1, 1), (1, 0, 1, 1), (1, 1))
    np.testing.assert_array_equal(dx[0, 0], [[0, 0], [0, 1]])  # window (0, 1) does not reach pixel 3


def test_past_two_to_the_31_elements() -> None:
    """x, y and indices of 2^31 elements and more, in mappings that nobody touches but the first and the last block."""
    size = (1, 1, 4, 2**29 + 40)
    device = SimDevice()
    host = Host(device)
    ones = ((1, 1), (1, 1), NO_PADDING)
    problem = PoolProblem.windows(size, size[2:], *ones, (1, 1))
    grid = pool_plan("max_pool2d_fwd", problem, int(np.prod(size)), host.sources).grid
    x = device.alloc(size, np.float32)
    x[0, 0, 0, :3], x[0, 0, 3, -3:] = (1, 2, 3), (6, 7, 8)
    device.blocks = [0, grid[0] * grid[1] - 1]
    y, indices = host.max_pool2d_fwd(x, *ones, (1, 1), False)
    last = int(np.prod(size)) - 1
    assert (y[0, 0, 0, :3].tolist(), y[0, 0, 3, -3:].tolist()) == ([1, 2, 3], [6, 7, 8])
    assert indices is not None
    assert indices[0, 0, 0, :3].tolist() == [0, 1, 2]
    assert indices[0, 0, 3, -3:].tolist() == [last - 2, last - 1, last]
    for found in (
        host.max_pool2d_bwd(x, indices, size, *ones, (1, 1)),
        host.plane_take(x, indices),
        host.avg_pool2d_fwd(x, *ones, False, True, 2),
        host.avg_pool2d_bwd(x, size, *ones, False, True, 2),
    ):
        scale = found[0, 0, 0, 0].item()
        assert scale in (1, 0.5)
        assert found[0, 0, 3, -3:].tolist() == [6 * scale, 7 * scale, 8 * scale]
    assert {instance.name for instance in device.launches} == {"wide"}


def test_grid_goes_on_in_a_second_row(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    """With rows of four blocks: the last one is ragged."""
    monkeypatch.setattr(pool, "grid_of", lambda blocks: (4, -(-blocks // 4), 1))
    shape = Pool2dShape(2, 3, 17, 19, (3, 3), (1, 1), (1, 1, 1, 1))
    problem = PoolProblem.windows((2, 3, 17, 19), (17, 19), *((3, 3), (1, 1)), shape.padding, (1, 1))
    assert pool_plan("max_pool2d_fwd", problem, 2 * 3 * 17 * 19, installed()).grid == (4, 2, 1)
    check_pool2d(FORWARD, shape)


def test_grid_of_two_to_the_40_elements_is_within_the_limits() -> None:
    problem = PoolProblem.even((2**40, 1, 1, 1), (1, 1))
    plan = pool_plan("avg_pool2d_fwd", problem, 2**40 + 5, installed())
    assert plan.instance.name == "adaptive_wide"
    assert plan.grid == (2**30, 5, 1)


@pytest.mark.parametrize(
    ("problem", "elements", "name"),
    [
        (PoolProblem.even((1, 1, 7, 7), (1, 1)), 2**31 - 256, "adaptive_narrow"),
        (PoolProblem.even((1, 1, 7, 7), (1, 1)), 2**31 - 255, "adaptive_wide"),
        (PoolProblem.even((1, 1, 1, 2**16), (1, 2**15)), 1, "adaptive_wide"),
        (PoolProblem.even((1, 1, 1, 2**16 - 1), (1, 2**15 - 1)), 1, "adaptive_wide"),
        (PoolProblem.even((1, 1, 2**16 - 1, 1), (2**15 - 1, 1)), 1, "adaptive_wide"),
        (PoolProblem.even((1, 1, 1, 2**16 - 2), (1, 2**15 - 1)), 1, "adaptive_narrow"),
        (PoolProblem.windows((1, 1, 9, 9), (1, 1), (2, 1), (1, 1), NO_PADDING, (2**30, 1)), 1, "wide"),
        (PoolProblem.windows((1, 1, 9, 9), (1, 1), (2, 1), (1, 1), NO_PADDING, (2**29, 1)), 1, "narrow"),
    ],
)
def test_32_bit_kernels_leave_large_problems_to_the_wide_ones(problem: PoolProblem, elements: int, name: str) -> None:
    assert pool_plan("max_pool2d_fwd", problem, elements, installed()).instance.name == name


def test_the_largest_coordinate_of_either_axis_counts() -> None:
    rows, columns = PoolAxis(10, 4, 2, 3, 1, 2, 2), PoolAxis(20, 5, 5, 2, 3, 4, 3)
    assert PoolProblem(6, rows, columns).largest == PoolProblem(6, columns, rows).largest == 5 * 5 + 5 + 2 * 3 + 20 + 7
    assert PoolProblem(6, rows, rows).largest == 4 * 2 + 2 + 3 * 2 + 10 + 3
    given = PoolProblem.windows((2, 3, 10, 20), (4, 5), (3, 2), (2, 5), (1, 2, 3, 4), (2, 3))
    assert given == PoolProblem(6, rows, columns)


def test_blocks_for_each_element_of_the_result_and_no_more() -> None:
    grids: list[Any] = []

    class Noting(TraceDevice):
        def launch(self, kernel: Any, grid: Any, block: Any, shared: int, arguments: Any) -> None:
            grids.append(grid[0])
            assert block == (256, 1, 1)

    host = Host(Noting())
    x, y, even = (hollow((2, 3, *size), "float32") for size in ((40, 50), (20, 24), (60, 7)))
    indices, even_indices = hollow(y.shape, "int64"), hollow(even.shape, "int64")
    window = ((3, 4), (2, 2), (1, 0, 1, 0))
    host.max_pool2d_fwd(x, *window, (1, 1), False)
    host.avg_pool2d_fwd(x, *window, False, True, None)
    host.plane_take(x, indices)
    host.max_pool2d_bwd(y, indices, x.shape, *window, (1, 1))
    host.avg_pool2d_bwd(y, x.shape, *window, False, True, None)
    host.adaptive_max_pool2d_fwd(x, (60, 7))
    host.adaptive_avg_pool2d_fwd(x, (60, 7))
    host.adaptive_max_pool2d_bwd(even, even_indices, x.shape)
    host.adaptive_avg_pool2d_bwd(even, x.shape)
    of_x, of_y, of_even = (-(-array.size // 256) for array in (x, y, even))
    assert grids == [of_y, of_y, of_y, of_x, of_x, of_even, of_even, of_x, of_x]


def test_empty_batch_launches_nothing() -> None:
    device = SimDevice()
    y, indices = Host(device).max_pool2d_fwd(
        device.alloc((0, 3, 8, 8), "f4"), (2, 2), (2, 2), NO_PADDING, (1, 1), False
    )
    assert indices is not None
    assert y.shape == indices.shape == (0, 3, 4, 4)
    assert device.launches == []


def test_float64_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for max_pool2d_fwd in float64"):
        FORWARD.max_pool2d_fwd(np.ones((1, 1, 2, 2)), (2, 2), (2, 2), NO_PADDING, (1, 1), False)


def test_public_operators_and_gradients_run_on_the_simulator() -> None:
    data = np.random.default_rng(0).integers(0, 9, (2, 3, 8, 8)).astype(np.float32)
    gradients = []
    for backend in ("sim", "reference"):
        x = pycnn.Tensor(data, requires_grad=True)
        with pycnn.use_backend(backend):
            pooled = pycnn.avg_pool2d(pycnn.max_pool2d(x, 3, stride=2, padding=1), 2)
            pycnn.adaptive_avg_pool2d(pooled, 1).backward(np.ones((2, 3, 1, 1), np.float32))
        gradients.append(x.grad.data)
    assert gradients[1].any()
    np.testing.assert_array_equal(*gradients)
