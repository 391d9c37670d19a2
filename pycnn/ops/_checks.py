"""Checks that several operators share.  Each exception names the argument, what it was and what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from pycnn.shape import all_whole, whole

_U64 = 2**64


def expect_shape(name: str, got: Sequence[int], expected: Sequence[int], what: str = "the output's shape") -> None:
    """ValueError unless the shapes are the same."""
    if got != expected and tuple(got) != tuple(expected):
        raise ValueError(f"{name} must have {what} {tuple(expected)}, got {tuple(got)}")


def expect_rank(name: str, shape: Sequence[int], least: int, layout: str, most: int | None = None) -> None:
    """ValueError unless there are at least `least` and at most `most` dimensions (as many as `least` if not said)."""
    most = least if most is None else most
    if not least <= len(shape) <= most:
        count = str(least) if least == most else f"at least {least}"
        raise ValueError(f"{name} must have {count} dimensions {layout}, got shape {tuple(shape)}")


def expect_image(name: str, shape: Sequence[int]) -> None:
    """ValueError unless `shape` is (N, C, H, W), with all but N at least 1."""
    expect_rank(name, shape, 4, "(N, C, H, W)")
    if 0 in shape[1:]:
        raise ValueError(f"{name} must have at least one channel, row and column, got shape {tuple(shape)}")


def shape_of(name: str, shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Four sizes that a caller gave, as plain ints."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 4:
        given = f"an array of shape {tuple(shape.shape)}" if hasattr(shape, "shape") else repr(shape)
        raise ValueError(f"{name} must be four ints, got {given}")
    if all_whole(shape, 0):
        return shape[0], shape[1], shape[2], shape[3]
    n, c, h, w = (whole(f"{name}[{i}]", size, 0) for i, size in enumerate(shape))
    return n, c, h, w


def integer(name: str, value: Any) -> int:
    """An int of any size, of Python's or NumPy's."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got the bool {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}") from None


def flag(name: str, value: object) -> bool:
    """A bool, or a TypeError: 1 and None are typing errors more often than flags."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r:.60}")
    return bool(value)


def number(name: str, value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite float between `least` and `most`, both included."""
    found = value if type(value) is float else real(name, value)
    if not (math.isfinite(found) and least <= found <= most):
        bounds = f" between {least:g} and {most:g}" if math.isfinite(least) or math.isfinite(most) else ""
        raise ValueError(f"{name} must be a finite number{bounds}, got {value!r}")
    return found


def real(name: str, value: Any) -> float:
    """Any real number, NaN and the infinities included."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
    return float(value)


def axis_of(name: str, axis: object, rank: int) -> int:
    """`axis` counted from the front."""
    place = integer(name, axis)
    if not -rank <= place < rank:
        raise ValueError(f"{name} must be between {-rank} and {rank - 1} for {rank} dimensions, got {place}")
    return place % rank


def word64(name: str, value: object) -> int:
    """An int that fits 64 unsigned bits: a seed, or an offset into the random stream."""
    word = integer(name, value)
    if not 0 <= word < _U64:
        raise ValueError(f"{name} must be between 0 and 2**64 - 1, got {word}")
    return word


def check_algo(algo: object) -> None:
    """TypeError unless it is a string; which ones exist is the backend's to say."""
    if not isinstance(algo, str):
        raise TypeError(f"algo must be a string, got {algo!r} of type {type(algo).__name__}")
