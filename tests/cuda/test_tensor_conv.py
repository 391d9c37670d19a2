"""Convolution on tensor cores: every instance in every pass, layout and order of threads, in the simulator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from simulated import DEVICES, ORDERS, random_problems

import pycnn
from pycnn import ops, use_precision
from pycnn.backends import sim
from pycnn.backends.cuda import Host, tensor
from pycnn.backends.cuda.device import Argument, Array, Device, Extent
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.backends.sim import Simulated
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
from pycnn.testing.ptx import PtxDevice
from pycnn.testing.ptx.machine import Machine
from pycnn.testing.regimes import split_operands

pytestmark = pytest.mark.simulator

DTYPES = {"f16": "float16", "bf16": "bfloat16", "tf32": "float32", "3xtf32": "float32", "3xfp16": "float32"}
INSTANCES = tuple(installed().of("conv2d_fprop_tensor"))

# bfloat16 has the code of float16 but for one instruction, tf32 that of 3xtf32 without the splitting.
FAST = (
    *("f16_256x128", "f16_64x64", "f16_strided_64x64", "f16_wide", "bf16_64x64"),
    *("tf32_strided_64x64", "3xtf32_64x64", "3xtf32_strided_64x64", "3xfp16_64x64", "3xfp16_strided_64x64"),
)
# Those that go through the problem lists, and how large a problem is in the fast run.
MOST_MACS = {
    "f16_64x64": 3_000_000,
    "f16_strided_64x64": 3_000_000,
    "3xtf32_64x64": 800_000,
    "3xtf32_strided_64x64": 800_000,
    "3xfp16_64x64": 800_000,
    "3xfp16_strided_64x64": 800_000,
}
LISTED = tuple(MOST_MACS)


class Kind(NamedTuple):
    """How an instance is asked for, and what it takes."""

    algo: str
    dtype: str
    precision: str
    vectors: bool
    chunk: int  # elements of 16 bytes


def kind(instance: str) -> Kind:
    arithmetic, _, words = instance.partition("_")
    vectors = bool(installed().of("conv2d_fprop_tensor")[instance].tile["vectors"])
    if DTYPES[arithmetic] == "float32":
        return Kind(f"im2col_tensor_{instance}", "float32", arithmetic, vectors, 4)
    return Kind(f"im2col_tensor_{words}", DTYPES[arithmetic], "float32", vectors, 8)


def of(instance: str, given: Problem | str, operator: str) -> Problem:
    """The problem in the dtype and layout that an instance takes, its channels as many as make whole chunks."""
    problem = Problem.parse(given) if isinstance(given, str) else given
    _, dtype, _, vectors, chunk = kind(instance)
    s = problem.shape
    if vectors:

        def whole(count: int) -> int:
            return s.groups * chunk * math.ceil(count / s.groups / chunk)

        read = {"fprop": (whole(s.C), s.K), "dgrad": (s.C, whole(s.K)), "wgrad": (whole(s.C), whole(s.K))}[operator]
        s = replace(s, C=read[0], K=read[1])
    return Problem(s, operator, dtype, "nhwc" if vectors else "nchw")


def laid(array: np.ndarray, layout: str) -> np.ndarray:
    return array if layout == "nchw" else np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def on(device: Device, array: np.ndarray, layout: str = "nchw", skew: int = 0) -> Any:
    """A copy on the device in a layout, `skew` elements past a multiple of 16 bytes."""
    n, c, h, w = array.shape
    room = device.alloc((array.size + skew,), array.dtype)[skew:]
    place = room.reshape(array.shape) if layout == "nchw" else room.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    place[...] = array
    return place


def rounded(problem: Problem, operands: Operands) -> np.ndarray:
    """The exact result, rounded once."""
    return oracle(problem, operands).astype(operands.left.dtype)


def on_integers(problem: Problem, precision: str) -> list[Operands]:
    """Operands on which the product must be exact."""
    if precision.startswith("3x"):
        return [split_operands(problem, side) for side in ("left", "right")]
    return [exact_operands(problem, "im2col", bias=False)]


def computed(instance: str, problem: Problem, operands: Operands, device: Device) -> np.ndarray:
    given = replace(operands, left=laid(operands.left, problem.layout), right=laid(operands.right, problem.layout))
    with use_precision(kind(instance).precision):
        return run(Simulated(Host(device)), problem, given, kind(instance).algo)


def exactly(instance: str, problem: Problem, device: Device) -> bool:
    return all(
        np.array_equal(computed(instance, problem, operands, device), rounded(problem, operands))
        for operands in on_integers(problem, kind(instance).precision)
    )


def by_cost(instance: str) -> tuple[()] | pytest.MarkDecorator:
    return () if instance in FAST else pytest.mark.slow


def plans(problem: Problem, precision: str = "float32", chunks: bool = False, arch: str = "sm_90a") -> dict[str, Any]:
    arithmetic = tensor.arithmetic_of(np.dtype(problem.dtype), precision)
    assert arithmetic is not None
    setting = tensor.Setting(arithmetic, chunks, arch)
    return {plan.name: plan for plan in tensor.plans(problem.operator, problem.shape, installed(), setting)}


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
# Layouts and alignment


class Watched(SimDevice):
    """Counts what is filled or copied."""

    fills = 0

    def fill(self, array: Array, value: Array | float) -> None:
        self.fills += 1
        super().fill(array, value)


def result(host: Host, problem: Problem, left: Any, right: Any, algo: str = "im2col_tensor") -> Any:
    """The pass on arrays of the device."""
    s = problem.shape
    how = (s.stride, s.padding, s.dilation, s.groups)
    if problem.operator == "fprop":
        return host.conv2d_fprop(left, right, None, *how, algo=algo)
    if problem.operator == "dgrad":
        return host.conv2d_dgrad(left, right, s.x_shape, *how, algo=algo)
    return host.conv2d_wgrad(left, right, s.w_shape, *how, algo=algo)


LAYOUTS = ("nchw", "nhwc")


@pytest.mark.parametrize("arithmetic", ["f16", "3xtf32", "3xfp16"])
@pytest.mark.parametrize("layouts", [*product(LAYOUTS, repeat=2)], ids="-".join)
@pytest.mark.parametrize("operator", PASSES)
def test_no_layout_is_changed(operator: str, layouts: tuple[str, str], arithmetic: str) -> None:
    """The product, the splitting of its filters and the sum of its slices are all that is launched."""
    problem = replace(Problem.parse("n3c24h9w10_k40r3s2_st2x1pd1g1"), operator=operator, dtype=DTYPES[arithmetic])
    device = Watched(order="random", seed=5)
    precision = "float32" if arithmetic == "f16" else arithmetic
    (operands, *_) = on_integers(problem, precision)
    given = [on(device, array, layout) for array, layout in zip((operands.left, operands.right), layouts, strict=True)]
    with use_precision(precision):
        y = result(Host(device), problem, *given)
    assert np.array_equal(y, rounded(problem, operands))
    assert device.fills == 0
    images = layouts if operator == "wgrad" else layouts[:1]
    launched = {instance.kernel: instance for instance in device.launches}
    assert launched.keys() - {"sum_slices"} == {f"conv2d_{operator}_tensor"} | (
        {"split_filters"} if arithmetic != "f16" and operator != "wgrad" else set()
    )
    assert len(device.launches) == len(launched)
    assert launched[f"conv2d_{operator}_tensor"].tile["vectors"] == (set(images) == {"nhwc"})
    assert tensor.is_channels_last(y) == ("nhwc" in layouts)
    assert y.flags.c_contiguous == ("nhwc" not in layouts)


@pytest.mark.parametrize("skews", [(1, 0), (0, 1), (3, 7), (4, 4)], ids=str)
@pytest.mark.parametrize("arithmetic", ["f16", "tf32"])
@pytest.mark.parametrize("operator", PASSES)
def test_operands_begin_anywhere(operator: str, arithmetic: str, skews: tuple[int, int]) -> None:
    """At one or more elements past a multiple of 16 bytes: images by themselves decide who reads them."""
    problem = replace(Problem.parse("n2c16h7w6_k24r3s3_pd1"), operator=operator, dtype=DTYPES[arithmetic])
    precision = arithmetic if arithmetic == "tf32" else "float32"
    (operands,) = on_integers(problem, precision)
    aligned = [skew * operands.left.itemsize % 16 == 0 for skew in skews]
    for layout in LAYOUTS:
        device = Watched(order="random", seed=5)
        pairs = zip((operands.left, operands.right), skews, strict=True)
        given = [on(device, array, layout, skew) for array, skew in pairs]
        with use_precision(precision):
            y = result(Host(device), problem, *given)
        assert np.array_equal(y, rounded(problem, operands))
        assert device.fills == 0
        wanted = layout == "nhwc" and all(aligned if operator == "wgrad" else aligned[:1])
        assert device.launches[0].tile["vectors"] == wanted


@pytest.mark.parametrize("operator", PASSES)
def test_a_plan_is_remembered_for_images_that_lie_alike(operator: str) -> None:
    """One host, one shape: channels-last, the same 2 bytes further, NCHW."""
    problem = replace(Problem.parse("n2c16h7w6_k24r3s3_pd1"), operator=operator, dtype="float16")
    (operands,) = on_integers(problem, "float32")
    device = SimDevice(order="random", seed=5)
    host = Host(device)
    for layout, skew in 2 * (("nhwc", 0), ("nhwc", 1), ("nchw", 0)):
        given = [on(device, array, layout, skew) for array in (operands.left, operands.right)]
        before = len(device.launches)
        assert np.array_equal(result(host, problem, *given), rounded(problem, operands))
        assert device.launches[before].tile["vectors"] == (layout == "nhwc" and not skew)


def test_auto_remembers_a_plan_for_each_layout() -> None:
    """Channels-last images are read as they lie, even where chunks of 16 bytes cannot be."""
    problem = Problem.parse("n2c5h12w13_k8r1s5_pd2_wgrad")
    (operands,) = on_integers(problem, "tf32")
    device = SimDevice()
    host = Host(device)
    for layout in ("nchw", "nhwc", "nchw"):
        given = [on(device, array, layout, 1) for array in (operands.left, operands.right)]
        before = len(device.launches)
        with use_precision("tf32"):
            assert np.array_equal(result(host, problem, *given, "auto"), rounded(problem, operands))
        assert device.launches[before].kernel.endswith("_tensor") == (layout == "nhwc")


def test_auto_is_held_to_the_bound_of_what_it_takes_in_that_layout() -> None:
    """In tf32 channels-last images go to tensor cores where NCHW ones stay in float32."""
    with use_precision("tf32"):
        check_conv2d(DEVICES["forward"], "n2c5h12w13_k8r1s5_pd2_nhwc_wgrad", "auto")


@pytest.mark.parametrize("skew", [0, 1])
@pytest.mark.parametrize(
    "text", ["n2c16h6w4_k24r3s3_pd1", "n2c16h5w3_k19r3s2_pd1", "n2c8h4w6_k5r1s1", "n1c8h1w1_k8r1s1"]
)
@pytest.mark.parametrize("operator", PASSES)
def test_results_go_out_by_what_their_places_allow(operator: str, text: str, skew: int) -> None:
    """By 16 bytes where every eight begin at a multiple of them; the result itself may begin anywhere."""
    for dtype, layout in product(("float16", "bfloat16"), LAYOUTS):
        problem = replace(Problem.parse(text), operator=operator, dtype=dtype, layout=layout)
        (operands,) = on_integers(problem, "float32")
        expected = rounded(problem, operands)
        device = SimDevice(order="random", seed=2)
        left, right = (on(device, each, layout) for each in (operands.left, operands.right))
        out = on(device, np.zeros_like(expected), layout, skew)
        given = {
            "fprop": {"x": left, "w": right, "y": out},
            "dgrad": {"dy": left, "w": right, "dx": out},
            "wgrad": {"dy": left, "x": right, "dw": out},
        }[operator]
        for plan in plans(problem, chunks=layout == "nhwc").values():
            if plan.reason is None and ("64x64" in plan.name or "wide" in plan.name):
                out[...] = np.nan
                plan.run(Host(device), tensor.Operands(**given))
                assert np.array_equal(out, expected), (plan.name, dtype, layout)


def test_an_image_of_one_pixel_is_of_both_layouts() -> None:
    """C order and channels-last at once: read by 16 bytes, and the result is in C order."""
    device = SimDevice()
    problem = Problem.parse("n3c16h1w1_k5r3s3_pd2_f16")
    (operands,) = on_integers(problem, "float32")
    y = result(Host(device), problem, on(device, operands.left), on(device, operands.right))
    assert device.launches[0].tile["vectors"]
    assert y.flags.c_contiguous
    assert np.array_equal(y, rounded(problem, operands))


def test_arrays_of_16_bits_come_back_as_they_were_through_ops() -> None:
    problem = Problem.parse("n2c16h7w6_k24r3s3_pd1_f16")
    (operands,) = on_integers(problem, "float32")
    x, w = laid(operands.left, "nhwc"), laid(operands.right, "nhwc")
    device = sim._default().host.device
    before = len(device.launches)
    with pycnn.use_backend("sim"):
        y = ops.conv2d_fprop(x, w, padding=1)
        dx = ops.conv2d_dgrad(y, w, x.shape, padding=1)
        dw = ops.conv2d_wgrad(y, x, w.shape, padding=1)
    for array in (y, dx, dw):
        assert tensor.is_channels_last(array)
        assert not array.flags.c_contiguous
        assert array.dtype == np.float16
    assert np.array_equal(y, rounded(problem, operands))
    launched = device.launches[before:]
    assert {each.kernel for each in launched} == {f"conv2d_{operator}_tensor" for operator in PASSES}
    assert all(each.tile["vectors"] for each in launched)


def test_a_torch_tensor_keeps_its_memory_format() -> None:
    torch = pytest.importorskip("torch")
    x = torch.randint(-3, 4, (2, 16, 7, 6)).to(torch.bfloat16, memory_format=torch.channels_last)
    w = torch.randint(-3, 4, (24, 16, 3, 3)).to(torch.bfloat16)
    with pycnn.use_backend("sim"):
        y = ops.conv2d_fprop(x, w, padding=1)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, torch.nn.functional.conv2d(x.double(), w.double(), padding=1).to(torch.bfloat16))


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
# Large, small, refused

WIDE = 2**29 + 40


def ran(instance: str, problem: Problem, device: SimDevice, left: Any, right: Any, target: Any) -> None:
    """The plan of an instance on the device's arrays."""
    names = {"fprop": ("x", "w", "y"), "dgrad": ("dy", "w", "dx"), "wgrad": ("dy", "x", "dw")}[problem.operator]
    plan = plans(problem, kind(instance).precision, chunks=True)[kind(instance).algo]
    assert plan.reason is None
    plan.run(Host(device), tensor.Operands(**dict(zip(names, (left, right, target), strict=True))))


@pytest.mark.parametrize(
    "instance", ["f16_wide", *(pytest.param(name, marks=pytest.mark.slow) for name in ("3xtf32_wide", "3xfp16_wide"))]
)
@pytest.mark.parametrize("operator", PASSES[:2])
def test_past_two_to_the_31_elements(operator: str, instance: str) -> None:
    """x and y of 2^31 elements and more, in mappings that nobody touches but the first and the last block."""
    problem = Problem(Conv2dShape(1, 1, 4, WIDE, 1, 1, 1), operator, kind(instance).dtype)
    s = problem.shape
    for plan in plans(problem, kind(instance).precision).values():
        assert "counts in 32 bits" in str(plan.reason) or plan.name.endswith("wide")
    device = SimDevice()
    source, w, target = (device.alloc(shape, problem.dtype) for shape in (s.x_shape, s.w_shape, s.y_shape))
    w[...] = 2
    source[0, 0, 0, :5] = 1, 2, 3, 4, 5
    source[0, 0, 3, -5:] = 6, 7, 8, 9, 10
    device.blocks = [0, -(-4 * WIDE // 64) - 1]
    ran(instance, problem, device, source, w, target)
    assert target[0, 0, 0, :5].tolist() == [2, 4, 6, 8, 10]
    assert target[0, 0, 3, -5:].tolist() == [12, 14, 16, 18, 20]


def test_wgrad_past_two_to_the_31_elements() -> None:
    """Few pixels of many, far apart."""
    problem = Problem(Conv2dShape(2, 2**10, 2**10, 2**10 + 1, 2, 1, 1, (2**9, 2**9), groups=2), "wgrad", "float16")
    s = problem.shape
    assert "elements of x" in str(plans(problem)["im2col_tensor_strided_64x64"].reason)
    device, rng = SimDevice(), np.random.default_rng(0)
    x, dy, dw = (device.alloc(shape, np.float16) for shape in (s.x_shape, s.y_shape, s.w_shape))
    values = rng.integers(-4, 5, (2, 2**10, s.P, s.Q)).astype("f2")
    x[:, :, :: 2**9, :: 2**9], dy[...] = values, rng.integers(-4, 5, s.y_shape)
    ran("f16_wide", problem, device, dy, x, dw)
    expected = np.einsum("ngpq,ngcpq->gc", dy.astype("f8"), values.reshape(2, 2, 2**9, s.P, s.Q).astype("f8"))
    assert np.array_equal(dw[:, :, 0, 0], expected)


@pytest.mark.parametrize("instance", ["f16_64x64", "f16_strided_64x64"])
@pytest.mark.parametrize("operator", PASSES[:2])
def test_32_bits_hold_what_is_not_refused(operator: str, instance: str) -> None:
    """Almost 2^31 elements: the first and the last images."""
    images = 2**20 - 4
    s = Conv2dShape(images, 8, 16, 16, 8, 3, 3, (1, 1), (1, 1, 1, 1))
    assert 2**31 - 10_000 < math.prod(s.x_shape) < 2**31
    problem, vectors = Problem(s, operator, "float16"), kind(instance).vectors
    few = Problem(replace(s, N=4), operator, "float16")
    operands = exact_operands(few, bias=False)
    device = SimDevice()

    def far(rest: tuple[int, ...]) -> Any:
        c, h, w = rest
        if not vectors:
            return device.alloc((images, c, h, w), np.float16)
        return device.alloc((images, h, w, c), np.float16).transpose(0, 3, 1, 2)

    source, target = far(s.x_shape[1:]), far(s.y_shape[1:])
    source[:2], source[-2:] = operands.left[:2], operands.left[2:]
    tiles = images * 256 // 64
    device.blocks = [*range(4), *range(tiles - 4, tiles)]
    ran(instance, problem, device, source, on(device, operands.right), target)
    expected = rounded(few, operands)
    assert np.array_equal(target[:1], expected[:1])
    assert np.array_equal(target[-1:], expected[-1:])


@pytest.mark.parametrize("instance", ["f16_64x64", "f16_strided_64x64"])
def test_32_bits_hold_what_wgrad_does_not_refuse(instance: str) -> None:
    s = Conv2dShape(2**10, 8, 512, 510, 16, 1, 1, (511, 509))
    assert 2**31 - 10_000_000 < math.prod(s.x_shape) < 2**31
    problem = Problem(s, "wgrad", "float16", "nhwc" if kind(instance).vectors else "nchw")
    device, rng = SimDevice(), np.random.default_rng(0)
    dy, seen = (rng.integers(-2, 3, (2**10, channels, 2, 2)).astype("f2") for channels in (16, 8))
    n, c, h, w = s.x_shape
    if problem.layout == "nhwc":
        x = device.alloc((n, h, w, c), np.float16).transpose(0, 3, 1, 2)
    else:
        x = device.alloc(s.x_shape, np.float16)
    x[:, :, ::511, ::509] = seen
    dw = device.alloc(s.w_shape, np.float16)
    ran(instance, problem, device, on(device, dy, problem.layout), x, dw)
    expected = np.einsum("nkpq,ncpq->kc", dy.astype("f8"), seen.astype("f8")).astype("f2")
    assert np.array_equal(dw[:, :, 0, 0], expected)


@pytest.mark.parametrize("operator", PASSES[:2])
def test_more_blocks_than_one_row_of_a_grid_holds(operator: str) -> None:
    images, rows = 2**31 + 5, 64
    problem = Problem(Conv2dShape(images, rows, 1, 1, rows, 1, 1, groups=rows), operator, "float16")
    s, device = problem.shape, SimDevice()
    source, w, target = (device.alloc(shape, np.float16) for shape in (s.x_shape, s.w_shape, s.y_shape))
    tiles = -(-images // 64)
    source[0], source[-1], w[...] = 3, 7, 2
    device.blocks = [0, tiles - 1, 64 * tiles - 1, 64 * tiles]
    ran("f16_wide", problem, device, source, w, target)
    assert (target[0, 0].item(), target[-1, 0].item(), target[-1, -1].item()) == (6, 14, 14)


@pytest.mark.parametrize("operator", PASSES)
def test_coordinates_past_32_bits(operator: str) -> None:
    far = 2**32  # the first tap so far above the second that it always looks into the padding
    problem = Problem(Conv2dShape(1, 1, 2, 3, 1, 2, 1, (1, 1), (far, 0, 0, 0), (far, 1)), operator, "float16")
    near = Problem(Conv2dShape(1, 1, 2, 3, 1, 1, 1), operator, "float16")
    operands = exact_operands(problem, bias=False)
    device = SimDevice()
    found = run(Simulated(Host(device)), problem, operands, "im2col_tensor")
    if operator == "wgrad":
        assert found[0, 0, 0, 0] == 0
        assert found[0, 0, 1, 0] == rounded(near, operands).item()
    else:
        assert np.array_equal(found, rounded(near, replace(operands, right=operands.right[:, :, 1:])))
    assert "f16_wide" in {instance.name for instance in device.launches}


@pytest.mark.parametrize(
    ("text", "instance", "given", "sentence"),
    [
        (
            "n1c16h8_k8r3_f16",
            "64x64",
            {},
            "it reads 16 bytes of channels at a time, and these arrays are",
        ),
        ("n1c12h8_k8r3_f16", "64x64", {"chunks": True}, "reads 8 channels at a time, and a group of x has 12"),
        ("n1c24h8_k8r3_g2_f16", "64x64", {"chunks": True}, "reads 8 channels at a time, and a group of x has 12"),
        ("n1c16h8_k12r3_f16_dgrad", "64x64", {"chunks": True}, "reads 8 channels at a time, and a group of dy has 12"),
        ("n1c16h8_k12r3_f16_wgrad", "64x64", {"chunks": True}, "reads 8 channels at a time, and a group of dy has 12"),
        (
            "n1c12h8_k16r3_bf16_wgrad",
            "64x64",
            {"chunks": True},
            "reads 8 channels at a time, and a group of x has 12",
        ),
        ("n1c6h8_k8r3", "tf32_64x64", {"chunks": True, "precision": "tf32"}, "it reads 4 channels at a time"),
        ("n1c16h8_k8r3_bf16", "strided_64x64", {"arch": "sm_75"}, "it is for sm_80 and later, this is sm_75"),
        ("n1c16h8_k8r3_f16", "256x128", {"arch": "sm_75", "chunks": True}, "it is for sm_80 and later, this is sm_75"),
        (
            "n1c1h1_k60000000r3_pd1_dgrad",
            "3xtf32_strided_64x64",
            {"precision": "3xtf32"},
            "a part of w go up to 2160000000",
        ),
        ("n1c1h8w1073741824_k1r1_f16", "strided_64x64", {}, "it counts in 32 bits, and the rows or columns go up to"),
        # The last tile's threads count past the last pixel; the first pixel's corner lies as far above the image as x
        # has elements.
        ("n2147483628c1h1_k1r1_f16", "strided_64x64", {}, "it counts in 32 bits, and the pixels go up to 2147483628"),
        ("n1c8h16384w8192_k8r3_st3pd40000.0.0.0_f16", "64x64", {"chunks": True}, "and the elements of x go up to"),
    ],
)
def test_refusals_say_why(text: str, instance: str, given: dict[str, Any], sentence: str) -> None:
    assert sentence in str(plans(Problem.parse(text), **given)[f"im2col_tensor_{instance}"].reason)


def test_what_is_not_refused_runs_on_the_oldest_arch() -> None:
    problem = Problem.parse("n1c16h8w8_k8r3s3_f16")
    (operands,) = on_integers(problem, "float32")
    for layout in LAYOUTS:
        device = SimDevice("sm_75")
        y = result(Host(device), problem, on(device, operands.left, layout), on(device, operands.right, layout))
        assert np.array_equal(y, rounded(problem, operands))
        assert "tensor" in str(device.launches[0])
    rest = (None, (1, 1), (0, 0, 0, 0), (1, 1), 1)
    with pytest.raises(ValueError, match="it is for sm_80 and later, this is sm_75"):
        Host(SimDevice("sm_75")).conv2d_fprop(*_ones(ml_dtypes.bfloat16), *rest, algo="im2col")
    device = SimDevice("sm_75")
    assert (Simulated(Host(device)).conv2d_fprop(*_ones(ml_dtypes.bfloat16), *rest) == 144).all()
    assert [str(each) for each in device.launches] == ["conv2d_fprop_direct_any[narrow_bf16]"]
    device = SimDevice("sm_75")
    with use_precision("tf32"):  # the least exact that it may be
        Simulated(Host(device)).conv2d_fprop(*_ones(np.float32), *rest)
    assert "tensor" not in str(device.launches)


def _ones(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((1, 16, 4, 4), dtype), np.ones((8, 16, 3, 3), dtype)


class Short(SimDevice):
    """Gives dynamic shared memory 16 bytes less than is asked for."""

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        super().launch(kernel, grid, block, shared - 16 if shared else 0, arguments)


@pytest.mark.parametrize("instance", [pytest.param(name, marks=by_cost(name)) for name in INSTANCES])
@pytest.mark.parametrize("operator", PASSES)
def test_dynamic_shared_memory_is_what_the_kernel_takes(operator: str, instance: str) -> None:
    """16 bytes less is refused; that it is enough is what all other tests show."""
    problem = of(instance, "n1c8h4w4_k8r1s1", operator)
    plan = plans(problem, kind(instance).precision, chunks=True)[kind(instance).algo]
    if tensor.shared_bytes(operator, plan.instance):
        with pytest.raises(SimulationError, match="shared memory"):
            exactly(instance, problem, Short())
    else:
        assert exactly(instance, problem, Short())


def test_shared_memory_fits_every_arch_that_an_instance_names() -> None:
    # Of a block, in KiB: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
    most = {
        "sm_75": 64,
        "sm_80": 163,
        "sm_86": 99,
        "sm_89": 99,
        "sm_90": 227,
        "sm_90a": 227,
        "sm_100": 227,
        "sm_120": 99,
    }
    for operator in PASSES:
        for instance in installed().of(f"conv2d_{operator}_tensor").values():
            for arch in instance.archs:
                assert tensor.shared_bytes(operator, instance) <= most[arch.rstrip("a")] * 1024, (instance, arch)


# ----------------------------------------------------------------------------------------------------------------------
# What NVRTC makes of them

# Tails, groups and more tiles of gemm_k than stages, as small as they come.
PTX = {
    "fprop": "n1c36h5w6_k10r3s2_st2x1pd1.0.2.1dl1x2g2",
    "dgrad": "n1c10h5w7_k64r3s2_st2x1pd1.0.2.1dl1x2g2",
    "wgrad": "n2c16h9w9_k12r3s2_st1x1pd1.0.2.1dl1x2g2",
}
INTERPRETED = {
    "f16_64x64": ("sm_75", "sm_90a"),
    "f16_strided_64x64": ("sm_75", "sm_90a"),
    "bf16_64x64": ("sm_90a",),
    "bf16_strided_64x64": ("sm_90a",),
    "tf32_64x64": ("sm_90a",),
    "tf32_strided_64x64": ("sm_90a",),
    "3xtf32_64x64": ("sm_90a",),
    "3xtf32_strided_64x64": ("sm_90a",),
    "3xfp16_64x64": ("sm_90a",),
    "3xfp16_strided_64x64": ("sm_90a",),
}


@pytest.mark.nvrtc
@pytest.mark.parametrize("instance", [pytest.param(name, marks=by_cost(name)) for name in INTERPRETED])
@pytest.mark.parametrize("operator", PASSES)
def test_ptx_is_exact(operator: str, instance: str) -> None:
    problem = of(instance, PTX[operator], operator)
    for arch in INTERPRETED[instance]:
        device = PtxDevice(arch)
        assert exactly(instance, problem, device)
        assert f"conv2d_{operator}_tensor[{instance}]" in map(str, device.launches)


def times_to_a_bank(addresses: np.ndarray, lanes: np.ndarray, size: int, matrices: bool) -> int:
    """How often an access of these lanes goes to one bank at most: a warp's by 128 bytes, a matrix's by its rows."""
    together = lanes // (8 if matrices else 128 // max(size, 4))
    most = 0
    for part in np.unique(together):
        words = np.unique(addresses[together == part][:, None] // 4 + np.arange(max(size // 4, 1)))
        most = max(most, int(np.bincount(words % 32).max()))
    return most


@pytest.mark.nvrtc
@pytest.mark.parametrize(
    "instance",
    [
        *("f16_64x64", "3xtf32_64x64"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("f16_strided_64x64", "3xtf32_strided_64x64")),
    ],
)
@pytest.mark.parametrize("operator", PASSES)
def test_copies_and_fragments_meet_no_bank_twice(operator: str, instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, int] = {}
    memory = Machine.memory

    def watched(self: Machine, instruction: Any, space: str, addresses: np.ndarray, size: int, writing: bool) -> Any:
        if space == "shared":
            name = instruction.text.split()[0]
            times = times_to_a_bank(addresses, np.asarray(self.active), size, "ldmatrix" in name)
            found[name] = max(found.get(name, 0), times)
        return memory(self, instruction, space, addresses, size, writing)

    monkeypatch.setattr(Machine, "memory", watched)
    assert exactly(instance, of(instance, PTX[operator], operator), PtxDevice("sm_90a"))
    alone = "ld.shared.u32" if kind(instance).vectors else "none"  # fragments across; else places in the ring too
    for name, times in found.items():
        if name.startswith(("ldmatrix", "st.shared.v4", alone)) or (name.startswith("cp.async") and ".cg." in name):
            assert times == 1, name
        if name.startswith("cp.async") and ".ca." in name:
            assert times == 4, name
    assert any(name.startswith(("ldmatrix", "cp.async", "st.shared.v4")) for name in found)


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
