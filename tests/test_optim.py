"""Optimisers, schedules and clipping against torch, in float64."""

import copy
import math

import numpy as np
import pytest

import pycnn
from pycnn import nn, optim
from pycnn.optim.optimizer import BLOCK
from pycnn.tensor import Tensor

SHAPES = [(3, 4), (5,), (), (2, 3, 2, 2)]
STEPS = 20


def gradients(shape, step):
    return np.random.default_rng((step, len(shape), *shape)).normal(size=shape)


def parameters(shapes=SHAPES):
    return [nn.Parameter(gradients(shape, 999)) for shape in shapes]


def both(torch, name, **settings):
    """The parameters after each of 20 steps, ours and torch's, in two groups with learning rates of their own."""
    ours, theirs = parameters(), [torch.nn.Parameter(torch.tensor(gradients(shape, 999))) for shape in SHAPES]
    groups = [{"params": ps, **({"lr": 0.03} if i else {})} for i, ps in enumerate((ours[:2], ours[2:]))]
    their_groups = [{"params": ps, **({"lr": 0.03} if i else {})} for i, ps in enumerate((theirs[:2], theirs[2:]))]
    optimizer = getattr(optim, name)(groups, **settings)
    their_optimizer = getattr(torch.optim, name)(their_groups, foreach=False, **settings)
    for step in range(STEPS):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            absent = i == 1 and step < 3  # a parameter that joins late
            g = None if absent else gradients(p.shape, step)
            p.grad = None if absent else Tensor(g)
            q.grad = None if absent else torch.tensor(g)
        optimizer.step()
        their_optimizer.step()
        yield ours, theirs


RULES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02}),
    ("Adam", {"lr": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.02}),
    ("AdamW", {"lr": 0.1}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.2}),
]


@pytest.mark.parametrize(("name", "settings"), RULES)
def test_twenty_steps_equal_torch(name, settings):
    torch = pytest.importorskip("torch")
    for ours, theirs in both(torch, name, **settings):
        for p, q in zip(ours, theirs, strict=True):
            # Twenty steps of about ten operations each; torch fuses some multiply-adds, which rounds once less.
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("name", "settings"), RULES)
def test_blocks_give_what_whole_arrays_give(name, settings):
    size = 2 * BLOCK + 77
    whole = nn.Parameter(np.linspace(-1, 1, size))
    parts = [nn.Parameter(part.copy()) for part in np.split(whole.data, [100, BLOCK, 2 * BLOCK])]
    strided = nn.Parameter(np.repeat(whole.data, 2)[::2])
    rules = [getattr(optim, name)(ps, **settings) for ps in ([whole], parts, [strided])]
    for step in range(3):
        g = gradients((size,), step)
        whole.grad, strided.grad = Tensor(g), Tensor(g.copy())
        for part, piece in zip(parts, np.split(g, [100, BLOCK, 2 * BLOCK]), strict=True):
            part.grad = Tensor(piece)
        for rule in rules:
            rule.step()
    np.testing.assert_array_equal(whole.data, np.concatenate([part.data for part in parts]))
    np.testing.assert_array_equal(whole.data, strided.data)
    np.testing.assert_array_equal(whole.grad.data, g)  # the gradient is read, not written


@pytest.mark.parametrize(("name", "settings"), RULES)
def test_a_restored_optimiser_goes_on_alike(name, settings):
    first = parameters()
    rule = getattr(optim, name)(first, **settings)

    def run(ps, optimizer, steps):
        for step in steps:
            for p in ps:
                p.grad = Tensor(gradients(p.shape, step))
            optimizer.step()

    run(first, rule, range(5))
    second = [nn.Parameter(p.data.copy()) for p in first]
    other = getattr(optim, name)(second, **{**settings, "lr": 77.0})
    other.load_state_dict(copy.deepcopy(rule.state_dict()))
    run(first, rule, range(5, 9))
    run(second, other, range(5, 9))
    for p, q in zip(first, second, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_float32_stays_float32_and_the_version_rises():
    p = nn.Parameter(np.ones(3, np.float32))
    p.grad = Tensor(np.ones(3, np.float32))
    rule = optim.Adam([p], lr=np.float64(0.1))
    version = p.version
    rule.step()
    assert p.dtype == np.float32
    assert {str(array.dtype) for array in rule.state[p].values() if hasattr(array, "dtype")} == {"float32"}
    assert p.version == version + 1


def test_a_step_between_forward_and_backward_is_caught():
    p = nn.Parameter(np.ones(3))
    y = (p * p).sum()
    p.grad = Tensor(np.ones(3))
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_closure_and_zero_grad():
    p = nn.Parameter(np.ones(3))
    rule = optim.SGD([p], lr=0.5)

    def closure():
        rule.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    assert rule.step(closure).item() == 3
    np.testing.assert_array_equal(p.data, np.zeros(3))
    rule.zero_grad()
    assert p.grad is None


def test_bad_arguments_are_named():
    p = nn.Parameter(np.ones(3))
    for bad, message in (
        ({"lr": -1}, "lr must be at least 0, got -1"),
        ({"lr": math.nan}, "lr must be at least 0, got nan"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"nesterov": True}, "nesterov needs a momentum"),
    ):
        with pytest.raises(ValueError, match=message):
            optim.SGD([p], **bad)
    with pytest.raises(ValueError, match="betas must be two numbers"):
        optim.Adam([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="params is empty"):
        optim.SGD([])
    with pytest.raises(ValueError, match="is given twice"):
        optim.SGD([p, p])
    with pytest.raises(TypeError, match="takes Tensors, got ndarray"):
        optim.SGD([np.ones(3)])
    with pytest.raises(TypeError, match="got a single Tensor"):
        optim.SGD(p)
    rule = optim.SGD([p], momentum=0.9)
    with pytest.raises(ValueError, match=r"groups of \[2\] parameters, this one of \[1\]"):
        rule.load_state_dict(optim.SGD(parameters()[:2]).state_dict())
    p.grad = Tensor(np.ones(3))
    rule.step()
    state = rule.state_dict()
    state["state"][0]["momentum_buffer"] = np.ones(4)
    with pytest.raises(ValueError, match=r"momentum_buffer has shape \(4,\), its parameter \(3,\)"):
        rule.load_state_dict(state)


SCHEDULES = [
    ("StepLR", {"step_size": 4, "gamma": 0.3}),
    ("MultiStepLR", {"milestones": [3, 9, 9, 12], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("CosineAnnealingLR", {"T_max": 15, "eta_min": 0.01}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.9, "total_iters": 7}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.9**epoch + 0.01 * epoch}),
]


def rule_of(library, make):
    return library.SGD([{"params": [make()]}, {"params": [make()], "lr": 0.7}], lr=0.1)


@pytest.mark.parametrize(("name", "settings"), SCHEDULES)
def test_schedules_equal_torch(name, settings):
    torch = pytest.importorskip("torch")
    rule = rule_of(optim, lambda: nn.Parameter(np.ones(1)))
    their_rule = rule_of(torch.optim, lambda: torch.nn.Parameter(torch.ones(1)))
    schedule = getattr(optim, name)(rule, **settings)
    theirs = getattr(torch.optim.lr_scheduler, name)(their_rule, **settings)
    for _ in range(25):
        # torch reaches a rate by one multiplication after another, here it is a closed form: a rounding a step.
        assert schedule.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12, abs=1e-15)
        their_rule.step()
        theirs.step()
        schedule.step()


def test_warm_up_then_cosine_equals_torch():
    torch = pytest.importorskip("torch")

    def build(library, rule):
        parts = [library.LinearLR(rule, 0.1, total_iters=5), library.CosineAnnealingLR(rule, 20)]
        return library.SequentialLR(rule, parts, [5])

    rule = rule_of(optim, lambda: nn.Parameter(np.ones(1)))
    their_rule = rule_of(torch.optim, lambda: torch.nn.Parameter(torch.ones(1)))
    schedule, theirs = build(optim.lr_scheduler, rule), build(torch.optim.lr_scheduler, their_rule)
    for _ in range(24):
        assert schedule.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-12)  # as above
        their_rule.step()
        theirs.step()
        schedule.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_equals_torch(mode, threshold_mode):
    torch = pytest.importorskip("torch")
    settings = {
        **{"mode": mode, "threshold_mode": threshold_mode, "threshold": 0.05},
        **{"factor": 0.5, "patience": 2, "cooldown": 1, "min_lr": 0.02},
    }
    rule = rule_of(optim, lambda: nn.Parameter(np.ones(1)))
    their_rule = rule_of(torch.optim, lambda: torch.nn.Parameter(torch.ones(1)))
    schedule = optim.ReduceLROnPlateau(rule, **settings)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(their_rule, **settings)
    metrics = np.abs(np.random.default_rng(0).normal(1, 0.2, 60)).cumsum() ** (-0.2 if mode == "min" else 0.2)
    metrics[7] = np.nan
    for metric in metrics:
        schedule.step(metric)
        theirs.step(metric)
        assert schedule.get_last_lr() == [group["lr"] for group in their_rule.param_groups]
    assert schedule.get_last_lr()[0] < 0.1


@pytest.mark.parametrize(("name", "settings"), SCHEDULES)
def test_a_restored_schedule_goes_on_alike(name, settings):
    rule = rule_of(optim, lambda: nn.Parameter(np.ones(1)))
    schedule = getattr(optim, name)(rule, **settings)
    for _ in range(6):
        schedule.step()
    other_rule = rule_of(optim, lambda: nn.Parameter(np.ones(1)))
    other = getattr(optim, name)(other_rule, **settings)
    other.load_state_dict(schedule.state_dict())
    for _ in range(6):
        assert other.get_last_lr() == schedule.get_last_lr()
        schedule.step()
        other.step()


def clipped():
    ps = parameters([(3, 4), (5,), (BLOCK + 9,)])
    for p in ps:
        p.grad = Tensor(gradients(p.shape, 1))
    return [*ps, nn.Parameter(np.ones(2))]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clip_grad_norm_equals_torch(norm_type, max_norm):
    torch = pytest.importorskip("torch")
    ours, theirs = clipped(), []
    for p in ours:
        q = torch.nn.Parameter(torch.tensor(p.data))
        q.grad = None if p.grad is None else torch.tensor(p.grad.data)
        theirs.append(q)
    norm = optim.clip_grad_norm_(ours, max_norm, norm_type)
    # sums of 16,000 numbers in another order
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).item(), rel=1e-12)
    for p, q in zip(ours[:-1], theirs, strict=False):
        np.testing.assert_allclose(p.grad.data, q.grad.numpy(), rtol=1e-12)


def test_clip_grad_norm_refuses_what_is_not_finite():
    p = nn.Parameter(np.ones(2))
    p.grad = Tensor(np.array([np.inf, 1.0]))
    with pytest.raises(RuntimeError, match="norm is inf"):
        optim.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(p.grad.data, [np.inf, 1.0])
    with pytest.raises(ValueError, match="norm_type must be above 0"):
        optim.clip_grad_norm_(p, 1.0, 0.0)


def test_clip_grad_value():
    p = nn.Parameter(np.ones(4))
    p.grad = Tensor(np.array([-3.0, 0.5, np.nan, 9.0]))
    optim.clip_grad_value_(p, 2.0)
    np.testing.assert_array_equal(p.grad.data, [-2, 0.5, np.nan, 2])


def test_clipping_is_noticed_by_autograd():
    p = nn.Parameter(np.ones(2))
    p.grad = Tensor(np.full(2, 3.0))
    version = p.grad.version
    optim.clip_grad_norm_([p], 1.0)
    optim.clip_grad_value_([p], 0.1)
    assert p.grad.version == version + 2
    assert pycnn.is_grad_enabled()
