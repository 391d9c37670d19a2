"""What the optimisers step: the parameters that one kernel takes together, master copies, and numbers on a GPU.

A CUDA graph holds the launches as they were captured; what changes from step to step it reads from memory that is
brought up to date before each replay (see `pycnn.cuda.capture`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from pycnn import backends, graph
from pycnn.arrays import beside, device_of, is_array, is_half, is_host, laid, module_of, place
from pycnn.backends.replay import CaptureError, active
from pycnn.large import cast
from pycnn.memory_format import is_channels_last, is_dense, new_array, wants_channels_last
from pycnn.nn.parameter import changed
from pycnn.tensor import Tensor

__all__ = [
    "Scaling",
    "Settings",
    "expect_not_captured",
    "follow",
    "host_of",
    "is_fused",
    "masters",
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

    Both are on the same kind of device.  Dense is C-contiguous; on a GPU, channels-last too.
    """
    p, g = parameter._data, parameter._grad
    if g is None or is_host(g._data) != is_host(p):
        return False
    if not (p.flags.c_contiguous or (not is_host(p) and is_channels_last(p))):
        return False
    if is_half(p):
        return g._data.dtype == np.float32 or is_half(g._data)
    return p.dtype == np.float32 and g._data.dtype == np.float32


def masters(parameters: list[Tensor], states: list[dict[str, Any]]) -> list[Any]:
    """What is stepped: each parameter itself; or, if it has 16 bits, its float32 copy in its state, with its gradient.

    Elements of which the parameter is not the rounded copy were written by someone else; the copy takes them over.  On
    a GPU kernels see to that, which a captured graph repeats.
    """
    stepped: list[Any] = list(parameters)
    known, halves = [], []
    for i, (parameter, state) in enumerate(zip(parameters, states, strict=True)):
        if not is_half(parameter._data):
            continue
        kept = state.get("master")
        if kept is None:
            kept = state["master"] = _widened(parameter._data)
        else:
            known.append((kept, parameter._data))
        stepped[i] = Tensor(kept)
        gradient = parameter._grad
        if gradient is not None and is_half(gradient._data):
            wide = new_array(module_of(kept).empty, kept.shape, kept.dtype, wants_channels_last(kept))
            halves.append((wide, gradient._data))
            gradient = graph.wrap(wide)
        stepped[i].grad = gradient
    for pairs, kernel, by_one in ((known, "take_over", _take_over), (halves, "widen_all", _copy)):
        _each(pairs, kernel, by_one)
    return stepped


def write_back(stepped: list[Any], parameters: list[Tensor]) -> None:
    """Round master copies into their parameters, and tell autograd that all of these have changed."""
    pairs = [(p._data, s._data) for s, p in zip(stepped, parameters, strict=True) if s is not p]
    _each(pairs, "round_all", _copy)
    for parameter in parameters:
        changed(parameter)


def _each(pairs: list[tuple[Array, Array]], kernel: str, by_one: Callable[[Array, Array], None]) -> None:
    """For all pairs of a written and a read array, of which one has 16 bits: `kernel` on a GPU, else `by_one`."""
    together = [pair for pair in pairs if _is_for_a_kernel(pair[0])]
    if together:
        getattr(host_of(together[0][0]), kernel)(*(list(arrays) for arrays in zip(*together, strict=True)))
    for written, read in pairs:
        if not _is_for_a_kernel(written):
            by_one(written, read)


def _is_for_a_kernel(array: Array) -> bool:
    return not is_host(array) and is_dense(array)


def _copy(to: Array, array: Array) -> None:
    to[...] = cast(array, to.dtype)


def _take_over(kept: Array, p: Array) -> None:
    np.copyto(kept, cast(p, kept.dtype), where=cast(kept, p.dtype) != p)  # where one is a NaN too


def _widened(p: Array) -> Array:
    wide = cast(p, np.float32)
    return wide if is_dense(wide) else wide.copy(order="C")


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
    """Bring what is remembered of parameters to where they are now, and lay it as they lie, if that changed since."""
    for state, parameter in zip(states, parameters, strict=True):
        p = parameter.data
        for name, value in state.items():
            if is_array(value):
                value = beside(value, p)
                state[name] = laid(value, wants_channels_last(p)) if value.shape == p.shape else value


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
