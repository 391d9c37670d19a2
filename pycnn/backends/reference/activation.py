"""The family of activations: functions of one number with up to three settings, and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ._common import Array, rounded, wide

Function = Callable[[np.ndarray, float, float, float], np.ndarray]

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return _erfc(-x / math.sqrt(2)) / 2 if x.size else x


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1 + small)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _gelu_argument(x: np.ndarray) -> np.ndarray:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def _gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    s = _sigmoid(_gelu_argument(x))
    return s + x * (s * _sigmoid(-_gelu_argument(x))) * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def _mish_factor(x: np.ndarray) -> np.ndarray:
    return np.tanh(_softplus(x))


# Forward; every function of x, a, b, c.
_VALUES: dict[str, Function] = {
    "elu": lambda x, a, b, c: np.where(x <= 0, a * np.expm1(c * np.minimum(x, 0)), b * x),
    "erf": lambda x, a, b, c: _erf(x) if x.size else x,
    "gelu": lambda x, a, b, c: x * _normal_cdf(x),
    "gelu_tanh": lambda x, a, b, c: x * _sigmoid(_gelu_argument(x)),
    "hardshrink": lambda x, a, b, c: np.where(np.abs(x) <= a, 0, x),
    "hardsigmoid": lambda x, a, b, c: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x, a, b, c: x * np.clip(x + 3, 0, 6) / 6,
    "hardtanh": lambda x, a, b, c: np.clip(x, a, b),
    "huber": lambda x, a, b, c: b * np.where(np.abs(x) <= a, x * x / 2, a * (np.abs(x) - a / 2)),
    "leaky_relu": lambda x, a, b, c: np.where(x > 0, x, a * x),
    "logsigmoid": lambda x, a, b, c: -_softplus(-x),
    "mish": lambda x, a, b, c: x * _mish_factor(x),
    "silu": lambda x, a, b, c: x * _sigmoid(x),
    "softplus": lambda x, a, b, c: np.where(a * x > b, x, _softplus(a * x) / a),
    "softshrink": lambda x, a, b, c: x - np.clip(x, -a, a),
    "softsign": lambda x, a, b, c: x / (1 + np.abs(x)),
    "tanhshrink": lambda x, a, b, c: x - np.tanh(x),
    "threshold": lambda x, a, b, c: np.where(x <= a, b, x),
}

# Derivatives.  NaN takes the last side of a choice.
_SLOPES: dict[str, Function] = {
    "elu": lambda x, a, b, c: np.where(x <= 0, a * c * np.exp(c * np.minimum(x, 0)), b),
    "erf": lambda x, a, b, c: 2 / math.sqrt(math.pi) * np.exp(-x * x),
    "gelu": lambda x, a, b, c: _normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "gelu_tanh": lambda x, a, b, c: _gelu_tanh_slope(x),
    "hardshrink": lambda x, a, b, c: np.where(np.abs(x) <= a, 0, 1),
    "hardsigmoid": lambda x, a, b, c: np.where(np.abs(x) < 3, 1 / 6, 0),
    "hardswish": lambda x, a, b, c: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)),
    "hardtanh": lambda x, a, b, c: np.where((x <= a) | (x >= b), 0, 1),
    "huber": lambda x, a, b, c: b * np.clip(x, -a, a),
    "leaky_relu": lambda x, a, b, c: np.where(x > 0, 1, a),
    "logsigmoid": lambda x, a, b, c: _sigmoid(-x),
    "mish": lambda x, a, b, c: _mish_factor(x) + x * _sigmoid(x) * (1 - _mish_factor(x) ** 2),
    "silu": lambda x, a, b, c: _sigmoid(x) * (1 + x * _sigmoid(-x)),
    "softplus": lambda x, a, b, c: np.where(a * x > b, 1, _sigmoid(a * x)),
    "softshrink": lambda x, a, b, c: np.where(np.abs(x) <= a, 0, 1),
    "softsign": lambda x, a, b, c: 1 / (1 + np.abs(x)) ** 2,
    "tanhshrink": lambda x, a, b, c: np.tanh(x) ** 2,
    "threshold": lambda x, a, b, c: np.where(x <= a, 0, 1),
}

# Where the derivative is none, dy counts for nothing even if it is NaN or infinite.
_CUT = ("hardshrink", "hardsigmoid", "hardswish", "hardtanh", "softshrink", "threshold")


def activation_fwd(x: Array, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Array:
    """The function `name` of the family, with its settings a, b and c; those it does not have are ignored.

    elu: b*x where x > 0, else a*(e^(c*x) - 1).  hardtanh: between a and b.  huber: b * (x^2/2 where |x| <= a, else
    a*(|x| - a/2)).  leaky_relu: a is the slope.  hardshrink, softshrink: a is how much.  softplus: log(1 + e^(a*x))/a,
    and x where a*x > b.  threshold: b where x <= a.
    """
    with np.errstate(all="ignore"):
        return rounded(np.asarray(_VALUES[name](wide(x), a, b, c)), x.dtype)


def activation_bwd(dy: Array, x: Array, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Array:
    """dy times the derivative of `activation_fwd` at x."""
    with np.errstate(all="ignore"):
        slope = np.asarray(_SLOPES[name](wide(x), a, b, c))
        dx = slope * wide(dy)
        return rounded(np.where(slope == 0, 0.0, dx) if name in _CUT else dx, dy.dtype)
