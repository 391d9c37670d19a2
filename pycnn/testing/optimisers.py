"""One call that holds a device's optimiser steps to those of `pycnn.optim` on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import optim
from pycnn.arrays import to_host
from pycnn.backends.cuda.optim import ARRAYS, adam_settings, sgd_settings
from pycnn.tensor import Tensor

__all__ = ["check_optimisers"]

# Scalars, tails and long ones, more arrays than one launch takes.
_SHAPES: list[tuple[int, ...]] = [(), (7,), (64, 3, 3, 3), (5, 1001), (4096,), *[(3,)] * ARRAYS]
_STEPS = 3


def check_optimisers(backend: Any) -> int:
    """Assert that SGD and Adam on a device move parameters as on the CPU, and that gradients are clipped alike.

    SGD bit for bit; Adam, and the norm, within the error of the roots and quotients of a GPU.  Also that scaled
    gradients are divided, and a step left out where they overflow.  Returns how many settings were tried.

    Args:
        backend: a `pycnn.backends.sim.Simulated`, or what has its `host` and `into`.

    Raises:
        AssertionError: naming the optimiser and its settings.
    """
    plain = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.3}
    heavy = {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 1e-2}
    ahead = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-2}
    for settings, nesterov in ((plain, False), (heavy, False), (ahead, True)):
        found = _sgd(backend, settings, nesterov)
        for ours, right in zip(found, _on_the_cpu(optim.SGD, **settings, nesterov=nesterov), strict=True):
            assert np.array_equal(ours, right), f"SGD {settings}, nesterov={nesterov}: not the CPU's bits"
    for kind, decoupled in ((optim.Adam, False), (optim.AdamW, True)):
        found = _adam(backend, decoupled)
        for ours, right in zip(found, _on_the_cpu(kind, lr=1e-2, weight_decay=0.1), strict=True):
            worst = float(np.abs(ours - right).max(initial=0.0))
            # A parameter of up to five, rounded in each of three steps on either side.
            assert worst <= 6 * 2.0**-22, f"{kind.__name__}: {worst:.3g} from the CPU's parameters"
    _check_clipping(backend)
    _check_scaling(backend)
    return 7


def _arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in _SHAPES]


def _on_the_cpu(kind: Any, **settings: Any) -> list[np.ndarray]:
    params = [Tensor(array, requires_grad=True) for array in _arrays(0)]
    optimiser = kind(params, **settings)
    for step in range(_STEPS):
        for param, grad in zip(params, _arrays(100 + step), strict=True):
            param.grad = Tensor(grad)
        optimiser.step()
    return [param.data for param in params]


def _sgd(backend: Any, settings: dict[str, float], nesterov: bool) -> list[np.ndarray]:
    params = backend.into(_arrays(0))
    buffers = [backend.host.device.alloc(param.shape, np.float32) for param in params] if settings["momentum"] else None
    on_device = backend.into(np.array(sgd_settings(**settings), np.float32))
    for step in range(_STEPS):
        backend.host.sgd_step(params, backend.into(_arrays(100 + step)), buffers, on_device, nesterov, step == 0)
    return [to_host(param) for param in params]


def _adam(backend: Any, decoupled: bool) -> list[np.ndarray]:
    params = backend.into(_arrays(0))
    moments = [backend.into([np.zeros_like(array) for array in _arrays(0)]) for _ in range(2)]
    settings = backend.into(np.array(adam_settings(1e-2, (0.9, 0.999), 1e-8, 0.1), np.float32))
    count = backend.into(np.array(0, np.int64))
    for step in range(_STEPS):
        backend.host.advance(count, 1)
        backend.host.adam_step(params, backend.into(_arrays(100 + step)), *moments, settings, count, decoupled)
    return [to_host(param) for param in params]


def _check_clipping(backend: Any) -> None:
    grads = backend.into(_arrays(0))
    norm = backend.host.gradient_norm(grads)
    expected = np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in _arrays(0)))
    # Sums of squares in hundreds of parts, whose errors partly cancel, and a root.
    assert abs(float(to_host(norm)) - expected) <= 1e-6 * expected, "the gradients' norm is wrong"
    backend.host.clip_gradients(grads, norm, 1.0)
    for found, array in zip(grads, _arrays(0), strict=True):
        assert np.allclose(to_host(found), array / expected, rtol=2e-6, atol=0), "the clipped gradients are wrong"


def _check_scaling(backend: Any) -> None:
    """A step with gradients scaled by a power of two is the plain step; one of which was found to overflow is none."""
    host, rule = backend.host, backend.into(np.array(sgd_settings(0.1, 0.0, 0.0, 0.3), np.float32))
    scale, steady = backend.into(np.array(2.0**40, np.float32)), backend.into(np.array(1, np.int64))
    count, found = backend.into(np.array(7, np.int64)), backend.into(np.array(0.0, np.float32))
    params, plain = backend.into(_arrays(0)), backend.into(_arrays(0))
    for number, (factor, bad) in enumerate(((2.0**40, False), (2.0**41, True), (2.0**40, False))):
        assert float(to_host(scale)) == factor, f"the scale is {float(to_host(scale))} before step {number}"
        slopes = [np.asarray(array * np.float32(factor)) for array in _arrays(100 + number)]
        if bad:
            slopes[4][-1] = np.inf
        else:
            host.sgd_step(plain, backend.into(_arrays(100 + number)), None, rule, False, False)
        grads = backend.into(slopes)
        host.unscale_gradients(grads, scale, found, False)
        host.sgd_step(params, grads, None, rule, False, False, scale, found)
        host.count_step(count, found)
        host.next_scale([found], scale, steady, 2.0, 0.5, 2)
        for one, right in zip(params, plain, strict=True):
            assert np.array_equal(to_host(one), to_host(right)), f"scaled step {number} is not the plain one"
    assert int(to_host(count)) == 9, "a step that was left out was counted"
