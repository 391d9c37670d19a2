"""The calls through which the CUDA host code sees a device: alloc, fill, load, launch, sync; and how it records them.

`device_cupy.CupyDevice` is a GPU, `device_sim.SimDevice` the simulator, `pycnn.testing.ptx.PtxDevice` the PTX
interpreter.  The host code in `cuda.py` cannot tell them apart, so what the simulator proves of it (grids, workspaces,
argument packing) holds on the GPU.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pycnn.jit.sources import Instance

Array = Any  # cupy.ndarray on a GPU, numpy.ndarray in fenced memory elsewhere
Extent = tuple[int, int, int]
T = TypeVar("T")


@dataclass(slots=True)
class Reads:
    """A pointer argument that the kernel only reads; None is a null pointer."""

    name: str
    array: Array | None


@dataclass(slots=True)
class Writes:
    """A pointer argument that the kernel writes; None is a null pointer."""

    name: str
    array: Array | None


@dataclass(frozen=True, slots=True)
class Pointers:
    """A struct of `capacity` pointers passed by value, the first of them to `arrays`, the others null.

    `written` says whether the kernel writes the arrays or only reads them.  None is a null pointer.
    """

    name: str
    arrays: Sequence[Array | None]
    written: bool
    capacity: int

    @property
    def parts(self) -> list[Reads | Writes]:
        """One pointer argument for each array."""
        kind = Writes if self.written else Reads
        return [kind(f"{self.name}[{i}]", array) for i, array in enumerate(self.arrays)]

    def pack(self, address: Callable[[Reads | Writes], int]) -> bytes:
        """The struct, with the addresses that a device gives its arrays."""
        addresses = [address(part) for part in self.parts]
        if len(addresses) > self.capacity:
            raise ValueError(f"{self.name}: {len(addresses)} arrays do not fit into a struct of {self.capacity}")
        return struct.pack(f"<{self.capacity}Q", *addresses, *(0,) * (self.capacity - len(addresses)))


Argument = bytes | Reads | Writes | Pointers  # bytes: a struct passed by value


def pointers_of(arguments: Sequence[Argument]) -> list[Reads | Writes]:
    """Every array that a launch is given, those in structs included; null pointers are left out."""
    found: list[Reads | Writes] = []
    for argument in arguments:
        if isinstance(argument, Pointers):
            found += argument.parts
        elif not isinstance(argument, bytes):
            found.append(argument)
    return [pointer for pointer in found if pointer.array is not None]


class Device(Protocol):
    """Somewhere a kernel runs."""

    name: str  # the backend's name, for messages
    arch: str  # what to compile for, such as "sm_90a"

    @property
    def chip(self) -> tuple[str, int]:
        """What the GPU calls itself, and its multiprocessors; ("", 0) where there is none."""

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


class RecordingDevice(Device, Protocol):
    """A device that can also record a step, to run it again and again without its host code."""

    def recorder(self) -> Recorder:
        """Somewhere to run and record one step."""


class Recorder(Protocol):
    """Runs a step, records it, runs the record; with memory of its own that stays for as long as it lives."""

    def run(self, step: Callable[[], T]) -> tuple[T, int]:
        """Run it now; its result, and how many bytes it had to take from the device beyond what was there before."""

    def record(self, step: Callable[[], T]) -> T:
        """Write down what it starts, and start nothing; its result, whose values come with the first replay.

        Raises CaptureError where it would allocate, load a kernel, or wait for the device.
        """

    def replay(self) -> None:
        """Start all that was written down, in the current stream."""
