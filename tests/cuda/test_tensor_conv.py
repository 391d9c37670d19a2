"""Convolution on tensor cores: every instance in every pass and order of threads, in the simulator."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from simulated import DEVICES, ORDERS, random_problems
from tensor_instances import (
    FAST,
    INSTANCES,
    LAYOUTS,
    LISTED,
    MOST_MACS,
    by_cost,
    computed,
    exactly,
    kind,
    laid,
    of,
    on_integers,
    plans,
    rounded,
)

from pycnn import use_precision
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import (
    Operands,
    check_conv2d,
    check_epilogue,
    error_bound,
    every_pass,
    exact_operands,
    float_operands,
    layers,
    magnitudes,
    oracle,
    problems,
    run,
)

pytestmark = pytest.mark.simulator


# ----------------------------------------------------------------------------------------------------------------------
# Problems


def lists() -> list[Any]:
    """Every problem in every pass by six instances, in one by the others; in the fast run each pass by one."""
    found = []
    for number, instance in enumerate(INSTANCES):
        for i, problem in enumerate(every_pass(problems())):
            if instance not in LISTED and (i + i // 3 + number) % 3:
                continue
            each = of(instance, problem, problem.operator)
            fast = instance == LISTED[(i + i // 3) % len(LISTED)] and each.shape.macs < MOST_MACS[instance]
            marks = () if fast else (pytest.mark.slow,)
            found.append(pytest.param(instance, each, id=f"{instance} {each}", marks=marks))
    return found


@pytest.mark.parametrize(("instance", "problem"), lists())
def test_problem_list(instance: str, problem: Problem) -> None:
    algo, _, precision, *_ = kind(instance)
    with use_precision(precision):
        if problem.shape.N == 0 and problem.operator == "wgrad":
            assert not run(DEVICES["random"], problem, exact_operands(problem, algo), algo).any()
        else:
            check_conv2d(DEVICES["random"], problem, algo)


def edges(instance: str, operator: str) -> Problem:
    """Two full tiles and a tail along gemm_m and gemm_n, more tiles of gemm_k than stages, the last one ragged."""
    tile, vectors, chunk = installed().of(f"conv2d_{operator}_tensor")[instance].tile, *kind(instance)[3:]
    m, n, stages = tile["tile_m"], tile["tile_n"], tile["stages"] * tile["tile_k"]

    def whole(least: int) -> int:
        return chunk * (least // chunk + 1) if vectors else least + 3

    across, pixels = (n, m) if vectors else (m, n)
    if operator == "fprop":
        rows = math.ceil((2 * pixels + 5) / 26)
        text = f"n2c{whole(stages // 6)}h{rows}w13_k{2 * across + 3}r2s3_pd1.0.0.2"
    elif operator == "dgrad":  # in both parity classes
        rows = math.ceil((2 * pixels + 5) / 26)
        text = f"n2c{2 * across + 3}h{rows}w26_k{whole(stages // 3)}r3s2_st1x2pd1.0.0.2"
    else:
        text = f"n2c{whole((2 * n + 5) // 9)}h9w9_k{whole(2 * m)}r3s3_pd1"
    return Problem(Problem.parse(text).shape, operator, kind(instance).dtype, "nhwc" if vectors else "nchw")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("instance", [pytest.param(name, marks=by_cost(name)) for name in INSTANCES])
@pytest.mark.parametrize("operator", PASSES)
def test_full_tiles_and_tails_in_every_order(operator: str, instance: str, order: str) -> None:
    device, problem = DEVICES[order].host.device, edges(instance, operator)
    before = len(device.launches)
    assert exactly(instance, problem, device)
    plan = plans(problem, kind(instance).precision, chunks=True)[kind(instance).algo]
    tile = plan.instance.tile
    assert min(plan.tiles) >= 3
    assert plan.length > tile["stages"] * tile["tile_k"]
    assert plan.length % tile["tile_k"]
    launched = device.launches[before : before + len(plan.kernels)]
    assert launched == list(plan.kernels)
    assert str(plan.instance) in map(str, launched)


def at_random() -> list[Any]:
    """Every pass of a problem by an instance, another one each time."""
    given = [(problem, operator) for problem in random_problems(30) for operator in PASSES]
    return [
        pytest.param(LISTED[(i + i // 6) % 6], problem, operator, marks=() if i < 45 else pytest.mark.slow)
        for i, (problem, operator) in enumerate(given)
    ]


@pytest.mark.parametrize(("instance", "problem", "operator"), at_random(), ids=str)
def test_random_problem_is_exact(instance: str, problem: Problem, operator: str) -> None:
    assert exactly(instance, of(instance, problem, operator), DEVICES["random"].host.device)


@pytest.mark.parametrize("problem", every_pass(layers(most_macs=3_000_000)), ids=str)
def test_layer_by_the_family(problem: Problem) -> None:
    for dtype, layout in (("float16", "nchw"), ("bfloat16", "nhwc")):
        check_conv2d(DEVICES["forward"], replace(problem, dtype=dtype, layout=layout), "im2col_tensor")


@pytest.mark.slow
@pytest.mark.parametrize("problem", every_pass(layers(most_macs=60_000_000)), ids=str)
def test_large_layer_is_exact(problem: Problem) -> None:
    for instance in ("f16_128x128", "bf16_strided_128x128", "3xtf32_128x128", "3xfp16_strided_128x128"):
        assert exactly(instance, of(instance, problem, problem.operator), DEVICES["forward"].host.device)


# ----------------------------------------------------------------------------------------------------------------------
# What is fused, and slices


@pytest.mark.parametrize("text", ["n2c16h7w8_k10r3s3_pd1g2", "n1c264h3_k8r3s3_pd1", "n2c8h5w5_k16r1s1"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_epilogue_scales_shifts_adds_and_rectifies(dtype: str, text: str) -> None:
    problem = replace(Problem.parse(text), dtype=dtype)
    for layout, algo in (("nchw", "im2col_tensor_strided_64x64"), ("nhwc", "im2col_tensor_64x64")):
        check_epilogue(DEVICES["random"], replace(problem, layout=layout), algo)


@pytest.mark.parametrize(("dtype", "largest"), [("float16", np.inf), ("bfloat16", 2.0**17)])
def test_what_a_dtype_cannot_hold_is_infinite(dtype: str, largest: float) -> None:
    for layout in LAYOUTS:
        x, w = (laid(np.full((1, 8, 3, 3), 128, ml_dtypes.bfloat16).astype(dtype), layout) for _ in range(2))
        y = DEVICES["forward"].conv2d_fprop(x, w[:, :, :1, :1], None, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        assert (y == largest).all()


@pytest.mark.parametrize("layouts", [*product(LAYOUTS, repeat=2)], ids="-".join)
def test_a_residual_of_either_layout_is_added(layouts: tuple[str, str]) -> None:
    problem = Problem.parse("n2c16h7w8_k16r3s3_pd1_f16")
    s, (operands,) = problem.shape, on_integers(problem, "float32")
    residual = np.random.default_rng(0).integers(-99, 100, s.y_shape).astype(np.float16)
    expected = (oracle(problem, operands) + residual).astype(np.float16)
    x, residual = laid(operands.left, layouts[0]), laid(residual, layouts[1])
    for given in (residual, np.repeat(residual, 2, axis=3)[..., ::2]):
        y = DEVICES["random"].conv2d_fprop(
            x, operands.right, None, s.stride, s.padding, s.dilation, 1, algo="im2col_tensor", residual=given
        )
        assert np.array_equal(y, expected)


def test_what_is_one_value_a_channel_may_be_float32() -> None:
    problem = Problem.parse("n2c16h7w8_k10r3s3_pd1_bf16")
    s, (operands,) = problem.shape, on_integers(problem, "float32")
    rng = np.random.default_rng(0)
    scale, b = (rng.integers(-999, 1000, s.K).astype(np.float32) / 4 for _ in range(2))  # not bfloat16 numbers
    y = DEVICES["random"].conv2d_fprop(
        operands.left, operands.right, b, s.stride, s.padding, s.dilation, s.groups, algo="im2col_tensor", scale=scale
    )
    channel = (slice(None), None, None)
    assert np.array_equal(y, (oracle(problem, operands) * scale[channel] + b[channel]).astype(operands.left.dtype))


LONG = {"fprop": "n1c104h3_k5r3_pd1", "dgrad": "n1c5h3_k600r3_pd1", "wgrad": "n3c4h18_k5r3_pd1"}


@pytest.mark.parametrize("instance", ["f16_64x64", "f16_strided_64x64", "bf16_64x64", "3xtf32_64x64", "3xfp16_64x64"])
@pytest.mark.parametrize("operator", PASSES)
def test_gemm_k_is_split_by_the_shape_alone_and_rounded_once(operator: str, instance: str) -> None:
    """Partial results are float32: sums that 16 bits cannot hold, of which each slice's part is no such number."""
    problem, (algo, _, precision, *_) = of(instance, LONG[operator], operator), kind(instance)
    plan = plans(problem, precision, chunks=True)[algo]
    assert plan.slices > 2
    size = math.prod(rounded(problem, on_integers(problem, precision)[0]).shape)
    assert plan.workspace >= 4 * plan.slices * size
    device = SimDevice(order="random", seed=1)
    assert exactly(instance, problem, device)
    assert device.launches[-1].kernel == "sum_slices"
    if precision == "float32":
        operands = magnitudes(exact_operands(problem, "im2col", bias=False))
        operands = Operands(np.minimum(operands.left, 3), np.minimum(operands.right, 3))
        y = computed(instance, problem, operands, device)
        assert np.array_equal(y, rounded(problem, operands))
        assert float(y.max()) > 2.0**11


@pytest.mark.parametrize("instance", LISTED)
@pytest.mark.parametrize("operator", PASSES)
def test_an_empty_batch_launches_nothing(operator: str, instance: str) -> None:
    problem = of(instance, "n0c4h8w8_k4r3s3", operator)
    device = SimDevice()
    y = computed(instance, problem, exact_operands(problem, bias=False), device)
    assert device.launches == []
    assert not y.any()
    assert (
        y.shape
        == {"fprop": problem.shape.y_shape, "dgrad": problem.shape.x_shape, "wgrad": problem.shape.w_shape}[operator]
    )


@pytest.mark.parametrize("instance", FAST)
@pytest.mark.parametrize("operator", PASSES)
def test_nan_and_infinity_reach_exactly_their_windows(operator: str, instance: str) -> None:
    problem, precision = of(instance, "n1c2h9w8_k3r3s2_st1x2pd1", operator), kind(instance).precision
    operands = float_operands(problem, bias=False)
    left, right = np.ones_like(operands.left), np.ones_like(operands.right)
    left[0, 0, 2, 3], left[0, 1, -1, -1] = np.nan, np.inf
    given = replace(operands, left=left, right=right)
    found, expected = computed(instance, problem, given, DEVICES["forward"].host.device), oracle(problem, given)
    if precision.startswith("3x"):  # an infinity times a low part of zero is NaN
        assert np.array_equal(np.isfinite(found), np.isfinite(expected))
        assert np.isnan(found[np.isnan(expected)]).all()
        assert np.array_equal(found[np.isfinite(found)], expected[np.isfinite(expected)])
    else:
        assert np.array_equal(found, expected, equal_nan=True)


# ----------------------------------------------------------------------------------------------------------------------
# Accuracy


def long_sum(instance: str, length: int, seed: int) -> tuple[Problem, Operands, np.ndarray]:
    """A result that is one long sum of one sign, not cut into slices: what is rectified is not."""
    problem = of(instance, f"n1c{length}h8w8_k64r1s1", "fprop")
    operands = magnitudes(float_operands(problem, seed, bias=False))
    s, (algo, _, precision, *_) = problem.shape, kind(instance)
    x, w = laid(operands.left, problem.layout), laid(operands.right, problem.layout)
    with use_precision(precision):
        y = DEVICES["forward"].conv2d_fprop(x, w, None, s.stride, s.padding, s.dilation, 1, algo=algo, relu=True)
    return problem, operands, y


def test_split_products_are_as_accurate_as_float32() -> None:
    """Of 2048 products of one sign: within the bound, and beside sums in float32 in order, each product rounded."""
    print("\nRMS of relative errors over those of a float32 sum in order")
    for instance in ("3xtf32_64x64", "3xtf32_strided_64x64", "3xfp16_64x64", "3xfp16_strided_64x64", "tf32_64x64"):
        problem, operands, y = long_sum(instance, 2048, seed=1)
        y64 = oracle(problem, operands)
        x, w = operands.left.reshape(2048, -1), operands.right.reshape(-1, 2048)
        summed = np.zeros((w.shape[0], x.shape[1]), np.float32)
        for k in range(2048):
            summed += w[:, k, None] * x[k]
        errors = [float(np.sqrt(np.mean((each.reshape(y64.shape) / y64 - 1) ** 2))) for each in (y, summed)]
        print(f"{instance:22} {errors[0]:.3g} / {errors[1]:.3g} = {errors[0] / errors[1]:.3g}")
        assert np.abs(y - y64).max() <= error_bound(problem, operands, y64, kind(instance).algo, y64)
        assert (errors[0] <= errors[1]) == instance.startswith("3x")


@pytest.mark.parametrize("value", [3.4028235e38, -3.4e38, 3.0e38, 1.2e-38])
def test_split_numbers_at_the_ends_of_the_range(value: float) -> None:
    """The last numbers before infinity round up to it: they are cut off instead."""
    for layout, algo in (("nhwc", "im2col_tensor_3xtf32_64x64"), ("nchw", "im2col_tensor_3xtf32_strided_64x64")):
        left, right = np.zeros((1, 8, 2, 2), np.float32), np.zeros((4, 8, 1, 1), np.float32)
        left[0, 3, 1, 1], right[2, 3] = value, 0.5
        for x, w in ((left, right), (2 * right.reshape(1, 8, 2, 2), left.reshape(4, 8, 1, 1) / 2)):
            problem = Problem(Conv2dShape(1, 8, 2, 2, 4, 1, 1))
            with use_precision("3xtf32"):
                y = run(DEVICES["forward"], problem, Operands(laid(x, layout), laid(w, layout)), algo)
            expected = oracle(problem, Operands(x, w))
            assert np.allclose(y, expected, rtol=2.0**-10, atol=0)  # 11 bits of what is cut off


@pytest.mark.parametrize("value", [65504.0, 65519.0, 1 / 3, 2.0**-14 / 3, 2.0**-20 / 3])
def test_split_numbers_at_the_ends_of_float16(value: float) -> None:
    """2^-22 of a number is left out, and less than 2^-36 of the smallest; what float16 cannot hold is not finite."""
    for layout, algo in (("nhwc", "im2col_tensor_3xfp16_64x64"), ("nchw", "im2col_tensor_3xfp16_strided_64x64")):
        left, right = np.zeros((1, 8, 2, 2), np.float32), np.zeros((4, 8, 1, 1), np.float32)
        left[0, 3, 1, 1], right[2, 3] = value, 1
        for x, w in ((left, right), (right.reshape(1, 8, 2, 2), left.reshape(4, 8, 1, 1))):
            problem = Problem(Conv2dShape(1, 8, 2, 2, 4, 1, 1))
            for factor in (1, 65536 / value):
                operands = Operands(laid(x, layout), laid(np.float32(factor) * w, layout))
                with use_precision("3xfp16"):
                    y = run(DEVICES["forward"], problem, operands, algo)
                expected = oracle(problem, operands)
                if np.abs(operands.right).max() > 65520:
                    assert not np.isfinite(y[expected != 0]).any()
                else:
                    assert np.allclose(y, expected, rtol=2.0**-22, atol=2.0**-36)
