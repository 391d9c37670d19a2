"""The operations of a compiled network: what each takes, and the shape of what it makes.

Shapes are those of one image, without the batch.  "Channels" are the first axis that is left.

| operation | inputs | settings | constants |
|---|---|---|---|
| conv2d | x, perhaps a residual | stride, padding, dilation, groups, algo, clamp | w, perhaps b |
| linear | x (features,) | clamp | w (out, in), perhaps b |
| affine | x | clamp | scale and shift, a value a channel; either may be missing |
| relu, tanh, sigmoid | x | | |
| activation | x | name, a, b, c, as `pycnn.ops.activation` has them | |
| add, mul | a, b of one shape | clamp | |
| scale | x, and a scale of one pixel (C, 1, 1) | clamp | |
| concat | several | axis | |
| pad | x | sides, ((before, after), ...) for every axis; zeros | |
| slice | x | starts, stops, steps for every axis | |
| reshape | x | shape | |
| permute | x | order: the axes of x, in the order of those of y | |
| max_pool2d | x | kernel, stride, padding, dilation, ceil_mode | |
| avg_pool2d | x | kernel, stride, padding, ceil_mode, count_include_pad, divisor | |
| adaptive_avg_pool2d, adaptive_max_pool2d | x | size | |
| mean | x (C, H, W), over the whole plane, (C, 1, 1) | | |
| lrn | x | size, alpha, beta, k | |
| softmax | x | axis, log | |

y = clamp(conv2d(x, w) + b + residual), each step where it is there.  A clamp is None or (low, high) with zero between
them, as float64: (0, inf) is a ReLU.  Lanes without a channel go through it too, and stay zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pycnn.ops._checks import check_algo, flag, integer, number, real
from pycnn.ops.activation import ACTIVATIONS
from pycnn.shape import Conv2dShape, Padding, Pair, Pool2dShape, normalize_padding, pair, whole

__all__ = ["channels", "conv_shape", "image", "infer"]

Shape = tuple[int, ...]
Clamp = tuple[float, float] | None
Array = Any  # numpy.ndarray, or a `pycnn.compiler.weights.Weight`, of which only dtype and shape count


def infer(op: str, inputs: Sequence[Shape], settings: Mapping[str, Any], constants: Mapping[str, Array]) -> Shape:
    """The shape that operation `op` makes of inputs of these shapes.

    Raises:
        ValueError: an unknown operation, settings or constants that it does not have, or shapes that do not fit.

    >>> infer("concat", [(8, 5, 5), (4, 5, 5)], {"axis": 0}, {})
    (12, 5, 5)
    """
    if op not in _OPERATIONS:
        raise ValueError(f"no operation is named {op!r}")
    try:
        return _OPERATIONS[op](*inputs, **settings, **constants)
    except TypeError as error:
        raise ValueError(f"{op} of {len(inputs)} inputs does not take what it is given: {error}") from None


def channels(shape: Shape) -> int:
    """The first axis."""
    return shape[0] if shape else 1


def image(shape: Shape) -> tuple[int, int, int]:
    """Any shape as channels, rows and columns: the same elements in the same order.

    >>> image((10,)), image((6, 4)), image((2, 3, 4, 5))
    ((10, 1, 1), (6, 1, 4), (2, 3, 20))
    """
    if len(shape) < 3:
        return channels(shape), 1, shape[1] if len(shape) == 2 else 1
    return shape[0], shape[1], math.prod(shape[2:])


def conv_shape(x: Shape, w: Shape, settings: Mapping[str, Any], batch: int = 1) -> Conv2dShape:
    """The problem of a conv2d node."""
    how = (settings[name] for name in ("stride", "padding", "dilation", "groups"))
    return Conv2dShape.of((batch, *x), w, *how)


def _expect(condition: bool, words: str) -> None:
    if not condition:
        raise ValueError(words)


def _same(name: str, got: Any, normal: Any) -> None:
    """Settings must be in the one form that the passes and the lowering read."""
    _expect(type(got) is type(normal) and got == normal, f"{name} must be {normal!r}, got {got!r}")


def _window(kernel: Pair, stride: Pair, padding: Padding) -> None:
    _same("kernel", kernel, pair("kernel", kernel, 1))
    _same("stride", stride, pair("stride", stride, 1))
    _same("padding", padding, normalize_padding(padding, kernel))


def _constants(**arrays: tuple[Array | None, Shape]) -> None:
    for name, (array, shape) in arrays.items():
        if array is not None:
            _expect(
                array.dtype in (np.float32, np.float64) and array.shape == shape,
                f"{name} must be a float array of shape {shape}, got {array.shape}",
            )


def _bounds(clamp: Clamp) -> None:
    """Refuse what is no end of an operation."""
    if clamp is not None:
        fits = isinstance(clamp, tuple) and len(clamp) == 2 and all(type(bound) is float for bound in clamp)
        _expect(fits and clamp[0] <= 0 <= clamp[1], f"clamp must be None or two floats around 0, got {clamp!r}")


def _conv2d(
    x: Shape,
    residual: Shape | None = None,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    algo: str,
    clamp: Clamp,
    w: Array,
    b: Array | None = None,
) -> Shape:
    _window(w.shape[2:], stride, padding)
    _same("dilation", dilation, pair("dilation", dilation, 1))
    check_algo(algo)
    _bounds(clamp)
    shape = Conv2dShape.of((1, *x), w.shape, stride, padding, dilation, groups).y_shape[1:]
    _constants(w=(w, w.shape), b=(b, shape[:1]))
    _expect(residual is None or residual == shape, f"a residual of {residual} cannot be added to {shape}")
    _expect(residual is None or groups == 1, f"a residual cannot be added to {groups} groups")
    return shape


def _linear(x: Shape, *, clamp: Clamp, w: Array, b: Array | None = None) -> Shape:
    _expect(len(x) == 1 and w.ndim == 2, f"linear takes (features,) and w (out, in), got {x} and {w.shape}")
    _constants(w=(w, (w.shape[0], x[0])), b=(b, w.shape[:1]))
    _bounds(clamp)
    return (w.shape[0],)


def _affine(x: Shape, *, clamp: Clamp, scale: Array | None = None, shift: Array | None = None) -> Shape:
    _constants(scale=(scale, (channels(x),)), shift=(shift, (channels(x),)))
    _bounds(clamp)
    return x


def _unary(x: Shape) -> Shape:
    return x


def _binary(a: Shape, b: Shape, *, clamp: Clamp) -> Shape:
    _expect(a == b, f"two arrays of one shape are needed, got {a} and {b}")
    _bounds(clamp)
    return a


def _activation(x: Shape, *, name: str, a: float, b: float, c: float) -> Shape:
    for key, value in (("a", a), ("b", b), ("c", c)):
        real(key, value)
    _expect(name in ACTIVATIONS, f"no activation is named {name!r}")
    return x


def _scale(x: Shape, scale: Shape, *, clamp: Clamp) -> Shape:
    _expect(len(x) == 3 and scale == (x[0], 1, 1), f"(C, H, W) and its scale (C, 1, 1) are needed, got {x} and {scale}")
    _bounds(clamp)
    return x


def _permute(x: Shape, *, order: tuple[int, ...]) -> Shape:
    whole_order = sorted(integer("order", axis) for axis in order)
    _expect(whole_order == list(range(len(x))), f"order must name each axis of {x} once, got {order}")
    return tuple([x[axis] for axis in order])


def _concat(*parts: Shape, axis: int) -> Shape:
    _expect(bool(parts), "nothing to join")
    first = parts[0]
    _expect(0 <= integer("axis", axis) < len(first), f"no axis {axis} in {first}")
    for part in parts:
        same = part[:axis] + part[axis + 1 :] == first[:axis] + first[axis + 1 :]
        _expect(len(part) == len(first) and same, f"cannot join {first} and {part} along axis {axis}")
    return (*first[:axis], sum(part[axis] for part in parts), *first[axis + 1 :])


def _pad(x: Shape, *, sides: tuple[tuple[int, int], ...]) -> Shape:
    _same("sides", sides, tuple([pair("sides", side, 0) for side in sides]))
    _expect(len(sides) == len(x), f"sides must be given for each axis of {x}, got {sides}")
    return tuple([before + size + after for size, (before, after) in zip(x, sides, strict=True)])


def _slice(x: Shape, *, starts: Shape, stops: Shape, steps: Shape) -> Shape:
    sizes = []
    for size, start, stop, step in zip(x, starts, stops, steps, strict=True):
        whole("step", step, 1)
        _expect(0 <= integer("start", start) < integer("stop", stop) <= size, f"no {start}:{stop} in {size}")
        sizes.append(-((start - stop) // step))
    return tuple(sizes)


def _reshape(x: Shape, *, shape: Shape) -> Shape:
    _same("shape", shape, tuple([whole("shape", size, 0) for size in shape]))
    _expect(math.prod(x) == math.prod(shape), f"{x} cannot become {shape}")
    return shape


def _max_pool2d(x: Shape, *, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool) -> Shape:
    _window(kernel, stride, padding)
    _same("dilation", dilation, pair("dilation", dilation, 1))
    _expect(len(x) == 3, f"pooling takes (C, H, W), got {x}")
    return Pool2dShape.of((1, *x), kernel, stride, padding, dilation, flag("ceil_mode", ceil_mode)).y_shape[1:]


def _avg_pool2d(
    x: Shape,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Shape:
    _window(kernel, stride, padding)
    _expect(len(x) == 3, f"pooling takes (C, H, W), got {x}")
    _expect(divisor is None or integer("divisor", divisor) != 0, "divisor must not be 0")
    flag("count_include_pad", count_include_pad)
    return Pool2dShape.of((1, *x), kernel, stride, padding, (1, 1), flag("ceil_mode", ceil_mode)).y_shape[1:]


def _adaptive(x: Shape, *, size: Pair) -> Shape:
    _same("size", size, pair("size", size, 1))
    _expect(len(x) == 3, f"pooling takes (C, H, W), got {x}")
    return (x[0], *size)


def _mean(x: Shape) -> Shape:
    _expect(len(x) == 3, f"mean takes (C, H, W), got {x}")
    return (x[0], 1, 1)


def _lrn(x: Shape, *, size: int, alpha: float, beta: float, k: float) -> Shape:
    whole("size", size, 1)
    for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
        number(name, value)
    return x


def _softmax(x: Shape, *, axis: int, log: bool) -> Shape:
    _expect(0 <= integer("axis", axis) < len(x), f"no axis {axis} in {x}")
    flag("log", log)
    return x


_OPERATIONS: dict[str, Callable[..., Shape]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "affine": _affine,
    "relu": _unary,
    "tanh": _unary,
    "sigmoid": _unary,
    "activation": _activation,
    "add": _binary,
    "mul": _binary,
    "scale": _scale,
    "concat": _concat,
    "pad": _pad,
    "slice": _slice,
    "reshape": _reshape,
    "permute": _permute,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "mean": _mean,
    "lrn": _lrn,
    "softmax": _softmax,
}
