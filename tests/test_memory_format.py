"""Channels-last: what strides say, PyTorch's names for it, and that the CPU computes the same."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import Tensor, nn, optim
from pycnn.arrays import laid
from pycnn.memory_format import is_channels_last, is_dense, lie_alike, new_array, wants_channels_last

CANONICAL = [(2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 3, 1, 5), (1, 3, 1, 1)]


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def last(x: np.ndarray) -> np.ndarray:
    placed = new_array(np.empty, x.shape, x.dtype, True)
    placed[...] = x
    return placed


@pytest.mark.parametrize("shape", CANONICAL, ids=str)
def test_strides_say_how_an_array_lies(shape: tuple[int, ...]) -> None:
    n, c, h, w = shape
    either = c == 1 or h * w == 1
    for x, marked in ((values(*shape), False), (last(values(*shape)), True)):
        assert wants_channels_last(x) == marked
        assert is_channels_last(x) == (marked or either)
        assert is_channels_last(x) == x.transpose(0, 2, 3, 1).flags.c_contiguous
        assert x.flags.c_contiguous == (not marked or either)
        assert is_dense(x)
        assert lie_alike(x, values(*shape).astype(np.float16)) == (not marked or either)
    assert not is_dense(np.zeros((n + 1, c, h + 1, 2 * w))[..., ::2])


@pytest.mark.parametrize("axis", range(4))
def test_every_other_of_what_lies_channels_last_has_gaps(axis: int) -> None:
    x = last(values(4, 6, 8, 10))
    assert is_channels_last(x)
    assert not is_dense(x[(slice(None),) * axis + (slice(None, None, 2),)])


def test_marks_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for shape in CANONICAL:
        for memory_format, marked in ((torch.channels_last, True), (torch.contiguous_format, False)):
            x = torch.zeros(shape).to(memory_format=memory_format).numpy()
            ours = new_array(np.empty, shape, np.float32, marked)
            assert x.strides == ours.strides
            assert wants_channels_last(x) == marked


def test_who_decides() -> None:
    x, pixel = values(2, 3, 4, 5), values(2, 3, 1, 1)
    assert wants_channels_last(last(x), x)
    assert not wants_channels_last(x, last(x))
    assert wants_channels_last(pixel, last(x))  # the first that lies in one way only
    assert wants_channels_last(last(pixel), pixel)  # none does: the first's strides
    assert not wants_channels_last(pixel, last(pixel))
    assert wants_channels_last(last(x)[:, 1:])  # a slice has gaps, and its order still
    assert not wants_channels_last(x[:, 1:], pixel)
    assert not wants_channels_last(np.broadcast_to(pixel, x.shape))
    assert not wants_channels_last(values(2, 3))
    assert not wants_channels_last(values(2, 3, 1, 1, 1))


@pytest.mark.parametrize("shape", CANONICAL, ids=str)
def test_laid(shape: tuple[int, ...]) -> None:
    x = values(*shape)
    there = laid(x, True)
    assert wants_channels_last(there)
    assert laid(there, True) is there
    assert laid(x, False) is x
    back = laid(there, False)
    assert not wants_channels_last(back)
    np.testing.assert_array_equal(there, x)
    np.testing.assert_array_equal(back, x)
    _, c, h, w = shape
    assert np.shares_memory(there, x) == (c == 1 or h * w == 1)  # the same memory needs no copy
    with pytest.raises(ValueError, match="only arrays of 4 axes lie channels-last"):
        laid(values(3, 4), True)


def test_tensors() -> None:
    x = Tensor(values(2, 3, 4, 5), requires_grad=True)
    y = x.contiguous(memory_format=pycnn.channels_last)
    assert (x.is_contiguous(), x.is_contiguous(pycnn.channels_last)) == (True, False)
    assert (y.is_contiguous(), y.is_contiguous(memory_format=pycnn.channels_last)) == (False, True)
    assert y.contiguous(memory_format=pycnn.channels_last) is y
    assert x.contiguous() is x
    assert x.to("cpu", memory_format=pycnn.channels_last).is_contiguous(pycnn.channels_last)
    assert y.to(np.float64, memory_format=pycnn.contiguous_format).is_contiguous()
    np.testing.assert_array_equal(y.detach().numpy(), x.detach().numpy())
    (y * Tensor(values(2, 3, 4, 5, seed=1))).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), values(2, 3, 4, 5, seed=1))
    for kept in (y.clone(), copy.deepcopy(y.detach())):
        assert kept.is_contiguous(pycnn.channels_last)
        np.testing.assert_array_equal(kept.detach().numpy(), x.detach().numpy())
    pixel = Tensor(values(2, 3, 1, 1))
    assert wants_channels_last(pixel.contiguous(memory_format=pycnn.channels_last).data)


def test_gradients_lie_as_what_they_are_of() -> None:
    """If both arrive so; a copy is made here, for the two leaves may not share one."""
    dy = values(2, 3, 4, 5, seed=1)
    for given in (last(dy), dy):
        leaves = [Tensor(last(values(2, 3, 4, 5)), requires_grad=True) for _ in range(2)]
        (leaves[0] + leaves[1]).backward(Tensor(given))
        for leaf in leaves:
            assert leaf.grad is not None
            assert leaf.grad.is_contiguous(pycnn.channels_last) == wants_channels_last(given)
            np.testing.assert_array_equal(leaf.grad.numpy(), dy)


def test_what_is_no_layout_is_refused() -> None:
    x = Tensor(values(2, 3))
    with pytest.raises(ValueError, match=r"only tensors of 4 dimensions lie channels-last, got shape \(2, 3\)"):
        x.contiguous(memory_format=pycnn.channels_last)
    for call in (
        x.contiguous,
        x.is_contiguous,
        lambda name: x.to(memory_format=name),
        lambda name: Net().to(memory_format=name),
    ):
        with pytest.raises(TypeError, match=r"memory_format must be pycnn\.channels_last or .* got 'nhwc'"):
            call("nhwc")
    assert repr(pycnn.channels_last) == "pycnn.channels_last"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.point, self.fc = nn.Conv2d(4, 5, 1), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        x = pycnn.max_pool2d(pycnn.relu(self.bn(self.conv(x))), 2)
        return self.fc(pycnn.adaptive_avg_pool2d(self.point(x), 1).flatten(1))


def test_modules() -> None:
    net = Net()
    weight, saved = net.conv.weight, {name: value.numpy().copy() for name, value in net.state_dict().items()}
    assert net.to(memory_format=pycnn.channels_last) is net
    assert net.conv.weight is weight
    for parameter in net.parameters():
        assert parameter.ndim != 4 or wants_channels_last(parameter.data)
        assert parameter.ndim == 4 or parameter.is_contiguous()
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), saved[name])
    net.load_state_dict({name: 2 * value for name, value in saved.items()})
    assert net.conv.weight.is_contiguous(pycnn.channels_last)
    np.testing.assert_array_equal(net.conv.weight.detach().numpy(), 2 * saved["conv.weight"])
    net.to("float64", memory_format=pycnn.contiguous_format)
    assert net.conv.weight.is_contiguous()
    assert net.conv.weight.dtype == np.float64


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=0.01)])
def test_the_cpu_computes_the_same(make: Any) -> None:
    """Its operators make copies in C order, so the results are the same bits; a step has its own last bits."""
    found = []
    for memory_format in (pycnn.contiguous_format, pycnn.channels_last):
        pycnn.manual_seed(3)
        net = Net().to(memory_format=memory_format)
        optimizer, losses = make(net.parameters()), []
        for step in range(3):
            x = Tensor(values(2, 3, 8, 8, seed=step)).contiguous(memory_format=memory_format)
            loss = pycnn.cross_entropy(net(x), Tensor(np.array([0, 2])))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert net.conv.weight.is_contiguous(memory_format)
        found.append(losses)
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(*found, rtol=1e-5)  # a step of the engine and one of NumPy round apart
