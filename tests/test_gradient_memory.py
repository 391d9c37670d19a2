"""Gradients share no memory, and are added up where nobody else looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tensors import leaf

import pycnn
from pycnn import Tensor, _cpu, autograd
from pycnn import functional as F
from pycnn.graph import Function

pytestmark = pytest.mark.usefixtures("on_reference")


def test_gradients_do_not_share_memory() -> None:
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    given = Tensor(np.ones(2))
    (a + b).backward(given)
    assert a.grad is not None
    assert b.grad is not None
    arrays = [a.grad.data, b.grad.data, given.data]
    assert not any(np.shares_memory(arrays[i], arrays[j]) for i in range(3) for j in range(i))
    a.grad.mul_(10.0)
    assert b.grad.tolist() == [1, 1]
    assert given.tolist() == [1, 1]


def test_a_saved_array_handed_out_as_a_gradient_is_copied() -> None:
    class Constant(autograd.Function):
        @staticmethod
        def forward(ctx, x, slope):
            ctx.save(slope)
            return x * slope

        @staticmethod
        def backward(ctx, dy):
            return ctx.saved[0], None

    x, slope = leaf(1.0, 1.0), np.array([2.0, 3.0])
    Constant.apply(x, slope).sum().backward(retain_graph=True)
    assert x.grad is not None
    x.grad.zero_()
    assert slope.tolist() == [2, 3]


def test_a_gradient_kept_by_a_hook_does_not_change_later() -> None:
    seen = []
    x = leaf(1.0, 2.0)
    y = x * 2.0
    y.register_hook(seen.append)
    (y * 1.0).sum().backward()
    (x * 2.0).sum().backward()
    assert seen[0].tolist() == [1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [4, 4]


class Kept(autograd.Function):
    """x, whose backward gives an array of its own and keeps hold of it."""

    @staticmethod
    def forward(ctx, x, kept):
        ctx.kept = kept
        return x * 1

    @staticmethod
    def backward(ctx, dy):
        dx = np.full(dy.shape, 5.0)
        if ctx.kept is not None:
            ctx.kept.append(dx)
        return Tensor(dx), None


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_sums_change_no_array_that_somebody_else_holds(position: int, others: int) -> None:
    kept: list[np.ndarray] = []
    x = leaf(1.0, 2.0)
    y = x * 1.0
    ways = [Kept.apply(y, None) for _ in range(others)]
    ways.insert(position, Kept.apply(y, kept))
    given = Tensor(np.array([1.0, 2.0]))
    total = y + y
    for way in ways:
        total = total + way
    total.backward(given)
    assert [array.tolist() for array in kept] == [[5, 5]]
    assert given.tolist() == [1, 2]
    assert x.grad is not None
    assert x.grad.tolist() == [2 + 5 * (1 + others), 4 + 5 * (1 + others)]


def test_sums_go_into_an_array_that_nobody_else_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = []
    monkeypatch.setattr(autograd, "add_to", lambda a, b: (sums.append(a.shape), np.add(a, b, out=a)))
    x = leaf(1.0, 2.0)
    y = x * 1.0
    (Kept.apply(y, None) + y + Kept.apply(y, None) + y).backward(Tensor(np.ones(2)))
    assert sums == [(2,)] * 3  # all of them: the two that are handed on as they came go into the two that are new
    assert x.grad is not None
    assert x.grad.tolist() == [12, 12]


def test_gradients_of_numbers_add_up() -> None:
    x = Tensor(np.array(2.0), requires_grad=True)
    y = x * 1.0
    (y + y + y * 3.0 + y * y).backward()
    assert x.grad is not None
    assert x.grad.item() == 9


def test_an_array_of_the_engines_is_taken_without_a_copy() -> None:
    x = Tensor(np.zeros((4, 3), np.float32), requires_grad=True)
    with pycnn.use_backend("cpu"):
        F.relu(x - 1.0).sum().backward()
    assert x.grad is not None
    assert _cpu.made(x.grad.data)
    assert not _cpu.made(x.grad.data[:2])
    assert not _cpu.made(x.data)


def test_memory_of_another_library_is_copied() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.ones(2)

    class Foreign(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            return Tensor(np.from_dlpack(theirs))

    x = Tensor(np.zeros(2, np.float32), requires_grad=True)
    y = Foreign.apply(x)
    (y + y).sum().backward()
    (Foreign.apply(x * 1.0) + Foreign.apply(x * 1.0)).sum().backward()
    assert x.grad is not None
    x.grad.zero_()
    assert theirs.tolist() == [1, 1]


def test_grad_is_accumulated_in_place_and_counted() -> None:
    x = leaf(1.0)
    (x * 2.0).backward()
    kept = x.grad
    assert kept is not None
    version = kept.version
    (x * 2.0).backward()
    assert x.grad is kept
    assert kept.version == version + 1


def test_a_fresh_gradient_is_taken_without_a_copy() -> None:
    made = []

    class Fresh(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            dx = np.full(2, 5.0)
            made.append(dx.__array_interface__["data"][0])
            return Tensor(dx)

    x = leaf(1.0, 2.0)
    Fresh.apply(x).sum().backward()
    assert x.grad is not None
    assert x.grad.data.__array_interface__["data"][0] == made[0]


@pytest.mark.parametrize("size", [3, 1 << 17])
def test_gradients_that_cannot_be_written_are_summed_elsewhere(size: int) -> None:
    class ReadOnly(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.copy()

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            gradient = dy._data.copy()
            gradient.flags.writeable = False
            return Tensor(gradient)

    x = Tensor(np.ones(size), requires_grad=True)
    h = x * 1
    (ReadOnly.apply(h) + ReadOnly.apply(h) + ReadOnly.apply(x)).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.full(size, 3.0))
