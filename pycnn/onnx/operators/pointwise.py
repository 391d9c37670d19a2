"""Functions of one element that neither Tensors nor `pycnn.functional` have, with their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pycnn.arrays import module_of
from pycnn.graph import Function
from pycnn.onnx.operators._common import Value, is_tensor
from pycnn.onnx.registry import operator
from pycnn.tensor import Tensor

Array = Any


class _Form(NamedTuple):
    """A function of an array, given its library; and its slope, of a Tensor: None for a function made of steps."""

    value: Callable[[Any, Array], Array]
    slope: Callable[[Tensor], Tensor] | None


class Pointwise(Function):
    """y = f(x), f by its name in `_FORMS`."""

    @staticmethod
    def forward(ctx: Any, x: Array, name: str) -> Array:
        ctx.save(x)
        ctx.name = name
        y = _FORMS[name].value(module_of(x), x)
        return np.asarray(y) if isinstance(y, np.generic) else y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        slope = _FORMS[ctx.name].slope
        return dy * 0.0 if slope is None else dy * slope(ctx.saved[0]), None


def pointwise(name: str, x: Value) -> Value:
    """The function `name` of a Tensor, or of an array of integers."""
    if is_tensor(x):
        return Pointwise.apply(x, name)
    return np.asarray(_FORMS[name].value(np, x)).astype(x.dtype, copy=False)


def erf(module: Any, x: Array) -> Array:
    """The error function, to the last bit but one of float32.

    NumPy has none.  |x| < 1 by its Maclaurin series, elsewhere by Laplace's continued fraction of erfc, evaluated from
    the far end; both in float64.

    Reference: Abramowitz & Stegun, "Handbook of Mathematical Functions", 7.1.6 and 7.1.14.
    """
    z = x.astype(module.float64)
    size = module.abs(z)
    small = module.minimum(size, _SPLIT)
    square = small * small
    series = module.zeros_like(z)
    for n in range(_SERIES, 0, -1):
        series = (series + 1.0) * (2.0 * square / (2 * n + 1))
    inside = (series + 1.0) * small * (2.0 / math.sqrt(math.pi)) * module.exp(-square)
    large = module.clip(size, _SPLIT, 6.0)  # erfc(6) = 2e-17: nothing is left of it beside 1 in float64
    fraction = large
    for n in range(_FRACTION, 0, -1):
        fraction = large + (n / 2.0) / fraction
    outside = 1.0 - module.exp(-large * large) / (fraction * math.sqrt(math.pi))
    value = module.where(size < _SPLIT, inside, outside) * module.sign(z)
    return module.where(z != z, z, value).astype(x.dtype)


_SPLIT = 2.0  # the series takes 34 terms up to here, and the fraction 50 levels from here, for 1e-15
_SERIES, _FRACTION = 40, 60


_FORMS = {
    "acos": _Form(lambda m, x: m.arccos(x), lambda x: -((1.0 - x * x) ** -0.5)),
    "acosh": _Form(lambda m, x: m.arccosh(x), lambda x: (x * x - 1.0) ** -0.5),
    "asin": _Form(lambda m, x: m.arcsin(x), lambda x: (1.0 - x * x) ** -0.5),
    "asinh": _Form(lambda m, x: m.arcsinh(x), lambda x: (x * x + 1.0) ** -0.5),
    "atan": _Form(lambda m, x: m.arctan(x), lambda x: 1.0 / (x * x + 1.0)),
    "atanh": _Form(lambda m, x: m.arctanh(x), lambda x: 1.0 / (1.0 - x * x)),
    "ceil": _Form(lambda m, x: m.ceil(x), None),
    "cos": _Form(lambda m, x: m.cos(x), lambda x: -pointwise("sin", x)),
    "cosh": _Form(lambda m, x: m.cosh(x), lambda x: pointwise("sinh", x)),
    "erf": _Form(erf, lambda x: (-x * x).exp() * (2.0 / math.sqrt(math.pi))),
    "floor": _Form(lambda m, x: m.floor(x), None),
    "log1p": _Form(lambda m, x: m.log1p(x), lambda x: 1.0 / (1.0 + x)),
    "round": _Form(lambda m, x: m.rint(x), None),
    "sign": _Form(lambda m, x: m.sign(x), None),
    "sin": _Form(lambda m, x: m.sin(x), lambda x: pointwise("cos", x)),
    "sinh": _Form(lambda m, x: m.sinh(x), lambda x: pointwise("cosh", x)),
    "tan": _Form(lambda m, x: m.tan(x), lambda x: pointwise("cos", x) ** -2.0),
}


def _register(name: str) -> None:
    def function(x: Value) -> Value:
        return pointwise(name, x)

    operator(name.capitalize())(function)


for _name in _FORMS:
    if _name != "log1p":
        _register(_name)
