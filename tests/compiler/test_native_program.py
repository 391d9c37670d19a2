"""What the native program refuses: plans that would reach foreign memory, and arrays that it would have to copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import _cpu

pytestmark = pytest.mark.usefixtures("engine_as_found")

LARGE = 2**40


def arena(at: int) -> Any:
    return _cpu.Plain("arena", at)


def filters(*shape: int) -> Any:
    made = _cpu.Filters("conv" if len(shape) == 4 else "linear", shape)
    made.fill(0, np.ones(shape, np.float32))
    return made


def conv(program: Any, x: Any, y: Any, algo: str = "direct", **options: Any) -> None:
    how = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "residual": None, "clamp": None, "keep": False}
    program.conv(x, y, filters(1, 1, 1, 1), None, algo=algo, **{**how, **options})


def view(offset: int, height: int, width: int) -> Any:
    lanes = _cpu.lanes()
    return _cpu.View(offset, 1, height, width, height * width * lanes, height * width * lanes, width * lanes)


BAD: dict[str, Callable[[Any, Any], None]] = {
    "beyond the arena": lambda p, _: conv(p, view(8, 4, 4), view(0, 4, 4)),
    "before the arena": lambda p, _: p.clear(_cpu.View(-16, 1, 1, 1, 16, 16, 16)),
    "rows without end": lambda p, _: p.clear(_cpu.View(0, 1, 2, 1, 16, 16, LARGE)),
    "an array beyond the arena": lambda p, _: conv(p, _cpu.Images(arena(LARGE), 1, 4, 4), view(0, 4, 4)),
    "an array whose end overflows": lambda p, _: conv(
        p, _cpu.Images(arena(LARGE), 1, LARGE, 2**23 - 1), _cpu.Images(arena(0), 1, LARGE, 2**23 - 1)
    ),
    "sums over what overflows": lambda p, _: p.softmax(
        arena(LARGE), arena(0), outer=LARGE, count=2**23 - 1, inner=1, log=False
    ),
    "a count that wraps": lambda _, many: many.lrn(
        arena(0), arena(0), channels=2**12, pixels=2**12, size=5, alpha=1e-4, beta=0.75, k=1.0
    ),
    "a full layer that wraps": lambda _, many: many.linear(arena(0), arena(0), filters(1, 2**24), None, clamp=None),
    "planes that wrap": lambda _, many: many.conv_nchw(
        arena(0),
        arena(0),
        np.ones((1, 2**10, 1, 1), np.float32),
        None,
        image=(2**10, 2**7, 2**7),
        out=(2**7, 2**7),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
    ),
    "results that wrap": lambda p, _: p.conv_nchw(
        arena(0),
        arena(0),
        np.ones((4, 1, 1, 1), np.float32),
        None,
        image=(1, 1, 1),
        out=(LARGE, 2**22),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
    ),
    "an input that is written": lambda p, _: conv(p, view(0, 2, 2), _cpu.Images(_cpu.Plain("input", 0), 1, 2, 2)),
    "an output before it is there": lambda p, _: conv(p, _cpu.Images(_cpu.Plain("output", 0), 1, 2, 2), view(0, 2, 2)),
    "a residual on an array": lambda p, _: conv(
        p, view(0, 2, 2), _cpu.Images(_cpu.Plain("output", 0), 1, 2, 2), residual=view(0, 2, 2)
    ),
    "an axis twice": lambda p, _: p.permute(arena(0), arena(0), shape=[2, 2], order=[0, 0]),
    "an axis that is not there": lambda p, _: p.permute(arena(0), arena(0), shape=[2, 2], order=[0, 2]),
    "axes without an order": lambda p, _: p.permute(arena(0), arena(0), shape=[2, 2], order=[0]),
    "axes that wrap": lambda p, _: p.permute(arena(0), arena(0), shape=[LARGE, 2**24], order=[1, 0]),
    "axes beyond the arena": lambda p, _: p.permute(arena(0), arena(0), shape=[2, LARGE], order=[1, 0]),
    "a scale of several pixels": lambda p, _: p.scale(view(0, 2, 2), view(0, 1, 2), view(0, 2, 2), clamp=None),
    "an activation beyond the arena": lambda p, _: p.activation("silu", arena(0), arena(0), LARGE, 0.0, 0.0, 0.0),
    "another Winograd": lambda p, _: conv(p, view(0, 2, 2), view(0, 2, 2), algo="winograd_f4x4_3x3"),
}


@pytest.mark.parametrize("what", BAD)
def test_plans_that_reach_foreign_memory_are_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"program|arena"):
        BAD[what](_cpu.Program(1, 16 * _cpu.lanes()), _cpu.Program(LARGE, 16 * _cpu.lanes()))


@pytest.mark.skipif(not _cpu.isa_supported("avx2"), reason="one instruction set alone")
def test_parts_of_several_instruction_sets_are_refused() -> None:
    pycnn.set_isa("baseline")
    program, narrow, images = _cpu.Program(1, 2**10), view(0, 2, 2), _cpu.Images(arena(0), 1, 2, 2)
    pycnn.set_isa("avx2")
    for step in (
        lambda: program.clear(view(0, 2, 2)),
        lambda: _cpu.Program(1, 2**10).clear(narrow),
        lambda: conv(_cpu.Program(1, 2**10), images, view(0, 2, 2)),
        lambda: conv(program, narrow, narrow),
    ):
        with pytest.raises(ValueError, match="instruction set"):
            step()


def test_arrays_that_would_be_copied_are_refused() -> None:
    program = _cpu.Program(1, 16)
    program.copy(_cpu.Plain("input", 0), _cpu.Plain("output", 0), 4)
    x, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    program.run([x], [y])
    np.testing.assert_array_equal(y, x)
    for bad in (np.zeros(8, np.float32)[::2], np.zeros(4)):
        for arrays in (([x], [bad]), ([bad], [y])):
            with pytest.raises(ValueError, match="float32 and C-contiguous"):
                program.run(*arrays)
    with pytest.raises(ValueError, match="too small"):
        program.run([x], [y[:3]])
    with pytest.raises(ValueError, match="missing"):
        program.run([x], [])
