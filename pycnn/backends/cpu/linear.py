"""Matrix products of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu


def gemm(a: np.ndarray, b: np.ndarray, trans_a: bool, trans_b: bool) -> np.ndarray:
    """The matrix product of `a` and `b`, each transposed first if asked."""
    return _cpu.gemm(np.ascontiguousarray(a), np.ascontiguousarray(b), None, trans_a, trans_b)


def linear_fwd(x: np.ndarray, w: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """y = x @ w.T + b for x (rows, in), w (out, in) and b (out,)."""
    bias = None if b is None else np.ascontiguousarray(b)
    return _cpu.gemm(np.ascontiguousarray(x), np.ascontiguousarray(w), bias, False, True)
