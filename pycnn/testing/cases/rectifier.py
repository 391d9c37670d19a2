"""The family of activations with settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pycnn.testing.cases.operands import FUNCTION, Arguments, Case, Shape, gap, last, normal, special

__all__ = ["CASES"]

# Settings, and the bound of the results: 0 where a value or a gradient is only chosen.
_FAMILY: dict[str, tuple[tuple[float, ...], float]] = {
    "elu": ((1.5, 0.75, 0.5), FUNCTION),
    "erf": ((), FUNCTION),
    "gelu": ((), FUNCTION),
    "gelu_tanh": ((), FUNCTION),
    "hardshrink": ((0.5,), 0.0),
    "hardsigmoid": ((), FUNCTION),
    "hardswish": ((), FUNCTION),
    "hardtanh": ((-0.5, 0.75), 0.0),
    "huber": ((0.5, 2.0), FUNCTION),
    "leaky_relu": ((0.25,), 0.0),
    "logsigmoid": ((), FUNCTION),
    "mish": ((), FUNCTION),
    "silu": ((), FUNCTION),
    "softplus": ((2.0, 3.0), FUNCTION),
    "softshrink": ((0.5,), FUNCTION),
    "softsign": ((), FUNCTION),
    "tanhshrink": ((), FUNCTION),
    "threshold": ((0.25, -7.0), 0.0),
}

# What the functions without an exponential make of NaN, infinities and the largest numbers.
_SPECIAL = ("hardshrink", "hardsigmoid", "hardtanh", "leaky_relu", "softshrink", "threshold")


def _family() -> Iterator[Case]:
    for name, (settings, factor) in _FAMILY.items():
        yield Case("activation_fwd", name, partial(_fwd, (3, 5, 9, 11), name, settings), factor)
        yield Case("activation_bwd", name, partial(_bwd, (3, 5, 9, 11), name, settings), factor)
    for name in _SPECIAL:
        settings, factor = _FAMILY[name]
        yield Case("activation_fwd", f"{name}, special", partial(_special, name, settings), factor)


def _fwd(shape: Shape, name: str, settings: tuple[float, ...]) -> Arguments:
    return (normal(*shape, spread=3.0), name, *settings)


def _bwd(shape: Shape, name: str, settings: tuple[float, ...]) -> Arguments:
    return (normal(*shape, seed=1), normal(*shape, spread=3.0), name, *settings)


def _special(name: str, settings: tuple[float, ...]) -> Arguments:
    return (special(5, 31), name, *settings)


def _edges() -> Arguments:
    """Where the sides of hardswish and its like meet."""
    x = np.array([-3, 3, 0, -0.0, -2.75, 2.75, -4, 4, np.inf, -np.inf, np.nan], np.float32)
    return (np.full(x.shape, 6, np.float32), x, "hardsigmoid")


CASES: tuple[Case, ...] = (
    *_family(),
    Case("activation_fwd", "long", partial(_fwd, (40_001,), "silu", ()), FUNCTION),
    Case("activation_fwd", "empty", partial(_fwd, (0, 3, 2), "silu", ())),
    Case("activation_bwd", "empty", partial(_bwd, (0, 3, 2), "silu", ())),
    Case("activation_bwd", "edges", _edges),
    Case("activation_bwd", "gaps", lambda: (gap(normal(3, 5, 7)), gap(normal(3, 5, 7, seed=1)), "leaky_relu", 0.25)),
    Case("activation_fwd", "channels-last", lambda: (last(normal(3, 5, 9, 11)), "leaky_relu", 0.25)),
    Case(
        "activation_bwd",
        "channels-last",
        lambda: (last(normal(3, 5, 9, 11)), last(normal(3, 5, 9, 11, seed=1)), "leaky_relu", 0.25),
    ),
)
