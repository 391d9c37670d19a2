"""What the CPU engine runs on: how many threads, which instruction set."""

from __future__ import annotations

import os

from pycnn import _cpu
from pycnn.shape import whole

__all__ = ["get_isa", "get_num_threads", "set_isa", "set_num_threads"]

_ISAS = ("baseline", "avx2", "avx512")
_MOST_THREADS = 1024

_forced = os.environ.get("PYCNN_ISA", "auto")
if not _cpu.set_isa(_forced):
    raise ImportError(f"PYCNN_ISA must be auto or one of {', '.join(_ISAS)} that this machine runs, got {_forced!r}")


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
    if count > _MOST_THREADS:
        raise ValueError(f"n must be at most {_MOST_THREADS}, got {count}")
    _cpu.set_num_threads(count)


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
    if name not in (*_ISAS, "auto"):
        raise ValueError(f"name must be one of {', '.join(_ISAS)} or auto, got {name!r}")
    if not _cpu.set_isa(name):
        raise ValueError(f"this machine cannot run {name} kernels")


def get_isa() -> str:
    """The instruction set whose kernels the CPU engine uses: "avx512", "avx2" or "baseline"."""
    return _cpu.isa()
