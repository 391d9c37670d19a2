"""Peers that misbehave, for test_bench_processes.py: they are made in a process that imports this module alone."""

import os
import signal
import sys
import time
from pathlib import Path


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
