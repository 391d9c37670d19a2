"""Losses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pycnn.testing.cases.operands import SUM, Arguments, Case, classes, normal

__all__ = ["CASES"]


def _losses() -> Iterator[Case]:
    for reduction in ("none", "mean", "sum"):
        for about, weights, images in (("weights", True, 9), ("plain", False, 400)):
            for function in (_nll_fwd, _nll_bwd):
                arguments = partial(function, reduction, weights, images)
                yield Case(function.__name__[1:], f"{reduction}, {about}", arguments, SUM)


def _nll_fwd(reduction: str, weights: bool, images: int) -> Arguments:
    weight = abs(normal(10, seed=2)) if weights else None
    return (normal(images, 10, 3, mean=-2.0), classes(images, 3, classes=10), weight, -100, reduction)


def _nll_bwd(reduction: str, weights: bool, images: int) -> Arguments:
    dy = normal(images, 3) if reduction == "none" else normal(1).reshape(())
    weight = abs(normal(10, seed=2)) if weights else None
    return (dy, classes(images, 3, classes=10), weight, (images, 10, 3), -100, reduction)


CASES: tuple[Case, ...] = (*_losses(),)
