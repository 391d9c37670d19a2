"""`pycnn.compile` of a network on a GPU: a captured graph behind the interface of a compiled network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from played import Gpu, playing

import pycnn
from pycnn import Tensor, nn
from pycnn.compiler import CompiledOnGpu

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with playing() as played:
        yield played


class Pair(NamedTuple):
    logits: Any
    hidden: Any


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.fc = nn.Linear(64, 3)

    def forward(self, x: Any) -> Any:
        hidden = pycnn.relu(self.bn(self.conv(x)))
        return Pair(self.fc(self.drop(pycnn.max_pool2d(hidden, 2).flatten(1))), [hidden])


def test_a_captured_network_computes_what_eager_does_and_keeps_its_results(gpu: Gpu) -> None:
    net = Net().cuda()
    x = np.random.default_rng(0).standard_normal((6, 4, 1, 8, 8), np.float32)
    compiled = pycnn.compile(net, x[0])
    assert type(compiled) is CompiledOnGpu
    net.bn.running_mean.data[...] = 0.25
    results = [compiled(Tensor(one).cuda()) for one in x]
    assert compiled.graphs == 1
    assert net.training
    assert all(module.training for module in net.modules())
    net.eval()
    for one, result in zip(x, results, strict=True):  # earlier results are not written over
        with pycnn.no_grad():
            expected = net(Tensor(one).cuda())
        assert type(result) is Pair
        assert type(result.hidden[0]) is Tensor
        assert np.array_equal(result.logits.numpy(), expected.logits.numpy())
        assert np.array_equal(result.hidden[0].numpy(), expected.hidden[0].numpy())
    assert not hasattr(compiled(x[0]).logits, "requires_grad")  # arrays for arrays


def test_an_example_on_the_gpu_is_enough(gpu: Gpu) -> None:
    flatten = nn.Sequential(nn.ReLU(), nn.Flatten())
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 2, 2), np.float32)).cuda()
    compiled = pycnn.compile(flatten, x)
    for _ in range(4):
        assert np.array_equal(compiled(x).numpy(), np.maximum(x.numpy(), 0).reshape(2, -1))
    assert compiled.graphs == 1
