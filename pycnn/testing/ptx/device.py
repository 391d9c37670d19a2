"""The PTX interpreter behind the five calls of a device, so that the CUDA host code runs on it unchanged."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Extent, Pointers, Reads, Writes, pointers_of
from pycnn.jit import nvrtc
from pycnn.jit.sources import Instance, Sources
from pycnn.testing.ptx.machine import GlobalBuffer, Machine, PtxError
from pycnn.testing.ptx.parse import Code, parse


class PtxDevice:
    """A device that interprets what NVRTC emits.  For small problems: some million thread instructions a second.

    Args:
        arch: whose PTX to run.
        sources: the kernels.
        patience: instructions after which a batch of blocks is taken to run for ever.

    Attributes:
        launches: the instances launched so far, in order.
        executed: thread instructions executed so far.
    """

    name = "ptx"
    chip = ("", 0)

    def __init__(self, arch: str = "sm_75", sources: Sources | None = None, patience: int = 10_000_000) -> None:
        self.arch = arch
        self.launches: list[Instance] = []
        self.executed = 0
        self._sources = sources
        self._patience = patience
        self._code: dict[Instance, Code] = {}

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array with all bits set, which are NaN."""
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF
        return array

    def fill(self, array: Array, value: Array | float) -> None:
        """Set or copy."""
        array[...] = value

    def load(self, instance: Instance) -> tuple[Instance, Code]:
        """The kernel's PTX, parsed."""
        if instance not in self._code:
            self._code[instance] = parse(nvrtc.compile_ptx(instance, self.arch, self._sources))
        return instance, self._code[instance]

    def launch(
        self, kernel: tuple[Instance, Code], grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]
    ) -> None:
        """Interpret every block of the grid.  Raises PtxError if the kernel breaks a rule."""
        instance, code = kernel
        if code.max_threads and block[0] * block[1] * block[2] > code.max_threads:
            raise PtxError(f"{instance}: a block of {block} threads; compiled for at most {code.max_threads}")
        machine = Machine(
            code, _pack(instance, code, arguments), _buffers(arguments), grid, block, shared, self._patience
        )
        machine.run()
        self.executed += machine.executed
        self.launches.append(instance)

    def sync(self) -> None:
        """Nothing to wait for."""


def _pack(instance: Instance, code: Code, arguments: Sequence[Argument]) -> bytes:
    if len(arguments) != len(code.parameters):
        raise PtxError(f"{instance} takes {len(code.parameters)} arguments, the launch has {len(arguments)}")
    packed = bytearray(sum(code.parameters[-1][1:]) if code.parameters else 0)
    for (name, offset, size), argument in zip(code.parameters, arguments, strict=True):
        if isinstance(argument, Pointers):
            value = argument.pack(_address)
        else:
            value = argument if isinstance(argument, bytes) else _address(argument).to_bytes(8, "little")
        if len(value) != size:
            raise PtxError(f"{instance}: parameter {name} has {size} bytes, got {len(value)}")
        packed[offset : offset + size] = value
    return bytes(packed)


def _address(argument: Reads | Writes) -> int:
    return 0 if argument.array is None else int(argument.array.ctypes.data)


def _buffers(arguments: Sequence[Argument]) -> list[GlobalBuffer]:
    """Each array once, writable if any of the arguments that name it is."""
    buffers: dict[int, GlobalBuffer] = {}
    for argument in sorted(pointers_of(arguments), key=lambda pointer: isinstance(pointer, Writes)):
        if argument.array is not None and argument.array.size:
            buffers[_address(argument)] = GlobalBuffer(
                argument.name, _address(argument), _bytes(argument.array), isinstance(argument, Writes)
            )
    return list(buffers.values())


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory from an array's first element to the end of its last, gaps included; strides are not negative."""
    if array.size == 0:
        return np.zeros(0, np.uint8)
    last = sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
    memory = (ctypes.c_uint8 * (last + array.itemsize)).from_address(array.ctypes.data)
    return np.frombuffer(memory, np.uint8)
