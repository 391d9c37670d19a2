"""At which size each plan of a convolution gives up counting in 32 bits, and for the sake of what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from pycnn.backends.cuda import conv
from pycnn.backends.cuda.columns import ExplicitPlan
from pycnn.jit.sources import installed
from pycnn.shape import Conv2dShape

# By plan: a size that grows, the first that is too large, and the index that would pass 2^31 ("wide": the plan takes
# its kernel that counts in 64 bits).  C1, K1, groups1: of one image of one window.
# Whoever changes how a kernel computes an index changes its limits.
LIMITS = """
fprop direct_r3s3_st1_8x32: N 107374183 blocks; C 238609181 taps; groups 107374183 blocks; H 2147483637 rows; W
    2147483611 columns; top 1073741800 rows; left 1073741783 columns; C1 238609181 taps; K1 1073741312 filters;
    groups1 1073741312 filters
fprop direct_r7s7_st2_8x32: N 357913942 blocks; C 43826176 taps; groups 357913942 blocks; H 2147483628 rows; W
    2147483579 columns; top 1073741795 rows; left 1073741767 columns; C1 43826176 taps; K1 1073741312 filters; groups1
    1073741312 filters
fprop direct_any_narrow: N 357913942 blocks; C 357913771 taps; groups 357913942 blocks; H 252645122 pixels; W
    339076344 pixels; top 252645083 pixels; left 339076296 pixels; stride_h 16647161 rows; stride_w 16647161 columns;
    dilation_h 429496671 rows; dilation_w 715827738 columns; C1 357913771 taps; K1 1073741312 filters; groups1
    1073741312 filters
fprop direct_1x1_64x64: N 5681174 pixels; C 2092040 weights; K 2090002 weights; groups 178956971 blocks; H 119304642
    pixels; W 153391682 pixels; top 119304603 pixels; left 153391634 pixels; stride_h 1073741824 strides; stride_w
    1073741824 strides; C1 2092040 weights; K1 2090002 weights; groups1 715827542 filters
fprop direct_depthwise_r3s3_st2: N 1431656 threads; K 1431656 threads; groups 2147484 threads; H 28633114 threads; W
    35791395 threads; top 28633075 threads; left 35791347 threads; K1 357913942 threads; groups1 536870912 threads
fprop direct_depthwise_any_narrow: N 2105377 threads; K 2105377 threads; groups 3158065 threads; H 28633116 elements
    of a plane; W 35791395 elements of a plane; top 42107485 threads; left 53687043 threads; stride_h 536870910 rows;
    stride_w 1073741824 strides; dilation_h 429496718 rows; dilation_w 715827866 columns; K1 357913942 threads;
    groups1 536870912 threads
fprop im2col_implicit_64x64: N 6648544 pixels; C 1073739 pixels of a group's channels; groups 195225414 blocks; H
    10737396 pixels of a group's channels; W 12782617 pixels of a group's channels; top 21474714 pixels of a group's
    channels; left 169537809 pixels; stride_h 42949463 pixels of a group's channels; stride_w 1073741820 rows or
    columns; dilation_h 8589886 pixels of a group's channels; dilation_w 357913925 rows or columns; C1 214747953
    pixels of a group's channels; K1 1073739776 filters; groups1 1073739776 filters
fprop im2col_explicit: C 3324272 wide; groups 2216182 wide; H 42107446 wide; W 56512617 wide; top 42107407 wide; left
    56512569 wide; stride_h 2147479545 wide; stride_w 2147479548 wide; dilation_h 429495903 wide; dilation_w 715826501
    wide; C1 1073739776 wide; groups1 715826518 wide
fprop winograd_f2x2_3x3: N 4294966 tiles; C 2147482624 channels; groups 67108864 blocks; H 85899306 tiles; W 107374131
    tiles; top 85899267 tiles; left 107374083 tiles; C1 2147482624 channels; K1 2147482624 channels; groups1
    2147483648 blocks
fprop winograd_f4x4_3x3: N 16519098 tiles; C 33554416 threads; K 33554416 threads; groups 22369611 threads; H
    330381942 tiles; W 429496525 tiles; top 330381903 tiles; left 429496477 tiles; C1 268435328 threads; K1 268435328
    threads; groups1 178956886 threads
dgrad direct_r3s3_st1_8x32_k16: W 2147483613 columns; top 2147483599 rows; left 2147483565 columns; C1 1073741312
    filters; K1 238609181 taps; groups1 715827542 filters
dgrad direct_any_narrow: N 59652324 blocks; C 954437153 blocks; groups 59652324 blocks; H 238609279 rows; W 322122523
    rows; top 1431655437 rows; left 1610612722 columns; stride_h 1073741824 stride; stride_w 1073741824 stride;
    dilation_h 429496632 rows; dilation_w 715827866 columns; C1 1073741312 channels; K1 715827542 taps; groups1
    536870912 blocks
dgrad direct_1x1_64x64: N 1073742 pixels; C 2092040 weights; K 2090002 weights; groups 34087043 blocks; H 21474836
    pixels; W 26843545 pixels; top 1073741804 rows; left 1073741798 columns; stride_h 1073741824 strides; stride_w
    1073741824 strides; C1 2092040 weights; K1 2090002 weights; groups1 715827542 filters
dgrad direct_depthwise_r5s5_st2: N 650753 threads; groups 976129 threads; H 14316556 threads; W 16268816 threads; top
    178956753 elements of a plane; left 68174039 elements of a plane; K1 715827883 filters; groups1 107374183 threads
dgrad direct_depthwise_any_narrow: N 174593 threads; groups 261889 threads; H 3579139 threads; W 4364805 threads; top
    252644863 elements of a plane; left 107374134 elements of a plane; stride_h 52377649 rows; stride_w 42949673
    columns; dilation_h 429496706 rows; dilation_w 715827833 columns; K1 715827883 filters; groups1 107374183 threads
dgrad im2col_implicit_64x128: N 6316117 pixels; C 178956630 weights of a group; K 6648541 pixels of a group's filters;
    groups 59652210 blocks; H 63161160 pixels of a group's filters; W 73209528 pixels of a group's filters; top
    42107415 pixels of a group's filters; left 70795980 pixels of a group's filters; stride_h 126322315 pixels of a
    group's filters; stride_w 1073739776 stride; dilation_h 25264449 pixels of a group's filters; dilation_w 357913925
    rows or columns; C1 178956630 weights of a group; K1 119304420 weights of a group; groups1 536869888 blocks
dgrad im2col_explicit: C 536870 wide; groups 357914 wide; H 7158266 wide; W 8947832 wide; top 1073739755 wide; left
    1073739750 wide; stride_h 2147479545 wide; stride_w 2147479548 wide; dilation_h 429495903 wide; dilation_w
    715826501 wide; C1 107373978 wide; groups1 71582652 wide
dgrad winograd_f2x2_3x3: N 4294966 tiles; groups 67108864 blocks; H 85899305 tiles; W 107374131 tiles; top 2147483600
    rows; left 2147483590 columns; C1 2147482624 channels; K1 2147482624 channels; groups1 2147483648 blocks
dgrad winograd_f6x6_3x3: N 34087026 tiles; C 33554416 threads; K 33554416 threads; groups 22369611 threads; H
    715827541 tiles; W 920349691 tiles; top 2147483594 rows; left 2147483582 columns; C1 268435328 threads; K1
    268435328 threads; groups1 178956886 threads
wgrad direct_r3s3_st2_2x16: N 107164876 tiles; C 1073741816 channels; H 2684355 elements of a tile; W 3355443 elements
    of a tile; top 2684317 elements of a tile; left 3355395 elements of a tile; C1 1073741816 channels; K1 1073741792
    filters; groups1 715827878 channels
wgrad direct_r1s1_st1_1x64: N 67043392 tiles; C 1073741792 channels; H 671089 elements of a tile; W 838861 elements of
    a tile; top 671049 elements of a tile; left 838811 elements of a tile; C1 1073741792 channels; K1 1073741792
    filters; groups1 715827862 channels
wgrad direct_any_narrow: N 6622687 pixels; C 357913931 taps; H 125831042 pixels; W 168878499 pixels; top 125831003
    pixels; left 168878451 pixels; stride_h 2147483641 rows; stride_w 2147483644 columns; dilation_h 429496722 rows;
    dilation_w 715827866 columns; C1 357913931 taps; K1 1073741792 filters; groups1 1073741792 filters
wgrad direct_depthwise_r3s3_st1: N 4269997 threads; H 21474837 elements of a plane; W 26843546 elements of a plane;
    top 21474799 elements of a plane; left 27183290 elements of a plane; K1 715827840 threads; groups1 1073741760
    threads
wgrad direct_depthwise_any_narrow: N 6609902 threads; H 28633116 elements of a plane; W 36398028 elements of a plane;
    top 64103953 elements of a plane; left 168552447 threads; stride_h 1073741824 strides; stride_w 1073741824
    strides; dilation_h 429496718 rows; dilation_w 715827866 columns; K1 715827840 threads; groups1 1073741760 threads
wgrad im2col_implicit_128x128: N 178956 pixels of x; C 214748 pixels of x; K 1662136 pixels of dy; groups 178956
    pixels of x; H 2526446 pixels of x; W 3089899 pixels of x; top 10737227 pixels of x; left 42384414 pixels of dy;
    stride_h 21474488 pixels of x; stride_w 1073741820 rows or columns; dilation_h 4294891 pixels of x; dilation_w
    357913925 rows or columns; C1 71582651 pixels of x; K1 1073739776 pixels of dy; groups1 71582650 pixels of x
wgrad im2col_explicit: C 3324272 wide; groups 2216182 wide; H 42107446 wide; W 56512617 wide; top 42107407 wide; left
    56512569 wide; stride_h 2147479545 wide; stride_w 2147479548 wide; dilation_h 429495903 wide; dilation_w 715826501
    wide; C1 1073739776 wide; groups1 715826518 wide
wgrad winograd_f3x3_4x4: N 16519098 tiles; C 33554416 threads; K 33554416 threads; groups 22369611 threads; H
    330381942 tiles; W 429496525 tiles; top 330381903 tiles; left 429496477 tiles; C1 268435328 threads; K1 268435328
    threads; groups1 178956886 threads
"""


def entries() -> Iterator[tuple[str, str, str, int, str]]:
    for paragraph in re.split(r"\n(?! )", LIMITS.strip()):
        plan, _, rest = " ".join(paragraph.split()).partition(": ")
        for entry in rest.split("; "):
            size, limit, what = entry.split(" ", 2)
            yield (*plan.split(" "), size, int(limit), what)  # type: ignore[misc]


def problem_of(name: str) -> dict[str, Any]:
    """A small problem that a plan can run, different along both axes wherever it may be."""
    given: dict[str, Any] = {"N": 2, "C": 6, "H": 40, "W": 50, "K": 4, "R": 3, "S": 2, "groups": 2}
    given |= {"stride": (2, 3), "padding": (1, 0, 2, 0), "dilation": (2, 1)}
    compiled = re.search(r"r(\d+)s(\d+)_st(\d)", name)
    if compiled:
        R, S, stride = map(int, compiled.groups())
        given |= {"R": R, "S": S, "stride": (stride, stride), "dilation": (1, 1)}
    if "winograd" in name:
        given |= {"R": 3, "S": 3, "stride": (1, 1), "dilation": (1, 1)}
    if "1x1" in name:
        given |= {"R": 1, "S": 1, "dilation": (1, 1)}
    if "depthwise" in name:
        given |= {"C": 3, "K": 6, "groups": 3}
    if "r1s1_st1" in name:
        given["padding"] = (0, 0, 0, 0)
    return given


def grown(given: dict[str, Any], size: str, to: int) -> Conv2dShape:
    """The problem with one size changed: C and K are those of a group, and a dilation is padded so that it fits."""
    changed = dict(given)
    if size.endswith("1"):
        size = size.removesuffix("1")
        window = (1 + (given[taps] - 1) * apart for taps, apart in zip("RS", given["dilation"], strict=True))
        changed |= {"N": 1, "padding": (0, 0, 0, 0), **dict(zip("HW", window, strict=True))}
    axis = {"top": 0, "h": 0, "left": 1, "w": 1}.get(size.rpartition("_")[2])
    if axis is None:
        changed[size] = to * (given["groups"] if size in "CK" else 1)
        if size == "groups":
            changed |= {each: to * (given[each] // given["groups"]) for each in "CK"}
        return Conv2dShape(**changed)
    kind = size.partition("_")[0]
    if kind in ("stride", "dilation"):
        pair = list(given[kind])
        pair[axis] = to
        changed[kind] = tuple(pair)
    if kind != "stride":
        padding = list(given["padding"])
        padding[2 * axis] = to if kind != "dilation" else (given["RS"[axis]] - 1) * to
        changed["padding"] = tuple(padding)
    return Conv2dShape(**changed)


def refusal(operator: str, name: str, shape: Conv2dShape) -> str | None:
    (plan,) = [plan for plan in conv.plans(operator, shape, installed()) if plan.name == name]
    if isinstance(plan, ExplicitPlan):
        assert plan.columns is not None
        return "and the wide go up to" if plan.columns.name == "wide" else None
    return plan.reason


@pytest.mark.parametrize(("operator", "name", "size", "limit", "what"), list(entries()))
def test_limit_of_32_bits(operator: str, name: str, size: str, limit: int, what: str) -> None:
    given = problem_of(name)
    assert refusal(operator, name, grown(given, size, limit - 1)) is None
    assert f"and the {what} go up to" in str(refusal(operator, name, grown(given, size, limit)))
