"""What the parts of the CUDA backend's host code share: the device, dense arrays, launches, refusals."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NoReturn

from pycnn.backends.cuda.device import Array, Device, Extent
from pycnn.jit.sources import Sources, installed

AVAILABLE = "convolution by the direct and im2col kernels, matrix products and pooling, all in float32"

_ROW_OF_BLOCKS = 2**30


def grid_of(blocks: int) -> Extent:
    """A grid of so many blocks; past 2^31 - 1 it goes on along y, its last row ragged."""
    return (blocks, 1, 1) if blocks < 2**31 else (_ROW_OF_BLOCKS, -(-blocks // _ROW_OF_BLOCKS), 1)


class UnavailableError(NotImplementedError):
    """The backend has no kernel for this; it never falls back to another backend by itself."""


class HostBase:
    """One device, and what every backend function needs of it.

    Args:
        device: where the kernels run.
        sources: the kernels.
    """

    def __init__(self, device: Device, sources: Sources | None = None) -> None:
        self.device = device
        self.sources = sources or installed()

    def _dense(self, array: Array) -> Array:
        if array.flags.c_contiguous:
            return array
        dense = self.device.alloc(tuple(array.shape), array.dtype)
        self.device.fill(dense, array)
        return dense

    def _unavailable(self, what: str) -> NoReturn:
        raise UnavailableError(f"the {self.device.name} backend has no kernel for {what}; it has {AVAILABLE}")

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Every other function of the protocol: says that it is not there."""
        reference = importlib.import_module("pycnn.backends.reference")
        if name.startswith("_") or not hasattr(reference, name):
            raise AttributeError(f"backends have no function {name!r}")

        def unavailable(*arguments: object, **options: object) -> NoReturn:
            self._unavailable(name)

        return unavailable
