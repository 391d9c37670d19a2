"""Which parameters one kernel steps together, and how on a GPU: settings and step counts in device memory.

A CUDA graph holds the launches as they were captured; what changes from step to step it reads from memory that is
brought up to date before each replay (see `pycnn.cuda.capture`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.arrays import beside, device_of, is_array, is_host, place
from pycnn.backends.replay import CaptureError, active
from pycnn.tensor import Tensor

__all__ = ["Settings", "expect_not_captured", "follow", "host_of", "is_fused", "shared_steps"]

Array = Any


def is_fused(parameter: Tensor) -> bool:
    """Whether the kernels step it: dense float32, and a gradient of float32 on the same kind of device."""
    p, g = parameter._data, parameter._grad
    return (
        p.dtype == np.float32
        and p.flags.c_contiguous
        and g is not None
        and is_host(g._data) == is_host(p)
        and g._data.dtype == np.float32
    )


def host_of(array: Array) -> Any:
    """The host code of the GPU that holds it."""
    return backends.get("cuda").host_on(array.data.device_id)


def expect_not_captured(array: Array) -> None:
    """CaptureError for an update whose numbers would be part of the graph for ever."""
    if active() is not None and not is_host(array):
        raise CaptureError(
            f"the step of a {array.dtype} parameter cannot be captured: only those of dense float32 parameters read "
            "their learning rate from the GPU"
        )


class Settings:
    """The numbers of one parameter group on one GPU, as its kernel reads them."""

    def __init__(self, like: Array, values: tuple[float, ...]) -> None:
        self._device = device_of(like)
        self._values = values
        self.array = place(np.array(values, np.float32), self._device)

    def update(self, values: tuple[float, ...]) -> None:
        """Write them if they have changed."""
        if values != self._values:
            self.array[...] = place(np.array(values, np.float32), self._device)
            self._values = values


def follow(states: Iterable[dict[str, Any]], parameters: Iterable[Tensor]) -> None:
    """Bring what is remembered of parameters to where they are now, if they have moved since."""
    for state, parameter in zip(states, parameters, strict=True):
        for name, value in state.items():
            if is_array(value):
                state[name] = beside(value, parameter.data)


def shared_steps(states: Iterable[dict[str, Any]], like: Array) -> list[tuple[Array, list[int]]]:
    """Step counters on the GPU and, for each, the positions of those who count with it; `like` says where.

    A state's "step" is such a counter, one int64 for all parameters that have stepped together; or a number, of a new
    or a loaded state, which becomes one.
    """
    found: dict[Any, tuple[Array, list[int]]] = {}
    for position, state in enumerate(states):
        step = state["step"]
        key = ("number", step) if isinstance(step, int) else ("array", id(step))
        if key not in found:
            counter = place(np.array([step], np.int64), device_of(like)) if isinstance(step, int) else step
            found[key] = counter, []
        state["step"] = found[key][0]
        found[key][1].append(position)
    return list(found.values())
