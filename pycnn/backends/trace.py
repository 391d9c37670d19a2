"""The CUDA backend's host code on a device that computes nothing: finds out which kernels a computation launches.

with tracing("sm_90a") as device:
    net(Tensor(hollow((1, 3, 224, 224), "float32")))
device.launches
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pycnn.backends import reference, use_backend
from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.jit.sources import Sources

__all__ = ["hollow", "tracing"]

_host: ContextVar[Host] = ContextVar("pycnn_trace_host")


@contextmanager
def tracing(arch: str, sources: Sources | None = None) -> Iterator[TraceDevice]:
    """Within it, every operator is planned for a GPU of `arch` and none is run; the device has the list.

    Args:
        arch: such as "sm_90a".
        sources: the kernels; the installed ones by default.

    >>> import pycnn
    >>> with tracing("sm_90a") as device:
    ...     y = pycnn.ops.conv2d_fprop(hollow((1, 3, 8, 8), "float32"), hollow((4, 3, 3, 3), "float32"))
    >>> y.shape, len(device.launches)
    ((1, 4, 6, 6), 1)
    """
    device = TraceDevice(arch)
    token = _host.set(Host(device, sources))
    try:
        with use_backend("trace"):
            yield device
    finally:
        _host.reset(token)


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in reference.__all__ and not hasattr(Host, name):  # whoever looks through all modules, as pickle does
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        host = _host.get()
    except LookupError:
        raise RuntimeError("the trace backend works within `with pycnn.backends.trace.tracing(arch)`") from None
    return getattr(host, name)
