"""`CupyDevice` against a CuPy that is played by the simulator: what reaches the driver is what was meant."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from played import UFUNCS, CaptureRefused, Gpu, RaceError, playing

from pycnn.backends import reference
from pycnn.backends.cuda import Host, device_cupy
from pycnn.backends.cuda.device_cupy import CupyDevice
from pycnn.backends.replay import CaptureError
from pycnn.jit import MissingToolError
from pycnn.shape import Problem
from pycnn.testing import exact_operands, run

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]

REST = ((1, 1), (1, 1, 1, 1), (1, 1), 1)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with playing(2) as played:
        yield played


def on_gpu(*arrays: np.ndarray | None) -> list[Any]:
    cupy = sys.modules["cupy"]
    return [None if array is None else cupy.asarray(array) for array in arrays]


def small(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 7 - 3).astype(np.float32)


def test_the_played_module_offers_nothing_that_cupy_lacks() -> None:
    cupy = pytest.importorskip("cupy")
    with playing() as gpu:
        module, array = gpu.module, gpu.module.zeros(1)
        names = [name for name in vars(module) if not name.startswith("__") and name != "cuda"]
        cuda = [name for name in vars(module.cuda) if not name.startswith("__")]
        methods = [name for name in dir(type(array)) if not name.startswith("_")]
    assert not [name for name in (*names, *UFUNCS) if not hasattr(cupy, name)]
    assert not [name for name in cuda if not hasattr(cupy.cuda, name)]
    assert not [name for name in methods if not hasattr(cupy.ndarray, name)]


@pytest.mark.parametrize(
    ("text", "instance"),
    [("n2c9h9w10_k70r3s3_pd1", "r3s3_st1_14x16"), ("n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2", "narrow")],
)
def test_arguments_reach_the_driver(gpu: Gpu, text: str, instance: str) -> None:
    problem = Problem.parse(text)
    operands = exact_operands(problem)
    backend = Host(CupyDevice(0))
    arrays = on_gpu(operands.left, operands.right, operands.b)
    s = problem.shape
    y = backend.conv2d_fprop(*arrays, s.stride, s.padding, s.dilation, s.groups, algo="direct")
    assert [name.rstrip("]").partition("[")[2] for name in gpu.launches] == [instance]
    assert np.array_equal(y.get(), run(reference, problem, operands, "auto"))


def test_null_bias_and_strided_input(gpu: Gpu) -> None:
    x = small(2, 3, 8, 16)[..., ::2]
    w = np.ones((4, 3, 3, 3), np.float32)
    room, filters = on_gpu(small(2, 3, 8, 16), w)
    y = Host(CupyDevice(0)).conv2d_fprop(room[..., ::2], filters, None, *REST)
    assert np.array_equal(y.get(), reference.conv2d_fprop(x, w, None, *REST))


def test_a_struct_of_pointers_reaches_the_driver(gpu: Gpu) -> None:
    parts = [small(2, n, 3) for n in (1, 2, 5)]
    y = Host(CupyDevice(0)).concat(on_gpu(*parts), 1)
    assert np.array_equal(y.get(), reference.concat(parts, 1))


def test_much_shared_memory_is_asked_for_once(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.module.cuda.driver, "launchKernel", lambda *given: None)
    device = CupyDevice(0)
    for shared in (49, 100, 48, 100, 90, 120):
        device.launch(SimpleNamespace(ptr=7), (1, 1, 1), (32, 1, 1), shared * 1024, [])
    assert gpu.attributes == [(7, 8, 49 * 1024), (7, 8, 100 * 1024), (7, 8, 120 * 1024)]


def test_no_more_than_so_many_structs_are_kept(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def launch(*given: Any) -> None:
        address = ctypes.cast(given[9], ctypes.POINTER(ctypes.c_void_p))[0]
        seen.append(ctypes.string_at(address, 8))

    monkeypatch.setattr(gpu.module.cuda.driver, "launchKernel", launch)
    monkeypatch.setattr(device_cupy, "_MOST_CONSTANTS", 3)
    device = CupyDevice(0)
    structs = [bytes([i]) * 8 for i in range(8)]
    for struct in structs:
        device.launch(SimpleNamespace(ptr=7), (1, 1, 1), (32, 1, 1), 0, [struct])
        assert len(device._constants) <= 3
    assert seen == structs


def test_each_gpu_loads_its_own_module(gpu: Gpu) -> None:
    x, w = small(1, 3, 8, 8), small(4, 3, 3, 3)
    devices = [CupyDevice(number) for number in range(2)]
    for number in (0, 1, 1, 0):
        with gpu.module.cuda.Device(number):
            arrays = on_gpu(x, w)
        y = Host(devices[number]).conv2d_fprop(*arrays, None, *REST)  # the current GPU is 0 all the time
        assert y.device.id == number
        assert np.array_equal(y.get(), reference.conv2d_fprop(x, w, None, *REST))
    assert [number for number, _ in gpu.loaded] == [0, 1]


def test_the_current_stream_is_the_one_launched_on(gpu: Gpu) -> None:
    with gpu.module.cuda.Stream(non_blocking=True):  # the played driver refuses a launch on any other
        x, w = on_gpu(small(1, 3, 8, 8), small(4, 3, 3, 3))
        Host(CupyDevice(0)).conv2d_fprop(x, w, None, *REST)
    assert gpu.transfers == []  # and nobody waited


def test_a_new_thread_launches_too(gpu: Gpu) -> None:
    host = Host(CupyDevice(0))
    (x,) = on_gpu(small(4, 40))
    host.add(x, x)
    with ThreadPoolExecutor(1) as pool:  # its thread has not called the runtime yet
        y = pool.submit(host.add, x, x).result()
    assert np.array_equal(y.get(), 2 * small(4, 40))


def test_a_gpu_that_is_not_there_is_said(gpu: Gpu) -> None:
    with pytest.raises(MissingToolError, match=r"there is no cuda:5; this machine has 2 GPUs, cuda:0 to cuda:1"):
        device_cupy.put(np.zeros(1), 5)
    for number in (2, -1):
        with pytest.raises(MissingToolError, match=f"there is no cuda:{number}"):
            device_cupy.put(np.zeros(1), number)


def test_a_step_is_recorded_and_replayed(gpu: Gpu) -> None:
    x, w = on_gpu(small(1, 3, 8, 8), small(4, 3, 3, 3))
    host = Host(CupyDevice(0))
    recorder = host.device.recorder()

    def step() -> Any:
        return host.conv2d_fprop(x, w, None, *REST) * 2.0

    expected, taken = recorder.run(step)
    assert taken > 0
    del expected
    assert recorder.run(step)[1] == 0
    launches = len(gpu.launches)
    y = recorder.record(step)
    assert len(gpu.launches) == launches
    for factor in (1.0, 3.0):
        x[...] = on_gpu(small(1, 3, 8, 8) * np.float32(factor))[0]
        recorder.replay()
        assert np.array_equal(
            y.get(), 2 * factor * reference.conv2d_fprop(small(1, 3, 8, 8), small(4, 3, 3, 3), None, *REST)
        )
    assert len(gpu.launches) == launches + 2


def test_memory_is_counted_on_the_gpu_of_the_recorder(gpu: Gpu) -> None:
    device = CupyDevice(1)
    recorder = device.recorder()
    assert recorder.run(lambda: device.alloc((1024,), np.float32))[1] == 4096  # the current GPU is 0


def test_streams_that_do_not_wait_are_found_out(gpu: Gpu) -> None:
    (x,) = on_gpu(small(4))
    side = gpu.module.cuda.Stream(non_blocking=True)
    with side, pytest.raises(RaceError, match="did not wait"):
        _ = x + 1.0
    side.wait_event(gpu.stream.record())
    with side:
        y = x + 1.0
    with pytest.raises(RaceError, match="did not wait"):
        y.get()
    gpu.stream.wait_event(side.record())
    assert np.array_equal(y.get(), small(4) + 1.0)


def test_a_step_runs_between_what_is_before_and_behind_it(gpu: Gpu) -> None:
    (x,) = on_gpu(small(4))
    recorder = CupyDevice(0).recorder()
    for _ in range(3):
        x[...] = x + 1.0  # in the current stream; the step runs in its own
        y, _ = recorder.run(lambda: x * 2.0)
        x[...] = y + x
    y = recorder.record(lambda: x * 2.0)
    x[...] = x + 1.0
    recorder.replay()
    assert np.array_equal(y.get(), 2 * x.get())


def test_what_cannot_be_recorded_is_named(gpu: Gpu) -> None:
    x, w = on_gpu(small(1, 3, 8, 8), small(4, 3, 3, 3))
    host = Host(CupyDevice(0))
    recorder = host.device.recorder()
    with pytest.raises(CaptureError, match="4096 bytes would have to be allocated"):
        recorder.record(lambda: host.device.alloc((1024,), np.float32))
    with pytest.raises(CaptureError, match=r"conv2d_fprop_direct.* would have to be loaded while a graph is captured"):
        recorder.record(lambda: host.device.load(next(iter(host.sources.of("conv2d_fprop_direct").values()))))
    with pytest.raises(CaptureError, match=r"the step cannot be captured: item: .* belongs behind the step"):
        recorder.record(lambda: x[0, 0, 0, 0].item())
    assert not gpu.stream.is_capturing()
    assert float(w[0, 0, 0, 0]) == -3.0
    assert issubclass(CaptureRefused, RuntimeError)
