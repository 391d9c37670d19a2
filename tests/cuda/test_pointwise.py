"""The 1x1 kernels: forward and data gradient on the problem lists, in the simulator, against the oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import DEVICES, ORDERS

from pycnn.backends import reference
from pycnn.backends.cuda import Host, direct_pointwise
from pycnn.backends.cuda.conv import plans
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.order import least
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_conv2d, check_epilogue, exact_operands, problems, run
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

ALGOS = ("direct_1x1_128x64", "direct_1x1_64x64")
PASSES = ("fprop", "dgrad")
LISTED = [
    replace(problem, operator=operator)
    for problem in problems()
    if (problem.shape.R, problem.shape.S) == (1, 1)
    for operator in PASSES
]

# Several tiles of pixels and filters and a tail of each, images that begin within a tile, several stages of channels
# with a tail; planes whose fours of pixels lie in one piece of memory and planes where they do not.
SHAPES = (
    "n3c37h7w7_k70r1s1",
    "n3c37h6w10_k70r1s1",
    "n2c37h14w16_k70r1s1_st2",
    "n2c22h5w6_k140r1s1_pd1.0.2.3g2",
    "n2c5h9w11_k4r1s1_st3x2pd2.0.1.3",
)
EVERY_PASS = [Problem.parse(f"{text}_{operator}") for text in SHAPES for operator in PASSES]


def plan_of(operator: str, shape: Conv2dShape, algo: str) -> direct_pointwise.DirectPlan:
    return next(plan for plan in direct_pointwise.plans(operator, shape, installed()) if plan.name == algo)


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("problem", LISTED, ids=str)
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("problem", EVERY_PASS, ids=str)
def test_tiles_and_tails_in_every_order(problem: Problem, algo: str, order: str) -> None:
    check_conv2d(DEVICES[order], problem, algo)


@pytest.mark.nvrtc
@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("problem", EVERY_PASS[:8], ids=str)
def test_ptx_is_exact(problem: Problem, algo: str) -> None:
    operands = exact_operands(problem, algo)
    found = run(Simulated(Host(PtxDevice())), problem, operands, algo)
    assert np.array_equal(found, run(reference, problem, operands, "auto"))


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("text", SHAPES[:3])
def test_epilogue(text: str, algo: str) -> None:
    check_epilogue(DEVICES["random"], text, algo)


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("offset", [1, 2, 4])
def test_operands_that_begin_between_vectors(operator: str, offset: int) -> None:
    """Views that begin 4, 8 and 16 bytes into their memory: the first two cannot be loaded four at a time."""
    problem = Problem.parse(f"n2c9h4w6_k5r1s1_{operator}")
    operands = exact_operands(problem)
    device = SimDevice()

    def view(values: np.ndarray) -> np.ndarray:
        memory = device.alloc((values.size + offset,), np.float32)
        memory[offset:] = values.ravel()
        return memory[offset:].reshape(values.shape)

    given = replace(operands, left=view(operands.left), right=view(operands.right), b=None)
    found = run(Host(device), problem, given, "direct_1x1_64x64")
    assert np.array_equal(found, run(reference, problem, replace(operands, b=None), "auto"))


def test_direct_takes_it_before_its_kernels_of_any_filter() -> None:
    for operator in PASSES:
        for text in ("n32c64h56_k256r1", "n32c512h7_k2048r1", "n32c256h56_k512r1_st2"):
            shape = Problem.parse(text).shape
            able = [plan for plan in plans(operator, shape, installed()) if plan.reason is None]
            plan = least([plan for plan in able if plan.answers_to("direct")])
            assert plan.name in ALGOS
            assert "1x1" in plan.why


def test_nan_reaches_exactly_its_pixel() -> None:
    x, w = np.ones((2, 3, 5, 6), np.float32), np.ones((4, 3, 1, 1), np.float32)
    x[1, 2, 4, 5], x[0, 0, 0, 1] = np.nan, np.inf
    rest = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    y = DEVICES["forward"].conv2d_fprop(x, w, None, *rest, algo="direct_1x1_64x64")
    assert np.array_equal(y, reference.conv2d_fprop(x, w, None, *rest), equal_nan=True)


def test_pixels_that_nothing_meets_are_zero_whatever_the_weights() -> None:
    dy, w = np.ones((1, 1, 3, 3), np.float32), np.full((1, 1, 1, 1), np.inf, np.float32)
    rest = ((1, 1, 8, 9), (3, 4), (0, 0, 0, 0), (1, 1), 1)
    dx = DEVICES["forward"].conv2d_dgrad(dy, w, *rest, algo="direct_1x1_64x64")
    assert np.array_equal(dx, reference.conv2d_dgrad(dy, w, *rest))


def test_x_and_y_past_two_to_the_31_elements() -> None:
    """Few pixels of many channels: coordinates fit 32 bits, offsets do not."""
    groups = 2**21
    shape = Conv2dShape(1, groups, 32, 33, groups, 1, 1, groups=groups)
    device = SimDevice()
    x, w = device.alloc(shape.x_shape, np.float32), device.alloc(shape.w_shape, np.float32)
    x[0, 0, 0, 0], x[0, -1, -1, -1], w[0], w[-1] = 3, 5, 2, 4
    plan = plan_of("fprop", shape, ALGOS[0])
    device.blocks = [0, plan.grid[0] - 1]
    how = (shape.stride, shape.padding, shape.dilation, groups)
    y = Host(device).conv2d_fprop(x, w, None, *how, algo=ALGOS[0])
    assert (y[0, 0, 0, 0].item(), y[0, -1, -1, -1].item()) == (6, 20)
    dx = Host(device).conv2d_dgrad(x, w, shape.x_shape, *how, algo=ALGOS[0])
    assert (dx[0, 0, 0, 0].item(), dx[0, -1, -1, -1].item()) == (6, 20)


def test_refusals_name_the_problem() -> None:
    assert plan_of("fprop", Problem.parse("n1c2h5_k2r3").shape, ALGOS[0]).reason == (
        "it is compiled for filter 1x1, and the problem has 3x3"
    )
    assert plan_of("fprop", Conv2dShape(1, 1, 4, 2**29 + 40, 1, 1, 1), ALGOS[0]).reason == (
        f"it counts in 32 bits, and the pixels go up to {2**31 + 160 + 128}"
    )


def test_empty_batch() -> None:
    for operator in PASSES:
        check_conv2d(DEVICES["forward"], f"n0c4h6w6_k8r1s1_{operator}", ALGOS[0])
