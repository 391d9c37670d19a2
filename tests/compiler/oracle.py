"""What a graph computes, in float64 by the reference backend: the truth for passes, lowering and native programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn.backends import reference
from pycnn.compiler.graph import Graph, Node, Value
from pycnn.testing.regimes import error_factor

Array = np.ndarray[Any, Any]


def values(graph: Graph, inputs: list[Array]) -> dict[Value, Array]:
    """Every value of the graph."""
    found = {value: array.astype(np.float64) for value, array in zip(graph.inputs, inputs, strict=True)}
    for node in graph.nodes:
        found[node.output] = result(node, [found[value] for value in node.inputs])
    return found


def outputs(graph: Graph, inputs: list[Array]) -> list[Array]:
    """The graph's outputs."""
    found = values(graph, inputs)
    return [found[value] for value in graph.outputs]


def result(node: Node, inputs: list[Array]) -> Array:
    """What one node makes of its inputs."""
    s, c = node.settings, {name: np.asarray(array, np.float64) for name, array in node.constants.items()}
    x = inputs[0]
    y = _OPERATIONS[node.op](s, c, *inputs)
    assert y.shape == (x.shape[0], *node.output.shape), f"{node.op} made {y.shape}, not {node.output.shape}"
    return y if s.get("clamp") is None else np.clip(y, *s["clamp"])


def bound(node: Node, inputs: list[Array], y: Array, algo: str) -> float:
    """The largest error that a convolution or full layer is allowed by the algorithm `algo`."""
    w = node.constants["w"]
    magnitudes = node.but(
        constants={name: np.abs(np.asarray(array, np.float64)) for name, array in node.constants.items()},
        settings={**node.settings, "clamp": None},
    )
    largest = result(magnitudes, [np.abs(one) for one in inputs])
    terms = math.prod(w.shape[1:])
    # One more rounding for each of: the folded weight and bias, the sum with a residual, and the result itself.
    unit = 2.0**-24
    return error_factor(algo) * math.sqrt(terms) * unit * float(largest.max(initial=0)) + 4 * unit * float(
        largest.max(initial=0)
    )


def _conv2d(s: Any, c: Any, x: Array, residual: Array | None = None) -> Array:
    y = reference.conv2d_fprop(x, c["w"], c.get("b"), s["stride"], s["padding"], s["dilation"], s["groups"])
    return y if residual is None else y + residual


def _column(vector: Array, like: Array) -> Array:
    return vector.reshape(-1, *(1,) * (like.ndim - 2))


def _affine(s: Any, c: Any, x: Array) -> Array:
    x = x * _column(c["scale"], x) if "scale" in c else x
    return x + _column(c["shift"], x) if "shift" in c else x


def _softmax(s: Any, c: Any, x: Array) -> Array:
    return (reference.log_softmax_fwd if s["log"] else reference.softmax_fwd)(x, s["axis"] + 1)


_OPERATIONS: dict[str, Any] = {
    "conv2d": _conv2d,
    "linear": lambda s, c, x: x @ c["w"].T + c.get("b", 0.0),
    "affine": _affine,
    "relu": lambda s, c, x: np.maximum(x, 0),
    "tanh": lambda s, c, x: np.tanh(x),
    "sigmoid": lambda s, c, x: 1 / (1 + np.exp(-x)),
    "activation": lambda s, c, x: reference.activation_fwd(x, s["name"], s["a"], s["b"], s["c"]),
    "add": lambda s, c, a, b: a + b,
    "mul": lambda s, c, a, b: a * b,
    "scale": lambda s, c, x, scale: x * scale,
    "permute": lambda s, c, x: x.transpose(0, *(1 + axis for axis in s["order"])),
    "concat": lambda s, c, *parts: np.concatenate(parts, s["axis"] + 1),
    "pad": lambda s, c, x: np.pad(x, ((0, 0), *s["sides"])),
    "slice": lambda s, c, x: x[
        (slice(None), *(slice(*bounds) for bounds in zip(s["starts"], s["stops"], s["steps"], strict=True)))
    ],
    "reshape": lambda s, c, x: x.reshape(x.shape[0], *s["shape"]),
    "max_pool2d": lambda s, c, x: reference.max_pool2d_fwd(
        x, s["kernel"], s["stride"], s["padding"], s["dilation"], s["ceil_mode"]
    )[0],
    "avg_pool2d": lambda s, c, x: reference.avg_pool2d_fwd(
        x, s["kernel"], s["stride"], s["padding"], s["ceil_mode"], s["count_include_pad"], s["divisor"]
    ),
    "adaptive_avg_pool2d": lambda s, c, x: reference.adaptive_avg_pool2d_fwd(x, s["size"]),
    "adaptive_max_pool2d": lambda s, c, x: reference.adaptive_max_pool2d_fwd(x, s["size"])[0],
    "mean": lambda s, c, x: x.mean((2, 3), keepdims=True),
    "lrn": lambda s, c, x: reference.lrn_fwd(x, s["size"], s["alpha"], s["beta"], s["k"]),
    "softmax": _softmax,
}
