"""What several operators share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn.arrays import beside, is_array, to_host
from pycnn.graph import Function, Variable
from pycnn.tensor import Tensor

__all__ = [
    "Value",
    "axes_of",
    "axis_of",
    "host",
    "ints",
    "is_tensor",
    "like",
    "on_host",
    "permute",
    "tensor_of",
]

Value = Any  # a Tensor, or a NumPy array


def is_tensor(value: Any) -> bool:
    """Whether it is floating, which is to say a Tensor."""
    return isinstance(value, Variable)


def host(value: Any) -> np.ndarray:
    """The array of a Tensor, or an array of any place, in main memory."""
    array = value._data if isinstance(value, Variable) else value
    return to_host(array) if is_array(array) else np.asarray(array)


def tensor_of(array: Any, like: Tensor) -> Tensor:
    """An array as a Tensor where `like` lies."""
    return Tensor(beside(np.asarray(array), like.data))


def like(array: Any, x: Value) -> Value:
    """An array as `x` is: a Tensor beside it, or the array itself."""
    return tensor_of(array, x) if is_tensor(x) else np.asarray(array)


def ints(values: Any) -> tuple[int, ...]:
    """A vector of integers, a sequence of them, or one, as a tuple."""
    if values is None:
        return ()
    return tuple(int(one) for one in (values.reshape(-1) if hasattr(values, "reshape") else values))


def axis_of(axis: int, rank: int) -> int:
    """A dimension counted from the front.  Raises ValueError if there is none such."""
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} of a tensor with {rank} dimensions")
    return axis % max(rank, 1)


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Several dimensions, counted from the front.  Raises ValueError if one is not there, or is there twice."""
    found = tuple(axis_of(axis, rank) for axis in ints(axes))
    if len(set(found)) != len(found):
        raise ValueError(f"axes {found} hold one twice")
    return found


def permute(x: Value, axes: Sequence[int]) -> Value:
    """The dimensions in another order."""
    return x.permute(*axes) if is_tensor(x) else x.transpose(tuple(axes))


class _Computed(Function):
    """``function(*arrays)`` by NumPy, in main memory; it says so if somebody asks for its gradient."""

    @staticmethod
    def forward(ctx: Any, what: str, function: Callable[..., np.ndarray], *arrays: Any) -> Any:
        ctx.what = what
        return beside(np.asarray(function(*[to_host(one) for one in arrays])), arrays[0])

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        raise RuntimeError(f"the operator {ctx.what} has no gradient here")


def on_host(what: str, function: Callable[..., np.ndarray], *values: Value) -> Value:
    """``function`` of arrays by NumPy: a value beside the first Tensor among `values`, else an array.

    Nothing is differentiated through it: to try raises RuntimeError, naming `what`.
    """
    if not any(map(is_tensor, values)):
        return np.asarray(function(*values))
    first = next(one for one in values if is_tensor(one))
    given = [one if is_tensor(one) else tensor_of(one, first) for one in values]
    return _Computed.apply(what, function, *given)
