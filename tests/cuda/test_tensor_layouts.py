"""Convolution on tensor cores: arrays of either layout, that begin anywhere, are read and written as they lie."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from simulated import DEVICES
from tensor_instances import DTYPES, LAYOUTS, laid, on, on_integers, plans, result, rounded

import pycnn
from pycnn import ops, use_precision
from pycnn.backends import sim
from pycnn.backends.cuda import Host, tensor
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.shape import PASSES, Problem
from pycnn.testing import (
    check_conv2d,
)

pytestmark = pytest.mark.simulator


class Watched(SimDevice):
    """Counts what is filled or copied."""

    fills = 0

    def fill(self, array: Array, value: Array | float) -> None:
        self.fills += 1
        super().fill(array, value)


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
