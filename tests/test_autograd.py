"""Recording, walking back, hooks, versions, checkpointed segments: the graph itself."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import Tensor, _cpu, autograd
from pycnn import functional as F
from pycnn.graph import Function
from pycnn.testing.gradcheck import gradcheck, gradgradcheck


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    with pycnn.use_backend("reference"):
        yield


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


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


# --------------------------------------------------------------------------------------- gradients share no memory


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


# ----------------------------------------------------------------------------------- changes of what was saved


CHANGES = {
    "mul_": lambda t: t.mul_(2.0),
    "iadd": lambda t: t.__iadd__(1.0),
    "copy_": lambda t: t.copy_(np.zeros(3)),
    "fill_": lambda t: t.fill_(1.0),
    "zero_": lambda t: t.zero_(),
    "setitem": lambda t: t.__setitem__(0, 5.0),
    "view": lambda t: t[1:].add_(1.0),
    "view of a view": lambda t: t.reshape(1, 3)[:, :2].zero_(),
    "detached": lambda t: t.detach().add_(1.0),
    "data": lambda t: setattr(t, "data", np.zeros(3)),
    "same array": lambda t: Tensor(t).add_(1.0),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("saved", ["leaf", "output", "view"])
def test_a_saved_tensor_changed_in_place_raises(change: str, saved: str) -> None:
    x = leaf(1.0, 2.0, 3.0)
    if saved == "leaf":
        target, y = x, x * x
    elif saved == "output":
        target = y = x.exp()
    else:
        target = x * 1.0
        y = target.reshape(3, 1) ** 2
    with autograd.no_grad():
        CHANGES[change](target)
    with pytest.raises(RuntimeError, match=r"changed in place \(it was at version"):
        y.sum().backward()


def test_a_change_of_what_was_not_saved_is_fine() -> None:
    x = leaf(1.0, 2.0)
    y = x + 1.0
    z = y * 3.0
    with autograd.no_grad():
        y.zero_()  # neither x + 1 nor y * 3 needs y
    z.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 3]


def test_changes_behind_our_back_are_found_in_debug_mode_only() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    x.data[0] = 5.0
    y.sum().backward()  # documented: not seen
    with autograd.detect_changes():
        y = x * x
    x.data[0] = 7.0
    with pytest.raises(RuntimeError, match=r"Mul saved .* behind the back"):
        y.sum().backward()


def test_set_debug_switches_hashing_for_good() -> None:
    x = leaf(1.0, 2.0)
    autograd.set_debug(True)
    try:
        y = x * x
        y.sum().backward()
        y = x * x
    finally:
        autograd.set_debug(False)
    x.data[1] = 0.0
    with pytest.raises(RuntimeError, match="behind the back"):
        y.sum().backward()


# ------------------------------------------------------------------------------------------- recorded in-place work


def test_recorded_changes_differentiate() -> None:
    x, w = normal(3, 4), normal(3, 4, seed=1)

    def chain(x: Tensor, w: Tensor) -> Tensor:
        y = x * 1.0
        y.add_(w)
        y.sub_(w * w, alpha=3)
        y.div_(2.0)
        y[1] = w[0] * 2.0
        y[:, 1:3] += x[:, :2]
        y.clamp_(min=-10.0)
        return y.exp()

    gradcheck(chain, (x, w))
    gradgradcheck(chain, (x, w))


def test_recorded_writes_into_a_plain_tensor() -> None:
    def build(a: Tensor, b: Tensor) -> Tensor:
        out = pycnn.zeros(2, 3, dtype=np.float64)
        out[0] = a
        out[1].detach()
        out[1] = b * a
        return out * out

    gradcheck(build, (normal(3), normal(3, seed=1)))


def test_fill_and_copy_cut_the_old_history() -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = x * 2.0
    y.copy_(w)
    y.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0]
    z = x * 2.0
    z.zero_()
    assert z.tolist() == [0, 0]


def test_a_leaf_cannot_be_changed_while_recording() -> None:
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match="leaf that requires a gradient"):
        x.add_(1.0)
    with autograd.no_grad():
        x.add_(1.0)
    assert x.item() == 2


def test_an_old_view_of_a_recorded_change_is_not_used_silently() -> None:
    y = leaf(1.0, 2.0) * 1.0
    view = y[:1]
    y.mul_(leaf(3.0, 3.0))
    with pytest.raises(RuntimeError, match="take the view again"):
        view * 2.0
    assert (y[:1] * 2.0).item() == 6


def test_a_base_changed_through_a_view_is_not_used_silently() -> None:
    y = leaf(1.0, 2.0) * 1.0
    y[:1].mul_(leaf(3.0))
    with pytest.raises(RuntimeError, match="shares memory"):
        y.sum()


def test_in_place_keeps_dtype_and_shape() -> None:
    x = Tensor(np.ones(2, np.float32))
    x += np.ones(2, np.float32)
    assert x.dtype == np.float32
    y = leaf(1.0) * 1.0
    with pytest.raises(ValueError, match="cannot hold"):
        y.add_(leaf(1.0, 2.0))


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


# --------------------------------------------------------------------------------------------------- checkpointing


def block(x: Tensor, w: Tensor) -> Tensor:
    h = F.dropout(F.tanh(F.linear(x, w)), 0.3)
    return F.softmax(h * h, 1).exp()


@pytest.mark.parametrize("times", [1, 2])
def test_checkpoint_changes_no_bit(times: int) -> None:
    results = []
    for use in (False, True):
        pycnn.manual_seed(7)
        x, w = normal(4, 5), normal(5, 5, seed=1)
        y = x
        for _ in range(times):
            y = autograd.checkpoint(block, y, w) if use else block(y, w)
        after = pycnn.random.get_state()
        (y * y).sum().backward()
        assert pycnn.random.get_state() == after
        assert x.grad is not None
        assert w.grad is not None
        results.append((y.data, x.grad.data, w.grad.data))
    for plain, saved in zip(*results, strict=True):
        assert np.array_equal(plain, saved)


def test_checkpoint_nests_and_takes_parameters_from_outside() -> None:
    x, w = normal(3, 4), normal(4, 4, seed=1)

    def inner(h: Tensor) -> Tensor:
        return F.tanh(F.linear(h, w)) * h

    def outer(h: Tensor) -> Tensor:
        return autograd.checkpoint(inner, inner(h)).exp() * h

    gradients = []
    for function in (outer, lambda h: inner(inner(h)).exp() * h, lambda h: autograd.checkpoint(outer, h)):
        gradients.append(autograd.grad(function(x).sum(), [x, w]))
    for dx, dw in gradients[1:]:
        assert np.array_equal(dx.data, gradients[0][0].data)
        assert np.array_equal(dw.data, gradients[0][1].data)


def test_checkpoint_can_be_differentiated_twice() -> None:
    gradcheck(lambda x: autograd.checkpoint(lambda t: F.tanh(t) * t, x), (normal(3),))
    gradgradcheck(lambda x: autograd.checkpoint(lambda t: F.tanh(t) * t, x), (normal(3),))


def test_checkpoint_keeps_only_its_inputs() -> None:
    inner: list[weakref.ref] = []

    def watched(x: Tensor) -> Tensor:
        h = x * 2.0
        inner.append(weakref.ref(h.data))
        return (h * h).exp()

    x = leaf(0.1, 0.2)
    y = autograd.checkpoint(watched, x)
    assert inner[0]() is None
    y.sum().backward()
    assert len(inner) == 2
    assert inner[1]() is None


def test_checkpoint_with_retain_graph_computes_again() -> None:
    x = leaf(0.5)
    y = autograd.checkpoint(lambda t: (t * t).exp(), x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.item(), 2 * 2 * 0.5 * np.exp(0.25), rtol=1e-15)


def test_checkpoint_notices_a_changed_input_and_a_changed_function() -> None:
    x = leaf(0.5)
    h = x * 1.0
    y = autograd.checkpoint(lambda t: t.exp().exp(), h)
    with autograd.no_grad():
        h.zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    calls = []

    def moody(t: Tensor) -> Tensor:
        calls.append(1)
        return t.exp() if len(calls) == 1 else t.exp().exp()

    with pytest.raises(RuntimeError, match="must do the same"):
        autograd.checkpoint(moody, x).backward()


def test_checkpoint_updates_running_statistics_once() -> None:
    mean, var = Tensor(np.zeros(2)), Tensor(np.ones(2))
    x = normal(5, 2)
    inner = lambda t: autograd.checkpoint(lambda u: F.batch_norm(u, mean, var, training=True), t)  # noqa: E731
    autograd.checkpoint(inner, x).sum().backward()
    np.testing.assert_allclose(mean.data, 0.1 * x.data.mean(0), rtol=1e-14)


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
