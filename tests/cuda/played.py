"""A CuPy that is played: `cupy` over the machine of played_gpu, with the arrays of played_arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import played_arrays
from played_arrays import UFUNCS, Ndarray, Ogrid, Ufunc, like
from played_gpu import (
    CaptureRefused,
    Device,
    Event,
    Gpu,
    Graph,
    Memory,
    MemoryPointer,
    MemoryPool,
    NoGpuError,
    RaceError,
    Stream,
)

from pycnn.jit import nvrtc

__all__ = ["UFUNCS", "CaptureRefused", "Gpu", "RaceError", "playing"]

FUNCTIONS = (
    *("empty", "asarray", "zeros", "ones", "full", "concatenate", "stack", "where", "clip", "take_along_axis"),
    *("copyto", "expand_dims", "broadcast_to", "vdot", "arange", "from_dlpack"),
)


def _cupy(gpu: Gpu) -> Any:
    """The module."""
    module: Any = ModuleType("cupy")
    module.__path__ = []
    for name in FUNCTIONS:
        setattr(module, name, getattr(played_arrays, name))
    for name in UFUNCS:
        setattr(module, name, Ufunc(name))
    for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "uint32", "uint64", "bool_", "newaxis"):
        setattr(module, name, getattr(np, name))
    module.ndarray, module.__version__ = Ndarray, "14.0.0"
    module.array = lambda value, dtype=None: played_arrays.asarray(value, dtype).copy()
    module.ascontiguousarray = lambda x: x if x.flags.c_contiguous else x.copy()
    module.asnumpy = lambda x: x.get() if isinstance(x, Ndarray) else np.asarray(x)
    for name in ("empty", "zeros", "ones", "full"):
        setattr(module, f"{name}_like", like(getattr(played_arrays, name)))
    module.abs = lambda x: abs(x)
    module.ogrid = Ogrid()
    module.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    module.RawKernel = lambda code, name: lambda grid, block, arguments: None  # somebody else's, so not run

    class Module:
        def load(self, image: bytes) -> None:
            self._handle, self._cubin = gpu.load(image)

        def get_function(self, name: str) -> Any:
            assert name == self._cubin.entry
            return SimpleNamespace(ptr=self._handle, module=self)

    @contextmanager
    def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
        gpu.allocators.append(allocator)
        try:
            yield
        finally:
            gpu.allocators.pop()

    cuda: Any = ModuleType("cupy.cuda")
    cuda.Device, cuda.Stream, cuda.Event, cuda.Graph = Device, Stream, Event, Graph
    cuda.MemoryPool, cuda.Memory, cuda.MemoryPointer = MemoryPool, Memory, MemoryPointer
    cuda.using_allocator = using_allocator
    cuda.set_allocator = lambda allocator: None  # fenced one by one as they are
    cuda.get_current_stream = lambda: gpu.stream
    cuda.get_elapsed_time = lambda start, end: (end.time - start.time) * 1e3
    cuda.function = SimpleNamespace(Module=Module)
    cuda.driver = SimpleNamespace(launchKernel=gpu.launch, funcSetAttribute=lambda *given: gpu.attributes.append(given))
    cuda.runtime = SimpleNamespace(
        getDevice=lambda: gpu.current,
        getDeviceCount=lambda: gpu.count,
        memGetInfo=gpu.enter_context,
        CUDARuntimeError=NoGpuError,
        driverGetVersion=lambda: 13000,
        deviceGetAttribute=lambda attribute, number: {13: 1980000, 16: 132}[attribute],
        getDeviceProperties=lambda number: {"name": b"played", "l2CacheSize": 2**20, "multiProcessorCount": 132},
    )
    cuda.nvrtc = nvrtc._load()
    module.cuda = cuda
    return module


@contextmanager
def playing(count: int = 1, **options: Any) -> Iterator[Gpu]:
    """A played machine in place of CuPy until the end of the block."""
    from pycnn.backends.cuda import bound

    gpu = Gpu(count, **options)
    gpu.module = _cupy(gpu)
    before = {name: each for name, each in sys.modules.items() if name.partition(".")[0] == "cupy"}
    for name in before:
        del sys.modules[name]
    sys.modules["cupy"], sys.modules["cupy.cuda"] = gpu.module, gpu.module.cuda
    hosts = dict(bound._hosts)
    bound._hosts.clear()
    try:
        yield gpu
    finally:
        bound._hosts.clear()
        bound._hosts.update(hosts)
        for name in [name for name in sys.modules if name.partition(".")[0] == "cupy"]:
            del sys.modules[name]
        sys.modules.update(before)
