"""What the parts of the CUDA backend's host code share: the device, dense arrays, launches, refusals."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Device, Extent, Reads
from pycnn.jit.sources import Instance, Sources, installed
from pycnn.memory_format import lies_as, new_array
from pycnn.shape import DTYPES

FLOAT32 = np.dtype(np.float32)

_STORED = ("f32", "f16", "bf16")  # as the member `type` of a tile counts them: StorageOf of kernels/arch/half.cuh

_ROW_OF_BLOCKS = 2**30


def grid_of(blocks: int) -> Extent:
    """A grid of so many blocks; past 2^31 - 1 it goes on along y, its last row ragged."""
    return (blocks, 1, 1) if blocks < 2**31 else (_ROW_OF_BLOCKS, -(-blocks // _ROW_OF_BLOCKS), 1)


@cache
def short_name(dtype: Any) -> str | None:
    """What instances call a dtype that kernels store, "f32", "f16" or "bf16"; None for another."""
    # By name even where NumPy does not know it: bfloat16 is ml_dtypes'.
    name = dtype if isinstance(dtype, str) and dtype in DTYPES.values() else np.dtype(dtype).name
    return next((short for short in _STORED if DTYPES[short] == name), None)


def address(array: Array) -> int:
    """Where its first element is."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


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

    def _new(self, shape: Sequence[int], dtype: Any, last: bool = False) -> Array:
        """An array, in C order or, of four axes, channels-last."""
        return new_array(self.device.alloc, tuple(shape), dtype, last)

    def _dense(self, array: Array, last: bool = False) -> Array:
        """The array in C order, or channels-last: itself if it lies so, else a copy."""
        if lies_as(array, last):
            return array
        dense = self._new(array.shape, array.dtype, last)
        self.device.fill(dense, array)
        return dense

    def _reads(self, name: str, array: Array | None, last: bool = False) -> Reads:
        """An operand, made dense; None is a null pointer."""
        return Reads(name, None if array is None else self._dense(array, last))

    def _launch(self, instance: Instance, blocks: int, *arguments: Argument) -> None:
        """Start a kernel on so many blocks of its tile's warps."""
        self._launch_on(instance, grid_of(blocks), *arguments)

    def _launch_on(self, instance: Instance, grid: Extent, *arguments: Argument) -> None:
        block = (32 * instance.tile["warps"], 1, 1)
        self.device.launch(self.device.load(instance), grid, block, 0, arguments)

    def _only(self, kernel: str) -> Instance:
        """The one instance of a kernel that has no others."""
        (instance,) = self.sources.of(kernel).values()
        return instance

    def ending(self, what: str, dtype: Any) -> str:
        """How the names of the instances for arrays of `dtype` end: nothing for float32, "_f16", "_bf16"."""
        short = short_name(dtype)
        if short is None:
            self._unavailable(f"{what} in {dtype}")
        return "" if short == "f32" else f"_{short}"

    def _expect_float32(self, what: str, dtype: Any) -> None:
        if dtype != FLOAT32:
            self._unavailable(f"{what} in {dtype}")

    def _unavailable(self, what: str) -> NoReturn:
        missing = [name for name in _protocol() if not hasattr(type(self), name)]
        rest = f", and it has none for {', '.join(missing)}" if missing else ""
        raise UnavailableError(
            f"the {self.device.name} backend has no kernel for {what}; its kernels compute in float32, on arrays of "
            f"float32 and most of them also of float16 and bfloat16{rest}"
        )

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        """Every other function of the protocol: says that it is not there."""
        if name not in _protocol():
            raise AttributeError(f"backends have no function {name!r}")

        def unavailable(*arguments: object, **options: object) -> NoReturn:
            self._unavailable(name)

        return unavailable


def _protocol() -> list[str]:
    """The names of all backend functions."""
    names: list[str] = importlib.import_module("pycnn.backends.reference").__all__
    return names
