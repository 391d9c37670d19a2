"""The CUDA backend: host code written once, for whatever answers the five calls of `device.Device`.

`Host` plans a call (instance, grid, arguments), allocates and launches.  Bound to the GPU by CuPy, its methods are this
module's backend functions; bound to the simulator they are those of `pycnn.backends.sim`.

    device.py          the five calls; device_cupy.py is a GPU, device_sim.py the simulator
    layout.py          the kernels' structs, packed
    host.py            what the parts of the host code share
    plan.py, conv.py   convolution: what a plan is, and which is taken
    direct.py          plans of the direct kernels
    im2col.py          plans of implicit GEMM
    columns.py         the plan of explicit im2col
    gemm.py            matrix products
    slices.py          sums of partial results
    pool.py            pooling
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.backends import reference
from pycnn.backends.cuda import columns, direct, gemm, im2col, pool, slices
from pycnn.backends.cuda.conv import ConvHost
from pycnn.backends.cuda.gemm import GemmHost
from pycnn.backends.cuda.host import UnavailableError
from pycnn.backends.cuda.pool import PoolHost

__all__ = ["LAUNCHERS", "Host", "UnavailableError"]

# The modules that launch kernels; the KERNELS of each are the ones it launches.
LAUNCHERS = (columns, direct, gemm, im2col, pool, slices)


class Host(ConvHost, GemmHost, PoolHost):
    """The backend functions on one device.

    Args:
        device: where the kernels run.
        sources: the kernels.
    """


_hosts: dict[int, Host] = {}


def _host(*arguments: object) -> Host:
    """The host code of the GPU that holds the first array among `arguments`, or of the current one."""
    from pycnn.backends.cuda.device_cupy import CupyDevice, current_device

    held = (array.device.id for array in arguments if hasattr(array, "device"))
    number = next(held, None)
    if number is None:
        number = current_device()
    if number not in _hosts:
        _hosts[number] = Host(CupyDevice(number))
    return _hosts[number]


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in reference.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def function(*arguments: Any, **options: Any) -> Any:
        return getattr(_host(*arguments), name)(*arguments, **options)

    function.__name__ = name
    return function
