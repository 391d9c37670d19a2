"""Seeded bugs: small edits of a kernel source or of the host code, and the nets that must catch them.

The nets are the simulator with threads ascending, descending and shuffled, and the PTX interpreter; a net catches a bug
by a wrong result or by reporting a fault.  Each family of kernels lists its bugs in a file of its own (bugs_*.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device import Argument, Device, Extent
from pycnn.backends.cuda.device_sim import SimDevice, SimulationError
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import Sources, installed
from pycnn.shape import Problem
from pycnn.testing import exact_operands, oracle, run
from pycnn.testing.check import laid_out
from pycnn.testing.ptx import PtxDevice, PtxError
from pycnn.testing.regimes import dtype_of

NETS = ("forward", "reverse", "random", "ptx")


class Case(Protocol):
    """Something to compute, on which every backend that is right agrees bit for bit."""

    source: str  # the file of the kernel that it runs, or the files of several

    def results(self, backend: Any) -> list[np.ndarray]:
        """What `backend` makes of it."""


@runtime_checkable
class Elsewhere(Protocol):
    """A case that has a kernel of its own, which includes files of kernels/, and an arch for the PTX interpreter."""

    arch: str

    def beside(self, kernels: Sources) -> Sources:
        """Its kernel and what that includes."""


class Convolution(NamedTuple):
    """A convolution by one algorithm, on integers."""

    algo: str
    problem: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """The pass's one result."""
        problem = Problem.parse(self.problem)
        operands = exact_operands(problem, self.algo)
        if backend is reference:
            return [oracle(problem, operands).astype(dtype_of(problem))]  # rounded once
        return [run(backend, problem, laid_out(problem, operands), self.algo)]


Change = Callable[[Extent, Extent, int, list[Argument]], tuple[Extent, Extent, int, list[Argument]]]


class InKernel(NamedTuple):
    """The first `before` in a file of kernels/ becomes `after`."""

    file: str
    before: str
    after: str
    case: Case

    def verdicts(self, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
        """What each net says of it."""
        kernels = installed().folder
        for path in kernels.rglob("*.*"):  # all: a plan may launch kernels of several sources
            text = path.read_text()
            if path == kernels / self.file:
                assert self.before in text, f"{self.file} no longer has the code that is changed here: {self.before!r}"
                text = text.replace(self.before, self.after, 1)
            copy = folder / path.relative_to(kernels)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(text)
        return _verdicts(self.case, Sources(folder))


class InLaunch(NamedTuple):
    """Every launch's (grid, block, shared, arguments) goes through `change`."""

    change: Change
    case: Case

    def verdicts(self, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
        """What each net says of it."""
        return _verdicts(self.case, installed(), self.change)


class InHost(NamedTuple):
    """A function of the host code, ``module.name``, becomes change(function)."""

    function: str
    change: Callable[[Any], Any]
    case: Case

    def verdicts(self, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
        """What each net says of it."""
        module, _, name = self.function.rpartition(".")
        original = getattr(importlib.import_module(module), name)
        patch.setattr(self.function, self.change(original))
        return _verdicts(self.case, installed())


Bug = InKernel | InLaunch | InHost


class Tampered:
    """A device whose launches are changed on the way."""

    def __init__(self, device: Device, change: Change) -> None:
        self._device = device
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, kernel: Any, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        self._device.launch(kernel, *self._change(grid, block, shared, list(arguments)))


def verdict(net: str, sources: Sources, case: Case, change: Change | None = None) -> str:
    """How a net sees the code: "right", "wrong" (result), or "fault"."""
    place: Device
    arch = "sm_90a"  # whose PTX holds the inline assembly
    if isinstance(case, Elsewhere):
        sources, arch = case.beside(sources), case.arch
    if net == "ptx":
        place = PtxDevice(arch, sources, patience=60_000)
    else:
        place = SimDevice(order=net, seed=3, sources=sources, options=("-Wno-error",), patience=1)
    host = Host(Tampered(place, change) if change else place, sources)  # type: ignore[arg-type]
    try:
        found = case.results(Simulated(host))
    except (SimulationError, PtxError):
        return "fault"
    pairs = zip(found, case.results(reference), strict=True)
    return "right" if all(np.array_equal(*pair, equal_nan=True) for pair in pairs) else "wrong"


def _verdicts(case: Case, sources: Sources, change: Change | None = None) -> dict[str, str]:
    return {net: verdict(net, sources, case, change) for net in NETS}


def grid_too_small(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    """One block fewer."""
    return (grid[0] - 1, 1, 1), block, shared, arguments


def block_too_small(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    """Half of the threads."""
    return grid, (block[0] // 2, 1, 1), shared, arguments


def swapped(one: int, other: int) -> Change:
    """Two arguments change places."""

    def change(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
        arguments[one], arguments[other] = arguments[other], arguments[one]
        return grid, block, shared, arguments

    return change
