"""`pycnn.checkpoint`: segments of a graph that keep their inputs alone and are computed again."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from tensors import leaf, normal

import pycnn
from pycnn import Tensor, autograd
from pycnn import functional as F
from pycnn.testing.gradcheck import gradcheck, gradgradcheck

pytestmark = pytest.mark.usefixtures("on_reference")


def block(x: Tensor, w: Tensor) -> Tensor:
    h = F.dropout(F.tanh(F.linear(x, w)), 0.3)
    return F.softmax(h * h, 1).exp()


@pytest.mark.parametrize("times", [1, 2])
def test_checkpoint_changes_no_bit(times: int) -> None:
    results = []
    for use in (False, True):
        pycnn.manual_seed(7)
        x, w = normal(4, 5), normal(5, 5, seed=1)
        y = x
        for _ in range(times):
            y = autograd.checkpoint(block, y, w) if use else block(y, w)
        after = pycnn.random.get_state()
        (y * y).sum().backward()
        assert pycnn.random.get_state() == after
        assert x.grad is not None
        assert w.grad is not None
        results.append((y.data, x.grad.data, w.grad.data))
    for plain, saved in zip(*results, strict=True):
        assert np.array_equal(plain, saved)


def test_checkpoint_nests_and_takes_parameters_from_outside() -> None:
    x, w = normal(3, 4), normal(4, 4, seed=1)

    def inner(h: Tensor) -> Tensor:
        return F.tanh(F.linear(h, w)) * h

    def outer(h: Tensor) -> Tensor:
        return autograd.checkpoint(inner, inner(h)).exp() * h

    gradients = []
    for function in (outer, lambda h: inner(inner(h)).exp() * h, lambda h: autograd.checkpoint(outer, h)):
        gradients.append(autograd.grad(function(x).sum(), [x, w]))
    for dx, dw in gradients[1:]:
        assert np.array_equal(dx.data, gradients[0][0].data)
        assert np.array_equal(dw.data, gradients[0][1].data)


def test_checkpoint_can_be_differentiated_twice() -> None:
    gradcheck(lambda x: autograd.checkpoint(lambda t: F.tanh(t) * t, x), (normal(3),))
    gradgradcheck(lambda x: autograd.checkpoint(lambda t: F.tanh(t) * t, x), (normal(3),))


def test_checkpoint_keeps_only_its_inputs() -> None:
    inner: list[weakref.ref] = []

    def watched(x: Tensor) -> Tensor:
        h = x * 2.0
        inner.append(weakref.ref(h.data))
        return (h * h).exp()

    x = leaf(0.1, 0.2)
    y = autograd.checkpoint(watched, x)
    assert inner[0]() is None
    y.sum().backward()
    assert len(inner) == 2
    assert inner[1]() is None


def test_checkpoint_with_retain_graph_computes_again() -> None:
    x = leaf(0.5)
    y = autograd.checkpoint(lambda t: (t * t).exp(), x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.item(), 2 * 2 * 0.5 * np.exp(0.25), rtol=1e-15)


def test_checkpoint_notices_a_changed_input_and_a_changed_function() -> None:
    x = leaf(0.5)
    h = x * 1.0
    y = autograd.checkpoint(lambda t: t.exp().exp(), h)
    with autograd.no_grad():
        h.zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    calls = []

    def moody(t: Tensor) -> Tensor:
        calls.append(1)
        return t.exp() if len(calls) == 1 else t.exp().exp()

    with pytest.raises(RuntimeError, match="must do the same"):
        autograd.checkpoint(moody, x).backward()


def test_checkpoint_updates_running_statistics_once() -> None:
    mean, var = Tensor(np.zeros(2)), Tensor(np.ones(2))
    x = normal(5, 2)
    inner = lambda t: autograd.checkpoint(lambda u: F.batch_norm(u, mean, var, training=True), t)  # noqa: E731
    autograd.checkpoint(inner, x).sum().backward()
    np.testing.assert_allclose(mean.data, 0.1 * x.data.mean(0), rtol=1e-14)
