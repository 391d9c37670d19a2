"""TensorFlow's names and layouts of weights as PyTorch's, which are this library's.

| TensorFlow's                                | shape         | here                         | shape          |
|---|---|---|---|
| kernel, weights, filters                    | (R, S, C, K)  | weight                       | (K, C, R, S)   |
| the same of a transposed convolution        | (R, S, K, C)  | weight                       | (C, K, R, S)   |
| the same of 1 or 3 dimensions               | (..., C, K)   | weight                       | (K, C, ...)    |
| the same of a full layer                    | (in, out)     | weight                       | (out, in)      |
| depthwise_kernel, _filter, _weights         | (R, S, C, M)  | weight, groups = C           | (C M, 1, R, S) |
| that and pointwise_kernel, ... in one layer |               | depthwise.weight, pointwise.weight, pointwise.bias | |
| bias, biases                                | (K,)          | bias                         | (K,)           |
| gamma, beta                                 | (C,)          | weight, bias                 | (C,)           |
| moving_mean, moving_variance                | (C,)          | running_mean, running_var    | (C,)           |
| alpha (of PReLU)                            | (1, 1, C)     | weight                       | (C,)           |
| anything else                               |               | its name                     | as it is       |

Two things cannot be seen in a file.  A full layer after a flattened map has its inputs in the order H, W, C there, and
in the order C, H, W here: its columns must be sorted anew.  And TensorFlow's "same" padding puts the odd row and column
at the end, where a stride of 2 makes that visible.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

__all__ = ["convert"]

Array = np.ndarray[Any, Any]
Path = tuple[str, ...]

_KERNELS = ("kernel", "weights", "filters")
_DEPTHWISE = ("depthwise_kernel", "depthwise_filter", "depthwise_weights")
_POINTWISE = ("pointwise_kernel", "pointwise_filter", "pointwise_weights")
_VECTORS = {
    **{"bias": "bias", "biases": "bias", "gamma": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}


def convert(arrays: dict[Path, Array]) -> dict[Path, Array]:
    """The arrays, by layer and variable, with PyTorch's names and layouts.

    `arrays` is empty afterwards: each is let go of when it has been turned, so that they are not in memory twice.

    >>> kernel = np.zeros((3, 5, 8, 16), np.float32)
    >>> {path: array.shape for path, array in convert({("conv", "kernel"): kernel}).items()}
    {('conv', 'weight'): (16, 8, 3, 5)}
    """
    layers: dict[Path, set[str]] = defaultdict(set)
    for *layer, name in arrays:
        layers[tuple(layer)].add(name)
    separable = {layer for layer, names in layers.items() if names & {*_POINTWISE}}
    found: dict[Path, Array] = {}
    for *layer, name in list(arrays):
        array, place = arrays.pop((*layer, name)), (*layer, *_place(name, tuple(layer) in separable))
        found[(*layer, name) if place in found else place] = _laid(name, array)
    return found


def _place(name: str, separable: bool) -> Path:
    """Where a variable of a layer goes."""
    if separable:
        if name in _DEPTHWISE:
            return "depthwise", "weight"
        if name in _POINTWISE:
            return "pointwise", "weight"
        if name in ("bias", "biases"):
            return "pointwise", "bias"
    if name in (*_KERNELS, *_DEPTHWISE, "alpha"):
        return ("weight",)
    return (_VECTORS.get(name, name),)


def _laid(name: str, array: Array) -> Array:
    """A variable's array, contiguous, as PyTorch lays it."""
    if name in _DEPTHWISE and array.ndim == 4:
        r, s, c, m = array.shape
        return np.ascontiguousarray(array.transpose(2, 3, 0, 1)).reshape(c * m, 1, r, s)
    if name in (*_KERNELS, *_POINTWISE) and array.ndim >= 2:
        return np.ascontiguousarray(np.moveaxis(array, (-1, -2), (0, 1)))
    if name == "alpha" and array.shape[-1:] == (array.size,):  # shared along all other axes
        return array.reshape(-1)
    return array
