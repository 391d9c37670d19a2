"""A GPU as the place of a benchmark: its ceilings, turns that are timed by CUDA events, and cuDNN through torch."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from pycnn import __version__, backends
from pycnn.arrays import parse_device, place, to_host
from pycnn.bench.machine import Machine
from pycnn.bench.peers.pytorch import Torch
from pycnn.bench.tasks import Call, Task, Work

__all__ = ["TorchCuda", "event_slice", "measure", "on_device", "result_of"]

_MOST_CALLS = 1000
_COPY = 2**28  # bytes: beyond any cache
_ESTIMATES = 3  # calls from which it is estimated how many fill a turn


def measure() -> Machine:
    """The current GPU: its peak from its multiprocessors and their clock, its bandwidth from a large copy.

    Raises MissingToolError if there is no CuPy, no driver or no GPU.
    """
    cuda = backends.get("cuda")
    about = cuda.describe()
    device = cuda.host_on().device
    source, target = (device.alloc((_COPY // 4,), np.dtype(np.float32)) for _ in range(2))
    device.fill(source, 1.0)
    seconds = min(cuda.timed(lambda: device.fill(target, source), 5))
    versions = {"pycnn": __version__, "numpy": np.__version__, "python": platform.python_version(), **about["versions"]}
    return Machine(
        about["name"], about["multiprocessors"], 1, device.arch, about["peak"], 2 * _COPY / max(seconds, 1e-9), versions
    )


def on_device(task: Task) -> Task:
    """The same task with its arrays on the current GPU."""
    device = parse_device("cuda")
    arrays = tuple(place(array, device) for array in task.arrays)
    return replace(task, arrays=arrays)


def event_slice(call: Call) -> Callable[[float, float], list[float]]:
    """A turn of `call` as `Racer` takes it: the seconds between two CUDA events around each call, not the host's."""
    timed = backends.get("cuda").timed
    return lambda seconds, untimed: _turn(lambda count: timed(call, count), seconds)


def _turn(timed: Callable[[int], list[float]], seconds: float) -> list[float]:
    """Times of so many calls that they take `seconds`; `timed(n)` starts n at once and gives the seconds of each.

    Calls that wait in the stream are timed as the GPU runs them.  One that found it idle would be timed with the host's
    launch, so nobody's calls are waited for one by one.
    """
    once = min(timed(_ESTIMATES))  # the first is cold, and not looked at
    return timed(min(max(math.ceil(seconds / max(once, 1e-6)), _ESTIMATES), _MOST_CALLS))


class TorchCuda(Torch):
    """cuDNN, in the dtype of the task, TF32 off and its benchmark mode on, through torch; convolutions only."""

    layouts: ClassVar[dict[str, str]] = {"cudnn": "contiguous_format", "cudnn_cl": "channels_last"}

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch = self._torch
        if not torch.cuda.is_available():
            raise ValueError("peer 'torch' needs a torch that was built with CUDA, and a GPU")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def contestants(self, task: Work) -> dict[str, Call]:
        """See `pycnn.bench.peers.Peer`."""
        torch = self._torch
        with torch.device("cuda"):
            found = super().contestants(task)
        return {name: _TorchCall(torch, call) for name, call in found.items()}

    def _tensor(self, array: np.ndarray) -> Any:
        return super()._tensor(array).cuda()


class _TorchCall:
    """A call on torch's GPU that gives NumPy, and is timed by events."""

    def __init__(self, torch: Any, call: Call) -> None:
        self._torch, self._call = torch, call

    def __call__(self) -> np.ndarray:
        return np.asarray(self._call().float().cpu().numpy())

    def slice(self, seconds: float, untimed: float) -> list[float]:
        """As `event_slice`."""
        return _turn(self._timed, seconds)

    def _timed(self, count: int) -> list[float]:
        cuda = self._torch.cuda
        events = [(cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)) for _ in range(count)]
        for start, end in events:
            start.record()
            self._call()
            end.record()
        cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in events]


def result_of(call: Call) -> Callable[[], np.ndarray]:
    """`call` with its result in NumPy."""
    return lambda: to_host(call())
