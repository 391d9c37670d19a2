"""Convolution on tensor cores: very large problems, empty ones, and those that are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tensor_instances import INSTANCES, LAYOUTS, by_cost, exactly, kind, of, on, on_integers, plans, result, rounded

from pycnn import use_precision
from pycnn.backends.cuda import Host, tensor
from pycnn.backends.cuda.device import Argument, Extent
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import (
    exact_operands,
    run,
)

pytestmark = pytest.mark.simulator


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
