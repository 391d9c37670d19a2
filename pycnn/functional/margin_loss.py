"""Losses that hold scores or distances apart by a margin, in Tensor operations."""

from __future__ import annotations

from typing import Any

from pycnn.arithmetic import where
from pycnn.arrays import is_host, module_of
from pycnn.functional._arrays import composed, expect_arrays
from pycnn.functional.distance import pairwise_distance
from pycnn.functional.elementwise_loss import beside, widened
from pycnn.functional.loss import reduced
from pycnn.functional.rectifier import Activation
from pycnn.graph import Variable
from pycnn.movement import TakeAlong
from pycnn.ops._checks import flag, number
from pycnn.ops.loss import check_reduction
from pycnn.tensor import Tensor

__all__ = [
    "cosine_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "triplet_margin_loss",
]

_COSINE_EPS = 1e-12  # of cosine_embedding_loss, which adds it to the squared lengths


@composed
def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    """l = max(0, -t * (x1 - x2) + margin): x1 is to rank above x2 where t = 1, below where t = -1.

    Args:
        input1, input2: scores, broadcast; Tensors or arrays.
        target: 1 or -1, broadcast.
        margin: a finite number.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.  ValueError: an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.margin_ranking_loss(np.array([1.0]), np.array([3.0]), np.array([1.0]), 0.5)
    array(2.5)
    """
    check_reduction(reduction)
    margin = number("margin", margin)
    input1 = widened(input1)
    input2, target = beside("input2", input2, input1), beside("target", target, input1)
    return reduced((margin - target * (input1 - input2)).clamp(min=0.0), reduction)


@composed
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """l = max(0, d(anchor, positive) - d(anchor, negative) + margin), d being `pairwise_distance`.

    Args:
        anchor, positive, negative: (N, D) or (D,); Tensors or arrays.
        margin: above 0.
        p, eps: of the distance.
        swap: whether to take d(positive, negative) instead where that is smaller than d(anchor, negative).
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.  ValueError: an unknown reduction, or a margin that is not above 0.

    Reference: Balntas et al., "Learning local feature descriptors with triplets and shallow convolutional neural
    networks", BMVC 2016.

    >>> import numpy as np, pycnn
    >>> a, p, n = np.zeros((1, 2)), np.zeros((1, 2)), np.array([[3.0, 4.0]])
    >>> pycnn.functional.triplet_margin_loss(a, p, n, 6.0).round(4)
    np.float64(1.0)
    """
    check_reduction(reduction)
    margin = number("margin", margin)
    if margin <= 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    anchor = widened(anchor)
    positive, negative = beside("positive", positive, anchor), beside("negative", negative, anchor)
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if flag("swap", swap):
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return reduced((near - far + margin).clamp(min=0.0), reduction)


@composed
def cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean") -> Any:
    """l = 1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1.

    Args:
        input1, input2: (N, D), or (D,) beside a scalar target; Tensors or arrays.
        target: (N,), 1 or -1.
        margin: a finite number.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.  ValueError: an unknown reduction, or shapes that do not agree.

    >>> import numpy as np, pycnn
    >>> x = np.array([[3.0, 4.0]])
    >>> pycnn.functional.cosine_embedding_loss(x, -x, np.array([1.0]))
    array(2.)
    """
    check_reduction(reduction)
    margin = number("margin", margin)
    input1 = widened(input1)
    input2, target = beside("input2", input2, input1), beside("target", target, input1)
    if input1.shape != input2.shape or input1.shape[:-1] != target.shape or input1.ndim not in (1, 2):
        raise ValueError(
            f"input1 and input2 must be (N, D) and target (N,), or without N, got shapes {input1.shape}, "
            f"{input2.shape} and {target.shape}"
        )
    product = (input1 * input2).sum(-1)
    squares = ((input1 * input1).sum(-1) + _COSINE_EPS) * ((input2 * input2).sum(-1) + _COSINE_EPS)
    cosine = product / squares.sqrt()
    together, apart = 1.0 - cosine, (cosine - margin).clamp(min=0.0)
    loss = where((target == 1)._data, together, 0.0) + where((target == -1)._data, apart, 0.0)
    return reduced(loss, reduction)


@composed
def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
) -> Any:
    """l = sum over c other than t of weight[t] * max(0, margin - x[t] + x[c])^p, over C.

    Args:
        input: scores, (N, C) or (C,); a Tensor or an array.
        target: classes, (N,) or a scalar, ints.
        p: 1 or 2.
        margin: a finite number.
        weight: (C,), or None.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array, or classes that are no integers.
        ValueError: shapes that do not agree, an unknown reduction, another p.
        IndexError: a class outside [0, C) (looked for on the CPU alone).

    >>> import numpy as np, pycnn
    >>> pycnn.functional.multi_margin_loss(np.array([[1.0, 2.0]]), np.array([0]))
    array(1.)
    """
    check_reduction(reduction)
    margin = number("margin", margin)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2, got {p!r}")
    expect_arrays(target=target)
    input = widened(input)
    index = (target if isinstance(target, Variable) else Tensor(target))._data
    if index.dtype.kind not in "iu":
        raise TypeError(f"target must hold classes (integers), got dtype {index.dtype}")
    if input.ndim not in (1, 2) or input.shape[:-1] != (index.shape if index.shape != (1,) or input.ndim > 1 else ()):
        raise ValueError(f"target must have shape {input.shape[:-1]} for an input of {input.shape}, got {index.shape}")
    classes = input.shape[-1]
    if is_host(index) and ((index < 0) | (index >= classes)).any():
        raise IndexError(f"target holds a class outside 0 to {classes - 1}")
    index = index.reshape(*input.shape[:-1], 1)
    missed = (margin - TakeAlong.apply(input, index, input.ndim - 1) + input).clamp(min=0.0)
    missed = missed if p == 1 else missed * missed
    if weight is not None:
        weight = beside("weight", weight, input)
        if weight.shape != (classes,):
            raise ValueError(f"weight must have shape ({classes},), one value a class, got {weight.shape}")
        missed = missed * weight[index]
    others = index != module_of(index).arange(classes)
    return reduced(where(others, missed, 0.0).sum(-1) / classes, reduction)


@composed
def multilabel_soft_margin_loss(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """Mean over the classes of -weight[c] * (t log sigmoid(x) + (1 - t) log sigmoid(-x)).

    Args:
        input: scores, (N, C) or (C,); a Tensor or an array.
        target: 0 or 1, of that shape.
        weight: (C,), or None.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not an array.  ValueError: different shapes, or an unknown reduction.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.multilabel_soft_margin_loss(np.zeros((1, 3)), np.ones((1, 3))).round(4)
    np.float64(0.6931)
    """
    check_reduction(reduction)
    input = widened(input)
    target = beside("target", target, input)
    if input.shape != target.shape:
        raise ValueError(f"target must have input's shape {input.shape}, got {target.shape}")
    positive, negative = Activation.apply(input, "logsigmoid"), Activation.apply(-input, "logsigmoid")
    loss = -(target * positive + (1.0 - target) * negative)
    if weight is not None:
        loss = loss * beside("weight", weight, input)
    return reduced(loss.mean(-1), reduction)
