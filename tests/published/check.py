"""Exact proofs of a convolution's three passes on problems of any size and any number of axes.

Operands are integers, so small that every partial sum of any algorithm is exact in float32; the result must be the sum.
It is held to that in one of two ways, in arithmetic that is exact too and shares nothing with any backend.

Small problems, and those of many groups: every element, computed tap by tap.

Large ones: random linear functionals (Freivalds, "Probabilistic machines can use less running time", 1977).  For
integer vectors u and v drawn for the occasion

    sum over n, k of  v[n] u[k] y[n, k, ...]  =  (sum over n of v[n] x[n])  convolved with  (sum over k of u[k] w[k])

and likewise for dgrad (u over C) and wgrad (u over K, v over C).  At every position of the other axes the left side
weighs all results there; the right side costs as much as one image and one filter.  Where a result is wrong, the
errors at its position are a matrix E that is not zero, and v^T E u is zero for at most 2 in m of all u and v of m
integers (Schwartz-Zippel); never if just one element there is wrong, as 0 is not among them.  With m = 2^a and d draws
an error goes unseen with a probability of at most 2^(d * (1 - a)); `_draws` makes that 2^-20 or less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from .lists import Axis, Published

PASSES = ("fprop", "dgrad", "wgrad")

# Sums |left||right| that F(2x2, 3x3) and F(3x3, 2x2) still compute exactly: see pycnn.testing.exact_operands.
EXACT = 2**22 // 9

_UNSEEN = 20  # an error goes unseen with a probability of 2 to minus this

Operands = tuple[np.ndarray, np.ndarray]


def terms(problem: Published, operator: str) -> int:
    """How many products are summed into one result."""
    taps = math.prod(problem.w_shape[2:])
    if operator == "wgrad":
        return problem.batch * math.prod(problem.y_shape[2:])
    return (problem.channels if operator == "fprop" else problem.filters) // problem.groups * taps


def operands(problem: Published, operator: str, largest: int = EXACT, seed: int = 0) -> Operands:
    """What a pass reads (x and w, dy and w, dy and x), integers of at most 8, with sum |left||right| <= `largest`.

    Where a sum of so many ones would be larger, most of the left operand is 0: on average the sum is then an
    eighteenth of `largest`, as Winograd's growth is told by the product and what is left may share no tile.
    """
    left = problem.x_shape if operator == "fprop" else problem.y_shape
    right = problem.x_shape if operator == "wgrad" else problem.w_shape
    count = max(terms(problem, operator), 1)
    most = max(1, min(8, math.isqrt(largest // count)))
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(-most, most + 1, shape, np.int8).astype(np.float32) for shape in (left, right)]
    if count > largest:
        drawn[0][rng.random(left, np.float32) >= largest / (8 * count)] = 0
    return drawn[0], drawn[1]


def prove(problem: Published, operator: str, given: Operands, seed: int = 0) -> Callable[[np.ndarray], str | None]:
    """A function that says what is wrong with a result of a pass on `given`, or None: it equals the exact sum."""
    shape = {"fprop": problem.y_shape, "dgrad": problem.x_shape, "wgrad": problem.w_shape}[operator]
    if _every_element(problem, operator):
        weigh: Callable[[np.ndarray], np.ndarray] = _as_it_is
        expected = _sums(problem, operator, given)
    else:
        weigh, expected = _functionals(problem, operator, given, seed)

    def wrong(result: np.ndarray) -> str | None:
        if result.shape != shape:
            return f"shape {result.shape}, expected {shape}"
        if not np.abs(result).max(initial=0) <= 2 * EXACT:  # NaN, or larger than any sum
            return "a result that is not finite, or larger than any sum"
        differ = weigh(result) != expected
        if not differ.any():
            return None
        at = tuple(map(int, np.unravel_index(int(differ.argmax()), differ.shape)))
        return f"{int(differ.sum())} of {differ.size} sums are wrong, the first at {at}"

    return wrong


def _as_it_is(result: np.ndarray) -> np.ndarray:
    return result


def _functionals(
    problem: Published, operator: str, given: Operands, seed: int
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """How to weigh a result, and what comes out if it is right: (draws, positions...)."""
    n, g = problem.batch, problem.groups
    c, k = problem.channels // g, problem.filters // g
    left, right = given
    rng = np.random.default_rng(seed)
    rows, columns = {"fprop": (n, g * k), "dgrad": (n, g * c), "wgrad": (g * k, g * c)}[operator]
    draws, half = _draws(rows * columns)
    v, u = (_nonzero(rng, half, (draws, length)) for length in (rows, columns))
    if operator == "wgrad":
        dy = _weighed(left, v.reshape(draws, g, k))
        x = _weighed(right, u.reshape(draws, g, c))
        sums = convolve(operator, problem.axes, dy, x)  # (draws * g, 1, 1, taps)

        def weigh(dw: np.ndarray) -> np.ndarray:
            parts = dw.reshape(g, k, c, -1).astype(np.float64)
            columns = np.einsum("dgc,gkct->dgkt", u.reshape(draws, g, c), parts, optimize=True)
            return np.einsum("dgk,dgkt->dt", v.reshape(draws, g, k), columns)

        return weigh, sums.reshape(draws, g, -1).sum(1)

    image = np.zeros((draws, left[0].size))
    for one, weights in zip(left.reshape(n, left[0].size), v.T, strict=True):
        image += weights[:, None] * one
    w = right.reshape(g, k, c, -1).astype(np.float64)
    if operator == "fprop":
        filters = np.einsum("dgk,gkct->dgct", u.reshape(draws, g, k), w, optimize=True)
        filters = filters.reshape(draws, 1, g * c, *right.shape[2:])
    else:
        filters = np.einsum("dgc,gkct->dgkt", u.reshape(draws, g, c), w, optimize=True)
        filters = filters.reshape(draws, g * k, 1, *right.shape[2:])
    sums = convolve(operator, problem.axes, image.reshape(1, draws, *left.shape[1:]), filters)

    def weigh(result: np.ndarray) -> np.ndarray:
        total = np.zeros((draws, math.prod(result.shape[2:])))
        for one, weights in zip(result, v.T, strict=True):
            total += weights[:, None] * (u @ one.reshape(len(one), -1).astype(np.float64))
        return total

    return weigh, sums.reshape(draws, -1)


def _every_element(problem: Published, operator: str) -> bool:
    """Whether to compute all results: those of a few millions of products, or of as many as a draw would take."""
    places = math.prod(problem.y_shape[2:]) * math.prod(problem.w_shape[2:])
    others = {"fprop": problem.channels, "dgrad": problem.filters, "wgrad": problem.batch * problem.groups}
    return problem.macs <= max(1 << 23, places * others[operator])


def _draws(count: int) -> tuple[int, int]:
    """How many pairs of vectors to draw, of integers up to which magnitude, for a matrix of `count` elements.

    A sum of `count` results, each at most 2^20, weighed twice by up to 2^(a-1), stays below 2^53.
    """
    bits = min(12, 1 + (33 - math.ceil(math.log2(count))) // 2)
    return -(-_UNSEEN // (bits - 1)), 2 ** (bits - 1)


def _nonzero(rng: np.random.Generator, half: int, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(1, half + 1, shape) * rng.choice([-1.0, 1.0], shape)


def _weighed(array: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums over the channels of each group: (N, draws * groups, 1, ...) of an array (N, C, ...)."""
    draws, groups, each = weights.shape
    sums = np.empty((len(array), draws * groups, array[0, 0].size))
    for one, into in zip(array, sums, strict=True):
        parts = one.reshape(groups, each, -1).astype(np.float64)
        into[...] = np.matmul(weights.transpose(1, 0, 2), parts).transpose(1, 0, 2).reshape(into.shape)
    return sums.reshape(len(array), draws * groups, 1, *array.shape[2:])


def _sums(problem: Published, operator: str, given: Operands) -> np.ndarray:
    """The whole result of a pass."""
    g = problem.groups

    def split(array: np.ndarray, axis: int) -> np.ndarray:
        wide = array.astype(np.float64)
        return wide.reshape(*array.shape[:axis], g, array.shape[axis] // g, *array.shape[axis + 1 :])

    left, right = given
    result = convolve(operator, problem.axes, split(left, 1), split(right, 1 if operator == "wgrad" else 0))
    if operator == "wgrad":
        return result.reshape(-1, *result.shape[2:])
    return result.reshape(len(result), -1, *result.shape[3:])


def convolve(operator: str, axes: Sequence[Axis], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One pass on float64 arrays whose groups are an axis: x (N, G, C, ...), w (G, K, C, ...), y (N, G, K, ...)."""
    inputs, outputs, taps = (tuple(getattr(axis, name) for axis in axes) for name in ("inputs", "outputs", "taps"))
    if operator == "fprop":
        result = np.zeros((*left.shape[:2], right.shape[1], *outputs))
    elif operator == "dgrad":
        result = np.zeros((*left.shape[:2], right.shape[2], *inputs))
    else:
        result = np.zeros((left.shape[1], left.shape[2], right.shape[2], *taps))
    for tap in itertools.product(*map(range, taps)):
        meets = [_meet(axis, at) for axis, at in zip(axes, tap, strict=True)]
        if any(meet is None for meet in meets):
            continue
        out = (..., *(meet[0] for meet in meets if meet))
        at = (..., *(meet[1] for meet in meets if meet))
        if operator == "fprop":
            x, w = _in_a_row(left[at]), right[(..., *tap)]
            result[out] += _product(w, x).reshape(result[out].shape)
        elif operator == "dgrad":
            dy, w = _in_a_row(left[out]), right[(..., *tap)]
            result[at] += _product(w.swapaxes(1, 2), dy).reshape(result[at].shape)
        else:
            dy, x = _in_a_row(left[out]), _in_a_row(right[at])
            if dy.shape[2] == x.shape[2] == 1:
                result[(..., 0, 0, *tap)] = np.einsum("ngl,ngl->g", dy[:, :, 0], x[:, :, 0])
            else:
                result[(..., *tap)] = np.matmul(dy, x.swapaxes(2, 3)).sum(0)
    return result


def _product(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A matrix product; of a matrix of one element, for which NumPy's takes long, without it."""
    return matrix * rows if matrix.shape[-2:] == (1, 1) else np.matmul(matrix, rows)


def _in_a_row(window: np.ndarray) -> np.ndarray:
    return window.reshape(*window.shape[:3], -1)


def _meet(axis: Axis, tap: int) -> tuple[slice, slice] | None:
    """Which outputs read the input through a tap, and which points of it these are; None if there are none."""
    offset = tap * axis.dilation - axis.front
    first = max(0, -(offset // axis.stride))
    last = min(axis.outputs - 1, (axis.inputs - 1 - offset) // axis.stride)
    if last < first:
        return None
    start = first * axis.stride + offset
    return slice(first, last + 1), slice(start, last * axis.stride + offset + 1, axis.stride)
