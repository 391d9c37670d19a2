"""What the optimisers step: the parameters that one kernel takes together, master copies, and numbers on a GPU.

A CUDA graph holds the launches as they were captured; what changes from step to step it reads from memory that is
brought up to date before each replay (see `pycnn.cuda.capture`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from pycnn import backends, graph
from pycnn.arrays import beside, device_of, is_array, is_half, is_host, module_of, place
from pycnn.backends.replay import CaptureError, active
from pycnn.large import cast
from pycnn.nn.parameter import changed
from pycnn.tensor import Tensor

__all__ = [
    "Scaling",
    "Settings",
    "expect_not_captured",
    "follow",
    "host_of",
    "is_fused",
    "master",
    "shared_steps",
    "write_back",
]

Array = Any


class Scaling(NamedTuple):
    """What a step on a GPU takes from `pycnn.amp.GradScaler`, one float32 each in the GPU's memory.

    Attributes:
        scale: what the gradients are to be divided by; None for nothing.
        found: whether one of them is not finite (not 0), and the step changes nothing; None for never.
    """

    scale: Array | None = None
    found: Array | None = None


def is_fused(parameter: Tensor) -> bool:
    """Whether the kernels step it, or its master copy: dense float32 and a gradient of float32, or 16 bits.

    Both are on the same kind of device.
    """
    p, g = parameter._data, parameter._grad
    if g is None or is_host(g._data) != is_host(p):
        return False
    if is_half(p):
        return g._data.dtype == np.float32 or is_half(g._data)
    return p.dtype == np.float32 and p.flags.c_contiguous and g._data.dtype == np.float32


def master(parameter: Tensor, state: dict[str, Any]) -> Any:
    """What is stepped: the parameter itself; or, if it has 16 bits, its float32 copy in `state`, with its gradient.

    Elements of which the parameter is not the rounded copy were written by someone else; the copy takes them over.  On
    a GPU that is arithmetic like any other, which a captured graph repeats.
    """
    p = parameter._data
    if not is_half(p):
        return parameter
    kept, wide = state.get("master"), p.astype(np.float32, order="C")
    if kept is None:
        kept = state["master"] = wide
    else:
        kept[...] = module_of(p).where(cast(kept, p.dtype) == p, kept, wide)
    stepped, gradient = Tensor(kept), parameter._grad
    if gradient is not None:
        stepped.grad = graph.wrap(cast(gradient._data, np.float32)) if is_half(gradient._data) else gradient
    return stepped


def write_back(stepped: Tensor, parameter: Tensor) -> None:
    """Round the master copy into its parameter, and tell autograd that the parameter has changed."""
    if stepped is not parameter:
        parameter._data[...] = cast(stepped._data, parameter._data.dtype)
    changed(parameter)


def host_of(array: Array) -> Any:
    """The host code of the GPU that holds it."""
    return backends.get("cuda").host_on(array.data.device_id)


def expect_not_captured(array: Array) -> None:
    """CaptureError for an update whose numbers would be part of the graph for ever."""
    if active() is not None and not is_host(array):
        raise CaptureError(
            f"the step of a {array.dtype} parameter cannot be captured: only those of dense float32 parameters, and of "
            "16 bits, read their learning rate from the GPU"
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
