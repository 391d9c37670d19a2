"""A GPU through CuPy: its memory pool, its current stream, and the driver's launch call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from pycnn.backends.cuda.device import Argument, Array, Extent, Pointers, Reads, Writes
from pycnn.jit import cubin, nvrtc
from pycnn.jit.errors import MissingToolError
from pycnn.jit.sources import ARCHS, Instance, Sources

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_FREE_SHARED = 48 * 1024  # dynamic shared memory that needs no opting in


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise MissingToolError(f"the cuda backend needs CuPy ({error}); pip install 'pycnn[cuda13]'") from None
    return cupy


def current_device() -> int:
    """Index of CuPy's current GPU.  Raises MissingToolError if there is no CuPy, no driver or no GPU."""
    cupy = _cupy()
    try:
        return int(cupy.cuda.runtime.getDevice())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MissingToolError(
            f"no CUDA device to run on ({error}); the cuda backend needs an NVIDIA GPU and its driver"
        ) from None


def arch_of(major: int, minor: int) -> str:
    """What to compile for on a GPU of this compute capability: a cubin runs on its own and later minors of its major.

    >>> arch_of(9, 0), arch_of(8, 7), arch_of(12, 1)
    ('sm_90a', 'sm_86', 'sm_120')
    """
    if (major, minor) == (9, 0):
        return "sm_90a"
    numbers = [int(arch[3:]) for arch in ARCHS if not arch.endswith("a")]
    fitting = [number for number in numbers if number // 10 == major and number % 10 <= minor]
    if not fitting:
        raise MissingToolError(
            f"no kernels for compute capability {major}.{minor}; they are made for {', '.join(ARCHS)}"
        )
    return f"sm_{max(fitting)}"


class CupyDevice:
    """One GPU.

    Args:
        number: its index.
        sources: the kernels.
    """

    name = "cuda"

    def __init__(self, number: int, sources: Sources | None = None) -> None:
        self._sources = sources
        self._cupy = _cupy()
        self._device = self._cupy.cuda.Device(number)
        capability = self._device.compute_capability
        self.arch = arch_of(int(capability[:-1]), int(capability[-1]))
        self._kernels: dict[Instance, Any] = {}

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array from CuPy's pool."""
        with self._device:
            return self._cupy.empty(shape, dtype)

    def fill(self, array: Array, value: Array | float) -> None:
        """Set or copy in the current stream."""
        with self._device:
            array[...] = value

    def load(self, instance: Instance) -> Any:
        """The kernel in this device's context."""
        kernel = self._kernels.get(instance)
        if kernel is None:
            image = nvrtc.compile_cubin(instance, self.arch, self._sources).read_bytes()
            with self._device:
                module = self._cupy.cuda.function.Module()
                module.load(image)
                kernel = self._kernels[instance] = module.get_function(cubin.Cubin.read(image).entry)
        return kernel

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        """cuLaunchKernel on CuPy's current stream.  Every argument is copied during the call."""
        values = [_value(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        driver = self._cupy.cuda.driver
        with self._device:
            if shared > _FREE_SHARED:
                driver.funcSetAttribute(kernel.ptr, _MAX_DYNAMIC_SHARED, shared)
            stream = self._cupy.cuda.get_current_stream().ptr
            driver.launchKernel(kernel.ptr, *grid, *block, shared, stream, ctypes.addressof(addresses), 0)

    def sync(self) -> None:
        """Wait for the current stream."""
        with self._device:
            self._cupy.cuda.get_current_stream().synchronize()


def _value(argument: Argument) -> Any:
    """An argument as memory that the driver can copy it from."""
    if isinstance(argument, Pointers):
        argument = argument.pack(_address)
    if isinstance(argument, bytes):
        return ctypes.create_string_buffer(argument, len(argument))
    return ctypes.c_void_p(_address(argument))


def _address(argument: Reads | Writes) -> int:
    return 0 if argument.array is None else int(argument.array.data.ptr)
