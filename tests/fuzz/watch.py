"""One input through one reader: what it may raise, how long it may take, how much memory it may use."""

from __future__ import annotations

import faulthandler
import os
import tempfile
from pathlib import Path

from pycnn.bench import memory

from .targets import Target

EXTRA = 64 << 20  # bytes beside four times the file


def _processor_time() -> float:
    """Of this process and those it has waited for: whatever else the machine does is no input's doing."""
    return sum(os.times()[:4])


class Finding(AssertionError):
    """An input on which a reader did what it must not; the message says what."""


class Watch:
    """Gives inputs to a reader, in a folder that goes with it.

    A reader gives a result or raises one of the exceptions that refuse a file.  What takes a minute by the clock ends
    the process, with a traceback.

    Args:
        target: the reader.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._folder = tempfile.TemporaryDirectory()
        self._target.read(self._write(self._target.seeds()[0]))  # imports are no input's doing

    def __call__(self, content: bytes) -> bool:
        """Whether the reader took the input.  Raises Finding."""
        path = self._write(content)
        memory.forget_peak()
        before, start = memory.resident(), _processor_time()
        faulthandler.dump_traceback_later(60, exit=True)
        try:
            self._target.read(path)
            taken = True
        except Exception as error:  # whatever it is: that it is another one is what is looked for
            raised = {base.__name__ for base in type(error).__mro__}
            if raised.isdisjoint(self._target.refuses):
                allowed = " or ".join(self._target.refuses)
                raise Finding(f"{type(error).__name__}: {error}, where {allowed} is what a reader raises") from error
            taken = False
        finally:
            faulthandler.cancel_dump_traceback_later()
        seconds, used = _processor_time() - start, memory.peak() - before
        if seconds > self._target.seconds:
            raise Finding(f"{seconds:.1f} s for {len(content)} bytes")
        if used > 4 * len(content) + EXTRA:
            raise Finding(f"{used >> 20} MiB for {len(content)} bytes")
        return taken

    def _write(self, content: bytes) -> Path:
        path = Path(self._folder.name, f"input{self._target.suffix}")
        path.write_bytes(content)
        return path
