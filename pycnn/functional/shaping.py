"""Padding, joining and flattening."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pycnn import ops
from pycnn.arithmetic import Where
from pycnn.arrays import module_of
from pycnn.functional._arrays import composed, expect_arrays
from pycnn.functional.edges import PadEdges, most_of
from pycnn.graph import Function, Variable
from pycnn.memory_format import new_array, wants_channels_last
from pycnn.movement import Concat
from pycnn.ops._checks import integer, real
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["cat", "flatten", "pad", "stack", "where"]

Array = Any


class Pad(Function):
    """x inside a larger array of one value: `sides` is ((before, after), ...) for every axis."""

    @staticmethod
    def forward(ctx: Any, x: Array, sides: tuple[tuple[int, int], ...], value: float) -> Array:
        ctx.inside = tuple([slice(before, before + size) for (before, _), size in zip(sides, x.shape, strict=True)])
        shape = tuple([size + before + after for (before, after), size in zip(sides, x.shape, strict=True)])
        y = new_array(lambda *what: module_of(x).full(what[0], value, what[1]), shape, x.dtype, wants_channels_last(x))
        y[ctx.inside] = x
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy[ctx.inside], None, None


@composed
def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Any:
    """Add elements before and after, from the last dimension on: (left, right, top, bottom, ...).

    Args:
        x: a Tensor or an array.
        pad: a pair for each of the last dimensions, the last one first.  Negative numbers cut off.
        mode: "constant" (fill with `value`), "reflect" (mirrored, without the edge), "replicate" (the edge repeated) or
            "circular".
        value: for "constant".

    Raises:
        ValueError: an odd number of entries, more than there are dimensions, an unknown mode, padding that is larger
            than the mode allows, or nothing left.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.pad(np.array([[1.0, 2.0]]), (1, 0))
    array([[0., 1., 2.]])
    """
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad must be a tuple of ints, got {type(pad).__name__}")
    if not isinstance(mode, str):
        raise TypeError(f"mode must be a string, got {type(mode).__name__}")
    value = real("value", value)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad must hold a pair for each of up to {x.ndim} dimensions, got {tuple(pad)}")
    amounts = [whole(f"pad[{i}]", side, -(2**40)) for i, side in enumerate(pad)]
    sides = [(0, 0)] * (x.ndim - len(amounts) // 2) + list(zip(amounts[-2::-2], amounts[::-2], strict=True))
    added = tuple([(max(before, 0), max(after, 0)) for before, after in sides])
    if mode == "constant":
        for axis, (before, after) in enumerate(sides):
            cut, size = min(before, 0) + min(after, 0), x.shape[axis]
            if cut and (size + cut < 0 or size + before + after < 0):
                raise ValueError(f"pad {tuple(pad)} leaves nothing of dimension {axis}, which has size {x.shape[axis]}")
        return Pad.apply(_cut(x, sides), added, value)
    if mode not in ("reflect", "replicate", "circular"):
        raise ValueError(f"mode must be constant, reflect, replicate or circular, got {mode!r}")
    for axis, (before, after) in enumerate(sides):
        size = x.shape[axis]
        if mode == "circular":  # what is cut off does not come round again
            size += min(before, 0) + min(after, 0)
        most = most_of(mode, size)
        if max(before, after) > max(most, 0) or x.shape[axis] + before + after < 0:
            raise ValueError(
                f"{mode} padding must be at most {most} for a dimension of {size}, and leave something of it, "
                f"got {before}, {after}"
            )
    if mode == "circular":
        return PadEdges.apply(_cut(x, sides), added, mode)
    return _cut(PadEdges.apply(x, added, mode), sides)


def _cut(x: Any, sides: Sequence[tuple[int, int]]) -> Any:
    """x without as many elements at either end of each axis as a negative number says."""
    if min([min(pair) for pair in sides], default=0) >= 0:
        return x
    return x[tuple([slice(max(-a, 0), x.shape[i] - max(-b, 0)) for i, (a, b) in enumerate(sides)])]


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Join along an existing dimension; all others must agree.

    Args:
        tensors: a list or tuple of Tensors or arrays.
        dim: negative counts from the end.

    Raises:
        TypeError: something else than a list of Tensors or arrays.
        ValueError: none at all, or shapes that differ elsewhere.
        IndexError: a dimension that they do not have.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.cat([np.zeros((1, 2)), np.ones((1, 2))])
    array([[0., 0.],
           [1., 1.]])
    """
    _expect_several("cat", tensors)
    dim = integer("dim", dim)
    shapes = [tuple(one.shape) for one in tensors]
    if (0,) in shapes and any(len(shape) > 1 for shape in shapes):  # as PyTorch, which takes them for nothing at all
        tensors = [one for one, shape in zip(tensors, shapes, strict=True) if shape != (0,)]
        shapes = [shape for shape in shapes if shape != (0,)]
    ndim = len(shapes[0])
    if not -ndim <= dim < ndim:
        raise IndexError(f"dimension {dim} is out of range for tensors of {ndim} dimensions")
    axis = dim % ndim
    for i, shape in enumerate(shapes):
        if shape[:axis] + shape[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] or len(shape) != ndim:
            raise ValueError(
                f"all shapes must agree but for dimension {axis}: tensor 0 has {shapes[0]}, {i} has {shape}"
            )
    if any(isinstance(one, Variable) for one in tensors):
        return Concat.apply(axis, *tensors)
    return ops.concat(tensors, axis)


def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Join along a new dimension; all shapes must agree.

    Args:
        tensors: a list or tuple of Tensors or arrays.
        dim: where the new dimension goes; negative counts from the end of the result.

    Raises:
        TypeError, ValueError, IndexError: as `cat`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.stack([np.zeros(2), np.ones(2)], 1)
    array([[0., 1.],
           [0., 1.]])
    """
    _expect_several("stack", tensors)
    dim = integer("dim", dim)
    ndim = len(tensors[0].shape) + 1
    if not -ndim <= dim < ndim:
        raise IndexError(f"dimension {dim} is out of range for a stack of {ndim} dimensions")
    place = dim % ndim
    return cat([one.reshape(*one.shape[:place], 1, *one.shape[place:]) for one in tensors], place)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where `condition` holds, else b; broadcast, and the gradient goes where the value came from.

    Args:
        condition: bool, broadcast against a and b; a Tensor or an array.
        a, b: Tensors, arrays or numbers.

    >>> import pycnn
    >>> pycnn.functional.where(pycnn.tensor([True, False]), pycnn.tensor([1.0, 1.0]), 0.0)
    tensor([1., 0.])
    """
    mask = condition._data if isinstance(condition, Variable) else condition
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        return Where.apply(mask, a, b)
    a, b = (one if hasattr(one, "dtype") else like.dtype.type(one) for one in (a, b))
    return Where.apply(mask, a, b)


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions `start_dim` to `end_dim` (inclusive) as one.

    Args:
        x: a Tensor or an array.
        start_dim, end_dim: negative counts from the end.

    Raises:
        IndexError: a dimension that x does not have.
        ValueError: `start_dim` behind `end_dim`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.flatten(np.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    expect_arrays(x=x)
    start_dim, end_dim = integer("start_dim", start_dim), integer("end_dim", end_dim)
    if isinstance(x, Variable):
        return x.flatten(start_dim, end_dim)  # type: ignore[attr-defined]
    shape, ndim = tuple(x.shape), len(x.shape)
    if ndim == 0:
        return x.reshape(1)
    if not (-ndim <= start_dim < ndim and -ndim <= end_dim < ndim):
        raise IndexError(f"dimensions {start_dim} to {end_dim} are out of range for an array of {ndim} dimensions")
    first, last = start_dim % ndim, end_dim % ndim
    if first > last:
        raise ValueError(f"start_dim {start_dim} lies behind end_dim {end_dim}")
    return x.reshape(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


def _expect_several(name: str, tensors: Any) -> None:
    if not isinstance(tensors, (tuple, list)):
        raise TypeError(f"tensors must be a list or tuple of Tensors or arrays, got {type(tensors).__name__}")
    if not tensors:
        raise ValueError(f"{name} needs at least one tensor")
    expect_arrays(**{f"tensors[{i}]": one for i, one in enumerate(tensors)})
