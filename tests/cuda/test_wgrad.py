"""conv2d_wgrad_direct: every instance on the problem lists, in the simulator, against the oracle."""

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
from pycnn.backends.cuda import Host, direct_wgrad
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_bias_gradient, check_conv2d, exact_operands, layers, problems, run
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator


def plans(shape: Conv2dShape, dtype: str = "") -> dict[str, direct_wgrad.WgradPlan]:
    return {plan.name: plan for plan in direct_wgrad.plans("wgrad", shape, installed(), dtype)}


def able(problem: Problem) -> list[str]:
    return [name for name, plan in plans(problem.shape, ending(problem)).items() if plan.reason is None]


def of_wgrad(given: list[Problem]) -> list[Problem]:
    return [replace(problem, operator="wgrad") for problem in given]


EVERYTHING = [
    pytest.param(problem, algo, marks=by_cost(problem))
    for problem in of_wgrad([*problems(), *in_halves(problems())])
    for algo in able(problem)
]

# For each instance: two full tiles and a tail of filters and channels (where a layer has so many), tiles of pixels cut
# off at both edges, and several slices of several tiles.
TILES = {
    "direct_r1s1_st1_1x64": "n3c130h11w13_k130r1s1_wgrad",
    "direct_r1s1_st2_4x16": "n2c67h19w41_k67r1s1_st2_wgrad",
    "direct_r3s3_st1_2x32": "n2c35h7w38_k67r3s3_pd1_wgrad",
    "direct_r3s3_st1_4x16": "n2c35h11w19_k67r3s3_pd1_wgrad",
    "direct_r3s3_st1_8x8": "n3c67h9w13_k130r3s3_pd1_wgrad",
    "direct_r3s3_st1_4x32_c4": "n2c5h11w37_k67r3s3_pd1_wgrad",
    "direct_r3s3_st2_2x16": "n2c19h11w37_k67r3s3_st2pd1_wgrad",
    "direct_r5s5_st1_4x16": "n2c19h11w19_k37r5s5_pd2_wgrad",
    "direct_r7s7_st2_2x16_c3": "n2c4h11w37_k67r7s7_st2pd3_wgrad",
    "direct_r11s11_st4_2x16_c3": "n2c4h25w75_k37r11s11_st4pd2_wgrad",
    "direct_any_narrow": "n2c14h9w11_k70r3s3_st1pd1dl2x1_wgrad",
    "direct_any_wide": "n2c14h9w11_k70r3s3_st1pd1dl2x1_wgrad",
}


# All that there are in 16 bits.
ANY = ("direct_any_narrow", "direct_any_wide")


def test_every_instance_has_a_problem_of_several_slices() -> None:
    shape = Problem.parse("n1c1h1_k1r1").shape
    assert set(TILES) == set(plans(shape))
    assert set(ANY) == set(plans(shape, "_f16")) == set(plans(shape, "_bf16"))
    for algo, text in TILES.items():
        assert plans(Problem.parse(text).shape)[algo].slices > 1, algo


@pytest.mark.parametrize(("problem", "algo"), EVERYTHING, ids=str)
def test_problem_list(problem: Problem, algo: str) -> None:
    check_conv2d(DEVICES["random"], problem, algo)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", TILES)
def test_full_tiles_and_tails_in_every_order(algo: str, order: str) -> None:
    backend = DEVICES[order]
    before = len(backend.host.device.launches)
    check_conv2d(backend, TILES[algo], algo)
    ran = {instance.name for instance in backend.host.device.launches[before:]}
    assert ran == {algo.removeprefix("direct_").removeprefix("any_"), "w8"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("algo", ANY)
def test_16_bits_in_every_order(algo: str, dtype: str, order: str) -> None:
    problem, backend = replace(Problem.parse(TILES[algo]), dtype=dtype), DEVICES[order]
    before = len(backend.host.device.launches)
    check_conv2d(backend, problem, algo)
    ran = {instance.name for instance in backend.host.device.launches[before:]}
    assert ran == {algo.removeprefix("direct_any_") + ending(problem), "w8" + ending(problem)}


@pytest.mark.parametrize(
    ("algo", "dtype"), [(algo, "float32") for algo in TILES] + [(algo, half) for algo in ANY for half in HALVES]
)
def test_bias_gradient(algo: str, dtype: str) -> None:
    check_bias_gradient(DEVICES["random"], replace(Problem.parse(TILES[algo]), dtype=dtype), algo)


@pytest.mark.parametrize("dtype", HALVES)
def test_16_bits_at_any_even_address(dtype: str) -> None:
    problem, device = replace(Problem.parse(TILES["direct_any_narrow"]), dtype=dtype), SimDevice()
    operands = exact_operands(problem)
    dy, x = (view_off_by_one(device, each) for each in (operands.left, operands.right))
    found = run(Host(device), problem, replace(operands, left=dy, right=x), "direct")
    assert np.array_equal(np.array(found), rounded(problem, operands))


@pytest.mark.nvrtc
@pytest.mark.parametrize(
    ("algo", "dtype"), [(algo, "float32") for algo in TILES] + [(algo, half) for algo in ANY for half in HALVES]
)
def test_ptx_is_exact(algo: str, dtype: str) -> None:
    problem = replace(Problem.parse(TILES[algo]), dtype=dtype)
    operands = exact_operands(problem, algo)
    dw = run(Simulated(Host(PtxDevice())), problem, operands, algo)
    assert np.array_equal(dw, rounded(problem, operands))


@pytest.mark.parametrize("problem", of_wgrad(layers(most_macs=6_000_000)), ids=str)
def test_layer_by_auto(problem: Problem) -> None:
    check_conv2d(DEVICES["forward"], problem, "auto")


@pytest.mark.parametrize("problem", of_wgrad([*random_problems(30), *in_halves(random_problems(8))]), ids=str)
def test_random_problem_is_exact_by_every_algorithm(problem: Problem) -> None:
    operands = exact_operands(problem)
    expected = rounded(problem, operands)
    for algo in able(problem):
        assert np.array_equal(run(DEVICES["random"], problem, operands, algo), expected), algo


@pytest.mark.parametrize(
    ("algo", "dtype"),
    [
        ("direct_r3s3_st1_4x16", "float32"),
        ("direct_r3s3_st1_8x8", "float32"),
        *(("direct_any_narrow", dtype) for dtype in ("float32", *HALVES)),
    ],
)
def test_nan_and_infinity_reach_exactly_their_taps(algo: str, dtype: str) -> None:
    # 6 columns: the last two pixels of a row go one at a time, and columns past them hold what they must not meet.
    rest = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    for place in ((0, 0, 0, 0), (0, 1, 7, 7), (0, 1, 3, 7), (0, 0, 7, 3)):
        x, dy = np.ones((1, 2, 8, 8), np.float32), np.ones((1, 3, 6, 6), np.float32)
        x[place], dy[0, 1, 5, 5] = np.nan, np.inf
        given = dy.astype(dtype), x.astype(dtype), (3, 2, 3, 3)
        dw, db = DEVICES["forward"].conv2d_wgrad(*given, *rest, algo=algo, bias=True)
        assert np.array_equal(dw.astype(np.float32), reference.conv2d_wgrad(dy, x, (3, 2, 3, 3), *rest), equal_nan=True)
        assert np.array_equal(db.astype(np.float32), [36, np.inf, 36])


def test_slices_depend_on_the_shape_and_partial_results_are_bounded() -> None:
    found = plans(Problem.parse("n64c512h14w14_k512r3_pd1").shape)["direct_r3s3_st1_4x16"]
    assert found.slices == 4
    assert found.workspace == 4 * 4 * (512 * 512 * 9 + 512)
    large = plans(Problem.parse("n64c4096h8w8_k4096r3_pd1").shape)["direct_r3s3_st1_8x8"]
    assert large.slices == 1
    assert large.workspace == 0
    one = plans(Problem.parse("n1c3h5w5_k4r3_pd1").shape)["direct_r3s3_st1_8x8"]
    assert one.slices == 1


def test_one_slice_is_written_in_place() -> None:
    backend = DEVICES["forward"]
    before = len(backend.host.device.launches)
    check_bias_gradient(backend, "n1c3h5w5_k4r3s3_pd1_wgrad", "direct_r3s3_st1_8x8")
    assert {instance.name for instance in backend.host.device.launches[before:]} == {"r3s3_st1_8x8"}


@pytest.mark.parametrize("dtype", HALVES)
def test_one_slice_of_16_bits_is_rounded(dtype: str) -> None:
    problem, backend = replace(Problem.parse("n1c3h5w5_k4r3s3_pd1_wgrad"), dtype=dtype), DEVICES["forward"]
    plan = plans(problem.shape, ending(problem))["direct_any_narrow"]
    assert (plan.slices, plan.workspace) == (1, 4 * (4 * 3 * 9 + 4))
    before = len(backend.host.device.launches)
    check_bias_gradient(backend, problem, plan.name)
    ran = [instance.name for instance in backend.host.device.launches[before:]]
    assert ran == [name + ending(problem) for name in ("narrow", "w8", "w8", "narrow", "w8")]


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_x_past_two_to_the_31_elements(dtype: str) -> None:
    """Two columns of pixels at the ends of rows of 2^29 elements: coordinates fit 32 bits, offsets do not."""
    shape = Conv2dShape(1, 1, 4, 2**29 + 40, 1, 1, 1, (1, 2**29 + 39))
    device = SimDevice()
    x, dy = (device.alloc(each, np.dtype(dtype)) for each in (shape.x_shape, shape.y_shape))
    x[0, 0, 0, 0], x[0, 0, 3, -1] = 3, 5
    dy[...] = [[[[2, 1], [1, 1], [1, 1], [1, 7]]]]
    how = (shape.stride, shape.padding, shape.dilation, 1)
    for algo in ("direct_any_narrow", "direct_any_wide"):
        assert Host(device).conv2d_wgrad(dy, x, shape.w_shape, *how, algo=algo).item() == 41


@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_dy_past_two_to_the_31_elements(dtype: str) -> None:
    filters = 2**29 + 40
    shape = Conv2dShape(1, 1, 1, 4, filters, 1, 1)
    device = Ends()
    x, dy = (device.alloc(each, np.dtype(dtype)) for each in (shape.x_shape, shape.y_shape))
    x[...], dy[0, 0], dy[0, -1] = [1, 2, 3, 4], 1, 2
    how = (shape.stride, shape.padding, shape.dilation, 1)
    dw, db = Host(device).conv2d_wgrad(dy, x, shape.w_shape, *how, algo="direct_any_wide", bias=True)
    assert (dw[0].item(), dw[-1].item()) == (10, 20)
    assert (db[0].item(), db[-1].item()) == (4, 8)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_more_blocks_than_one_row_of_a_grid_holds(dtype: str) -> None:
    groups = 2**31 + 5
    shape = Conv2dShape(1, groups, 1, 1, groups, 1, 1, groups=groups)
    device = Ends()
    x, dy = (device.alloc(each, np.dtype(dtype)) for each in (shape.x_shape, shape.y_shape))
    for place, value in ((0, 3), (2**30, 5), (-1, 7)):
        x[0, place], dy[0, place] = value, 2
    device.also = (2**30 // 256, 2**30, groups - 1, groups)  # the first: where 16 bits are rounded
    how = (shape.stride, shape.padding, shape.dilation, groups)
    dw = Host(device).conv2d_wgrad(dy, x, shape.w_shape, *how, algo="direct_any_wide")
    assert (dw[0].item(), dw[2**30].item(), dw[-1].item()) == (6, 10, 14)


def test_coordinates_past_32_bits_go_to_the_wide_kernel() -> None:
    x, dy = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3), np.ones((1, 1, 2, 3), np.float32)
    rest = ((1, 1), (2**32, 0, 0, 0), (2**32, 1), 1)
    dw = DEVICES["forward"].conv2d_wgrad(dy, x, (1, 1, 2, 1), *rest)
    # A filter tap 2^32 rows below the other: one of them always looks into the padding.
    assert dw.ravel().tolist() == [0, 15]


def test_empty_batch_is_zero() -> None:
    check_bias_gradient(DEVICES["forward"], "n0c3h8w8_k4r3s3_pd1_wgrad")
    check_conv2d(DEVICES["forward"], "n0c3h8w8_k4r3s3_pd1_wgrad")


def test_bias_gradient_by_a_kernel_of_its_own_where_the_plan_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(SimDevice())
    made = direct_wgrad.plans
    monkeypatch.setattr(
        direct_wgrad, "plans", lambda *given: [replace(plan, bias_gradient=False) for plan in made(*given)]
    )
    monkeypatch.setattr(Host, "channel_sum", lambda self, dy: reference.channel_sum(np.array(dy)), raising=False)
    check_bias_gradient(Simulated(host), TILES["direct_any_narrow"], "direct_any_narrow")
