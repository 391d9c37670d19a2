"""A peer's process, both ends of it: the framework computes there, and stands still while others have their turn.

Threads of OpenMP, OpenBLAS and onnxruntime go on looking for work, a core each, for 10 to 100 milliseconds after a
call.  A peer is therefore stopped (SIGSTOP) between its turns, with all its threads: nobody has to wait until they
sleep.  It lives in a process group of its own, so that Ctrl-C is the parent's affair alone, and dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np

from pycnn.bench import memory
from pycnn.bench.peers import Factory
from pycnn.bench.tasks import Call, Work
from pycnn.bench.timing import timed_slice

__all__ = ["PeerProcess", "peer_processes", "serve"]

_FAREWELL = 2.0  # seconds from a process's last word, or the end of its line, to its own end

# ------------------------------------------------------------------------------------------------------ our end


class PeerProcess:
    """A framework in a process of its own, as one that can be asked and waited for.

    Args:
        name: what to call it in errors.
        factory: makes it there, from its number of threads; importable by name.
        threads: that number.
        environment: variables that it is to have besides those of this process.

    Every method raises ChildProcessError, in one sentence, if the framework raised or the process ended.
    """

    def __init__(self, name: str, factory: Factory, threads: int, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._link, theirs = Pipe()
        # The module search path as it is here, which no environment variable can say.
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from pycnn.bench.processes import serve; "
            f"serve({theirs.fileno()}, {os.getpid()})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the table's place
            pass_fds=[theirs.fileno()],
            env={**os.environ, **(environment or {})},
            process_group=0,
        )
        theirs.close()
        try:
            self._ask("start", factory, threads)
        except BaseException:
            self.close()
            raise

    def prepare(self, task: Work) -> list[str]:
        """Hand over the next task; the names of this peer's ways to do it, none where it cannot."""
        return self._ask("prepare", task)

    def result(self, name: str) -> np.ndarray:
        """What the way `name` returns."""
        return self._ask("compute", name)

    def slice(self, name: str, seconds: float, untimed: float) -> list[float]:
        """One turn of the way `name`, timed there; see `timed_slice`."""
        return self._ask("time", name, seconds, untimed)

    def once(self, name: str) -> float:
        """The seconds of one call of the way `name`, with nothing before it."""
        return self._ask("once", name)

    def memory(self, task: Work) -> dict[str, int]:
        """The most bytes that the task takes, prepared and computed three times, beyond what was there before, by way.

        For a peer of one way; with several the figure is of all together.
        """
        return self._ask("memory", task)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._link.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, verb: str, *arguments: Any) -> Any:
        self._process.send_signal(signal.SIGCONT)
        try:
            self._link.send((verb, *arguments))
            done, answer = self._link.recv()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_FAREWELL)
            self._process.kill()
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise ChildProcessError(f"the process of {self.name} ended ({how}) when asked to {verb}") from None
        if not done:
            raise ChildProcessError(f"{self.name} could not {verb}: {answer}")
        self._process.send_signal(signal.SIGSTOP)
        return answer


@contextmanager
def peer_processes(factories: Mapping[str, Factory], threads: int) -> Iterator[list[PeerProcess]]:
    """A running process for each factory, until the end of the ``with`` block."""
    with ExitStack() as stack:
        yield [stack.enter_context(PeerProcess(name, factory, threads)) for name, factory in factories.items()]


# ---------------------------------------------------------------------------------------------------- their end

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_RUNS = 3  # after which memory grows no more


def serve(line: int, parent: int) -> None:
    """Run the peer's process: answer what comes in on file descriptor `line` until it closes or `parent` ends."""
    # By the kernel's hand: a stopped process cannot see for itself that nobody is left.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    link = Connection(line)

    def last_word(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        first = next(iter(str(error).splitlines()), "")
        link.send((False, f"{kind.__name__}: {first}"))

    sys.excepthook = last_word  # whatever ends this process is told to the parent instead of the terminal
    with suppress(EOFError, ConnectionError):  # the parent has ended
        _answer(link)


def _answer(link: Connection) -> None:
    _, factory, threads = link.recv()
    peer = factory(threads)
    link.send((True, None))
    calls: dict[str, Call] = {}
    while True:
        verb, first, *rest = link.recv()
        if verb == "prepare":
            calls = {}  # the last task's memory is not in the way
            calls = peer.contestants(first)
            link.send((True, list(calls)))
        elif verb == "once":
            start = time.perf_counter()
            calls[first]()
            link.send((True, time.perf_counter() - start))
        elif verb == "memory":
            before = memory.resident()
            memory.forget_peak()
            calls = peer.contestants(first)
            for call in calls.values():
                for _ in range(_RUNS):
                    call()
            most = memory.peak() - before
            link.send((True, dict.fromkeys(calls, most)))
        elif verb == "compute":
            link.send((True, np.asarray(calls[first]())))
        else:
            own = getattr(calls[first], "slice", None)  # a GPU's calls are not timed by this process's clock
            link.send((True, timed_slice(calls[first], *rest) if own is None else own(*rest)))
