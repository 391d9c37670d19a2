"""Kernels under compute-sanitizer, each launcher of the host code in a process of its own.

python -m benchmarks.sanitized direct        what the sanitizer watches: every algorithm of one launcher
python -m benchmarks.sanitized overrun       a planted bug that memcheck must catch
python -m benchmarks.sanitized race          a planted bug that racecheck must catch
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arithmetic import KINDS, Kind
from benchmarks.child import ended
from benchmarks.tasks import launched_by, subject
from pycnn.backends.cuda import LAUNCHERS, Host, conv, convert, direct, gemm, optim, pool, tensor, tensor_product
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.device_cupy import CupyDevice, current_device
from pycnn.jit import MissingToolError
from pycnn.jit.sources import Sources, installed
from pycnn.shape import PASSES, Problem
from pycnn.testing import (
    check_conversions,
    check_operator,
    check_optimisers,
    check_pool2d,
    float_operands,
    half_dtypes,
    laid_out,
    operators,
    pools,
    run,
)

__all__ = ["under"]

CAUGHT = 86  # compute-sanitizer's exit status when it has found something
PLANTED = {"memcheck": "overrun", "racecheck": "race"}

# Full tiles and tails, several channel stages, for every tile there is.
PROBLEMS = (
    "n1c37h19w70_k130r1s1",
    "n1c19h60w68_k130r1s1_st2",
    "n1c19h19w70_k130r3s3_pd1",
    "n1c10h60w70_k130r3s3_st2pd1",
    "n1c10h30w35_k130r5s5_pd2",
    "n1c3h38w138_k130r7s7_st2pd3",
    "n1c3h43w271_k130r11s11_st4pd2",
    "n2c14h17w19_k70r3s3_st1pd1dl2x1g2",
    "n2c40h19w21_k40r3s3_pd1g40",
)

# The same for tensor cores: whole chunks of channels, and no two together.
TENSOR_PROBLEMS = (
    "n2c40h14w13_k136r3s3_pd1",
    "n1c32h17w19_k48r3s3_st2pd1dl2x1g2",
    "n1c5h13w10_k7r3s2_st2x1pd1",
)

MOST_SECONDS = 150


def under(tool: str, part: str) -> dict[str, Any]:
    """The tool's verdict on a launcher ("direct", ...), which must be clean, or on "planted", which must be caught.

    Raises:
        AssertionError: with the end of the tool's report.
        RuntimeError: compute-sanitizer is not installed, or does not end.
    """
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if program is None:
        raise RuntimeError("compute-sanitizer is not installed; it comes with the CUDA toolkit")
    what = PLANTED[tool] if part == "planted" else part
    command = [program, "--tool", tool, "--error-exitcode", str(CAUGHT), "--target-processes", "all"]
    command += [sys.executable, "-m", "benchmarks.sanitized", what]
    try:
        done = ended(command, MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{tool} on {part} did not end in {MOST_SECONDS} s") from None
    report = (done.stdout + done.stderr)[-4000:]
    if part == "planted":
        assert done.returncode == CAUGHT, f"{tool} missed the planted {what}:\n{report}"
        return {"tool": tool, "planted": f"{what} caught"}
    assert done.returncode == 0, f"{tool} on {part}:\n{report}"
    return {"tool": tool, "clean": True}


class _ShortDevice(CupyDevice):
    """Allocates one element less than asked for: the planted overrun."""

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Array:
        whole = super().alloc((int(np.prod(shape)) - 1,), dtype)
        return self._cupy.ndarray(shape, dtype, memptr=whole.data)


def _without_a_barrier(folder: Path) -> Sources:
    """The kernels, the first barrier of the tiled convolutions gone: the planted race."""
    shutil.copytree(installed().folder, folder, dirs_exist_ok=True)
    tile = folder / "direct_tile.cuh"
    text = tile.read_text()
    assert "__syncthreads();" in text
    tile.write_text(text.replace("__syncthreads();", "", 1))
    return Sources(folder)


def _worker(part: str) -> None:
    from benchmarks.gpu import OnNumpy

    number = current_device()
    import cupy

    cupy.cuda.set_allocator(None)  # every array is an allocation of its own, with nothing of ours behind it
    with tempfile.TemporaryDirectory() as folder:
        sources = _without_a_barrier(Path(folder)) if part == "race" else installed()
        device = (_ShortDevice if part == "overrun" else CupyDevice)(number, sources)
        backend = OnNumpy(Host(device, sources), cupy)
        launcher = direct if part in PLANTED.values() else next(each for each in LAUNCHERS if subject(each) == part)
        if launcher in conv.PLANNERS:
            _every_plan(backend, launcher, sources, PASSES[:1] if part in PLANTED.values() else PASSES)
        if launcher is tensor:
            for kind in KINDS:
                _on_tensor_cores(backend, kind, TENSOR_PROBLEMS, "im2col", device.arch)
        if launcher is tensor_product:
            _on_tensor_cores(backend, Kind("3xtf32"), PROBLEMS, "winograd", device.arch)
        functions = ("gemm", "linear_fwd") if launcher is gemm else launched_by(launcher)
        for dtype in (np.dtype(np.float32), *(half_dtypes() if launcher is not gemm else ())):
            for case in operators(dtype=dtype):
                if case.function in functions:
                    check_operator(backend, case, dtype)
            for shape in pools() if launcher is pool else ():
                check_pool2d(backend, shape, dtype)
        if launcher is convert:
            check_conversions(backend)
        if launcher is optim:
            check_optimisers(backend)
        device.sync()


def _on_tensor_cores(backend: Any, kind: Kind, texts: tuple[str, ...], family: str, arch: str) -> None:
    with kind.allowed():
        for text, operator in product(texts, PASSES):
            problem = replace(kind.of(Problem.parse(text)), operator=operator)
            operands = laid_out(problem, float_operands(problem))
            for plan in kind.plans(problem, arch):
                if plan.reason is None and plan.name.startswith(family):
                    run(backend, problem, operands, plan.name)


def _every_plan(backend: Any, planner: Any, sources: Sources, passes: tuple[str, ...]) -> None:
    endings = {"float32": "", "float16": "_f16", "bfloat16": "_bf16"}
    dtypes = ["float32", *map(str, half_dtypes() if planner in conv.HALF_PLANNERS else ())]
    for text, operator, dtype in product(PROBLEMS, passes, dtypes):
        problem = replace(Problem.parse(text), operator=operator, dtype=dtype)
        operands = float_operands(problem)
        how = (operator, problem.shape, sources)
        for plan in planner.plans(*how, endings[dtype]) if endings[dtype] else planner.plans(*how):
            if plan.reason is None:
                run(backend, problem, operands, plan.name)


if __name__ == "__main__":
    try:
        _worker(sys.argv[1])
    except MissingToolError as missing:
        sys.exit(str(missing))
