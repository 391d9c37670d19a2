"""The CUDA backend: host code written once, for whatever answers the five calls of `device.Device`.

`Host` plans a call (instance, grid, arguments), allocates and launches.  Bound to the GPU by CuPy, its methods are this
module's backend functions; bound to the simulator they are those of `pycnn.backends.sim`.

    device.py          the five calls; device_cupy.py is a GPU, device_sim.py the simulator
    layout.py          the kernels' structs, packed
    host.py            what the parts of the host code share
    plan.py, conv.py   convolution: what a plan is, and which is taken
    winograd.py        plans of the Winograd kernels
    gemm.py            matrix products
    direct*.py         plans of the direct kernels
    slices.py          sums of partial results
    pool.py            pooling
    activation.py      activations, softmax, add
    norm.py            batch norm, LRN, coefficients a channel
    reduce.py          sums over all axes but the channels
    loss.py            negative log-likelihood
    random.py          the random stream, dropout
    shaping.py         padding, concatenation
    optim.py           optimiser steps over many arrays
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.backends import reference
from pycnn.backends.cuda import (
    activation,
    direct,
    direct_wgrad,
    gemm,
    loss,
    norm,
    optim,
    pool,
    random,
    reduce,
    shaping,
    slices,
    winograd,
)
from pycnn.backends.cuda.activation import ActivationHost
from pycnn.backends.cuda.conv import ConvHost
from pycnn.backends.cuda.gemm import GemmHost
from pycnn.backends.cuda.host import UnavailableError
from pycnn.backends.cuda.loss import LossHost
from pycnn.backends.cuda.norm import NormHost
from pycnn.backends.cuda.optim import OptimHost
from pycnn.backends.cuda.pool import PoolHost
from pycnn.backends.cuda.random import RandomHost
from pycnn.backends.cuda.reduce import ReduceHost
from pycnn.backends.cuda.shaping import ShapingHost

__all__ = ["LAUNCHERS", "Host", "UnavailableError", "device_count", "host_on", "within"]

# The modules that launch kernels; the KERNELS of each are the ones it launches.
LAUNCHERS = (direct, direct_wgrad, winograd, gemm, pool, slices, activation, norm, reduce, loss, random, shaping, optim)

# What the backend has beyond the protocol: it works on the device's memory alone, for CUDA graphs.
ON_DEVICE = ("adam_step", "advance", "clip_gradients", "gradient_norm", "sgd_step")


class Host(
    ConvHost,
    GemmHost,
    PoolHost,
    ActivationHost,
    NormHost,
    ReduceHost,
    LossHost,
    RandomHost,
    ShapingHost,
    OptimHost,
):
    """The backend functions on one device.

    Args:
        device: where the kernels run.
        sources: the kernels.
    """


_hosts: dict[int, Host] = {}


def host_on(number: int | None = None) -> Host:
    """The host code of GPU `number`, or of the current one.  Raises MissingToolError if there is none."""
    from pycnn.backends.cuda.device_cupy import CupyDevice, current_device

    if number is None:
        number = current_device()
    found = _hosts.get(number)
    return found if found is not None else _hosts.setdefault(number, Host(CupyDevice(number)))


def within(number: int) -> Any:
    """A context in which GPU `number` is CuPy's current one."""
    from pycnn.backends.cuda import device_cupy

    return device_cupy.device(number)


def device_count() -> int:
    """How many GPUs there are.  Raises MissingToolError without CuPy or a driver."""
    from pycnn.backends.cuda import device_cupy

    return device_cupy.device_count()


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
