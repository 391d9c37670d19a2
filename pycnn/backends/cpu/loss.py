"""Negative log-likelihood on the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def nll_fwd(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray | None, ignore_index: int, reduction: str
) -> np.ndarray:
    """-weight[t] * x[n, t, ...] with t = target[n, ...], reduced; IndexError for a target that is no class."""
    return _cpu.nll_fwd(dense(x), dense(target), None if weight is None else dense(weight), ignore_index, reduction)


def nll_bwd(
    dy: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    x_shape: tuple[int, ...],
    ignore_index: int,
    reduction: str,
) -> np.ndarray:
    """dx: each target's share of dy at its class, 0 elsewhere."""
    plain = None if weight is None else dense(weight)
    return _cpu.nll_bwd(dense(dy), dense(target), plain, x_shape, ignore_index, reduction)
