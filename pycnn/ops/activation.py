"""Raw activations on arrays of any shape, forward and backward.

The backward of ReLU, tanh, sigmoid and softmax is a function of their output, that of the others of their input.
"""

from __future__ import annotations

from pycnn.ops._arrays import Array, Call
from pycnn.ops._checks import axis_of, expect_shape, real

# The family of functions with up to three settings, by name.
ACTIVATIONS = (
    *("elu", "erf", "gelu", "gelu_tanh", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "huber", "leaky_relu"),
    *("logsigmoid", "mish", "silu", "softplus", "softshrink", "softsign", "tanhshrink", "threshold"),
)


def relu(x: Array) -> Array:
    """max(x, 0), element by element; NaN stays NaN.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.

    Returns:
        An array of x's shape.

    Raises:
        TypeError: not an array, or an unsupported dtype.

    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    call = Call(x=x)
    return call.back(call.backend.relu_fwd(*call.arrays))


def relu_backward(dy: Array, y: Array) -> Array:
    """Gradient of `relu`: dy where y > 0, else 0.

    Args:
        dy, y: gradient of the output and the output itself, of one shape.

    Returns:
        dx of that shape.

    Raises:
        TypeError: as `relu`, or arrays that do not go together.  ValueError: different shapes.

    >>> import numpy as np
    >>> relu_backward(np.array([5.0, 5.0]), np.array([0.0, 2.0]))
    array([0., 5.])
    """
    call = _pair_call(dy, y)
    return call.back(call.backend.relu_bwd(*call.arrays))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent, element by element.

    Args, Returns, Raises: as `relu`.

    >>> import numpy as np
    >>> tanh(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.7616])
    """
    call = Call(x=x)
    return call.back(call.backend.tanh_fwd(*call.arrays))


def tanh_backward(dy: Array, y: Array) -> Array:
    """Gradient of `tanh`: dy * (1 - y^2).

    Args, Returns, Raises: as `relu_backward`.

    >>> import numpy as np
    >>> tanh_backward(np.array([1.0]), np.array([0.5]))
    array([0.75])
    """
    call = _pair_call(dy, y)
    return call.back(call.backend.tanh_bwd(*call.arrays))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), element by element; never overflows.

    Args, Returns, Raises: as `relu`.

    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    call = Call(x=x)
    return call.back(call.backend.sigmoid_fwd(*call.arrays))


def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Gradient of `sigmoid`: dy * y * (1 - y).

    Args, Returns, Raises: as `relu_backward`.

    >>> import numpy as np
    >>> sigmoid_backward(np.array([1.0]), np.array([0.5]))
    array([0.25])
    """
    call = _pair_call(dy, y)
    return call.back(call.backend.sigmoid_bwd(*call.arrays))


def activation(x: Array, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Array:
    """One of a family of functions, element by element.

    Args:
        x: any shape; float16, bfloat16, float32 or float64.
        name: one of `ACTIVATIONS`.
        a, b, c: its settings, those that it has.  elu: b*x where x > 0, else a*(e^(c*x) - 1).  hardtanh: the bounds a
            and b.  huber: b*(x^2/2 where |x| <= a, else a*(|x| - a/2)).  leaky_relu: the slope a.  hardshrink,
            softshrink: a, how much.  softplus: log(1 + e^(a*x))/a, and x where a*x > b.  threshold: b where x <= a.

    Returns:
        An array of x's shape.

    Raises:
        TypeError: not an array, an unsupported dtype, or a setting that is no number.
        ValueError: an unknown name.

    >>> import numpy as np
    >>> activation(np.array([-1.0, 2.0]), "leaky_relu", 0.5)
    array([-0.5,  2. ])
    """
    _check_function(name)
    call = Call(x=x)
    return call.back(call.backend.activation_fwd(*call.arrays, name, real("a", a), real("b", b), real("c", c)))


def activation_backward(dy: Array, x: Array, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Array:
    """Gradient of `activation`: dy times the derivative at x.

    Args:
        dy: gradient of the output, of x's shape.
        x, name, a, b, c: as in `activation`.

    Returns:
        dx of that shape.

    Raises:
        TypeError, ValueError: as `activation`; also arrays that do not go together.

    >>> import numpy as np
    >>> activation_backward(np.array([1.0, 1.0]), np.array([-1.0, 2.0]), "leaky_relu", 0.5)
    array([0.5, 1. ])
    """
    _check_function(name)
    call = Call(dy=dy, x=x)
    dy, x = call.arrays
    expect_shape("dy", dy.shape, x.shape, "x's shape")
    return call.back(call.backend.activation_bwd(dy, x, name, real("a", a), real("b", b), real("c", c)))


def _check_function(name: object) -> None:
    if name not in ACTIVATIONS:
        raise ValueError(f"name must be one of {', '.join(ACTIVATIONS)}, got {name!r}")


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x - max) over the sum of exp(x - max) along `axis`.

    Args:
        x: at least one dimension.
        axis: negative counts from the end.

    Returns:
        An array of x's shape whose elements sum to 1 along `axis`.

    Raises:
        TypeError: as `relu`.  ValueError: an axis that x does not have.

    >>> import numpy as np
    >>> softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    call = Call(x=x)
    (x,) = call.arrays
    return call.back(call.backend.softmax_fwd(x, axis_of("axis", axis, x.ndim)))


def softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """Gradient of `softmax`: y * (dy - sum of dy*y along `axis`).

    Args, Returns, Raises: as `relu_backward`, `axis` as in `softmax`.

    >>> import numpy as np
    >>> softmax_backward(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    array([ 0.25, -0.25])
    """
    call = _pair_call(dy, y)
    dy, y = call.arrays
    return call.back(call.backend.softmax_bwd(dy, y, axis_of("axis", axis, y.ndim)))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - max - log of the sum of exp(x - max) along `axis`: the logarithm of `softmax`, exact where that underflows.

    Args, Returns, Raises: as `softmax`.

    >>> import numpy as np
    >>> log_softmax(np.array([0.0, -1000.0]))
    array([    0., -1000.])
    """
    call = Call(x=x)
    (x,) = call.arrays
    return call.back(call.backend.log_softmax_fwd(x, axis_of("axis", axis, x.ndim)))


def log_softmax_backward(dy: Array, y: Array, axis: int = -1) -> Array:
    """Gradient of `log_softmax`: dy - exp(y) * sum of dy along `axis`.

    Args, Returns, Raises: as `softmax_backward`.

    >>> import numpy as np
    >>> log_softmax_backward(np.array([1.0, 0.0]), np.log([0.5, 0.5]))
    array([ 0.5, -0.5])
    """
    call = _pair_call(dy, y)
    dy, y = call.arrays
    return call.back(call.backend.log_softmax_bwd(dy, y, axis_of("axis", axis, y.ndim)))


def _pair_call(dy: Array, y: Array) -> Call:
    call = Call(dy=dy, y=y)
    expect_shape("dy", call.arrays[0].shape, call.arrays[1].shape, "y's shape")
    return call
