"""Raw negative log-likelihood on arrays, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import expect_shape, integer
from pycnn.shape import whole

REDUCTIONS = ("mean", "sum", "none")


def nll(
    x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """Negative log-likelihood of class indices.

        l[n, ...] = -weight[t] * x[n, t, ...] with t = target[n, ...]

    Args:
        x: log-probabilities, (N, C, ...); float16, bfloat16, float32 or float64.
        target: integers, (N, ...), each 0 .. C - 1 or `ignore_index`.
        weight: (C,), or None for 1.
        ignore_index: targets of this index count for nothing, whatever x holds there.
        reduction: "mean" (the sum of l over that of weight[t]), "sum" or "none".

    Returns:
        A 0-d array, or l for "none".

    Raises:
        TypeError: not an array, an unsupported dtype, or a target that holds no integers.
        ValueError: a wrong rank or shape, or an unknown reduction.
        IndexError: a target that is neither a class nor `ignore_index`.

    >>> import numpy as np
    >>> nll(np.array([[-2.0, -1.0], [-3.0, -4.0]]), np.array([0, 1]))
    array(3.)
    """
    call = Call("weight", x=x, weight=weight)
    x, weight = call.arrays
    found = _target(call, target, x.shape, "x", weight, reduction)
    ignored = integer("ignore_index", ignore_index)
    try:
        y = call.backend.nll_fwd(x, found, weight, ignored, reduction)
    except IndexError:
        raise _no_class(found, ignored, x.shape[1]) from None
    return call.back(y)


def nll_backward(
    dy: Array,
    target: Array,
    weight: Array | None,
    x_shape: Sequence[int],
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """Gradient of `nll`: -weight[t] * dy at each target's class, over the sum of weight[t] for "mean"; 0 elsewhere.

    Args:
        dy: gradient of the loss, 0-d, or of target's shape for "none".
        target, weight, ignore_index, reduction: as in `nll`.
        x_shape: (N, C, ...) of x.

    Returns:
        dx of shape `x_shape`.

    Raises:
        TypeError, ValueError, IndexError: as `nll`; also a dy of another shape than the loss's.

    >>> import numpy as np
    >>> nll_backward(np.array(1.0), np.array([0, 1]), None, (2, 2))
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    call = Call("weight", dy=dy, weight=weight)
    dy, weight = call.arrays
    sizes = tuple([whole("x_shape", size, 0) for size in x_shape])
    found = _target(call, target, sizes, "x_shape", weight, reduction)
    expect_shape("dy", dy.shape, found.shape if reduction == "none" else (), "the loss's shape")
    ignored = integer("ignore_index", ignore_index)
    try:
        dx = call.backend.nll_bwd(dy, found, weight, sizes, ignored, reduction)
    except IndexError:
        raise _no_class(found, ignored, sizes[1]) from None
    return call.back(dx)


def check_reduction(reduction: str) -> None:
    """ValueError unless it is one of `REDUCTIONS`."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be mean, sum or none, got {reduction!r}")


def _target(call: Call, target: Array, shape: tuple[int, ...], name: str, weight: Array | None, reduction: str) -> Any:
    check_reduction(reduction)
    if len(shape) < 2:
        raise ValueError(f"{name} must have at least 2 dimensions (N, C, ...), got shape {shape}")
    found = call.index("target", target)
    expected = (shape[0], *shape[2:])
    if found.shape != expected:
        raise ValueError(f"target must have shape {expected} for an input of {shape}, got {found.shape}")
    if weight is not None:
        expect_shape("weight", weight.shape, (shape[1],), "one value a class, shape")
    return found


def _no_class(target: Any, ignored: int, classes: int) -> IndexError:
    wrong = (target != ignored) & ((target < 0) | (target >= classes))
    return IndexError(f"target holds the class {target[wrong].flat[0]}, but there are classes 0 to {classes - 1}")
