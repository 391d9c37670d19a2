"""Padding with what lies at the edges, and its transpose: slices copied outwards, and added back in a fixed order.

Where an axis has elements 0 ... n - 1, with a before and b behind it:

    reflect      -i is i, n - 1 + i is n - 1 - i        (at most n - 1 of them)
    replicate    -i is 0, n - 1 + i is n - 1
    circular     -i is n - i, n - 1 + i is i - 1        (at most n)

An axis after another: what an earlier one has added is copied too, which fills the corners.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.arrays import is_half, module_of
from pycnn.graph import Function
from pycnn.large import cast
from pycnn.memory_format import new_array, wants_channels_last

__all__ = ["PadEdges", "PadEdgesBackward", "most_of"]

Array = Any
Sides = tuple[tuple[int, int], ...]


def most_of(mode: str, size: int) -> int:
    """How much `mode` can put on either side of an axis."""
    return {"reflect": size - 1, "circular": size, "replicate": 2**40 if size else 0}[mode]


class PadEdges(Function):
    """x with its own elements around it: `sides` is ((before, after), ...) for every axis."""

    @staticmethod
    def forward(ctx: Any, x: Array, sides: Sides, mode: str) -> Array:
        ctx.how = sides, mode
        y = _empty(x, [size + before + after for (before, after), size in zip(sides, x.shape, strict=True)])
        y[_inside(sides, x.shape)] = x
        for axis, parts in _parts(sides, x.shape, mode):
            for outer, source in parts:
                y[_along(axis, outer)] = y[_along(axis, source)]
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return PadEdgesBackward.apply(dy, *ctx.how), None, None


class PadEdgesBackward(Function):
    """dx: what lies around is added to where it was copied from; 16 bits are added up in float32."""

    @staticmethod
    def forward(ctx: Any, dy: Array, sides: Sides, mode: str) -> Array:
        ctx.how = sides, mode
        shape = [size - before - after for (before, after), size in zip(sides, dy.shape, strict=True)]
        total = _empty(dy, dy.shape, np.float32 if is_half(dy) else None)
        total[...] = dy
        for axis, parts in reversed(_parts(sides, shape, mode)):
            for outer, source in parts:
                gradient = total[_along(axis, outer)]
                if mode == "replicate":  # one element for all of them
                    gradient = gradient.sum(axis, keepdims=True)
                total[_along(axis, source)] += gradient
        inside = total[_inside(sides, shape)]
        dx = _empty(dy, shape, total.dtype)
        dx[...] = inside
        return cast(dx, dy.dtype) if is_half(dy) else dx

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return PadEdges.apply(g, *ctx.how), None, None


def _parts(sides: Sides, shape: Any, mode: str) -> list[tuple[int, list[tuple[slice, slice]]]]:
    """For each axis that is padded, in turn: places outside, and the places inside that they are copies of."""
    found = []
    for axis, ((before, after), size) in enumerate(zip(sides, shape, strict=True)):
        end = before + size
        parts = []
        if mode == "reflect":
            # Backwards from a place down to one behind the first element, so never down to -1.
            parts = [(slice(0, before), _down(2 * before, before)), (slice(end, end + after), _down(end - 2, after))]
        elif mode == "replicate":
            parts = [(slice(0, before), slice(before, before + 1)), (slice(end, end + after), slice(end - 1, end))]
        elif mode == "circular":
            parts = [
                (slice(0, before), slice(size, size + before)),
                (slice(end, end + after), slice(before, before + after)),
            ]
        parts = [part for part, count in zip(parts, (before, after), strict=True) if count]
        if parts:
            found.append((axis, parts))
    return found


def _down(first: int, count: int) -> slice:
    return slice(first, first - count if first >= count else None, -1)


def _inside(sides: Sides, shape: Any) -> tuple[slice, ...]:
    return tuple([slice(before, before + size) for (before, _), size in zip(sides, shape, strict=True)])


def _along(axis: int, where: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (where,)


def _empty(like: Array, shape: Any, dtype: Any = None) -> Array:
    last = like.ndim == 4 and wants_channels_last(like)
    return new_array(module_of(like).empty, tuple(shape), like.dtype if dtype is None else dtype, last)
