"""Every operator in float16 and bfloat16, in the simulator and the PTX interpreter, and a network of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, ORDERS, Ends, in_every_order, view_off_by_one

import pycnn
from pycnn import functional
from pycnn.backends.cuda import Host, norm, pool, shaping
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.cuda.device_trace import TraceDevice
from pycnn.backends.sim import Simulated
from pycnn.testing import (
    ADAPTIVE_POOLS,
    check_adaptive_pool2d,
    check_operator,
    check_pool2d,
    half_dtypes,
    operators,
    pools,
    random_pools,
)
from pycnn.testing.check import channels_last
from pycnn.testing.halves import in_dtype, rounded
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

HALVES = half_dtypes()
CASES = operators(dtype=np.float16)
BY_NAME = {case.name: case for case in CASES}

POINTS = ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), False, False)  # pooling that changes nothing

each_half = pytest.mark.parametrize("dtype", HALVES, ids=str)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.parametrize("order", ORDERS)
@each_half
@each_case
def test_operators_are_the_oracles_rounded_once(case: Any, dtype: np.dtype, order: str) -> None:
    check_operator(DEVICES[order], case, dtype)


class Shifted(Simulated):
    """Arrays of 16 bits begin two bytes past a multiple of 16, as views into something else may."""

    def into(self, value: Any) -> Any:
        """`value` in the device's memory."""
        if isinstance(value, np.ndarray) and value.dtype in HALVES and value.flags.c_contiguous:
            return view_off_by_one(self.host.device, value)  # type: ignore[arg-type]
        return super().into(value)


SHIFTED = Shifted(Host(SimDevice(order="random", seed=5)))


@each_half
@each_case
def test_views_between_vectors(case: Any, dtype: np.dtype) -> None:
    check_operator(SHIFTED, case, dtype)


@pytest.mark.nvrtc
@each_half
def test_one_view_among_arrays_that_are_whole_stretches(dtype: np.dtype) -> None:
    """Each operand may be the one that begins between vectors, and the kernel has to ask for the address of each."""
    backend = Simulated(Host(PtxDevice("sm_90a")))  # which says so, where the simulator reads on
    rng, host = np.random.default_rng(0), backend.host
    dy, x, residual = (rng.integers(-8, 9, (1, 2, 2**12)).astype(dtype) for _ in range(3))
    mean, var = x.astype(np.float64).mean((0, 2)), x.astype(np.float64).var((0, 2))
    normal = (x.astype(np.float64) - mean[:, None]) / np.sqrt(var + 1e-3)[:, None]
    y = np.maximum(normal + residual.astype(np.float64), 0)
    slope = dy.astype(np.float64)
    dx = slope - slope.mean((0, 2))[:, None] - normal * (slope * normal).mean((0, 2))[:, None]
    dx /= np.sqrt(var + 1e-3)[:, None]

    def given(shifted: int, *arrays: np.ndarray) -> list[Any]:
        return [
            view_off_by_one(host.device, one) if i == shifted else backend.into(one) for i, one in enumerate(arrays)
        ]

    for shifted in range(3):
        at_x, at_residual = given(shifted, x, residual)
        found, *statistics = host.batch_norm_fwd(at_x, None, None, 1e-3, at_residual, True)
        np.testing.assert_allclose(np.array(found).astype(np.float64), y, rtol=2.0**-8, atol=2.0**-8)
        at_dy, at_x = given(shifted, dy, x)
        found, _, _ = host.batch_norm_bwd(at_dy, at_x, None, *statistics, 1e-3)
        # Rounded to 8 bits.  Sums in float32 are off by far less.
        np.testing.assert_allclose(np.array(found).astype(np.float64), dx, rtol=2.0**-8, atol=2.0**-8)


@each_half
@pytest.mark.parametrize("shape", pools() + random_pools(10), ids=str)
def test_pooling_is_the_oracles_rounded_once(shape: Any, dtype: np.dtype) -> None:
    check_pool2d(DEVICES["random"], shape, dtype)


@each_half
@pytest.mark.parametrize(("x_shape", "out"), ADAPTIVE_POOLS, ids=str)
def test_adaptive_pooling_is_the_oracles_rounded_once(x_shape: Any, out: Any, dtype: np.dtype) -> None:
    check_adaptive_pool2d(SHIFTED, x_shape, out, dtype)


@each_half
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_nan_goes_through_a_rectified_normalisation(layout: str, dtype: np.dtype) -> None:
    x, residual = (np.random.default_rng(seed).standard_normal((2, 8, 3, 4)).astype(dtype) for seed in range(2))
    residual[1, 3, 2, 1] = np.nan
    if layout == "nhwc":
        x, residual = channels_last(x), channels_last(residual)
    y, _, _ = DEVICES["random"].batch_norm_fwd(x, None, None, 1e-5, residual, True)
    assert np.array_equal(np.isnan(y), np.isnan(residual))
    assert (y[~np.isnan(y)] >= 0).all()


@each_half
def test_counting_in_64_bits(dtype: np.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (norm, shaping, pool):
        monkeypatch.setattr(module, "NARROW", 0)
    for case in CASES:
        if case.function in ("batch_norm_fwd", "batch_norm_bwd", "channel_affine", "pad2d", "concat"):
            check_operator(DEVICES["forward"], case, dtype)
    check_pool2d(DEVICES["forward"], pools("asymmetric")[1], dtype)
    check_adaptive_pool2d(DEVICES["forward"], *ADAPTIVE_POOLS[1], dtype)


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    size = 2**31 + 10
    x = device.alloc((1, 1, size), np.float16)
    x[0, 0, :3], x[0, 0, -3:] = (-1, 2, 3), (4, -5, 6)
    shift = device.alloc((1,), np.float32)
    shift[...] = 1
    host = Host(device)
    for y, added in ((host.channel_affine(x, None, shift), 1), (host.max_pool2d_fwd(x[None], *POINTS)[0], 0)):
        assert (y.ravel()[:3].tolist(), y.ravel()[-3:].tolist()) == (
            [-1 + added, 2 + added, 3 + added],
            [4 + added, -5 + added, 6 + added],
        )


@each_half
@each_case
def test_nothing_is_widened_on_the_way(case: Any, dtype: np.dtype) -> None:
    """Whatever a launch reads or writes besides sums and what has one value a channel is of 16 bits."""
    device = TraceDevice()
    getattr(Host(device), case.function)(*in_dtype(case.arguments(), dtype))
    kinds = {"16", "f16" if dtype == np.float16 else "bf16"}
    for instance in device.launches:
        sums = instance.kernel in ("sum_slices", "batch_norm_gradients", "nll_total", "convert")
        weights = case.function == "nll_bwd" and instance.kernel == "nll_losses"
        # dy * u, whose sum is the gradient of a weight, would lose its digits in 16 bits.
        product = case.function == "group_norm_bwd" and instance.kernel == "channel_sum"
        # One axis after the other: what is between them is not rounded.
        apart = case.function == "resample" and any(one.kernel == "convert" for one in device.launches)
        assert kinds.intersection(instance.name.split("_")) or sums or weights or product or apart, instance


@each_half
def test_coefficients_of_16_bits_are_those_of_float32(dtype: np.dtype) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rounded(rng.standard_normal((3, 5, 7, 4)), dtype) for _ in range(2))
    a, b, mean, var = (rounded(abs(rng.standard_normal(5)) + 0.1, dtype) for _ in range(4))
    calls: list[Any] = [
        lambda backend, a, b, mean, var: backend.channel_affine(x, a, b),
        lambda backend, a, b, mean, var: backend.batch_norm_fwd(x, a, b, 1e-5, dy, True),
        lambda backend, a, b, mean, var: backend.batch_norm_eval(x, mean, var, a, b, 1e-5),
        lambda backend, a, b, mean, var: backend.batch_norm_bwd(dy, x, a, mean, var, 1e-5),
    ]
    for call in calls:
        given = a, b, mean, var
        narrow, wide = (
            in_every_order(lambda backend, call=call, values=values: call(backend, *values))
            for values in (given, [one.astype(np.float32) for one in given])
        )
        assert [one.tobytes() for one in narrow] == [one.tobytes() for one in wide]


IN_PTX = [
    "relu_fwd: special",
    "tanh_fwd: plane",
    "sigmoid_bwd: plane",
    "add: special",
    "activation_fwd: leaky_relu, special",
    "activation_bwd: silu",
    "group_norm_fwd: groups",
    "group_norm_bwd: row groups",
    "dropout: half",
    "softmax_fwd: inner axis",
    "log_softmax_bwd: classes",
    "nll_fwd: none, weights",
    "nll_bwd: mean, weights",
    "lrn_fwd: alexnet",
    "lrn_bwd: alexnet",
    "lrn_bwd: even window",
    "channel_sum: integers",
    "channel_sum: rows",
    "batch_norm_fwd: residual, relu",
    "batch_norm_bwd: plane",
    "pad2d: sides differ",
    "concat: channels",
]


@pytest.mark.nvrtc
@each_half
@pytest.mark.parametrize("name", IN_PTX)
def test_the_very_instructions_agree(name: str, dtype: np.dtype) -> None:
    check_operator(Simulated(Host(PtxDevice())), BY_NAME[name], dtype)


@pytest.mark.nvrtc
@each_half
def test_the_very_instructions_of_pooling_agree(dtype: np.dtype) -> None:
    check_pool2d(Simulated(Host(PtxDevice())), pools("ceil mode")[2], dtype)


@each_half
@pytest.mark.parametrize("beside", ["float32", "16 bits"])
def test_a_network_of_tensors_and_its_gradients(beside: str, dtype: np.dtype) -> None:
    """LeNet's kind with a layer of every other kind, forward and backward, beside the CPU engine's emulation.

    What has one value a channel is float32, or of 16 bits too.
    """
    per_channel = np.dtype(np.float32) if beside == "float32" else dtype

    def parameter(*shape: int, seed: int) -> pycnn.Tensor:
        values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return pycnn.Tensor(rounded(values, per_channel if len(shape) == 1 else dtype), requires_grad=True)

    found: list[list[np.ndarray]] = []
    for backend in ("sim", "cpu"):
        x, w1, w2, w3 = (
            parameter(*shape, seed=i)
            for i, shape in enumerate(((3, 1, 28, 28), (6, 1, 5, 5), (16, 6, 5, 5), (10, 16 * 16)))
        )
        scale, shift, b2, b3 = (parameter(size, seed=10 + i) for i, size in enumerate((6, 6, 16, 10)))
        with pycnn.use_backend(backend):
            y = functional.batch_norm(functional.conv2d(x, w1), weight=scale, bias=shift, training=True)
            y = functional.max_pool2d(functional.relu(y), 2)
            y = functional.local_response_norm(y, 5)
            y = functional.avg_pool2d(functional.tanh(functional.conv2d(y, w2, b2)), 2)
            y = functional.linear(functional.sigmoid(y).reshape(3, -1), w3, b3)
            loss = functional.cross_entropy(y, pycnn.Tensor(np.array([1, 7, 3])))
            loss.backward()
        leaves = (x, w1, w2, w3, scale, shift, b2, b3)
        assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]
        assert y.dtype == loss.dtype == dtype
        found.append([array.astype(np.float64) for array in (y.data, loss.data, *(leaf.grad.data for leaf in leaves))])
    # Each of a dozen layers rounds to 11 or 8 bits.  Where the two sides differ in the last bits of float32, one may
    # round up and the other down: a unit of single elements, of which sums take the mean.
    unit = 2.0**-10 if dtype == np.float16 else 2.0**-7
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2 * unit * abs(other).max())
