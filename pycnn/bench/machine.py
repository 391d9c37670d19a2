"""The ceilings of this machine, measured: what the shares and the roofline divide by."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pycnn import __version__, _cpu, get_isa, get_num_threads, set_num_threads
from pycnn._extras import extra
from pycnn.machine import processor

__all__ = ["Machine", "measure", "set_threads"]


@dataclass(frozen=True)
class Machine:
    """This machine and its measured limits.

    Attributes:
        fma_peak: FLOP/s of float32 multiply-adds held in registers, all threads: the most seen in half a second.
        bandwidth: bytes per second of a large copy, read plus written.
    """

    processor: str
    cores: int
    threads: int
    isa: str
    fma_peak: float
    bandwidth: float
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def measure() -> Machine:
    """Measure the ceilings with the threads in force, in about a second."""
    end = time.perf_counter() + 0.5  # long enough for a moment in which nobody else has a core
    peak = _cpu.measure_fma_peak()
    while time.perf_counter() < end:
        peak = max(peak, _cpu.measure_fma_peak())
    return Machine(
        processor(),
        os.cpu_count() or 1,
        get_num_threads(),
        get_isa(),
        peak,
        _bandwidth(),
        {"pycnn": __version__, "numpy": np.__version__, "python": platform.python_version()},
    )


def set_threads(threads: int | None) -> int:
    """Set the engine's threads (None: as they are) and leave this process's BLAS one; returns the engine's.

    BLAS computes what is exact here, not what is timed, and its threads would keep a core busy for 100 ms after that.

    Raises ValueError for a number that `pycnn.set_num_threads` does not take.
    """
    with extra("train", "threadpoolctl"):
        import threadpoolctl

    if threads is not None:
        set_num_threads(threads)
    threadpoolctl.threadpool_limits(1, user_api="blas")
    return get_num_threads()


def _bandwidth() -> float:
    source = np.ones(64 << 20, np.uint8)  # beyond any cache
    target = np.zeros_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best
