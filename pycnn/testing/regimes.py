"""The two ways a convolution is proven: inputs on which it must be exact, and a bound on its error elsewhere.

Exact: with integer inputs and sum |x||w| < 2^24 every product and every partial sum is a float32 integer, so any order
of summation gives the same bits, and direct and im2col must *equal* the oracle.  Winograd's F(2x2, 3x3), and its
gradient form F(3x3, 2x2), only ever divide by 4, so they too are exact while every intermediate stays under 2^22.

Float: an algorithm is allowed

    max |y - y64|  <=  c * sqrt(n) * u * max conv(|x|, |w|)  +  u * max |y64|

with u = 2^-24 (float32) or 2^-53 (float64) and n the number of products summed into one result: C/groups*R*S in
fprop, K/groups*R*S in dgrad, N*P*Q in wgrad.  sqrt(n) is how independent roundings add up; `ERROR_FACTOR` holds c.
Tensor cores do not round to nearest: what they are allowed beside is in `DRIFT`.  float16 and bfloat16 are summed in
float32; the last term is then their own one rounding of the result, u = 2^-11 or 2^-8, and in the exact regime the
result is the exact sum, rounded once.

Split: small integers have no low part, and a product of split operands (3xtf32) would pass with a correction left out.
So one operand has numbers of 20 bits, odd multiples of 2^-8 (float16 ends at 65504), the other is -1, 0 or 1 with at
most 15 that are not 0 in a sum, and then the other way round: every product and every partial sum fits float32.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from pycnn.backends import reference
from pycnn.shape import Problem

__all__ = [
    "DRIFT",
    "ERROR_FACTOR",
    "Operands",
    "allowed_error",
    "dtype_of",
    "error_bound",
    "error_factor",
    "exact_operands",
    "float_operands",
    "is_exact",
    "magnitudes",
    "oracle",
    "run",
    "split_operands",
    "terms",
]

# c of the bound, by the longest matching prefix of the algorithm's name.
ERROR_FACTOR: dict[str, float] = {
    # One rounding a term.  For data of one sign (after a ReLU) the partial sums grow linearly, and the roundings add up
    # to a standard deviation of sqrt(n)/3 * u * conv(|x|, |w|); six of those, the worst of some 10^8 outputs, are 2.
    "direct": 2.0,
    "im2col": 2.0,
    # Winograd's transforms add and subtract before they multiply, and what cancels in exact arithmetic leaves its
    # roundings behind, spread over the whole tile.  A float32 emulation with the points 0, +-1, +-2, +-1/2 and infinity
    # (C = 1..256; normal, non-negative and rectified data; every product and sum rounded, no FMA) needed c = 1.2, 20.7
    # and 39.6.  One and a half to two times that is allowed, for other orders of summation and unluckier data, and
    # twice direct's factor for the smallest tile, whose transforms hardly round at all.
    "winograd_f2x2_3x3": 4.0,
    "winograd_f3x3_2x2": 4.0,
    "winograd_f4x4_3x3": 32.0,
    "winograd_f3x3_4x4": 32.0,
    "winograd_f6x6_3x3": 80.0,
    "winograd_f3x3_6x6": 80.0,  # the same points
    # F(2x2, 5x5) and F(4x4, 5x5) share BT with the last two, but sum 25 products where those sum 9: the same
    # emulation needed c = 6.4 and 13.4, of which three times is allowed.
    "winograd_f2x2_5x5": 20.0,
    "winograd_f5x5_2x2": 20.0,  # the same points
    "winograd_f4x4_5x5": 40.0,
    "winograd_f5x5_4x4": 40.0,  # the same points
    # Along one axis alone there are fewer points to cancel: F(4, 3) and F(4, 5) for filters of one line needed c = 3.3
    # and 8.1 in that emulation (C = 1..256, the same data, four seeds); three times that.
    "winograd_f1x4_1x3": 10.0,
    "winograd_f4x1_3x1": 10.0,
    "winograd_f1x4_1x5": 25.0,
    "winograd_f4x1_5x1": 25.0,
    "winograd": 80.0,  # the family chooses its tile itself: the largest one's factor
    "auto": 80.0,  # may choose any of them
}

# What tensor cores may be off beside, (constant, by each term) in units of u * max conv(|x|, |w|), by the longest
# matching prefix.  They cut every sum off, one of 16 terms (tf32: 8) at a time: by at most 2 u of a partial sum, which
# for data of one sign is on average half of the whole, and by half of that.
DRIFT: dict[str, tuple[float, float]] = {
    "im2col_tensor": (0.0, 1 / 16),
    # Operands rounded to 11 bits are each off by at most 2^-11: 2^-10 of a product.
    "im2col_tensor_tf32": (2.0**14, 1 / 8),
    # Parts of 11 bits leave 2^-22 of an operand out, and their product leaves out low*low, another: 3 * 2^-22 = 12 u.
    # A tile's sum, the six products of 16 terms, is cut by at most 2 u six times, on average by half.
    "im2col_tensor_3xtf32": (18.0, 0.0),
    "im2col_tensor_3xfp16": (18.0, 0.0),  # the same; of operands that are small, less than 2^-36 is lost
}

_EXACT_TILES = ("winograd_f2x2_3x3", "winograd_f3x3_2x2")
_UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


@dataclass(frozen=True)
class Operands:
    """The two arrays (and the bias) that one pass of a problem reads.

    Attributes:
        left: x for fprop, dy for dgrad and wgrad.
        right: w for fprop and dgrad, x for wgrad.
        b: the bias, fprop only, or None.
    """

    left: np.ndarray
    right: np.ndarray
    b: np.ndarray | None = None


def terms(problem: Problem) -> int:
    """How many products are summed into one element of the pass's result."""
    s = problem.shape
    if problem.operator == "fprop":
        return s.C // s.groups * s.R * s.S
    if problem.operator == "dgrad":
        return s.K // s.groups * s.R * s.S
    return s.N * s.P * s.Q


def is_exact(algo: str) -> bool:
    """Whether `algo`, a family or a variant by name, must be exact in the exact regime."""
    return algo.startswith(("direct", "im2col", *_EXACT_TILES))


def exact_operands(problem: Problem, algo: str = "direct", seed: int = 0, bias: bool = True) -> Operands:
    """Integer operands, as large as `algo` can still take exactly in float32 (at most 8).

    Direct and im2col need n * a^2 + a < 2^24 for integers up to a.  F(2x2, 3x3) grows each input tile by up to 4, each
    filter by 9/4 and the output transform by 9, and counts in quarters: n/9 * 81 * a^2 must stay under 2^22; the same
    holds for F(3x3, 2x2).

    Raises:
        ValueError: a reduction too long for any integers but zero.

    >>> operands = exact_operands(Problem.parse("n1c4h5_k3r3"))
    >>> int(abs(operands.left).max()) <= 8, operands.left.dtype
    (True, dtype('float32'))
    """
    n = max(terms(problem), 1)
    winograd = algo.startswith("winograd") or algo == "auto"
    limit = 2**22 // 9 if winograd else 2**24 - 8
    most = min(8, math.isqrt(max(limit - 1, 0) // n))
    if most < 1:
        raise ValueError(f"{problem}: {n} products a result are too many for the exact regime")
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(-most, most + 1, shape).astype(dtype_of(problem))

    return _operands(problem, draw, bias)


def split_operands(problem: Problem, wide: str, seed: int = 0) -> Operands:
    """Operands of the split regime.

    Args:
        problem: float32.
        wide: "left" or "right", the one of 20 bits.
        seed: of the random numbers.

    >>> operands = split_operands(Problem.parse("n1c4h5_k3r3"), "left")
    >>> int(256 * abs(operands.left).max()) >> 18 > 0, float(abs(operands.right).max())
    (True, 1.0)
    """
    rng = np.random.default_rng(seed)
    # A result sums over all of the sparse array but this axis, whose every slice holds at most 15.
    axes = {"fprop": (0, 0), "dgrad": (0, 1), "wgrad": (1, 1)}[problem.operator]

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return (2.0**-8 * (2 * rng.integers(-(2**19), 2**19, shape) + 1)).astype(dtype_of(problem))

    def sparse(shape: tuple[int, ...], axis: int) -> np.ndarray:
        slices = np.zeros((shape[axis], math.prod(shape) // max(shape[axis], 1)), dtype_of(problem))
        count = min(15, slices.shape[1])
        for row in slices:
            row[rng.choice(row.size, count, replace=False)] = rng.choice([-1, 1], count)
        return np.moveaxis(slices.reshape(shape[axis], *shape[:axis], *shape[axis + 1 :]), 0, axis).copy()

    dense = _operands(problem, draw, bias=False)
    if wide == "left":
        return Operands(dense.left, sparse(dense.right.shape, axes[1]))
    return Operands(sparse(dense.left.shape, axes[0]), dense.right)


def float_operands(problem: Problem, seed: int = 0, bias: bool = True) -> Operands:
    """Standard normal operands."""
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype_of(problem))

    return _operands(problem, draw, bias)


def _operands(problem: Problem, draw: Callable[[tuple[int, ...]], np.ndarray], bias: bool) -> Operands:
    s = problem.shape
    if problem.operator == "fprop":
        return Operands(draw(s.x_shape), draw(s.w_shape), draw((s.K,)) if bias else None)
    if problem.operator == "dgrad":
        return Operands(draw(s.y_shape), draw(s.w_shape))
    return Operands(draw(s.y_shape), draw(s.x_shape))


def dtype_of(problem: Problem) -> np.dtype:
    """The problem's dtype; bfloat16 needs the package ml_dtypes."""
    if problem.dtype == "bfloat16":  # a dtype of NumPy's from this import on
        importlib.import_module("ml_dtypes")
    return np.dtype(problem.dtype)


def magnitudes(operands: Operands) -> Operands:
    """Absolute values: all of one sign, as after a ReLU, is the hardest for a long sum; no less so with a bias."""
    b = None if operands.b is None else np.abs(operands.b)
    return Operands(np.abs(operands.left), np.abs(operands.right), b)


def error_factor(algo: str) -> float:
    """c of the float regime's bound for `algo`, a family or a variant by name.  Raises KeyError for an unknown one."""
    best = _longest(ERROR_FACTOR, algo)
    if best is None:
        raise KeyError(f"no error factor is written down for algorithm {algo!r}")
    return ERROR_FACTOR[best]


def _longest(names: Iterable[str], algo: str) -> str | None:
    """The longest of the names that `algo` begins with, or None."""
    return max((name for name in names if algo.startswith(name)), key=len, default=None)


def error_bound(
    problem: Problem, operands: Operands, y64: np.ndarray, algo: str, largest: np.ndarray | None = None
) -> float:
    """The largest |y - y64| that `algo` is allowed.

    Args:
        y64: the exact result, in float64.
        largest: the exact result on the operands' `magnitudes`, conv(|x|, |w|) plus |b|, where it is at hand already.
    """
    if y64.size == 0:
        return 0.0
    largest = oracle(problem, magnitudes(operands)) if largest is None else largest
    return allowed_error(problem, algo, float(largest.max()), float(np.abs(y64).max()))


def allowed_error(problem: Problem, algo: str, largest: float, result: float) -> float:
    """`error_bound` from the maxima alone: of conv(|x|, |w|) plus |b|, and of the exact result's magnitude."""
    n, unit = terms(problem), _UNIT["float64" if problem.dtype == "float64" else "float32"]
    oracle_too = 2.0 if problem.dtype == "float64" else 1.0  # in float64 the oracle rounds as often as the algorithm
    c = error_factor(algo) * oracle_too
    constant, each = DRIFT.get(_longest(DRIFT, algo) or "", (0.0, 0.0))
    allowed = c * math.sqrt(n) + constant + each * n
    return allowed * unit * largest + _UNIT[problem.dtype] * result


def oracle(problem: Problem, operands: Operands) -> np.ndarray:
    """The problem's pass on these operands by the reference, in float64."""
    b = None if operands.b is None else operands.b.astype(np.float64)
    wide = Operands(operands.left.astype(np.float64), operands.right.astype(np.float64), b)
    return run(reference, problem, wide, "auto")


def run(backend: ModuleType, problem: Problem, operands: Operands, algo: str) -> np.ndarray:
    """The problem's pass on these operands by a backend's module."""
    s = problem.shape
    rest = (s.stride, s.padding, s.dilation, s.groups)
    if problem.operator == "fprop":
        return backend.conv2d_fprop(operands.left, operands.right, operands.b, *rest, algo=algo)
    if problem.operator == "dgrad":
        return backend.conv2d_dgrad(operands.left, operands.right, s.x_shape, *rest, algo=algo)
    return backend.conv2d_wgrad(operands.left, operands.right, s.w_shape, *rest, algo=algo)
