"""kernels/activation.cu in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DEVICES, Ends, in_every_order, ulps, view_off_by_one, wide

import pycnn
from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.ops import ACTIVATIONS
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]
SETTINGS = (0.5, 2.0, 0.25)
STRETCH = 2048  # elements of a block

# Errors in units in the last place, where the result is a normal number and no difference of larger ones.  CUDA's expf,
# expm1f, log1pf, erff and tanhf are within 2 and normcdff within 5 (CUDA C++ Programming Guide, "Mathematical
# Functions"); quotients and products add one each.
ULPS = {
    "elu": 4.0,
    "erf": 2.5,
    "gelu": 6.0,
    "hardsigmoid": 2.0,
    "hardswish": 2.5,
    "logsigmoid": 5.0,
    "mish": 8.0,
    "silu": 5.0,
    "softplus": 5.0,
    "softsign": 2.0,
}


@pytest.mark.parametrize("size", [1, 3, 4, 5, STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH + 4])
def test_every_size(size: int) -> None:
    x, dy = np.random.default_rng(0).integers(-6, 7, (2, size)).astype(np.float32)
    (y,) = in_every_order(lambda backend: backend.activation_fwd(x, "leaky_relu", 0.25))
    np.testing.assert_array_equal(y, reference.activation_fwd(x, "leaky_relu", 0.25))
    (dx,) = in_every_order(lambda backend: backend.activation_bwd(dy, x, "hardtanh", -2.0, 3.0))
    np.testing.assert_array_equal(dx, reference.activation_bwd(dy, x, "hardtanh", -2.0, 3.0))


@pytest.mark.nvrtc
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ptx(name: str) -> None:
    """What NVRTC makes of each function and its slope, from tiny numbers to large ones."""
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [rng.normal(scale=3, size=1700), 10.0 ** rng.uniform(-6, 2, 300), -(10.0 ** rng.uniform(-6, 1, 200))]
    )
    x = x.astype(np.float32)
    dy = rng.normal(size=x.size).astype(np.float32)
    device = PtxDevice()
    backend = Simulated(Host(device))
    y, dx = backend.activation_fwd(x, name, *SETTINGS), backend.activation_bwd(dy, x, name, *SETTINGS)
    assert [launch.kernel for launch in device.launches] == ["activation_fwd", "activation_bwd"]
    exact, slope = (
        reference.activation_fwd(*wide(x), name, *SETTINGS),
        reference.activation_bwd(*wide(dy, x), name, *SETTINGS),
    )
    if name in ULPS:
        normal = np.abs(exact) >= 2.0**-126
        assert ulps(y[normal], exact[normal]) <= ULPS[name]
    # Beside those errors, rounding the argument of an exponential costs half a unit of that argument, up to 90.
    np.testing.assert_allclose(y, exact, rtol=64 * 2.0**-24, atol=64 * 2.0**-24)
    assert (np.abs(dx - slope) <= 64 * 2.0**-24 * np.abs(dy * x).clip(1)).all()


def test_operands_that_start_between_vectors() -> None:
    device = SimDevice()
    x, dy = np.random.default_rng(2).normal(size=(2, 2 * STRETCH)).astype(np.float32)
    aligned = FORWARD.activation_bwd(dy, x, "silu")
    views = [view_off_by_one(device, one) for one in (dy, x)]
    np.testing.assert_array_equal(Host(device).activation_bwd(*views, "silu"), aligned)


def test_nothing_launches_nothing() -> None:
    device = SimDevice()
    empty = np.ones((0, 3), np.float32)
    assert Simulated(Host(device)).activation_fwd(empty, "silu").shape == (0, 3)
    assert Simulated(Host(device)).activation_bwd(empty, empty, "silu").shape == (0, 3)
    assert device.launches == []


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    x = device.alloc((2**31 + 10,), np.float32)
    x[:3], x[-3:] = (-1, 2, 3), (4, -5, 6)
    y = Host(device).activation_fwd(x, "leaky_relu", 0.5)
    assert (y[:3].tolist(), y[-3:].tolist()) == ([-0.5, 2, 3], [4, -2.5, 6])


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for activation_fwd in float64"):
        FORWARD.activation_fwd(np.ones(3), "silu")


def test_names_are_in_the_order_of_the_kernels() -> None:
    from pycnn.backends.cuda.activation import _FAMILY

    assert _FAMILY == ACTIVATIONS


def test_public_functions_and_gradients_run_on_the_simulator() -> None:
    data = np.random.default_rng(4).normal(size=(2, 3, 8)).astype(np.float32)
    results = []
    for backend in ("sim", "cpu"):
        x = pycnn.Tensor(data, requires_grad=True)
        with pycnn.use_backend(backend):
            y = pycnn.gelu(x)
            (dx,) = pycnn.grad(y.sum(), x, create_graph=True)
            (ddx,) = pycnn.grad(dx.sum(), x)
        results.append([one.detach().numpy() for one in (y, dx, ddx)])
    # Some ten roundings of numbers near 1 on either side.
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=2e-6)
