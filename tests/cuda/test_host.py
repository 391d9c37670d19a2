"""The host code of the CUDA backend: plans, packing, refusals."""

from __future__ import annotations

import random
import re
import struct
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import backends
from pycnn.backends import cuda, reference, sim
from pycnn.backends.cuda import Host, UnavailableError, direct
from pycnn.backends.cuda.activation import ActivationHost
from pycnn.backends.cuda.device_cupy import arch_of
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.device_trace import TraceDevice
from pycnn.backends.cuda.host import grid_of
from pycnn.backends.cuda.layout import PoolAxis, pack_conv2d_shape, pack_divisors, pack_pool2d_shape
from pycnn.jit import MissingToolError
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import operators

SHAPE = Problem.parse("n1c3h8_k4r3_pd1").shape


def quotient(n: int, divisor: bytes) -> int:
    """kernels/common.cuh's quotient in Python's integers."""
    _, multiplier, shift = struct.unpack("<qII", divisor)
    return ((n * multiplier >> 32) + n) >> shift


def test_divisors_divide_every_31_bit_index() -> None:
    rng = random.Random(0)
    divisors = [*range(1, 200), 2**16 - 1, 2**16, 2**30 + 1, 2**31 - 1, *(rng.randrange(1, 2**31) for _ in range(200))]
    for d in divisors:
        packed = pack_divisors([d])
        multiples = [k * d + offset for k in (1, 2, 3, (2**31 - 2) // d) for offset in (-1, 0, 1)]
        for n in (0, 1, 2**31 - 1, *multiples, *(rng.randrange(2**31) for _ in range(50))):
            if 0 <= n < 2**31:
                assert quotient(n, packed) == n // d, (n, d)


def test_shape_is_packed_in_the_order_of_common_cuh() -> None:
    shape = Conv2dShape(2, 6, 17, 23, 8, 3, 5, (2, 1), (3, 4, 5, 6), (1, 2), 2)
    header = (installed().folder / "common.cuh").read_text()
    fields = header[header.index("struct Conv2dShape {") :].split("};")[0]
    names = [name for line in fields.splitlines()[1:] for name in line.split("//")[0].strip(" ;").split("int64")[-1:]]
    order = [name.strip() for group in names if group.strip() for name in group.split(",")]
    expected = dict(
        **{name: getattr(shape, name) for name in "NCHWKRSPQ"},
        **{"stride_h": 2, "stride_w": 1, "pad_top": 3, "pad_left": 5, "dilation_h": 1, "dilation_w": 2, "groups": 2},
    )
    assert struct.unpack(f"<{len(order)}q", pack_conv2d_shape(shape)) == tuple(expected[name] for name in order)


def test_pooling_shape_is_packed_in_the_order_of_common_cuh() -> None:
    header = (installed().folder / "common.cuh").read_text()
    axis = header[header.index("struct PoolAxis {") :].split("};")[0]
    fields = [name for line in axis.splitlines()[1:] for name in re.findall(r"\w+", line.split("//")[0])]
    assert fields == ["Divisor", "size", "out", "stride", "int64", "window", "before", "after", "dilation"]
    assert re.search(r"int64 planes;.*\n    PoolAxis rows, columns;\n    Divisor channels;", header)
    rows, columns = PoolAxis(11, 12, 13, 14, 15, 16, 17), PoolAxis(21, 22, 23, 24, 25, 26, 27)
    packed = struct.unpack("<q" + 2 * "qIIqIIqIIqqqq" + "qII", pack_pool2d_shape(9, rows, columns, 5))
    assert (packed[0], packed[27]) == (9, 5)
    for first, values in ((1, range(11, 18)), (14, range(21, 28))):
        assert [packed[first + i] for i in (0, 3, 6, 9, 10, 11, 12)] == list(values)


def test_direct_takes_the_tile_with_the_fewest_idle_lanes() -> None:
    shape = Problem.parse("n1c64h56_k64r3_pd1").shape
    plan = Host(SimDevice())._plan("fprop", shape, "float32", "direct")
    plans = direct.plans("fprop", shape, installed())
    able = [plan for plan in plans if plan.reason is None and plan.instance.kernel == direct.TILED]
    assert plan.name == min(able, key=lambda plan: plan.cost).name
    assert "fewest idle lanes" in plan.why


def test_reasons_name_the_condition() -> None:
    reasons = dict(Host(SimDevice()).conv2d_algorithms("fprop", SHAPE, "float32"))
    assert reasons["direct_r3s3_st1_8x32"] is None
    assert "filter 7x7" in str(reasons["direct_r7s7_st2_8x32"])
    assert "stride 2x2" in str(reasons["direct_r3s3_st2_14x16"])
    dilated = Problem.parse("n1c3h8_k4r3_pd1dl2").shape
    assert "dilation" in str(
        dict(Host(SimDevice()).conv2d_algorithms("fprop", dilated, "float32"))["direct_r3s3_st1_8x8"]
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("n1c1h1w2147483648_k1r3_pd1", "columns"),
        ("n1c1h2147483647w1_k1r3_pd1", "rows"),
        ("n1c1h1w1_k2147483647r3_pd1", "filters"),
        ("n1c2147483647h1w1_k1r3_pd1", "taps"),
        ("n2147483648c1h1w1_k1r3_pd1", "blocks"),
        ("n1c1h1w1_k1r3_pd1073741823.1.1.1", "rows"),
    ],
)
def test_32_bit_kernels_leave_large_problems_to_the_wide_one(text: str, what: str) -> None:
    plans = {plan.name: plan.reason for plan in direct.plans("fprop", Problem.parse(text).shape, installed())}
    for name in ("direct_r3s3_st1_8x32", "direct_any_narrow"):
        assert f"counts in 32 bits, and the {what}" in str(plans[name])
    assert plans["direct_any_wide"] is None


def test_32_bit_kernels_take_what_just_fits() -> None:
    plans = {
        plan.name: plan.reason
        for plan in direct.plans("fprop", Problem.parse("n1c1h1w2147480000_k1r3_pd1").shape, installed())
    }
    assert plans["direct_r3s3_st1_8x32"] is None
    assert plans["direct_any_narrow"] is None


def test_forced_algorithm_that_cannot_run_is_refused() -> None:
    x, w = np.zeros(SHAPE.x_shape, np.float32), np.zeros(SHAPE.w_shape, np.float32)
    rest = (SHAPE.stride, SHAPE.padding, SHAPE.dilation, SHAPE.groups)
    with pytest.raises(ValueError, match="compiled for filter 7x7, and the problem has 3x3"):
        sim.conv2d_fprop(x, w, None, *rest, algo="direct_r7s7_st2_8x32")
    with pytest.raises(ValueError, match="algo of fprop must be auto or one of direct"):
        sim.conv2d_fprop(x, w, None, *rest, algo="fast")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: sim.relu_fwd(x),
        lambda x: sim.conv2d_wgrad(x, x, (1, 1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        lambda x: sim.conv2d_fprop(x, x, None, (1, 1), (0, 0, 0, 0), (1, 1), 1, algo="winograd"),
        lambda x: sim.conv2d_algorithms("wgrad", SHAPE, x.dtype),
    ],
)
def test_what_is_not_there_says_so(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        UnavailableError, match=r"the sim backend has no kernel for .* in float64; its kernels compute in float32"
    ):
        call(np.zeros((1, 1, 1, 1)))


def doubled(value: Any) -> Any:
    if isinstance(value, list):
        return [doubled(one) for one in value]
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


POOLING = ((2, 2), (2, 2), (0, 0, 0, 0))
DOUBLES: dict[str, tuple[Any, ...]] = {
    **{case.function: tuple(map(doubled, case.arguments())) for case in reversed(operators())},
    "max_pool2d_fwd": (np.ones((1, 1, 4, 4)), *POOLING, (1, 1), False),
    "max_pool2d_bwd": (np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2), np.int64), (1, 1, 4, 4), *POOLING, (1, 1)),
    "avg_pool2d_fwd": (np.ones((1, 1, 4, 4)), *POOLING, False, True, None),
    "avg_pool2d_bwd": (np.ones((1, 1, 2, 2)), (1, 1, 4, 4), *POOLING, False, True, None),
    "plane_take": (np.ones((1, 1, 4, 4)), np.zeros((1, 1, 2, 2), np.int64)),
}


@pytest.mark.parametrize("function", sorted(DOUBLES.keys() - {"philox_uint32"}))
def test_float64_is_refused_by_every_function_that_launches(function: str) -> None:
    device = TraceDevice()
    with pytest.raises(UnavailableError, match=r"the cuda backend has no kernel for .* in float64"):
        getattr(Host(device), function)(*DOUBLES[function])
    assert device.launches == []


def gapped(value: Any) -> Any:
    """The same values, every other one in memory."""
    if isinstance(value, list):
        return [gapped(one) for one in value]
    if not isinstance(value, np.ndarray) or value.size < 2:
        return value
    room = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)
    room[..., ::2] = value
    return room[..., ::2]


def in_c_order(value: Any) -> Any:
    """The same values without gaps; sums of what is channels-last have another order than those of what has gaps."""
    if isinstance(value, list):
        return [in_c_order(one) for one in value]
    return np.array(value, order="C") if isinstance(value, np.ndarray) else value


@pytest.mark.simulator
@pytest.mark.parametrize("function", sorted({case.function for case in operators()}))
def test_arrays_with_gaps_are_as_good_as_dense_ones(function: str) -> None:
    for case in operators(function):
        results = [getattr(sim, function)(*map(change, case.arguments())) for change in (gapped, in_c_order)]
        found, expected = (each if isinstance(each, tuple) else (each,) for each in results)
        assert [one.tobytes() for one in found] == [one.tobytes() for one in expected], case.name


@pytest.mark.parametrize(
    ("blocks", "grid"),
    [
        (1, (1, 1, 1)),
        (2**31 - 1, (2**31 - 1, 1, 1)),
        (2**31, (2**30, 2, 1)),
        (2**31 + 1, (2**30, 3, 1)),
        (2**45, (2**30, 2**15, 1)),
    ],
)
def test_a_grid_past_its_longest_row_goes_on_in_the_next(blocks: int, grid: tuple[int, int, int]) -> None:
    assert grid_of(blocks) == grid


def test_what_is_missing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is made from the functions that are there, so it cannot be out of date."""
    monkeypatch.delattr(ActivationHost, "relu_fwd")
    host = Host(SimDevice())
    with pytest.raises(UnavailableError, match=r"no kernel for relu_fwd; .*, and it has none for .*relu_fwd"):
        host.relu_fwd(None)
    there = [name for name in reference.__all__ if hasattr(Host, name)]
    with pytest.raises(UnavailableError) as raised:
        host.tanh_fwd(np.zeros(1))
    listed = str(raised.value).partition("none for ")[2].split(", ")
    assert sorted([*listed, *there]) == sorted(reference.__all__)
    with pytest.raises(AttributeError, match="no function 'array_of'"):
        host.array_of(None)


def test_functions_of_the_device_alone_are_there_by_name() -> None:
    for name in cuda.ON_DEVICE:
        assert callable(getattr(backends.get("cuda"), name))
        assert callable(getattr(Host, name))
    with pytest.raises(AttributeError, match="no attribute 'fast_step'"):
        backends.get("cuda").fast_step  # noqa: B018


def test_unknown_function_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no function 'no_such'"):
        sim.no_such  # noqa: B018


@pytest.mark.simulator
def test_public_operator_runs_on_the_simulator() -> None:
    x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32)
    with pycnn.use_backend("sim"):
        y = pycnn.ops.conv2d_fprop(x, w, padding=1)
    assert y[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_empty_batch_launches_nothing() -> None:
    device = SimDevice()
    y = sim.Simulated(Host(device)).conv2d_fprop(
        np.zeros((0, 3, 8, 8), np.float32), np.zeros((4, 3, 3, 3), np.float32), None, (1, 1), (1, 1, 1, 1), (1, 1), 1
    )
    assert y.shape == (0, 4, 8, 8)
    assert device.launches == []


def test_cuda_without_a_gpu_says_what_is_missing() -> None:
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        with pytest.raises(MissingToolError, match="needs an NVIDIA GPU and its driver"):
            pycnn.backends.get("cuda").conv2d_choose("fprop", SHAPE, "float32")
    else:
        pytest.skip("there is a GPU")


@pytest.mark.parametrize(
    ("capability", "arch"),
    [
        ((7, 5), "sm_75"),
        ((8, 0), "sm_80"),
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90a"),
        ((10, 3), "sm_100"),
    ],
)
def test_arch_of_a_device(capability: tuple[int, int], arch: str) -> None:
    assert arch_of(*capability) == arch


@pytest.mark.parametrize("capability", [(6, 1), (8, 7), (11, 0)])  # too old; systems on a chip
def test_arch_of_an_unknown_device_is_refused(capability: tuple[int, int]) -> None:
    major, minor = capability
    with pytest.raises(MissingToolError, match=rf"no kernels for compute capability {major}\.{minor}"):
        arch_of(major, minor)
