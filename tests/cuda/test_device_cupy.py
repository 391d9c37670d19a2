"""`CupyDevice` against a CuPy that is played by NumPy and the simulator: what reaches the driver is what was meant."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.backends.cuda import Host, device_cupy
from pycnn.backends.cuda.device_cupy import CupyDevice
from pycnn.backends.cuda.device_sim import SimDevice, _Launch
from pycnn.jit import cubin
from pycnn.jit.sources import installed
from pycnn.shape import Problem
from pycnn.testing import exact_operands, run

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]


class Array(np.ndarray):
    """A NumPy array that says where it is as CuPy's do."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=int(self.ctypes.data))


class Gpu:
    """cupy as far as CupyDevice uses it.  Kernels are told apart by their entry names and run by the simulator."""

    def __init__(self) -> None:
        self.attributes: list[tuple[int, int]] = []
        self.launches: list[str] = []
        simulator = SimDevice()
        self._kernels: dict[int, Any] = {}
        gpu = self

        class Module:
            def load(self, image: bytes) -> None:
                self.cubin = cubin.Cubin.read(image)

            def get_function(self, name: str) -> Any:
                assert name == self.cubin.entry
                instance = next(i for i in installed().instances if _tag(i) in name)
                gpu._kernels[id(self)] = (simulator.load(instance), self.cubin)
                return SimpleNamespace(ptr=id(self), module=self)

        self.cuda = SimpleNamespace(
            Device=lambda number: _Device(),
            function=SimpleNamespace(Module=Module),
            get_current_stream=lambda: SimpleNamespace(ptr=1234, synchronize=lambda: None),
            driver=SimpleNamespace(
                launchKernel=self._launch, funcSetAttribute=lambda *given: self.attributes.append(given)
            ),
        )

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.full(shape, np.nan, dtype).view(Array)

    def _launch(self, function: int, *rest: int) -> None:
        """cuLaunchKernel: reads each parameter from the address in the list, as many bytes as the cubin says."""
        grid, block, (shared, stream, parameters, extra) = rest[0:3], rest[3:6], rest[6:]
        assert (shared, stream, extra) == (0, 1234, 0)
        kernel, compiled = self._kernels[function]
        addresses = (ctypes.c_void_p * len(compiled.parameters)).from_address(parameters)
        packed = bytearray(sum(compiled.parameters[-1]))
        for address, (offset, size) in zip(addresses, compiled.parameters, strict=True):
            packed[offset : offset + size] = ctypes.string_at(address, size)
        message = ctypes.create_string_buffer(512)
        request = _Launch(
            kernel=str(kernel.instance).encode(),
            grid=grid,
            block=block,
            shared_limit=227 * 1024,
            block_count=grid[0] * grid[1] * grid[2],
            message=ctypes.cast(message, ctypes.c_char_p),
            message_size=len(message),
            patience=60,
        )
        assert kernel.library.pycnn_sim_launch(ctypes.byref(request), bytes(packed)) == 0, message.value
        self.launches.append(kernel.instance.name)


class _Device:
    compute_capability = "90"

    def __enter__(self) -> None: ...

    def __exit__(self, *given: object) -> None: ...


def _tag(instance: Any) -> str:
    """What the mangled name of an instance's kernel holds: its tile, value by value."""
    return instance.tile_type + "".join(f"ELi{value}" for value in instance.tile.values()) + "EE"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    played = Gpu()
    monkeypatch.setattr(device_cupy, "_cupy", lambda: played)
    return played


@pytest.mark.parametrize(
    ("text", "instance"),
    [("n2c9h9w10_k70r3s3_pd1", "r3s3_st1_14x16"), ("n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2", "narrow")],
)
def test_arguments_reach_the_driver(gpu: Gpu, text: str, instance: str) -> None:
    problem = Problem.parse(text)
    operands = exact_operands(problem)
    backend = Host(CupyDevice(0))
    arrays = [array.view(Array) for array in (operands.left, operands.right, operands.b)]
    s = problem.shape
    y = backend.conv2d_fprop(*arrays, s.stride, s.padding, s.dilation, s.groups)
    assert gpu.launches == [instance]
    assert np.array_equal(y, run(reference, problem, operands, "auto"))


def test_null_bias_and_strided_input(gpu: Gpu) -> None:
    x = np.arange(2 * 3 * 8 * 16, dtype=np.float32).reshape(2, 3, 8, 16).view(Array)[..., ::2]
    w = np.ones((4, 3, 3, 3), np.float32).view(Array)
    rest = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
    y = Host(CupyDevice(0)).conv2d_fprop(x, w, None, *rest)
    assert np.array_equal(y, reference.conv2d_fprop(np.asarray(x), np.asarray(w), None, *rest))


def test_much_shared_memory_is_asked_for(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.cuda.driver, "launchKernel", lambda *given: None)
    device = CupyDevice(0)
    device.launch(SimpleNamespace(ptr=7), (1, 1, 1), (32, 1, 1), 100 * 1024, [])
    device.launch(SimpleNamespace(ptr=7), (1, 1, 1), (32, 1, 1), 48 * 1024, [])
    assert gpu.attributes == [(7, 8, 100 * 1024)]
