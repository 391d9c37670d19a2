"""Norms and what has one value a channel."""

from __future__ import annotations

import numpy as np

from pycnn.testing.cases.operands import FUNCTION, STATISTICS, SUM, Arguments, Case, normal, whole

__all__ = ["CASES"]


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    axes = (0, *range(2, x.ndim))
    return x.mean(axes, dtype=np.float64).astype(np.float32), x.var(axes, dtype=np.float64).astype(np.float32)


def batch_norm_bwd(*shape: int, mean: float = 0.0, weight: bool = True) -> Arguments:
    x, c = normal(*shape, seed=1, mean=mean), shape[1]
    return (normal(*shape, seed=2), x, normal(c, seed=3) if weight else None, *_statistics(x), 1e-5)


CASES: tuple[Case, ...] = (
    Case("lrn_fwd", "alexnet", lambda: (normal(2, 20, 5, 7, spread=30.0), 5, 1e-4, 0.75, 2.0), SUM),
    Case("lrn_fwd", "even window", lambda: (normal(1, 3, 40), 4, 0.1, 0.5, 1.0), SUM),
    Case(
        "lrn_bwd",
        "alexnet",
        lambda: (normal(2, 20, 5, 7), normal(2, 20, 5, 7, seed=1, spread=30.0), 5, 1e-4, 0.75, 2.0),
        SUM,
    ),
    Case("lrn_bwd", "even window", lambda: (normal(1, 3, 40), normal(1, 3, 40, seed=1), 4, 0.1, 0.5, 1.0), SUM),
    Case("channel_sum", "integers", lambda: (whole(5, 7, 11, 13),)),
    Case("channel_sum", "integers, many", lambda: (whole(2, 3, 200, 301),)),
    Case("channel_sum", "rows", lambda: (whole(300, 17),)),
    Case("channel_sum", "no images", lambda: (whole(0, 4, 3, 3),)),
    Case(
        "batch_norm_fwd",
        "plane",
        lambda: (normal(3, 5, 9, 11), normal(5, seed=1), normal(5, seed=2), 1e-5),
        STATISTICS,
    ),
    Case("batch_norm_fwd", "rows, no weight", lambda: (normal(64, 9), None, None, 1e-5), STATISTICS),
    # The mean is 300 times the deviation: a sum of squares minus the square of the sum would keep 7 bits of it.
    Case("batch_norm_fwd", "far from zero", lambda: (normal(4, 3, 40, 41, mean=300.0), None, None, 1e-5), 3e4),
    Case(
        "batch_norm_fwd",
        "residual, relu",
        lambda: (
            *(normal(3, 5, 9, 11), normal(5, seed=1), normal(5, seed=2), 1e-5),
            *(normal(3, 5, 9, 11, seed=3), True),
        ),
        STATISTICS,
    ),
    Case(
        "batch_norm_bwd",
        "relu",
        lambda: (*batch_norm_bwd(3, 5, 9, 11), np.maximum(normal(3, 5, 9, 11, seed=4), 0)),
        STATISTICS,
    ),
    Case("batch_norm_bwd", "plane", lambda: batch_norm_bwd(3, 5, 9, 11), STATISTICS),
    Case("batch_norm_bwd", "rows, no weight", lambda: batch_norm_bwd(64, 9, weight=False), STATISTICS),
    Case(
        "batch_norm_eval",
        "plane",
        lambda: (normal(2, 5, 9, 7), normal(5, seed=1), abs(normal(5, seed=2)), normal(5, seed=3), None, 1e-5),
        FUNCTION,
    ),
    Case("channel_affine", "integers", lambda: (whole(2, 5, 9, 7), whole(5, seed=1), whole(5, seed=2))),
    Case("channel_affine", "shift alone", lambda: (whole(3, 4), None, whole(4, seed=2))),
)
