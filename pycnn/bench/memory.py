"""How much memory this process has, by the kernel's own count."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["forget_peak", "peak", "resident"]


def resident() -> int:
    """Bytes that are in memory now."""
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that were in memory at once since `forget_peak`, or ever."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let `peak` count from now on."""
    Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {name}")
    return 1024 * int(found[1])
