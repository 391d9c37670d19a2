"""Activations and softmax, and the sum of two arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from pycnn.backends import reference
from pycnn.testing.cases.operands import FUNCTION, SUM, Arguments, Case, Shape, gap, normal, on_normal, special

__all__ = ["CASES"]


def _activations() -> Iterator[Case]:
    shapes: dict[str, Shape] = {"plane": (2, 3, 9, 11), "one": (1,), "long": (40_001,), "empty": (0, 3, 2)}
    for name, factor in (("relu", 0.0), ("tanh", FUNCTION), ("sigmoid", FUNCTION)):
        for about, shape in shapes.items():
            yield Case(f"{name}_fwd", about, partial(on_normal, shape), factor)
        yield Case(
            f"{name}_bwd", "plane", lambda: (normal(2, 3, 9, 11), np.tanh(normal(2, 3, 9, 11, seed=1))), factor / 3
        )


def _softmaxes() -> Iterator[Case]:
    asked: dict[str, tuple[Shape, int, float]] = {
        "classes": ((5, 10), 1, 1.0),
        "many classes": ((3, 1000), 1, 5.0),
        "inner axis": ((2, 7, 5, 6), 1, 1.0),
        "first axis": ((9, 33), 0, 1.0),
        "one class": ((4, 1), 1, 1.0),
        "large scores": ((3, 40), 1, 1e4),
        "empty": ((0, 10), 1, 1.0),
    }
    for name in ("softmax", "log_softmax"):
        for about, (shape, axis, spread) in asked.items():
            yield Case(f"{name}_fwd", about, partial(on_normal, shape, axis, spread=spread), SUM)
            if spread < 100:
                forward = getattr(reference, f"{name}_fwd")
                yield Case(f"{name}_bwd", about, partial(_softmax_bwd, forward, shape, axis), SUM)


def _softmax_bwd(forward: Callable[..., np.ndarray], shape: Shape, axis: int) -> Arguments:
    return (normal(*shape), forward(normal(*shape, seed=1), axis), axis)


CASES: tuple[Case, ...] = (
    *_activations(),
    *_softmaxes(),
    Case("relu_fwd", "special", lambda: (special(5, 31),)),
    Case("relu_bwd", "gaps", lambda: (gap(normal(3, 5, 7)), gap(normal(3, 5, 7, seed=1)))),
    Case("add", "special", lambda: (special(3, 5, 17), special(3, 5, 17, seed=1))),
    Case("add", "long, gaps", lambda: (gap(normal(7, 4001)), normal(7, 4001, seed=1))),
)
