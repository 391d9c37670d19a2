"""`pycnn.amp.GradScaler`: the scale, and steps that overflow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mixed import give, of

import pycnn
from pycnn import Tensor, amp, optim
from pycnn import functional as F

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


RULES = [
    {"init_scale": 4.0, "growth_interval": 3},
    {"init_scale": 65536.0, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 1},
    {"init_scale": 3.0, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 2},
    {"init_scale": 2.0**126, "growth_interval": 1},  # which does not grow past float32
]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_scale_moves_as_torchs_does(rule: dict[str, Any], kind: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    shapes = ((3, 4), (5,))
    params, optimizer = of([np.ones(shape) for shape in shapes], kind=getattr(optim, kind))
    theirs = [torch.ones(shape, requires_grad=True) for shape in shapes]
    their_optimizer = getattr(torch.optim, kind)(theirs, lr=0.1)
    scaler, peer = amp.GradScaler(**rule), torch.amp.GradScaler("cpu", **rule)
    skipped = 0
    for step in range(24):
        gradients = [rng.standard_normal(shape, np.float32) for shape in shapes]
        if step in (0, 5, 6, 15):
            gradients[step % 2].flat[step % 5] = (np.inf, np.nan, -np.inf)[step % 3]
        factor = scaler.scale(Tensor(np.float32(1))).item()
        assert peer.scale(torch.tensor(1.0)).item() == factor
        with np.errstate(over="ignore"):
            give(params, gradients, factor)
        for parameter, own in zip(theirs, params, strict=True):
            assert own.grad is not None
            parameter.grad = torch.from_numpy(own.grad.data.copy())
        before = [parameter.data.copy() for parameter in params]
        if step % 4 == 1:
            scaler.unscale_(optimizer)
            peer.unscale_(their_optimizer)
            for parameter, own in zip(theirs, params, strict=True):
                np.testing.assert_array_equal(own.grad.data, parameter.grad.numpy())  # type: ignore[union-attr]
        scaler.step(optimizer)
        peer.step(their_optimizer)
        skipped += all(np.array_equal(one, p.data) for one, p in zip(before, params, strict=True))
        scaler.update()
        peer.update()
        expected = peer.state_dict()
        assert scaler.state_dict() == expected
        assert scaler.get_scale() == peer.get_scale()
        for parameter, own in zip(theirs, params, strict=True):
            # The optimisers agree to a rounding or two a step; the scale itself changes no digit.
            np.testing.assert_allclose(own.data, parameter.detach().numpy(), rtol=0, atol=2.0**-22 * (step + 1))
    assert skipped >= 4


def test_a_step_that_overflows_leaves_everything_as_it_is() -> None:
    for kind, options in ((optim.SGD, {"momentum": 0.9}), (optim.AdamW, {})):
        params, optimizer = of([np.ones(3), np.ones(2)], kind=kind, **options)
        scaler = amp.GradScaler(init_scale=8.0)
        for gradients in ([np.ones(3), np.ones(2)], [np.ones(3), [1, np.inf]], [np.ones(3), [np.nan, 1]]):
            give(params, gradients, 8.0)
            before = copy.deepcopy(([p.data for p in params], optimizer.state_dict()["state"]))
            scaler.step(optimizer)
            scaler.update()
            after = [p.data for p in params], optimizer.state_dict()["state"]
            assert (repr(before) == repr(after)) == (gradients[1][0] != 1 or gradients[1][1] != 1)
        assert scaler.get_scale() == 2.0


def test_an_overflow_anywhere_is_found() -> None:
    """Large gradients are looked at in several pieces."""
    for place in (0, 20000, 39999):
        params, optimizer = of([np.ones(40000), np.ones(3)])
        scaler, gradient = amp.GradScaler(init_scale=2.0), np.ones(40000)
        gradient[place] = np.nan
        give(params, [gradient, np.ones(3)], 2.0)
        scaler.step(optimizer)
        scaler.update()
        assert (params[0].data == 1).all()
        assert scaler.get_scale() == 1.0


def test_a_static_scale_stays() -> None:
    params, optimizer = of([np.ones(2)])
    scaler = amp.GradScaler(init_scale=16.0, growth_interval=None)
    for gradient in ([1, 1], [np.inf, 1], [1, 1]):
        give(params, [gradient], 16.0)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 16.0
    np.testing.assert_allclose(params[0].data, 1 - 2 * 0.1, rtol=2.0**-22)  # three roundings
    scaler.scale(params[0].sum()).backward()
    with pytest.raises(RuntimeError, match="no gradients were looked at"):
        scaler.update()
    scaler.update(new_scale=2.0)
    assert scaler.get_scale() == 2.0


def test_gradients_are_clipped_as_they_are_and_not_as_they_were_scaled() -> None:
    params, optimizer = of([np.ones(3), np.ones(1)], lr=1.0)
    scaler = amp.GradScaler(init_scale=1024.0)
    give(params, [[3, 0, 0], [4]], 1024.0)
    scaler.unscale_(optimizer)
    assert optim.clip_grad_norm_(params, 1.0) == 5.0
    scaler.step(optimizer)
    np.testing.assert_allclose(params[0].data, [1 - 3 / 5, 1, 1], rtol=1e-6)  # norm + 1e-6 in the quotient
    scaler.update()


def test_a_scale_or_gradient_that_was_written_to_since_is_noticed() -> None:
    """Backward would take what it is by then for what it was."""
    p = pycnn.ones(2, requires_grad=True)
    optimizer, scaler = optim.SGD([p], lr=0.0), amp.GradScaler(4.0, growth_interval=1)
    scaler.scale((p * 3).sum()).backward()
    late = scaler.scale((p * 3).sum())
    q = pycnn.ones(2, requires_grad=True)
    product = (q * p.grad).sum()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="changed in place"):
        product.backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 8.0
    with pytest.raises(RuntimeError, match="changed in place"):
        late.backward()


def test_small_gradients_survive_in_float16() -> None:
    w = Tensor(np.ones((1, 1), np.float32), requires_grad=True)
    x, scaler = pycnn.ones(1, 1), amp.GradScaler(init_scale=2.0**16)

    def gradient(scale: Callable[[Any], Any]) -> float:
        w.grad = None
        with amp.autocast("float16"):
            loss = F.linear(x, w).sum() * 2.0**-30
        scale(loss).backward()
        assert w.grad is not None
        return float(w.grad.item())

    assert gradient(lambda loss: loss) == 0.0  # below the smallest number of float16
    assert gradient(scaler.scale) == 2.0**-14
    optimizer = optim.SGD([w], lr=2.0**30)
    scaler.step(optimizer)
    assert w.item() == 0.0


def test_several_optimisers_and_losses() -> None:
    (p,), one = of([np.ones(2)])
    (q,), two = of([np.ones(2)])
    scaler = amp.GradScaler(init_scale=4.0)
    first, second = scaler.scale([(p * 2).sum(), (q * np.inf).sum()])
    first.backward()
    with np.errstate(invalid="ignore"):
        second.backward()
    scaler.step(one)
    scaler.step(two)
    scaler.update()
    assert p.data.tolist() == [np.float32(1) - np.float32(0.1) * 2] * 2  # its own gradients are finite
    assert q.data.tolist() == [1, 1]
    assert scaler.get_scale() == 2.0
    assert isinstance(scaler.scale((p.sum(),)), tuple)


def test_what_is_out_of_turn_is_said() -> None:
    params, optimizer = of([np.ones(2)])
    scaler = amp.GradScaler(init_scale=4.0)
    give(params, [np.ones(2)], 4.0)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has been called for this optimiser since the last update"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) has been called for this optimiser since the last update"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="it has stepped since the last update"):
        scaler.unscale_(optimizer)
    scaler.update()
    scaler.step(optimizer)
    with pytest.raises(TypeError, match="outputs must be a Tensor, or a list or tuple of them, got float"):
        scaler.scale(1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init_scale": 0.0}, ValueError, "init_scale must be above 0 and finite in float32, got 0.0"),
        ({"init_scale": 1e39}, ValueError, "init_scale must be above 0 and finite in float32"),
        ({"growth_factor": 1.0}, ValueError, "growth_factor must be above 1 and finite, got 1.0"),
        ({"backoff_factor": 1.0}, ValueError, "backoff_factor must lie between 0 and 1, got 1.0"),
        ({"growth_interval": 0}, ValueError, "growth_interval"),
        ({"growth_interval": 1.5}, TypeError, "growth_interval"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        amp.GradScaler(**options)


def test_the_state_of_a_scaler() -> None:
    params, optimizer = of([np.ones(2)])
    scaler = amp.GradScaler(init_scale=4.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=5)
    for _ in range(7):
        give(params, [np.ones(2)], scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
    state = scaler.state_dict()
    assert (state["scale"], state["_growth_tracker"]) == (12.0, 2)
    other = amp.GradScaler()
    other.load_state_dict(state)
    assert other.state_dict() == state
    with pytest.raises(ValueError, match="scale must be above 0"):
        other.load_state_dict({**state, "scale": -1.0})
    assert other.state_dict() == state
    off = amp.GradScaler(enabled=False)
    assert (off.state_dict(), off.get_scale(), off.is_enabled()) == ({}, 1.0, False)
    off.load_state_dict(state)
    with pytest.raises(RuntimeError, match="the state is empty"):
        other.load_state_dict({})
    loss = params[0].sum()
    assert off.scale(loss) is loss
    give(params, [[1, np.inf]], 1.0)
    off.unscale_(optimizer)
    with np.errstate(invalid="ignore"):
        off.step(optimizer)  # a plain step
    off.update()
    assert not np.isfinite(params[0].data).all()
