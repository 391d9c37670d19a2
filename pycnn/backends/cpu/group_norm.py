"""Normalisation of groups of channels of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def group_norm_fwd(
    x: np.ndarray,
    groups: int,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
    centred: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x - mean) / sqrt(var + eps) * weight + bias, with mean and biased variance of each group of each sample."""
    return _cpu.group_norm_fwd(dense(x), groups, _dense_or_none(weight), _dense_or_none(bias), eps, centred)


def group_norm_bwd(
    dy: np.ndarray,
    x: np.ndarray,
    groups: int,
    weight: np.ndarray | None,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float,
    centred: bool = True,
    affine: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """dx and, with `affine`, dweight and dbias; mean and var are functions of x here."""
    arrays = (dense(dy), dense(x), groups, _dense_or_none(weight), dense(mean), dense(var))
    return _cpu.group_norm_bwd(*arrays, eps, centred, affine)


def _dense_or_none(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else dense(array)
