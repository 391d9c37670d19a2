"""The backend functions on GPUs: each call goes to the host code of the GPU that holds its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.backends import reference
from pycnn.backends.cuda import ON_DEVICE, Host, device_cupy
from pycnn.backends.cuda.device_cupy import CupyDevice, current_device

__all__ = ["describe", "device_count", "host_on", "timed", "within"]

_hosts: dict[int, Host] = {}


def host_on(number: int | None = None) -> Host:
    """The host code of GPU `number`, or of the current one.  Raises MissingToolError if there is none."""
    if number is None:
        number = current_device()
    found = _hosts.get(number)
    return found if found is not None else _hosts.setdefault(number, Host(CupyDevice(number)))


def within(number: int) -> Any:
    """A context in which GPU `number` is CuPy's current one."""
    return device_cupy.device(number)


def device_count() -> int:
    """How many GPUs there are.  Raises MissingToolError without CuPy or a driver."""
    return device_cupy.device_count()


describe, timed = device_cupy.describe, device_cupy.timed


def _host_of(arguments: tuple[Any, ...]) -> Host:
    """The host code of the GPU that holds the first array among `arguments`, or of the current one."""
    for argument in arguments:
        array = argument[0] if isinstance(argument, (list, tuple)) and argument else argument
        if type(array).__module__ == "cupy":
            number = array.data.device_id
            return _hosts.get(number) or host_on(number)
    return host_on()


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in reference.__all__ and name not in ON_DEVICE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def function(*arguments: Any, **options: Any) -> Any:
        return getattr(_host_of(arguments), name)(*arguments, **options)

    function.__name__ = name
    globals()[name] = function  # found there from now on
    return function
