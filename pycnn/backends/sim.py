"""The CUDA backend's host code and kernels on the simulated device: NumPy arrays in, NumPy arrays out.  For tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.memory_format import is_dense, new_array, wants_channels_last

__all__ = ["Simulated"]


class Simulated:
    """The backend functions of `host`, whose device takes copies of NumPy arrays."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.__name__ = f"pycnn.backends.{host.device.name}"  # as a module has, for messages

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.host, name)

        def call(*arguments: Any, **options: Any) -> Any:
            given = {name: self.into(value) for name, value in options.items()}
            return _out(function(*map(self.into, arguments), **given))

        return call

    def into(self, value: Any) -> Any:
        """`value`, an array or several, in the device's memory; anything else as it is."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.into(one) for one in value)  # a shape stays a tuple
        if not isinstance(value, np.ndarray):
            return value
        device = self.host.device
        if is_dense(value):
            array = new_array(device.alloc, value.shape, value.dtype, wants_channels_last(value))
        else:  # stays an array with gaps, for the host code to deal with
            array = device.alloc((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)[..., ::2]
        device.fill(array, value)
        return array


def _out(result: Any) -> Any:
    if isinstance(result, np.ndarray):
        copy = new_array(np.empty, result.shape, result.dtype, wants_channels_last(result))
        copy[...] = result
        return copy
    return tuple(map(_out, result)) if isinstance(result, tuple) else result


@cache
def _default() -> Simulated:
    return Simulated(Host(SimDevice()))


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_default(), name)
