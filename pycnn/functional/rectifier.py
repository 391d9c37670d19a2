"""The ReLU family and its relatives: functions of one number, with a setting or two.

Forward and backward run one kernel each; a backward that is itself recorded (create_graph) is written out in Tensor
operations.  `inplace` is accepted for PyTorch's sake and has no effect: the result is always new.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pycnn import ops
from pycnn.arithmetic import Where, where
from pycnn.functional._arrays import composed, expect_arrays, fused
from pycnn.functional.activation import Sigmoid, Tanh
from pycnn.graph import Function, Variable, is_grad_enabled
from pycnn.ops._checks import axis_of, number, real
from pycnn.tensor import Tensor

__all__ = [
    "celu",
    "elu",
    "erf",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]

Array = Any

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


class Activation(Function):
    """One function of the family; `how` is its name and settings, as `ops.activation` has them."""

    @staticmethod
    def forward(ctx: Any, x: Array, *how: Any) -> Array:
        ctx.save(x)
        ctx.how = how
        return ops.activation(x, *how)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (x,) = ctx.saved
        name, *settings = ctx.how
        if is_grad_enabled():
            dx = _SLOPES[name](dy, x, *settings)
        else:
            dx = fused(ops.activation_backward(dy._data, x._data, *ctx.how))
        return dx, *(None,) * len(ctx.how)


def _where(condition: Any, a: Any, b: Any) -> Any:
    """`arithmetic.where` of a comparison's Tensor."""
    return where(condition._data, a, b)


def _elu(dy: Any, x: Any, a: float, b: float, c: float) -> Any:
    below = (x.clamp(max=0.0) * c).exp() * (a * c)  # limited, so that what is not taken cannot overflow
    return dy * _where(x <= 0, below, b)


def _gelu(dy: Any, x: Any) -> Any:
    normal_cdf = (Activation.apply(x * math.sqrt(0.5), "erf") + 1.0) * 0.5
    return dy * (normal_cdf + x * (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi)))


def _gelu_tanh(dy: Any, x: Any) -> Any:
    scale, cube = 2 * math.sqrt(2 / math.pi), 0.044715
    u = (x + x * x * x * cube) * scale
    s = Sigmoid.apply(u)
    return dy * (s + x * (s * Sigmoid.apply(-u)) * ((x * x * (3 * cube) + 1.0) * scale))


def _mish(dy: Any, x: Any) -> Any:
    factor = Tanh.apply(Activation.apply(x, "softplus", 1.0, 20.0))
    return dy * (factor + x * Sigmoid.apply(x) * (1.0 - factor * factor))


def _silu(dy: Any, x: Any) -> Any:
    return dy * (Sigmoid.apply(x) * (1.0 + x * Sigmoid.apply(-x)))


def _tanhshrink(dy: Any, x: Any) -> Any:
    t = Tanh.apply(x)
    return dy * (t * t)


def _hardswish(dy: Any, x: Any) -> Any:
    return _where(x <= -3, 0.0, _where(x < 3, dy * (x * (1 / 3) + 0.5), dy))


# dy times the derivative, in Tensor operations.
_SLOPES: dict[str, Callable[..., Any]] = {
    "elu": _elu,
    "erf": lambda dy, x: dy * ((x * x * -1.0).exp() * (2 / math.sqrt(math.pi))),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "hardshrink": lambda dy, x, a: _where(abs(x) <= a, 0.0, dy),
    "hardsigmoid": lambda dy, x: _where(abs(x) < 3, dy * (1 / 6), 0.0),
    "hardswish": _hardswish,
    "hardtanh": lambda dy, x, a, b: _where((x <= a) | (x >= b), 0.0, dy),
    "huber": lambda dy, x, a, b: dy * (x.clamp(-a, a) * b),
    "leaky_relu": lambda dy, x, a: _where(x > 0, dy, dy * a),
    "logsigmoid": lambda dy, x: dy * Sigmoid.apply(-x),
    "mish": _mish,
    "silu": _silu,
    "softplus": lambda dy, x, a, b: _where(x * a > b, dy, dy * Sigmoid.apply(x * a)),
    "softshrink": lambda dy, x, a: _where(abs(x) <= a, 0.0, dy),
    "softsign": lambda dy, x: dy * (1.0 + abs(x)) ** -2.0,
    "tanhshrink": _tanhshrink,
    "threshold": lambda dy, x, a, b: _where(x <= a, 0.0, dy),
}


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """y = x where x > 0, else negative_slope * x.

    Args:
        input: any shape; a Tensor or an array, float16, bfloat16, float32 or float64.
        negative_slope: a finite number.

    Raises:
        TypeError: not an array, or an unsupported dtype.
        ValueError: a slope that is not finite.

    Reference: Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.leaky_relu(np.array([-1.0, 2.0]), 0.5)
    array([-0.5,  2. ])
    """
    return Activation.apply(input, "leaky_relu", number("negative_slope", negative_slope))


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """y = x where x > 0, else alpha * (e^x - 1).

    Args, Raises: as `leaky_relu`; `alpha` a finite number.

    Reference: Clevert, Unterthiner & Hochreiter, "Fast and accurate deep network learning by exponential linear units",
    ICLR 2016.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.elu(np.array([-1000.0, 2.0]))
    array([-1.,  2.])
    """
    return Activation.apply(input, "elu", number("alpha", alpha), 1.0, 1.0)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """y = x where x > 0, else alpha * (e^(x / alpha) - 1).

    Args, Raises: as `leaky_relu`; `alpha` a finite number that is not 0.

    Reference: Barron, "Continuously differentiable exponential linear units", 2017.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.celu(np.array([-1000.0, 2.0]), 3.0)
    array([-3.,  2.])
    """
    alpha = number("alpha", alpha)
    if alpha == 0:
        raise ValueError("alpha must not be 0")
    return Activation.apply(input, "elu", alpha, 1.0, 1.0 / alpha)


def selu(input: Any, inplace: bool = False) -> Any:
    """y = s * (x where x > 0, else alpha * (e^x - 1)), with s = 1.0507... and alpha = 1.6733...

    Args, Raises: as `leaky_relu`.

    Reference: Klambauer et al., "Self-normalizing neural networks", 2017.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.selu(np.array([1.0])).round(4)
    array([1.0507])
    """
    return Activation.apply(input, "elu", SELU_ALPHA * SELU_SCALE, SELU_SCALE, 1.0)


def gelu(input: Any, approximate: str = "none") -> Any:
    """y = x * Phi(x), Phi the distribution function of the normal distribution.

    Args:
        input: any shape; a Tensor or an array.
        approximate: "none", or "tanh" for x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    Raises:
        TypeError: as `leaky_relu`.  ValueError: another approximation.

    Reference: Hendrycks & Gimpel, "Gaussian error linear units", 2016.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.gelu(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.8413])
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
    return Activation.apply(input, "gelu" if approximate == "none" else "gelu_tanh")


def silu(input: Any, inplace: bool = False) -> Any:
    """y = x * sigmoid(x), also called swish.

    Args, Raises: as `leaky_relu`.

    Reference: Hendrycks & Gimpel, "Gaussian error linear units", 2016; Ramachandran, Zoph & Le, "Searching for
    activation functions", 2017.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.silu(np.array([0.0, 100.0]))
    array([  0., 100.])
    """
    return Activation.apply(input, "silu")


def mish(input: Any, inplace: bool = False) -> Any:
    """y = x * tanh(log(1 + e^x)).

    Args, Raises: as `leaky_relu`.

    Reference: Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.mish(np.array([0.0, 100.0]))
    array([  0., 100.])
    """
    return Activation.apply(input, "mish")


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """y = log(1 + e^(beta x)) / beta, and x where beta * x > threshold.

    Args, Raises: as `leaky_relu`; `beta` and `threshold` numbers.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.softplus(np.array([0.0, 100.0])).round(4)
    array([  0.6931, 100.    ])
    """
    return Activation.apply(input, "softplus", real("beta", beta), real("threshold", threshold))


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """y = x, at least min_val and at most max_val; its gradient is 0 at the bounds.

    Args, Raises: as `leaky_relu`; ValueError where min_val is greater than max_val.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.hardtanh(np.array([-3.0, 0.5, 3.0]))
    array([-1. ,  0.5,  1. ])
    """
    low, high = real("min_val", min_val), real("max_val", max_val)
    if low > high:
        raise ValueError(f"min_val must not be greater than max_val, got {min_val} and {max_val}")
    return Activation.apply(input, "hardtanh", low, high)


def relu6(input: Any, inplace: bool = False) -> Any:
    """y = x, at least 0 and at most 6.

    Args, Raises: as `leaky_relu`.

    Reference: Howard et al., "MobileNets", 2017.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.relu6(np.array([-3.0, 3.0, 9.0]))
    array([0., 3., 6.])
    """
    return Activation.apply(input, "hardtanh", 0.0, 6.0)


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """y = relu6(x + 3) / 6.

    Args, Raises: as `leaky_relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.hardsigmoid(np.array([-4.0, 0.0, 4.0]))
    array([0. , 0.5, 1. ])
    """
    return Activation.apply(input, "hardsigmoid")


def hardswish(input: Any, inplace: bool = False) -> Any:
    """y = x * relu6(x + 3) / 6.

    Args, Raises: as `leaky_relu`.

    Reference: Howard et al., "Searching for MobileNetV3", 2019.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.hardswish(np.array([-3.0, 1.5, 4.0]))
    array([-0.   ,  1.125,  4.   ])
    """
    return Activation.apply(input, "hardswish")


def logsigmoid(input: Any) -> Any:
    """y = log(sigmoid(x)) = -log(1 + e^-x), without overflow.

    Args, Raises: as `leaky_relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.logsigmoid(np.array([-1000.0]))
    array([-1000.])
    """
    return Activation.apply(input, "logsigmoid")


def softsign(input: Any) -> Any:
    """y = x / (1 + |x|).

    Args, Raises: as `leaky_relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.softsign(np.array([-1.0, 3.0]))
    array([-0.5 ,  0.75])
    """
    return Activation.apply(input, "softsign")


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """y = 0 where |x| <= lambd, else x.

    Args, Raises: as `leaky_relu`; `lambd` a number.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.hardshrink(np.array([0.5, 1.0]))
    array([0., 1.])
    """
    return Activation.apply(input, "hardshrink", real("lambd", lambd))


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """y = 0 where |x| <= lambd, else x, closer to 0 by lambd.

    Args, Raises: as `leaky_relu`; `lambd` at least 0.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.softshrink(np.array([0.5, 1.0, -3.0]))
    array([ 0. ,  0.5, -2.5])
    """
    lambd = real("lambd", lambd)
    if not lambd >= 0:
        raise ValueError(f"lambd must be at least 0, got {lambd}")
    return Activation.apply(input, "softshrink", lambd)


def tanhshrink(input: Any) -> Any:
    """y = x - tanh(x).

    Args, Raises: as `leaky_relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.tanhshrink(np.array([0.0, 100.0]))
    array([ 0., 99.])
    """
    return Activation.apply(input, "tanhshrink")


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """y = x where x > threshold, else value.

    Args, Raises: as `leaky_relu`; `threshold` and `value` numbers.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.threshold(np.array([0.5, 1.0]), 0.5, 7.0)
    array([7., 1.])
    """
    return Activation.apply(input, "threshold", real("threshold", threshold), real("value", value))


def erf(input: Any) -> Any:
    """y = 2 / sqrt(pi) * the integral of e^(-t^2) from 0 to x.

    Args, Raises: as `leaky_relu`.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.erf(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.8427])
    """
    return Activation.apply(input, "erf")


@composed
def prelu(input: Any, weight: Any) -> Any:
    """y = x where x > 0, else weight * x, with one weight or one a channel.

    Args:
        input: (N, C, ...), or any shape beside one weight; a Tensor or an array.
        weight: (1,), (C,) or a scalar.

    Raises:
        TypeError: as `leaky_relu`.
        ValueError: a weight of another size.

    Reference: He, Zhang, Ren & Sun, "Delving deep into rectifiers", 2015.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.prelu(np.array([[-1.0, -1.0]]), np.array([0.5, 0.25]))
    array([[-0.5 , -0.25]])
    """
    expect_arrays(weight=weight)
    weight = weight if isinstance(weight, Variable) else Tensor(weight)
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise ValueError(f"weight must have one value or {channels}, one a channel, got shape {weight.shape}")
    weight = weight.reshape(1, -1, *(1,) * (input.ndim - 2)) if weight.numel() > 1 else weight.reshape(())
    return Where.apply((input > 0)._data, input, input * weight)


@composed
def glu(input: Any, dim: int = -1) -> Any:
    """y = a * sigmoid(b), a and b the first and the second half of `input` along a dimension.

    Args:
        input: at least one dimension; a Tensor or an array.
        dim: negative counts from the end.

    Raises:
        TypeError: as `leaky_relu`.
        ValueError: a dimension that there is not, or of an odd size.

    Reference: Dauphin et al., "Language modeling with gated convolutional networks", 2017.

    >>> import numpy as np, pycnn
    >>> pycnn.functional.glu(np.array([4.0, 0.0]))
    array([2.])
    """
    axis = axis_of("dim", dim, input.ndim)
    size = input.shape[axis]
    if size % 2:
        raise ValueError(f"dim must name a dimension of an even size, and dimension {dim} has {size}")
    first, second = ((slice(None),) * axis + (part,) for part in (slice(size // 2), slice(size // 2, None)))
    return input[first] * Sigmoid.apply(input[second])
