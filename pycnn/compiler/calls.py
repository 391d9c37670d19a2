"""What callers of a compiled network may hand in, and how they get its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.graph import Variable, is_grad_enabled, wrap
from pycnn.ops._arrays import Call

__all__ = ["arguments", "is_channels_last", "names", "pixels"]

Array = np.ndarray[Any, Any]


def names(count: int) -> list[str]:
    """What messages call the inputs."""
    return ["x"] if count == 1 else [f"inputs[{i}]" for i in range(count)]


def _is_plain(one: Any) -> bool:
    return type(one) is np.ndarray and one.dtype == np.float32 and one.flags.c_contiguous and one.flags.aligned


def _same(result: Array) -> Array:
    return result


def arguments(given: Sequence[Any]) -> tuple[list[Array], Callable[[Array], Any]]:
    """Inputs as float32 arrays of NumPy's, and what makes an array of the caller's kind of a result.

    They are C-contiguous; or channels-last, if all with rows and columns are.

    Raises:
        TypeError: no arrays, arrays of several libraries, or a dtype other than float32, float16 and bfloat16.
        ValueError: a Tensor that requires a gradient, which would be lost.
    """
    if len(given) == 1 and _is_plain(given[0]) and backends.selected() in (None, "cpu"):
        return [given[0]], _same  # how small networks are called, whose time this would be
    tensors = [isinstance(one, Variable) for one in given]
    for name, one in zip(names(len(given)), given, strict=True):
        if isinstance(one, Variable) and one._requires_grad and is_grad_enabled():
            raise ValueError(f"{name} requires a gradient, which a compiled network does not pass on; use no_grad()")
    arrays = [one._data if isinstance(one, Variable) else one for one in given]
    call = Call(**dict(zip(names(len(given)), arrays, strict=True)))
    if call.arrays[0].dtype != np.float32:
        raise TypeError(f"a compiled network computes in float32, got {call.arrays[0].dtype}")
    back = (lambda result: wrap(call.back(result))) if any(tensors) else call.back
    if not is_channels_last(call.arrays):
        return [array if array.flags.c_contiguous else np.ascontiguousarray(array) for array in call.arrays], back
    return [array if array.ndim == 4 else np.ascontiguousarray(array) for array in call.arrays], back


def is_channels_last(arrays: Sequence[Array]) -> bool:
    """Whether the images among some arrays, (N, C, H, W) in shape, lie in memory as (N, H, W, C)."""
    images = [array for array in arrays if array.ndim == 4]
    if all(array.flags.c_contiguous for array in images):
        return False
    return all(pixels(array).flags.c_contiguous for array in images)  # of one channel or pixel they are both


def pixels(array: Array) -> Array:
    """The same memory as (N, H, W, C)."""
    return array.transpose(0, 2, 3, 1)
