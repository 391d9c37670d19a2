"""Float32 master copies of 16-bit parameters, and a whole network in mixed precision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from mixed import Cnn, give, normal, of

import pycnn
from pycnn import Tensor, amp, nn, optim
from pycnn import functional as F

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


# ------------------------------------------------------------------------------------------------------- master copies

KINDS: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    (optim.SGD, {"lr": 1e-4}),
    (optim.SGD, {"lr": 1e-4, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (optim.Adam, {"lr": 1e-4}),
    (optim.AdamW, {"lr": 1e-4, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
def test_a_16_bit_parameter_is_its_float32_copy_rounded(kind: Any, options: Any, low: np.dtype[Any]) -> None:
    shapes = ((4, 5), (7,), ())
    params, optimizer = of([np.ones(shape) for shape in shapes], low, kind, **options)
    masters, expected = of([np.ones(shape) for shape in shapes], np.float32, kind, **options)
    for step in range(30):
        gradients = [1 + 0.2 * np.random.default_rng((step, i)).random(shape) for i, shape in enumerate(shapes)]
        give(params, gradients, 1.0)
        give(masters, [p.grad.data.astype(np.float32) for p in params], 1.0)  # type: ignore[union-attr]
        optimizer.step()
        expected.step()
        for parameter, master in zip(params, masters, strict=True):
            assert parameter.dtype == low
            assert np.array_equal(parameter.data, master.data.astype(low))
            assert np.array_equal(optimizer.state[parameter]["master"], master.data)
    assert all((p.data != 1).any() for p in params)  # single steps of 1e-4 are below the digits of bfloat16 beside 1
    for name, value in expected.state[masters[0]].items():
        assert np.array_equal(optimizer.state[params[0]][name], value)


def test_master_copies_are_saved_and_loaded(low: np.dtype[Any]) -> None:
    params, optimizer = of([np.ones((3, 4))], low, optim.Adam, lr=1e-4)
    for step in range(3):
        give(params, [np.random.default_rng(step).standard_normal((3, 4))], 1.0)
        optimizer.step()
    others, other = of([np.ones((3, 4))], low, optim.Adam, lr=1e-4)
    others[0].data = params[0].data.copy()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.state[others[0]]["master"].dtype == np.float32
    assert other.state[others[0]]["exp_avg"].dtype == np.float32
    for both in ((params, optimizer), (others, other)):
        give(both[0], [np.ones((3, 4))], 1.0)
        both[1].step()
    assert np.array_equal(params[0].data, others[0].data)
    assert np.array_equal(optimizer.state[params[0]]["master"], other.state[others[0]]["master"])


def test_a_master_copy_follows_a_parameter_that_someone_else_wrote_to() -> None:
    params, optimizer = of([np.ones(3)], np.float16, lr=2.0**-13)
    (p,) = params
    for _ in range(2):
        give(params, [np.ones(3)], 1.0)
        optimizer.step()
    with pycnn.no_grad():
        p[1] = 5.0
    give(params, [np.ones(3)], 1.0)
    optimizer.step()
    assert optimizer.state[p]["master"].tolist() == [1 - 3 * 2.0**-13, 5 - 2.0**-13, 1 - 3 * 2.0**-13]
    for value, expected in ((np.nan, np.nan), (2.0, 2 - 2.0**-13)):  # and out of a NaN again
        with pycnn.no_grad():
            p[0] = value
        give(params, [np.ones(3)], 1.0)
        optimizer.step()
        assert np.array_equal(optimizer.state[p]["master"][0], np.float32(expected), equal_nan=True)


def test_a_model_in_16_bits_trains(low: np.dtype[Any]) -> None:
    pycnn.manual_seed(1)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).to(low)
    x, t = normal(30, 8, dtype=low), np.arange(30) % 3
    optimizer, scaler = optim.AdamW(net.parameters(), lr=0.02), amp.GradScaler(init_scale=128.0)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(net(x).to(np.float32), t)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert all(p.grad.dtype == np.float32 for p in net.parameters())  # type: ignore[union-attr]
        optim.clip_grad_norm_(net.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(p.dtype == low for p in net.parameters())


def test_the_norm_of_16_bit_gradients_is_summed_in_double(low: np.dtype[Any]) -> None:
    params, _ = of([np.ones(3000), np.ones(5)], low)
    give(params, [np.full(3000, 30.0), np.zeros(5)], 1.0)  # squares that add up to more than float16 holds
    assert optim.clip_grad_norm_(params, 1e9) == pytest.approx(30 * 3000**0.5, rel=1e-6)
    for power in (1.0, 3.0):
        assert optim.clip_grad_norm_(params, 1e9, power) == pytest.approx(30 * 3000 ** (1 / power), rel=1e-6)


# ----------------------------------------------------------------------------------------------------- a whole network


def trained(dtype: str | None, steps: int = 40) -> list[float]:
    """The losses of a small network on a task that it learns."""
    pycnn.manual_seed(3)
    net = Cnn()
    rng = np.random.default_rng(4)
    t = np.arange(40) % 5
    x = rng.standard_normal((40, 1, 8, 8), np.float32)
    x[np.arange(40), 0, t, t] += 4.0
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    scaler = amp.GradScaler(enabled=dtype == "float16", growth_interval=10)
    losses = []
    for _ in range(steps):
        with amp.autocast(dtype or "float16", enabled=dtype is not None):
            loss = F.cross_entropy(net(Tensor(x)), t)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses


def test_the_loss_falls_as_in_float32(low: np.dtype[Any]) -> None:
    single, mixed = trained(None), trained(str(low))
    assert single[-1] < 0.1 < 1.0 < single[0]
    assert mixed[0] == pytest.approx(single[0], rel=2.0**-6)  # before a step, a few roundings to 8 bits
    assert mixed[-1] < 0.1
    # Where the loss is first below a half: a skipped step or two, and noise, may put it off a little.
    first = [next(i for i, loss in enumerate(losses) if loss < 0.5) for losses in (single, mixed)]
    assert abs(first[0] - first[1]) <= 6
