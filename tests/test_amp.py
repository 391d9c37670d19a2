"""Mixed precision: the policy, and what is computed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mixed
import numpy as np
import pytest
from mixed import Cnn, normal

import pycnn
from pycnn import Tensor, amp, ops
from pycnn import functional as F
from pycnn.amp.policy import POLICY
from pycnn.graph import Function
from pycnn.resampling import Taps

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.fixture(autouse=True)
def draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers whichever tests ran before: of any others, one may be rounded past the kink of a ReLU."""
    monkeypatch.setattr(mixed, "RNG", np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------- the policy


def functions() -> Iterator[type[Function]]:
    """All differentiable operations of the library."""
    waiting = list(Function.__subclasses__())
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        # An ONNX model says itself in which dtypes it is computed.
        inside = one.__module__.startswith("pycnn.") and not one.__module__.startswith("pycnn.onnx.")
        if inside and one.__name__ != "_CheckpointInput":
            yield one


def test_every_operation_is_in_the_policy() -> None:
    assert set(functions()) == set(POLICY)


IMAGES = (2, 3, 6, 6)
REGION = np.array([[0, 0.0, 0.0, 4.0, 4.0]], np.float32)
VOLUMES = (2, 3, 4, 4, 4)

# By public function: the rule it follows, and a call of it with tensors of a dtype; parameters are always float32.
PUBLIC: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "conv2d": ("low", lambda d: F.conv2d(normal(*IMAGES, dtype=d), normal(4, 3, 3, 3), normal(4))),
    "conv_transpose2d": ("low", lambda d: F.conv_transpose2d(normal(*IMAGES, dtype=d), normal(3, 4, 3, 3), normal(4))),
    "linear": ("low", lambda d: F.linear(normal(5, 4, dtype=d), normal(3, 4), normal(3))),
    "softmax": ("float32", lambda d: F.softmax(normal(5, 4, dtype=d), 1)),
    "log_softmax": ("float32", lambda d: F.log_softmax(normal(5, 4, dtype=d), 1)),
    "cross_entropy": ("float32", lambda d: F.cross_entropy(normal(5, 4, dtype=d), np.arange(5) % 4)),
    "nll_loss": ("float32", lambda d: F.nll_loss(normal(5, 4, dtype=d), np.arange(5) % 4)),
    **{
        name: ("float32", lambda d, name=name: getattr(F, name)(normal(5, 4, dtype=d), normal(5, 4, dtype=d)))
        for name in (
            *("l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits", "sigmoid_focal_loss"),
            *("soft_margin_loss", "hinge_embedding_loss", "kl_div", "poisson_nll_loss", "multilabel_soft_margin_loss"),
            *("cosine_similarity", "pairwise_distance"),
        )
    },
    **{
        name: ("float32", lambda d, name=name: getattr(F, name)(*[normal(5, 4, dtype=d) for _ in range(3)]))
        for name in ("margin_ranking_loss", "triplet_margin_loss")
    },
    "binary_cross_entropy": (
        "float32",
        lambda d: F.binary_cross_entropy(normal(4, dtype=d).clamp(0, 1), np.ones(4, d)),
    ),
    "gaussian_nll_loss": ("float32", lambda d: F.gaussian_nll_loss(normal(5, 4, dtype=d), normal(5, 4, dtype=d), 2.0)),
    "cosine_embedding_loss": (
        "float32",
        lambda d: F.cosine_embedding_loss(normal(5, 4, dtype=d), normal(5, 4), np.ones(5, np.float32)),
    ),
    "multi_margin_loss": ("float32", lambda d: F.multi_margin_loss(normal(5, 4, dtype=d), np.arange(5) % 4)),
    "normalize": ("float32", lambda d: F.normalize(normal(5, 4, dtype=d))),
    "mse_loss": ("float32", lambda d: F.mse_loss(normal(5, 4, dtype=d), normal(5, 4, dtype=d))),
    "local_response_norm": ("float32", lambda d: F.local_response_norm(normal(*IMAGES, dtype=d), 3)),
    "cat": ("widest", lambda d: F.cat([normal(2, 3, dtype=d), normal(2, 3)])),
    "stack": ("widest", lambda d: F.stack([normal(2, 3, dtype=d), normal(2, 3)])),
    "where": ("widest", lambda d: F.where(normal(2, 3) > 0, normal(2, 3, dtype=d), normal(2, 3))),
    "batch_norm": ("input", lambda d: F.batch_norm(normal(*IMAGES, dtype=d), None, None, normal(3), normal(3), True)),
    "group_norm": ("input", lambda d: F.group_norm(normal(2, 4, 3, dtype=d), 2, normal(4), normal(4))),
    "instance_norm": ("input", lambda d: F.instance_norm(normal(*IMAGES, dtype=d))),
    "layer_norm": ("input", lambda d: F.layer_norm(normal(5, 4, dtype=d), 4, normal(4))),
    "rms_norm": ("input", lambda d: F.rms_norm(normal(5, 4, dtype=d), 4)),
    "bias": ("input", lambda d: F.bias(normal(*IMAGES, dtype=d), normal(3))),
    "relu": ("input", lambda d: F.relu(normal(5, 4, dtype=d))),
    "tanh": ("input", lambda d: F.tanh(normal(5, 4, dtype=d))),
    "sigmoid": ("input", lambda d: F.sigmoid(normal(5, 4, dtype=d))),
    "max_pool2d": ("input", lambda d: F.max_pool2d(normal(*IMAGES, dtype=d), 2)),
    "avg_pool2d": ("input", lambda d: F.avg_pool2d(normal(*IMAGES, dtype=d), 2)),
    "adaptive_max_pool2d": ("input", lambda d: F.adaptive_max_pool2d(normal(*IMAGES, dtype=d), 2)),
    "adaptive_avg_pool2d": ("input", lambda d: F.adaptive_avg_pool2d(normal(*IMAGES, dtype=d), 2)),
    "grid_sample": ("widest", lambda d: F.grid_sample(normal(*IMAGES, dtype=d), normal(IMAGES[0], 2, 2, 2))),
    "roi_align": ("input", lambda d: F.roi_align(normal(*IMAGES, dtype=d), REGION, 2)),
    "roi_pool": ("input", lambda d: F.roi_pool(normal(*IMAGES, dtype=d), REGION, 2)),
    "box_iou": ("widest", lambda d: F.box_iou(normal(3, 4, dtype=d), normal(2, 4))),
    "deform_conv2d": (
        "low",
        lambda d: F.deform_conv2d(normal(*IMAGES, dtype=d), normal(2, 2, 6, 6, dtype=d), normal(4, 3, 1, 1, dtype=d)),
    ),
    "affine_grid": ("input", lambda d: F.affine_grid(normal(2, 2, 3, dtype=d), (2, 1, 3, 3))),
    "interpolate": ("input", lambda d: F.interpolate(normal(*IMAGES, dtype=d), scale_factor=2)),
    "upsample": ("input", lambda d: F.upsample(normal(*IMAGES, dtype=d), scale_factor=2)),
    "resample": ("input", lambda d: F.resample(normal(5, 4, dtype=d), {0: Taps.of([[0, 4]], [[0.5, 0.5]], 5)})),
    **{
        name: ("input", lambda d, name=name: getattr(F, name)(normal(2, 3, 4, dtype=d), 0.5, True))
        for name in ("dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout")
    },
    "dropout3d": ("input", lambda d: F.dropout3d(normal(2, 3, 1, 2, dtype=d), 0.5)),
    "dropout": ("input", lambda d: F.dropout(normal(5, 4, dtype=d), 0.5)),
    **{
        name: ("input", lambda d, name=name: getattr(F, name)(normal(5, 4, dtype=d)))
        for name in (
            *("celu", "elu", "erf", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
            *("logsigmoid", "mish", "relu6", "selu", "silu", "softplus", "softshrink", "softsign", "tanhshrink"),
        )
    },
    "threshold": ("input", lambda d: F.threshold(normal(5, 4, dtype=d), 0.5, 1.0)),
    "prelu": ("widest", lambda d: F.prelu(normal(5, 4, dtype=d), normal(4))),
    "pad": ("input", lambda d: F.pad(normal(5, 4, dtype=d), (1, 2))),
    "conv1d": ("low", lambda d: F.conv1d(normal(2, 3, 6, dtype=d), normal(4, 3, 3), normal(4))),
    "conv_transpose1d": ("low", lambda d: F.conv_transpose1d(normal(2, 3, 6, dtype=d), normal(3, 4, 3), normal(4))),
    "conv3d": ("low", lambda d: F.conv3d(normal(*VOLUMES, dtype=d), normal(4, 3, 2, 3, 3), normal(4))),
    "conv_transpose3d": (
        "low",
        lambda d: F.conv_transpose3d(normal(*VOLUMES, dtype=d), normal(3, 4, 2, 3, 3), normal(4)),
    ),
    "max_pool1d": ("input", lambda d: F.max_pool1d(normal(2, 3, 6, dtype=d), 2)),
    "avg_pool1d": ("input", lambda d: F.avg_pool1d(normal(2, 3, 6, dtype=d), 2)),
    "adaptive_max_pool1d": ("input", lambda d: F.adaptive_max_pool1d(normal(2, 3, 6, dtype=d), 2)),
    "adaptive_avg_pool1d": ("input", lambda d: F.adaptive_avg_pool1d(normal(2, 3, 6, dtype=d), 2)),
    "max_pool3d": ("input", lambda d: F.max_pool3d(normal(*VOLUMES, dtype=d), 2)),
    "avg_pool3d": ("input", lambda d: F.avg_pool3d(normal(*VOLUMES, dtype=d), 2)),
    "adaptive_max_pool3d": ("input", lambda d: F.adaptive_max_pool3d(normal(*VOLUMES, dtype=d), 2)),
    "adaptive_avg_pool3d": ("input", lambda d: F.adaptive_avg_pool3d(normal(*VOLUMES, dtype=d), 2)),
    "lp_pool1d": ("float32", lambda d: F.lp_pool1d(normal(2, 3, 6, dtype=d), 2, 2)),
    "lp_pool2d": ("float32", lambda d: F.lp_pool2d(normal(*IMAGES, dtype=d), 2, 2)),
    "lp_pool3d": ("float32", lambda d: F.lp_pool3d(normal(*VOLUMES, dtype=d), 2, 2)),
    "pixel_shuffle": ("input", lambda d: F.pixel_shuffle(normal(1, 4, 3, 3, dtype=d), 2)),
    "pixel_unshuffle": ("input", lambda d: F.pixel_unshuffle(normal(*IMAGES, dtype=d), 2)),
    "channel_shuffle": ("input", lambda d: F.channel_shuffle(normal(*IMAGES, dtype=d), 3)),
    "locally_connected1d": (
        "low",
        lambda d: F.locally_connected1d(normal(2, 3, 4, dtype=d), normal(3, 4, 3, 2), normal(4, 3)),
    ),
    "locally_connected2d": (
        "low",
        lambda d: F.locally_connected2d(normal(*IMAGES, dtype=d), normal(2, 1, 4, 3, 5, 6), normal(4, 2, 1)),
    ),
    "max_unpool1d": ("input", lambda d: F.max_unpool1d(normal(2, 3, 2, dtype=d), np.array([[[0, 2]] * 3] * 2), 2)),
    "max_unpool2d": ("input", lambda d: F.max_unpool2d(normal(1, 1, 1, 1, dtype=d), np.zeros((1,) * 4, int), 2)),
    "max_unpool3d": ("input", lambda d: F.max_unpool3d(normal(1, 1, 1, 1, 1, dtype=d), np.zeros((1,) * 5, int), 2)),
    "unfold": ("input", lambda d: F.unfold(normal(*IMAGES, dtype=d), 2)),
    "fold": ("input", lambda d: F.fold(normal(2, 8, 9, dtype=d), 4, 2)),
    "flatten": ("input", lambda d: F.flatten(normal(*IMAGES, dtype=d), 1)),
}
# What Tensors offer themselves, beside a float32 tensor where there are two.
METHODS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "matmul": ("low", lambda d: normal(2, 3, dtype=d) @ normal(3, 2)),
    "sum": ("float32", lambda d: normal(2, 3, dtype=d).sum(1)),
    "mean": ("float32", lambda d: normal(2, 3, dtype=d).mean()),
    "var": ("float32", lambda d: normal(2, 3, dtype=d).var()),
    "exp": ("float32", lambda d: normal(2, 3, dtype=d).exp()),
    "log": ("float32", lambda d: abs(normal(2, 3, dtype=d)).log()),
    "power": ("float32", lambda d: normal(2, 3, dtype=d) ** 3),
    "tensor power": ("float32", lambda d: abs(normal(2, 3, dtype=d)) ** normal(2, 3, dtype=d)),
    "add": ("widest", lambda d: normal(2, 3, dtype=d) + normal(2, 3)),
    "sub": ("widest", lambda d: normal(2, 3) - normal(2, 3, dtype=d)),
    "mul": ("widest", lambda d: normal(2, 3, dtype=d) * normal(2, 3)),
    "div": ("widest", lambda d: normal(2, 3) / normal(2, 3, dtype=d)),
    "maximum": ("widest", lambda d: normal(2, 3).maximum(normal(2, 3, dtype=d))),
    "alike": ("input", lambda d: normal(2, 3, dtype=d) + normal(2, 3, dtype=d)),
    "number": ("input", lambda d: normal(2, 3, dtype=d) * 2.0 + 1.0),
    "neg": ("input", lambda d: -normal(2, 3, dtype=d)),
    "sqrt": ("input", lambda d: abs(normal(2, 3, dtype=d)).sqrt()),
    "clamp": ("input", lambda d: normal(2, 3, dtype=d).clamp(0, 1)),
    "amax": ("input", lambda d: normal(2, 3, dtype=d).amax(1)),
    "index": ("input", lambda d: normal(2, 3, dtype=d)[1:, [0, 2]]),
    "reshape": ("input", lambda d: normal(2, 3, dtype=d).reshape(3, 2).transpose(0, 1)),
    "clone": ("input", lambda d: normal(2, 3, dtype=d).clone()),
}


INTEGERS = {"nms", "batched_nms", "one_hot"}  # what these give has no floating dtype


def test_every_public_function_has_its_rule_here() -> None:
    assert set(PUBLIC) == set(F.__all__) - INTEGERS


@pytest.mark.parametrize("name", [*PUBLIC, *METHODS])
def test_results_are_of_the_dtype_that_the_policy_says(name: str, low: np.dtype[Any]) -> None:
    rule, call = (PUBLIC | METHODS)[name]
    expected = {"low": (low, low), "float32": (FLOAT32, FLOAT32), "widest": (FLOAT32, FLOAT32), "input": (FLOAT32, low)}
    for given, wanted in zip((FLOAT32, low), expected[rule], strict=True):
        with amp.autocast(low):
            assert call(given).dtype == wanted


def test_operands_of_float64_are_never_rounded(low: np.dtype[Any]) -> None:
    x, w = normal(4, 3, dtype=np.float64), normal(2, 3, dtype=np.float64)
    with amp.autocast(low):
        assert F.linear(x, w).dtype == np.float64
        assert (x @ normal(3, 2, dtype=np.float64)).dtype == np.float64
        assert F.softmax(x, 1).dtype == np.float64
        assert (x + normal(4, 3, dtype=low)).dtype == np.float64


def test_squared_errors_are_not_too_large_for_16_bits(low: np.dtype[Any]) -> None:
    x, t = Tensor(np.array([300.0, 1.0], low), requires_grad=True), np.zeros(2, low)
    for reduction, expected in (("none", [90000, 1]), ("sum", 90001), ("mean", 45000.5)):
        with amp.autocast(low):
            loss = F.mse_loss(x, t, reduction)
        assert loss.data.tolist() == expected
        x.grad = None
        loss.sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == low
        assert x.grad.data.astype(np.float32).tolist() == ([300, 1] if reduction == "mean" else [600, 2])


def test_two_kinds_of_16_bits_meet_in_float32() -> None:
    pytest.importorskip("ml_dtypes")
    with amp.autocast("float16"):
        total = normal(3, dtype=FLOAT16) + normal(3, dtype=np.dtype("bfloat16"))
        assert total.dtype == np.float32
        assert F.linear(normal(2, 3, dtype=np.dtype("bfloat16")), normal(4, 3)).dtype == FLOAT16


# ---------------------------------------------------------------------------------------------------- what is computed


def rounded(tensor: Any, dtype: Any) -> np.ndarray:
    return tensor.data.astype(dtype)


def test_a_convolution_and_its_gradients_are_those_of_the_rounded_operands(low: np.dtype[Any]) -> None:
    x, w, b = normal(2, 3, 6, 6, grad=True), normal(4, 3, 3, 3, grad=True), normal(4, grad=True)
    with amp.autocast(low):
        y = F.conv2d(x, w, b, padding=1)
    xs, ws = rounded(x, low), rounded(w, low)
    assert np.array_equal(y.data, ops.conv2d_fprop(xs, ws, b.data, padding=1))
    dy = normal(*y.shape, dtype=low)
    y.backward(dy)
    assert x.grad is not None
    assert w.grad is not None
    assert b.grad is not None
    assert np.array_equal(x.grad.data, ops.conv2d_dgrad(dy.data, ws, x.shape, padding=1).astype(np.float32))
    dw, db = ops.conv2d_wgrad(dy.data, xs, w.shape, padding=1, bias=True, bias_dtype="float32")
    assert np.array_equal(w.grad.data, dw.astype(np.float32))
    assert np.array_equal(b.grad.data, db)  # never rounded


LAYERS: dict[str, Callable[[], tuple[Callable[..., Any], list[Tensor]]]] = {
    "conv_transpose2d": lambda: (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
        [normal(2, 3, 4, 4), normal(3, 2, 3, 3), normal(2)],
    ),
    "linear": lambda: (F.linear, [normal(5, 4), normal(3, 4), normal(3)]),
    "matmul": lambda: (lambda a, b: a @ b, [normal(5, 4), normal(4, 3)]),
    "batch norm": lambda: (
        lambda x, w, b, r: F.batch_norm(x, None, None, w, b, True, residual=r, relu=True),
        [normal(4, 3, 5, 5), normal(3), normal(3), normal(4, 3, 5, 5)],
    ),
    "evaluated batch norm": lambda: (
        lambda x, w, b: F.batch_norm(x, np.zeros(3, np.float32), np.ones(3, np.float32), w, b),
        [normal(4, 3, 5, 5), normal(3), normal(3)],
    ),
    "bias": lambda: (F.bias, [normal(4, 3, 5), normal(3)]),
    "concatenation": lambda: (lambda a, b: F.cat([a, b], 1), [normal(2, 3), normal(2, 4)]),
    "squared error": lambda: (lambda a, b: F.mse_loss(a, b, "none"), [normal(4, 3), normal(4, 3)]),
    "local response norm": lambda: (lambda x: F.local_response_norm(x, 3, alpha=0.1), [normal(2, 5, 3, 3)]),
}


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_float32_but_for_rounding(name: str, recorded: bool, low: np.dtype[Any]) -> None:
    layer, operands = LAYERS[name]()
    found = []
    for enabled in (False, True):
        leaves = [Tensor(one.data, requires_grad=True) for one in operands]
        with amp.autocast(low, enabled):
            # As behind a layer in 16 bits: the first operand and what has its shape come so.
            inputs = [one.to(low) if enabled and one.shape == leaves[0].shape else one for one in leaves]
            y = layer(*inputs)
        grads = pycnn.grad((y.to(np.float32) * 0.5).sum(), leaves, create_graph=recorded)
        found.append([one.data for one in (y, *grads) if one is not None])
    for single, half in zip(*found, strict=True):
        assert half.dtype in (low, np.float32)
        # A few roundings to 8 bits (11 for float16) of numbers up to 4 or so, of which up to 100 are added up.
        atol = 2.0 ** (-8 if low == "bfloat16" else -11) * 4 * np.sqrt(100) * max(1, np.abs(single).max())
        np.testing.assert_allclose(half.astype(np.float32), single, rtol=0, atol=atol)
    assert all(one.dtype == np.float32 for one in found[1][1:])  # every gradient, in its leaf's dtype


def test_it_is_what_torch_autocast_computes() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    pycnn.manual_seed(0)
    net = Cnn()
    state = {name: torch.from_numpy(value.data.copy()) for name, value in net.state_dict().items()}
    x, t = np.random.default_rng(0).standard_normal((16, 1, 8, 8), np.float32), np.arange(16) % 5

    class Peer(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            kind = torch.nn
            self.conv1, self.conv2 = kind.Conv2d(1, 8, 3, padding=1), kind.Conv2d(8, 8, 3, padding=1)
            self.norm, self.fc = kind.BatchNorm2d(8), kind.Linear(8 * 16, 5)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.norm(self.conv1(x)))
            y = torch.relu(self.conv2(x)) + x
            return self.fc(torch.nn.functional.max_pool2d(y, 2).flatten(1))

    def gradients(low: bool) -> tuple[Any, Any, dict[str, np.ndarray]]:
        peer = Peer()
        peer.load_state_dict(state)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = peer(torch.from_numpy(x))
            loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(t))
        loss.backward()
        return y, loss, {name: parameter.grad.numpy() for name, parameter in peer.named_parameters()}

    _, _, wide = gradients(low=False)
    theirs, their_loss, right = gradients(low=True)
    with amp.autocast("bfloat16"):
        ours = net(Tensor(x))
        loss = F.cross_entropy(ours, t)
    loss.backward()
    assert str(theirs.dtype) == "torch.bfloat16"
    assert str(ours.dtype) == "bfloat16"
    assert str(their_loss.dtype) == "torch.float32"
    assert loss.dtype == np.float32
    # Ten roundings to 8 bits one behind the other.
    np.testing.assert_allclose(loss.item(), their_loss.item(), rtol=10 * 2.0**-8)
    for name, tensor in net.named_parameters():
        found = tensor.grad
        assert found is not None
        assert found.dtype == np.float32
        if name == "conv1.bias":
            continue  # batch norm takes it off again: nothing but rounding is left of its gradient
        # A rounding decides which of two equal pixels is the maximum, and biases are not rounded here, so both are as
        # far from one another as two draws of the same errors: sqrt(2) times what each is off, and twice for chance.
        noise = np.linalg.norm(right[name] - wide[name])
        assert np.linalg.norm(found.data - right[name]) <= 2 * np.sqrt(2) * noise, name
