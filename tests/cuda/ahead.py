"""Compiles, one after the other, what the tests are going to ask for: a process beside them, on an idle core.

What it leaves in the cache is what the tests would have compiled themselves; whoever is first, the other finds it.
"""

from __future__ import annotations

import contextlib
import os

from pycnn.jit import MissingToolError, host, nvrtc
from pycnn.jit.errors import CompileError
from pycnn.jit.sources import installed

FAST = ("sm_75", "sm_90a")  # what is compiled for without --slow: the oldest, and Hopper


def main() -> None:
    """The simulator's library and the cubins of every instance."""
    os.nice(5)
    for instance in installed().instances:
        with contextlib.suppress(MissingToolError, CompileError):  # the tests say so themselves
            host.build(instance)
        with contextlib.suppress(MissingToolError, CompileError):
            for arch in FAST:
                if arch in instance.archs and nvrtc.supports(arch):
                    nvrtc.compile_cubin(instance, arch)


if __name__ == "__main__":
    main()
