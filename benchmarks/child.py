"""A module of this checkout in a process of its own, for so long at most."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

__all__ = ["ended"]


def ended(command: list[str], seconds: float | None) -> subprocess.CompletedProcess[str]:
    """What a command in the checkout's folder has said, and its status, once it has ended.

    Raises subprocess.TimeoutExpired after so many seconds, when it and all that it has started are killed.
    """
    folder = Path(__file__).resolve().parents[1]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, process_group=0, **streams) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:  # Ctrl-C, too, reaches this process alone
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
