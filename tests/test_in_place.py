"""Changes in place: of what a graph has saved, which is an error, and recorded ones, which differentiate."""

from __future__ import annotations

import numpy as np
import pytest
from tensors import leaf, normal

import pycnn
from pycnn import Tensor, autograd
from pycnn.testing.gradcheck import gradcheck, gradgradcheck

pytestmark = pytest.mark.usefixtures("on_reference")


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
