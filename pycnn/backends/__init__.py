"""The backends, and which one a call goes to.

A backend is a module of plain functions on arrays that all have one floating dtype (float32 or float64), each taking
plain ints; `reference` lists the whole protocol.  The CUDA kernels, and what runs or plans them, have float32, float16
and bfloat16; beside 16 bits they take what has one value a channel in float32 too, and always give it so.  The array's
own device chooses the backend (NumPy: ``cpu``, CuPy: ``cuda``) unless `use_backend` says otherwise.
"""

from __future__ import annotations

import functools
import importlib
from contextvars import ContextVar
from types import ModuleType
from typing import ClassVar

from pycnn._scoped import Scoped

__all__ = ["NAMES", "get", "selected", "use_backend"]

_FUNCTIONS = {"cuda": "cuda.bound"}  # where a backend's functions are, if not in the module of its name
NAMES = ("reference", "cpu", "cuda", "sim", "shapes", "trace")


class use_backend(Scoped):
    """Send calls to one backend: until the end of the ``with`` block, or for good if used without one.

    Args:
        name: ``"reference"`` (NumPy, float64 accumulation, slow), ``"cpu"`` (the native engine), ``"cuda"``, ``"sim"``
            (the CUDA kernels, run on the CPU; for tests), ``"shapes"`` (no arithmetic, zeros of the right shape),
            ``"trace"`` (no arithmetic, a list of CUDA kernels; within `pycnn.backends.trace.tracing`), or
            None for the array's own device.

    Raises:
        ValueError: an unknown name.

    >>> import pycnn, numpy as np
    >>> with pycnn.use_backend("reference"):
    ...     pycnn.ops.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    first = None
    inside = ContextVar("pycnn_backend", default=None)
    lasting: ClassVar[list[Scoped]] = []

    def __init__(self, name: str | None) -> None:
        if name is not None and name not in NAMES:
            raise ValueError(f"backend must be one of {', '.join(NAMES)} or None, got {name!r}")
        super().__init__(name)


def selected() -> str | None:
    """The backend that `use_backend` chose, or None where the array decides."""
    chosen: str | None = use_backend.value()
    return chosen


@functools.cache
def get(name: str) -> ModuleType:
    """The module of backend `name`, imported at its first use."""
    return importlib.import_module(f"pycnn.backends.{_FUNCTIONS.get(name, name)}")
