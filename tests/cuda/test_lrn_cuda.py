"""kernels/lrn.cu in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DEVICES, Ends, close, in_every_order, wide

from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, norm
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]

# size, alpha, beta, k: AlexNet's; PyTorch's defaults; every special exponent; even and very wide windows.
CONFIGS = [
    (5, 1e-4, 0.75, 2.0),
    (5, 0.7, 0.75, 1.0),
    (5, 0.7, 1.37, 1.0),
    (2, 0.5, 0.75, 1.0),
    (3, 0.9, 1.0, 1.5),
    (4, 0.8, 0.5, 1.0),
    (1, 1.0, 0.0, 1.0),
    (40, 2.0, 0.6, 3.0),
]
SHAPES = [(1, 1, 1, 1), (2, 5, 3, 3), (1, 9, 13, 13), (2, 3), (3, 20, 70), (1, 33, 9, 15), (2, 100, 3)]


def bounded(backend: object, shape: tuple[int, ...], config: tuple[int, float, float, float]) -> None:
    rng = np.random.default_rng(4)
    x, dy = rng.normal(scale=2, size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    call = in_every_order if backend is None else lambda function: (function(backend),)
    # A sum of `size` squares, a power of some 8 roundings (powf has 4 ulp), a product.
    (y,) = call(lambda device: device.lrn_fwd(x, *config))
    close(y, reference.lrn_fwd(*wide(x), *config), 16 + 2 * config[0])
    (dx,) = call(lambda device: device.lrn_bwd(dy, x, *config))
    expected = reference.lrn_bwd(*wide(dy, x), *config)
    close(dx, expected, 32 + 4 * config[0], scale=float(np.abs(expected).max(initial=0)) + 1)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_equals_reference(config: tuple[int, float, float, float]) -> None:
    for shape in SHAPES:
        bounded(None, shape, config)


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
def test_segments_of_channels_give_the_same(
    config: tuple[int, float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large batch is not cut along its channels; a small one is, with a window read before each segment."""
    rng = np.random.default_rng(5)
    x, dy = rng.normal(size=(2, 2, 67, 5)).astype(np.float32)
    cut = FORWARD.lrn_fwd(x, *config), FORWARD.lrn_bwd(dy, x, *config)
    monkeypatch.setattr(norm, "_LRN_THREADS", 1)
    whole = FORWARD.lrn_fwd(x, *config), FORWARD.lrn_bwd(dy, x, *config)
    for one, other in zip(cut, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_size_5_has_a_kernel_of_its_own() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    x = np.ones((1, 7, 2), np.float32)
    for size in (5, 4):
        backend.lrn_fwd(x, size, 1.0, 0.75, 1.0)
        backend.lrn_bwd(x, x, size, 1.0, 0.75, 1.0)
    assert [str(instance) for instance in device.launches] == [
        *("lrn_fwd[of_5]", "lrn_bwd[of_5]"),
        *("lrn_fwd[any]", "lrn_slopes[any]", "lrn_bwd[any]"),
    ]


@pytest.mark.nvrtc
@pytest.mark.parametrize("config", CONFIGS[1:5], ids=str)
def test_ptx(config: tuple[int, float, float, float]) -> None:
    bounded(Simulated(Host(PtxDevice())), (2, 37, 5), config)


@pytest.mark.parametrize("size", [3, 5])
def test_forgets_what_has_left_the_window(size: int) -> None:
    """Channels 1e15, then 1e-3: a running sum would still hold rounding errors of 1e30 when the large one is gone."""
    x = np.full((1, 12, 3, 3), 1e-3, np.float32)
    x[0, 0] = 1e15
    x[0, 11] = np.inf
    y, expected = FORWARD.lrn_fwd(x, size, 1.0, 0.75, 1.0), reference.lrn_fwd(x, size, 1.0, 0.75, 1.0)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    x[0, 11], x[0, 6] = 1, np.nan
    dy = np.ones_like(x)
    found, expected = (backend.lrn_bwd(dy, x, size, 1.0, 0.75, 1.0) for backend in (FORWARD, reference))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_base_of_zero_is_pytorchs() -> None:
    """k = 0 and no signal: 0 / 0."""
    x = np.zeros((1, 9, 2), np.float32)
    x[0, 4] = 2
    found, expected = (backend.lrn_fwd(x, 5, 1.0, 0.75, 0.0) for backend in (FORWARD, reference))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    found, expected = (backend.lrn_bwd(x, x, 5, 1.0, 0.75, 0.0) for backend in (FORWARD, reference))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_empty_batch_launches_nothing() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    x = np.ones((0, 4, 2, 2), np.float32)
    assert backend.lrn_fwd(x, 5, 1.0, 0.75, 1.0).shape == backend.lrn_bwd(x, x, 3, 1.0, 0.75, 1.0).shape == x.shape
    assert device.launches == []


@pytest.mark.parametrize("size", [3, 5])
def test_past_two_to_the_31_elements(size: int) -> None:
    host = Host(Ends())
    shape = (1, 9, 2**28 + 40)
    x = host.device.alloc(shape, np.float32)
    x[0, :, 0], x[0, :, -1] = np.arange(9), np.arange(9)[::-1]
    y, dx = host.lrn_fwd(x, size, 1.0, 0.75, 1.0), host.lrn_bwd(x, x, size, 1.0, 0.75, 1.0)
    column = np.arange(9.0)[None, :, None]
    for found, expected in (
        (y, reference.lrn_fwd(column, size, 1.0, 0.75, 1.0)),
        (dx, reference.lrn_bwd(column, column, size, 1.0, 0.75, 1.0)),
    ):
        np.testing.assert_allclose(found[0, :, 0], expected[0, :, 0], atol=2e-6)
    back = column[:, ::-1]
    np.testing.assert_allclose(y[0, :, -1], reference.lrn_fwd(back, size, 1.0, 0.75, 1.0)[0, :, 0], atol=2e-6)
    np.testing.assert_allclose(dx[0, :, -1], reference.lrn_bwd(back, back, size, 1.0, 0.75, 1.0)[0, :, 0], atol=2e-6)


def test_float64_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for lrn_fwd in float64"):
        FORWARD.lrn_fwd(np.ones((1, 2, 3)), 5, 1.0, 0.75, 1.0)
