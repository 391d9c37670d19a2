"""Elementwise functions, softmax and their gradients of the CPU engine."""

from __future__ import annotations

import numpy as np

from pycnn import _cpu
from pycnn.backends.cpu._dense import dense


def relu_fwd(x: np.ndarray) -> np.ndarray:
    """max(x, 0); NaN stays."""
    return _cpu.relu_fwd(dense(x))


def relu_bwd(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy where y is not <= 0, else 0."""
    return _cpu.relu_bwd(dense(dy), dense(y))


def tanh_fwd(x: np.ndarray) -> np.ndarray:
    """tanh(x), within 3 units in the last place."""
    return _cpu.tanh_fwd(dense(x))


def tanh_bwd(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy * (1 - y^2)."""
    return _cpu.tanh_bwd(dense(dy), dense(y))


def sigmoid_fwd(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), within 3 units in the last place."""
    return _cpu.sigmoid_fwd(dense(x))


def sigmoid_bwd(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy * y * (1 - y)."""
    return _cpu.sigmoid_bwd(dense(dy), dense(y))


def activation_fwd(x: np.ndarray, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> np.ndarray:
    """The function `name` of the family, with its settings."""
    return _cpu.activation_fwd(dense(x), name, a, b, c)


def activation_bwd(
    dy: np.ndarray, x: np.ndarray, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0
) -> np.ndarray:
    """dy times the derivative of `activation_fwd` at x."""
    return _cpu.activation_bwd(dense(dy), dense(x), name, a, b, c)


def softmax_fwd(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x - max) over its sum along `axis`."""
    return _cpu.softmax_fwd(dense(x), axis, False)


def softmax_bwd(dy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """y * (dy - sum of dy*y along `axis`)."""
    return _cpu.softmax_bwd(dense(dy), dense(y), axis, False)


def log_softmax_fwd(x: np.ndarray, axis: int) -> np.ndarray:
    """x - max - log of the sum of exp(x - max) along `axis`."""
    return _cpu.softmax_fwd(dense(x), axis, True)


def log_softmax_bwd(dy: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """dy - exp(y) * sum of dy along `axis`."""
    return _cpu.softmax_bwd(dense(dy), dense(y), axis, True)
