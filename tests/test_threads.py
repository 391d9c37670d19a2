"""Many Python threads, forks and ends of the interpreter: the same bits, and nothing that waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

import pycnn
from pycnn import ops

pytestmark = pytest.mark.usefixtures("engine_as_found")

_rng = np.random.default_rng(7)


def _normal(*shape: int) -> np.ndarray:
    return _rng.standard_normal(shape, dtype=np.float32)


X, W, B = _normal(3, 20, 30, 31), _normal(36, 20, 3, 3), _normal(36)
DY = _normal(3, 36, 30, 31)
Y, INDICES = ops.max_pool2d(X, 3, 2, 1)
WEIGHT, BIAS = _normal(20), _normal(20)
_, MEAN, VAR = ops.batch_norm(X, WEIGHT, BIAS, eps=1e-5)

# Each of some hundreds of microseconds: many meet in the pool, and in the cache of memory.
CALLS: dict[str, Callable[[], object]] = {
    **{
        f"fprop {algo}": lambda algo=algo: ops.conv2d_fprop(X, W, B, padding=1, algo=algo)
        for algo in ("direct", "direct_packed", "im2col_implicit", "im2col_explicit", "winograd")
    },
    **{
        f"dgrad {algo}": lambda algo=algo: ops.conv2d_dgrad(DY, W, X.shape, padding=1, algo=algo)
        for algo in ("direct", "direct_packed", "im2col_implicit", "im2col_explicit", "winograd")
    },
    **{
        f"wgrad {algo}": lambda algo=algo: ops.conv2d_wgrad(DY, X, W.shape, padding=1, algo=algo)
        for algo in ("direct", "im2col_implicit", "im2col_explicit", "winograd")
    },
    "bias gradient": lambda: ops.channel_sum(DY),
    "transposed": lambda: ops.conv_transpose2d_fprop(DY, W, padding=1),
    "max_pool2d": lambda: ops.max_pool2d(X, 3, 2, 1),
    "max_pool2d_backward": lambda: ops.max_pool2d_backward(Y, INDICES, X.shape, 3, 2, 1),
    "avg_pool2d": lambda: ops.avg_pool2d(X, 3, 2, 1),
    "lrn": lambda: ops.lrn(X, 5),
    "batch_norm": lambda: ops.batch_norm(X, WEIGHT, BIAS, eps=1e-5),
    "batch_norm_backward": lambda: ops.batch_norm_backward(X, X, WEIGHT, MEAN, VAR, eps=1e-5),
    "softmax": lambda: ops.softmax(X, 1),
    "relu": lambda: ops.relu(X),
    "dropout": lambda: ops.dropout(X, 0.3, seed=1, offset=0),
    "gemm": lambda: ops.gemm(X.reshape(60, -1), X.reshape(60, -1), trans_b=True),
    "add": lambda: ops.add(X, X),
}


def _bits(result: object) -> list[bytes]:
    return [array.tobytes() for array in (result if isinstance(result, tuple) else (result,))]


def _expected() -> dict[str, list[bytes]]:
    return {name: _bits(call()) for name, call in CALLS.items()}


def _differ(expected: dict[str, list[bytes]], seed: int = 0) -> list[str]:
    """The calls, in a shuffled order, that do not give the expected bits."""
    order = np.random.default_rng(seed).permutation(list(CALLS))
    return [name for name in order if _bits(CALLS[name]()) != expected[name]]


def test_threads_that_call_everything_at_once_get_the_same_bits() -> None:
    pycnn.set_num_threads(3)
    expected = _expected()
    wrong: list[str] = []
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        start.wait()
        for turn in range(3):
            wrong.extend(_differ(expected, 10 * seed + turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_may_change_the_number_of_threads_meanwhile() -> None:
    expected = _expected()
    wrong: list[str] = []

    def work(seed: int) -> None:
        for turn in range(2):
            pycnn.set_num_threads(1 + (seed + turn) % 4)
            wrong.extend(_differ(expected, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _in_child(expected: dict[str, list[bytes]]) -> None:
    pycnn.set_num_threads(2)
    os._exit(1 if _differ(expected) else 0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_computes_the_same(method: str) -> None:
    pycnn.set_num_threads(2)
    expected = _expected()
    child = multiprocessing.get_context(method).Process(target=_in_child, args=(expected,))
    child.start()
    child.join(timeout=120)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0


def test_forks_while_other_threads_compute() -> None:
    """At any moment: with the pool taken, a loop open, and the cache of memory locked."""
    pycnn.set_num_threads(2)
    expected = _expected()
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            for call in CALLS.values():
                call()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(12):
            time.sleep(0.01 * (turn % 3))
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # one that waits for ever is ended, and seen
                os._exit(1 if _differ(expected, turn) else 0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()


_ENDS = """
import threading, time, numpy as np, pycnn
pycnn.set_num_threads(2)
x, w = np.ones((4, 32, 40, 40), np.float32), np.ones((32, 32, 3, 3), np.float32)
def work():
    {loop}:
        y = pycnn.conv2d(x, w, padding=1)
        pycnn.conv2d(y, w, algo="im2col")
for _ in range(4):
    threading.Thread(target=work, daemon={daemon}).start()
{last}
"""


@pytest.mark.parametrize(
    ("loop", "daemon", "last", "status"),
    [
        ("while True", True, "time.sleep(0.2)", 0),
        ("for _ in range(20)", False, "time.sleep(0.05)", 0),
        ("while True", True, "time.sleep(0.2); raise SystemExit(3)", 3),
    ],
)
def test_the_interpreter_ends_while_threads_compute(loop: str, daemon: bool, last: str, status: int) -> None:
    code = _ENDS.format(loop=loop, daemon=daemon, last=last)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (status, "")
