"""kernels/elementwise.cu in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, Ends, in_every_order, ulps, view_off_by_one, wide

import pycnn
from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]
UNARY = ("relu_fwd", "tanh_fwd", "sigmoid_fwd")
BINARY = ("relu_bwd", "tanh_bwd", "sigmoid_bwd", "add")
EXACT = ("relu_fwd", "relu_bwd", "add")
STRETCH = 2048  # elements of a block

# Around a vector, a block and two of them.
SIZES = [1, 3, 4, 5, 255, STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH + 4, 5000]
SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1,
        -1,
        np.inf,
        -np.inf,
        np.nan,
        1e-45,
        -1e-45,
        1e-40,
        3e38,
        -3e38,
        88.7,
        88.8,
        -87.4,
        -103.9,
        9.1,
        -9.1,
    ],
    np.float32,
)

# Errors in units in the last place.  CUDA's expf, tanhf and __fdividef are within 2 (CUDA C++ Programming Guide,
# "Mathematical Functions"), the simulator's are the host's, within 1; the sum 1 + exp adds half.
ULPS = {"tanh_fwd": 2.0, "sigmoid_fwd": 4.5}


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found, expected)


def check(name: str, found: np.ndarray, *operands: np.ndarray) -> None:
    if name in EXACT:
        same(found, getattr(reference, name)(*operands))
        return
    with np.errstate(all="ignore"):
        expected = getattr(reference, name)(*wide(*operands))
    if name in UNARY:
        assert ulps(found, expected) <= ULPS[name]
        return
    # Three roundings, of which that of 1 - y (or 1 - y^2) is relative to y where the difference is small.
    dy, y = wide(*operands)
    with np.errstate(all="ignore"):
        slack = 4 * 2.0**-24 * np.abs(dy) * (1 + np.abs(y)) ** 2
        finite = np.isfinite(expected) & np.isfinite(expected.astype(np.float32))
    same(np.isnan(found), np.isnan(expected))
    assert (np.abs(found - expected)[finite] <= slack[finite]).all()


@pytest.mark.parametrize("name", UNARY + BINARY)
def test_every_size(name: str) -> None:
    rng = np.random.default_rng(0)
    for size in SIZES:
        operands = rng.normal(scale=3, size=(1 if name in UNARY else 2, size)).astype(np.float32)
        (found,) = in_every_order(lambda backend, given=operands: getattr(backend, name)(*given))
        check(name, found, *operands)


@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str) -> None:
    check(name, getattr(FORWARD, name)(SPECIAL), SPECIAL)
    assert not np.signbit(FORWARD.relu_fwd(np.array([-0.0, -1], np.float32))).any()
    assert np.signbit(FORWARD.tanh_fwd(np.array([-0.0], np.float32)))[0]


@pytest.mark.parametrize("name", BINARY)
def test_special_values_of_two_operands(name: str) -> None:
    # What tanh and sigmoid give lies within -1 and 1; squaring 3e38 overflows in float32 and not in the oracle.
    second = SPECIAL if name in EXACT else SPECIAL[(np.abs(SPECIAL) <= 1) | np.isnan(SPECIAL)]
    pairs = np.stack(np.meshgrid(SPECIAL, second)).reshape(2, -1)
    with np.errstate(all="ignore"):
        found, expected = getattr(FORWARD, name)(*pairs), getattr(reference, name)(*pairs)
    same(np.isnan(found), np.isnan(expected))
    same(found[np.isinf(expected)], expected[np.isinf(expected)])


@pytest.mark.nvrtc
@pytest.mark.parametrize("name", ["tanh_fwd", "sigmoid_fwd"])
def test_ptx_keeps_the_ulps_over_all_exponents(name: str) -> None:
    """The code that NVRTC makes of expf and tanhf, on every 2^19th float and densely where the functions bend."""
    bits = np.arange(0, 2**32, 2**19 + 7, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([bits, SPECIAL, np.linspace(-20, 20, 4001, dtype=np.float32)])
    found = getattr(Simulated(Host(PtxDevice())), name)(x)
    with np.errstate(invalid="ignore"):
        exact = getattr(reference, name)(x.astype(np.float64))
    normal = ~(np.abs(exact) < 2.0**-126)  # ex2.approx.ftz has no smaller ones
    check(name, found[normal], x[normal])


@pytest.mark.nvrtc
@pytest.mark.parametrize("name", UNARY + BINARY)
def test_ptx(name: str) -> None:
    operands = np.random.default_rng(1).normal(size=(1 if name in UNARY else 2, STRETCH + 5)).astype(np.float32)
    device = PtxDevice()
    check(name, getattr(Simulated(Host(device)), name)(*operands), *operands)
    assert [instance.name for instance in device.launches] == [name]


@pytest.mark.parametrize("name", UNARY + BINARY)
def test_operands_that_start_between_vectors(name: str) -> None:
    device = SimDevice()
    operands = np.random.default_rng(2).normal(size=(1 if name in UNARY else 2, 2 * STRETCH)).astype(np.float32)
    aligned = getattr(FORWARD, name)(*operands)
    views = [view_off_by_one(device, operand) for operand in operands]
    same(getattr(Host(device), name)(*views), aligned)
    whole = [device.alloc(operand.shape, np.float32) for operand in operands]
    for array, operand in zip(whole, operands, strict=True):
        device.fill(array, operand)
    same(getattr(Host(device), name)(*whole[:-1], views[-1]), aligned)  # only one of them does


def test_operands_with_gaps_and_no_axes() -> None:
    x = np.random.default_rng(3).normal(size=(7, 30)).astype(np.float32)
    same(FORWARD.relu_fwd(x[:, ::2]), reference.relu_fwd(x[:, ::2]))
    same(FORWARD.add(x[:, ::2], x[:, 1::2]), reference.add(x[:, ::2], x[:, 1::2]))
    assert FORWARD.relu_fwd(np.array(-1, np.float32)).shape == ()
    assert FORWARD.add(np.array(1, np.float32), np.array(2, np.float32)) == 3


def test_nothing_launches_nothing() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    empty = np.ones((0, 3), np.float32)
    assert backend.relu_fwd(empty).shape == backend.add(empty, empty).shape == (0, 3)
    assert device.launches == []


@pytest.mark.parametrize("name", ["relu_fwd", "add"])
def test_past_two_to_the_31_elements(name: str) -> None:
    device = Ends()
    size = 2**31 + 10
    x = device.alloc((size,), np.float32)
    x[:3], x[-3:] = (-1, 2, 3), (4, -5, 6)
    y = getattr(Host(device), name)(*(x,) * (1 if name == "relu_fwd" else 2))
    expected = ([0, 2, 3], [4, 0, 6]) if name == "relu_fwd" else ([-2, 4, 6], [8, -10, 12])
    assert (y[:3].tolist(), y[-3:].tolist()) == expected


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for tanh_fwd in float64"):
        FORWARD.tanh_fwd(np.ones(3))


def test_public_operators_and_gradients_run_on_the_simulator() -> None:
    data = np.random.default_rng(4).integers(-4, 5, (2, 3, 8)).astype(np.float32)
    gradients: list[Any] = []
    for backend in ("sim", "reference"):
        x = pycnn.Tensor(data, requires_grad=True)
        with pycnn.use_backend(backend):
            pycnn.relu(x).backward(np.ones(data.shape, np.float32))
        gradients.append(x.grad.data)
    same(*gradients)


@pytest.mark.nvrtc
@pytest.mark.parametrize(
    "call",
    [
        lambda host, x: host.relu_fwd(x),
        lambda host, x: host.add(x, x),
        lambda host, x: host.concat([x, x], 1),
        lambda host, x: host.channel_sum(x),
        lambda host, x: host.clip_gradients([x], np.ones((), np.float32), 0.5),
    ],
    ids=["relu", "add", "concat", "channel sum", "clip"],
)
def test_whole_stretches_of_aligned_operands_go_by_vectors(call: Any) -> None:
    """One stretch to the last element: the same call on a view between vectors takes more instructions."""
    executed = []
    for offset in (0, 1):
        device = PtxDevice()
        x = device.alloc((STRETCH + 4,), np.float32)
        assert x.ctypes.data % 16 == 0
        view = x[offset : offset + STRETCH].reshape(1, 2, 32, 32)
        view[...] = 1
        call(Host(device), view)
        executed.append(device.executed)
    assert executed[0] < 0.95 * executed[1], executed
