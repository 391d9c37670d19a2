"""The depthwise kernels: every pass and instance on the problem lists, in the simulator, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from simulated import DEVICES, HALVES, ORDERS, Ends, by_cost, ending, in_halves, rounded, view_off_by_one

from pycnn.backends import reference
from pycnn.backends.cuda import Host, direct_depthwise
from pycnn.backends.cuda.conv import ConvHost
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.memory_format import is_channels_last
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import (
    Operands,
    check_bias_gradient,
    check_conv2d,
    check_epilogue,
    every_pass,
    exact_operands,
    problems,
    run,
)
from pycnn.testing.check import laid_out
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator


def able(problem: Problem) -> list[str]:
    plans = direct_depthwise.plans(problem.operator, problem.shape, installed(), ending(problem))
    return [plan.name for plan in plans if plan.reason is None]


def few(problem: Problem, algo: str) -> bool:
    """Whether the simulator is done with it in no time."""
    return problem.shape.macs < (10_000 if "_any_" in algo else 40_000)


LISTED = every_pass([*problems("depthwise"), *problems("one channel")])
EVERYTHING = [
    pytest.param(problem, algo, marks=by_cost(problem) if few(problem, algo) else pytest.mark.slow)
    for problem in [*LISTED, *in_halves(LISTED)]
    for algo in able(problem)
]

# For each instance: blocks that are cut off, several images, rows that are no multiple of a thread's, and two filters a
# channel.
SHAPES = {
    "direct_depthwise_r3s3_st1": "n3c5h14w13_k10r3s3_pd1.0.2.1g5",
    "direct_depthwise_r3s3_st2": "n3c5h15w14_k10r3s3_st2pd1.0.2.1g5",
    "direct_depthwise_r5s5_st1": "n2c3h14w13_k6r5s5_pd2.1.3.2g3",
    "direct_depthwise_r5s5_st2": "n2c3h17w14_k6r5s5_st2pd2.1.3.2g3",
    "direct_depthwise_any_narrow": "n2c3h14w13_k6r3s4_st3x2pd2.1.4.2dl2x1g3",
    "direct_depthwise_any_wide": "n2c3h14w13_k6r3s4_st3x2pd2.1.4.2dl2x1g3",
}
EVERY_PASS = [(replace(Problem.parse(text), operator=op), algo) for algo, text in SHAPES.items() for op in PASSES]
HALF_PASSES = [
    (replace(half, layout=layout), algo)
    for layout in ("nchw", "nhwc")
    for problem, algo in EVERY_PASS
    for half in in_halves([problem])
]
EVERY_DTYPE = EVERY_PASS + HALF_PASSES


def test_every_instance_has_a_problem() -> None:
    for operator in PASSES:
        for dtype in ("", "_f16", "_bf16"):
            plans = direct_depthwise.plans(operator, Problem.parse("n1c1h1_k1r1").shape, installed(), dtype)
            assert set(SHAPES) == {plan.name for plan in plans}


@pytest.mark.parametrize(("problem", "algo"), EVERYTHING, ids=str)
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("problem", "algo"), [pytest.param(*each, marks=by_cost(each[0])) for each in EVERY_DTYPE])
def test_every_instance_in_every_order(problem: Problem, algo: str, order: str) -> None:
    check_conv2d(DEVICES[order], problem, algo)


@pytest.mark.nvrtc
@pytest.mark.parametrize(("problem", "algo"), EVERY_DTYPE, ids=str)
def test_ptx_is_exact(problem: Problem, algo: str) -> None:
    operands = exact_operands(problem, algo)
    found = run(Simulated(Host(PtxDevice())), problem, laid_out(problem, operands), algo)
    assert np.array_equal(found, rounded(problem, operands))


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("algo", SHAPES)
def test_epilogue_and_bias_gradient(algo: str, dtype: str) -> None:
    problem = replace(Problem.parse(SHAPES[algo]), dtype=dtype)
    check_epilogue(DEVICES["random"], problem, algo)
    check_bias_gradient(DEVICES["random"], problem, algo)
    if dtype in HALVES:
        check_epilogue(DEVICES["random"], replace(problem, layout="nhwc"), algo)


@pytest.mark.parametrize("algo", ["direct_depthwise_r3s3_st2", "direct_depthwise_any_narrow"])
def test_16_bits_at_any_even_address(algo: str) -> None:
    for problem in in_halves(every_pass([Problem.parse(SHAPES[algo])])):
        operands, device = exact_operands(problem, algo, bias=False), SimDevice()
        views = {each: view_off_by_one(device, getattr(operands, each)) for each in ("left", "right")}
        found = run(Host(device), problem, replace(operands, **views), algo)
        assert np.array_equal(np.array(found), rounded(problem, operands)), problem


class Watched(SimDevice):
    """Counts what is copied."""

    fills = 0

    def fill(self, array: Array, value: Array | float) -> None:
        self.fills += 1
        super().fill(array, value)


@pytest.mark.parametrize("layouts", [*product(("nchw", "nhwc"), repeat=2)], ids="-".join)
@pytest.mark.parametrize("operator", PASSES)
def test_images_of_16_bits_are_read_as_they_lie(operator: str, layouts: tuple[str, str]) -> None:
    problem = replace(Problem.parse("n2c8h9w7_k16r3s3_st2x1pd1g8_f16"), operator=operator)
    operands, device = exact_operands(problem, bias=False), Watched()
    placed = []
    for array, layout in zip((operands.left, operands.right), layouts, strict=True):
        n, c, h, w = array.shape
        last = device.alloc((n, h, w, c), array.dtype).transpose(0, 3, 1, 2)
        placed.append(last if layout == "nhwc" else device.alloc(array.shape, array.dtype))
        placed[-1][...] = array
    found = run(Host(device), problem, replace(operands, left=placed[0], right=placed[1]), "auto")
    assert np.array_equal(np.array(found), rounded(problem, operands))
    assert device.launches[0].kernel == f"conv2d_{operator}_depthwise"
    assert device.fills == 0
    assert operator == "wgrad" or is_channels_last(found) == ("nhwc" in layouts)


@pytest.mark.parametrize("operator", PASSES)
def test_channels_last_images_past_two_to_the_31_elements(operator: str) -> None:
    """Planes are small, but from row to row it is 2^26 elements; the first block and the last."""
    channels = 2**20
    s = Conv2dShape(1, channels, 64, 64, channels, 1, 1, (63, 63), groups=channels)
    host = Host(device := Ends())
    reasons = dict(host.conv2d_algorithms(operator, s, "float16", True))
    what = "threads" if operator == "dgrad" else "elements of an image"  # or there would be more pixels than that
    assert f"counts in 32 bits, and the {what} go up to" in str(reasons["direct_depthwise_any_narrow"])
    x, y = (device.alloc((n, h, w, c), np.dtype("f2")).transpose(0, 3, 1, 2) for n, c, h, w in (s.x_shape, s.y_shape))
    y[...], taps = 0, device.alloc(s.w_shape, np.dtype("f2"))
    for image, first, last in ((x, 3, 5), (y, 2, 4)):
        image[0, 0, 0, 0], image[0, -1, -1, -1] = first, last
    taps[0], taps[-1] = 2, 4
    left, right = {"fprop": (x, taps), "dgrad": (y, taps), "wgrad": (y, x)}[operator]
    found = run(host, Problem(s, operator, "float16"), Operands(left, right), "direct_depthwise")
    ends = found[0, 0, 0, 0].item(), (found[-1] if operator == "wgrad" else found[0])[-1, -1, -1].item()
    assert ends == ((4, 16) if operator == "dgrad" else (6, 20))


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("filters", [1, 2])
@pytest.mark.parametrize("window", ["r3s3_pd1", "r3s3_st2pd1", "r5s5_pd2", "r7s7_pd3", "r3s3_pd2dl2", "r1s1"])
def test_auto_takes_no_tile_of_filters(window: str, filters: int, operator: str, dtype: str) -> None:
    shape = Problem.parse(f"n8c32h28w28_k{32 * filters}{window}{'g32' if '_' in window else '_g32'}").shape
    name, why = DEVICES["forward"].conv2d_choose(operator, shape, dtype)
    assert name.startswith("direct_depthwise_")
    assert "one channel" in why


def test_auto_takes_a_tile_where_one_channel_has_many_filters() -> None:
    shape = Problem.parse("n8c1h28w28_k64r5_pd2").shape
    assert DEVICES["forward"].conv2d_choose("fprop", shape, "float32")[0] == "direct_r5s5_st1_14x16"


def test_refusals_name_the_problem() -> None:
    plans = direct_depthwise.plans("fprop", Problem.parse("n1c6h9_k6r3_g2").shape, installed())
    assert {plan.reason for plan in plans} == {"it is for groups of one channel, and the problem's have 3"}
    plans = direct_depthwise.plans("fprop", Problem.parse("n1c6h9_k6r3_st3g6").shape, installed())
    assert plans[0].reason == "it is compiled for stride 1x1, and the problem has 3x3"
    assert plans[2].reason == "it is compiled for filter 5x5, and the problem has 3x3"


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("algo", ["direct_depthwise_r3s3_st2", "direct_depthwise_any_narrow"])
def test_nan_and_infinity_reach_exactly_what_they_meet(algo: str, dtype: str) -> None:
    backend, rest = DEVICES["forward"], ((2, 2), (1, 1, 1, 1), (1, 1), 2)
    x, w, dy = np.ones((1, 2, 11, 11), np.float32), np.ones((2, 1, 3, 3), np.float32), np.ones((1, 2, 6, 6), np.float32)

    def check(operator: str, left: np.ndarray, right: np.ndarray, *how: object) -> None:
        # Sums of ones, which every dtype here holds.
        found = getattr(backend, operator)(left.astype(dtype), right.astype(dtype), *how, algo=algo).astype(np.float32)
        assert np.array_equal(found, getattr(reference, operator)(left, right, *how), equal_nan=True)

    for place in ((0, 0, 10, 3), (0, 1, 0, 10), (0, 0, 5, 5)):
        x[place] = np.nan
        check("conv2d_fprop", x, w, None, *rest)
        check("conv2d_wgrad", dy, x, w.shape, *rest)
    w[0, 0, 0, 1], dy[0, 1, 5, 5] = np.inf, np.nan  # an infinite tap only where it meets a pixel
    check("conv2d_dgrad", dy, w, x.shape, *rest)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("operator", PASSES)
def test_more_blocks_than_one_row_of_a_grid_holds(operator: str, dtype: str) -> None:
    """Past 2^31 channels of one pixel, and so elements: the first block and the last."""
    channels = 2**31 * 128 + 5 if operator != "wgrad" else 2**31 + 5
    shape = Conv2dShape(1, channels, 1, 1, channels, 1, 1, groups=channels)
    device = Ends()
    host: ConvHost = Host(device)
    (plan,) = (
        plan
        for plan in direct_depthwise.plans(operator, shape, installed(), host.ending("it", dtype))
        if plan.name == "direct_depthwise_any_wide"
    )
    assert plan.reason is None
    left, w = device.alloc(shape.x_shape, np.dtype(dtype)), device.alloc(shape.w_shape, np.dtype(dtype))
    left[0, 0], left[0, -1], w[0], w[-1] = 3, 5, 2, 4
    device.also = (-(-channels // 128) - 1 if operator != "wgrad" else channels - 1,)  # the last row is ragged
    how = (shape.stride, shape.padding, shape.dilation, channels)
    if operator == "fprop":
        found = host.conv2d_fprop(left, w, None, *how, algo=plan.name)
    elif operator == "dgrad":
        found = host.conv2d_dgrad(left, w, shape.x_shape, *how, algo=plan.name)
    else:
        found = host.conv2d_wgrad(left, w.reshape(shape.x_shape), shape.w_shape, *how, algo=plan.name)
    assert (found.ravel()[0].item(), found.ravel()[-1].item()) == (6, 20)


def test_coordinates_past_32_bits_go_to_the_wide_kernels() -> None:
    far = 2**32
    x, w = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3), np.ones((1, 1, 2, 1), np.float32)
    rest = ((1, 1), (far, 0, 0, 0), (far, 1), 1)
    backend, algo = DEVICES["forward"], "direct_depthwise_any_wide"
    assert np.array_equal(backend.conv2d_fprop(x, w, None, *rest, algo=algo), x)
    assert np.array_equal(backend.conv2d_dgrad(x, w, x.shape, *rest, algo=algo), x)
    assert backend.conv2d_wgrad(x, x, w.shape, *rest, algo=algo).ravel().tolist() == [0, 55]
    with pytest.raises(ValueError, match="counts in 32 bits"):
        backend.conv2d_fprop(x, w, None, *rest, algo="direct_depthwise_any_narrow")


def test_empty_batch() -> None:
    for operator in PASSES:
        check_conv2d(DEVICES["forward"], f"n0c4h6w6_k4r3s3_st2pd1g4_{operator}", "direct_depthwise_r3s3_st2")
