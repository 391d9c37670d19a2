"""Arrays of other libraries on a GPU: read where they lie, in the order of the streams, and handed back as theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import played_arrays
import played_dlpack
import pytest
from played import Gpu, RaceError, playing

import pycnn
from pycnn import ops

pytestmark = [pytest.mark.nvrtc, pytest.mark.simulator]

RNG = np.random.default_rng(0)
X = RNG.integers(-4, 5, (2, 3, 6, 6)).astype(np.float32)
W = RNG.integers(-4, 5, (4, 3, 3, 3)).astype(np.float32)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with playing(2) as played:
        yield played


def pointer(array: Any) -> int:
    return int(array.data.ptr)


class Foreign:
    """A library's array on a GPU, which that library's own stream computes."""

    def __init__(self, inner: Any, stream: Any) -> None:
        self.inner, self.stream = inner, stream
        with stream:
            inner.fill(2.0)  # what the consumer has to wait for

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.inner.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        with self.stream:
            return self.inner.__dlpack__(**options)


def test_a_foreign_array_is_read_where_it_lies_once_its_stream_is_waited_for(gpu: Gpu) -> None:
    inner, stream = gpu.module.empty((2, 3), np.float32), gpu.module.cuda.Stream(non_blocking=True)
    gpu.module.cuda.get_current_stream().synchronize()
    foreign = Foreign(inner, stream)
    with pytest.raises(RaceError):
        ops.relu(inner)  # the same memory, and nobody waits
    tensor = pycnn.from_dlpack(foreign)
    assert pointer(tensor.data) == pointer(inner)
    assert tensor.device == "cuda:0"
    y = ops.relu(foreign)
    assert type(y).__module__ == "cupy"
    assert y.get().tolist() == inner.get().tolist()


def test_a_consumer_waits_for_what_is_computed(gpu: Gpu) -> None:
    work, theirs = (gpu.module.cuda.Stream(non_blocking=True) for _ in range(2))
    with work:
        tensor = pycnn.Tensor(gpu.module.zeros((4,), np.float32))
        tensor += 3
    with theirs, pytest.raises(RaceError):
        tensor.data.get()
    with work:
        capsule = tensor.__dlpack__(stream=theirs.ptr, max_version=(1, 0))
    assert b"dltensor_versioned" in repr(capsule).encode()
    with theirs:
        assert tensor.data.get().tolist() == [3] * 4


def test_minus_one_asks_for_no_order(gpu: Gpu) -> None:
    work, theirs = (gpu.module.cuda.Stream(non_blocking=True) for _ in range(2))
    with work:
        tensor = pycnn.Tensor(gpu.module.zeros((4,), np.float32))
        tensor.__dlpack__(stream=-1)
    with theirs, pytest.raises(RaceError):
        tensor.data.get()


def test_bfloat16_crosses_as_such(gpu: Gpu) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    mine = pycnn.Tensor(gpu.module.asarray(np.arange(6, dtype=np.float32).astype(bfloat16)))
    assert mine.__dlpack_device__() == (2, 0)
    back = pycnn.from_dlpack(mine)
    assert back.dtype == bfloat16
    assert pointer(back.data) == pointer(mine.data)


def test_what_only_has_the_cuda_array_interface(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = gpu.module.asarray(X)
    numba_array = type("DeviceNDArray", (), {"__module__": "numba.cuda.cudadrv.devicearray"})()
    numba_array.__cuda_array_interface__ = inner.__cuda_array_interface__
    wrapped: list[Any] = []
    cuda = SimpleNamespace(as_cuda_array=lambda array: wrapped.append(array) or "numba's")
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(cuda=cuda))
    assert ops.relu(numba_array) == "numba's"
    assert np.array_equal(wrapped[0].get(), np.maximum(X, 0))
    other = SimpleNamespace(__cuda_array_interface__=inner.__cuda_array_interface__)
    assert np.array_equal(ops.relu(other).get(), np.maximum(X, 0))
    assert pointer(pycnn.Tensor(other).data) == pointer(inner)


def test_arrays_of_two_places_do_not_mix(gpu: Gpu) -> None:
    here = Foreign(gpu.module.empty(W.shape, np.float32), gpu.stream)
    host = type("Host", (), {"__dlpack__": X.__dlpack__, "__dlpack_device__": X.__dlpack_device__})()
    with pytest.raises(TypeError, match="on one device, got x: cpu, w: cuda:0"):
        ops.conv2d_fprop(host, here)
    with gpu.module.cuda.Device(1):
        there = Foreign(gpu.module.empty(X.shape, np.float32), gpu.stream)
    with pytest.raises(TypeError, match="on one device, got x: cuda:1, w: cuda:0"):
        ops.conv2d_fprop(there, here)


class TestTorch:
    """torch's CUDA tensors, played: the tensors have no memory of their own, and torch's stream is one of CuPy's."""

    @pytest.fixture
    def torch(self) -> Any:
        return pytest.importorskip("torch")  # before CuPy is played: as torch is imported it looks for the real one

    @pytest.fixture
    def on_gpu(self, torch: Any, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Any:
        stream = gpu.module.cuda.Stream(non_blocking=True)

        class Played(torch.Tensor):  # type: ignore[misc]
            inner: Any

            @staticmethod
            def __new__(cls, inner: Any) -> Any:
                made = torch.Tensor._make_wrapper_subclass(
                    cls,
                    inner.shape,
                    [step // inner.itemsize for step in inner.strides],
                    dtype=getattr(torch, str(inner.dtype)),
                    device=f"cuda:{inner.device.id}",
                )
                made.inner = inner
                return made

            def __dlpack__(self, *, stream: Any = -1, **options: Any) -> Any:
                with torch_stream:
                    return self.inner.__dlpack__(stream=stream, **options)

            def __dlpack_device__(self) -> Any:
                return self.inner.__dlpack_device__()

            def detach(self) -> Any:
                return self

            def resolve_neg(self) -> Any:
                return self

            @classmethod
            def __torch_dispatch__(cls, function: Any, *given: Any) -> Any:
                raise AssertionError(f"{function} would be computed by torch")

        torch_stream = stream

        def received(array: Any) -> Any:
            made = array.__dlpack__(stream=torch_stream.ptr, max_version=(1, 0))
            return Played(played_arrays.array_at(played_dlpack.view(made), array.__dlpack_device__()[1]))

        monkeypatch.setattr(torch, "from_dlpack", received)

        def on_gpu(array: np.ndarray) -> Any:
            with torch_stream:
                return Played(gpu.module.asarray(array))

        on_gpu.stream = stream  # type: ignore[attr-defined]
        return on_gpu

    def test_cuda_tensors_come_back_as_such(self, on_gpu: Any) -> None:
        x, w = on_gpu(X), on_gpu(W)
        y = ops.conv2d_fprop(x, w, padding=1)
        assert type(y) is type(x)
        assert str(y.device) == "cuda:0"
        with on_gpu.stream:  # in which torch goes on
            assert np.array_equal(y.inner.get(), ops.conv2d_fprop(X, W, padding=1))

    def test_they_are_not_copied(self, on_gpu: Any) -> None:
        x = on_gpu(X)
        assert pointer(ops._arrays.Call(x=x).arrays[0]) == pointer(x.inner)
        assert pointer(pycnn.Tensor(x).data) == pointer(x.inner)

    def test_channels_last_stays_so(self, on_gpu: Any) -> None:
        x = on_gpu(np.ascontiguousarray(X.transpose(0, 2, 3, 1)))
        seen = type(x)(x.inner.transpose(0, 3, 1, 2))
        y = ops.relu(seen)
        assert y.inner.strides == seen.inner.strides
        with on_gpu.stream:
            assert np.array_equal(y.inner.get(), np.maximum(X, 0))

    def test_devices_are_told_apart(self, torch: Any, on_gpu: Any) -> None:
        with pytest.raises(TypeError, match="on one device, got x: cpu, w: cuda:0"):
            ops.conv2d_fprop(torch.from_numpy(X), on_gpu(W))
