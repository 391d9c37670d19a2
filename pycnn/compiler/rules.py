"""How each differentiable operation is written in the compiler's form.

A rule gets the tracer's run and the operation's own arguments, in which `Traced` stands for what depends on the input,
and gives the value it makes.  Arithmetic with constants becomes `affine`, in float64 until it is folded; what merely
moves elements of a short vector about becomes a product with a matrix of ones and zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import arithmetic as op
from pycnn import movement as move
from pycnn.compiler.graph import Value
from pycnn.compiler.operations import channels
from pycnn.compiler.tracer import Trace, Traced
from pycnn.custom.registry import is_built_in
from pycnn.functional.activation import LogSoftmax, Relu, Sigmoid, Softmax, Tanh
from pycnn.functional.conv import Conv2d
from pycnn.functional.linear import Bias, Gemm, Linear
from pycnn.functional.loss import SquaredError
from pycnn.functional.norm import BatchNormEval, ChannelAffine, LocalResponseNorm
from pycnn.functional.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from pycnn.functional.rectifier import Activation
from pycnn.functional.shaping import Pad
from pycnn.graph import Function
from pycnn.ops._checks import axis_of
from pycnn.shape import normalize_padding, pair, whole

__all__ = ["RULES"]

Array = np.ndarray[Any, Any]
Rule = Callable[..., Value]

# A matrix of ones and zeros that moves elements about has at most so many entries.
_LARGEST_SELECTION = 2**22


def _constant(run: Trace, name: str, value: Any, rank: int | None = None) -> Any:
    """An argument that must not depend on the input; None stays None."""
    if value is None:
        return None
    if isinstance(value, Traced):
        raise run.error(f"{name} depends on the input")
    array = np.asarray(value)
    if array.dtype != np.float32 and not isinstance(value, (int, float)):
        raise run.error(f"{name or 'an operand'} is {array.dtype}, not float32")
    if rank is not None and array.ndim != rank:
        raise run.error(f"{name} must have {rank} dimensions, got shape {array.shape}")
    return array


def _input(run: Trace, name: str, x: Any, rank: int | None = None) -> Value:
    """An argument that depends on the input; `rank` counts the batch."""
    if not isinstance(x, Traced):
        raise run.error(f"{name} does not depend on the input where it would have to")
    if rank is not None and x.ndim != rank:
        raise run.error(f"{name} must have {rank} dimensions, the batch first, got shape {x.shape}")
    return x.value


def _named(**constants: Array | None) -> dict[str, Array]:
    return {name: array for name, array in constants.items() if array is not None}


# ------------------------------------------------------------------------------------------------------ layers


def _conv2d(
    run: Trace, x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: Any, options: Any
) -> Value:
    w, b = _constant(run, "the filters of a convolution", w, 4), _constant(run, "its bias", b, 1)
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    algo = options["fprop"]["algo"]
    if isinstance(algo, str) and not is_built_in(algo):
        raise run.error(f"algo={algo!r} is none of pycnn's own algorithms, and only those have a compiled form")
    return run.add(
        "conv2d",
        _input(run, "the input of a convolution", x, 4),
        constants=_named(w=w, b=b),
        stride=stride,
        padding=normalize_padding(padding, w.shape[2:], stride, dilation),
        dilation=dilation,
        groups=whole("groups", groups, 1),
        algo=algo,
        clamp=None,
    )


def _linear(run: Trace, x: Any, w: Any, b: Any, precision: str | None) -> Value:
    w, b = _constant(run, "the weight of a full layer", w, 2), _constant(run, "its bias", b, 1)
    return run.add("linear", _input(run, "the input of a full layer", x, 2), constants=_named(w=w, b=b), clamp=None)


def _gemm(run: Trace, a: Any, b: Any, trans_a: bool, trans_b: bool, precision: str | None) -> Value:
    if trans_a:
        raise run.error("a matrix product mixes the images of the batch")
    b = _constant(run, "the second factor of a matrix product", b, 2)
    return _linear(run, a, np.ascontiguousarray(b if trans_b else b.T), None, precision)


def _batch_norm(run: Trace, x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Value:
    given = {"mean": mean, "variance": var, "weight": weight, "bias": bias}
    mean, var, weight, bias = (
        None if (array := _constant(run, f"the {name} of a batch norm", value, 1)) is None else array.astype(np.float64)
        for name, value in given.items()
    )
    scale = 1.0 / np.sqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return _affine(run, _input(run, "the input of a batch norm", x), scale, shift)


def _channel_affine(run: Trace, x: Any, scale: Any, shift: Any) -> Value:
    scale, shift = _constant(run, "a scale", scale, 1), _constant(run, "a shift", shift, 1)
    return _affine(run, _input(run, "x", x), scale, shift)


def _bias(run: Trace, x: Any, b: Any) -> Value:
    return _channel_affine(run, x, None, b)


def _lrn(run: Trace, x: Any, size: int, alpha: float, beta: float, k: float) -> Value:
    value = _input(run, "the input of a local response normalisation", x)
    return run.add("lrn", value, size=size, alpha=float(alpha), beta=float(beta), k=float(k))


def _softmax(log: bool) -> Rule:
    def rule(run: Trace, x: Traced, axis: int) -> Value:
        axis = axis_of("dim", axis, x.ndim)
        _keeps_batch(run, axis > 0, "softmax along dimension 0")
        return run.add("softmax", x.value, axis=axis - 1, log=log)

    return rule


def _unary(name: str) -> Rule:
    return lambda run, x: run.add(name, x.value)


def _max_pool2d(
    run: Trace, x: Any, indices: bool, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Value:
    if indices:
        raise run.error("maximum pooling with return_indices has no compiled form")
    kernel = pair("kernel_size", kernel, 1)
    return run.add(
        "max_pool2d",
        _input(run, "the input of a pooling", x, 4),
        kernel=kernel,
        stride=kernel if stride is None else pair("stride", stride, 1),
        padding=normalize_padding(padding, kernel),
        dilation=pair("dilation", dilation, 1),
        ceil_mode=ceil_mode,
    )


def _avg_pool2d(
    run: Trace, x: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, include: bool, divisor: int | None
) -> Value:
    kernel = pair("kernel_size", kernel, 1)
    return run.add(
        "avg_pool2d",
        _input(run, "the input of a pooling", x, 4),
        kernel=kernel,
        stride=kernel if stride is None else pair("stride", stride, 1),
        padding=normalize_padding(padding, kernel),
        ceil_mode=ceil_mode,
        count_include_pad=include,
        divisor=divisor,
    )


def _adaptive_avg_pool2d(run: Trace, x: Any, size: Any) -> Value:
    return run.add("adaptive_avg_pool2d", _input(run, "the input of a pooling", x, 4), size=pair("size", size, 1))


def _adaptive_max_pool2d(run: Trace, x: Any, indices: bool, size: Any) -> Value:
    if indices:
        raise run.error("maximum pooling with return_indices has no compiled form")
    return run.add("adaptive_max_pool2d", _input(run, "the input of a pooling", x, 4), size=pair("size", size, 1))


# -------------------------------------------------------------------------------------------------- arithmetic


def _affine(run: Trace, x: Value, scale: Array | None, shift: Array | None) -> Value:
    given = {"scale": scale, "shift": shift}
    wide = {name: array.astype(np.float64) for name, array in given.items() if array is not None}
    return run.add("affine", x, constants=wide, clamp=None)


def _by_constant(run: Trace, x: Traced, constant: Array, *, times: bool = False, factor: float | None = None) -> Value:
    """x * constant if `times`, else factor * x + constant; the constant is broadcast against one image."""
    shape = (1,) * (x.ndim - constant.ndim) + constant.shape
    if len(shape) > x.ndim or shape[0] != 1:
        raise run.error(f"arithmetic of shapes {x.shape} and {constant.shape} depends on the batch as a whole")
    each = constant.astype(np.float64).reshape(shape[1:])
    value, result = x.value, np.broadcast_shapes(x.value.shape, each.shape)
    if result != value.shape:
        value = _selected(run, value, lambda places: np.broadcast_to(places, result), "broadcasting")
    if all(size == 1 for size in each.shape[1:]):  # one number a channel, or one for all
        vector = np.broadcast_to(each.reshape(-1), (channels(result),))
    else:
        value = _reshaped(run, value, (math.prod(result),))
        vector = np.broadcast_to(each, result).reshape(-1)
    scale = None if factor is None else np.full(vector.shape, factor)
    return _reshaped(run, _affine(run, value, vector, None) if times else _affine(run, value, scale, vector), result)


def _both(run: Trace, name: str, a: Traced, b: Traced) -> Value:
    if a.value.shape != b.value.shape:
        raise run.error(f"{name} of two tensors of different shapes, {a.shape} and {b.shape}, has no compiled form")
    return run.add(name, a.value, b.value, clamp=None)


def _split(run: Trace, a: Any, b: Any) -> tuple[Traced, Array]:
    """The operand that depends on the input, and the constant one."""
    return (a, _constant(run, "", b)) if isinstance(a, Traced) else (b, _constant(run, "", a))


def _add(run: Trace, a: Any, b: Any) -> Value:
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _both(run, "add", a, b)
    return _by_constant(run, *_split(run, a, b))


def _sub(run: Trace, a: Any, b: Any) -> Value:
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _both(run, "add", a, Traced(run, _neg(run, b)))
    x, constant = _split(run, a, b)
    return _by_constant(run, x, -constant) if x is a else _by_constant(run, x, constant, factor=-1.0)


def _mul(run: Trace, a: Any, b: Any) -> Value:
    if isinstance(a, Traced) and isinstance(b, Traced):
        for x, scale in ((a, b), (b, a)):
            if len(x.value.shape) == 3 and x.value.shape[1:] != (1, 1) == scale.value.shape[1:]:
                return run.add("scale", x.value, scale.value, clamp=None)
        return _both(run, "mul", a, b)
    return _by_constant(run, *_split(run, a, b), times=True)


def _squared_error(run: Trace, a: Any, b: Any) -> Value:
    error = Traced(run, _sub(run, a, b))
    return _mul(run, error, error)


def _div(run: Trace, a: Any, b: Any) -> Value:
    divisor = _constant(run, "a divisor", b)
    with np.errstate(divide="ignore"):
        return _by_constant(run, a, 1.0 / divisor.astype(np.float64), times=True)


def _neg(run: Trace, x: Traced) -> Value:
    return _affine(run, x.value, np.full(channels(x.value.shape), -1.0), None)


def _power(run: Trace, x: Traced, exponent: float) -> Value:
    if exponent != 2:
        raise run.error(f"a power of {exponent} has no compiled form; only squares have")
    return run.add("mul", x.value, x.value, clamp=None)


def _clamp(run: Trace, x: Traced, low: float | None, high: float | None) -> Value:
    if low == 0 and high is None:
        return run.add("relu", x.value)
    bounds = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    return run.add("activation", x.value, name="hardtanh", a=bounds[0], b=bounds[1], c=0.0)


def _activation(run: Trace, x: Traced, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Value:
    return run.add("activation", x.value, name=name, a=float(a), b=float(b), c=float(c))


def _bigger(run: Trace, a: Any, b: Any, largest: bool) -> Value:
    if not largest or isinstance(b, Traced) or _constant(run, "an operand", b).any():
        raise run.error("maximum and minimum have no compiled form; only maximum(0), a ReLU, has")
    return run.add("relu", a.value)


def _sum(run: Trace, x: Traced, axes: tuple[int, ...], keepdim: bool) -> Value:
    if 0 in axes:
        raise run.error("a sum mixes the images of the batch")
    shape = x.value.shape
    kept = tuple([1 if i + 1 in axes else size for i, size in enumerate(shape)])
    if len(shape) == 3 and sorted(axes) == [2, 3]:
        mean = run.add("mean", x.value)
        result = _affine(run, mean, np.full(shape[0], float(shape[1] * shape[2])), None)
    else:
        size = math.prod(shape)
        into = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), shape).reshape(-1)
        if size == math.prod(kept):
            result = x.value
        else:
            matrix = _ones(run, math.prod(kept), size, "a sum")
            matrix[into, np.arange(size)] = 1
            result = run.add("linear", _reshaped(run, x.value, (size,)), constants={"w": matrix}, clamp=None)
    return _reshaped(run, result, kept if keepdim else tuple([s for i, s in enumerate(shape) if i + 1 not in axes]))


def _extreme(run: Trace, x: Traced, axes: tuple[int, ...], keepdim: bool, largest: bool) -> Value:
    shape = x.value.shape
    if not largest or len(shape) != 3 or sorted(axes) != [2, 3]:
        raise run.error(f"{'amax' if largest else 'amin'} over {axes} has no compiled form; only amax over (2, 3) has")
    result = run.add(
        "max_pool2d",
        x.value,
        kernel=shape[1:],
        stride=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        ceil_mode=False,
    )
    return result if keepdim else _reshaped(run, result, shape[:1])


# ----------------------------------------------------------------------------------------------------- shaping


def _reshaped(run: Trace, x: Value, shape: tuple[int, ...]) -> Value:
    return x if shape == x.shape else run.add("reshape", x, shape=shape)


def _ones(run: Trace, rows: int, columns: int, what: str) -> Array:
    if rows * columns > _LARGEST_SELECTION:
        raise run.error(
            f"{what} from {columns} to {rows} elements has no compiled form; only that of short vectors has"
        )
    return np.zeros((rows, columns), np.float32)


def _selected(run: Trace, x: Value, chosen: Callable[[Array], Array], what: str) -> Value:
    """What `chosen` takes out of x, of one image, without changing an element."""
    size = math.prod(x.shape)
    places = chosen(np.arange(size).reshape(x.shape))
    if places.size == size and np.array_equal(places.reshape(-1), np.arange(size)):
        return _reshaped(run, x, places.shape)
    matrix = _ones(run, places.size, size, what)
    matrix[np.arange(places.size), places.reshape(-1)] = 1
    flat = run.add("linear", _reshaped(run, x, (size,)), constants={"w": matrix}, clamp=None)
    return _reshaped(run, flat, places.shape)


def _keeps_batch(run: Trace, kept: bool, what: str) -> None:
    if not kept:
        raise run.error(f"{what} mixes the images of the batch, which must stay the first dimension")


def _reshape(run: Trace, x: Traced, shape: Any) -> Value:
    sizes = [shape] if isinstance(shape, int) else list(shape)
    if -1 in sizes:
        rest = -math.prod(sizes)
        sizes[sizes.index(-1)] = x.size // rest if rest else 0
    if math.prod(sizes) != x.size:
        raise ValueError(f"cannot reshape {x.shape} into {tuple(shape)}")
    _keeps_batch(run, bool(sizes) and sizes[0] == run.batch, f"a reshape of {x.shape} to {tuple(sizes)}")
    return _reshaped(run, x.value, tuple([int(size) for size in sizes[1:]]))


def _permute(run: Trace, x: Traced, axes: tuple[int, ...]) -> Value:
    _keeps_batch(run, axes[0] == 0, f"a permutation of dimensions to {axes}")
    order = tuple([int(axis) - 1 for axis in axes[1:]])
    moved = [axis for axis in order if x.value.shape[axis] > 1]
    if moved == sorted(moved):  # the same elements in the same order
        return _reshaped(run, x.value, tuple([x.value.shape[axis] for axis in order]))
    return run.add("permute", x.value, order=order)


def _expand(run: Trace, x: Traced, shape: tuple[int, ...]) -> Value:
    _keeps_batch(run, len(shape) == x.ndim and shape[0] == run.batch, f"an expansion of {x.shape} to {shape}")
    return _selected(run, x.value, lambda places: np.broadcast_to(places, shape[1:]), "an expansion")


def _get_item(run: Trace, x: Any, index: Any) -> Value:
    value = _input(run, "an indexed tensor", x)
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, Traced) for part in parts):
        raise run.error("an index depends on the input")
    if any(part is Ellipsis for part in parts):
        place = next(i for i, part in enumerate(parts) if part is Ellipsis)
        missing = x.ndim - sum(part is not None for part in parts) + 1
        parts[place : place + 1] = [slice(None)] * missing
    whole_batch = bool(parts) and isinstance(parts[0], slice) and parts[0].indices(run.batch) == (0, run.batch, 1)
    _keeps_batch(run, whole_batch and parts[0].stop in (None, run.batch), f"the index {index!r}")
    rest = parts[1:] + [slice(None)] * (len(value.shape) - sum(part is not None for part in parts[1:]))
    if not all(part is None or isinstance(part, (slice, int, np.integer)) for part in rest):
        return _selected(run, value, lambda places: places[tuple(rest)], "an index")
    shape = np.broadcast_to(np.float32(0), value.shape)[tuple(rest)].shape
    if 0 in shape:
        raise run.error(f"the index {index!r} leaves nothing")
    bounds = [
        part.indices(size) if isinstance(part, slice) else (int(part) % size, int(part) % size + 1, 1)
        for part, size in zip([part for part in rest if part is not None], value.shape, strict=True)
    ]
    if any(step < 1 for _, _, step in bounds):
        return _selected(run, value, lambda places: places[tuple(rest)], "an index")
    if any(bound != (0, size, 1) for bound, size in zip(bounds, value.shape, strict=True)):
        starts, stops, steps = zip(*bounds, strict=True)
        value = run.add("slice", value, starts=starts, stops=stops, steps=steps)
    return _reshaped(run, value, shape)


def _concat(run: Trace, axis: int, *parts: Any) -> Value:
    values = [_input(run, f"part {i} of a concatenation", part) for i, part in enumerate(parts)]
    _keeps_batch(run, axis > 0, "a concatenation along dimension 0")
    return run.add("concat", *values, axis=axis - 1)


def _pad(run: Trace, x: Traced, sides: tuple[tuple[int, int], ...], fill: float) -> Value:
    if fill != 0:
        raise run.error(f"padding with {fill} has no compiled form; only zeros have")
    _keeps_batch(run, sides[0] == (0, 0), "padding")
    return run.add("pad", x.value, sides=tuple([(int(a), int(b)) for a, b in sides[1:]]))


def _same(run: Trace, x: Traced, *rest: Any) -> Value:
    return x.value


def _cast(run: Trace, x: Traced, dtype: Any) -> Value:
    if np.dtype(dtype) != np.float32:
        raise run.error(f"a conversion to {np.dtype(dtype)} has no compiled form")
    return x.value


RULES: dict[type[Function], Rule] = {
    Activation: _activation,
    Relu: _unary("relu"),
    Tanh: _unary("tanh"),
    Sigmoid: _unary("sigmoid"),
    Softmax: _softmax(False),
    LogSoftmax: _softmax(True),
    Conv2d: _conv2d,
    Linear: _linear,
    Bias: _bias,
    Gemm: _gemm,
    BatchNormEval: _batch_norm,
    ChannelAffine: _channel_affine,
    LocalResponseNorm: _lrn,
    MaxPool2d: _max_pool2d,
    AvgPool2d: _avg_pool2d,
    AdaptiveAvgPool2d: _adaptive_avg_pool2d,
    AdaptiveMaxPool2d: _adaptive_max_pool2d,
    Pad: _pad,
    SquaredError: _squared_error,
    op.Add: _add,
    op.Sub: _sub,
    op.Mul: _mul,
    op.Div: _div,
    op.Neg: _neg,
    op.PowNumber: _power,
    op.Clamp: _clamp,
    op.Bigger: _bigger,
    op.Sum: _sum,
    op.Extreme: _extreme,
    op.Matmul: lambda run, a, b: _gemm(run, a, b, False, False, None),
    move.Reshape: _reshape,
    move.Permute: _permute,
    move.Expand: _expand,
    move.GetItem: _get_item,
    move.Concat: _concat,
    move.Clone: _same,
    move.Cast: _cast,
}
