"""What one eager call on a GPU costs the host, in microseconds: ``python -m benchmarks.host_cost``.

Everything of a call runs but the GPU's part: the public function, the checks, the plan, the packing of arguments.  The
driver is a stand-in that does nothing and CuPy's arrays are stand-ins without memory, so the figure is the cost of
pycnn's own Python.  Beside it, where torch is installed, its CPU call on the same small arrays, computing included.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

import pycnn
from pycnn.jit import cubin, nvrtc

CALLS = 2000
REPEATS = 5


class _Flags:
    c_contiguous = True


class _Data:
    device_id, ptr = 0, 1 << 32


class ndarray:
    """An array of CuPy's that has everything but memory."""

    flags, data = _Flags, _Data

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.ndim, self.base = len(shape), None

    @property
    def size(self) -> int:
        """Elements."""
        size = 1
        for each in self.shape:
            size *= each
        return size

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of C order."""
        step, found = self.dtype.itemsize, []
        for each in reversed(self.shape):
            found.append(step)
            step *= each
        return tuple(reversed(found))

    def __getitem__(self, part: slice) -> ndarray:
        """The first elements of a flat array."""
        return ndarray((part.stop,), self.dtype)

    def reshape(self, *shape: Any) -> ndarray:
        """Another shape."""
        return ndarray(shape[0] if isinstance(shape[0], tuple) else shape, self.dtype)


ndarray.__module__ = "cupy"


class _Stream:
    ptr = 0

    def is_capturing(self) -> bool:
        return False


class _Device:
    compute_capability = "90"

    def __init__(self, number: int) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


@contextmanager
def null_gpu() -> Iterator[None]:
    """A CuPy whose driver does nothing, in place of the real one."""
    module: Any = ModuleType("cupy")
    module.ndarray, module.empty = ndarray, ndarray
    stream, kernel = _Stream(), SimpleNamespace(ptr=1)
    module.cuda = SimpleNamespace(
        Device=_Device,
        function=SimpleNamespace(
            Module=lambda: SimpleNamespace(load=lambda image: None, get_function=lambda n: kernel)
        ),
        get_current_stream=lambda: stream,
        driver=SimpleNamespace(launchKernel=lambda *given: None, funcSetAttribute=lambda *given: None),
        runtime=SimpleNamespace(
            getDevice=lambda: 0,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda number: {"name": b"none"},
            deviceGetAttribute=lambda attribute, number: 1,
            memGetInfo=lambda: None,
            CUDARuntimeError=RuntimeError,
        ),
    )
    from pycnn.backends.cuda import bound

    compiled = SimpleNamespace(read_bytes=lambda: b"")
    with (
        mock.patch.dict(sys.modules, {"cupy": module}),
        mock.patch.dict(bound._hosts, clear=True),
        mock.patch.object(nvrtc, "compile_cubin", return_value=compiled),
        mock.patch.object(cubin.Cubin, "read", return_value=SimpleNamespace(entry="")),
    ):
        yield


def calls() -> dict[str, tuple[Callable[[], Any], str]]:
    """By name: our call on the stand-ins, and torch's, an expression in its variables."""
    ops = pycnn.ops

    def array(*shape: int) -> ndarray:
        return ndarray(shape, np.float32)

    x, w, b, c = array(1, 8, 8, 8), array(8, 8, 3, 3), array(8), array(8)
    m, f = array(4, 16), array(8, 16)
    tx, tw = pycnn.Tensor(x), pycnn.Tensor(w, requires_grad=True)
    return {
        "relu": (lambda: ops.relu(x), "torch.relu(x)"),
        "add": (lambda: ops.add(x, x), "torch.add(x, x)"),
        "conv2d 3x3": (lambda: ops.conv2d_fprop(x, w, b, 1, 1), "F.conv2d(x, w, b, 1, 1)"),
        "conv2d 3x3, recorded": (lambda: pycnn.conv2d(tx, tw, b, padding=1), "F.conv2d(x, wr, b, 1, 1)"),
        "conv2d dgrad": (
            lambda: ops.conv2d_dgrad(x, w, (1, 8, 8, 8), 1, 1),
            "torch.nn.grad.conv2d_input((1, 8, 8, 8), w, x, 1, 1)",
        ),
        "conv2d wgrad": (
            lambda: ops.conv2d_wgrad(x, x, (8, 8, 3, 3), 1, 1),
            "torch.nn.grad.conv2d_weight(x, (8, 8, 3, 3), x, 1, 1)",
        ),
        "max_pool2d": (lambda: ops.max_pool2d(x, 2), "F.max_pool2d(x, 2)"),
        "batch_norm, inference": (lambda: ops.batch_norm_eval(x, b, c, b, c), "F.batch_norm(x, b, c, b, c)"),
        "linear": (lambda: ops.linear(m, f, b), "F.linear(m, f, b)"),
        "softmax": (lambda: ops.softmax(m), "torch.softmax(m, -1)"),
    }


def measure(calls_each: int = CALLS) -> dict[str, tuple[float, float | None]]:
    """Microseconds of each call: ours, and torch's or None."""
    torch, contest = _torch(), calls()
    ours, theirs = {}, {}
    with null_gpu():
        for name, (call, _) in contest.items():
            ours[name] = _best(call, calls_each)
    if torch is not None:
        for name, (_, expression) in contest.items():
            theirs[name] = _best(eval(f"lambda: {expression}", torch), calls_each)
    return {name: (each, theirs.get(name)) for name, each in ours.items()}


def _torch() -> dict[str, Any] | None:
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    x, w, b, m, f = (torch.ones(*size) for size in ((1, 8, 8, 8), (8, 8, 3, 3), (8,), (4, 16), (8, 16)))
    arrays = {"x": x, "w": w, "wr": w.clone().requires_grad_(), "b": b, "c": b, "m": m, "f": f}
    return {"torch": torch, "F": torch.nn.functional, **arrays}


def _best(call: Callable[[], Any], count: int) -> float:
    call()
    return min(timeit.repeat(call, number=count, repeat=REPEATS)) / count * 1e6


def main() -> None:
    """Print the table."""
    print(f"{'call':24} {'pycnn, host':>12} {'torch, CPU':>12}   microseconds")
    for name, (ours, theirs) in measure().items():
        print(f"{name:24} {ours:12.1f} {'' if theirs is None else f'{theirs:12.1f}'}")


if __name__ == "__main__":
    main()
