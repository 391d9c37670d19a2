"""What every plan of a convolution says of itself: its kernels, its workspace, its launches, and when it counts in 32
bits; on a device that computes nothing, so for many problems."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from simulated import random_problems

from pycnn.backends.cuda import Host, conv
from pycnn.backends.cuda.device import Argument, Extent
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.backends.cuda.plan import Epilogue, Operands, Plan
from pycnn.jit.sources import Instance, installed
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import problems

# Layers of networks: several chunks of columns and of tiles, slices of many lengths.
LARGE = (
    "n32c3h224w224_k64r7s7_st2pd3",
    "n32c64h56w56_k64r3s3_pd1",
    "n32c256h14w14_k1024r1s1",
    "n32c512h7w7_k512r3s3_pd1",
    "n128c96h27w27_k256r5s5_pd2g2",
    "n8c64h56w56_k64r3s3_pd1g64",
    "n1c512h7w7_k512r3s3_pd1",
    "n256c64h112w112_k64r3s3_pd1",
)
EVERYTHING = [each for each in [*problems(), *random_problems(60), *map(Problem.parse, LARGE)] if each.shape.N]


class Weighing(TraceDevice):
    """Knows how many bytes are allocated, and the most that there have been at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Any:
        array = super().alloc(shape, dtype)
        self._count(array.nbytes)
        weakref.finalize(array.base, self._count, -array.nbytes)  # the pages, which views keep too
        return array

    def launch(self, kernel: Instance, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        assert grid[0] in range(1, 2**31)
        assert grid[1] in range(1, 2**16)
        assert block == (32 * kernel.tile["warps"], 1, 1)
        super().launch(kernel, grid, block, shared, arguments)

    def _count(self, size: int) -> None:
        self.bytes += size
        self.most = max(self.most, self.bytes)


def operands_of(operator: str, s: Conv2dShape, bias: bool) -> Operands:
    x, w, y, k = (hollow(shape, "float32") for shape in (s.x_shape, s.w_shape, s.y_shape, (s.K,)))
    if operator == "fprop":
        return Operands(x=x, w=w, y=y, epilogue=Epilogue(k, k, hollow(s.y_shape, "float32")))
    return Operands(dy=y, w=w, dx=x) if operator == "dgrad" else Operands(dy=y, x=x, dw=w, db=k if bias else None)


def able(operator: str, shape: Conv2dShape) -> Iterator[Plan]:
    return (plan for plan in conv.plans(operator, shape, installed()) if plan.reason is None)


@pytest.mark.parametrize("operator", PASSES)
def test_workspace_and_kernels_are_what_a_run_takes(operator: str) -> None:
    for problem in EVERYTHING:
        for plan in able(operator, problem.shape):
            where, device = f"{operator} {problem.shape} {plan.name}", Weighing()
            plan.run(Host(device), operands_of(operator, problem.shape, plan.bias_gradient))
            assert device.most == plan.workspace, where
            assert set(device.launches) == set(plan.kernels), where
            assert device.bytes == 0, where


# Blocks of each launch of each plan that can run a problem, in order: no fewer than the result needs, and no more.
BLOCKS = """
fprop n3c13h17w19_k37r3s3_pd1: direct_r3s3_st1_8x32 9; direct_r3s3_st1_14x16 12; direct_r3s3_st1_8x8 27;
    direct_r3s3_st1_8x32_k16 27; direct_any_narrow 18; direct_any_wide 36; im2col_implicit_128x128 8;
    im2col_implicit_64x128 8; im2col_implicit_64x64 16; im2col_implicit_32x128 16; im2col_implicit_wide 16;
    im2col_explicit 50+18; winograd_f2x2_3x3 2+9; winograd_f4x4_3x3 2+4+72+11; winograd_f6x6_3x3 2+2+64+6
fprop n2c64h9w9_k70r1s1: direct_any_narrow 6; direct_any_wide 12; direct_1x1_128x64 4; direct_1x1_64x64 6;
    im2col_implicit_128x128 2; im2col_implicit_64x128 4; im2col_implicit_64x64 6; im2col_implicit_32x128 6;
    im2col_implicit_wide 6; im2col_explicit 8
fprop n2c24h15w17_k24r5s5_st2pd2g24: direct_any_narrow 48; direct_any_wide 96; direct_depthwise_r5s5_st2 7;
    direct_depthwise_any_narrow 7; direct_depthwise_any_wide 7; im2col_implicit_128x128 48; im2col_implicit_64x128 48;
    im2col_implicit_64x64 72; im2col_implicit_32x128 48; im2col_implicit_wide 72; im2col_explicit 14+96
fprop n3c40h33w20_k20r3s3_st2pd1g2: direct_r3s3_st2_14x16 12; direct_any_narrow 12; direct_any_wide 18;
    im2col_implicit_128x128 8; im2col_implicit_64x128 8; im2col_implicit_64x64 16; im2col_implicit_32x128 8;
    im2col_implicit_wide 16; im2col_explicit 80+18
fprop n9c3h41w40_k20r7s7_st2pd3: direct_r7s7_st2_8x32 27; direct_any_narrow 36; direct_any_wide 63;
    im2col_implicit_128x128 30; im2col_implicit_64x128 30; im2col_implicit_64x64 60; im2col_implicit_32x128 30;
    im2col_implicit_wide 60; im2col_explicit 45+63
fprop n1c200h5w6_k130r4s2_st1pd0dl1x2: direct_any_narrow 5; direct_any_wide 5; im2col_implicit_128x128 12+5;
    im2col_implicit_64x128 18+5; im2col_implicit_64x64 18+5; im2col_implicit_32x128 30+5; im2col_implicit_wide 18+5;
    im2col_explicit 7+18+5
dgrad n3c13h17w19_k37r3s3_pd1: direct_r3s3_st1_8x32 9; direct_r3s3_st1_14x16 12; direct_r3s3_st1_8x8 27;
    direct_r3s3_st1_8x32_k16 9; direct_any_narrow 9; direct_any_wide 18; im2col_implicit_128x128 8;
    im2col_implicit_64x128 8; im2col_implicit_64x64 16; im2col_implicit_32x128 8; im2col_implicit_wide 16;
    im2col_explicit 36+50; winograd_f2x2_3x3 4+9; winograd_f4x4_3x3 2+11+72+4; winograd_f6x6_3x3 2+6+64+2
dgrad n2c64h9w9_k70r1s1: direct_any_narrow 4; direct_any_wide 8; direct_1x1_128x64 2; direct_1x1_64x64 3;
    im2col_implicit_128x128 2; im2col_implicit_64x128 2; im2col_implicit_64x64 3; im2col_implicit_32x128 4;
    im2col_implicit_wide 3; im2col_explicit 4
dgrad n2c24h15w17_k24r5s5_st2pd2g24: direct_any_narrow 192; direct_any_wide 384; direct_depthwise_r5s5_st2 26;
    direct_depthwise_any_narrow 96; direct_depthwise_any_wide 96; im2col_implicit_128x128 192; im2col_implicit_64x128
    192; im2col_implicit_64x64 288; im2col_implicit_32x128 192; im2col_implicit_wide 288; im2col_explicit 96+48
dgrad n3c40h33w20_k20r3s3_st2pd1g2: direct_any_narrow 48; direct_any_wide 72; im2col_implicit_128x128 32;
    im2col_implicit_64x128 32; im2col_implicit_64x64 64; im2col_implicit_32x128 32; im2col_implicit_wide 64;
    im2col_explicit 54+310
dgrad n9c3h41w40_k20r7s7_st2pd3: direct_any_narrow 144; direct_any_wide 252; im2col_implicit_128x128 120;
    im2col_implicit_64x128 120; im2col_implicit_64x64 240; im2col_implicit_32x128 120; im2col_implicit_wide 240;
    im2col_explicit 189+173
dgrad n1c200h5w6_k130r4s2_st1pd0dl1x2: direct_any_narrow 7; direct_any_wide 7; im2col_implicit_128x128 8+24;
    im2col_implicit_64x128 16+24; im2col_implicit_64x64 16+24; im2col_implicit_32x128 28+24; im2col_implicit_wide
    16+24; im2col_explicit 25+24
wgrad n3c13h17w19_k37r3s3_pd1: direct_r3s3_st1_2x32 9+17+1; direct_r3s3_st1_4x16 15+17+1; direct_r3s3_st1_8x8 9+17+1;
    direct_r3s3_st1_4x32_c4 20+17+1; direct_any_narrow 22+17+1; direct_any_wide 22+17+1; im2col_implicit_128x128
    3+17+1; im2col_implicit_64x128 3+17+1; im2col_implicit_64x64 6+17+1; im2col_implicit_32x128 6+17+1;
    im2col_implicit_wide 6+17+1; im2col_explicit 50+6+17; winograd_f3x3_2x2 14+40+16+2; winograd_f3x3_4x4 4+11+36+2;
    winograd_f3x3_6x6 2+6+64+2
wgrad n2c64h9w9_k70r1s1: direct_r1s1_st1_1x64 4+18+1; direct_any_narrow 6+18+1; direct_any_wide 6+18+1;
    im2col_implicit_128x128 1; im2col_implicit_64x128 2; im2col_implicit_64x64 2; im2col_implicit_32x128 3;
    im2col_implicit_wide 2; im2col_explicit 4+18
wgrad n2c24h15w17_k24r5s5_st2pd2g24: direct_depthwise_r5s5_st2 24; direct_depthwise_any_narrow 24;
    direct_depthwise_any_wide 24; direct_any_narrow 48+3+1; direct_any_wide 48+3+1; im2col_implicit_128x128 24;
    im2col_implicit_64x128 24; im2col_implicit_64x64 24; im2col_implicit_32x128 24; im2col_implicit_wide 24;
    im2col_explicit 14+48+3
wgrad n3c40h33w20_k20r3s3_st2pd1g2: direct_r3s3_st2_2x16 36+15+1; direct_any_narrow 48+15+1; direct_any_wide 48+15+1;
    im2col_implicit_128x128 4; im2col_implicit_64x128 4; im2col_implicit_64x64 6; im2col_implicit_32x128 4;
    im2col_implicit_wide 6; im2col_explicit 80+18+15
wgrad n9c3h41w40_k20r7s7_st2pd3: direct_r7s7_st2_2x16_c3 99+12+1; direct_any_narrow 120+12+1; direct_any_wide
    120+12+1; im2col_implicit_128x128 28+12+1; im2col_implicit_64x128 28+12+1; im2col_implicit_64x64 42+12+1;
    im2col_implicit_32x128 28+12+1; im2col_implicit_wide 42+12+1; im2col_explicit 45+27+12
wgrad n1c200h5w6_k130r4s2_st1pd0dl1x2: direct_any_narrow 75; direct_any_wide 75; im2col_implicit_128x128 26;
    im2col_implicit_64x128 39; im2col_implicit_64x64 75; im2col_implicit_32x128 65; im2col_implicit_wide 75;
    im2col_explicit 7+75+813
"""


class Counting(TraceDevice):
    """Knows how many blocks each launch had."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[int] = []

    def launch(self, kernel: Instance, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        self.blocks.append(math.prod(grid))
        super().launch(kernel, grid, block, shared, arguments)


@pytest.mark.parametrize("entry", re.split(r"\n(?! )", BLOCKS.strip()), ids=lambda entry: entry.partition(":")[0])
def test_blocks_of_every_launch(entry: str) -> None:
    head, _, rest = " ".join(entry.split()).partition(": ")
    operator, text = head.split()
    shape = Problem.parse(text).shape
    found = []
    for plan in able(operator, shape):
        device = Counting()
        plan.run(Host(device), operands_of(operator, shape, plan.bias_gradient))
        found.append(f"{plan.name} {'+'.join(map(str, device.blocks))}")
    assert found == rest.split("; ")
