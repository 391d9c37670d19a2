"""Functions of Tensors that are composed of Tensor operations, opened to plain arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from pycnn import graph
from pycnn.graph import Variable
from pycnn.ops._arrays import Call, kind
from pycnn.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])
Array = Any


def expect_arrays(**arrays: Any) -> None:
    """TypeError that names the first argument which is neither a Tensor nor an array."""
    for name, array in arrays.items():
        if not isinstance(array, Variable) and type(array) is not np.ndarray:
            try:
                kind(array)
            except TypeError:
                found = type(array).__name__
                raise TypeError(f"{name} must be a Tensor or an array, got {found}") from None


_SPATIAL = {1: "L", 2: "H, W", 3: "D, H, W"}


def tensors(**values: Any) -> list[Tensor]:
    """Each as a Tensor: itself, or a constant one of the array.  TypeError that names the first that is neither."""
    expect_arrays(**values)
    return [value if isinstance(value, Tensor) else Tensor(value) for value in values.values()]


def of_one_image(function: Callable[..., Any], x: Any, *args: Any, spatial: int = 2, **options: Any) -> Any:
    """`function` of batches, of the one image `x`, (C, H, W): its result without the dimension of the batch.

    `spatial` says how many dimensions there are beside the channels.
    """
    if len(x.shape) != spatial + 1:
        axes = _SPATIAL[spatial]
        raise ValueError(
            f"x must have {spatial + 2} dimensions (N, C, {axes}) or {spatial + 1} (C, {axes}), "
            f"got shape {tuple(x.shape)}"
        )
    result = function(x.reshape(1, *x.shape), *args, **options)
    if isinstance(result, tuple):
        return tuple([one.reshape(*one.shape[1:]) for one in result])
    return result.reshape(*result.shape[1:])


def composed(function: F) -> F:
    """Let `function`, written for Tensors, also take plain arrays only and then give the caller's kind back.

    The first argument decides library and dtype; float16 and bfloat16 are computed in float32 and rounded once.  The
    result may be a tuple.
    """

    first = function.__code__.co_varnames[0]

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        if not args and first not in options:
            raise TypeError(f"{function.__name__}() needs the argument {first!r}")
        x, *args = args or (options.pop(first),)  # type: ignore[assignment]
        for value in (x, *args, *options.values()):
            if isinstance(value, Variable):
                plain = not isinstance(x, Variable) and hasattr(x, "__dlpack__")
                return function(Tensor(x) if plain else x, *args, **options)
        call = Call(**{first: x})
        call.widen()
        array = call.arrays[0]
        with graph.no_grad():
            result = function(
                graph.wrap(array),
                *[_lift(value, array) for value in args],
                **{name: _lift(value, array) for name, value in options.items()},
            )
        if isinstance(result, tuple):
            return tuple([call.back(one._data) for one in result])
        return call.back(result._data)

    return wrapped  # type: ignore[return-value]


def _lift(value: Any, like: Array) -> Any:
    if not hasattr(value, "__dlpack__"):
        return value
    tensor = Tensor(value)
    return tensor.to(like.dtype) if tensor.dtype.kind in "fV" else tensor


def fused(result: Array) -> Tensor:
    """The array that a fused backward kernel made, as a Tensor without a history."""
    return graph.wrap(result)
