"""The operators, a file a subject; importing them fills `pycnn.onnx.registry`."""

from pycnn.onnx.operators import (
    activation,
    arithmetic,
    control,
    conv,
    images,
    indexing,
    linear,
    loss,
    norm,
    pointwise,
    pool,
    quantize,
    reduction,
    regions,
    resize,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "control",
    "conv",
    "images",
    "indexing",
    "linear",
    "loss",
    "norm",
    "pointwise",
    "pool",
    "quantize",
    "reduction",
    "regions",
    "resize",
    "shape",
]
