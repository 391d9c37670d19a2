"""Normalisation of groups of channels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pycnn.testing.cases.operands import STATISTICS, Arguments, Case, Shape, last, normal

__all__ = ["CASES"]

# Shape and groups: of several channels, of one (instance norm), and rows (layer norm), short and longer than a block.
_PROBLEMS: dict[str, tuple[Shape, int]] = {
    "groups": ((3, 6, 5, 7), 2),
    "instances": ((2, 5, 9, 11), 5),
    "rows": ((7, 33), 1),
    "long rows": ((3, 3001), 1),
    "row groups": ((5, 12), 4),
    "large": ((2, 4, 61, 67), 2),
    "small": ((9, 4, 1, 3), 2),
}


def _problems() -> Iterator[Case]:
    for about, (shape, groups) in _PROBLEMS.items():
        for centred in (True, False):
            what = about if centred else f"{about}, not centred"
            yield Case("group_norm_fwd", what, partial(_fwd, shape, groups, centred), STATISTICS)
            yield Case("group_norm_bwd", what, partial(_bwd, shape, groups, centred), STATISTICS)


def _fwd(shape: Shape, groups: int, centred: bool, weight: bool = True, mean: float = 0.5) -> Arguments:
    c = shape[1]
    coefficients = (normal(c, seed=1), normal(c, seed=2)) if weight else (None, None)
    return (normal(*shape, mean=mean), groups, *coefficients, 1e-5, centred)


def _bwd(shape: Shape, groups: int, centred: bool, weight: bool = True) -> Arguments:
    x = normal(*shape, seed=1, mean=0.5)
    rows = x.reshape(shape[0], groups, -1).astype(np.float64)
    mean = rows.mean(2) if centred else np.zeros(rows.shape[:2])
    var = ((rows - mean[..., None]) ** 2).mean(2)
    factor = normal(shape[1], seed=3) if weight else None
    statistics = (mean.astype(np.float32), var.astype(np.float32))
    return (normal(*shape, seed=2), x, groups, factor, *statistics, 1e-5, centred)


def _on_last() -> Arguments:
    x, *rest = _fwd((2, 8, 5, 7), 4, True)
    return (last(x), *rest)


CASES: tuple[Case, ...] = (
    *_problems(),
    Case("group_norm_fwd", "no weight", partial(_fwd, (3, 6, 5, 7), 3, True, False), STATISTICS),
    Case("group_norm_bwd", "no weight", partial(_bwd, (3, 6, 5, 7), 3, True, False), STATISTICS),
    # The mean is 300 times the deviation: a sum of squares minus the square of the sum would keep 7 bits of it.
    Case("group_norm_fwd", "far from zero", partial(_fwd, (2, 6, 40, 41), 3, True, True, 300.0), 3e4),
    Case("group_norm_fwd", "channels-last", _on_last, STATISTICS),
    Case("group_norm_fwd", "no samples", partial(_fwd, (0, 6, 5, 7), 3, True), STATISTICS),
)
