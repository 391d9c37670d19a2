"""Normalisation across channels and over the batch, and the affine map of a channel, of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def lrn_fwd(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """y[c] = x[c] / (k + alpha/size * sum of x^2 over channels c - size//2 .. c + (size - 1)//2)^beta."""
    return _cpu.lrn_fwd(dense(x), size, alpha, beta, k)


def lrn_bwd(dy: np.ndarray, x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """dx of `lrn_fwd`."""
    return _cpu.lrn_bwd(dense(dy), dense(x), size, alpha, beta, k)


def batch_norm_fwd(
    x: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x - mean) / sqrt(var + eps) * weight + bias, the mean and the biased variance over all axes but the second.

    Then, in the same pass, `residual` is added and a ReLU taken.
    """
    return _cpu.batch_norm_fwd(
        dense(x), _dense_or_none(weight), _dense_or_none(bias), eps, _dense_or_none(residual), relu
    )


def batch_norm_bwd(
    dy: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | None,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float,
    y: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight and dbias of `batch_norm_fwd`; mean and var, and y where there was a ReLU, are what it returned."""
    return _cpu.batch_norm_bwd(
        dense(dy), dense(x), _dense_or_none(weight), dense(mean), dense(var), eps, _dense_or_none(y)
    )


def batch_norm_eval(
    x: np.ndarray, mean: np.ndarray, var: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> np.ndarray:
    """(x - mean) / sqrt(var + eps) * weight + bias, with statistics that are given."""
    return _cpu.batch_norm_eval(dense(x), dense(mean), dense(var), _dense_or_none(weight), _dense_or_none(bias), eps)


def channel_affine(x: np.ndarray, scale: np.ndarray | None, shift: np.ndarray) -> np.ndarray:
    """x * scale[c] + shift[c]; a scale of None is 1."""
    return _cpu.channel_affine(dense(x), _dense_or_none(scale), dense(shift))


def _dense_or_none(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else dense(array)
