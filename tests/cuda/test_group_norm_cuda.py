"""kernels/group_norm.cu in the simulator: every order of threads, large arrays, results of 16 bits, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import DEVICES, Ends, close, in_every_order, wide

import pycnn
from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 3, 4), 3), ((3, 6, 5), 2), ((5, 33), 1), ((2, 4, 255), 4), ((1, 2, 1025), 1), ((2, 4, 2049), 2)],
)
@pytest.mark.parametrize("centred", [True, False])
def test_groups_of_every_size(shape: tuple[int, ...], groups: int, centred: bool) -> None:
    """Rows of one thread, within a warp, of several warps, of a block; with a tail."""
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(1.0, 2.0, shape).astype(np.float32) for _ in range(2))
    weight, bias = rng.normal(size=(2, shape[1])).astype(np.float32)
    found = in_every_order(lambda backend: backend.group_norm_fwd(x, groups, weight, bias, 1e-3, centred))
    x64, weight64, bias64, dy64 = wide(x, weight, bias, dy)
    for one, right in zip(found, reference.group_norm_fwd(x64, groups, weight64, bias64, 1e-3, centred), strict=True):
        close(one, right, 40)  # sums of up to four thousand in partial ones of eight, a root, two products
    mean, var = found[1:]
    found = in_every_order(lambda backend: backend.group_norm_bwd(dy, x, groups, weight, mean, var, 1e-3, centred))
    expected = reference.group_norm_bwd(dy64, x64, groups, weight64, *wide(mean, var), 1e-3, centred)
    for one, right in zip(found, expected, strict=True):
        close(one, right, 100, scale=max(1.0, float(np.abs(right).max())))
    alone = FORWARD.group_norm_bwd(dy, x, groups, weight, mean, var, 1e-3, centred, False)
    assert alone[0].tobytes() == found[0].tobytes()
    assert alone[1:] == (None, None)


def test_every_element_of_a_group_is_normalised_by_the_same_bits() -> None:
    """A butterfly gives each lane a sum in another order; were that used, equal elements would differ."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 1, 120)).astype(np.float32)
    x[:, :, 100:] = 1.5
    y, _, _ = FORWARD.group_norm_fwd(x, 1, None, None, 1e-5)
    assert (y[:, :, 100:] == y[:, :, 100:101]).all()


def test_past_two_to_the_31_elements() -> None:
    device = Ends()
    rows = 2**28 + 3
    x = device.alloc((rows, 8), np.float32)
    x[:1], x[-1:] = np.arange(8), np.arange(8)[::-1]
    y, mean, var = Host(device).group_norm_fwd(x, 1, None, None, 0.0)
    for row in (0, -1):
        np.testing.assert_allclose(y[row], (np.array(x[row]) - 3.5) / np.sqrt(5.25), rtol=1e-6)
        assert (mean[row, 0], var[row, 0]) == (3.5, 5.25)


def test_nothing_launches_nothing_but_zeros() -> None:
    device = SimDevice()
    backend = Simulated(Host(device))
    empty, none = np.ones((0, 4, 3), np.float32), np.ones((0, 2), np.float32)
    y, mean, _ = backend.group_norm_fwd(empty, 2, None, None, 1e-5)
    dx, dweight, dbias = backend.group_norm_bwd(empty, empty, 2, None, none, none, 1e-5)
    assert (y.shape, mean.shape, dx.shape) == ((0, 4, 3), (0, 2), (0, 4, 3))
    assert dweight.tolist() == dbias.tolist() == [0, 0, 0, 0]
    assert device.launches == []


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for group_norm_fwd in float64"):
        FORWARD.group_norm_fwd(np.ones((2, 4)), 2, None, None, 1e-5)


def test_public_functions_and_gradients_run_on_the_simulator() -> None:
    data = np.random.default_rng(4).normal(size=(2, 4, 8)).astype(np.float32)
    results: list[Any] = []
    for backend in ("sim", "cpu"):
        x = pycnn.Tensor(data, requires_grad=True)
        w = pycnn.Tensor(np.arange(1, 9).astype(np.float32), requires_grad=True)
        with pycnn.use_backend(backend):
            y = pycnn.layer_norm(pycnn.instance_norm(x), 8, w)
            results.append([y.detach().numpy(), *(one.numpy() for one in pycnn.grad((y * y).sum(), (x, w)))])
    for one, other in zip(*results, strict=True):
        # Two normalisations there and back in float32.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max(initial=1.0))
