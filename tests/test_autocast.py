"""The block of `pycnn.amp.autocast`: how it nests, what it rounds once, and what it leaves alone."""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from mixed import normal

import pycnn
from pycnn import amp, nn, optim
from pycnn import functional as F
from pycnn.graph import Function
from pycnn.movement import Cast

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


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
