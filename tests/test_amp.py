"""Mixed precision: the policy, `autocast`, `GradScaler`, and master copies of 16-bit parameters."""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import Tensor, amp, nn, ops, optim
from pycnn import functional as F
from pycnn.amp.policy import POLICY
from pycnn.arithmetic import Cast
from pycnn.graph import Function

RNG = np.random.default_rng(0)
FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


@pytest.fixture(params=["float16", "bfloat16"])
def low(request: pytest.FixtureRequest) -> np.dtype[Any]:
    """The 16 bits of the block."""
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return np.dtype(request.param)


def normal(*shape: int, dtype: Any = np.float32, grad: bool = False) -> Tensor:
    return Tensor(RNG.standard_normal(shape, np.float32).astype(dtype), requires_grad=grad)


# ---------------------------------------------------------------------------------------------------------- the policy


def functions() -> Iterator[type[Function]]:
    """All differentiable operations of the library."""
    waiting = list(Function.__subclasses__())
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if one.__module__.startswith("pycnn.") and one.__name__ != "_CheckpointInput":
            yield one


def test_every_operation_is_in_the_policy() -> None:
    assert set(functions()) == set(POLICY)


IMAGES = (2, 3, 6, 6)

# By public function: the rule it follows, and a call of it with tensors of a dtype; parameters are always float32.
PUBLIC: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "conv2d": ("low", lambda d: F.conv2d(normal(*IMAGES, dtype=d), normal(4, 3, 3, 3), normal(4))),
    "conv_transpose2d": ("low", lambda d: F.conv_transpose2d(normal(*IMAGES, dtype=d), normal(3, 4, 3, 3), normal(4))),
    "linear": ("low", lambda d: F.linear(normal(5, 4, dtype=d), normal(3, 4), normal(3))),
    "softmax": ("float32", lambda d: F.softmax(normal(5, 4, dtype=d), 1)),
    "log_softmax": ("float32", lambda d: F.log_softmax(normal(5, 4, dtype=d), 1)),
    "cross_entropy": ("float32", lambda d: F.cross_entropy(normal(5, 4, dtype=d), np.arange(5) % 4)),
    "nll_loss": ("float32", lambda d: F.nll_loss(normal(5, 4, dtype=d), np.arange(5) % 4)),
    "mse_loss": ("float32", lambda d: F.mse_loss(normal(5, 4, dtype=d), normal(5, 4, dtype=d))),
    "local_response_norm": ("float32", lambda d: F.local_response_norm(normal(*IMAGES, dtype=d), 3)),
    "cat": ("widest", lambda d: F.cat([normal(2, 3, dtype=d), normal(2, 3)])),
    "stack": ("widest", lambda d: F.stack([normal(2, 3, dtype=d), normal(2, 3)])),
    "where": ("widest", lambda d: F.where(normal(2, 3) > 0, normal(2, 3, dtype=d), normal(2, 3))),
    "batch_norm": ("input", lambda d: F.batch_norm(normal(*IMAGES, dtype=d), None, None, normal(3), normal(3), True)),
    "bias": ("input", lambda d: F.bias(normal(*IMAGES, dtype=d), normal(3))),
    "relu": ("input", lambda d: F.relu(normal(5, 4, dtype=d))),
    "tanh": ("input", lambda d: F.tanh(normal(5, 4, dtype=d))),
    "sigmoid": ("input", lambda d: F.sigmoid(normal(5, 4, dtype=d))),
    "max_pool2d": ("input", lambda d: F.max_pool2d(normal(*IMAGES, dtype=d), 2)),
    "avg_pool2d": ("input", lambda d: F.avg_pool2d(normal(*IMAGES, dtype=d), 2)),
    "adaptive_max_pool2d": ("input", lambda d: F.adaptive_max_pool2d(normal(*IMAGES, dtype=d), 2)),
    "adaptive_avg_pool2d": ("input", lambda d: F.adaptive_avg_pool2d(normal(*IMAGES, dtype=d), 2)),
    "dropout": ("input", lambda d: F.dropout(normal(5, 4, dtype=d), 0.5)),
    "pad": ("input", lambda d: F.pad(normal(5, 4, dtype=d), (1, 2))),
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


def test_every_public_function_has_its_rule_here() -> None:
    assert set(PUBLIC) == set(F.__all__)


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


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8 * 16, 5)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.norm(self.conv1(x)))
        return self.fc(F.flatten(F.max_pool2d(F.relu(self.conv2(x)) + x, 2), 1))


def test_it_is_what_torch_autocast_computes() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    pycnn.manual_seed(0)
    net = Cnn()
    state = {name: torch.from_numpy(value.data.copy()) for name, value in net.state_dict().items()}
    x, t = RNG.standard_normal((16, 1, 8, 8), np.float32), np.arange(16) % 5

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

    peer = Peer()
    peer.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = peer(torch.from_numpy(x))
        their_loss = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(t))
    their_loss.backward()
    with amp.autocast("bfloat16"):
        ours = net(Tensor(x))
        loss = F.cross_entropy(ours, t)
    loss.backward()
    assert str(theirs.dtype) == "torch.bfloat16"
    assert str(ours.dtype) == "bfloat16"
    assert str(their_loss.dtype) == "torch.float32"
    assert loss.dtype == np.float32
    # Both round to 8 bits in the same places but for biases; the network has some ten of them one behind the other.
    slack = 10 * 2.0**-8
    np.testing.assert_allclose(loss.item(), their_loss.item(), rtol=slack)
    for name, parameter in peer.named_parameters():
        right, found = parameter.grad.numpy(), dict(net.named_parameters())[name].grad
        assert found is not None
        assert found.dtype == np.float32
        if name == "conv1.bias":
            continue  # batch norm takes it off again: nothing but rounding is left of its gradient
        assert np.abs(found.data - right).max() <= slack * np.abs(right).max(), name


# ----------------------------------------------------------------------------------------------------------- the block


def dtype_of(x: Any, w: Any) -> str:
    return str(F.linear(x, w).dtype)


def test_blocks_nest_and_end() -> None:
    pytest.importorskip("ml_dtypes")
    x, w = normal(2, 3), normal(4, 3, grad=True)
    with amp.autocast("float16") as block:
        assert dtype_of(x, w) == "float16"
        with amp.autocast("bfloat16"):
            assert dtype_of(x, w) == "bfloat16"
            with amp.autocast(enabled=False):
                assert dtype_of(x, w) == "float32"
        with block:
            assert dtype_of(x, w) == "float16"
        assert dtype_of(x, w) == "float16"
    assert dtype_of(x, w) == "float32"
    with pytest.raises(KeyError), amp.autocast("float16"):
        raise KeyError
    assert dtype_of(x, w) == "float32"


def test_it_decorates() -> None:
    w = normal(4, 3, grad=True)

    @amp.autocast("float16")
    def forward(x: Any, deep: int) -> list[str]:
        return [dtype_of(x, w), *(forward(x, deep - 1) if deep else [])]

    assert forward(normal(2, 3), 2) == ["float16"] * 3
    assert forward.__name__ == "forward"
    assert dtype_of(normal(2, 3), w) == "float32"
    with pytest.raises(TypeError, match="cannot decorate the generator"):

        @amp.autocast("float16")
        def generate() -> Any:
            yield


def test_it_holds_for_its_thread() -> None:
    seen = []
    with amp.autocast("float16"):
        thread = threading.Thread(target=lambda: seen.append(dtype_of(normal(2, 3), normal(4, 3))))
        thread.start()
        thread.join()
    assert seen == ["float32"]


@pytest.mark.parametrize("dtype", ["float32", np.float64, "int16", "half a float", None])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype must be float16 or bfloat16, got"):
        amp.autocast(dtype)


def test_dtypes_are_known_by_name_and_as_they_are(low: np.dtype[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (str(low), low, low.type):
        assert amp.autocast(dtype).dtype == low
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ModuleNotFoundError, match=r"ml_dtypes is not installed: pip install 'pycnn\[train\]'"):
        amp.autocast("bfloat16")
    amp.autocast("float16")


def test_arrays_alone_stay_as_they_are() -> None:
    with amp.autocast("float16"):
        assert F.linear(normal(2, 3).data, normal(4, 3).data).dtype == np.float32
        assert F.linear(normal(2, 3).data, normal(4, 3)).dtype == np.float16  # an array beside a Tensor does not
        assert F.softmax(normal(2, 3, dtype=FLOAT16).data, 1).dtype == np.float16


def test_an_operation_of_the_users_is_left_alone() -> None:
    class Twice(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x + x

    with amp.autocast("float16"):
        assert Twice.apply(normal(3)).dtype == np.float32
        assert Twice.apply(normal(3, dtype=FLOAT16)).dtype == np.float16


@pytest.fixture
def casts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arrays that were converted, in turn."""
    seen: list[Any] = []
    forward = Cast.forward

    def counted(ctx: Any, x: Any, dtype: Any) -> Any:
        seen.append(x)
        return forward(ctx, x, dtype)

    monkeypatch.setattr(Cast, "forward", staticmethod(counted))
    return seen


def test_a_parameter_is_rounded_once_a_block(casts: list[Any]) -> None:
    x, w = normal(2, 3, dtype=FLOAT16), normal(3, 3, grad=True)
    for _ in range(2):
        with amp.autocast("float16"):
            y = F.linear(F.linear(F.linear(x, w), w), w)
    assert len(casts) == 2
    y.sum().backward()
    assert w.grad is not None
    expected = normal(3, 3, grad=True)
    expected.data = w.data.astype(np.float16).astype(np.float32)
    F.linear(F.linear(F.linear(x.to(np.float32), expected), expected), expected).sum().backward()
    assert expected.grad is not None
    # Three products, each rounded to 11 bits, and their sum, of numbers up to 30 or so.
    np.testing.assert_allclose(w.grad.data, expected.grad.data, rtol=0, atol=2.0**-11 * 30 * 4)


def test_a_parameter_that_changes_is_rounded_again() -> None:
    x, w = pycnn.ones(1, 1), pycnn.ones(1, 1, requires_grad=True)
    sgd = optim.SGD([w], lr=0.25)
    with amp.autocast("float16"):
        F.linear(x, w).sum().backward()
        sgd.step()
        assert F.linear(x, w).item() == 0.75
        w.data = w.data * 2
        assert F.linear(x, w).item() == 1.5


def test_what_was_rounded_without_a_gradient_has_one_afterwards() -> None:
    x, w = pycnn.ones(1, 1), pycnn.ones(1, 1, requires_grad=True)
    with amp.autocast("float16"):
        with pycnn.no_grad():
            assert not F.linear(x, w).requires_grad
        F.linear(x, w).sum().backward()
        with pycnn.no_grad():
            assert not F.linear(x, w).requires_grad
    assert w.grad is not None


def test_backward_inside_the_block_is_backward_behind_it() -> None:
    gradients = []
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), normal(5, 4)
    for inside in (True, False):
        net.zero_grad()
        with amp.autocast("float16"):
            loss = F.cross_entropy(net(x), np.arange(5) % 3)
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        gradients.append(
            [parameter.grad.data.tobytes() for parameter in net.parameters() if parameter.grad is not None]
        )
    assert gradients[0] == gradients[1]


def test_backward_of_what_was_computed_in_float32_stays_in_float32() -> None:
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), normal(5, 4)
    gradients = []
    for enabled in (False, True):
        net.zero_grad()
        loss = F.cross_entropy(net(x), np.arange(5) % 3)
        with amp.autocast("float16", enabled):
            loss.backward()
        gradients.append(
            [parameter.grad.data.tobytes() for parameter in net.parameters() if parameter.grad is not None]
        )
    assert gradients[0] == gradients[1]


def test_rounded_parameters_go_with_their_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    forward = Cast.forward

    def watched(ctx: Any, x: Any, dtype: Any) -> Any:
        y = forward(ctx, x, dtype)
        made.append(weakref.ref(y))
        return y

    monkeypatch.setattr(Cast, "forward", staticmethod(watched))
    net, x = nn.Linear(3, 3), normal(2, 3, grad=True)
    with amp.autocast("float16"):
        y = pycnn.autograd.checkpoint(net, x)  # which remembers the block, to be run again as it was
        assert any(one() is not None for one in made)
    assert [one() for one in made] == [None] * len(made)
    assert y.requires_grad


def test_a_checkpointed_segment_is_computed_again_as_it_was() -> None:
    net, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), normal(2, 1, 8, 8, grad=True)
    found = []
    for run in (net, lambda x: pycnn.autograd.checkpoint(net, x)):
        net.zero_grad()
        x.grad = None
        with amp.autocast("float16"):
            y = run(x)
        y.sum().backward()
        assert x.grad is not None
        found.append([y.data.tobytes(), x.grad.data.tobytes(), *[p.grad.data.tobytes() for p in net.parameters()]])  # type: ignore[union-attr]
    assert found[0] == found[1]


def test_changes_in_place_keep_the_dtype() -> None:
    x = pycnn.zeros(3)
    with amp.autocast("float16"):
        x += F.linear(pycnn.ones(1, 2), pycnn.ones(3, 2, requires_grad=True)).squeeze(0)
    assert x.dtype == np.float32
    assert x.data.tolist() == [2, 2, 2]
    assert x.requires_grad


def test_what_is_compiled_stays_in_float32() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(normal(3, 5)), nn.Parameter(normal(5, 72))

        def forward(self, x: Any) -> Any:
            return F.linear(x, self.a @ self.b)  # of parameters alone: it is computed while the network is followed

    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), Product()), normal(2, 1, 8, 8)
    expected = pycnn.compile(net, x)(x)
    with amp.autocast("float16"):
        compiled = pycnn.compile(net, x)
        assert np.array_equal(compiled(x).data, expected.data)


def test_a_residual_of_another_dtype_is_brought_to_that_of_x() -> None:
    x, r = normal(4, 3, 2, 2, dtype=FLOAT16), normal(4, 3, 2, 2, grad=True)
    for training in (True, False):
        how = (np.zeros(3, np.float32), np.ones(3, np.float32), None, None, training)
        with pytest.raises(TypeError, match="residual must have x's dtype float16, got float32"):
            F.batch_norm(x, *how, residual=r)
        with amp.autocast("float16"):
            y = F.batch_norm(x, *how, residual=r)
        assert y.dtype == np.float16
        r.grad = None
        y.sum().backward()
        assert r.grad is not None
        assert r.grad.dtype == np.float32


# ----------------------------------------------------------------------------------------------------------- the scale


def of(gradients: Any, dtype: Any = np.float32, kind: Any = optim.SGD, **options: Any) -> tuple[Any, Any]:
    """Parameters of these shapes with an optimiser, float32 if not said."""
    params = [Tensor(np.ones(np.shape(one)).astype(dtype), requires_grad=True) for one in gradients]
    return params, kind(params, **({"lr": 0.1} | options))


def give(params: list[Tensor], gradients: Any, factor: float) -> None:
    for parameter, gradient in zip(params, gradients, strict=True):
        parameter.grad = Tensor((np.asarray(gradient, np.float32) * np.float32(factor)).astype(parameter.dtype))


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
