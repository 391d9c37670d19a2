"""Arrays that lie channels-last: whole vectors of channels, and channels that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from pycnn.testing.cases.norm import batch_norm_bwd
from pycnn.testing.cases.operands import STATISTICS, SUM, Arguments, Case, Shape, last, normal, special, whole

__all__ = ["CASES"]


def _channels_last() -> Iterator[Case]:
    """Whole vectors of channels, and channels that are none."""
    for about, shape in (("vectors", (3, 24, 9, 11)), ("odd", (3, 5, 9, 11))):
        c = shape[1]
        yield Case("relu_fwd", f"channels-last, {about}", partial(_on_last, special, shape))
        yield Case("dropout", f"channels-last, {about}", partial(_on_last, normal, shape, 0.5, 2**40 + 3, 17))
        yield Case("channel_sum", f"channels-last, {about}", partial(_on_last, whole, shape))
        yield Case("pad2d", f"channels-last, {about}", partial(_on_last, special, shape, (1, 0, 2, 3), -1.5))
        yield Case("softmax_fwd", f"channels-last, {about}", partial(_on_last, normal, shape, 1), SUM)
        yield Case(
            "channel_affine",
            f"channels-last, {about}",
            partial(_on_last, whole, shape, whole(c, seed=1), whole(c, seed=2)),
        )
        yield Case(
            "batch_norm_fwd",
            f"channels-last, residual, relu, {about}",
            partial(_batch_norm_fwd_last, *shape),
            STATISTICS,
        )
        yield Case("batch_norm_bwd", f"channels-last, {about}", partial(_batch_norm_bwd_last, *shape), STATISTICS)
    yield Case("concat", "channels-last", lambda: ([last(special(2, c, 5, 7, seed=c)) for c in (8, 1, 16)], 1))


def _on_last(values: Callable[..., np.ndarray], shape: Shape, *settings: Any) -> Arguments:
    return (last(values(*shape)), *settings)


def _batch_norm_fwd_last(*shape: int) -> Arguments:
    weight, bias = normal(shape[1], seed=1), normal(shape[1], seed=2)
    return (last(normal(*shape)), weight, bias, 1e-5, last(normal(*shape, seed=3)), True)


def _batch_norm_bwd_last(*shape: int) -> Arguments:
    dy, x, *rest = batch_norm_bwd(*shape)
    return (last(dy), last(x), *rest)


CASES: tuple[Case, ...] = (*_channels_last(),)
