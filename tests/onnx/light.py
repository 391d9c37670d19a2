"""The light models that the package onnx ships: published networks whose weights are single numbers.

As shipped every output is the same number, which proves the structure alone.  `seeded` gives them weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["NAMES", "image", "named", "seeded", "shipped"]

FOLDER = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")
NAMES = (
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("shufflenet", "squeezenet", "vgg19", "zfnet512"),
)


def named(name: str) -> Any:
    """The model as it is shipped."""
    return onnx.load(os.path.join(FOLDER, f"light_{name}.onnx"))


def shipped(name: str) -> np.ndarray:
    """The output that is shipped with it, for an image of ones."""
    with open(os.path.join(FOLDER, f"light_{name}_output_0.pb"), "rb") as file:
        return numpy_helper.to_array(onnx.TensorProto.FromString(file.read()))


def image(model: Any) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the input that is the picture."""
    given = {tensor.name for tensor in model.graph.initializer}
    (value,) = (value for value in model.graph.input if value.name not in given)
    return value.name, tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def seeded(model: Any, seed: int) -> Any:
    """The model with weights of He et al. (2015), positive variances and scales, in the place of single numbers."""
    rng = np.random.default_rng(seed)
    graph = onnx.ModelProto.FromString(model.SerializeToString())
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    drawn: dict[str, np.ndarray] = {}
    kept = []
    roles = dict(_roles(graph.graph))
    for node in graph.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        drawn[node.output[0]] = _weights(roles.get(node.output[0], ""), shape, rng)
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    graph.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in drawn.items())
    for name, array in drawn.items():
        graph.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape))
    return graph


def _roles(graph: Any) -> Iterator[tuple[str, str]]:
    """What each constant is to the operator that reads it; through the Unsqueeze that some pass."""
    passed = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Unsqueeze"}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type == "BatchNormalization" and place:
                yield name, ("", "positive", "shift", "shift", "positive")[place]
            elif node.op_type in ("Mul", "Add"):
                yield passed.get(name, name), "positive" if node.op_type == "Mul" else "shift"


def _weights(role: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if role == "positive":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if role == "shift" or len(shape) < 2:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    return (np.sqrt(2 / np.prod(shape[1:])) * rng.standard_normal(shape)).astype(np.float32)
