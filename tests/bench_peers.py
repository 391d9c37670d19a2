"""Peers that misbehave, for test_bench_processes.py: they are made in a process that imports this module alone."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar


class Odd:
    """Each contestant is a way to fail, or to be looked at; a task is what one of them needs to know."""

    def __init__(self, threads):
        self.threads = threads

    def contestants(self, task):
        return {
            "threads": lambda: [self.threads],
            "raises": lambda: raise_(RuntimeError("no room\nfor a long story")),
            "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "leaves": lambda: os._exit(3),
            "hangs": lambda: time.sleep(1000),
            "prints": lambda: print("in the way"),
            "ticks": lambda: Path(task).write_text(str(time.process_time())),
        }


def raise_(error):
    raise error


def cannot_import(threads):
    import a_module_that_nobody_has  # noqa: F401


def dies_at_once(threads):
    sys.exit(4)


class Spinner(Odd):
    """Its threads go on after a call, as OpenMP's do: here for ever."""

    def __init__(self, threads):
        super().__init__(threads)
        import threading

        threading.Thread(target=self.spin, daemon=True).start()

    def spin(self):
        while True:
            pass


# -- contestants of a comparison -----------------------------------------------------------------------------------


class Exact:
    """Right on convolutions, by NumPy, under the name it is known by."""

    name = "exact"

    def __init__(self, threads):
        pass

    def contestants(self, task):
        from pycnn.bench.numpy_rows import numpy_call

        call = numpy_call(task)
        return {self.name: lambda: self.spoil(call())}

    def spoil(self, y):
        return y


class Inexact(Exact):
    """Off by two thousandths of the largest value."""

    name = "inexact"
    share = 2e-3

    def spoil(self, y):
        return y + self.share * abs(y).max()


class Rounded(Inexact):
    name = "rounded"
    share = 5e-4


class Misshapen(Exact):
    name = "misshapen"

    def spoil(self, y):
        return y[..., 1:]


class Endless(Exact):
    name = "endless"

    def spoil(self, y):
        return y * float("inf")


class Dying(Exact):
    name = "dying"

    def spoil(self, y):
        os.kill(os.getpid(), signal.SIGKILL)


class Tiring(Exact):
    """Right once, to be judged."""

    name = "tiring"

    def __init__(self, threads):
        self.calls = 0

    def spoil(self, y):
        self.calls += 1
        return y if self.calls == 1 else raise_(RuntimeError("enough"))


class Unable(Exact):
    name = "unable"

    def __init__(self, threads):
        raise RuntimeError("no such machine")


class Idle(Exact):
    name = "idle"

    def contestants(self, task):
        return {}


class Settled(Exact):
    """Right where it is told how to be."""

    name = "settled"
    environment: ClassVar = {"BENCH_PEERS_SETTING": "on"}

    def spoil(self, y):
        return y if os.environ.get("BENCH_PEERS_SETTING") == "on" else 0 * y


FAKES = {
    kind.name: kind for kind in (Exact, Inexact, Rounded, Misshapen, Endless, Dying, Tiring, Unable, Idle, Settled)
}
