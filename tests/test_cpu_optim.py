"""The engine's optimiser steps: the bits of the same equations in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cpu_engine import ISAS

import pycnn
from pycnn import _cpu, nn, optim
from pycnn.backends.cpu import optim as steps
from pycnn.tensor import Tensor

# Scalars, tails of a vector, an empty one in the middle, one that ends where a task of 16,384 elements does, one that
# spans several tasks.
SHAPES: list[tuple[int, ...]] = [(), (7,), (3, 0), (16376,), (64, 3, 3, 3), (33, 1001), (16,), (1,)]
SPECIAL = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-45, 1e-40, 3e38]

RULES: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    (optim.SGD, {"lr": 0.1}),
    (optim.SGD, {"lr": 0.1, "weight_decay": 0.02}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    (optim.Adam, {"lr": 0.1}),
    (optim.Adam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.02}),
    (optim.Adam, {"lr": 0.1, "betas": (0.0, 0.0)}),
    (optim.AdamW, {"lr": 0.1, "weight_decay": 0.2}),
]
each_rule = pytest.mark.parametrize(("kind", "options"), RULES)


@pytest.fixture(params=[(isa, threads) for isa in ISAS for threads in (1, 2, 3)], ids=str)
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    isa, threads = request.param
    before = _cpu.num_threads()
    _cpu.set_isa(isa)
    _cpu.set_num_threads(threads)
    yield
    _cpu.set_isa("auto")
    _cpu.set_num_threads(before)


def arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    made[-3].reshape(-1)[: len(SPECIAL)] = np.roll(np.array(SPECIAL, np.float32), seed)
    return made


def trained(kind: type[optim.Optimizer], options: dict[str, Any], backend: str) -> list[np.ndarray]:
    """All that four steps leave behind; one parameter joins at the third."""
    params = [nn.Parameter(array) for array in arrays(0)]
    optimizer = kind(params, **options)
    with pycnn.use_backend(backend), np.errstate(all="ignore"):
        for step in range(4):
            for i, (param, grad) in enumerate(zip(params, arrays(1 + step), strict=True)):
                param.grad = None if i == 1 and step < 2 else Tensor(grad)
            optimizer.step()
    kept = [value for param in params for value in optimizer.state[param].values() if isinstance(value, np.ndarray)]
    return [param.data for param in params] + kept


@each_rule
@pytest.mark.usefixtures("engine")
def test_steps_have_the_bits_of_the_equations_in_numpy(
    kind: type[optim.Optimizer], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(kind, options, "reference")
    calls = []
    name = "sgd_step" if kind is optim.SGD else "adam_step"
    kernel = getattr(steps, name)
    monkeypatch.setattr(steps, name, lambda *args, **kwargs: (calls.append(len(args[0])), kernel(*args, **kwargs)))
    found = trained(kind, options, "cpu")
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(np.signbit(ours), np.signbit(theirs))  # of zeros too
    # One call for all parameters, and one for the late comer, which is at a step of its own.
    late = "momentum" in options or kind is not optim.SGD
    assert len(calls) == 4 + (late and (1 if kind is optim.SGD else 2))
    assert sum(calls) == 4 * len(SHAPES) - 2


@each_rule
def test_gradients_may_have_any_layout_and_are_only_read(kind: type[optim.Optimizer], options: dict[str, Any]) -> None:
    start, given = np.ones((40, 50), np.float32), np.linspace(-1, 1, 2000, dtype=np.float32).reshape(50, 40)
    given.flags.writeable = False
    found = []
    for grad in (given.T, given.T.copy()):
        param = nn.Parameter(start.copy())
        param.grad = Tensor(grad)
        kind([param], **options).step()
        found.append(param.data)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_other_parameters_are_stepped_by_numpy(kind: type[optim.Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "sgd_step", None)  # not to be called
    monkeypatch.setattr(steps, "adam_step", None)
    wide, strided = nn.Parameter(np.ones(5)), nn.Parameter(np.ones((4, 6), np.float32).T)
    for param in (wide, strided):
        param.grad = Tensor(np.ones_like(param.data))
    kind([wide, strided], lr=0.5).step()
    assert (wide.data < 1).all()
    assert (strided.data < 1).all()


def test_a_rule_of_ones_own_needs_only_its_equation() -> None:
    class Sign(optim.Optimizer):
        def _update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
            p -= np.float32(group["lr"]) * np.sign(g)

    param = nn.Parameter(np.zeros(3, np.float32))
    param.grad = Tensor(np.array([-2.0, 0.0, 5.0], np.float32))
    Sign([param], {"lr": 0.5}).step()
    np.testing.assert_array_equal(param.data, np.array([0.5, 0.0, -0.5], np.float32))


def test_nothing_is_changed_if_an_array_cannot_be() -> None:
    params = [np.ones(3, np.float32), np.ones(4, np.float32)]
    params[1].flags.writeable = False
    settings: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="writeable"):
        steps.sgd_step(params, [p.copy() for p in params], None, **settings, nesterov=False, first=False)
    with pytest.raises(ValueError, match="shapes"):
        steps.sgd_step(params[:1], params[1:], None, **settings, nesterov=False, first=False)
    np.testing.assert_array_equal(params[0], np.ones(3))


@pytest.mark.parametrize("make", [lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), lambda ps: optim.Adam(ps, lr=0.1)])
def test_a_refused_step_leaves_the_optimiser_as_it_was(make: Any) -> None:
    def parameters() -> list[Any]:
        made = [nn.Parameter(np.ones((3, 4), np.float32)) for _ in range(3)]
        for parameter in made:
            parameter.grad = Tensor(np.ones((3, 4), np.float32))
        return made

    refused, plain = parameters(), parameters()
    one, other = make(refused), make(plain)
    refused[2]._data.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        one.step()
    refused[2]._data.flags.writeable = True
    for _ in range(2):
        one.step()
        other.step()
    for found, expected in zip(refused, plain, strict=True):
        np.testing.assert_array_equal(found.data, expected.data)


def test_parameters_that_share_memory_are_stepped_one_after_the_other() -> None:
    base = np.zeros(1 << 18, np.float32)
    shared = [nn.Parameter(base), nn.Parameter(np.zeros(5, np.float32)), nn.Parameter(base), nn.Parameter(base[7:])]
    for parameter in shared:
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    for _ in range(10):
        optim.SGD(shared, lr=1.0).step()
    np.testing.assert_array_equal(base[:7], -20)
    np.testing.assert_array_equal(base[7:], -30)
    np.testing.assert_array_equal(shared[1].data, -10)
