"""kernels/nll.cu in the simulator and the PTX interpreter, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import DEVICES, Ends, close, in_every_order, wide

import pycnn
import pycnn.functional as F
from pycnn.backends import reference
from pycnn.backends.cuda import Host, UnavailableError, loss
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.testing.ptx import PtxDevice

pytestmark = pytest.mark.simulator

FORWARD = DEVICES["forward"]
REDUCTIONS = ("mean", "sum", "none")

# No trailing axes, one, two; one class; more targets than one block takes; nothing at all.
SHAPES = [(1, 1), (4, 10), (3, 5, 7), (2, 21, 9, 11), (1030, 3), (2, 3, 60, 61), (5, 300), (0, 4), (2, 3, 0)]


def bounded(backends: object, shape: tuple[int, ...], weighted: bool, reduction: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    target = rng.integers(-1, shape[1], (shape[0], *shape[2:]))  # -1 is ignored
    weight = rng.uniform(0.5, 2, shape[1]).astype(np.float32) if weighted else None
    call = in_every_order if backends is None else lambda function: (function(backends),)
    (y,) = call(lambda backend: backend.nll_fwd(x, target, weight, -1, reduction))
    # Terms are at most some 10 in size; a sum of n of them is some 10 sqrt(n), in chains of at most n/256 and a tree.
    scale = 10.0 * (max(1, target.size) ** 0.5 if reduction == "sum" else 1)
    close(y, reference.nll_fwd(*wide(x, target, weight), -1, reduction), 32, scale)
    dy = rng.normal(size=y.shape).astype(np.float32)
    (dx,) = call(lambda backend: backend.nll_bwd(dy, target, weight, shape, -1, reduction))
    close(dx, reference.nll_bwd(*wide(dy, target, weight), shape, -1, reduction), 32)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_reference(weighted: bool, reduction: str) -> None:
    for shape in SHAPES:
        bounded(None, shape, weighted, reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_integers_are_exact(reduction: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-20, 20, (40, 7, 70)).astype(np.float32)
    target, weight = rng.integers(0, 7, (40, 70)), np.arange(1, 8).astype(np.float32)
    found, expected = (backend.nll_fwd(x, target, weight, 3, reduction) for backend in (FORWARD, reference))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.nvrtc
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ptx(reduction: str) -> None:
    for shape in ((5, 9), (2, 5, 33), (1300, 2)):
        bounded(Simulated(Host(PtxDevice())), shape, True, reduction)


def test_blocks_do_not_change_the_sum_of_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_TARGETS", 7)
    monkeypatch.setattr(loss, "_BLOCKS", 300)  # more than nll_total has threads
    x = np.random.default_rng(2).integers(-9, 9, (3000, 4)).astype(np.float32)
    target = np.random.default_rng(3).integers(0, 4, 3000)
    for reduction in ("mean", "sum"):
        found, expected = (backend.nll_fwd(x, target, None, 0, reduction) for backend in (FORWARD, reference))
        assert found == expected


def test_ignored_scores_may_be_anything() -> None:
    x = np.array([[np.nan, np.inf], [-1.0, -2.0]], np.float32)
    assert FORWARD.nll_fwd(x, np.array([-100, 1]), None, -100, "mean") == 2
    assert np.isnan(FORWARD.nll_fwd(x, np.array([-100, -100]), None, -100, "mean"))
    assert FORWARD.nll_fwd(x, np.array([-100, -100]), None, -100, "sum") == 0
    dx = FORWARD.nll_bwd(np.array(np.nan, np.float32), np.array([-100, -100]), None, (2, 2), -100, "mean")
    np.testing.assert_array_equal(dx, np.zeros((2, 2)))


@pytest.mark.parametrize("bad", [-1, 3, 2**40, -(2**63)])
def test_a_target_that_is_no_class_is_nan_and_reads_nothing(bad: int) -> None:
    x, weight, target = np.ones((2, 3), np.float32), np.ones(3, np.float32), np.array([bad, 1])
    assert np.isnan(FORWARD.nll_fwd(x, target, weight, -100, "mean"))
    losses = FORWARD.nll_fwd(x, target, weight, -100, "none")
    assert np.isnan(losses).tolist() == [True, False]
    dx = FORWARD.nll_bwd(np.ones(2, np.float32), target, weight, (2, 3), -100, "none")
    assert np.isnan(dx).all(axis=1).tolist() == [True, False]
    assert dx[1].tolist() == [0, -1, 0]


def test_nothing_to_average() -> None:
    x, target = np.ones((0, 4), np.float32), np.ones(0, np.int64)
    assert np.isnan(FORWARD.nll_fwd(x, target, None, -100, "mean"))
    assert FORWARD.nll_fwd(x, target, None, -100, "sum") == 0
    device = SimDevice()
    assert Simulated(Host(device)).nll_fwd(x, target, None, -100, "none").shape == (0,)
    assert Simulated(Host(device)).nll_bwd(np.ones((), np.float32), target, None, (0, 4), -100, "mean").shape == (0, 4)
    assert device.launches == []


def test_operands_with_gaps() -> None:
    x = np.random.default_rng(4).normal(size=(6, 10)).astype(np.float32)[:, ::2]
    target = np.arange(12)[::2] % 5
    close(FORWARD.nll_fwd(x, target, None, 0, "none"), reference.nll_fwd(*wide(x), target, None, 0, "none"), 1)


def test_past_two_to_the_31_elements() -> None:
    host = Host(Ends())
    x, target = host.device.alloc((3, 2**30, 1), np.float32), host.device.alloc((3, 1), np.int64)
    target[:, 0] = 0, 5, 2**30 - 1
    x[0, 0], x[1, 5], x[2, -1] = -1, -2, -3
    assert host.nll_fwd(x, target, None, -100, "sum") == 6
    assert host.nll_fwd(x, target, None, -100, "none")[:, 0].tolist() == [1, 2, 3]
    shape = (2, 4, 2**28 + 33)
    target, dy = host.device.alloc((2, shape[2]), np.int64), host.device.alloc((), np.float32)
    target[0, 0], target[1, -1] = 1, 2
    dy[...] = 5
    dx = host.nll_bwd(dy, target, None, shape, -100, "sum")
    assert dx[0, :, 0].tolist() == [0, -5, 0, 0]
    assert dx[1, :, -1].tolist() == [0, 0, -5, 0]


def test_cross_entropy_and_its_gradient_run_on_the_simulator() -> None:
    data, target = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32), np.arange(6) % 4
    gradients = []
    for backend in ("sim", "reference"):
        scores = pycnn.Tensor(data, requires_grad=True)
        with pycnn.use_backend(backend):
            F.cross_entropy(scores, pycnn.Tensor(target)).backward()
        gradients.append(scores.grad.data)
    close(gradients[0], gradients[1].astype(np.float64), 8)


def test_float64_is_refused() -> None:
    with pytest.raises(UnavailableError, match="no kernel for nll_fwd in float64"):
        FORWARD.nll_fwd(np.ones((2, 2)), np.zeros(2, np.int64), None, 0, "sum")
