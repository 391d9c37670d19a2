"""Every operator's gradient and its gradient's gradient against differences, flags and bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tensors import normal

import pycnn
from pycnn import Tensor, autograd
from pycnn import functional as F
from pycnn.testing.gradcheck import gradcheck, gradgradcheck

pytestmark = pytest.mark.usefixtures("on_reference")


def far(*shape: int, seed: int = 5) -> Tensor:
    """20 or -20: a sum of it and a normalised value is nowhere near 0."""
    return Tensor(np.random.default_rng(seed).choice([20.0, -20.0], shape), requires_grad=True)


def spread(*shape: int, seed: int = 0) -> Tensor:
    """Distinct values, at least 0.1 apart and none near 0: no kink within a gradcheck's step."""
    order = np.random.default_rng(seed).permutation(math.prod(shape)).reshape(shape)
    return Tensor((order - math.prod(shape) / 2 + 0.25) * 0.1, requires_grad=True)


def positive(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2.0, shape), requires_grad=True)


# ---------------------------------------------------------------------------------- against differences, twice over

TARGET = np.array([1, 0, -100, 2])
CLASS_WEIGHT = np.array([0.5, 2.0, 1.5])

OPERATORS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0, 1, 2), (1, 2), 2),
        (normal(2, 4, 5, 5), normal(4, 2, 3, 2, seed=1), normal(4, seed=2)),
    ),
    "conv2d depthwise same": (
        lambda x, w: F.conv2d(x, w, None, 1, "same", 1, 3),
        (normal(1, 3, 4, 3), normal(3, 1, 2, 3, seed=1)),
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2),
        (normal(2, 2, 3, 3), normal(2, 2, 3, 3, seed=1), normal(4, seed=2)),
    ),
    "conv_transpose2d padded beyond its stride": (
        lambda x, w: F.conv_transpose2d(x, w, None, 1, 1, (1, 0), 1, (2, 1)),
        (normal(1, 2, 3, 3), normal(2, 2, 2, 3, seed=1)),
    ),
    "conv_transpose2d beyond what any filter reaches": (
        lambda x, w: F.conv_transpose2d(x, w, None, 1, 0, 1, 1, 2),
        (normal(1, 2, 3, 3), normal(2, 2, 2, 3, seed=1)),
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x, 3, 2, 1), (spread(1, 2, 5, 6),)),
    "max_pool2d dilated, ceil": (lambda x: F.max_pool2d(x, 2, 2, 0, 2, True), (spread(1, 2, 6, 6),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1, True), (normal(1, 2, 5, 6),)),
    "avg_pool2d of pixels": (lambda x: F.avg_pool2d(x, 3, 2, 1, False, False), (normal(1, 2, 5, 6),)),
    "avg_pool2d divisor": (lambda x: F.avg_pool2d(x, (2, 3), divisor_override=5), (normal(1, 2, 5, 6),)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, None)), (normal(1, 2, 5, 3),)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), (spread(1, 2, 5, 4),)),
    "relu": (F.relu, (spread(3, 4),)),
    "tanh": (F.tanh, (normal(3, 4),)),
    "sigmoid": (F.sigmoid, (normal(3, 4),)),
    "softmax": (lambda x: F.softmax(x, 1), (normal(2, 3, 2),)),
    "log_softmax": (lambda x: F.log_softmax(x, -1), (normal(2, 3),)),
    "linear": (F.linear, (normal(2, 3, 4), normal(5, 4, seed=1), normal(5, seed=2))),
    "linear without bias": (F.linear, (normal(3, 4), normal(5, 4, seed=1))),
    "bias": (F.bias, (normal(2, 3, 2), normal(3, seed=1))),
    "batch_norm in training": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        (normal(3, 2, 2, 2), normal(2, seed=1), normal(2, seed=2)),
    ),
    "batch_norm with a sum and a ReLU": (
        lambda x, w, b, r: F.batch_norm(x, None, None, w, b, True, residual=r, relu=True),
        (normal(3, 2, 2, 2), normal(2, seed=1), normal(2, seed=2), far(3, 2, 2, 2)),
    ),
    "batch_norm in evaluation with a sum and a ReLU": (
        lambda x, m, v, r: F.batch_norm(x, m, v, residual=r, relu=True),
        (normal(3, 2, 2), normal(2, seed=1), positive(2, seed=2), far(3, 2, 2)),
    ),
    "batch_norm without scale": (lambda x: F.batch_norm(x, training=True), (normal(4, 3),)),
    "batch_norm in evaluation": (
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b),
        (normal(3, 2, 2), normal(2, seed=1), positive(2, seed=2), normal(2, seed=3), normal(2, seed=4)),
    ),
    "local_response_norm": (
        lambda x: F.local_response_norm(x, 4, 0.7, 0.75, 1.3),
        (normal(2, 5, 3),),
    ),
    "local_response_norm, odd window": (lambda x: F.local_response_norm(x, 3, 2.0, 1.5, 1.0), (normal(1, 4, 2),)),
    "dropout": (
        lambda x: F.dropout(x, 0.4, generator=pycnn.random.Generator(3)),
        (normal(5, 6),),
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.array([1, 0, 2, 2])), (normal(4, 3),)),
    "cross_entropy with everything": (
        lambda x: F.cross_entropy(x, TARGET, CLASS_WEIGHT, label_smoothing=0.2),
        (normal(4, 3),),
    ),
    "cross_entropy of maps": (
        lambda x: F.cross_entropy(x, np.array([[[1, 0], [2, -100]]]), CLASS_WEIGHT, reduction="none"),
        (normal(1, 3, 2, 2),),
    ),
    "cross_entropy of probabilities": (
        lambda x, t: F.cross_entropy(x, t, CLASS_WEIGHT, label_smoothing=0.1),
        (normal(2, 3), positive(2, 3, seed=1)),
    ),
    "nll_loss": (lambda x: F.nll_loss(x, TARGET, CLASS_WEIGHT), (normal(4, 3),)),
    "mse_loss": (F.mse_loss, (normal(2, 3), normal(2, 3, seed=1))),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1), value=3.0), (normal(2, 3),)),
    "pad that cuts": (lambda x: F.pad(x, (-1, 2, 1, -1)), (normal(3, 4),)),
    "pad reflect": (lambda x: F.pad(x, (2, 1), "reflect"), (normal(2, 3),)),
    "pad replicate": (lambda x: F.pad(x, (2, 1, 1, 0), "replicate"), (normal(2, 3),)),
    "pad circular": (lambda x: F.pad(x, (3, 1), "circular"), (normal(2, 3),)),
    "cat": (lambda a, b: F.cat([a, b, a], -1), (normal(2, 3), normal(2, 1, seed=1))),
    "stack": (lambda a, b: F.stack([a, b], 1), (normal(2, 3), normal(2, 3, seed=1))),
    "where": (lambda a, b: F.where(np.array([True, False]), a, b), (normal(3, 2), normal(2, seed=1))),
    "flatten": (lambda x: F.flatten(x, 1, 2), (normal(2, 2, 3),)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradient_is_the_slope(name: str) -> None:
    function, inputs = OPERATORS[name]
    gradcheck(lambda *values: _curved(function(*values)), inputs)


@pytest.mark.parametrize("name", OPERATORS)
def test_gradient_of_the_gradient_is_its_slope(name: str) -> None:
    function, inputs = OPERATORS[name]
    gradgradcheck(lambda *values: _curved(function(*values)), inputs)


CLOSED = ("conv2d", "conv_transpose2d", "max_pool2d", "adaptive_max_pool2d", "avg_pool2d", "linear", "dropout")


@pytest.mark.parametrize("name", CLOSED)
def test_functions_that_close_over_each_other_do_so_a_third_time(name: str) -> None:
    function, inputs = OPERATORS[name]
    first = Tensor(inputs[0].data[:1, ..., :3, :3] if inputs[0].ndim == 4 else inputs[0].data, requires_grad=True)

    def slopes(*values: Tensor) -> tuple[Tensor | None, ...]:
        y = function(*values)
        return autograd.grad((y * y * y).sum(), values, create_graph=True)

    gradgradcheck(slopes, (first, *inputs[1:]))


def _curved(y: Tensor) -> Tensor:
    # y + y^2/2: gives linear operators a second derivative, so that theirs is checked with more than zeros.
    return y + y * y * 0.5


@pytest.mark.parametrize("name", OPERATORS)
def test_inputs_are_not_modified(name: str) -> None:
    function, inputs = OPERATORS[name]
    before = [value.data.copy() for value in inputs]
    y = function(*inputs)
    autograd.grad(y.sum(), inputs)
    for value, copy in zip(inputs, before, strict=True):
        assert np.array_equal(value.data, copy)


@pytest.mark.parametrize("name", OPERATORS)
def test_plain_arrays_give_plain_arrays_of_the_same_bits(name: str) -> None:
    function, inputs = OPERATORS[name]
    plain = function(*[value.data for value in inputs])
    assert isinstance(plain, np.ndarray)
    assert np.array_equal(plain, function(*inputs).data)


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_tensors_give_torch_tensors(name: str) -> None:
    torch = pytest.importorskip("torch")
    if name == "where":
        pytest.skip("its condition is a NumPy array")
    function, inputs = OPERATORS[name]
    y = function(*[torch.from_numpy(value.data) for value in inputs])
    assert isinstance(y, torch.Tensor)
    assert np.array_equal(y.numpy(), function(*inputs).data)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone_is_the_same(name: str, wanted: int) -> None:
    function, inputs = OPERATORS[name]
    if wanted >= len(inputs):
        pytest.skip("has one input only")
    everything = autograd.grad(function(*inputs).sum(), inputs)
    alone = [value if i == wanted else value.detach() for i, value in enumerate(inputs)]
    (gradient,) = autograd.grad(function(*alone).sum(), alone[wanted])
    assert gradient is not None
    assert everything[wanted] is not None
    assert np.array_equal(gradient.data, everything[wanted].data)


def test_empty_batch_goes_through_everything() -> None:
    x = Tensor(np.zeros((0, 2, 6, 6)), requires_grad=True)
    w = normal(4, 2, 3, 3)
    y = F.avg_pool2d(F.max_pool2d(F.relu(F.conv2d(x, w)), 2), 2)
    y = F.linear(y.flatten(1), normal(3, 4))
    F.softmax(F.dropout(y), 1).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 2, 6, 6)
    assert w.grad is not None
    assert not w.grad.data.any()


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_no_channels_is_refused(training: bool) -> None:
    none = np.ones(0)
    with pytest.raises(ValueError, match=r"x must have at least one channel, got shape \(2, 0\)"):
        F.batch_norm(np.ones((2, 0)), none, none, training=training)


def test_batch_norm_of_no_samples_has_a_gradient_of_zero() -> None:
    weight, bias = normal(3), normal(3)
    for backend in ("reference", "cpu"):
        with pycnn.use_backend(backend):
            F.batch_norm(Tensor(np.zeros((0, 3, 2, 2))), weight=weight, bias=bias, training=True).sum().backward()
    for parameter in (weight, bias):
        assert parameter.grad is not None
        assert not parameter.grad.data.any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wanted", ["x", "residual", "both"])
@pytest.mark.parametrize(("added", "relu"), [(False, True), (True, False), (True, True)])
def test_batch_norm_in_one_pass_is_what_several_are(added: bool, relu: bool, wanted: str, training: bool) -> None:
    rng = np.random.default_rng(0)
    x, residual, dy = (rng.standard_normal((4, 3, 5, 7), dtype=np.float32) for _ in range(3))
    mean, var, scale, shift = (abs(rng.standard_normal(3, dtype=np.float32)) for _ in range(4))

    def passes(at_once: bool) -> list[np.ndarray]:
        leaves = [Tensor(array.copy(), requires_grad=True) for array in (x, residual, scale, shift)]
        leaves[0].requires_grad, leaves[1].requires_grad = wanted != "residual", wanted != "x"
        statistics = [mean.copy(), var.copy()]
        settings: Any = (*statistics, leaves[2], leaves[3], training)
        if at_once:
            y = F.batch_norm(leaves[0], *settings, residual=leaves[1] if added else None, relu=relu)
        else:
            y = F.batch_norm(leaves[0], *settings)
            y = y + leaves[1] if added else y
            y = F.relu(y) if relu else y
        y.backward(Tensor(dy))
        return [y.data, *statistics, *(leaf.grad.data for leaf in leaves if leaf.grad is not None)]

    for backend in ("cpu", "reference"):
        with pycnn.use_backend(backend):
            found, expected = passes(True), passes(False)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            # The reference rounds once at the end where several passes round each: two roundings of what is added.
            limit = 0 if backend == "cpu" or not training else 2**-23 * (abs(theirs).max() + abs(residual).max())
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of 0/0
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_targets_never_count(smoothing: float) -> None:
    # Their scores may be infinite, and where nothing else is left the mean is 0/0 but no gradient comes from it.
    scores = np.array([[-np.inf, 0.0, 1.0], [0.0, 1.0, 2.0]])
    expected = F.cross_entropy(scores[1:], np.array([2]), label_smoothing=smoothing)
    assert F.cross_entropy(scores, np.array([-100, 2]), label_smoothing=smoothing) == expected
    x = normal(2, 3)
    loss = F.cross_entropy(x, np.array([-100, -100]), label_smoothing=smoothing)
    loss.backward()
    assert np.isnan(loss.item())
    assert x.grad is not None
    assert not x.grad.data.any()


# ----------------------------------------------------------------------------------------------- flags and bad input


def test_algo_goes_to_the_pass_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    called = {}
    for name in ("fprop", "dgrad", "wgrad"):
        original = getattr(pycnn.ops, f"conv2d_{name}")

        def spy(*args: Any, _name: str = name, _original: Any = original, algo: str, **options: Any) -> Any:
            called[_name] = algo
            return _original(*args, algo="auto", **options)

        monkeypatch.setattr(pycnn.ops, f"conv2d_{name}", spy)
    x, w = normal(1, 1, 4, 4), normal(1, 1, 3, 3)
    F.conv2d(x, w, algo={"fprop": "direct", "wgrad": "winograd"}).sum().backward()
    assert called == {"fprop": "direct", "dgrad": "auto", "wgrad": "winograd"}
    F.conv2d(x, w, algo="im2col").sum().backward()
    assert called == dict.fromkeys(("fprop", "dgrad", "wgrad"), "im2col")


def test_gradients_of_filters_and_bias_come_from_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = pycnn.ops.conv2d_wgrad

    def spy(*args: Any, **options: Any) -> Any:
        calls.append(options.get("bias", False))
        return original(*args, **options)

    monkeypatch.setattr(pycnn.ops, "conv2d_wgrad", spy)
    x, w, b = normal(2, 3, 6, 5), normal(4, 3, 3, 3, seed=1), normal(4, seed=2)
    F.conv2d(x, w, b).sum().backward()
    assert calls == [True]
    assert w.grad is not None
    assert b.grad is not None
    fused = w.grad.numpy().copy(), b.grad.numpy().copy()
    assert np.array_equal(fused[1], np.full(4, 24.0))
    # Recorded, the two are Functions of their own, which have derivatives.
    dw, db = autograd.grad((F.conv2d(x, w, b) ** 2).sum(), (w, b), create_graph=True)
    assert calls == [True, False]
    (db**2).sum().backward()
    assert x.grad is not None
    assert np.abs(dw.detach().numpy()).sum() > 0
    # One of the two alone is not fused.
    calls.clear()
    F.conv2d(x, w, b.detach()).sum().backward()
    F.conv2d(x, w.detach(), b).sum().backward()
    assert calls == [False]


def test_dropout_keeps_and_scales() -> None:
    pycnn.manual_seed(0)
    x = np.ones(20_000)
    y = F.dropout(x, 0.25)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    # Standard deviation of the share of zeros is sqrt(0.25 * 0.75 / 20000) = 0.003; five of them.
    assert abs((y == 0).mean() - 0.25) < 0.015
    assert not np.array_equal(y, F.dropout(x, 0.25))
    pycnn.manual_seed(0)
    assert np.array_equal(y, F.dropout(x, 0.25))
    assert F.dropout(x, 0.25, training=False) is x
    assert not F.dropout(x, 1.0).any()


# Operators of images, which take a batch of them, (N, C, H, W), or one, (C, H, W); each is given three channels.
FILTERS = normal(3, 2, 3, 2, seed=1)
ONE_IMAGE: dict[str, Callable[[Any], Any]] = {
    "conv2d": lambda x: F.conv2d(x, FILTERS.permute(1, 0, 2, 3), normal(2, seed=2), 2, (1, 0, 1, 2)),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, FILTERS, normal(2, seed=2), 2, 1, 1),
    "conv_transpose2d dilated": lambda x: F.conv_transpose2d(x, FILTERS, None, 1, 1, (1, 0), 1, (2, 1)),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (2, None)),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 2),
}
IMAGE_RANK = r"x must have 4 dimensions \(N, C, H, W\) or 3 \(C, H, W\), got shape"


@pytest.mark.parametrize("name", ONE_IMAGE)
def test_one_image_is_a_batch_of_one(name: str) -> None:
    function, x = ONE_IMAGE[name], spread(3, 5, 6)
    y = function(x)
    expected = function(Tensor(x.data[None]))
    assert y.shape == expected.shape[1:]
    assert np.array_equal(y.data, expected.data[0])
    gradcheck(lambda x: _curved(function(x)), (x,))
    gradgradcheck(lambda x: _curved(function(x)), (x,))


X = np.zeros((2, 3, 4, 4))
BAD: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("algo pass", lambda: F.conv2d(X, np.zeros((1, 3, 1, 1)), algo={"forward": "auto"}), ValueError, "unknown pass"),
    ("algo type", lambda: F.conv2d(X, np.zeros((1, 3, 1, 1)), algo=3), TypeError, "algo must be"),  # type: ignore[arg-type]
    ("conv channels", lambda: F.conv2d(X, np.zeros((1, 2, 1, 1))), ValueError, "channels disagree"),
    ("transpose of a list", lambda: F.conv_transpose2d([1.0], X), TypeError, "x must be an array .* got list"),
    *(
        (f"{name} rank {rank}", lambda call=call, rank=rank: call(np.zeros((3,) * rank)), ValueError, IMAGE_RANK)
        for name, call in ONE_IMAGE.items()
        for rank in (0, 2, 5)
    ),
    ("transpose channels", lambda: F.conv_transpose2d(X, np.zeros((2, 1, 1, 1))), ValueError, "channels disagree"),
    (
        "output_padding",
        lambda: F.conv_transpose2d(X, np.zeros((3, 1, 1, 1)), output_padding=1),
        ValueError,
        "output_padding must be smaller",
    ),
    ("transpose size", lambda: F.conv_transpose2d(X, np.zeros((3, 1, 1, 1)), padding=2), ValueError, "smaller than 1"),
    ("transpose bias", lambda: F.conv_transpose2d(X, np.zeros((3, 1, 1, 1)), np.zeros(2)), ValueError, "b must have"),
    ("adaptive size", lambda: F.adaptive_avg_pool2d(X, (1, 2, 3)), ValueError, "output_size"),
    ("dropout p", lambda: F.dropout(X, 1.5), ValueError, "p must be a probability"),
    ("linear scalar", lambda: F.linear(np.zeros(()), np.zeros((1, 1))), ValueError, "at least one dimension"),
    ("bias", lambda: F.bias(X, np.zeros(2)), ValueError, "one value a channel"),
    ("batch_norm rank", lambda: F.batch_norm(np.zeros(3), training=True), ValueError, "at least 2 dimensions"),
    ("batch_norm weight", lambda: F.batch_norm(X, weight=np.zeros(2), training=True), ValueError, "weight must have"),
    ("batch_norm single", lambda: F.batch_norm(np.zeros((1, 3)), training=True), ValueError, "more than one value"),
    (
        "batch_norm residual",
        lambda: F.batch_norm(X, training=True, residual=np.zeros(3)),
        ValueError,
        "residual must have",
    ),
    ("batch_norm statistics", lambda: F.batch_norm(X), ValueError, "needs running_mean"),
    ("pad odd", lambda: F.pad(X, (1,)), ValueError, "pad must hold a pair"),
    ("pad mode", lambda: F.pad(X, (1, 1), "mirror"), ValueError, "mode must be"),
    ("pad nothing left", lambda: F.pad(X, (-3, -2)), ValueError, "leaves nothing"),
    ("pad reflect", lambda: F.pad(X, (4, 0), "reflect"), ValueError, "reflect padding must be at most 3 for"),
    ("pad what was cut", lambda: F.pad(X, (-3, 2), "circular"), ValueError, "circular padding must be at most 1 for"),
    ("pad float", lambda: F.pad(X, (0.5, 0)), TypeError, r"pad\[0\] must be an int"),  # type: ignore[arg-type]
    ("pad cut from padding", lambda: F.pad(X[:, :, :2], (0, 0, 2, -3)), ValueError, "leaves nothing"),
    ("pad type", lambda: F.pad(X, 1), TypeError, "pad must be a tuple"),  # type: ignore[arg-type]
    ("pad value", lambda: F.pad(X, (1, 1), value="1"), TypeError, "value must be a number"),  # type: ignore[arg-type]
    ("cat type", lambda: F.cat(X), TypeError, "tensors must be a list"),  # type: ignore[arg-type]
    ("cat member", lambda: F.cat([X, None]), TypeError, r"tensors\[1\] must be a Tensor or an array"),
    ("stack dim", lambda: F.stack([X], 0.5), TypeError, "dim must be an int"),  # type: ignore[arg-type]
    ("flatten dim", lambda: F.flatten(X, None), TypeError, "start_dim must be an int"),  # type: ignore[arg-type]
    ("conv x", lambda: F.conv2d(None, X), TypeError, "x must be an array"),
    ("conv w", lambda: F.conv2d(X, [1.0]), TypeError, "w must be an array"),
    ("transpose x", lambda: F.conv_transpose2d(None, X), TypeError, "x must be an array"),
    ("transpose b", lambda: F.conv_transpose2d(X, np.zeros((3, 1, 1, 1)), 0), TypeError, "b must be an array"),
    ("transpose groups", lambda: F.conv_transpose2d(X, X, groups=1.5), TypeError, "groups must be"),  # type: ignore[arg-type]
    ("avg_pool x", lambda: F.avg_pool2d(None, 2), TypeError, "x must be an array"),
    ("adaptive x", lambda: F.adaptive_max_pool2d(None, 2), TypeError, "x must be a Tensor or an array"),
    ("linear x", lambda: F.linear(None, X), TypeError, "x must be a Tensor or an array"),
    ("bias x", lambda: F.bias(None, X), TypeError, "x must be a Tensor or an array"),
    ("dropout x", lambda: F.dropout(None), TypeError, "x must be a Tensor or an array"),
    ("dropout p type", lambda: F.dropout(X, "0.5"), TypeError, "p must be a number"),  # type: ignore[arg-type]
    ("batch_norm bias", lambda: F.batch_norm(X, bias=1, training=True), TypeError, "bias must be a Tensor"),
    ("batch_norm eps", lambda: F.batch_norm(X, training=True, eps="1"), TypeError, "eps must be"),  # type: ignore[arg-type]
    ("batch_norm flag", lambda: F.batch_norm(X, training=None), TypeError, "training must be"),  # type: ignore[arg-type]
    ("lrn alpha", lambda: F.local_response_norm(X, 3, "1"), TypeError, "alpha must be a number"),  # type: ignore[arg-type]
    ("cat nothing", lambda: F.cat([]), ValueError, "at least one"),
    ("cat shapes", lambda: F.cat([X, X[:1, :2]]), ValueError, "all shapes must agree"),
    ("cat dim", lambda: F.cat([X], 4), IndexError, "out of range"),
    ("flatten", lambda: F.flatten(X, 2, 1), ValueError, "lies behind"),
    ("classes", lambda: F.cross_entropy(X[:, :, 0, 0], np.array([0, 3])), IndexError, "holds the class 3"),
    ("class dtype", lambda: F.nll_loss(X[:, :, 0, 0], np.zeros(2)), TypeError, "class indices"),
    ("target shape", lambda: F.cross_entropy(X[:, :, 0, 0], np.array([0])), ValueError, "target must have shape"),
    ("probabilities", lambda: F.cross_entropy(X[:, :, 0, 0], np.zeros((2, 2))), ValueError, "input's shape"),
    ("class weight", lambda: F.nll_loss(X[0, 0], np.array([0] * 4), np.zeros(2)), ValueError, "weight must have shape"),
    ("reduction", lambda: F.mse_loss(X, X, "average"), ValueError, "reduction must be"),
    ("smoothing", lambda: F.cross_entropy(X, X, label_smoothing=2.0), ValueError, "label_smoothing"),
    ("not an array", lambda: F.relu([1.0]), TypeError, "must be an array"),
]


@pytest.mark.parametrize(("call", "kind", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_is_named(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_mse_loss_warns_of_broadcasting() -> None:
    with pytest.warns(UserWarning, match="broadcast"):
        F.mse_loss(np.zeros((3, 1)), np.zeros(3))


def test_half_precision_is_computed_in_single() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float16)
    t = Tensor(x, requires_grad=True)
    y = F.cross_entropy(F.softmax(t, 1), np.array([0, 1, 2, 3]))
    assert y.dtype == np.float16
    y.backward()
    assert t.grad is not None
    assert t.grad.dtype == np.float16
    assert F.batch_norm(x, training=True).dtype == np.float16


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_sums_do_not_stand_still(name: str) -> None:
    # In bfloat16 256 + 1 is 256: a sum kept in it would never pass that.
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    x = Tensor(np.ones((16, 2, 16, 16), np.dtype(name)))
    b = Tensor(np.zeros(2, np.dtype(name)), requires_grad=True)
    y = F.bias(x, b)
    assert float(y.sum().data) == 8192
    assert float(y.mean().data) == 1
    y.sum().backward()
    assert b.grad is not None
    assert b.grad.data.astype(np.float32).tolist() == [4096, 4096]
    scores = Tensor(np.zeros((4096, 4), np.dtype(name)))
    loss = F.cross_entropy(scores, np.zeros(4096, np.int64))
    assert float(loss.data) == pytest.approx(math.log(4), rel=2**-6)  # log 4 and the sum, each rounded to 8 bits


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("operator", ["conv2d", "conv_transpose2d"])
def test_convolution_of_half_precision_rounds_once(operator: str, name: str) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    half = np.dtype(name)
    x, w, b = (normal(*size, seed=3).data.astype(half) for size in ((1, 4, 6, 6), (4, 4, 3, 3), (4,)))
    function = getattr(F, operator)
    single = [a.astype(np.float32) for a in (x, w, b)]
    once = function(*single).astype(half)
    twice = (function(*single[:2]).astype(half) + b[:, None, None]).astype(half)
    assert not np.array_equal(once, twice)
    assert np.array_equal(function(x, w, b), once)
    t = Tensor(b, requires_grad=True)
    y = function(Tensor(x), w, t)
    assert np.array_equal(y.data, once)
    y.sum().backward()
    assert t.grad is not None
    assert t.grad.data.astype(np.float32).tolist() == [y.shape[2] * y.shape[3]] * 4


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_batch_norm_of_half_precision_keeps_its_statistics_in_single(name: str) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    x, dy = ((rng.standard_normal((8, 3, 4)) + shift).astype(np.dtype(name)) for shift in (20, 0))
    gradients = []
    for dtype in (np.dtype(name), np.float64):
        t = Tensor(x.astype(dtype), requires_grad=True)
        F.batch_norm(t, training=True).backward(Tensor(dy.astype(dtype)))
        assert t.grad is not None
        gradients.append(t.grad.data.astype(np.float64))
    # Half an ulp of an 8-bit result of size at most 4; a mean rounded to 8 bits is off by up to 1/16 of a deviation.
    assert np.abs(gradients[0] - gradients[1]).max() < 4 * 2**-9


def test_arguments_go_by_their_documented_names() -> None:
    x, target = np.zeros((2, 3)), np.array([0, 2])
    assert F.cross_entropy(input=x, target=target) == F.cross_entropy(x, target)
    assert F.mse_loss(target=x, input=x + 1) == 1
    assert F.nll_loss(input=Tensor(x), target=target).item() == 0
    assert F.pad(x=x, pad=(1, 0)).shape == (2, 4)
    assert F.pad(x, (-3, 2), value=7.0).tolist() == [[7, 7], [7, 7]]
    with pytest.raises(TypeError, match="needs the argument 'input'"):
        F.mse_loss(target=x)


def test_running_statistics_may_be_arrays_beside_a_tensor() -> None:
    x = normal(4, 3)
    mean, var = np.zeros(3), np.ones(3)
    F.batch_norm(x, mean, var, training=True)
    np.testing.assert_allclose(mean, 0.1 * x.data.mean(0), rtol=1e-12)  # of four terms in another order
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.data.var(0, ddof=1), rtol=1e-12)
