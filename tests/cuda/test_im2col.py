"""im2col, implicit and explicit: every plan on the problem lists, in all three passes, in the simulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, ORDERS, random_problems

from pycnn.backends import reference
from pycnn.backends.cuda import Host, columns, im2col
from pycnn.backends.cuda.device import Device
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.plan import Epilogue, Operands, Plan
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import (
    check_bias_gradient,
    check_conv2d,
    every_pass,
    exact_operands,
    float_operands,
    layers,
    problems,
    run,
)
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

TILES = tuple(installed().of("conv2d_fprop_im2col"))
IMPLICIT = tuple(f"im2col_implicit_{tile}" for tile in TILES)
ALGOS = (*IMPLICIT, "im2col_explicit")

# The fast run takes the tile that has the most tails on small problems, and the one that `auto` would.
FAST = ("im2col_implicit_64x64", "im2col_explicit")


def plans(operator: str, shape: Conv2dShape) -> dict[str, Plan]:
    found = (*im2col.plans(operator, shape, installed()), *columns.plans(operator, shape, installed()))
    return {plan.name: plan for plan in found}


def of(operator: str, problem: str) -> Problem:
    return replace(Problem.parse(problem), operator=operator)


def exactly(algo: str, problem: Problem, device: Device) -> bool:
    operands = exact_operands(problem, algo)
    found = run(Simulated(Host(device)), problem, operands, algo)
    return np.array_equal(found, run(reference, problem, operands, "auto"))


def lists(algo: str) -> list[Any]:
    """The problem lists in every pass; for one algorithm in the fast run, each problem once."""
    given = every_pass(problems())
    fast = [problem for i, problem in enumerate(given) if (i // 3 + i) % 3 == 0]
    marks = [() if problem in fast and algo in FAST else (pytest.mark.slow,) for problem in given]
    return [
        pytest.param(problem, algo, id=f"{problem} {algo}", marks=m) for problem, m in zip(given, marks, strict=True)
    ]


@pytest.mark.parametrize(("problem", "algo"), [each for algo in ALGOS for each in lists(algo)])
def test_problem_list(problem: Problem, algo: str) -> None:
    if problem.shape.N == 0 and problem.operator == "wgrad":
        assert not run(DEVICES["random"], problem, exact_operands(problem, algo), algo).any()
    else:
        check_conv2d(DEVICES["random"], problem, algo)


# Two full tiles and a tail along gemm_m and gemm_n, more tiles of gemm_k than stages; strides and padding mixed.
EDGES = {
    "fprop": "n2c19h12w13_k262r2s3_st1pd1.0.0.2",
    "dgrad": "n2c262h11w12_k9r3s2_st1x2pd1.0.0.2",
    "wgrad": "n2c31h9w7_k262r3s3_st1pd1",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("operator", PASSES)
def test_full_tiles_and_tails_in_every_order(operator: str, algo: str, order: str) -> None:
    device = DEVICES[order].host.device
    before = len(device.launches)
    assert exactly(algo, of(operator, EDGES[operator]), device)
    if algo in IMPLICIT:
        assert str(device.launches[before]) == f"conv2d_{operator}_im2col[{algo.rpartition('_')[2]}]"


@pytest.mark.parametrize("problem", random_problems(30), ids=str)
def test_random_problem_is_exact_in_every_pass(problem: Problem) -> None:
    for operator in PASSES:
        each = replace(problem, operator=operator)
        for algo in ("im2col_implicit_64x64", "im2col_implicit_32x128", "im2col_implicit_wide", "im2col_explicit"):
            assert exactly(algo, each, DEVICES["random"].host.device), (operator, algo)


@pytest.mark.parametrize("problem", every_pass(layers(most_macs=3_000_000)), ids=str)
def test_layer_by_the_family(problem: Problem) -> None:
    check_conv2d(DEVICES["forward"], problem, "im2col")


@pytest.mark.slow
@pytest.mark.parametrize("problem", every_pass(layers(most_macs=60_000_000)), ids=str)
def test_large_layer_is_exact(problem: Problem) -> None:
    assert exactly("im2col", problem, DEVICES["forward"].host.device)


@pytest.mark.parametrize("operator", PASSES)
def test_gemm_k_is_split_by_the_shape_alone(operator: str) -> None:
    problem = of(
        operator, {"fprop": "n1c90h3_k5r3_pd1", "dgrad": "n1c5h3_k600r3_pd1", "wgrad": "n3c4h14_k5r3_pd1"}[operator]
    )
    for algo in ("im2col_implicit_64x64", "im2col_implicit_128x128", "im2col_implicit_wide", "im2col_explicit"):
        plan = plans(operator, problem.shape)[algo]
        assert plan.workspace > 0
        assert {instance.kernel for instance in plan.kernels} >= {"sum_slices"}
        device = SimDevice(order="random", seed=1)
        assert exactly(algo, problem, device)
        assert set(plan.kernels) == set(device.launches)


def on(device: Device, array: np.ndarray, skew: int = 0) -> Any:
    """A copy on the device, `skew` elements past a multiple of 16 bytes."""
    place = device.alloc((array.size + skew,), array.dtype)[skew:].reshape(array.shape)
    device.fill(place, array)
    return place


@pytest.mark.parametrize("algo", ["im2col_implicit_64x64", "im2col_implicit_32x128", "im2col_explicit"])
@pytest.mark.parametrize("text", ["n2c6h7w8_k10r3s3_pd1g2", "n1c90h3_k5r3_pd1", "n2c8h5w5_k12r1s1"])
def test_epilogue_scales_shifts_adds_and_rectifies(text: str, algo: str) -> None:
    problem = Problem.parse(text)
    shape, operands = problem.shape, exact_operands(problem)
    rng = np.random.default_rng(1)
    scale, b = (rng.integers(-3, 4, shape.K).astype("f4") for _ in range(2))
    residual = rng.integers(-99, 100, shape.y_shape).astype("f4")
    plain = run(reference, problem, replace(operands, b=None), "auto")
    channel = (slice(None), None, None)
    for relu in (False, True):
        device = SimDevice(order="random", seed=2)
        x, w, y = on(device, operands.left), on(device, operands.right), device.alloc(shape.y_shape, np.float32)
        given = Epilogue(*(on(device, part) for part in (scale, b, residual)), relu)
        plans("fprop", shape)[algo].run(Host(device), Operands(x=x, w=w, y=y, epilogue=given))
        expected = scale[channel] * plain + b[channel] + residual
        assert np.array_equal(y, np.maximum(expected, 0) if relu else expected)


# Vectors of four where planes and rows of filters allow it: tails of pixels, channels and filters that are vectors;
# planes of no whole vectors; filters of none.
@pytest.mark.parametrize(
    "text",
    [
        *("n3c68h6w6_k36r1s1", "n3c68h5w5_k34r1s1", "n3c35h6w6_k36r1s1", "n2c40h4w7_k24r1s1_g2"),
        *("n2c12h6w6_k20r1s1_pd1x0", "n2c12h6w6_k20r1s1_pd0x1"),  # vectors, but not where there is padding
    ],
)
@pytest.mark.parametrize("skew", [0, 1, 2])
@pytest.mark.parametrize("operator", PASSES)
def test_filters_of_one_tap_at_any_alignment(operator: str, skew: int, text: str) -> None:
    problem = of(operator, text)
    s, operands = problem.shape, exact_operands(problem, bias=False)
    expected = run(reference, problem, operands, "auto")
    for algo in ("im2col_implicit_64x64", "im2col_implicit_32x128", "im2col_explicit"):
        device = SimDevice(order="random", seed=2)
        left, right = on(device, operands.left, skew), on(device, operands.right, skew)
        out = on(device, np.full_like(expected, np.nan), skew)
        given = {
            "fprop": Operands(x=left, w=right, y=out),
            "dgrad": Operands(dy=left, w=right, dx=out),
            "wgrad": Operands(dy=left, x=right, dw=out),
        }[operator]
        plans(operator, s)[algo].run(Host(device), given)
        assert np.array_equal(out, expected), algo


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("text", ["n2c40h4w5_k21r1s1", "n2c40h4w6_k22r1s1_st2"])
def test_vectors_past_the_last_k_are_aligned_though_nobody_reads_them(text: str, operator: str) -> None:
    problem = of(operator, text)  # channels are whole vectors, but gemm_k ends within a tile
    for device in (SimDevice(order="random", seed=1), PtxDevice("sm_80")):
        assert exactly("im2col_implicit_64x64", problem, device)


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("text", ["n2c6h7w8_k10r3s3_pd1g2", "n5c3h14_k140r3_pd1", "n3c40h9w10_k70r1s1"])
def test_bias_gradient_comes_with_that_of_the_filters(text: str, algo: str) -> None:
    device = SimDevice(order="random", seed=2)
    check_bias_gradient(Simulated(Host(device)), of("wgrad", text), algo)
    summed = "channel_sum" in {instance.kernel for instance in device.launches}
    assert summed == (algo == "im2col_explicit")  # whose products do not see dy by channel


@pytest.mark.parametrize("algo", ["im2col_implicit_64x64", "im2col_explicit"])
@pytest.mark.parametrize("operator", PASSES)
def test_nan_and_infinity_reach_exactly_their_windows(operator: str, algo: str) -> None:
    problem = of(operator, "n1c2h9w8_k3r3s2_st1x2pd1")
    operands = float_operands(problem)
    left, right = np.ones_like(operands.left), np.ones_like(operands.right)
    left[0, 0, 2, 3], left[0, 1, -1, -1] = np.nan, np.inf
    found, expected = (
        run(backend, problem, replace(operands, left=left, right=right), algorithm)
        for backend, algorithm in ((DEVICES["forward"], algo), (reference, "auto"))
    )
    assert np.array_equal(found, expected, equal_nan=True)


# Tails, groups and more tiles of gemm_k than stages, as small as they come.
PTX = {
    "fprop": "n2c10h5w6_k70r3s2_st2x1pd1.0.2.1dl1x2g2",
    "dgrad": "n2c70h5w7_k10r3s2_st2x1pd1.0.2.1dl1x2g2",
    "wgrad": "n2c16h6w7_k70r3s2_st1x1pd1.0.2.1dl1x2g2",
}


@pytest.mark.nvrtc
@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("operator", PASSES)
def test_ptx_is_exact(operator: str, algo: str) -> None:
    archs = ("sm_75", "sm_90a") if algo in FAST else ("sm_90a",)
    for arch in archs:
        device = PtxDevice(arch)
        assert exactly(algo, of(operator, PTX[operator]), device)
        assert device.launches


def test_columns_are_stored_for_as_many_images_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.parse("n5c3h6w7_k4r3s3_pd1")
    image = 4 * 3 * 9 * 6 * 7
    for images in (1, 2, 5):
        monkeypatch.setattr(columns, "MOST_COLUMNS", images * (image + 4 * 4 * 27))
        for operator in PASSES:
            each = replace(problem, operator=operator)
            plan = plans(operator, each.shape)["im2col_explicit"]
            assert plan.workspace < (images + 1) * (image + 4 * 4 * 27)
            device = SimDevice(order="random", seed=1)
            assert exactly("im2col_explicit", each, device)
            made = [instance for instance in device.launches if instance.kernel in columns.KERNELS]
            assert len(made) == -(-5 // images)


@pytest.mark.parametrize("operator", PASSES)
def test_a_1x1_filter_needs_no_columns(operator: str) -> None:
    plan = plans(operator, Problem.parse("n9c8h12w11_k40r1s1").shape)["im2col_explicit"]
    assert all(instance.kernel not in columns.KERNELS for instance in plan.kernels)
    if operator != "wgrad":
        assert plan.workspace == 0


WIDE = 2**29 + 40


@pytest.mark.parametrize("operator", PASSES[:2])
def test_past_two_to_the_31_elements(operator: str) -> None:
    """x and y of 2^31 elements and more, in mappings that nobody touches but the first and the last block."""
    shape = Conv2dShape(1, 1, 4, WIDE, 1, 1, 1)
    found = plans(operator, shape)
    plan = found["im2col_implicit_wide"]
    assert all("counts in 32 bits" in str(found[algo].reason) for algo in IMPLICIT if algo != plan.name)
    device = SimDevice()
    source, w, target = (device.alloc(s, np.float32) for s in (shape.x_shape, shape.w_shape, shape.y_shape))
    w[...] = 2
    source[0, 0, 0, :5] = 1, 2, 3, 4, 5
    source[0, 0, 3, -5:] = 6, 7, 8, 9, 10
    device.blocks = [0, -(-4 * WIDE // 64) - 1]
    given = Operands(x=source, w=w, y=target) if operator == "fprop" else Operands(dy=source, w=w, dx=target)
    plan.run(Host(device), given)
    assert target[0, 0, 0, :5].tolist() == [2, 4, 6, 8, 10]
    assert target[0, 0, 3, -5:].tolist() == [12, 14, 16, 18, 20]


def test_past_two_to_the_31_elements_of_one_image_of_many() -> None:
    """Narrow coordinates within an image, and offsets past 2^31 between images."""
    shape = Conv2dShape(3, 2**10, 2**10, 2**10, 1, 1, 1, (2**9, 2**9))
    plan = plans("fprop", shape)["im2col_implicit_64x64"]
    assert plan.reason is None
    device = SimDevice()
    x, w, y = (device.alloc(s, np.float32) for s in (shape.x_shape, shape.w_shape, shape.y_shape))
    w[...] = 1
    x[:, :, :: 2**9, :: 2**9] = np.arange(12).reshape(3, 1, 2, 2)
    plan.run(Host(device), Operands(x=x, w=w, y=y))
    assert np.array_equal(y[:, 0], 2**10 * np.arange(12).reshape(3, 2, 2))


def test_wgrad_past_two_to_the_31_elements() -> None:
    shape = Conv2dShape(1, 1, 4, WIDE, 1, 1, 1)
    found = plans("wgrad", shape)
    assert "counts in 32 bits" in str(found["im2col_implicit_64x64"].reason)
    # Few pixels of many: filters apart, so that offsets pass 2^31 where pixels do not.
    shape = Conv2dShape(2, 2**10, 2**10, 2**10 + 1, 2, 1, 1, (2**9, 2**9), groups=2)
    found = plans("wgrad", shape)
    assert "pixels of x" in str(found["im2col_implicit_64x64"].reason)
    device = SimDevice()
    x, dy, dw = (device.alloc(s, np.float32) for s in (shape.x_shape, shape.y_shape, shape.w_shape))
    values = np.random.default_rng(0).integers(-4, 5, (2, 2**10, *shape.y_shape[2:])).astype("f4")
    x[:, :, :: 2**9, :: 2**9] = values
    dy[...] = np.random.default_rng(1).integers(-4, 5, shape.y_shape)
    found["im2col_implicit_wide"].run(Host(device), Operands(dy=dy, x=x, dw=dw))
    expected = np.einsum("ngpq,ngcpq->gc", dy, values.reshape(2, 2, 2**9, *shape.y_shape[2:]))
    assert np.array_equal(dw[:, :, 0, 0], expected)


@pytest.mark.parametrize("operator", PASSES[:2])
def test_more_blocks_than_one_row_of_a_grid_holds(operator: str) -> None:
    images, rows = 2**31 + 5, 64
    shape = Conv2dShape(images, rows, 1, 1, rows, 1, 1, groups=rows)
    device = SimDevice()
    source, w, target = (device.alloc(s, np.float32) for s in (shape.x_shape, shape.w_shape, shape.y_shape))
    tiles = -(-images // 64)
    source[0], source[-1], w[...] = 3, 7, 2
    device.blocks = [0, tiles - 1, 64 * tiles - 1, 64 * tiles]
    given = Operands(x=source, w=w, y=target) if operator == "fprop" else Operands(dy=source, w=w, dx=target)
    plans(operator, shape)["im2col_implicit_wide"].run(Host(device), given)
    assert (target[0, 0].item(), target[-1, 0].item(), target[-1, -1].item()) == (6, 14, 14)


@pytest.mark.parametrize("algo", ["im2col", "im2col_explicit"])
@pytest.mark.parametrize("operator", PASSES)
def test_coordinates_past_32_bits(operator: str, algo: str) -> None:
    far = 2**32  # the first tap so far above the second that it always looks into the padding
    problem = Problem(Conv2dShape(1, 1, 2, 3, 1, 2, 1, (1, 1), (far, 0, 0, 0), (far, 1)), operator)
    near = Problem(Conv2dShape(1, 1, 2, 3, 1, 1, 1), operator)
    operands = exact_operands(problem)
    device = SimDevice()
    found = run(Simulated(Host(device)), problem, operands, algo)
    if operator == "wgrad":
        assert found[0, 0, 0, 0] == 0
        assert found[0, 0, 1, 0] == run(reference, near, operands, "auto").item()
    else:
        second = replace(operands, right=operands.right[:, :, 1:])
        assert np.array_equal(found, run(reference, near, second, "auto"))
    assert "wide" in {instance.name for instance in device.launches}
