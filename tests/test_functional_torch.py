"""Functions and both their gradients against torch's, on random configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensors import normal

from pycnn import Tensor, autograd
from pycnn import functional as F

# Sums of at most a few hundred float64 terms in another order than torch's: some 1e-14 of the largest term.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


pytestmark = pytest.mark.usefixtures("on_reference")


def same_as_torch(ours: Callable[..., Any], theirs: Callable[..., Any], *arrays: np.ndarray) -> None:
    """Outputs, gradients, and the gradients of a function of the gradients, on the same arrays."""
    torch = pytest.importorskip("torch")
    mine = [Tensor(array, requires_grad=True) for array in arrays]
    other = [torch.tensor(array, requires_grad=True) for array in arrays]
    y, t = ours(*mine), theirs(*other)
    assert y.shape == tuple(t.shape)
    np.testing.assert_allclose(y.data, t.detach().numpy(), **TOLERANCE)
    dy = np.random.default_rng(5).standard_normal(y.shape)
    found = autograd.grad(y, mine, Tensor(dy), create_graph=True)
    expected = torch.autograd.grad(t, other, torch.tensor(dy), create_graph=True)
    for g, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(g.data, e.detach().numpy(), **TOLERANCE)
    second = [g for g in found if g.requires_grad]
    if not second or not any(e.requires_grad for e in expected):
        return
    ours2 = autograd.grad([(g * g).sum() for g in second], mine, allow_unused=True)
    theirs2 = torch.autograd.grad([(e * e).sum() for e in expected if e.requires_grad], other, allow_unused=True)
    for g, e in zip(ours2, theirs2, strict=True):
        zero = np.zeros(1)
        np.testing.assert_allclose(zero if g is None else g.data, zero if e is None else e.numpy(), **TOLERANCE)


def configurations(count: int) -> Any:
    return pytest.mark.parametrize("seed", range(count))


def pick(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


@configurations(40)
def test_conv2d_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    groups = pick(rng, 1, 1, 2, 3)
    r, s = (int(k) for k in rng.integers(1, 4, 2))
    stride = pick(rng, 1, 2, (1, 2), (3, 1))
    dilation = pick(rng, 1, 1, 2, (1, 2))
    padding = pick(rng, 0, 1, (0, 2), "valid", "same" if stride == 1 else 2)
    x = rng.standard_normal((pick(rng, 1, 2), groups * pick(rng, 1, 2), *rng.integers(5, 9, 2)))
    w = rng.standard_normal((groups * pick(rng, 1, 2), x.shape[1] // groups, r, s))
    arrays = [x, w] + ([rng.standard_normal(w.shape[0])] if rng.integers(2) else [])
    how = (stride, padding, dilation, groups)
    same_as_torch(
        lambda x, w, b=None: F.conv2d(x, w, b, *how),
        lambda x, w, b=None: torch.nn.functional.conv2d(x, w, b, *how),
        *arrays,
    )


@configurations(30)
def test_conv_transpose2d_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    groups = pick(rng, 1, 1, 2)
    stride = pick(rng, 1, 2, (1, 2), (3, 1))
    dilation = pick(rng, 1, 2, (2, 1))
    steps = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    extra = tuple(int(rng.integers(max(steps[0][i], steps[1][i]))) for i in range(2))
    padding = pick(rng, 0, 1, (1, 0))
    x = rng.standard_normal((pick(rng, 1, 2), groups * pick(rng, 1, 2), *rng.integers(3, 6, 2)))
    w = rng.standard_normal((x.shape[1], pick(rng, 1, 2), *rng.integers(1, 4, 2)))
    arrays = [x, w] + ([rng.standard_normal(w.shape[1] * groups)] if rng.integers(2) else [])
    how = (stride, padding, extra, groups, dilation)
    same_as_torch(
        lambda x, w, b=None: F.conv_transpose2d(x, w, b, *how),
        lambda x, w, b=None: torch.nn.functional.conv_transpose2d(x, w, b, *how),
        *arrays,
    )


@configurations(30)
def test_max_pool2d_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    kernel = pick(rng, 2, 3, (3, 2))
    how = (kernel, pick(rng, None, 1, (2, 3)), pick(rng, 0, 1, (1, 0)), pick(rng, 1, 2), bool(rng.integers(2)))
    x = rng.integers(0, 5, (2, 2, *rng.integers(6, 10, 2))).astype(float)  # ties: the first must win
    same_as_torch(lambda x: F.max_pool2d(x, *how), lambda x: torch.nn.functional.max_pool2d(x, *how), x)
    y, indices = F.max_pool2d(x, *how, return_indices=True)
    t, expected = torch.nn.functional.max_pool2d(torch.tensor(x), *how, return_indices=True)
    assert np.array_equal(indices, expected.numpy())
    assert np.array_equal(y, t.numpy())


@configurations(30)
def test_avg_pool2d_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    how = (
        pick(rng, 2, 3, (3, 2)),
        pick(rng, None, 1, (2, 3)),
        pick(rng, 0, 1, (1, 0)),
        bool(rng.integers(2)),
        bool(rng.integers(2)),
        pick(rng, None, None, 7),
    )
    x = rng.standard_normal((2, 2, *rng.integers(6, 10, 2)))
    same_as_torch(lambda x: F.avg_pool2d(x, *how), lambda x: torch.nn.functional.avg_pool2d(x, *how), x)


@configurations(10)
def test_adaptive_pools_are_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    size = pick(rng, 1, 3, (2, 5), (None, 2), (7, 1))
    x = rng.permutation(2 * 7 * 6).reshape(1, 2, 7, 6).astype(float)
    same_as_torch(
        lambda x: F.adaptive_avg_pool2d(x, size), lambda x: torch.nn.functional.adaptive_avg_pool2d(x, size), x
    )
    same_as_torch(
        lambda x: F.adaptive_max_pool2d(x, size), lambda x: torch.nn.functional.adaptive_max_pool2d(x, size), x
    )


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activations_are_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((3, 4)) * 3
    x[0, 0] = 0.0
    same_as_torch(getattr(F, name), getattr(torch, name), x)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_is_torchs(dim: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((3, 4, 2)) * 30
    same_as_torch(lambda x: F.softmax(x, dim), lambda x: torch.softmax(x, dim), x)
    same_as_torch(lambda x: F.log_softmax(x, dim), lambda x: torch.log_softmax(x, dim), x)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (0, 3)])
def test_linear_is_torchs(shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape), rng.standard_normal((5, 3)), rng.standard_normal(5)]
    same_as_torch(F.linear, torch.nn.functional.linear, *arrays)


@configurations(12)
def test_batch_norm_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(pick(rng, (6, 3), (3, 3, 4), (2, 3, 4, 5))) * 3 + 1
    affine = [rng.standard_normal(3), rng.standard_normal(3)] if rng.integers(2) else []
    momentum, eps, training = pick(rng, 0.1, 0.7, 1.0), pick(rng, 1e-5, 1e-2), bool(seed % 3)
    ours = [Tensor(np.full(3, 0.5)), Tensor(np.full(3, 2.0))]
    theirs = [torch.full((3,), 0.5, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64)]
    with autograd.no_grad():  # not in same_as_torch, which may call no function twice: statistics move
        F.batch_norm(Tensor(x), *ours, training=training, momentum=momentum, eps=eps)
        torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=training, momentum=momentum, eps=eps)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.data, other.numpy(), **TOLERANCE)
    same_as_torch(
        lambda x, w=None, b=None: F.batch_norm(x, *ours, w, b, training, momentum, eps),
        lambda x, w=None, b=None: torch.nn.functional.batch_norm(x, *theirs, w, b, training, momentum, eps),
        x,
        *affine,
    )


@configurations(8)
def test_local_response_norm_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    how = (int(rng.integers(1, 7)), pick(rng, 1e-4, 2.0), pick(rng, 0.75, 0.5, 2.0), pick(rng, 1.0, 2.0))
    x = rng.standard_normal((2, 5, *rng.integers(2, 4, 2)))
    same_as_torch(
        lambda x: F.local_response_norm(x, *how), lambda x: torch.nn.functional.local_response_norm(x, *how), x
    )


@configurations(40)
def test_cross_entropy_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    shape = pick(rng, (4, 5), (2, 5, 3), (2, 5, 2, 2), (5,))
    x = rng.standard_normal(shape) * 3
    options: dict[str, Any] = {"reduction": pick(rng, "mean", "sum", "none")}
    if rng.integers(2):
        options["label_smoothing"] = 0.3
    weight = rng.uniform(0.5, 2, 5) if rng.integers(2) else None
    axis = 1 if len(shape) > 1 else 0
    if rng.integers(3) == 0:
        target = rng.uniform(0, 1, shape)
        arrays, targets = [x, target], None
    else:
        targets = rng.integers(0, 5, shape[:axis] + shape[axis + 1 :])
        if len(shape) > 1:
            targets.flat[0] = pick(rng, 0, -100)
        arrays = [x]
    torch_weight = None if weight is None else torch.tensor(weight)
    same_as_torch(
        lambda x, t=targets: F.cross_entropy(x, t, weight, **options),
        lambda x, t=None: torch.nn.functional.cross_entropy(
            x, torch.tensor(targets) if t is None else t, torch_weight, **options
        ),
        *arrays,
    )


@configurations(12)
def test_nll_loss_is_torchs(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    shape = pick(rng, (4, 5), (2, 5, 3), (5,))
    x, weight = rng.standard_normal(shape), rng.uniform(0.5, 2, 5)
    target = np.asarray(rng.integers(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ()))
    reduction, ignore = pick(rng, "mean", "sum", "none"), pick(rng, -100, 3) if len(shape) > 1 else -100
    if ignore == 3:
        target.flat[0] = 2
    same_as_torch(
        lambda x: F.nll_loss(x, target, weight, ignore, reduction),
        lambda x: torch.nn.functional.nll_loss(
            x, torch.tensor(target), torch.tensor(weight), ignore_index=ignore, reduction=reduction
        ),
        x,
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss_is_torchs(reduction: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    same_as_torch(
        lambda a, b: F.mse_loss(a, b, reduction),
        lambda a, b: torch.nn.functional.mse_loss(a, b, reduction=reduction),
        rng.standard_normal((3, 2)),
        rng.standard_normal((3, 2)),
    )


@pytest.mark.parametrize(
    ("sides", "mode"),
    [
        ((1, 2), "constant"),
        ((1, 2, 0, 3), "constant"),
        ((-1, 2, 1, -2), "constant"),
        ((2, 1, 1, 2), "reflect"),
        ((3, 1, 5, 0), "replicate"),
        ((2, 3, 1, 0), "circular"),
    ],
)
def test_pad_is_torchs(sides: tuple[int, ...], mode: str) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 5))
    same_as_torch(lambda x: F.pad(x, sides, mode), lambda x: torch.nn.functional.pad(x, sides, mode), x)


def test_one_image_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    t, x, w, b = torch.nn.functional, *(normal(*size, seed=2).data for size in ((4, 5, 6), (6, 2, 3, 3), (6,)))
    same_as_torch(lambda *a: F.conv2d(*a, 2, 1, 1, 2), lambda *a: t.conv2d(*a, 2, 1, 1, 2), x, w, b)
    v = normal(4, 3, 3, 2).data
    same_as_torch(lambda *a: F.conv_transpose2d(*a, 2, 1, 1, 2), lambda *a: t.conv_transpose2d(*a, 2, 1, 1, 2), x, v, b)
    same_as_torch(lambda x: F.max_pool2d(x, 2), lambda x: t.max_pool2d(x, 2), x)
    same_as_torch(lambda x: F.avg_pool2d(x, 2), lambda x: t.avg_pool2d(x, 2), x)
    same_as_torch(lambda x: F.adaptive_avg_pool2d(x, 3), lambda x: t.adaptive_avg_pool2d(x, 3), x)
    same_as_torch(lambda x: F.adaptive_max_pool2d(x, 3), lambda x: t.adaptive_max_pool2d(x, 3), x)
    for pool in ("max_pool2d", "adaptive_max_pool2d"):
        ours = getattr(F, pool)(x, 2, return_indices=True)
        theirs = getattr(t, pool)(torch.tensor(x), 2, return_indices=True)
        assert all(np.array_equal(one, other.numpy()) for one, other in zip(ours, theirs, strict=True))
    assert isinstance(F.max_pool2d(torch.tensor(x), 2), torch.Tensor)
