"""A GPU through CuPy: its memory pool, its current stream, and the driver's launch call."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from pycnn import _dlpack
from pycnn.backends.cuda.device import Argument, Array, Extent, Pointers, Reads, Writes
from pycnn.backends.replay import CaptureError
from pycnn.jit import cubin, nvrtc
from pycnn.jit.errors import MissingToolError
from pycnn.jit.sources import ARCHS, Instance, Sources

T = TypeVar("T")

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_FREE_SHARED = 48 * 1024  # dynamic shared memory that needs no opting in
_CLOCK, _MULTIPROCESSORS = 13, 16  # cudaDevAttrClockRate, cudaDevAttrMultiProcessorCount
_LANES = {"75": 64, "80": 64}  # float32 multiply-adds of a multiprocessor in a clock, where they are not 128
_MOST_CONSTANTS = 4096  # structs kept
_MOST_ARGUMENTS = 64  # of a kernel


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


def device_count() -> int:
    """How many GPUs there are.  Raises MissingToolError without CuPy or a driver."""
    current_device()
    return int(_cupy().cuda.runtime.getDeviceCount())


def device(number: int) -> Any:
    """A context in which GPU `number` is the current one.  Raises MissingToolError if there is none such."""
    count = device_count()
    if not 0 <= number < count:
        raise MissingToolError(f"there is no cuda:{number}; this machine has {count} GPUs, cuda:0 to cuda:{count - 1}")
    return _cupy().cuda.Device(number)


def describe() -> dict[str, Any]:
    """The current GPU: name, multiprocessors, peak (FLOP/s of float32 multiply-adds at its highest clock), versions."""
    cupy = _cupy()
    number = current_device()
    runtime = cupy.cuda.runtime
    name, count = _chip(cupy, number)
    kilohertz = runtime.deviceGetAttribute(_CLOCK, number)
    lanes = _LANES.get(cupy.cuda.Device(number).compute_capability, 128)
    return {
        "name": name,
        "multiprocessors": count,
        "peak": 2.0 * lanes * count * kilohertz * 1e3,
        "versions": {"cupy": cupy.__version__, "driver": str(runtime.driverGetVersion())},
    }


def _chip(cupy: Any, number: int) -> tuple[str, int]:
    runtime = cupy.cuda.runtime
    name: str = runtime.getDeviceProperties(number)["name"].decode()
    return name, int(runtime.deviceGetAttribute(_MULTIPROCESSORS, number))


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds that the GPU takes for each of `count` calls, between events in the current stream."""
    cuda = _cupy().cuda
    events = [(cuda.Event(), cuda.Event()) for _ in range(count)]
    for start, end in events:
        start.record()
        call()
        end.record()
    events[-1][1].synchronize()
    return [cuda.get_elapsed_time(start, end) / 1e3 for start, end in events]


def put(array: Array, number: int) -> Array:
    """A copy of a NumPy array, or of another GPU's, on GPU `number`.

    Raises MissingToolError if there is no such GPU, CaptureError while a step is captured: the copy would be of what
    the array holds then, for ever.
    """
    with device(number):
        cupy = _cupy()
        if cupy.cuda.get_current_stream().is_capturing():
            raise CaptureError("an array of the host would be copied while a graph is captured; make it an input")
        return cupy.asarray(array)


def shared(array: Any) -> Array:
    """A view of another library's array on a GPU, by DLPack or ``__cuda_array_interface__``; no copy.

    CuPy's current stream waits for what the owner's stream holds, as both protocols have it.
    """
    cupy = _cupy()
    return _dlpack.read(array, cupy.from_dlpack) if hasattr(array, "__dlpack__") else cupy.asarray(array)


_ON_A_CHIP = ((7, 2), (8, 7), (10, 1), (11, 0))  # Xavier, Orin, Thor


def arch_of(major: int, minor: int) -> str:
    """What to compile for on a GPU of this compute capability: a cubin runs on its own and later minors of its major.

    Not so on the systems on a chip, whose minors are NVIDIA's exception (CUDA C++ Programming Guide, "Binary
    compatibility"): they are refused.

    >>> arch_of(9, 0), arch_of(8, 9), arch_of(12, 1)
    ('sm_90a', 'sm_89', 'sm_120')
    """
    if (major, minor) == (9, 0):
        return "sm_90a"
    numbers = [] if (major, minor) in _ON_A_CHIP else [int(arch[3:]) for arch in ARCHS if not arch.endswith("a")]
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
        self._number = number
        self._device = self._cupy.cuda.Device(number)
        capability = self._device.compute_capability
        self.arch = arch_of(int(capability[:-1]), int(capability[-1]))
        self._kernels: dict[Instance, Any] = {}
        self._allowed: dict[int, int] = {}  # dynamic shared memory that a kernel may ask for, by its handle
        self._constants: dict[bytes, tuple[int, Any]] = {}  # structs where the driver can copy them from
        self._scratch = _Scratch(self._cupy, self._device)
        cuda = self._cupy.cuda
        self._driver, self._get_device, self._get_stream = cuda.driver, cuda.runtime.getDevice, cuda.get_current_stream

    @property
    def chip(self) -> tuple[str, int]:
        """What the GPU calls itself, and its multiprocessors."""
        return _chip(self._cupy, self._number)

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array from CuPy's pool."""
        if self._get_device() == self._number:
            return self._cupy.empty(shape, dtype)
        with self._device:
            return self._cupy.empty(shape, dtype)

    def fill(self, array: Array, value: Array | float) -> None:
        """Set or copy in the current stream.  Raises CaptureError where a graph is captured and NumPy holds `value`."""
        with self._device:
            if not isinstance(value, np.ndarray):
                array[...] = value
            elif self._cupy.cuda.get_current_stream().is_capturing():
                raise CaptureError(
                    "an array of the host would be copied while a graph is captured; run the step before"
                )
            else:
                array.set(value)

    def load(self, instance: Instance) -> Any:
        """The kernel in this device's context."""
        kernel = self._kernels.get(instance)
        if kernel is None:
            if self._cupy.cuda.get_current_stream().is_capturing():
                raise CaptureError(f"{instance} would have to be loaded while a graph is captured; run the step before")
            image = nvrtc.compile_cubin(instance, self.arch, self._sources).read_bytes()
            with self._device:
                module = self._cupy.cuda.function.Module()
                module.load(image)
                kernel = self._kernels[instance] = module.get_function(cubin.Cubin.read(image).entry)
        return kernel

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        """cuLaunchKernel on CuPy's current stream.  Every argument is copied during the call."""
        constants, scratch = self._constants, self._scratch
        pointers, addresses, place = scratch.pointers, scratch.addresses, scratch.place
        packed = []  # alive until the call is over
        count = 0
        for i, argument in enumerate(arguments):
            if isinstance(argument, bytes):
                kept = constants.get(argument)
                addresses[i] = kept[0] if kept is not None else self._keep(argument)
            elif isinstance(argument, Pointers):
                packed.append(_buffer(argument.pack(_address)))
                addresses[i] = ctypes.addressof(packed[-1])
            else:
                array = argument.array
                pointers[count] = 0 if array is None else array.data.ptr
                addresses[i] = place
                place += 8
                count += 1
        if self._get_device() == self._number:
            self._start(kernel, grid, block, shared, scratch.start)
        else:
            with self._device:
                self._start(kernel, grid, block, shared, scratch.start)

    def _start(self, kernel: Any, grid: Extent, block: Extent, shared: int, addresses: int) -> None:
        handle = kernel.ptr
        if shared > _FREE_SHARED and self._allowed.get(handle, 0) < shared:
            self._driver.funcSetAttribute(handle, _MAX_DYNAMIC_SHARED, shared)
            self._allowed[handle] = shared
        self._driver.launchKernel(handle, *grid, *block, shared, self._get_stream().ptr, addresses, 0)

    def _keep(self, constant: bytes) -> int:
        """The address of a struct, kept for the next call with the same one."""
        if len(self._constants) >= _MOST_CONSTANTS:
            self._constants = {}  # not cleared: another thread may be about to launch from the old one
        buffer = _buffer(constant)
        address = ctypes.addressof(buffer)
        self._constants[constant] = address, buffer
        return address

    def sync(self) -> None:
        """Wait for the current stream."""
        with self._device:
            self._cupy.cuda.get_current_stream().synchronize()

    def recorder(self) -> CupyRecorder:
        """Somewhere to run and record a step on this GPU."""
        return CupyRecorder(self._cupy, self._device)


class _Scratch(threading.local):
    """What each thread has of its own: the GPU's context, and where it lays out a launch.

    The driver launches in the context of the calling thread, and a new thread has none until it calls the runtime,
    which an array from the pool does not.
    """

    def __init__(self, cupy: Any, device: Any) -> None:
        with device:
            cupy.cuda.runtime.memGetInfo()  # as CuPy does before it launches
        self.pointers = (ctypes.c_uint64 * _MOST_ARGUMENTS)()
        self.addresses = (ctypes.c_uint64 * _MOST_ARGUMENTS)()
        self.place, self.start = ctypes.addressof(self.pointers), ctypes.addressof(self.addresses)


class CupyRecorder:
    """A stream and a memory pool of its own, and the CUDA graph that is captured there.

    Memory that the captured step used, temporaries included, stays in the pool as long as the recorder lives, and
    nobody else is given any of it.
    """

    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy = cupy
        self._device = device
        self._capturing = False
        with device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool(self._fresh)
        self._graph: Any = None

    def run(self, step: Callable[[], T]) -> tuple[T, int]:
        """Run it now, after what the current stream holds and before what follows; and the bytes it newly took."""
        cuda = self._cupy.cuda
        with self._device:  # whose bytes the pool counts, too
            before = self._pool.total_bytes()
            outside = cuda.get_current_stream()
            self._stream.wait_event(outside.record())
            try:
                with self._stream, cuda.using_allocator(self._pool.malloc):
                    result = step()
            finally:
                outside.wait_event(self._stream.record())
            return result, self._pool.total_bytes() - before

    def record(self, step: Callable[[], T]) -> T:
        """Capture it without running it.

        Raises CaptureError where it would allocate, load a module, or wait for the GPU.
        """
        cuda = self._cupy.cuda
        with self._device, self._stream, cuda.using_allocator(self._pool.malloc):
            self._stream.begin_capture()
            self._capturing = True
            try:
                result = step()
            except CaptureError:
                raise
            except RuntimeError as error:
                # CUDA ends a capture that is asked for what it cannot hold; CuPy says so in such an error of its own.
                raise CaptureError(
                    f"the step cannot be captured: {error} (what waits for the GPU, as .item() and .numpy() do, "
                    "belongs behind the step)"
                ) from error
            finally:
                self._capturing = False
                graph = self._ended()
        if isinstance(graph, Exception):
            raise CaptureError(f"the step cannot be captured: {graph}")
        self._graph = graph
        return result

    def replay(self) -> None:
        """Run what was captured, in the current stream."""
        with self._device:
            self._graph.launch(self._cupy.cuda.get_current_stream())

    def _ended(self) -> Any:
        try:
            return self._stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError as error:  # it was broken, and the cause is on its way
            return error

    def _fresh(self, size: int) -> Any:
        if self._capturing:
            raise CaptureError(
                f"{size} bytes would have to be allocated while a graph is captured; run the step before with inputs "
                "of the same shapes"
            )
        cuda = self._cupy.cuda
        return cuda.MemoryPointer(cuda.Memory(size), 0)


def _buffer(data: bytes) -> Any:
    return ctypes.create_string_buffer(data, len(data))


def _address(argument: Reads | Writes) -> int:
    return 0 if argument.array is None else int(argument.array.data.ptr)
