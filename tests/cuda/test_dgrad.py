"""conv2d_dgrad_direct: both instances on the problem lists, in the simulator, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulated import (
    DEVICES,
    HALVES,
    ORDERS,
    Ends,
    by_cost,
    ending,
    in_halves,
    random_problems,
    rounded,
    view_off_by_one,
)

import pycnn
from pycnn import ops
from pycnn.backends import reference
from pycnn.backends.cuda import Host, direct
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_conv2d, exact_operands, layers, problems, run
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

ALGOS = ("direct_any_narrow", "direct_any_wide")


def able(problem: Problem) -> list[str]:
    plans = direct.plans("dgrad", problem.shape, installed(), ending(problem))
    return [plan.name for plan in plans if plan.reason is None]


def of_dgrad(given: list[Problem]) -> list[Problem]:
    return [replace(problem, operator="dgrad") for problem in given]


EVERYTHING = [
    pytest.param(problem, algo, marks=by_cost(problem))
    for problem in of_dgrad([*problems(), *in_halves(problems())])
    for algo in able(problem)
]


@pytest.mark.parametrize(("problem", "algo"), EVERYTHING, ids=str)
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", ALGOS)
def test_full_tiles_and_tails_in_every_order(algo: str, order: str) -> None:
    # Three tiles of channels and of pixels in each of six classes, five stages of taps, tails everywhere.
    check_conv2d(DEVICES[order], "n2c70h37w41_k19r3s5_st2x3pd1.0.2.1g1_dgrad", algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("algo", ALGOS)
def test_16_bits_in_every_order(algo: str, dtype: str, order: str) -> None:
    backend, problem = DEVICES[order], Problem.parse("n2c35h17w21_k19r3s5_st2x3pd1.0.2.1g1_dgrad")
    problem = replace(problem, dtype=dtype)
    before = len(backend.host.device.launches)
    check_conv2d(backend, problem, algo)
    ran = {instance.name for instance in backend.host.device.launches[before:]}
    assert ran == {algo.removeprefix("direct_any_") + ending(problem)}


@pytest.mark.nvrtc
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("algo", ALGOS)
def test_ptx_of_16_bits_is_exact(algo: str, dtype: str) -> None:
    problem = replace(Problem.parse("n2c35h9w14_k19r3s4_st2x3pd1.0.2.1dl1x2_dgrad"), dtype=dtype)
    operands = exact_operands(problem, algo)
    dx = run(Simulated(Host(PtxDevice())), problem, operands, algo)
    assert np.array_equal(dx, rounded(problem, operands))


@pytest.mark.parametrize("dtype", HALVES)
def test_16_bits_at_any_even_address(dtype: str) -> None:
    problem, device = replace(Problem.parse("n2c9h9w14_k5r3s4_st2pd1_dgrad"), dtype=dtype), SimDevice()
    operands = exact_operands(problem)
    dy, w = (view_off_by_one(device, each) for each in (operands.left, operands.right))
    found = run(Host(device), problem, replace(operands, left=dy, right=w), "direct")
    assert np.array_equal(np.array(found), rounded(problem, operands))


# For each instance: two full tiles and a tail along H, W and C, and several stages of filters with a tail.
TILES = {
    "direct_r3s3_st1_8x32": "n1c130h19w70_k19r3s3_pd1_dgrad",
    "direct_r3s3_st1_14x16": "n1c130h30w35_k19r3s3_pd1_dgrad",
    "direct_r3s3_st1_8x8": "n2c130h19w19_k19r3s3_pd1_dgrad",
    "direct_r3s3_st1_8x32_k16": "n1c35h19w70_k6r3s3_pd1_dgrad",
    "direct_r5s5_st1_14x16_k16": "n1c35h30w35_k6r5s5_pd2_dgrad",
    "direct_r5s5_st1_14x16": "n1c130h30w35_k10r5s5_pd2_dgrad",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", TILES)
def test_turned_tiles_and_tails_in_every_order(algo: str, order: str) -> None:
    check_conv2d(DEVICES[order], TILES[algo], algo)


def test_turned_by_padding_larger_than_the_filter() -> None:
    """The first and last rows of dy then meet no pixel."""
    for text in ("n1c3h5w6_k4r3s3_pd4_dgrad", "n1c2h4w9_k3r3s3_pd7.0.1.6_dgrad"):
        check_conv2d(DEVICES["random"], text, "direct_r3s3_st1_8x8")


def test_reasons_name_the_problem() -> None:
    shape = Problem.parse("n1c3h9w9_k4r3s3_st2pd1").shape
    reasons = {plan.name: plan.reason for plan in direct.plans("dgrad", shape, installed())}
    assert reasons["direct_r3s3_st1_8x8"] == "it is compiled for stride 1x1, and the problem has 2x2"
    assert reasons["direct_r5s5_st1_14x16"] == "it is compiled for filter 5x5, and the problem has 3x3"


@pytest.mark.nvrtc
@pytest.mark.parametrize("algo", TILES)
def test_ptx_is_exact(algo: str) -> None:
    problem = Problem.parse(TILES[algo].replace("n1c130", "n1c9").replace("n2c130", "n2c9"))
    operands = exact_operands(problem, algo)
    dx = run(Simulated(Host(PtxDevice())), problem, operands, algo)
    assert np.array_equal(dx, run(reference, problem, operands, "auto"))


@pytest.mark.parametrize("problem", of_dgrad(layers(most_macs=6_000_000)), ids=str)
def test_layer_by_auto(problem: Problem) -> None:
    check_conv2d(DEVICES["forward"], problem, "auto")


@pytest.mark.parametrize("problem", of_dgrad(random_problems(25)), ids=str)
def test_random_problem(problem: Problem) -> None:
    check_conv2d(DEVICES["random"], problem, "auto")


@pytest.mark.parametrize("problem", of_dgrad(in_halves(random_problems(8))), ids=str)
def test_random_problem_of_16_bits_is_exact_by_every_algorithm(problem: Problem) -> None:
    operands = exact_operands(problem)
    for algo in able(problem):
        assert np.array_equal(run(DEVICES["random"], problem, operands, algo), rounded(problem, operands)), algo


TRANSPOSED = [
    # x, w, stride, padding, output_padding, groups, dilation
    ((2, 6, 5, 7), (6, 4, 3, 3), 2, 1, 1, 1, 1),
    ((1, 4, 6, 5), (4, 3, 4, 2), (2, 1), (1, 0), (1, 0), 2, (1, 2)),
    ((1, 3, 7, 7), (3, 1, 3, 3), 1, 1, 0, 3, 1),
    ((2, 5, 4, 6), (5, 7, 1, 1), 1, 0, 0, 1, 1),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolution_is_made_of_it(case: tuple[Any, ...]) -> None:
    x_shape, w_shape, *how = case
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (x_shape, w_shape))
    results = []
    for backend in ("sim", "reference"):
        with pycnn.use_backend(backend):
            y = ops.conv_transpose2d_fprop(x, w, None, *how)
            dx = ops.conv_transpose2d_dgrad(y, w, x_shape, *how)
            dw = ops.conv_transpose2d_wgrad(y, x, w_shape, *how)
        results.append((y, dx, dw))
    for found, expected in zip(*results, strict=True):
        assert np.array_equal(found, expected)


def test_pixels_that_no_tap_meets_are_zero() -> None:
    dy, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 1, 1), np.float32)
    dx = DEVICES["forward"].conv2d_dgrad(dy, w, (1, 1, 8, 9), (3, 4), (0, 0, 0, 0), (1, 1), 1)
    assert dx.sum() == 9
    assert (dx[0, 0, ::3, ::4] == 1).all()


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
@pytest.mark.parametrize("algo", ALGOS)
def test_nan_and_infinity_reach_exactly_their_windows(algo: str, dtype: str) -> None:
    dy = np.ones((1, 2, 6, 6), np.float32)
    dy[0, 0, 2, 3], dy[0, 1, 5, 5] = np.nan, np.inf
    w = np.ones((2, 3, 3, 3), np.float32)
    rest = ((1, 3, 12, 12), (2, 2), (1, 1, 1, 1), (1, 1), 1)
    dx = DEVICES["forward"].conv2d_dgrad(dy.astype(dtype), w.astype(dtype), *rest, algo=algo)
    assert np.array_equal(dx.astype(np.float32), reference.conv2d_dgrad(dy, w, *rest), equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_past_two_to_the_31_elements(dtype: str) -> None:
    """dy and dx of 2^31 elements and more, in mappings that nobody touches but the first and the last block."""
    height, width = 4, 2**29 + 40
    shape = Conv2dShape(1, 1, height, width, 1, 1, 1)
    device = Ends()
    dtypes = Host(device).ending("it", dtype)
    found = {plan.name: plan for plan in direct.plans("dgrad", shape, installed(), dtypes)}
    narrow, wide = (found[algo] for algo in ALGOS)
    assert "counts in 32 bits" in str(narrow.reason)
    dy, w = (device.alloc(each, np.dtype(dtype)) for each in (shape.y_shape, shape.w_shape))
    w[...] = 2
    dy[0, 0, 0, :5] = 1, 2, 3, 4, 5
    dy[0, 0, 3, -5:] = 6, 7, 8, 9, 10
    dx = Host(device).conv2d_dgrad(dy, w, shape.x_shape, (1, 1), (0, 0, 0, 0), (1, 1), 1, algo=wide.name)
    assert dx[0, 0, 0, :5].tolist() == [2, 4, 6, 8, 10]
    assert dx[0, 0, 3, -5:].tolist() == [12, 14, 16, 18, 20]


def test_more_blocks_than_one_row_of_a_grid_holds() -> None:
    images = 2**31 + 5
    device = SimDevice()
    host = Host(device)
    dy, w = device.alloc((images, 1, 1, 1), np.float32), device.alloc((1, 1, 1, 1), np.float32)
    dy[0], dy[2**30], dy[-1], w[...] = 3, 5, 7, 2
    device.blocks = [0, 2**30, images - 1, images]
    dx = host.conv2d_dgrad(dy, w, (images, 1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, algo="direct_any_wide")
    assert (dx[0].item(), dx[2**30].item(), dx[-1].item()) == (6, 10, 14)


def test_empty_batch() -> None:
    simulated = Simulated(Host(SimDevice()))
    dy, w = np.ones((0, 4, 5, 5), np.float32), np.ones((4, 3, 3, 3), np.float32)
    assert simulated.conv2d_dgrad(dy, w, (0, 3, 5, 5), (1, 1), (1, 1, 1, 1), (1, 1), 1).shape == (0, 3, 5, 5)
