"""What the CPU engine runs on: how many threads, which instruction set."""

from __future__ import annotations

import os
import platform
import re
from functools import lru_cache

from pycnn import _cpu
from pycnn.shape import whole

__all__ = ["ISAS", "MOST_THREADS", "get_isa", "get_num_threads", "processor", "set_isa", "set_num_threads"]

MOST_THREADS = 1024
ISAS = ("baseline", "avx2", "avx512")

_forced = os.environ.get("PYCNN_ISA", "auto")
if not _cpu.set_isa(_forced):
    raise ValueError(f"PYCNN_ISA must be auto or one of {', '.join(ISAS)} that this machine runs, got {_forced!r}")


def _default_threads() -> int:
    """What the environment asks for; 0 where it asks for nothing."""
    ours = os.environ.get("PYCNN_NUM_THREADS")
    if ours is not None:
        if re.fullmatch("[0-9]{1,4}", ours) is None or not 1 <= int(ours) <= MOST_THREADS:
            raise ValueError(f"PYCNN_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}, got {ours!r}")
        return int(ours)
    # OpenMP's: a list, by level of nesting, of which the first is meant.  A bad one is OpenMP's to complain about.
    found = re.match(r"\s*0*([1-9][0-9]{0,8})\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))
    return min(int(found[1]), MOST_THREADS) if found else 0


_cpu.set_num_threads(_default_threads())


def set_num_threads(n: int) -> None:
    """Let the CPU engine use `n` threads from now on, in every Python thread.

    The results do not depend on it, to the bit.  At first it is PYCNN_NUM_THREADS, else OMP_NUM_THREADS, else the
    CPUs that affinity and the cgroup leave to this process.

    Args:
        n: 1 to 1024, or 0 to return to that default.

    Raises:
        TypeError: not an int.  ValueError: out of range.

    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    """
    count = whole("n", n, 0)
    if count > MOST_THREADS:
        raise ValueError(f"n must be at most {MOST_THREADS}, got {count}")
    _cpu.set_num_threads(count or _default_threads())


def get_num_threads() -> int:
    """How many threads the CPU engine uses."""
    return _cpu.num_threads()


def set_isa(name: str) -> None:
    """Make the CPU engine use the kernels of one instruction set.

    At first it is PYCNN_ISA, else the best this machine has.  Results of different instruction sets differ in rounding.

    Args:
        name: "avx512", "avx2", "baseline" (SSE2 on x86-64, NEON on aarch64) or "auto", the best.

    Raises:
        ValueError: an unknown name, or one this machine cannot run.

    >>> before = get_isa()
    >>> set_isa("baseline")
    >>> get_isa()
    'baseline'
    >>> set_isa(before)
    """
    if name not in (*ISAS, "auto"):
        raise ValueError(f"name must be one of {', '.join(ISAS)} or auto, got {name!r}")
    if not _cpu.set_isa(name):
        raise ValueError(f"this machine cannot run {name} kernels")


def get_isa() -> str:
    """The instruction set whose kernels the CPU engine uses: "avx512", "avx2" or "baseline"."""
    return _cpu.isa()


@lru_cache(maxsize=1)
def processor() -> str:
    """What the processor calls itself."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
