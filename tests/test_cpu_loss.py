"""Negative log-likelihood: the engine against the reference, and what both refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cpu_engine import DTYPES, check, close

import pycnn
import pycnn.functional as F
from pycnn import _cpu, ops
from pycnn.backends import cpu, reference

# Around a task of 8192 targets; no trailing axes, one, two; nothing at all.
SHAPES = [(1, 1), (4, 10), (3, 5, 7), (2, 21, 9, 11), (8192, 2), (8193, 3), (2, 3, 91, 93), (0, 4), (2, 3, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_nll_equals_reference(weighted: bool, reduction: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.normal(size=shape).astype(dtype)
        target = rng.integers(-1, shape[1], (shape[0], *shape[2:]))  # -1 is ignored
        weight = rng.uniform(0.5, 2, shape[1]).astype(dtype) if weighted else None
        wide = None if weight is None else weight.astype(np.float64)
        (y,) = check(lambda x, t, w: cpu.nll_fwd(x, t, w, -1, reduction), x, target, weight)
        # Sums in double, which round once in float32 and with every term in float64; terms are at most some 10 in size.
        count = max(1, target.size)
        scale = 10.0 if reduction != "sum" else 10.0 * count**0.5
        roundings = 4 if dtype == np.float32 or reduction == "none" else 4 + count
        close(y, reference.nll_fwd(x.astype(np.float64), target, wide, -1, reduction), roundings, scale=scale)
        dy = rng.normal(size=y.shape).astype(dtype)
        (dx,) = check(lambda dy, t, w, s=shape: cpu.nll_bwd(dy, t, w, s, -1, reduction), dy, target, weight)
        expected = reference.nll_bwd(dy.astype(np.float64), target, wide, shape, -1, reduction)
        close(dx, expected, roundings)  # those of the sum of the weights, by which it is divided


@pytest.mark.parametrize("weighted", [False, True])
def test_nll_agrees_with_torch(weighted: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for shape in ((4, 5), (2, 5, 3), (3, 5, 2, 2)):
        x = rng.normal(size=shape)
        target = rng.integers(0, 5, (shape[0], *shape[2:]))
        target.flat[1] = 3
        weight = rng.uniform(0.5, 2, 5) if weighted else None
        for reduction in ("mean", "sum", "none"):
            found = ops.nll(x, target, weight, 3, reduction)
            arguments = [None if one is None else torch.from_numpy(one) for one in (x, target, weight)]
            expected = torch.nn.functional.nll_loss(*arguments, ignore_index=3, reduction=reduction)
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)


def test_ignored_scores_may_be_anything() -> None:
    x = np.array([[np.nan, np.inf], [-1.0, -2.0]])
    for backend in ("cpu", "reference"):
        with pycnn.use_backend(backend):
            assert ops.nll(x, np.array([-100, 1])) == 2
            assert np.isnan(ops.nll(x, np.array([-100, -100])))
            dx = ops.nll_backward(np.array(np.nan), np.array([-100, -100]), None, x.shape)
            np.testing.assert_array_equal(dx, np.zeros((2, 2)))


@pytest.mark.parametrize("bad", [-1, 3, 2**40])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_target_that_is_no_class_is_named(backend: str, bad: int) -> None:
    target = np.zeros(9000, np.int64)
    target[8999] = bad
    x = np.zeros((9000, 3))
    with pycnn.use_backend(backend):
        for reduction in ("mean", "none"):
            message = f"target holds the class {bad}, but there are classes 0 to 2"
            with pytest.raises(IndexError, match=message):
                ops.nll(x, target, reduction=reduction)
            dy = np.ones(9000 if reduction == "none" else ())
            with pytest.raises(IndexError, match=message):
                ops.nll_backward(dy, target, None, x.shape, reduction=reduction)
            with pytest.raises(IndexError, match=message):
                F.nll_loss(x, target, reduction=reduction)


X, T = np.zeros((2, 3, 4)), np.zeros((2, 4), np.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.nll(X[0, 0], T), ValueError, "x must have at least 2 dimensions"),
        (lambda: ops.nll(X, T[:1]), ValueError, r"target must have shape \(2, 4\) for an input of"),
        (lambda: ops.nll(X, T * 1.0), TypeError, "target must be an array of integers"),
        (lambda: ops.nll(X, T, np.ones(2)), ValueError, "weight must have one value a class"),
        (lambda: ops.nll(X, T, None, 0.5), TypeError, "ignore_index must be an int"),
        (lambda: ops.nll(X, T, None, 0, "average"), ValueError, "reduction must be mean, sum or none"),
        (lambda: ops.nll_backward(np.ones(2), T, None, X.shape), ValueError, "dy must have the loss's shape"),
        (lambda: _cpu.nll_fwd(X, T[:1].copy(), None, 0, "sum"), ValueError, "target must be"),
        (lambda: _cpu.nll_fwd(X, T, np.ones(2), 0, "sum"), ValueError, "weight must have"),
        (lambda: _cpu.nll_fwd(X, T, None, 0, "product"), ValueError, "reduction must be"),
        (lambda: _cpu.nll_bwd(np.ones(3), T, None, X.shape, 0, "none"), ValueError, "dy must have"),
        (lambda: _cpu.nll_bwd(np.ones(()), T, None, (2, -3, 4), 0, "sum"), ValueError, "target must be"),
    ],
)
def test_bad_arguments_raise(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_target_changed_before_the_way_back_is_noticed() -> None:
    scores, target = pycnn.Tensor(np.zeros((2, 3)), requires_grad=True), pycnn.Tensor(np.array([0, 1]))
    loss = F.cross_entropy(scores, target)
    target[0] = 2
    with pytest.raises(RuntimeError, match="Nll saved for its backward was changed in place"):
        loss.backward()
