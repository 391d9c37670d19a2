"""The passes: the same function in float64, fewer operations, constants rounded once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import oracle
import pytest
from graphs import GRAPHS, Net, conv, make, varied

from pycnn import functional as F
from pycnn import models, nn
from pycnn.compiler.graph import Graph
from pycnn.compiler.passes import PASSES, optimized, rounded
from pycnn.compiler.tracer import trace


def ops(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes)


def fold(model: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    return optimized(trace(model, shapes))


@pytest.mark.parametrize("name", GRAPHS)
def test_each_pass_keeps_the_function(name: str) -> None:
    model, inputs = make(name)
    graph = trace(model, [x.shape[1:] for x in inputs])
    expected = oracle.outputs(graph, inputs)
    for one in PASSES:
        graph = one(graph)
        tolerance = 1e-5 if one is rounded else 1e-12  # what rounding weights to float32 does; float64 before
        for a, b in zip(oracle.outputs(graph, inputs), expected, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max()), one.__name__
    again = optimized(graph)
    assert str(again) == str(graph), "the passes are not done after one round"


def test_a_weight_is_folded_in_float64_and_rounded_once() -> None:
    model = varied(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8, eps=0.1)))
    (node,) = fold(model, (3, 5, 5)).nodes
    w, b = (array.data.astype(np.float64) for array in (model[0].weight, model[0].bias))
    for norm in (model[1], model[2]):
        scale = norm.weight.data.astype(np.float64) / np.sqrt(norm.running_var.data.astype(np.float64) + norm.eps)
        w = w * scale[:, None, None, None]
        b = (b - norm.running_mean.data.astype(np.float64)) * scale + norm.bias.data.astype(np.float64)
    np.testing.assert_array_max_ulp(np.asarray(node.constants["w"]), w.astype(np.float32), 1)
    # Products and sums in another order: where a float64 value lies near the middle of two float32.
    np.testing.assert_array_max_ulp(node.constants["b"], b.astype(np.float32), 1)


NETWORKS = {
    # 16 blocks of three convolutions, four projections and the first layer; nothing is left between them.
    "resnet50": ((3, 224, 224), {"conv2d": 53, "max_pool2d": 1, "mean": 1, "reshape": 1, "linear": 1}),
    "resnet18": ((3, 224, 224), {"conv2d": 20, "max_pool2d": 1, "mean": 1, "reshape": 1, "linear": 1}),
    "resnet20": ((3, 32, 32), {"conv2d": 19, "slice": 2, "pad": 2, "mean": 1, "reshape": 1, "linear": 1}),
    "googlenet": (
        (3, 224, 224),
        {"conv2d": 57, "max_pool2d": 13, "concat": 9, "mean": 1, "reshape": 1, "linear": 1},
    ),
    "vgg16_bn": ((3, 224, 224), {"conv2d": 13, "max_pool2d": 5, "reshape": 1, "linear": 3}),
    "alexnet": ((3, 224, 224), {"conv2d": 5, "max_pool2d": 3, "reshape": 1, "linear": 3}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_of_the_networks(name: str) -> None:
    shape, expected = NETWORKS[name]
    with nn.init.skip():
        graph = fold(models.create(name), shape)
    assert ops(graph) == expected
    relus = sum(node.settings.get("clamp") == (0, np.inf) for node in graph.nodes)
    residuals = sum(len(node.inputs) == 2 for node in graph.nodes if node.op == "conv2d")
    if name == "resnet50":
        assert (relus, residuals) == (49, 16)  # all but the projections and the output


def test_a_sum_joins_the_convolution_that_is_computed_last() -> None:
    model, _ = make("late first")
    graph = fold(model, (3, 8, 8))
    assert [node.name for node in graph.nodes] == ["stem.0", "a", "b"]
    assert graph.nodes[-1].inputs == (graph.nodes[0].output, graph.nodes[1].output)
    # Where the last one cannot take it, the other is moved behind.
    late = Net(lambda net, x: F.relu(net.a(x) + F.max_pool2d(net.b(x), 3, 1, 1)), a=conv(3, 4), b=conv(3, 4))
    graph = fold(late, (3, 8, 8))
    assert [(node.op, node.name) for node in graph.nodes] == [("conv2d", "b"), ("max_pool2d", ""), ("conv2d", "a")]
    assert graph.nodes[-1]["clamp"] == (0, np.inf)
    assert graph.outputs == [graph.nodes[-1].output]


def unfused(function: Any, **layers: nn.Module) -> Counter[str]:
    return ops(fold(Net(function, **layers), (4, 6, 6)))


def test_what_somebody_else_reads_is_not_fused_away() -> None:
    a = conv(4, 4)
    assert unfused(lambda net, x: (y := net.a(x), F.relu(y)), a=a) == {"conv2d": 1, "relu": 1}
    assert unfused(lambda net, x: (y := net.a(x), y + x), a=a) == {"conv2d": 1, "add": 1}
    assert unfused(lambda net, x: (y := net.a(x)) + y, a=a) == {"conv2d": 1, "add": 1}
    assert unfused(lambda net, x: F.relu(net.a(x)) + x, a=a) == {"conv2d": 1, "add": 1}  # the ReLU is before the sum
    shared = {"a": a, "bn": nn.BatchNorm2d(4)}
    assert unfused(lambda net, x: (y := net.a(x), net.bn(y)), **shared) == {"conv2d": 1, "affine": 1}
    assert unfused(lambda net, x: net.bn(F.relu(net.a(x))), **shared) == {"conv2d": 1, "affine": 1}
    both = unfused(lambda net, x: (y := F.pad(x, (1, 1, 1, 1)), net.a(y)), a=a)
    assert both == {"pad": 1, "conv2d": 1}
    grouped = unfused(lambda net, x: F.relu(net.a(x) + x), a=conv(4, 4, groups=2))
    assert grouped == {"conv2d": 1, "add": 1}


def test_what_nothing_depends_on_is_dropped() -> None:
    def forward(net: Any, x: Any) -> Any:
        F.tanh(net.b(x))
        return net.a(x)

    assert unfused(forward, a=conv(4, 4), b=conv(4, 4)) == {"conv2d": 1}


def test_padding_becomes_the_convolutions_own() -> None:
    model = Net(lambda net, x: net.a(F.pad(F.pad(x, (1, 0, 2, 0)), (0, 3))), a=conv(4, 5, padding=(0, 1)))
    (node,) = fold(model, (4, 6, 6)).nodes
    assert node["padding"] == (2, 0, 2, 4)


def test_a_graph_is_printed_line_by_line() -> None:
    text = str(fold(varied(nn.Sequential(conv(3, 8, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))), (3, 8, 8)))
    assert text.splitlines()[0] == "inputs  %0 3x8x8"
    assert text.splitlines()[1].startswith("%1 = conv2d(%0)  8x4x4  stride=2x2")
    assert text.splitlines()[1].endswith("w:8x3x3x3  b:8  # 0")
    assert text.splitlines()[-1] == "outputs %2"
