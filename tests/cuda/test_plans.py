"""What every plan of a convolution says of itself: its kernels, its workspace, its launches, and when it counts in 32
bits; on a device that computes nothing, so for many problems."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
from simulated import random_problems

from pycnn.backends.cuda import Host, conv, tensor
from pycnn.backends.cuda.columns import ExplicitPlan
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


def operands_of(operator: str, s: Conv2dShape, bias: bool, dtype: str = "float32") -> Operands:
    x, w, y, k = (hollow(shape, dtype) for shape in (s.x_shape, s.w_shape, s.y_shape, (s.K,)))
    if operator == "fprop":
        each = hollow((s.K,), "float32")
        return Operands(x=x, w=w, y=y, epilogue=Epilogue(each, each, hollow(s.y_shape, dtype)))
    return Operands(dy=y, w=w, dx=x) if operator == "dgrad" else Operands(dy=y, x=x, dw=w, db=k if bias else None)


def able(operator: str, shape: Conv2dShape, ending: str = "") -> Iterator[Plan]:
    return (plan for plan in conv.plans(operator, shape, installed(), ending) if plan.reason is None)


def test_columns_of_a_chunk_take_64_mebibytes_at_most() -> None:
    for text, images in (("n32c64h56w56_k64r3s3_pd1", 9), ("n2c512h224w224_k8r3s3_pd1", 1)):
        (plan,) = [plan for plan in able("fprop", Problem.parse(text).shape) if plan.name == "im2col_explicit"]
        assert isinstance(plan, ExplicitPlan)
        assert plan.images == images


@pytest.mark.parametrize(("dtype", "ending"), [("float32", ""), ("float16", "_f16")])
@pytest.mark.parametrize("operator", PASSES)
def test_workspace_and_kernels_are_what_a_run_takes(operator: str, dtype: str, ending: str) -> None:
    for problem in EVERYTHING:
        for plan in able(operator, problem.shape, ending):
            where, device = f"{operator} {problem.shape} {plan.name}", Weighing()
            plan.run(Host(device), operands_of(operator, problem.shape, plan.bias_gradient, dtype))
            assert device.most == plan.workspace, where
            assert set(device.launches) == set(plan.kernels), where
            assert device.bytes == 0, where


@pytest.mark.parametrize("arithmetic", ["f16", "tf32", "3xtf32", "3xfp16"])
@pytest.mark.parametrize("operator", PASSES)
def test_workspace_and_kernels_on_tensor_cores_are_what_a_run_takes(operator: str, arithmetic: str) -> None:
    dtype = "float16" if arithmetic == "f16" else "float32"
    for problem, chunks in product(EVERYTHING, (False, True)):
        s, seen = problem.shape, set()
        n_c_h_w = {"x": s.x_shape, "w": s.w_shape, "y": s.y_shape}
        arrays = {name: hollow(shape, dtype) for name, shape in n_c_h_w.items()}
        if chunks:
            arrays = {name: hollow((n, h, w, c), dtype).transpose(0, 3, 1, 2) for name, (n, c, h, w) in n_c_h_w.items()}
        x, w, y = arrays.values()
        given = {
            "fprop": Operands(x=x, w=w, y=y),
            "dgrad": Operands(dy=y, w=w, dx=x),
            "wgrad": Operands(dy=y, x=x, dw=w),
        }
        setting = tensor.Setting(arithmetic, chunks, "sm_90a")
        for plan in tensor.plans(operator, s, installed(), setting):
            if plan.reason is None:
                where, device = f"{operator} {s} {plan.name}", Weighing()
                plan.run(Host(device), given[operator])
                assert device.most == plan.workspace, where
                assert device.launches == list(plan.kernels), where
                assert device.bytes == 0, where
                seen.add(plan.name)
        assert seen, f"{operator} {s}"


# Of each plan that can run a problem: the blocks of each launch, in order, no fewer than the result needs and no more;
# and its work, by which the tiles of a family, and the families, are compared.
BLOCKS = """
fprop n3c13h17w19_k37r3s3_pd1: direct_r3s3_st1_8x32 9 17252352; direct_r3s3_st1_14x16 12 20127744;
    direct_r3s3_st1_8x8 27 12939264; direct_r3s3_st1_8x32_k16 27 12939264; direct_any_narrow 18 8626176;
    direct_any_wide 36 8626176; im2col_implicit_128x128 8 245366784; im2col_implicit_64x128 8 134951731;
    im2col_implicit_64x64 16 76677120; im2col_implicit_32x128 16 82811289; im2col_implicit_wide 16 122683392;
    im2col_explicit 50+18 13264641; winograd_f2x2_3x3 2+9 6193152; winograd_f4x4_3x3 2+4+72+11 12098700;
    winograd_f6x6_3x3 2+2+64+6 10324224
fprop n2c64h9w9_k70r1s1: direct_any_narrow 6 1572864; direct_any_wide 12 1572864; direct_1x1_128x64 4 2097152;
    direct_1x1_64x64 6 1572864; im2col_implicit_128x128 2 134217728; im2col_implicit_64x128 4 73819750;
    im2col_implicit_64x64 6 41943040; im2col_implicit_32x128 6 45298483; im2col_implicit_wide 6 67108864;
    im2col_explicit 8 725760
fprop n2c24h15w17_k24r5s5_st2pd2g24: direct_any_narrow 48 4915200; direct_any_wide 96 4915200;
    direct_depthwise_r5s5_st2 7 345600; direct_depthwise_any_narrow 7 691200; direct_depthwise_any_wide 7 1382400;
    im2col_implicit_128x128 48 52428800; im2col_implicit_64x128 48 28835840; im2col_implicit_64x64 72 16384000;
    im2col_implicit_32x128 48 17694720; im2col_implicit_wide 72 26214400; im2col_explicit 14+96 6998400
fprop n3c40h33w20_k20r3s3_st2pd1g2: direct_r3s3_st2_14x16 12 30965760; direct_any_narrow 12 8847360;
    direct_any_wide 18 6635520; im2col_implicit_128x128 8 377487360; im2col_implicit_64x128 8 207618048;
    im2col_implicit_64x64 16 117964800; im2col_implicit_32x128 8 127401984; im2col_implicit_wide 16 188743680;
    im2col_explicit 80+18 16524000
fprop n9c3h41w40_k20r7s7_st2pd3: direct_r7s7_st2_8x32 27 65028096; direct_any_narrow 36 21676032;
    direct_any_wide 63 18966528; im2col_implicit_128x128 30 308281344; im2col_implicit_64x128 30 169554739;
    im2col_implicit_64x64 60 96337920; im2col_implicit_32x128 30 104044953; im2col_implicit_wide 60 154140672;
    im2col_explicit 45+63 55566000
fprop n1c200h5w6_k130r4s2_st1pd0dl1x2: direct_any_narrow 5 32768000; direct_any_wide 5 16384000;
    im2col_implicit_128x128 12+5 559240533; im2col_implicit_64x128 18+5 307582293;
    im2col_implicit_64x64 18+5 174762666; im2col_implicit_32x128 30+5 188743680; im2col_implicit_wide 18+5 279620266;
    im2col_explicit 7+18+5 2688000
fprop n2c20h13w18_k70r5s5_pd2: direct_r5s5_st1_14x16 8 57344000; direct_r5s5_st1_14x16_k16 20 35840000;
    direct_any_narrow 12 24576000; direct_any_wide 24 24576000; im2col_implicit_128x128 4 1048576000;
    im2col_implicit_64x128 8 576716800; im2col_implicit_64x64 16 327680000; im2col_implicit_32x128 12 353894400;
    im2col_implicit_wide 16 524288000; im2col_explicit 37+16 35100000; winograd_f2x2_5x5 9+10+108+35 39009600;
    winograd_f4x4_5x5 9+4+128+11 22016000
dgrad n3c13h17w19_k37r3s3_pd1: direct_r3s3_st1_8x32 9 49102848; direct_r3s3_st1_14x16 12 57286656;
    direct_r3s3_st1_8x8 27 36827136; direct_r3s3_st1_8x32_k16 9 12275712; direct_any_narrow 9 12275712;
    direct_any_wide 18 12275712; im2col_implicit_128x128 8 698351616; im2col_implicit_64x128 8 384093388;
    im2col_implicit_64x64 16 218234880; im2col_implicit_32x128 8 235693670; im2col_implicit_wide 16 349175808;
    im2col_explicit 36+50 13264641; winograd_f2x2_3x3 4+9 15482880; winograd_f4x4_3x3 2+11+72+4 12098700;
    winograd_f6x6_3x3 2+6+64+2 10324224
dgrad n2c64h9w9_k70r1s1: direct_any_narrow 4 1146880; direct_any_wide 8 1146880; direct_1x1_128x64 2 1146880;
    direct_1x1_64x64 3 860160; im2col_implicit_128x128 2 146800640; im2col_implicit_64x128 2 80740352;
    im2col_implicit_64x64 3 45875200; im2col_implicit_32x128 4 49545216; im2col_implicit_wide 3 73400320;
    im2col_explicit 4 725760
dgrad n2c24h15w17_k24r5s5_st2pd2g24: direct_any_narrow 192 7077888; direct_any_wide 384 7077888;
    direct_depthwise_r5s5_st2 26 326400; direct_depthwise_any_narrow 96 612000; direct_depthwise_any_wide 96 1224000;
    im2col_implicit_128x128 192 28311552; im2col_implicit_64x128 192 15571353; im2col_implicit_64x64 288 13271040;
    im2col_implicit_32x128 192 9555148; im2col_implicit_wide 288 21233664; im2col_explicit 96+48 6998400
dgrad n3c40h33w20_k20r3s3_st2pd1g2: direct_any_narrow 48 7864320; direct_any_wide 72 5898240;
    im2col_implicit_128x128 32 83886080; im2col_implicit_64x128 32 46137344; im2col_implicit_64x64 64 26214400;
    im2col_implicit_32x128 32 28311552; im2col_implicit_wide 64 41943040; im2col_explicit 54+310 16524000
dgrad n9c3h41w40_k20r7s7_st2pd3: direct_any_narrow 144 188743680; direct_any_wide 252 165150720;
    im2col_implicit_128x128 120 671088640; im2col_implicit_64x128 120 369098752; im2col_implicit_64x64 240 393216000;
    im2col_implicit_32x128 120 226492416; im2col_implicit_wide 240 629145600; im2col_explicit 189+173 55566000
dgrad n1c200h5w6_k130r4s2_st1pd0dl1x2: direct_any_narrow 7 29818880; direct_any_wide 7 14909440;
    im2col_implicit_128x128 8+24 545259520; im2col_implicit_64x128 16+24 299892736;
    im2col_implicit_64x64 16+24 170393600; im2col_implicit_32x128 28+24 184025088;
    im2col_implicit_wide 16+24 272629760; im2col_explicit 25+24 2688000
dgrad n2c20h13w18_k70r5s5_pd2: direct_r5s5_st1_14x16 4 100352000; direct_r5s5_st1_14x16_k16 8 50176000;
    direct_any_narrow 4 28672000; direct_any_wide 8 28672000; im2col_implicit_128x128 24+37 611669333;
    im2col_implicit_64x128 24+37 336418133; im2col_implicit_64x64 48+37 191146666;
    im2col_implicit_32x128 24+37 206438400; im2col_implicit_wide 48+37 305834666; im2col_explicit 64+37 35100000;
    winograd_f2x2_5x5 9+35+72+10 39009600; winograd_f4x4_5x5 9+11+64+4 22016000
wgrad n3c13h17w19_k37r3s3_pd1: direct_r3s3_st1_2x32 9+17+1 31850496; direct_r3s3_st1_4x16 15+17+1 35389440;
    direct_r3s3_st1_8x8 9+17+1 31850496; direct_r3s3_st1_4x32_c4 20+17+1 17694720; direct_any_narrow 22+17+1 7938048;
    direct_any_wide 22+17+1 7938048; im2col_implicit_128x128 3+17+1 677380096;
    im2col_implicit_64x128 3+17+1 372559052; im2col_implicit_64x64 6+17+1 211681279;
    im2col_implicit_32x128 6+17+1 228615782; im2col_implicit_wide 6+17+1 338690048; im2col_explicit 50+6+17 13264641;
    winograd_f3x3_2x2 14+40+16+2 19357920; winograd_f3x3_4x4 4+11+36+2 12098700; winograd_f3x3_6x6 2+6+64+2 10324224
wgrad n2c64h9w9_k70r1s1: direct_r1s1_st1_1x64 4+18+1 2097152; direct_any_narrow 6+18+1 1327104;
    direct_any_wide 6+18+1 1327104; im2col_implicit_128x128 1 339738624; im2col_implicit_64x128 2 186856243;
    im2col_implicit_64x64 2 106168320; im2col_implicit_32x128 3 114661785; im2col_implicit_wide 2 169869312;
    im2col_explicit 4+18 725760
wgrad n2c24h15w17_k24r5s5_st2pd2g24: direct_depthwise_r5s5_st2 24 345600; direct_depthwise_any_narrow 24 691200;
    direct_depthwise_any_wide 24 1382400; direct_any_narrow 48+3+1 14155776; direct_any_wide 48+3+1 14155776;
    im2col_implicit_128x128 24 301989888; im2col_implicit_64x128 24 166094438; im2col_implicit_64x64 24 94371840;
    im2col_implicit_32x128 24 101921587; im2col_implicit_wide 24 150994944; im2col_explicit 14+48+3 6998400
wgrad n3c40h33w20_k20r3s3_st2pd1g2: direct_r3s3_st2_2x16 36+15+1 31850496; direct_any_narrow 48+15+1 12533760;
    direct_any_wide 48+15+1 12533760; im2col_implicit_128x128 4 1069547520; im2col_implicit_64x128 4 588251136;
    im2col_implicit_64x64 6 334233600; im2col_implicit_32x128 4 360972288; im2col_implicit_wide 6 534773760;
    im2col_explicit 80+18+15 16524000
wgrad n9c3h41w40_k20r7s7_st2pd3: direct_r7s7_st2_2x16_c3 99+12+1 68124672; direct_any_narrow 120+12+1 46448640;
    direct_any_wide 120+12+1 46448640; im2col_implicit_128x128 28+12+1 566231040;
    im2col_implicit_64x128 28+12+1 311427072; im2col_implicit_64x64 42+12+1 176947199;
    im2col_implicit_32x128 28+12+1 191102976; im2col_implicit_wide 42+12+1 283115520;
    im2col_explicit 45+27+12 55566000
wgrad n1c200h5w6_k130r4s2_st1pd0dl1x2: direct_any_narrow 75 2457600; direct_any_wide 75 2457600;
    im2col_implicit_128x128 26 16777216; im2col_implicit_64x128 39 9227468; im2col_implicit_64x64 75 5242880;
    im2col_implicit_32x128 65 5662310; im2col_implicit_wide 75 8388608; im2col_explicit 7+75+813 2688000
fprop n3c13h17w19_k37r3s3_pd1_f16: direct_any_narrow 18 184025088; direct_any_wide 36 184025088
fprop n2c24h15w17_k24r5s5_st2pd2g24_f16: direct_any_narrow 48 39321600; direct_any_wide 96 39321600;
    direct_depthwise_r5s5_st2 7 345600; direct_depthwise_any_narrow 7 691200; direct_depthwise_any_wide 7 1382400
fprop n64c16h33w20_k20r3s3_st2pd1g2_f16: direct_any_narrow 256 226492416; direct_any_wide 384 339738624
dgrad n3c13h17w19_k37r3s3_pd1_f16: direct_any_narrow 9 523763712; direct_any_wide 18 523763712
dgrad n2c24h15w17_k24r5s5_st2pd2g24_f16: direct_any_narrow 192 21233664; direct_any_wide 384 42467328;
    direct_depthwise_r5s5_st2 26 326400; direct_depthwise_any_narrow 96 612000; direct_depthwise_any_wide 96 1224000
dgrad n64c16h33w20_k20r3s3_st2pd1g2_f16: direct_any_narrow 1024 503316480; direct_any_wide 1536 754974720
wgrad n3c13h17w19_k37r3s3_pd1_f16: direct_any_narrow 22+17+1 138555019; direct_any_wide 22+17+1 277110039
wgrad n2c24h15w17_k24r5s5_st2pd2g24_f16: direct_depthwise_r5s5_st2 24+3+1 345600; direct_depthwise_any_narrow 24+3+1
    691200; direct_depthwise_any_wide 24+3+1 1382400; direct_any_narrow 48+3+1 113246208; direct_any_wide 48+3+1
    226492416
wgrad n64c16h33w20_k20r3s3_st2pd1g2_f16: direct_any_narrow 680+6+1 534773760; direct_any_wide 680+6+1 1069547520
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
def test_blocks_of_every_launch_and_work(entry: str) -> None:
    head, _, rest = " ".join(entry.split()).partition(": ")
    operator, text = head.split()
    shape = Problem.parse(text).shape
    dtype = Problem.parse(text).dtype
    found = []
    for plan in able(operator, shape, "" if dtype == "float32" else "_f16"):
        device = Counting()
        plan.run(Host(device), operands_of(operator, shape, plan.bias_gradient, dtype))
        found.append(f"{plan.name} {'+'.join(map(str, device.blocks))} {plan.cost}")
    assert found == rest.split("; ")
