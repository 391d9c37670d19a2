"""The five calls through which the CUDA host code sees a device: alloc, fill, load, launch, sync.

`device_cupy.CupyDevice` is a GPU, `device_sim.SimDevice` the simulator, `pycnn.testing.ptx.PtxDevice` the PTX
interpreter.  The host code in `cuda.py` cannot tell them apart, so what the simulator proves of it (grids, workspaces,
argument packing) holds on the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pycnn.jit.sources import Instance

Array = Any  # cupy.ndarray on a GPU, numpy.ndarray in fenced memory elsewhere
Extent = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Reads:
    """A pointer argument that the kernel only reads; None is a null pointer."""

    name: str
    array: Array | None


@dataclass(frozen=True, slots=True)
class Writes:
    """A pointer argument that the kernel writes; None is a null pointer."""

    name: str
    array: Array | None


Argument = bytes | Reads | Writes  # bytes: a struct passed by value


class Device(Protocol):
    """Somewhere a kernel runs."""

    name: str  # the backend's name, for messages
    arch: str  # what to compile for, such as "sm_90a"

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A new C-contiguous array; its values are whatever was there (NaN where that can be arranged)."""

    def fill(self, array: Array, value: Array | float) -> None:
        """Set `array` to a number, or to the values of another of its shape."""

    def load(self, instance: Instance) -> Any:
        """A handle for `launch`; compiled at the first call, remembered after that."""

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        """Start a kernel in stream order.  `shared` is the dynamic shared memory of a block in bytes."""

    def sync(self) -> None:
        """Wait until everything started has ended; raises if something failed."""
