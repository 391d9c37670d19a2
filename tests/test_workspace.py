"""What the CPU engine's convolutions allocate beside operands and result: no more than is told, or allowed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import pycnn
from pycnn import _cpu, algorithms, workspace
from pycnn.backends import cpu
from pycnn.cli import main
from pycnn.shape import PASSES, Problem
from pycnn.testing.problems import layers, problems
from pycnn.testing.regimes import float_operands, run

pytestmark = pytest.mark.usefixtures("engine_as_found")

# Of more than a chunk, a group and a block of everything; strides, dilation, large filters, many filters.
LARGER = [
    Problem.parse(text)
    for text in (
        "n8c64h56_k64r3_pd1",
        "n1c512h14_k512r3_pd1",
        "n2c256h30_k64r3_pd2dl2",
        "n1c3h224_k64r7_st2pd3",
        "n4c64h56_k128r1_st2",
        "n1c16h300_k16r5_pd2",
        "n16c32h28_k32r3_st2pd1",
        "n2c64h40_k64r5_pd4dl2",
        "n4c96h30_k96r3_pd1g96",
        "n1c8h1w20000_k16r1s9",
        "n1c4h500w500_k4r3_st3pd1",
    )
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("operator", PASSES)
def test_no_algorithm_takes_more_than_is_told(operator: str, threads: int) -> None:
    pycnn.set_num_threads(threads)
    for problem in [*problems(), *layers(most_macs=100_000_000), *LARGER]:
        asked = replace(problem, operator=operator)
        operands = float_operands(asked, bias=False)
        for name, reason in algorithms.candidates(operator, asked.shape, "float32"):
            if reason is not None:
                continue
            told = workspace.at_most(name, operator, asked.shape, "float32")
            _cpu.release_cached()
            result = run(cpu, asked, operands, name)
            # Freed scratch stays cached, in blocks of up to an eighth more than was asked for; where a chunk is smaller
            # than the one before it a block of its own size may lie beside the larger one.
            assert _cpu.cached_bytes() <= 1.4 * told + 1.13 * workspace.fixed("float32"), (str(asked), name)
            del result


@pytest.mark.parametrize("operator", PASSES)
def test_float64_takes_no_more_than_is_told(operator: str) -> None:
    for problem in LARGER[:4]:
        asked = replace(problem, operator=operator, dtype="float64")
        operands = float_operands(asked, bias=False)
        for name, reason in algorithms.candidates(operator, asked.shape, "float64"):
            if reason is None:
                told = workspace.at_most(name, operator, asked.shape, "float64")
                _cpu.release_cached()
                result = run(cpu, asked, operands, name)
                assert _cpu.cached_bytes() <= 1.4 * told + 1.13 * workspace.fixed("float64"), (str(asked), name)
                del result


COLUMNS = Problem.parse("n2c64h100_k32r5_pd2").shape  # its columns take 61 MiB


@pytest.mark.parametrize("operator", PASSES)
def test_a_limit_excludes_what_needs_more(operator: str) -> None:
    rule = (operator, COLUMNS, "float32")
    needs = {name: workspace.at_most(name, *rule) for name, reason in algorithms.candidates(*rule) if reason is None}
    for limit in sorted(needs.values()):
        with pycnn.use_workspace_limit(limit):
            fit = {name for name, needed in needs.items() if needed <= limit}
            assert {name for name, reason in algorithms.candidates(*rule) if reason is None} == fit
            assert algorithms.choose(*rule)[0] in fit
            assert set(algorithms.eligible(*rule)) <= fit
            assert set(algorithms.predicted(*rule)) == fit


def test_what_does_not_fit_is_refused_with_need_and_limit() -> None:
    x, w = np.ones(COLUMNS.x_shape, np.float32), np.ones(COLUMNS.w_shape, np.float32)
    free = pycnn.conv2d(x, w, padding=2, algo="im2col_explicit")
    with pycnn.use_workspace_limit(8 << 20):
        with pytest.raises(ValueError, match=r"needs up to 6\d+ bytes of workspace, and the limit is 8388608"):
            pycnn.conv2d(x, w, padding=2, algo="im2col_explicit")
        np.testing.assert_array_equal(pycnn.conv2d(x, w, padding=2, algo="im2col"), free)
        np.testing.assert_allclose(pycnn.conv2d(x, w, padding=2), free, rtol=1e-4)  # of 1600 ones, by any algorithm
    message = r"no algorithm for wgrad of n2c64.* limit of 0 bytes; \w+ needs the least, up to \d+"
    with pycnn.use_workspace_limit(0):
        np.testing.assert_array_equal(pycnn.conv2d(x, w, padding=2, algo="im2col"), free)
        with pytest.raises(ValueError, match=message):
            pycnn.ops.conv2d_wgrad(free, x, w.shape, padding=2)
    np.testing.assert_array_equal(pycnn.conv2d(x, w, padding=2, algo="im2col_explicit"), free)


_PEAK = """
import sys
import numpy as np
import pycnn
from pycnn import _cpu, workspace
from pycnn.backends import cpu
from pycnn.bench import memory
from pycnn.shape import Problem
from pycnn.testing.regimes import float_operands, run

def used(algo):
    "Bytes beside what was in memory before, by the system's own count."
    _cpu.release_cached()
    memory.forget_peak()
    before = memory.resident()
    run(cpu, problem, operands, algo)
    return memory.peak() - before

pycnn.set_num_threads(2)
limit = 4 << 20
problem = Problem.parse(sys.argv[1])
operands = float_operands(problem, bias=False)
shape = problem.shape
result = {"fprop": shape.y_shape, "dgrad": shape.x_shape, "wgrad": shape.w_shape}[problem.operator]
with pycnn.use_workspace_limit(limit):
    run(cpu, problem, operands, "auto")  # threads and code are in memory from here on
    limited = used("auto")
# An eighth more for the rounding of blocks, two huge pages for the ends of the result and of the scratch, and what the
# interpreter itself takes meanwhile.
assert limited <= workspace.fixed("float32") + 9 * (limit + 4 * int(np.prod(result))) // 8 + (6 << 20), limited
assert used("im2col_explicit") > 40 << 20  # which the limit kept away
"""


@pytest.mark.parametrize("operator", PASSES)
def test_peak_memory_stays_under_the_limit(operator: str) -> None:
    """Result included, in a process of its own: in this one there may be room left over in what it has already."""
    problem = str(Problem(COLUMNS, operator))
    done = subprocess.run([sys.executable, "-c", _PEAK, problem], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_explain_tells_what_the_limit_keeps_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", f"{COLUMNS}", "--backend", "cpu", "--workspace-limit", "0"]) == 0
    assert capsys.readouterr().out.count("auto takes none: no algorithm for ") == 1
    assert main(["explain", f"{COLUMNS}_fprop", "--backend", "cpu", "--workspace-limit", str(8 << 20)]) == 0
    assert "bytes of workspace, and the limit is 8388608" in capsys.readouterr().out
