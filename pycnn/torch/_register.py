"""How operators of `pycnn.ops` become PyTorch's: shapes, gradients and batching are told here, once a family.

Each is a `torch.library` custom operator of the namespace ``pycnn``, its gradients are such operators too, and their
gradients are those it began with: so all of them differentiate any number of times and appear as single nodes in what
torch.compile traces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["bilinear", "empty", "images_folded", "linear_pair", "operator"]

Sizes = Sequence[int]


def lies_last(x: torch.Tensor) -> bool:
    """Whether results are to lie channels-last because `x` does."""
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def empty(x: torch.Tensor, shape: Sizes, dtype: torch.dtype | None = None) -> torch.Tensor:
    """What an operator's result of this shape is like, if `x` is its first argument."""
    last = len(shape) == 4 and lies_last(x)
    return torch.empty(
        tuple(shape),
        dtype=x.dtype if dtype is None else dtype,
        device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )


def _laid(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`y` as `empty` promises it to lie, along axes of size 1 too; no view, which could not be changed in place."""
    if y.ndim == 4 and lies_last(x):
        _, c, h, w = y.shape
        promised: Sizes = (h * w * c, 1, w * c, c)
    else:
        promised = [math.prod(y.shape[i + 1 :]) for i in range(y.ndim)]
    return y if y.stride() == tuple(promised) or y.numel() == 0 else empty(x, y.shape, y.dtype).copy_(y)


def operator(
    schema: str,
    function: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    save: Callable[..., Any] | None = None,
    batched: Callable[[Any], Callable[..., Any]] | None = None,
) -> Any:
    """A custom operator, as a function of its arguments in their order.

    Args:
        schema: name, arguments and results, as torch writes them.
        function: computes it.  Results are laid as the first argument lies.
        fake: gives results of the same shapes, dtypes and strides without computing.
        backward, save: as `torch.library.register_autograd` has them.
        batched: makes what `torch.library.register_vmap` takes of the operator; None calls it once an element.
    """
    name, _, rest = schema.partition("(")

    def computed(x: torch.Tensor, *given: Any) -> Any:
        result = function(x, *given)
        return tuple([_laid(one, x) for one in result]) if isinstance(result, tuple) else _laid(result, x)

    made = torch.library.custom_op(f"pycnn::{name}", computed, mutates_args=(), schema="(" + rest)
    made.register_fake(fake)
    each = batched or _one_by_one
    made.register_vmap(each(made))
    if backward is None:
        return made
    made.register_autograd(backward, setup_context=save)

    def anywhere(*given: Any) -> Any:
        return transformed.apply(*given) if _transforms_are_active() else made(*given)

    # torch.func's gradients refuse what `register_autograd` makes, and torch.compile cannot look into this.
    members: dict[str, Any] = {
        "forward": lambda *given: made(*given),
        "setup_context": save,
        "backward": backward,
        "vmap": each(anywhere),
    }
    static = {key: staticmethod(one) for key, one in members.items()}
    transformed: Any = type(name, (torch.autograd.Function,), static)
    return anywhere


def _transforms_are_active() -> bool:
    """Those of torch.func, or forward mode, whose tangents a custom operator would lose without a word."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _one_by_one(op: Any) -> Callable[..., Any]:
    def each(info: Any, in_dims: tuple[Any, ...], *given: Any) -> Any:
        results = [
            op(*[one.select(dim, i) if isinstance(dim, int) else one for one, dim in zip(given, in_dims, strict=True)])
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], tuple):
            stacked = tuple([torch.stack(parts) for parts in zip(*results, strict=True)])
            return stacked, (0,) * len(stacked)
        return torch.stack(results), 0

    return each


def images_folded(op: Any, images: int = 1, sizes: int | None = None) -> Callable[..., Any]:
    """vmap by more images: the first `images` arguments begin with N, and so does the list at place `sizes`.

    Where another argument is batched, element by element.
    """
    alone = _one_by_one(op)

    def folded(info: Any, in_dims: tuple[Any, ...], *given: Any) -> Any:
        if any(isinstance(dim, int) for dim in in_dims[images:]):
            return alone(info, in_dims, *given)
        count = info.batch_size
        arguments = list(given)
        for i in range(images):
            one, dim = given[i], in_dims[i]
            one = one.movedim(dim, 0) if isinstance(dim, int) else one.expand(count, *one.shape)
            arguments[i] = one.reshape(-1, *one.shape[2:])
        if sizes is not None:
            arguments[sizes] = [count * given[sizes][0], *given[sizes][1:]]
        result = op(*arguments)
        if isinstance(result, tuple):
            return tuple([one.unflatten(0, (count, -1)) for one in result]), (0,) * len(result)
        return result.unflatten(0, (count, -1)), 0

    return folded


def bilinear(
    name: str,
    how: str,
    fprop: Callable[..., Any],
    dgrad: Callable[..., Any],
    wgrad: Callable[..., Any],
    *,
    y_shape: Callable[..., Sizes],
) -> Any:
    """``y = fprop(x, w) + b`` and its two gradients, each the gradient of the others (see `pycnn.functional.conv`).

    Args:
        name: of the forward operator; the others end in _dgrad and _wgrad.
        how: the schema of the further arguments, the same for all three.
        fprop, dgrad, wgrad: of `pycnn.ops`: (x, w, b, *how), (dy, w, x_shape, *how), (dy, x, w_shape, *how).
        y_shape: of (x, w, *how).
    """
    rest = f", {how}" if how else ""

    def save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, w, b, *settings = inputs
        ctx.save_for_backward(x, w)
        ctx.settings, ctx.b_dtype = settings, None if b is None else b.dtype

    def forward_slopes(ctx: Any, dy: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        need_x, need_w, need_b = ctx.needs_input_grad[:3]
        dx = to_x(dy, w, x.shape, *ctx.settings) if need_x else None
        dw = to_w(dy, x, w.shape, *ctx.settings) if need_w else None
        db = dy.sum((0, *range(2, dy.ndim)), dtype=ctx.b_dtype) if need_b else None
        return dx, dw, db, *(None,) * len(ctx.settings)

    def save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        dy, other, _, *settings = inputs
        ctx.save_for_backward(dy, other)
        ctx.settings = settings

    def dgrad_slopes(ctx: Any, g: torch.Tensor) -> Any:
        dy, w = ctx.saved_tensors
        need_dy, need_w = ctx.needs_input_grad[:2]
        ddy = forward(g, w, None, *ctx.settings) if need_dy else None
        dw = to_w(dy, g, w.shape, *ctx.settings) if need_w else None
        return ddy, dw, None, *(None,) * len(ctx.settings)

    def wgrad_slopes(ctx: Any, g: torch.Tensor) -> Any:
        dy, x = ctx.saved_tensors
        need_dy, need_x = ctx.needs_input_grad[:2]
        ddy = forward(x, g, None, *ctx.settings) if need_dy else None
        dx = to_x(dy, g, x.shape, *ctx.settings) if need_x else None
        return ddy, dx, None, *(None,) * len(ctx.settings)

    def like_given(first: torch.Tensor, other: torch.Tensor, shape: Sizes, *_: Any) -> torch.Tensor:
        return empty(first, shape)

    forward = operator(
        f"{name}(Tensor x, Tensor w, Tensor? b{rest}) -> Tensor",
        fprop,
        lambda x, w, b, *settings: empty(x, y_shape(x, w, *settings)),
        forward_slopes,
        save_forward,
        images_folded,
    )
    to_x = operator(
        f"{name}_dgrad(Tensor dy, Tensor w, SymInt[] x_shape{rest}) -> Tensor",
        dgrad,
        like_given,
        dgrad_slopes,
        save_gradient,
        partial(images_folded, sizes=2),
    )
    to_w = operator(
        f"{name}_wgrad(Tensor dy, Tensor x, SymInt[] w_shape{rest}) -> Tensor",
        wgrad,
        like_given,
        wgrad_slopes,
        save_gradient,
    )
    return forward


def linear_pair(
    name: str,
    how: str,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    y_shape: Callable[..., Sizes],
) -> Any:
    """``y = forward(x, *how)``, linear in x, and ``dx = backward(dy, x_shape, *how)``, each the other's gradient."""

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, *ctx.settings = inputs
        ctx.x_shape = x.shape

    def slopes(ctx: Any, dy: torch.Tensor) -> Any:
        return to_x(dy, ctx.x_shape, *ctx.settings), *(None,) * len(ctx.settings)

    def save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, _, *ctx.settings = inputs

    def gradient_slopes(ctx: Any, g: torch.Tensor) -> Any:
        return to_y(g, *ctx.settings), None, *(None,) * len(ctx.settings)

    to_y = operator(
        f"{name}(Tensor x, {how}) -> Tensor",
        forward,
        lambda x, *settings: empty(x, y_shape(x, *settings)),
        slopes,
        save,
        images_folded,
    )
    to_x = operator(
        f"{name}_backward(Tensor dy, SymInt[] x_shape, {how}) -> Tensor",
        backward,
        lambda dy, x_shape, *settings: empty(dy, x_shape),
        gradient_slopes,
        save_gradient,
        partial(images_folded, sizes=1),
    )
    return to_y
