"""Recording, walking back, modes, hooks, lifetime: the graph itself."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from tensors import leaf, normal

import pycnn
from pycnn import Tensor, autograd
from pycnn import functional as F
from pycnn.testing.gradcheck import gradcheck, gradgradcheck

pytestmark = pytest.mark.usefixtures("on_reference")


# ---------------------------------------------------------------------------------------------------- the walk back


def test_backward_adds_up_the_ways_through_a_graph() -> None:
    x = leaf(3.0)
    y = x * x
    z = y * y + y + x  # x^4 + x^2 + x
    z.backward()
    assert x.grad is not None
    assert x.grad.item() == 4 * 27 + 2 * 3 + 1


def test_backward_accumulates_over_calls() -> None:
    x = leaf(2.0)
    (x * x).backward()
    (x * 3.0).backward()
    assert x.grad is not None
    assert x.grad.item() == 7
    x.zero_grad()
    assert x.grad is None


@pytest.mark.parametrize("length", [10_000, 100_000])
def test_deep_graph_needs_no_recursion(length: int) -> None:
    x = leaf(1.0)
    y = x
    for _ in range(length):
        y = y + 1.0
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 1
    del y  # freeing the chain must not recurse either


def test_wide_diamonds_visit_each_node_once() -> None:
    # 2^40 paths from end to start: anything but one visit a node would not finish.
    x = leaf(1.0)
    y = x
    for _ in range(40):
        y = y + y
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 2.0**40


def test_backward_calls_each_node_once() -> None:
    calls = []

    class Count(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            calls.append(dy.item())
            return dy

    x = leaf(1.0)
    y = Count.apply(x)
    (y * 2.0 + y * 3.0 + y).backward()
    assert calls == [6.0]


def test_gradients_nobody_needs_are_not_computed() -> None:
    asked = []

    class Watch(autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, dy):
            asked.append(ctx.needs_input_grad)
            return dy if ctx.needs_input_grad[0] else None, dy if ctx.needs_input_grad[1] else None

    x, w = leaf(1.0), leaf(2.0)
    Watch.apply(x, Tensor([1.0], dtype=np.float64)).backward()
    y = Watch.apply(x, w)
    autograd.grad(y, w, retain_graph=True)
    y.backward()
    assert asked == [(True, False), (False, True), (True, True)]


def test_grad_walks_only_towards_its_inputs() -> None:
    class Explode(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            raise AssertionError("not on the way")

    x, w = leaf(1.0), leaf(2.0)
    y = Explode.apply(x) * (w * 3.0)
    (dw,) = autograd.grad(y, w)
    assert dw is not None
    assert dw.item() == 3


def test_grad_of_inner_tensors_and_of_several_outputs() -> None:
    x = leaf(2.0)
    y = x * x
    z = y * 3.0
    dy, dx = autograd.grad([z, y], [y, x], [None, Tensor(np.array([10.0]))])
    assert dy is not None
    assert dx is not None
    assert (dy.item(), dx.item()) == (13.0, 13.0 * 4)
    assert x.grad is None


def test_grad_gives_an_input_that_appears_twice_twice() -> None:
    x = leaf(2.0)
    first, second = autograd.grad(x * x, [x, x])
    assert first is not None
    assert second is not None
    assert first.item() == second.item() == 4


def test_grad_of_an_unused_input() -> None:
    x, w = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match=r"inputs\[1\] was not used"):
        autograd.grad(x * 2.0, [x, w])
    assert autograd.grad(x * 2.0, [x, w], allow_unused=True)[1] is None


def test_grad_leaves_needs_input_grad_as_recorded() -> None:
    x, w = leaf(1.0), leaf(2.0)
    y = x * w
    autograd.grad(y, x, retain_graph=True)
    y.backward()
    assert w.grad is not None


def test_second_backward_says_what_to_do() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_retain_graph_allows_another_backward() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 8


def test_graph_without_saved_arrays_can_be_walked_again() -> None:
    x = leaf(2.0)
    y = x + 1.0
    y.backward()
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 2


def test_create_graph_differentiates_gradients() -> None:
    x = leaf(2.0)
    (d1,) = autograd.grad(x**4, x, create_graph=True)
    (d2,) = autograd.grad(d1, x, create_graph=True)
    (d3,) = autograd.grad(d2, x)
    assert d1 is not None
    assert d2 is not None
    assert d3 is not None
    assert [d.item() for d in (d1, d2, d3)] == [32, 48, 48]


def test_backward_with_create_graph_gives_grad_a_history() -> None:
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert x.grad is not None
    assert x.grad.requires_grad
    (d2,) = autograd.grad(x.grad, x)
    assert d2 is not None
    assert d2.item() == 18


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: Tensor([1.0]).backward(), "does not require a gradient"),
        (lambda x: (x * 1.0).backward(), "one element"),
        (lambda x: (x * 1.0).backward(Tensor([1.0])), "must have the tensor's shape"),
        (lambda x: autograd.grad(x.sum(), Tensor([1.0])), r"inputs\[0\] does not require"),
        (lambda x: autograd.grad(x.sum(), x, [None, None]), "grad_outputs must have one entry"),
        (lambda x: autograd.grad(3.0, x), "not iterable"),
    ],
)
def test_bad_calls_name_what_is_wrong(call, message: str) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
        call(leaf(1.0, 2.0))


def test_backward_with_a_wrong_number_of_gradients_is_named() -> None:
    class Forgetful(autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, dy):
            return dy

    with pytest.raises(RuntimeError, match=r"Forgetful.backward returned 1 gradients for 2"):
        Forgetful.apply(leaf(1.0), leaf(1.0)).backward()


def test_backward_with_a_wrong_shape_is_named() -> None:
    class Wrong(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, dy):
            return dy

    with pytest.raises(RuntimeError, match=r"shape \(\) reached a tensor of shape \(2,\)"):
        Wrong.apply(leaf(1.0, 2.0)).backward()


# ----------------------------------------------------------------------------------------------------------- modes


def test_no_grad_records_nothing() -> None:
    x = leaf(1.0)
    with autograd.no_grad():
        y = x * 2.0
        assert not autograd.is_grad_enabled()
        with autograd.enable_grad():
            z = x * 2.0
    assert not y.requires_grad
    assert z.requires_grad
    assert autograd.is_grad_enabled()


def test_no_grad_decorates_functions_but_not_generators() -> None:
    @autograd.no_grad()
    def double(x: Tensor) -> Tensor:
        """Twice x."""
        return x * 2.0

    assert not double(leaf(1.0)).requires_grad
    assert double.__doc__ == "Twice x."
    with pytest.raises(TypeError, match="generator"):

        @autograd.no_grad()
        def numbers() -> Iterator[int]:
            yield 1


def test_no_grad_ends_with_an_exception() -> None:
    with pytest.raises(ValueError, match="out"), autograd.no_grad():
        raise ValueError("out")
    assert autograd.is_grad_enabled()


def test_no_grad_holds_for_one_thread() -> None:
    found = []
    with autograd.no_grad():
        thread = threading.Thread(target=lambda: found.append(autograd.is_grad_enabled()))
        thread.start()
        thread.join()
    assert found == [True]


def test_detach_shares_the_array_and_not_the_history() -> None:
    x = leaf(1.0)
    y = (x * 2.0).detach()
    assert not y.requires_grad
    assert np.shares_memory(x.detach().data, x.data)


def test_integer_outputs_have_no_gradient() -> None:
    y, indices = F.max_pool2d(normal(1, 1, 4, 4), 2, return_indices=True)
    assert y.requires_grad
    assert not indices.requires_grad


# ----------------------------------------------------------------------------------------------------------- hooks


def test_hook_on_a_leaf_sees_the_whole_gradient_and_may_change_it() -> None:
    x = leaf(1.0)
    seen = []

    def double(gradient: Tensor) -> Tensor:
        seen.append(gradient.item())
        return gradient * 2.0

    remove = x.register_hook(double)
    (x * 3.0 + x * 4.0).backward()
    assert seen == [7.0]
    assert x.grad is not None
    assert x.grad.item() == 14
    remove()
    x.zero_grad()
    (x * 3.0).backward()
    assert x.grad is not None
    assert x.grad.item() == 3


def test_hook_on_an_inner_tensor_changes_what_flows_on() -> None:
    x = leaf(1.0)
    y = x * 2.0
    y.register_hook(lambda gradient: gradient * 10.0)
    (y + y).backward()
    assert x.grad is not None
    assert x.grad.item() == 40


def test_retain_grad_keeps_an_inner_gradient() -> None:
    x = leaf(1.0)
    y = x * 2.0
    y.retain_grad()
    (y * 3.0).backward()
    assert y.grad is not None
    assert y.grad.item() == 3


def test_hook_needs_a_tensor_with_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="requires a gradient"):
        Tensor([1.0]).register_hook(print)


# ------------------------------------------------------------------------------------------------------- lifetime


def test_a_graph_is_freed_without_the_garbage_collector() -> None:
    x = normal(2, 3, 6, 6)
    w = normal(3, 3, 3, 3, seed=1)
    gc.disable()
    try:
        h = F.relu(F.conv2d(x, w, padding=1))
        h = F.max_pool2d(F.tanh(h).exp() * h, 2)
        h = F.batch_norm(h, training=True).sqrt() ** 2.0
        h += h * 2.0
        loss = F.softmax(h.flatten(1), 1).amax()
        nodes = []
        stack = [loss.grad_fn]
        while stack:
            node = stack.pop()
            if isinstance(node, autograd.Function):
                nodes.append(weakref.ref(node))
                stack.extend(node._edges)
        arrays = weakref.ref(h.data)
        del stack, node, h, loss
        assert len(nodes) > 10
        assert [ref() for ref in nodes if ref() is not None] == []
        assert arrays() is None
    finally:
        gc.enable()


def test_backward_frees_what_was_saved() -> None:
    x = leaf(1.0, 2.0)
    inner = x * 2.0
    array = weakref.ref(inner.data)
    y = (inner * inner).sum()
    del inner
    assert array() is not None
    y.backward()
    assert array() is None


def test_an_output_saved_by_its_own_node_is_no_cycle() -> None:
    y = leaf(1.0).exp()
    node = weakref.ref(y.grad_fn)
    gc.disable()
    try:
        del y
        assert node() is None
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------------------ gradcheck itself


class _Wrong(autograd.Function):
    """A square whose first or second derivative is wrong."""

    @staticmethod
    def forward(ctx, x, which):
        ctx.save(x)
        ctx.which = which
        return x * x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved
        slope = x if ctx.which == "first" else x.detach() * 2.0 if ctx.which == "second" else x * 2.0
        return dy * slope, None


def test_gradcheck_catches_a_wrong_gradient() -> None:
    x = leaf(1.0, 2.0)
    gradcheck(lambda t: _Wrong.apply(t, "none"), x)
    gradgradcheck(lambda t: _Wrong.apply(t, "none"), x)
    with pytest.raises(AssertionError, match="input 0 at"):
        gradcheck(lambda t: _Wrong.apply(t, "first"), x)
    gradcheck(lambda t: _Wrong.apply(t, "second"), x)
    with pytest.raises(AssertionError, match="input 0 at"):
        gradgradcheck(lambda t: _Wrong.apply(t, "second"), x)


def test_gradcheck_refuses_what_it_cannot_check() -> None:
    with pytest.raises(ValueError, match="float64"):
        gradcheck(lambda t: t, Tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="requires_grad"):
        gradcheck(lambda t: t, Tensor([1.0]))


@pytest.mark.parametrize("detached_first", [False, True])
@pytest.mark.parametrize("other", ["detach", "array", "leaf"])
def test_arguments_that_share_an_array_are_told_apart(other: str, detached_first: bool) -> None:
    """f = (a * c)**2 with c = a's value held constant: f' = 2 a c^2 = 54 and f'' = 2 c^2 = 18 at 3."""
    data = np.array([3.0])
    a = pycnn.Tensor(data, requires_grad=True)
    c = {"detach": a.detach(), "array": data, "leaf": pycnn.Tensor(data)}[other]
    product = c * a if detached_first else a * c
    (first,) = pycnn.grad((product**2).sum(), [a], create_graph=True)
    (second,) = pycnn.grad(first.sum(), [a])
    assert (first.item(), second.item()) == (54, 18)
