"""Whose algorithms are measured: the CPU engine's, with what instruction set and threads are in force, or a GPU's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np

from pycnn import _cpu, algorithms, backends, costs, machine, tuning
from pycnn.bench.cases import conv_call
from pycnn.bench.gpu import event_slice, on_device
from pycnn.bench.tasks import Task
from pycnn.bench.timing import timed_slice
from pycnn.shape import Conv2dShape
from pycnn.tuning import Identity, Table

__all__ = ["Cpu", "Cuda", "Slice", "Subject", "choice"]

Slice = Callable[[float, float], list[float]]  # as `pycnn.bench.timing.Racer` has it

_FLOAT32 = np.dtype(np.float32)
_BUSY = 0.85  # of the most multiply-adds a second that were seen: below that somebody else has a core
_PATIENCE = 0.2  # of the time that is spent measuring, for which to wait for them
_PAUSE = 0.05


class Subject(Protocol):
    """Somewhere convolutions run.

    Attributes:
        name: the backend's.
        identity: what a measurement here holds for.
        threads: how many work.
        waits: how often somebody else was waited for.
    """

    name: str
    identity: Identity
    threads: int
    waits: int

    def works(self, operator: str, shape: Conv2dShape) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """What `auto` chooses among, by name: whose coefficients it has, and its work."""

    def able(self, operator: str, shape: Conv2dShape) -> list[str]:
        """Every algorithm that can run the problem."""

    def slices(self, operator: str, shape: Conv2dShape, names: list[str]) -> dict[str, Slice]:
        """A turn of each of some algorithms, on operands that they share."""

    def wait(self) -> None:
        """Come back when nobody else uses the machine, or when there has been waiting enough."""


def choice(subject: Subject, table: Table, operator: str, shape: Conv2dShape) -> str:
    """What `auto` takes by a table."""
    with tuning.use(table):
        name: str = backends.get(subject.name).conv2d_choose(operator, shape, _FLOAT32)[0]
        return name


def _task(operator: str, shape: Conv2dShape) -> Task:
    rng = np.random.default_rng(0)
    shapes = {"fprop": (shape.x_shape, shape.w_shape), "dgrad": (shape.y_shape, shape.w_shape)}
    left, right = shapes.get(operator, (shape.y_shape, shape.x_shape))
    return Task("conv2d", operator, shape, (_values(rng, left), _values(rng, right)))


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of both signs: cheaper to draw than normal ones, and no kernel can tell."""
    return rng.random(shape, np.float32) - np.float32(0.5)


class Cpu:
    """The native engine."""

    name = "cpu"

    def __init__(self) -> None:
        self.identity = tuning.of_cpu()
        self.threads = machine.get_num_threads()
        self.waits = 0
        self._peak = 0.0
        self._born = time.perf_counter()
        self._waited = 0.0

    def works(self, operator: str, shape: Conv2dShape) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """See `Subject`."""
        count = partial(costs.work, size=_FLOAT32.itemsize, isa=self.identity.kind, threads=self.threads)
        return {name: count(name, operator, shape) for name in algorithms.eligible(operator, shape, "float32")}

    def able(self, operator: str, shape: Conv2dShape) -> list[str]:
        """See `Subject`."""
        return [name for name, reason in algorithms.candidates(operator, shape, "float32") if reason is None]

    def slices(self, operator: str, shape: Conv2dShape, names: list[str]) -> dict[str, Slice]:
        """See `Subject`."""
        task = _task(operator, shape)
        return {name: partial(timed_slice, conv_call(task, name)) for name in names}

    def wait(self) -> None:
        """See `Subject`."""
        start = time.perf_counter()
        if self._alone():
            return
        self.waits += 1
        while self._waited + time.perf_counter() - start < _PATIENCE * (time.perf_counter() - self._born):
            time.sleep(_PAUSE)
            if self._alone():
                break
        self._waited += time.perf_counter() - start

    def _alone(self) -> bool:
        """Multiply-adds in registers tell whether all cores are ours."""
        for _ in range(2):  # the first may find the threads asleep
            rate = _cpu.measure_fma_peak()
            self._peak = max(self._peak, rate)
            if rate >= _BUSY * self._peak:
                return True
        return False


class Cuda:
    """The current GPU.  Raises MissingToolError if there is none."""

    name = "cuda"

    def __init__(self) -> None:
        self._host: Any = backends.get("cuda").host_on()
        self.identity = self._host.identity
        self.threads = 1
        self.waits = 0

    def works(self, operator: str, shape: Conv2dShape) -> Mapping[str, tuple[str, Mapping[str, float]]]:
        """See `Subject`."""
        found: Mapping[str, tuple[str, Mapping[str, float]]] = self._host.conv2d_works(operator, shape, _FLOAT32)
        return found

    def able(self, operator: str, shape: Conv2dShape) -> list[str]:
        """See `Subject`."""
        return [name for name, reason, *_ in self._host.conv2d_table(operator, shape, _FLOAT32) if reason is None]

    def slices(self, operator: str, shape: Conv2dShape, names: list[str]) -> dict[str, Slice]:
        """See `Subject`."""
        task = on_device(_task(operator, shape))
        return {name: event_slice(conv_call(task, name)) for name in names}

    def wait(self) -> None:
        """See `Subject`: nobody else is expected on a GPU."""
