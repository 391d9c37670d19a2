"""conv2d_fprop_direct: every instance on the problem lists, in the simulator, against the oracle."""

from __future__ import annotations

from dataclasses import replace

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

from pycnn.backends import reference
from pycnn.backends.cuda import Host, direct
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_conv2d, check_epilogue, exact_operands, layers, problems, run
from pycnn.testing.check import laid_out
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator


def able(problem: Problem) -> list[str]:
    plans = direct.plans("fprop", problem.shape, installed(), ending(problem))
    return [plan.name for plan in plans if plan.reason is None]


EVERYTHING = [
    pytest.param(problem, algo, marks=by_cost(problem))
    for problem in [*problems(), *in_halves(problems())]
    for algo in able(problem)
]

# For each instance: two full tiles and a tail along P, Q and K, and several channel stages with a tail.
TILES = {
    "direct_r3s3_st1_8x32": "n1c19h19w70_k130r3s3_pd1",
    "direct_r3s3_st1_14x16": "n1c19h30w35_k130r3s3_pd1",
    "direct_r3s3_st1_8x8": "n2c19h19w19_k130r3s3_pd1",
    "direct_r3s3_st1_8x32_k16": "n1c6h19w70_k35r3s3_pd1",
    "direct_r5s5_st1_14x16_k16": "n1c6h30w35_k35r5s5_pd2",
    "direct_r3s3_st2_14x16": "n1c10h60w70_k130r3s3_st2pd1",
    "direct_r5s5_st1_14x16": "n1c10h30w35_k130r5s5_pd2",
    "direct_r7s7_st2_8x32": "n1c3h38w138_k130r7s7_st2pd3",
    "direct_r11s11_st4_4x32": "n1c3h43w271_k130r11s11_st4pd2",
    "direct_any_narrow": "n2c14h17w19_k70r3s3_st1pd1dl2x1",
    "direct_any_wide": "n2c14h17w19_k70r3s3_st1pd1dl2x1",
}

# All that there are in 16 bits.
ANY = ("direct_any_narrow", "direct_any_wide")

# Smaller ones where sixteen runs of the above take long: a tail along P, Q and K.
EPILOGUES = {algo: text.replace("k130", "k9") for algo, text in TILES.items()}


def test_every_instance_has_a_problem() -> None:
    shape = Problem.parse("n1c1h1_k1r1").shape
    assert set(TILES) == {plan.name for plan in direct.plans("fprop", shape, installed())}
    for dtype in ("_f16", "_bf16"):
        assert set(ANY) == {plan.name for plan in direct.plans("fprop", shape, installed(), dtype)}


@pytest.mark.parametrize(("problem", "algo"), EVERYTHING, ids=lambda value: str(value))
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", TILES)
def test_full_tiles_and_tails_in_every_order(algo: str, order: str) -> None:
    backend = DEVICES[order]
    before = len(backend.host.device.launches)
    check_conv2d(backend, TILES[algo], algo)
    ran = {instance.name for instance in backend.host.device.launches[before:]}
    assert ran == {algo.removeprefix("direct_").removeprefix("any_")}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("algo", ANY)
def test_16_bits_in_every_order(algo: str, dtype: str, order: str) -> None:
    problem, backend = replace(Problem.parse(TILES[algo]), dtype=dtype), DEVICES[order]
    before = len(backend.host.device.launches)
    check_conv2d(backend, problem, algo)
    ran = {each.name for each in backend.host.device.launches[before:] if each.kernel != "convert"}  # b to float32
    assert ran == {algo.removeprefix("direct_any_") + ending(problem)}


@pytest.mark.nvrtc
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("algo", ANY)
def test_ptx_of_16_bits_is_exact(algo: str, dtype: str) -> None:
    problem = replace(Problem.parse("n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2"), dtype=dtype)
    operands = exact_operands(problem, algo)
    y = run(Simulated(Host(PtxDevice())), problem, operands, algo)
    assert np.array_equal(y, rounded(problem, operands))


def test_channels_last_images_are_copied_by_name_alone() -> None:
    problem, backend = Problem.parse("n1c8h6w5_k8r3s3_pd1_f16_nhwc"), DEVICES["forward"]
    operands = laid_out(problem, exact_operands(problem, bias=False))
    for algo, kernel in {"auto": "conv2d_fprop_tensor", "direct": "conv2d_fprop_direct_any"}.items():
        y = run(backend, problem, operands, algo)
        assert np.array_equal(y, rounded(problem, operands))
        assert backend.host.device.launches[-1].kernel == kernel
        assert y.flags.c_contiguous == (algo == "direct")


@pytest.mark.parametrize("dtype", HALVES)
def test_16_bits_at_any_even_address(dtype: str) -> None:
    problem, device = replace(Problem.parse(EPILOGUES["direct_any_narrow"]), dtype=dtype), SimDevice()
    operands = exact_operands(problem, bias=False)
    x, w = (view_off_by_one(device, each) for each in (operands.left, operands.right))
    found = run(Host(device), problem, replace(operands, left=x, right=w), "direct")
    assert np.array_equal(np.array(found), rounded(problem, operands))


@pytest.mark.parametrize(
    ("algo", "dtype"), [(algo, "float32") for algo in TILES] + [(algo, half) for algo in ANY for half in HALVES]
)
def test_epilogue(algo: str, dtype: str) -> None:
    check_epilogue(DEVICES["random"], replace(Problem.parse(EPILOGUES[algo]), dtype=dtype), algo)


@pytest.mark.parametrize("problem", layers(most_macs=12_000_000), ids=str)
def test_layer_by_auto(problem: Problem) -> None:
    check_conv2d(DEVICES["forward"], problem, "auto")


def test_without_bias() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 3, 9, 9)).astype("f4"), rng.standard_normal((4, 3, 3, 3)).astype("f4")
    rest = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    y = DEVICES["forward"].conv2d_fprop(x, w, None, *rest)
    # 27 products of order 1: 1e-5 is a hundred roundings.
    assert np.allclose(y, reference.conv2d_fprop(x, w, None, *rest), atol=1e-5)


@pytest.mark.parametrize(
    ("algo", "dtype"),
    [("direct_r3s3_st1_8x8", "float32"), *(("direct_any_narrow", dtype) for dtype in ("float32", *HALVES))],
)
def test_nan_and_infinity_reach_exactly_their_windows(algo: str, dtype: str) -> None:
    x = np.ones((1, 2, 12, 12), np.float32)
    x[0, 0, 3, 4], x[0, 1, 9, 9] = np.nan, np.inf
    w = np.ones((3, 2, 3, 3), np.float32)
    rest = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    y = DEVICES["forward"].conv2d_fprop(x.astype(dtype), w.astype(dtype), None, *rest, algo=algo)
    assert np.array_equal(y.astype(np.float32), reference.conv2d_fprop(x, w, None, *rest), equal_nan=True)


def test_past_two_to_the_31_elements() -> None:
    """x and y of 2^31 elements and more, in mappings that nobody touches but the first and the last block."""
    height, width = 4, 2**29 + 40
    shape = Conv2dShape(1, 1, height, width, 1, 3, 3, padding=(1, 1, 1, 1))
    device = SimDevice()
    host = Host(device)
    plans = {plan.name: plan for plan in direct.plans("fprop", shape, host.sources)}
    for algo in ("direct_r3s3_st1_8x32", "direct_any_wide"):
        plan = plans[algo]
        assert plan.reason is None
        x = device.alloc(shape.x_shape, np.float32)
        w = device.alloc(shape.w_shape, np.float32)
        w[...] = [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
        x[0, 0, 0, :5] = 1, 2, 3, 4, 5
        x[0, 0, 3, -5:] = 6, 7, 8, 9, 10
        device.blocks = [0, plan.grid[0] * plan.grid[1] - 1]
        y = host.conv2d_fprop(x, w, None, (1, 1), (1, 1, 1, 1), (1, 1), 1, algo=algo)
        assert y[0, 0, 0, :5].tolist() == [2, 4, 6, 8, 10]
        assert y[0, 0, 3, -5:].tolist() == [12, 14, 16, 18, 20]
    assert "counts in 32 bits" in str(plans["direct_any_narrow"].reason)


@pytest.mark.parametrize("dtype", HALVES)
def test_16_bits_past_two_to_the_31_elements(dtype: str) -> None:
    shape = Conv2dShape(1, 1, 4, 2**29 + 40, 1, 3, 3, padding=(1, 1, 1, 1))
    device = Ends()
    x, w = (device.alloc(each, np.dtype(dtype)) for each in (shape.x_shape, shape.w_shape))
    w[...] = [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
    x[0, 0, 0, :5], x[0, 0, 3, -5:] = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match="counts in 32 bits"):
        Host(device).conv2d_fprop(x, w, None, (1, 1), (1, 1, 1, 1), (1, 1), 1, algo="direct_any_narrow")
    y = Host(device).conv2d_fprop(x, w, None, (1, 1), (1, 1, 1, 1), (1, 1), 1, algo="direct")
    assert y[0, 0, 0, :5].tolist() == [2, 4, 6, 8, 10]
    assert y[0, 0, 3, -5:].tolist() == [12, 14, 16, 18, 20]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_more_blocks_than_one_row_of_a_grid_holds(dtype: str) -> None:
    """2^31 + 5 images of one pixel are as many blocks; the first, the last, and one past it in the ragged last row."""
    images = 2**31 + 5
    shape = Conv2dShape(images, 1, 1, 1, 1, 1, 1)
    device = SimDevice()
    host = Host(device)
    narrow = next(plan for plan in direct.plans("fprop", shape, host.sources) if plan.name == "direct_any_narrow")
    assert "counts in 32 bits" in str(narrow.reason)
    x, w = (device.alloc(each, np.dtype(dtype)) for each in (shape.x_shape, shape.w_shape))
    x[0], x[2**30], x[-1], w[...] = 3, 5, 7, 2
    device.blocks = [0, 2**30, images - 1, images]
    y = host.conv2d_fprop(x, w, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, algo="direct_any_wide")
    assert (y[0].item(), y[2**30].item(), y[-1].item()) == (6, 10, 14)


def test_coordinates_past_32_bits_go_to_the_wide_kernel() -> None:
    x, w = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3), np.ones((1, 1, 2, 1), np.float32)
    far = 2**32
    rest = ((1, 1), (far, 0, 0, 0), (far, 1), 1)
    with pytest.raises(ValueError, match="counts in 32 bits"):
        DEVICES["forward"].conv2d_fprop(x, w, None, *rest, algo="direct_any_narrow")
    y = DEVICES["forward"].conv2d_fprop(x, w, None, *rest, algo="direct_any")
    # A filter tap 2^32 rows below the other: one of them always looks into the padding.
    assert y.shape == (1, 1, 2, 3)
    assert np.array_equal(y[0, 0], x[0, 0])
    assert DEVICES["forward"].host.device.launches[-1].name == "wide"


@pytest.mark.parametrize("problem", [*random_problems(40), *in_halves(random_problems(8))], ids=str)
def test_random_problem_is_exact_by_every_algorithm(problem: Problem) -> None:
    operands = exact_operands(problem)
    expected = rounded(problem, operands)
    for algo in able(problem):
        assert np.array_equal(run(DEVICES["random"], problem, operands, algo), expected), algo
