"""No arithmetic: the CUDA backend's host code, and a list of the kernels that it would launch.

For finding out which kernels a network needs, on a machine without a GPU.  Arrays are NumPy's; results are zeros of the
right shape, which take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pycnn.backends import use_backend
from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_shapes import ShapesDevice
from pycnn.jit.sources import Instance

__all__ = ["recording"]

_host: ContextVar[Host] = ContextVar("pycnn_plans")


@contextmanager
def recording(arch: str) -> Iterator[dict[Instance, None]]:
    """Send calls here until the end of the ``with`` block; the kernels that they launch on an `arch`, each once."""
    device = ShapesDevice(arch)
    token = _host.set(Host(device))
    try:
        with use_backend("plans"):
            yield device.launched
    finally:
        _host.reset(token)


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    host = _host.get(None) or Host(ShapesDevice())
    function: Callable[..., Any] = getattr(host, name)
    return function
