"""No memory left: a MemoryError, and a process that goes on as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

_LIMITED = """
import resource
import numpy as np
import pycnn
from pycnn import _cpu
from pycnn.backends import cpu
from pycnn.shape import Problem
from pycnn.testing.regimes import exact_operands, run

def with_room_for(mebibytes, call):
    "What `call` gives, or None where it raises MemoryError, with so much address space beside what is in use."
    _cpu.release_cached()
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(mebibytes * 2**20), resource.RLIM_INFINITY))
    try:
        return call()
    except MemoryError:
        return None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def _in_process(code: str) -> None:
    """Run in a fresh interpreter, which must end well, and in which freed blocks go back to the system at once."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED + textwrap.dedent(code)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("operator", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_every_algorithm_may_run_out_of_memory_anywhere(operator: str, dilation: int) -> None:
    """With ever more room the first block that finds none is another one, up to where all find some."""
    _in_process(f"""
    problem = Problem.parse("n4c48h30w31_k40r3_pd{dilation}dl{dilation}_{operator}")
    operands = exact_operands(problem, "winograd")
    failed = 0
    for name, reason in cpu.conv2d_algorithms("{operator}", problem.shape, "float32"):
        if reason is not None:
            continue
        for threads in (1, 3):
            pycnn.set_num_threads(threads)
            expected = run(cpu, problem, operands, name).tobytes()
            for room in (0, 0.3, 1, 2, 3, 4, 6, 10, 20, 100):
                result = with_room_for(room, lambda: run(cpu, problem, operands, name))
                failed += result is None
                assert result is None or result.tobytes() == expected, (name, room)
                assert run(cpu, problem, operands, name).tobytes() == expected, (name, room)
            assert result is not None, (name, threads)
    assert failed > 5, failed
    """)


def test_results_larger_than_the_machine_are_memory_errors() -> None:
    """Even where the system would grant them, and end the process that writes them."""
    _in_process("""
    one = np.ones((1, 1, 1, 1), np.float32)
    many = 2**19
    for call in (
        lambda: pycnn.ops.conv2d_fprop(one, one, padding=many // 2),
        lambda: pycnn.ops.conv2d_dgrad(one, one, (1, 1, many, many), stride=many),
        lambda: pycnn.ops.pad(one, (many // 4,) * 4),
        lambda: pycnn.ops.adaptive_avg_pool2d(one, (many, many)),
    ):
        try:
            call()
        except MemoryError:
            continue
        raise AssertionError("no MemoryError")
    assert pycnn.conv2d(one + 1, one) == 2
    """)


def test_threads_that_the_system_refuses_are_done_without() -> None:
    _in_process("""
    x = np.ones((4, 16, 50, 50), np.float32)
    w = np.ones((16, 16, 3, 3), np.float32)
    expected = pycnn.conv2d(x, w).tobytes()
    for threads in (2, 5, 9, 3, 17):
        pycnn.set_num_threads(threads)
        result = with_room_for(15, lambda: pycnn.conv2d(x, w))  # of a thread's stack, 8 MiB, there is one at most
        assert result is not None and result.tobytes() == expected
    assert pycnn.conv2d(x, w).tobytes() == expected
    """)


def test_a_compiled_model_may_run_out_of_memory() -> None:
    _in_process("""
    model = pycnn.nn.Sequential(
        pycnn.nn.Conv2d(3, 32, 3, padding=1), pycnn.nn.ReLU(), pycnn.nn.Conv2d(32, 32, 3, padding=1)
    ).eval()
    x = np.random.default_rng(0).standard_normal((4, 3, 100, 100), np.float32)
    compiled = pycnn.compile(model, x)
    expected = compiled(x).tobytes()
    failed = 0
    for room in (0, 1, 4, 8, 12, 16, 20, 30, 60):
        result = with_room_for(room, lambda: compiled(x))
        failed += result is None
        assert result is None or result.tobytes() == expected
        assert compiled(x).tobytes() == expected
    assert failed and result is not None
    failed = 0
    for room in (0, 0.1, 0.5, 1, 2, 4, 8, 16, 64):
        again = with_room_for(room, lambda: pycnn.compile(model, x))
        failed += again is None
        assert again is None or again(x).tobytes() == expected
    assert again is not None
    """)
