"""Norms of vectors, distances and angles between them, and classes as vectors, in Tensor operations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import graph
from pycnn.arithmetic import where
from pycnn.arrays import is_host, module_of
from pycnn.functional._arrays import composed, expect_arrays
from pycnn.functional.elementwise_loss import beside, widened
from pycnn.graph import Variable
from pycnn.ops._checks import axis_of, flag, integer, number, real
from pycnn.tensor import Tensor

__all__ = ["cosine_similarity", "normalize", "one_hot", "pairwise_distance"]


def vector_norm(x: Any, p: float, axis: int, keepdim: bool) -> Any:
    """(sum of |x|^p)^(1/p) along one axis, the largest |x| for an infinite p; its gradient at 0 is 0."""
    if not p > 0:
        raise ValueError(f"p must be above 0, got {p}")
    size = abs(x)
    if p == math.inf:
        return size.amax(axis, keepdim)
    if p == 1:
        return size.sum(axis, keepdim)
    if p == 2:
        total = (x * x).sum(axis, keepdim)
    else:
        nothing = (x == 0)._data  # a power below 1 has no slope there, and torch takes it as 0
        total = where(nothing, 0.0, where(nothing, 1.0, size) ** p).sum(axis, keepdim)
    nothing = (total == 0)._data
    safe = where(nothing, 1.0, total)
    return where(nothing, 0.0, safe.sqrt() if p == 2 else safe ** (1 / p))


@composed
def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """Each vector along a dimension over its norm: x / max(|x|_p, eps).

    Args:
        input: a Tensor or an array.
        p: exponent of the norm, above 0; may be infinite.
        dim: negative counts from the end.
        eps: the least divisor.

    Raises:
        TypeError: not an array.  ValueError: a dimension that there is not, or a p that is not above 0.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.normalize(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    axis = axis_of("dim", dim, input.ndim)
    input = widened(input)
    return input / vector_norm(input, real("p", p), axis, True).clamp(min=number("eps", eps, 0))


@composed
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along a dimension.

    Args:
        x1, x2: broadcast against one another; Tensors or arrays.
        dim: of the broadcast shape; negative counts from the end.
        eps: the least divisor.

    Returns:
        the broadcast shape without `dim`.

    Raises:
        TypeError: not an array.  ValueError: a dimension that there is not.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.cosine_similarity(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))
    array([0.96])
    """
    x1 = widened(x1)
    x2 = beside("x2", x2, x1)
    rank = max(x1.ndim, x2.ndim)
    axis, eps = axis_of("dim", dim, rank) - rank, number("eps", eps, 0)
    shape = np.broadcast_shapes(x1.shape, x2.shape)
    x1, x2 = (one.expand(*shape) for one in (x1, x2))
    norms = [vector_norm(one, 2.0, axis, True).clamp(min=eps) for one in (x1, x2)]
    return ((x1 / norms[0]) * (x2 / norms[1])).sum(axis)


@composed
def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """|x1 - x2 + eps|_p along the last dimension.

    Args:
        x1, x2: (N, D) or (D,), broadcast; Tensors or arrays.
        p: exponent of the norm, above 0; may be infinite.
        eps: added to each difference.
        keepdim: whether to keep the last dimension, of size 1.

    Raises:
        TypeError: not an array.  ValueError: a p that is not above 0.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.pairwise_distance(np.array([[3.0, 4.0]]), np.zeros((1, 2))).round(4)
    array([5.])
    """
    x1 = widened(x1)
    x2 = beside("x2", x2, x1)
    return vector_norm(x1 - x2 + number("eps", eps), real("p", p), -1, flag("keepdim", keepdim))


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """y[..., c] = 1 where c is the class, else 0.

    Args:
        tensor: class numbers, integers of any shape; a Tensor or an array.
        num_classes: C; -1 for one more than the largest.

    Returns:
        (..., C), int64.

    Raises:
        TypeError: no integers.  ValueError: a class below 0 or not below C (looked for on the CPU alone).

    >>> import numpy as np, pycnn
    >>> pycnn.functional.one_hot(np.array([2, 0]))
    array([[0, 0, 1],
           [1, 0, 0]])
    """
    expect_arrays(tensor=tensor)
    data = tensor._data if isinstance(tensor, Variable) else Tensor(tensor)._data
    if data.dtype.kind not in "iu":
        raise TypeError(f"tensor must hold classes (integers), got dtype {data.dtype}")
    classes = integer("num_classes", num_classes)
    if classes < 0:
        if data.size == 0:
            raise ValueError("num_classes must be given for a tensor without elements")
        classes = int(data.max()) + 1
    if is_host(data) and data.size and not (data.min() >= 0 and data.max() < classes):
        raise ValueError(f"tensor must hold classes from 0 to {classes - 1}, got {data.min()} to {data.max()}")
    module = module_of(data)
    y = (data[..., None] == module.arange(classes)).astype(np.int64)
    return graph.wrap(y) if isinstance(tensor, Variable) else y
