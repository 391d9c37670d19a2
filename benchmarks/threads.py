"""Calls from several Python threads at once beside the same calls one after another: ``python -m benchmarks.threads``.

Each case is raced in turns: one thread of four times as many calls, then four threads of so many each.  Printed are the
milliseconds of a call either way and their ratio, the median over the turns; 1 means that callers who come at the same
time cost one another nothing.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

import pycnn
from pycnn.shape import Problem

CALLERS = 4
TURNS = 9
SECONDS = 0.3  # of a turn, roughly


def layer(text: str) -> Callable[[], object]:
    """The forward pass of a convolution."""
    shape = Problem.parse(text).shape
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(size, dtype=np.float32) for size in (shape.x_shape, shape.w_shape))
    return lambda: pycnn.ops.conv2d_fprop(x, w, stride=shape.stride, padding=shape.padding)


def network(name: str, batch: int) -> Callable[[], object]:
    """A compiled network."""
    x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    compiled = pycnn.compile(getattr(pycnn.models, name)(), x)
    return lambda: compiled(x)


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "n1c16h14_k16r1, a small layer": lambda: layer("n1c16h14_k16r1"),
    "n1c64h56_k64r3_pd1": lambda: layer("n1c64h56_k64r3_pd1"),
    "n1c64h56_k64r1": lambda: layer("n1c64h56_k64r1"),
    "n8c128h28_k128r3_pd1": lambda: layer("n8c128h28_k128r3_pd1"),
    "resnet18, batch 1, compiled": lambda: network("resnet18", 1),
}


def together(call: Callable[[], object], calls: int) -> float:
    """Seconds until all of CALLERS threads have made so many calls each."""
    ready = threading.Barrier(CALLERS + 1)

    def work() -> None:
        ready.wait()
        for _ in range(calls):
            call()

    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def alone(call: Callable[[], object], calls: int) -> float:
    """Seconds of CALLERS times so many calls, one after another."""
    start = time.perf_counter()
    for _ in range(CALLERS * calls):
        call()
    return time.perf_counter() - start


def main() -> int:
    """Print a line for each case."""
    print(f"{'':32}{'in turn':>10}{'together':>10}{'ratio':>8}   ({pycnn.get_num_threads()} threads)")
    for name, make in CASES.items():
        call = make()
        alone(call, 3)
        calls = max(3, round(SECONDS / (alone(call, 5) / 5)))
        pairs = [(alone(call, calls), together(call, calls)) for _ in range(TURNS)]
        in_turn, at_once = (statistics.median(side) / (CALLERS * calls) * 1e3 for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{name:32}{in_turn:>10.3f}{at_once:>10.3f}{ratio:>8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
