"""The evidence command on the simulator: everything but real time and real hardware."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.steps import STEPS, Size, Training, by_torch
from benchmarks.tasks import Moved
from pycnn import use_backend
from pycnn.backends.cuda import Host
from pycnn.backends.cuda.device_sim import SimDevice
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Problem
from pycnn.testing import float_operands, run
from pycnn.testing.fragments import Probe, ProbeSources

SMALL = Size("lenet5", 2, (1, 32, 32))


class Rehearsal:
    """A place for `benchmarks.evidence` that needs no GPU; its times say nothing about one."""

    def __init__(self) -> None:
        self.backend = Simulated(Host(SimDevice()))
        self.arch = self.backend.host.device.arch

    def describe(self) -> dict[str, str]:
        """What it is."""
        return {"device": "simulated device", "rehearsal": "yes", "arch": self.arch}

    def prepare(self) -> None:
        """Nothing: g++ compiles at first use."""

    def probe(self) -> Probe:
        """The wrappers by their emulation."""
        sources = ProbeSources(installed())
        return Probe(SimDevice(sources=sources), sources)

    def peaks(self) -> dict[str, Any]:
        """A simulator has none worth measuring."""
        return {"copy_gbytes": 0.0, "fma_gflops": 0.0, "gemm_tflops": {}}

    def seconds(self, problem: Problem) -> dict[str, Any]:
        """One run by the host's clock."""
        operands = float_operands(problem)
        start = time.perf_counter()
        run(self.backend, problem, operands, "auto")
        algo, _ = self.backend.conv2d_choose(problem.operator, problem.shape, problem.dtype)
        return {"algo": algo, "ours_us": 1e6 * (time.perf_counter() - start), "cudnn_us": None}

    def step(self, name: str) -> dict[str, Any]:
        """A step of a small network: ours on the simulator, uncaptured; torch's on the CPU, uncompiled."""
        step = replace(STEPS[name], captured=False, compiled=False)
        if step.peer:
            if importlib.util.find_spec("torch") is None:
                return {"skipped": "torch is not installed"}
            return by_torch(step, SMALL, "cpu")
        start = time.perf_counter()
        with use_backend("sim"):
            loss = Training(step, SMALL, "cpu")().item()
        return {"ms": 1e3 * (time.perf_counter() - start), "loss": loss}

    def bandwidth(self, moved: Moved) -> dict[str, Any]:
        """One run by the host's clock."""
        given = moved.arguments(lambda shape: np.ones(shape, np.float32))
        start = time.perf_counter()
        getattr(self.backend, moved.function)(*given)
        return {"us": 1e6 * (time.perf_counter() - start), "gbytes": 0.0}

    def sanitize(self, tool: str, part: str) -> dict[str, Any]:
        """The simulator's own fences have watched every launch."""
        return {"tool": f"simulator, for {tool}"}
