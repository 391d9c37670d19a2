"""The losses and distances against PyTorch: random settings, values, gradients and the gradients of these; refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional

Rng = np.random.Generator


def cases(count: int = 40) -> Iterator[Rng]:
    for seed in range(count):
        yield np.random.default_rng(seed)


class Drawn(NamedTuple):
    """Arrays to differentiate by, arrays that are constants, and settings by name."""

    arrays: list[np.ndarray]
    constants: list[Any]
    settings: dict[str, Any]


def shape_of(rng: Rng, least: int = 1) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(1, 6, int(rng.integers(least, 4))))


def reduction(rng: Rng) -> dict[str, Any]:
    return {"reduction": str(rng.choice(["mean", "sum", "none"]))} if rng.random() < 0.8 else {}


def maybe(rng: Rng, name: str, value: Any) -> dict[str, Any]:
    return {name: value} if rng.random() < 0.6 else {}


def signs(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape)


def two(rng: Rng, settings: dict[str, Any]) -> Drawn:
    shape = shape_of(rng)
    return Drawn([rng.normal(scale=2, size=shape), rng.normal(scale=2, size=shape)], [], settings)


def signed(rng: Rng, settings: dict[str, Any]) -> Drawn:
    shape = shape_of(rng)
    return Drawn([rng.normal(scale=2, size=shape)], [signs(rng, shape)], settings)


def probabilities(rng: Rng) -> Drawn:
    shape = shape_of(rng)
    settings = reduction(rng) | maybe(rng, "weight", rng.uniform(0, 2, shape))
    return Drawn([rng.uniform(0.01, 0.99, shape), rng.uniform(0.01, 0.99, shape)], [], settings)


def logits(rng: Rng) -> Drawn:
    shape = shape_of(rng)
    settings = reduction(rng) | maybe(rng, "weight", rng.uniform(0, 2, shape[-1:]))
    settings |= maybe(rng, "pos_weight", rng.uniform(0, 3, shape[-1:]))
    return Drawn([rng.normal(scale=3, size=shape), rng.uniform(0, 1, shape)], [], settings)


def divergence(rng: Rng) -> Drawn:
    shape, log_target = shape_of(rng), bool(rng.random() < 0.5)
    target = rng.normal(size=shape) if log_target else rng.uniform(0.05, 1, shape)
    settings = {"log_target": log_target, "reduction": str(rng.choice(["mean", "sum", "none", "batchmean"]))}
    return Drawn([rng.normal(size=shape), target], [], settings)


def counts(rng: Rng) -> Drawn:
    shape, log_input = shape_of(rng), bool(rng.random() < 0.5)
    x = rng.normal(size=shape) if log_input else rng.uniform(0.1, 3, shape)
    settings = reduction(rng) | {"log_input": log_input, "full": bool(rng.random() < 0.5)}
    return Drawn([x], [rng.integers(0, 6, shape).astype(np.float64)], settings | maybe(rng, "eps", 0.01))


def gaussian(rng: Rng) -> Drawn:
    shape = shape_of(rng)
    var = rng.uniform(0, 2, [shape, (*shape[:-1], 1), shape[:-1]][int(rng.integers(3))])
    settings = reduction(rng) | maybe(rng, "full", True) | maybe(rng, "eps", 0.5)
    return Drawn([rng.normal(size=shape), rng.normal(size=shape), var], [], settings)


def ranking(rng: Rng) -> Drawn:
    drawn = two(rng, reduction(rng) | maybe(rng, "margin", 0.5))
    return drawn._replace(constants=[signs(rng, drawn.arrays[0].shape)])


def triplets(rng: Rng) -> Drawn:
    shape = shape_of(rng)[:2]
    settings = reduction(rng) | maybe(rng, "margin", 2.5) | maybe(rng, "p", float(rng.choice([1, 2, 3])))
    return Drawn(list(rng.normal(size=(3, *shape))), [], settings | maybe(rng, "swap", True))


def cosine(rng: Rng) -> Drawn:
    shape = shape_of(rng)[:2]
    target = signs(rng, shape[:-1])
    return Drawn(list(rng.normal(size=(2, *shape))), [np.asarray(target)], reduction(rng) | maybe(rng, "margin", 0.3))


def classes(rng: Rng) -> Drawn:
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 6)))[int(rng.random() < 0.3) :]
    settings = reduction(rng) | maybe(rng, "p", 2) | maybe(rng, "margin", 0.5)
    settings |= maybe(rng, "weight", rng.uniform(0, 2, shape[-1]))
    return Drawn([rng.normal(size=shape)], [rng.integers(0, shape[-1], shape[:-1])], settings)


def labels(rng: Rng) -> Drawn:
    shape = shape_of(rng)[:2]
    settings = reduction(rng) | maybe(rng, "weight", rng.uniform(0, 2, shape[-1]))
    return Drawn([rng.normal(size=shape)], [rng.integers(0, 2, shape).astype(np.float64)], settings)


def vectors(rng: Rng) -> Drawn:
    shape = shape_of(rng)
    return Drawn(
        [rng.normal(size=shape)], [], {"dim": int(rng.integers(len(shape))), "p": float(rng.choice([1, 2, 3]))}
    )


def angles(rng: Rng) -> Drawn:
    shape = shape_of(rng)
    return Drawn(list(rng.normal(size=(2, *shape))), [], {"dim": int(rng.integers(-len(shape), len(shape)))})


def distances(rng: Rng) -> Drawn:
    shape = shape_of(rng)[:2]
    settings = maybe(rng, "p", float(rng.choice([1, 2, 3, np.inf]))) | maybe(rng, "keepdim", True)
    return Drawn(list(rng.normal(size=(2, *shape))), [], settings)


def focal_of_torch(x: Any, t: Any, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none") -> Any:
    """torchvision's, which needs its compiled operators to be imported."""
    p = torch.sigmoid(x)
    missed = 1 - (p * t + (1 - p) * (1 - t))
    loss = TF.binary_cross_entropy_with_logits(x, t, reduction="none") * missed**gamma
    if alpha >= 0:
        loss = (alpha * t + (1 - alpha) * (1 - t)) * loss
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def focal(rng: Rng) -> Drawn:
    shape = shape_of(rng)
    settings = reduction(rng) | maybe(rng, "alpha", float(rng.choice([-1, 0.6]))) | maybe(rng, "gamma", 1.5)
    return Drawn([rng.normal(size=shape)], [rng.integers(0, 2, shape).astype(np.float64)], settings)


LOSSES: dict[str, Callable[[Rng], Drawn]] = {
    "l1_loss": lambda rng: two(rng, reduction(rng)),
    "smooth_l1_loss": lambda rng: two(rng, reduction(rng) | maybe(rng, "beta", float(rng.choice([0, 0.5, 2])))),
    "huber_loss": lambda rng: two(rng, reduction(rng) | maybe(rng, "delta", 2.5)),
    "binary_cross_entropy": probabilities,
    "binary_cross_entropy_with_logits": logits,
    "soft_margin_loss": lambda rng: signed(rng, reduction(rng)),
    "hinge_embedding_loss": lambda rng: signed(rng, reduction(rng) | maybe(rng, "margin", 2.0)),
    "kl_div": divergence,
    "poisson_nll_loss": counts,
    "gaussian_nll_loss": gaussian,
    "margin_ranking_loss": ranking,
    "triplet_margin_loss": triplets,
    "cosine_embedding_loss": cosine,
    "multi_margin_loss": classes,
    "multilabel_soft_margin_loss": labels,
    "sigmoid_focal_loss": focal,
    "normalize": vectors,
    "cosine_similarity": angles,
    "pairwise_distance": distances,
}
NOT_TWICE = {"multi_margin_loss"}  # which torch does not differentiate twice


def onto(make: Callable[[np.ndarray], Any], values: Any) -> Any:
    return make(values) if isinstance(values, np.ndarray) else values


def same(found: Any, expected: Any, what: object, digits: float = 1e-12) -> None:
    """Both sides round in float64 some twenty times, on the way to values that may be small beside the largest."""
    found, expected = np.asarray(found.detach()), expected.detach().numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=digits * scale, err_msg=str(what))


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_both_derivatives_agree(name: str) -> None:
    mine, theirs = getattr(F, name), focal_of_torch if name == "sigmoid_focal_loss" else getattr(TF, name)
    for rng in cases():
        drawn = LOSSES[name](rng)
        what = name, [one.shape for one in drawn.arrays], drawn.settings
        xs = [pycnn.Tensor(one, requires_grad=True) for one in drawn.arrays]
        txs = [torch.from_numpy(one.copy()).requires_grad_() for one in drawn.arrays]
        y = mine(*xs, *drawn.constants, **drawn.settings)
        settings = {key: onto(torch.from_numpy, value) for key, value in drawn.settings.items()}
        ty = theirs(*txs, *[onto(torch.from_numpy, one) for one in drawn.constants], **settings)
        same(y, ty, what)
        same(pycnn.Tensor(mine(*drawn.arrays, *drawn.constants, **drawn.settings)), ty, what)  # plain arrays
        dy = np.asarray(rng.normal(size=ty.shape))
        dxs = pycnn.grad(y, xs, pycnn.Tensor(dy), create_graph=True)
        tdxs = torch.autograd.grad(ty, txs, torch.from_numpy(dy), create_graph=True)
        for one, right in zip(dxs, tdxs, strict=True):
            same(one, right, what, 1e-11)
        if name in NOT_TWICE or not (dxs[0].requires_grad and tdxs[0].requires_grad):
            continue
        ddx = rng.normal(size=tdxs[0].shape)
        (second,) = pycnn.grad(dxs[0], xs[:1], pycnn.Tensor(ddx), allow_unused=True)
        (right,) = torch.autograd.grad(tdxs[0], txs[:1], torch.from_numpy(ddx), allow_unused=True)
        zero = pycnn.Tensor(np.zeros_like(drawn.arrays[0])), torch.zeros_like(txs[0])
        same(zero[0] if second is None else second, zero[1] if right is None else right, what, 1e-9)


def test_certain_probabilities_have_the_slopes_of_torch() -> None:
    x, t = np.array([0.0, 0.0, 1.0, 1.0, 0.25]), np.array([0.0, 1.0, 0.0, 1.0, 0.5])
    px, tx = pycnn.Tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()
    y, ty = F.binary_cross_entropy(px, t), TF.binary_cross_entropy(tx, torch.from_numpy(t))
    same(y, ty, "values")
    # torch has the least divisor, 1e-12, in float32.
    same(pycnn.grad(y, px)[0], torch.autograd.grad(ty, tx)[0], "slopes", 1e-8)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, np.inf])
def test_norms_of_nothing_have_no_slope(p: float) -> None:
    x = pycnn.Tensor(np.zeros((2, 3)), requires_grad=True)
    (dx,) = pycnn.grad(F.pairwise_distance(x, np.zeros((2, 3)), p, 0.0).sum(), x)
    assert np.isfinite(dx.numpy()).all()
    if p > 1 and p < np.inf:
        assert not dx.numpy().any()


def test_one_hot() -> None:
    for shape in ((), (4,), (2, 3)):
        index = np.random.default_rng(0).integers(0, 5, shape)
        for count in (-1, 7):
            expected = TF.one_hot(torch.from_numpy(np.asarray(index)), count).numpy()
            np.testing.assert_array_equal(F.one_hot(np.asarray(index), count), expected)
            assert F.one_hot(pycnn.Tensor(np.asarray(index)), count).dtype == np.int64


def test_16_bits_are_rounded_once() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, 5, 3)).astype(np.float16)
    for name in ("l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits", "kl_div"):
        found = getattr(F, name)(x, t, reduction="none")
        right = getattr(F, name)(x.astype(np.float32), t.astype(np.float32), reduction="none")
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, right.astype(np.float16))


def test_layers_take_what_functions_take() -> None:
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=(2, 4, 3)).astype(np.float32)
    p, y = 1 / (1 + np.exp(-x)), rng.integers(0, 2, (4, 3)).astype(np.float32)
    sides = np.where(y > 0, 1, -1).astype(np.float32)
    weight = rng.uniform(0.5, 2, 3).astype(np.float32)
    for layer, args, given in (
        ("L1Loss", ("sum",), (x, t)),
        ("SmoothL1Loss", ("mean", 0.5), (x, t)),
        ("HuberLoss", ("none", 0.5), (x, t)),
        ("BCELoss", (), (p, y)),
        ("BCEWithLogitsLoss", (), (x, y)),
        ("SoftMarginLoss", (), (x, sides)),
        ("HingeEmbeddingLoss", (0.5,), (x, sides)),
        ("MarginRankingLoss", (0.5,), (x, t, sides)),
        ("TripletMarginLoss", (1.5, 1.0), (x, t, p)),
        ("CosineEmbeddingLoss", (0.2,), (x, t, sides[:, 0])),
        ("KLDivLoss", ("batchmean", True), (x, t)),
        ("PoissonNLLLoss", (False, True), (p, y)),
        ("GaussianNLLLoss", (), (x, t, p)),
        ("MultiMarginLoss", (2,), (x, np.arange(4) % 3)),
        ("MultiLabelSoftMarginLoss", (), (x, y)),
        ("CosineSimilarity", (0,), (x, t)),
        ("PairwiseDistance", (1.0, 1e-3, True), (x, t)),
    ):
        options = {"BCEWithLogitsLoss": {"pos_weight": weight}, "MultiMarginLoss": {"weight": weight}}.get(layer, {})
        mine = getattr(nn, layer)(*args, **options)
        theirs = getattr(torch.nn, layer)
        if layer in ("L1Loss", "SmoothL1Loss", "HuberLoss", "KLDivLoss"):  # whose order has PyTorch's former arguments
            names = {"SmoothL1Loss": "beta", "HuberLoss": "delta"}.get(layer, "log_target")
            theirs = theirs(**dict(zip(("reduction", names), args, strict=False)))
        else:
            theirs = theirs(*args, **{key: torch.from_numpy(value) for key, value in options.items()})
        found = mine(pycnn.Tensor(given[0]), *given[1:])
        expected = theirs(*map(torch.from_numpy, given))
        # A dozen roundings of numbers below ten in float32 on both sides.
        np.testing.assert_allclose(np.asarray(found), expected.numpy(), rtol=0, atol=1e-5, err_msg=layer)


def test_shapes_that_differ_are_broadcast_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"l1_loss: input has shape \(2, 3\) and target \(3,\)"):
        assert F.l1_loss(np.zeros((2, 3)), np.ones(3)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.l1_loss(np.zeros(3), np.ones(3))


ONES = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.l1_loss(ONES, ONES, "avg"), ValueError, "reduction must be mean, sum or none, got 'avg'"),
        (lambda: F.l1_loss(ONES, [1.0]), TypeError, "target must be a Tensor or an array"),
        (lambda: F.smooth_l1_loss(ONES, ONES, beta=-1.0), ValueError, "beta must be a finite number"),
        (lambda: F.huber_loss(ONES, ONES, delta=0.0), ValueError, "delta must be above 0"),
        (lambda: F.binary_cross_entropy(2 * ONES, ONES), ValueError, "input must hold probabilities, .* got 2.0"),
        (lambda: F.binary_cross_entropy(ONES, ONES[0]), ValueError, r"target must have input's shape \(2, 3\)"),
        (lambda: F.binary_cross_entropy_with_logits(ONES, ONES[0]), ValueError, "target must have input's shape"),
        (lambda: F.soft_margin_loss(ONES, ONES[0]), ValueError, "target must have input's shape"),
        (lambda: F.sigmoid_focal_loss(ONES, ONES, alpha=2.0), ValueError, "alpha must be at most 1"),
        (lambda: F.kl_div(ONES, ONES, "batch"), ValueError, "reduction must be"),
        (lambda: F.gaussian_nll_loss(ONES, ONES, -ONES), ValueError, "var must not be below 0"),
        (lambda: F.gaussian_nll_loss(ONES, ONES, np.ones(4)), ValueError, "var must have input's shape"),
        (lambda: F.gaussian_nll_loss(ONES, ONES, ONES, eps=0.0), ValueError, "eps must be above 0"),
        (lambda: F.triplet_margin_loss(ONES, ONES, ONES, margin=0.0), ValueError, "margin must be above 0"),
        (lambda: F.cosine_embedding_loss(ONES, ONES, ONES), ValueError, "input1 and input2 must be"),
        (lambda: F.multi_margin_loss(ONES, np.array([0, 3])), IndexError, "target holds a class outside 0 to 2"),
        (lambda: F.multi_margin_loss(ONES, np.array([0])), ValueError, r"target must have shape \(2,\)"),
        (lambda: F.multi_margin_loss(ONES, ONES), TypeError, "target must hold classes"),
        (lambda: F.multi_margin_loss(ONES, np.array([0, 1]), p=3), ValueError, "p must be 1 or 2"),
        (lambda: F.multi_margin_loss(ONES, np.array([0, 1]), weight=np.ones(2)), ValueError, "weight must have shape"),
        (lambda: F.multilabel_soft_margin_loss(ONES, ONES[0]), ValueError, "target must have input's shape"),
        (lambda: F.normalize(ONES, dim=2), ValueError, "dim must be between -2 and 1"),
        (lambda: F.normalize(ONES, p=0.0), ValueError, "p must be above 0"),
        (lambda: F.one_hot(np.array([3]), 3), ValueError, "tensor must hold classes from 0 to 2, got 3 to 3"),
        (lambda: F.one_hot(ONES), TypeError, "tensor must hold classes"),
        (lambda: F.one_hot(np.zeros(0, int)), ValueError, "num_classes must be given"),
    ],
)
def test_refusals(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
