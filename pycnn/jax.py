"""pycnn inside JAX: functions that work under jit, grad and vmap, computed by pycnn on the CPU.

    import pycnn.jax
    y = pycnn.jax.conv2d(x, w, padding=1)

Each is a `jax.custom_vjp` around a `jax.pure_callback`, and its gradients are such functions too, so that they
differentiate in reverse any number of times.  Names, arguments and layouts (N, C, H, W; K, C, R, S) are those of
`pycnn.functional`.  vmap folds a batch of images into one call.  JAX copies each array on its way out and back.  Not
offered: forward mode (`jax.jvp`), and devices that are no CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pycnn import backends, ops
from pycnn.custom.dispatch import expect_runs
from pycnn.ops._checks import number
from pycnn.ops.conv_transpose import transposed
from pycnn.shape import Conv2dShape, Pool2dShape, normalize_padding, pair

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "linear",
    "max_pool2d",
]

Array = Any
IntPair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]
Pair = tuple[int, int]


def _call(
    function: Callable[..., Any],
    shapes: tuple[tuple[tuple[int, ...], Any], ...],
    arrays: tuple[Array, ...],
    images: int = 1,
    sizes: int | None = None,
    settings: tuple[Any, ...] = (),
) -> tuple[Array, ...]:
    """``function(*arrays, *settings)`` of NumPy arrays, outside of what JAX traces.

    Args:
        shapes: shape and dtype of each result.
        images: as many arrays begin with N.  Where vmap batches these alone, theirs are folded into one call.
        sizes: which of `settings` is a shape that begins with N, if one is.
    """
    ranks = [array.ndim for array in arrays]

    def once(*given: np.ndarray, settings: tuple[Any, ...] = settings) -> tuple[np.ndarray, ...]:
        found = function(*given, *settings)
        return found if isinstance(found, tuple) else (found,)

    def outside(*given: Any) -> tuple[np.ndarray, ...]:
        seen = [np.asarray(array) for array in given]
        lead = np.broadcast_shapes(*[one.shape[: one.ndim - rank] for one, rank in zip(seen, ranks, strict=True)])
        if not lead:
            return once(*seen)
        count = int(np.prod(lead))
        outer = [one.ndim - rank for one, rank in zip(seen, ranks, strict=True)]
        whole = [
            np.broadcast_to(one, (*lead, *one.shape[k:])).reshape(count, *one.shape[k:])
            for one, k in zip(seen, outer, strict=True)
        ]
        if all(int(np.prod(one.shape[:k])) == 1 for one, k in list(zip(seen, outer, strict=True))[images:]):
            folded = list(settings)
            if sizes is not None:
                folded[sizes] = (count * folded[sizes][0], *folded[sizes][1:])
            some = [one.reshape(-1, *one.shape[2:]) for one in whole[:images]]
            found = once(*some, *[one[0] for one in whole[images:]], settings=tuple(folded))
        else:
            each = [once(*[one[i] for one in whole]) for i in range(count)]
            found = tuple([np.stack(parts) for parts in zip(*each, strict=True)])
        return tuple([one.reshape(*lead, *shape) for one, (shape, _) in zip(found, shapes, strict=True)])

    results = tuple([jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes])
    return jax.pure_callback(outside, results, *arrays, vmap_method="expand_dims")


def _computing(array: Array) -> Any:
    """The dtype that an array is computed in."""
    return np.promote_types(array.dtype, np.float32)


def _tried(function: Callable[..., Any], *arrays: Array) -> None:
    """Raise what `function` has against its arguments now, while JAX traces: its callback could not say it as well."""
    with backends.use_backend("shapes"):
        function(*[np.broadcast_to(np.zeros((), _computing(array)), array.shape) for array in arrays])


def _bilinear(
    fprop: Callable[..., Any],
    dgrad: Callable[..., Any],
    wgrad: Callable[..., Any],
    check: Callable[..., None] = lambda *_: None,
) -> Callable[..., Array]:
    """``y = fprop(x, w)`` and its two gradients, each the gradient of the others; see `pycnn.functional.conv`.

    The function made is of (x, w, the shape of y, further settings); all but the arrays is hashable.  `check`, of the
    pass, the shapes of x and w, the dtype's name and the settings, raises where that pass cannot run.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def forward(x: Array, w: Array, y_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
        def one(x: np.ndarray, w: np.ndarray) -> Any:
            return fprop(x, w, *how)

        _tried(one, x, w)
        check("fprop", x.shape, w.shape, _computing(x).name, *how)
        return _call(one, ((y_shape, x.dtype),), (x, w))[0]

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def to_x(dy: Array, w: Array, x_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
        check("dgrad", x_shape, w.shape, _computing(w).name, *how)
        one = functools.partial(_with_shape, dgrad, how)
        return _call(one, ((x_shape, dy.dtype),), (dy, w), 1, 0, (x_shape,))[0]

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def to_w(dy: Array, x: Array, w_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
        check("wgrad", x.shape, w_shape, _computing(x).name, *how)
        one = functools.partial(_with_shape, wgrad, how)
        return _call(one, ((w_shape, dy.dtype),), (dy, x), 0, None, (w_shape,))[0]

    def keep(function: Any) -> Any:
        return lambda a, b, shape, how: (function(a, b, shape, how), (a, b))

    forward.defvjp(
        keep(forward),
        lambda _, how, kept, dy: (to_x(dy, kept[1], kept[0].shape, how), to_w(dy, kept[0], kept[1].shape, how)),
    )
    to_x.defvjp(
        keep(to_x),
        lambda _, how, kept, g: (forward(g, kept[1], kept[0].shape, how), to_w(kept[0], g, kept[1].shape, how)),
    )
    to_w.defvjp(
        keep(to_w),
        lambda _, how, kept, g: (forward(kept[1], g, kept[0].shape, how), to_x(kept[0], g, kept[1].shape, how)),
    )
    return forward


def _with_shape(function: Any, how: tuple[Any, ...], a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    return function(a, b, shape, *how)


def _algo(function: Any) -> Any:
    """Of `pycnn.ops`, with the last of its positional arguments as `algo`."""
    return lambda *given: function(*given[:-1], algo=given[-1])


def _conv2d_runs(which: str, x_shape: Any, w_shape: Any, dtype: str, *how: Any) -> None:
    expect_runs(how[-1], which, Conv2dShape.of(x_shape, w_shape, *how[:-1]), dtype)


def _transposed_runs(which: str, x_shape: Any, w_shape: Any, dtype: str, *how: Any) -> None:
    steps, sides, extra, groups, reach, algo = how
    shape, _ = transposed(x_shape, w_shape, steps, sides, extra, reach, groups)
    expect_runs(algo, {"fprop": "dgrad", "dgrad": "fprop"}.get(which, which), shape, dtype)


_conv2d = _bilinear(
    lambda x, w, *how: ops.conv2d_fprop(x, w, None, *how[:-1], algo=how[-1]),
    _algo(ops.conv2d_dgrad),
    _algo(ops.conv2d_wgrad),
    _conv2d_runs,
)

_conv_transpose2d = _bilinear(
    lambda x, w, *how: ops.conv_transpose2d_fprop(x, w, None, *how[:-1], algo=how[-1]),
    _algo(ops.conv_transpose2d_dgrad),
    _algo(ops.conv_transpose2d_wgrad),
    _transposed_runs,
)

_linear = _bilinear(
    ops.linear,
    lambda dy, w, _: ops.gemm(dy, w),
    lambda dy, x, _: ops.gemm(dy, x, trans_a=True),
)


def _added(y: Array, b: Array | None) -> Array:
    if b is None:
        return y
    b = jnp.asarray(b)
    if b.shape != (y.shape[1],):
        raise ValueError(f"b must have one value a filter, shape ({y.shape[1]},), got {b.shape}")
    return y + b.reshape(-1, *(1,) * (y.ndim - 2)).astype(y.dtype)


def _expect(rank: int, what: str, **arrays: Array) -> list[Array]:
    """The arrays as JAX's, of one floating dtype."""
    found = [jnp.asarray(array) for array in arrays.values()]
    for name, array in zip(arrays, found, strict=True):
        if array.ndim != rank:
            raise ValueError(f"{name} must have {rank} dimensions {what}, got shape {array.shape}")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating, got dtype {array.dtype}")
        if array.dtype != found[0].dtype:
            raise TypeError(
                f"all arrays must have one dtype, got {next(iter(arrays))}: {found[0].dtype}, {name}: {array.dtype}"
            )
    return found


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    *,
    algo: str = "auto",
) -> Array:
    """As `pycnn.conv2d`; `algo` holds for all three passes.

    >>> conv2d(jnp.ones((1, 1, 3, 3)), jnp.ones((1, 1, 2, 2)))[0, 0]
    Array([[4., 4.],
           [4., 4.]], dtype=float32)
    """
    x, w = _expect(4, "(N, C, H, W) or (K, C // groups, R, S)", x=x, w=w)
    steps, reach = pair("stride", stride, 1), pair("dilation", dilation, 1)
    sides = normalize_padding(padding, w.shape[2:], steps, reach)
    shape = Conv2dShape.of(x.shape, w.shape, steps, sides, reach, groups)
    y_shape = shape.N, shape.K, shape.P, shape.Q
    return _added(_conv2d(x, w, y_shape, (steps, sides, reach, groups, algo)), b)


def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: IntPair = 1,
    padding: IntPair = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    algo: str = "auto",
) -> Array:
    """As `pycnn.conv_transpose2d`; `algo` holds for all three passes.

    >>> conv_transpose2d(jnp.ones((1, 1, 2, 2)), jnp.ones((1, 1, 2, 2)), stride=2).shape
    (1, 1, 4, 4)
    """
    x, w = _expect(4, "(N, C, H, W) or (C, K // groups, R, S)", x=x, w=w)
    steps, reach, extra = (
        pair("stride", stride, 1),
        pair("dilation", dilation, 1),
        pair("output_padding", output_padding, 0),
    )
    sides = normalize_padding(padding, w.shape[2:], steps, reach)
    shape, _ = transposed(x.shape, w.shape, steps, sides, extra, reach, groups)
    y_shape = shape.N, shape.C, shape.H, shape.W
    return _added(_conv_transpose2d(x, w, y_shape, (steps, sides, extra, groups, reach, algo)), b)


def linear(x: Array, w: Array, b: Array | None = None) -> Array:
    """y = x w^T + b, of x (N, C) and w (K, C).

    >>> linear(jnp.ones((2, 3)), jnp.ones((4, 3))).shape
    (2, 4)
    """
    x, w = _expect(2, "(N, C) or (K, C)", x=x, w=w)
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"w of shape {w.shape} does not fit x of shape {x.shape}")
    return _added(_linear(x, w, (x.shape[0], w.shape[0]), ()), b)


# ---------------------------------------------------------------------------------------------------------- pooling


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _avg(x: Array, y_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
    def one(x: np.ndarray) -> Any:
        return how[0](x, *how[2:])

    _tried(one, x)
    return _call(one, ((y_shape, x.dtype),), (x,))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _avg_gradient(dy: Array, x_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
    return _call(lambda dy, shape: how[1](dy, shape, *how[2:]), ((x_shape, dy.dtype),), (dy,), 1, 0, (x_shape,))[0]


_avg.defvjp(lambda x, shape, how: (_avg(x, shape, how), x), lambda _, how, x, dy: (_avg_gradient(dy, x.shape, how),))
_avg_gradient.defvjp(
    lambda dy, shape, how: (_avg_gradient(dy, shape, how), dy), lambda _, how, dy, g: (_avg(g, dy.shape, how),)
)


def _pooled(x: Array, kernel: Pair, steps: Pair, padding: IntPair, reach: Pair, ceil_mode: bool) -> Any:
    sides = normalize_padding(padding, kernel)
    shape = Pool2dShape.of(x.shape, kernel, steps, sides, reach, ceil_mode)
    return (*x.shape[:2], shape.P, shape.Q), sides


def avg_pool2d(
    x: Array,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """As `pycnn.avg_pool2d`.

    >>> avg_pool2d(jnp.ones((1, 1, 4, 4)), 2).shape
    (1, 1, 2, 2)
    """
    (x,) = _expect(4, "(N, C, H, W)", x=x)
    kernel = pair("kernel_size", kernel_size, 1)
    steps = kernel if stride is None else pair("stride", stride, 1)
    y_shape, sides = _pooled(x, kernel, steps, padding, (1, 1), ceil_mode)
    how = kernel, steps, sides, ceil_mode, count_include_pad, divisor_override
    return _avg(x, y_shape, (ops.avg_pool2d, ops.avg_pool2d_backward, *how))


def adaptive_avg_pool2d(x: Array, output_size: IntPair) -> Array:
    """As `pycnn.adaptive_avg_pool2d`, of an int or a pair.

    >>> adaptive_avg_pool2d(jnp.ones((1, 2, 5, 7)), 1).shape
    (1, 2, 1, 1)
    """
    (x,) = _expect(4, "(N, C, H, W)", x=x)
    sizes = pair("output_size", output_size, 1)
    return _avg(x, (*x.shape[:2], *sizes), (functools.partial(_adaptive, sizes), ops.adaptive_avg_pool2d_backward))


def _adaptive(sizes: Pair, x: np.ndarray) -> Any:
    return ops.adaptive_avg_pool2d(x, sizes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max(x: Array, y_shape: tuple[int, ...], how: tuple[Any, ...]) -> tuple[Array, ...]:
    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, indices = ops.max_pool2d(x, *how)
        return y, np.asarray(indices, np.int32)  # JAX has 64 bits only where they are switched on

    _tried(both, x)
    return _call(both, ((y_shape, x.dtype), (y_shape, np.int32)), (x,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _to_maxima(dy: Array, indices: Array, x_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
    def one(dy: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return ops.max_pool2d_backward(dy, indices, shape, *how)

    return _call(one, ((x_shape, dy.dtype),), (dy, indices), 2, 0, (x_shape,))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _from_maxima(x: Array, indices: Array, x_shape: tuple[int, ...], how: tuple[Any, ...]) -> Array:
    return _call(ops.plane_take, ((indices.shape, x.dtype),), (x, indices), 2)[0]


def _max_forward(x: Array, y_shape: tuple[int, ...], how: tuple[Any, ...]) -> Any:
    y, indices = _max(x, y_shape, how)
    return (y, indices), (x, indices)


_max.defvjp(_max_forward, lambda _, how, kept, slopes: (_to_maxima(slopes[0], kept[1], kept[0].shape, how),))
_to_maxima.defvjp(
    lambda dy, indices, shape, how: (_to_maxima(dy, indices, shape, how), indices),
    lambda shape, how, indices, g: (_from_maxima(g, indices, shape, how), None),
)
_from_maxima.defvjp(
    lambda x, indices, shape, how: (_from_maxima(x, indices, shape, how), indices),
    lambda shape, how, indices, g: (_to_maxima(g, indices, shape, how), None),
)


def max_pool2d(
    x: Array,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As `pycnn.max_pool2d`; indices are int32.

    >>> max_pool2d(jnp.arange(4.0).reshape(1, 1, 2, 2), 2)
    Array([[[[3.]]]], dtype=float32)
    """
    (x,) = _expect(4, "(N, C, H, W)", x=x)
    kernel, reach = pair("kernel_size", kernel_size, 1), pair("dilation", dilation, 1)
    steps = kernel if stride is None else pair("stride", stride, 1)
    y_shape, sides = _pooled(x, kernel, steps, padding, reach, ceil_mode)
    y, indices = _max(x, y_shape, (kernel, steps, sides, reach, ceil_mode))
    return (y, indices) if return_indices else y


# ---------------------------------------------------------------------------------------------------- normalisation


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _norm(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, ...]:
    wide = jnp.promote_types(x.dtype, jnp.float32)
    shapes = (x.shape, x.dtype), (weight.shape, wide), (weight.shape, wide)
    return _call(ops.batch_norm, shapes, (x, weight, bias), 0, None, (eps,))


def _norm_forward(x: Array, weight: Array, bias: Array, eps: float) -> Any:
    y, mean, var = _norm(x, weight, bias, eps)
    return (y, mean, var), (x, weight, mean, var)


def _norm_slopes(eps: float, kept: Any, slopes: Any) -> Any:
    """Written in JAX, whose compiler fuses it and which differentiates it again."""
    x, weight, mean, var = kept
    dy, dmean, dvar = slopes[0].astype(mean.dtype), slopes[1], slopes[2]
    column, axes, count = (1, -1, 1, 1), (0, 2, 3), x.size // x.shape[1]
    centred = x.astype(mean.dtype) - mean.reshape(column)
    scale = jax.lax.rsqrt(var + eps).reshape(column)
    normal = centred * scale
    dbias, dweight = dy.sum(axes), (dy * normal).sum(axes)
    dx = scale * (dy - dbias.reshape(column) / count - normal * (dweight.reshape(column) / count))
    dx = dx * weight.astype(mean.dtype).reshape(column)
    dx = dx + (dmean.reshape(column) + 2 * centred * dvar.reshape(column)) / count
    return dx.astype(x.dtype), dweight.astype(weight.dtype), dbias.astype(weight.dtype)


_norm.defvjp(_norm_forward, _norm_slopes)


def batch_norm(x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5) -> Any:
    """Normalise each channel by the batch's own statistics: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Args:
        x: (N, C, H, W).
        weight, bias: (C,); None for 1 and 0.
        eps: added to the variance.

    Returns:
        y, and mean and (biased) variance of each channel, from which the caller keeps running ones.

    Raises:
        TypeError, ValueError: as `pycnn.ops.batch_norm`.

    >>> y, mean, var = batch_norm(jnp.arange(4.0).reshape(1, 1, 2, 2))
    >>> float(mean[0]), float(var[0])
    (1.5, 1.25)
    """
    (x,) = _expect(4, "(N, C, H, W)", x=x)
    weight = jnp.ones(x.shape[1], x.dtype) if weight is None else jnp.asarray(weight)
    bias = jnp.zeros(x.shape[1], weight.dtype) if bias is None else jnp.asarray(bias)
    for name, one in (("weight", weight), ("bias", bias)):
        if one.shape != (x.shape[1],):
            raise ValueError(f"{name} must have one value a channel, shape ({x.shape[1]},), got {one.shape}")
    if bias.dtype != weight.dtype or weight.dtype not in (x.dtype, jnp.promote_types(x.dtype, jnp.float32)):
        raise TypeError(f"all arrays must have one dtype, got x: {x.dtype}, weight: {weight.dtype}, bias: {bias.dtype}")
    return _norm(x, weight, bias, number("eps", eps, 0.0))
