"""Tensors for tests: leaves of a graph, in float64."""

from __future__ import annotations

import numpy as np

from pycnn import Tensor


def leaf(*values: float) -> Tensor:
    """These values, one dimension of them."""
    return Tensor(np.array(values), requires_grad=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same for the same seed."""
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)
