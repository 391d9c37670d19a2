"""Rewriting a graph into one with fewer and larger operations.  No pass knows the instruction set or the batch.

Constants are float64 wherever something was folded into them; `rounded`, the last pass, rounds each of them once, but
for the large weights, whose scales wait until they are packed.
Dropout is gone before the first pass: in evaluation mode it hands its input on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pycnn.compiler.graph import Graph, Node, Value
from pycnn.compiler.weights import Weight

__all__ = ["PASSES", "optimized"]

_HAS_CLAMP = ("conv2d", "linear", "affine", "add", "mul", "scale")


def optimized(graph: Graph) -> Graph:
    """The graph after all passes, in their order.

    >>> from pycnn import nn
    >>> from pycnn.compiler.tracer import trace
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> [node.op for node in optimized(trace(net, [(3, 8, 8)])).nodes]
    ['conv2d', 'mean', 'reshape']
    """
    for each in PASSES:
        graph = each(graph)
    return graph


def without_identities(graph: Graph) -> Graph:
    """Without what does nothing: reshapes to the same shape or behind one another, windows and slices of everything."""
    makers = graph.makers()
    gone: dict[Value, Value] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple([gone.get(value, value) for value in node.inputs])
        node = node if inputs == node.inputs else node.but(inputs=inputs)
        if node.op == "reshape" and (maker := makers.get(inputs[0])) is not None and maker.op == "reshape":
            node = node.but(inputs=maker.inputs)
        if _is_identity(node):
            gone[node.output] = node.inputs[0]
        else:
            makers[node.output] = node
            nodes.append(node)
    return live(graph.replaced(nodes, gone))


def _is_identity(node: Node) -> bool:
    if not node.inputs or node.inputs[0].shape != node.output.shape:
        return False
    if node.op in ("reshape", "slice", "pad", "concat", "adaptive_avg_pool2d", "adaptive_max_pool2d"):
        return True
    if node.op in ("max_pool2d", "avg_pool2d"):
        simple = node["kernel"] == node["stride"] == (1, 1) and not any(node["padding"])
        return simple and node.settings.get("divisor") in (None, 1)
    if node.op == "affine":
        scale, shift = node.constants.get("scale"), node.constants.get("shift")
        return node["clamp"] is None and (scale is None or (scale == 1).all()) and (shift is None or not shift.any())
    return False


def simpler_pools(graph: Graph) -> Graph:
    """Adaptive windows that are all alike as plain ones; averages over the whole plane as `mean`."""
    nodes = []
    for node in graph.nodes:
        if node.op.startswith("adaptive"):
            node = _plain_windows(node)
        if node.op == "avg_pool2d" and node["kernel"] == node.inputs[0].shape[1:] and not any(node["padding"]):
            divisor = node["divisor"]
            if node.output.shape[1:] == (1, 1) and divisor in (None, math.prod(node["kernel"])):
                node = node.but(op="mean", settings={})
        nodes.append(node)
    return replace(graph, nodes=nodes)


def _plain_windows(node: Node) -> Node:
    kernel, stride = [], []
    for size, count in zip(node.inputs[0].shape[1:], node["size"], strict=True):
        if size % count:
            return node
        kernel.append(size // count)
        stride.append(size // count)
    how = {"kernel": tuple(kernel), "stride": tuple(stride), "padding": (0, 0, 0, 0), "ceil_mode": False}
    if node.op == "adaptive_max_pool2d":
        return node.but(op="max_pool2d", settings={**how, "dilation": (1, 1)})
    return node.but(op="avg_pool2d", settings={**how, "count_include_pad": True, "divisor": None})


def folded_affine(graph: Graph) -> Graph:
    """Scales and shifts (batch norm) taken into the weights of the layer before them, or joined with one another."""

    def fold(first: Node, second: Node) -> Node | None:
        if second.op != "affine" or first.settings.get("clamp") is not None:
            return None
        scale, shift = second.constants.get("scale"), second.constants.get("shift")
        constants = dict(first.constants)
        if first.op in ("conv2d", "linear") and len(first.inputs) == 1:
            bias = "b"
            if scale is not None:
                constants["w"] = constants["w"].scaled(scale)
        elif first.op == "affine":
            bias = "shift"
            if scale is not None:
                constants["scale"] = constants["scale"] * scale if "scale" in constants else scale
        else:
            return None
        if bias in constants:
            wide = constants[bias].astype(np.float64)
            constants[bias] = wide if scale is None else wide * scale
        if shift is not None:
            constants[bias] = constants[bias] + shift if bias in constants else shift
        settings = {**first.settings, "clamp": second["clamp"]}
        return second.but(op=first.op, inputs=first.inputs, settings=settings, constants=constants, name=first.name)

    return _merged(graph, fold)


def folded_pad(graph: Graph) -> Graph:
    """Zeros around an image as the padding of the convolution that reads it."""
    makers = graph.makers()
    nodes = []
    for node in graph.nodes:
        while node.op == "conv2d" and (pad := makers.get(node.inputs[0])) is not None and _pads_planes(pad):
            (_, (top, bottom), (left, right)) = pad["sides"]
            own = node["padding"]
            padding = (own[0] + top, own[1] + bottom, own[2] + left, own[3] + right)
            inputs = (pad.inputs[0], *node.inputs[1:])
            node = node.but(inputs=inputs, settings={**node.settings, "padding": padding})
        nodes.append(node)
    return live(replace(graph, nodes=nodes))


def _pads_planes(node: Node) -> bool:
    return node.op == "pad" and len(node["sides"]) == 3 and node["sides"][0] == (0, 0)


def fused_clamp(graph: Graph) -> Graph:
    """A ReLU, or another clamp that keeps zero, as the end of the operation before it."""

    def fuse(first: Node, second: Node) -> Node | None:
        bounds = _bounds_of(second)
        if bounds is None or first.op not in _HAS_CLAMP:
            return None
        if first["clamp"] is not None:  # what the second one makes of the first one's bounds
            low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in first["clamp"])
            bounds = low, high
        return first.but(settings={**first.settings, "clamp": bounds}, output=second.output)

    return _merged(graph, fuse)


def _bounds_of(node: Node) -> tuple[float, float] | None:
    """Of a clamp that can be the end of another operation."""
    if node.op == "relu":
        return 0.0, math.inf
    if node.op != "activation" or node["name"] != "hardtanh":
        return None
    low, high = float(node["a"]), float(node["b"])
    return (low, high) if low <= 0 <= high else None


def fused_add(graph: Graph) -> Graph:
    """A sum as the end of the convolution that makes one of its operands: of the one that is computed last, if it can.

    The convolution moves to where the sum was, so the other operand is there already.
    """
    uses, makers = graph.uses(), graph.makers()
    place = {node: i for i, node in enumerate(graph.nodes)}
    moved: dict[Node, Node] = {}  # by the sum
    taken: set[Node] = set()
    for node in graph.nodes:
        if node.op != "add":
            continue
        candidates = [makers[value] for value in node.inputs if value in makers]
        for conv in sorted(candidates, key=lambda one: place[one], reverse=True):
            fits = conv.op == "conv2d" and len(conv.inputs) == 1 and conv["clamp"] is None and conv["groups"] == 1
            if fits and uses[conv.output] == 1 and conv not in taken:
                other = node.inputs[1] if node.inputs[0] is conv.output else node.inputs[0]
                settings = {**conv.settings, "clamp": node["clamp"]}
                moved[node] = conv.but(inputs=(conv.inputs[0], other), settings=settings, output=node.output)
                taken.add(conv)
                break
    return replace(graph, nodes=[moved.get(node, node) for node in graph.nodes if node not in taken])


def flat_concats(graph: Graph) -> Graph:
    """A concatenation of concatenations along the same axis as one."""
    uses, makers = graph.uses(), graph.makers()
    nodes = []
    for node in graph.nodes:
        if node.op == "concat":
            parts: list[Value] = []
            for value in node.inputs:
                maker = makers.get(value)
                inner = maker is not None and maker.op == "concat" and maker["axis"] == node["axis"]
                parts += maker.inputs if inner and maker is not None and uses[value] == 1 else (value,)
            node = makers[node.output] = node.but(inputs=tuple(parts))
        nodes.append(node)
    return live(replace(graph, nodes=nodes))


def live(graph: Graph) -> Graph:
    """Without what no output depends on."""
    needed = set(graph.outputs)
    nodes = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            nodes.append(node)
    return replace(graph, nodes=nodes[::-1])


def weighed(graph: Graph) -> Graph:
    """The arrays of convolutions and full layers as `Weight`, so that folding into them waits until they are packed."""

    def wrapped(node: Node) -> Node:
        w = node.constants.get("w")
        if not isinstance(w, np.ndarray):
            return node
        return node.but(constants={**node.constants, "w": Weight.of(np.ascontiguousarray(w))})

    return replace(graph, nodes=list(map(wrapped, graph.nodes)))


def rounded(graph: Graph) -> Graph:
    """All other constants as float32 of the graph's own."""

    def plain(constants: Mapping[str, Any]) -> dict[str, Any]:
        return {name: array if name == "w" else np.array(array, np.float32) for name, array in constants.items()}

    return replace(graph, nodes=[node.but(constants=plain(node.constants)) for node in graph.nodes])


def _merged(graph: Graph, merge: Callable[[Node, Node], Node | None]) -> Graph:
    """Each node joined with the one before it, where `merge` makes one of the two and nothing else reads between them.

    Joined nodes stand where the first one stood if it is the only input of the second, so that sums still find the
    operand that is computed last.
    """
    uses, makers = graph.uses(), graph.makers()
    order: dict[Value, Node] = {}
    for node in graph.nodes:
        first = makers.get(node.inputs[0]) if len(node.inputs) == 1 else None
        both = merge(first, node) if first is not None and uses[first.output] == 1 else None
        if both is None or first is None:
            order[node.output] = node
        else:
            order = {
                (both.output if value is first.output else value): (both if value is first.output else kept)
                for value, kept in order.items()
            }
            makers[node.output] = both
    return replace(graph, nodes=list(order.values()))


PASSES: tuple[Callable[[Graph], Graph], ...] = (
    weighed,
    live,
    without_identities,
    simpler_pools,
    folded_affine,
    without_identities,
    folded_pad,
    fused_clamp,
    fused_add,
    flat_concats,
    rounded,
)
