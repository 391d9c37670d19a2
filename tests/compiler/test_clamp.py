"""ReLU6 and other clamps as the end of an operation: bit for bit what they make of its result as a pass of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphs import Net, conv, images, varied

import pycnn
from pycnn import functional as F
from pycnn import nn, ops
from pycnn.compiler.graph import Graph
from pycnn.compiler.lower import lower
from pycnn.compiler.passes import optimized
from pycnn.compiler.tracer import trace

Forward = Callable[[Any, Any], Any]

# Name: (what is computed before the clamp, its layers, an image).  17 and 33 channels fill no vector up.
ENDS: dict[str, tuple[Forward, dict[str, nn.Module], tuple[int, ...]]] = {
    "direct": (lambda net, x: net.a(x), {"a": conv(17, 33, stride=2, algo="direct")}, (17, 9, 11)),
    "first layer": (lambda net, x: net.a(x), {"a": conv(3, 32, stride=2)}, (3, 9, 11)),
    "pointwise": (lambda net, x: net.a(x), {"a": conv(96, 40, 1)}, (96, 7, 7)),
    "batch norm": (lambda net, x: net.bn(net.a(x)), {"a": conv(20, 33, 1), "bn": nn.BatchNorm2d(33)}, (20, 5, 9)),
    "depthwise": (lambda net, x: net.a(net.p(x)), {"p": conv(3, 33), "a": conv(33, 33, groups=33)}, (3, 9, 11)),
    "depthwise, strided": (lambda net, x: net.a(x), {"a": conv(32, 32, 5, stride=2, groups=32)}, (32, 9, 11)),
    "groups of vectors": (lambda net, x: net.a(x), {"a": conv(64, 32, groups=2)}, (64, 6, 7)),
    "odd groups": (lambda net, x: net.a(x), {"a": conv(6, 10, groups=2)}, (6, 6, 7)),
    **{
        algo: (lambda net, x: net.a(x), {"a": conv(40, 33, size, algo=algo)}, (40, 11, 13))
        for algo, size in {
            "winograd_f2x2_3x3": 3,
            "winograd_f4x4_3x3": 3,
            "winograd_f6x6_3x3": 3,
            "winograd_f2x2_5x5": 5,
            "winograd_f4x4_5x5": 5,
        }.items()
    },
    "residual": (lambda net, x: net.a(x) + x, {"a": conv(33, 33, algo="direct")}, (33, 9, 11)),
    "residual, winograd": (lambda net, x: net.a(x) + x, {"a": conv(33, 33, algo="winograd_f4x4_3x3")}, (33, 9, 11)),
    "linear": (lambda net, x: net.a(x), {"a": nn.Linear(37, 33)}, (37,)),
    "affine": (lambda net, x: net.bn(F.max_pool2d(x, 2)), {"bn": nn.BatchNorm2d(17)}, (17, 6, 8)),
    "sum": (lambda net, x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2), {}, (17, 6, 8)),
    "product": (lambda net, x: F.max_pool2d(x, 2) * F.avg_pool2d(x, 2), {}, (17, 6, 8)),
    "scale": (lambda net, x: x * F.adaptive_avg_pool2d(x, 1), {}, (17, 6, 8)),
}
BOUNDS = [(0.0, 6.0), (0.0, math.inf), (-0.25, 0.3), (-math.inf, 0.2)]


def net_of(name: str, bounds: tuple[float, float] | None) -> nn.Module:
    forward, layers, _ = ENDS[name]
    end = (lambda y: y) if bounds is None else (lambda y: F.hardtanh(y, *bounds))
    return varied(Net(lambda net, x: end(forward(net, x)), **layers)).eval()


def graph_of(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    return optimized(trace(model, [shape]))


def run(graph: Graph, x: np.ndarray, engine: Any, channels_last: bool) -> np.ndarray:
    """The output, which lies in memory as the input does."""

    def moved(array: np.ndarray, *axes: int) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(axes)) if channels_last and array.ndim == 4 else array

    (value,) = graph.outputs
    y = moved(np.full((x.shape[0], *value.shape), np.nan, np.float32), 0, 2, 3, 1)
    lower(graph, x.shape[0], engine.lanes(), channels_last).program(engine, {}).run([moved(x, 0, 2, 3, 1)], [y])
    return moved(y, 0, 3, 1, 2)


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "channels last"])
@pytest.mark.parametrize("name", ENDS)
def test_a_clamp_at_the_end_is_the_clamp_of_the_result(name: str, channels_last: bool, engine: Any) -> None:
    shape = ENDS[name][2]
    x = images(3, *shape)
    x[1].flat[:7] = [np.nan, np.inf, -np.inf, -0.0, 1e30, -1e30, 0.0]  # of an image of their own
    x[2] = -0.0  # the products and scales of zeros keep their sign
    plain = graph_of(net_of(name, None), shape)
    if not isinstance(engine.lanes, type(pycnn._cpu.lanes)):
        x[1] = 1  # the played engine knows no lanes of NaN
    y = run(plain, x, engine, channels_last)
    for bounds in BOUNDS:
        graph = graph_of(net_of(name, bounds), shape)
        assert [node.op for node in graph.nodes] == [node.op for node in plain.nodes]
        assert graph.nodes[-1]["clamp"] == bounds
        found, expected = run(graph, x, engine, channels_last), ops.activation(y, "hardtanh", *bounds)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(y))
        np.testing.assert_array_equal(
            np.where(np.isnan(found), 0, found).view(np.uint32), np.where(np.isnan(found), 0, expected).view(np.uint32)
        )
        assert (found[0] != y[0]).any()


def clamps(forward: Forward) -> list[tuple[str, Any]]:
    graph = graph_of(Net(forward, a=conv(4, 4)), (4, 6, 6))
    return [(node.op, node.settings.get("clamp")) for node in graph.nodes]


def test_which_clamps_are_ends() -> None:
    relu6 = (0.0, 6.0)
    assert clamps(lambda net, x: F.relu6(net.a(x))) == [("conv2d", relu6)]
    assert clamps(lambda net, x: net.a(x).clamp(0, 6)) == [("conv2d", relu6)]
    assert clamps(lambda net, x: net.a(x).clamp(max=1.5)) == [("conv2d", (-math.inf, 1.5))]
    # Zeros would not stay so, or no bound is kept.
    assert clamps(lambda net, x: net.a(x).clamp(0.5, 6)) == [("conv2d", None), ("activation", None)]
    assert clamps(lambda net, x: net.a(x).clamp(-6, -0.5)) == [("conv2d", None), ("activation", None)]
    assert clamps(lambda net, x: net.a(x).clamp(1, -1)) == [("conv2d", None), ("activation", None)]
    # Of two, the second one is applied to the first one's bounds.
    assert clamps(lambda net, x: F.relu(net.a(x).clamp(-2, 5))) == [("conv2d", (0.0, 5.0))]
    assert clamps(lambda net, x: F.hardtanh(F.relu6(net.a(x)), -1, 1)) == [("conv2d", (0.0, 1.0))]
    assert clamps(lambda net, x: F.relu(net.a(x).clamp(max=0))) == [("conv2d", (0.0, 0.0))]
    # Before a sum it is the sum that stays; behind it the sum goes into the convolution, with its clamp.
    assert clamps(lambda net, x: F.relu6(net.a(x)) + x) == [("conv2d", relu6), ("add", None)]
    assert clamps(lambda net, x: F.relu6(net.a(x) + x)) == [("conv2d", relu6)]
    assert clamps(lambda net, x: F.relu6(net.a(F.relu6(net.a(x))) + x)) == [("conv2d", relu6), ("conv2d", relu6)]


def test_a_mobilenet_has_no_activation_of_its_own() -> None:
    with nn.init.skip():
        plan = lower(graph_of(pycnn.models.mobilenet_v2(), (3, 96, 96)), 1, 16)
    assert {step.method for step in plan.steps} == {"conv", "depthwise", "mean", "linear"}
    assert sum(step.options.get("clamp") == (0.0, 6.0) for step in plan.steps) == 35


@pytest.mark.parametrize("bounds", [(0.5, 6.0), (-6.0, -0.5), (math.nan, 6.0), (0.0, math.nan)])
def test_the_native_program_refuses_bounds_without_zero(bounds: tuple[float, float]) -> None:
    lanes = pycnn._cpu.lanes()
    view = pycnn._cpu.View(0, 1, 2, 2, 4 * lanes, 4 * lanes, 2 * lanes)
    program = pycnn._cpu.Program(1, 4 * lanes)
    with pytest.raises(ValueError, match="a clamp at the end of a step must keep zero"):
        program.add(view, view, view, bounds)


def test_a_summary_names_the_end() -> None:
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU6())
    text = pycnn.compile(net, images(1, 3, 8, 8)).summary()
    assert text.count("+ relu\n") + text.count("+ relu ") == 1
    assert "+ clamp 0..6" in text
