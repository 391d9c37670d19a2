"""Conv2dShape, Pool2dShape and the problem string."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycnn.shape import Conv2dShape, Pool2dShape, Problem, normalize_padding, pair, taps_inside, whole

SIZES = st.integers(1, 9)


@st.composite
def shapes(draw: st.DrawFn) -> Conv2dShape:
    groups = draw(st.integers(1, 3))
    r, s, dilation = draw(SIZES), draw(SIZES), draw(st.tuples(SIZES, SIZES))
    return Conv2dShape(
        draw(st.integers(0, 5)),
        groups * draw(SIZES),
        dilation[0] * (r - 1) + draw(SIZES),
        dilation[1] * (s - 1) + draw(SIZES),
        groups * draw(SIZES),
        r,
        s,
        draw(st.tuples(SIZES, SIZES)),
        draw(st.tuples(*[st.integers(0, 9)] * 4)),
        dilation,
        groups,
    )


@given(shapes())
def test_output_size_counts_the_places_of_the_filter(shape: Conv2dShape) -> None:
    for out, size, window, i in ((shape.P, shape.H, shape.R, 0), (shape.Q, shape.W, shape.S, 1)):
        before, after = shape.padding[2 * i : 2 * i + 2]
        starts = range(-before, size + after, shape.stride[i])
        assert out == sum(start + shape.dilation[i] * (window - 1) < size + after for start in starts)


@given(
    shapes(),
    st.sampled_from(["fprop", "dgrad", "wgrad"]),
    st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
    st.sampled_from(["nchw", "nhwc"]),
    st.sampled_from(["", "conv1", "3a-1x1", "layer.4"]),
)
def test_problem_string_round_trips(shape: Conv2dShape, operator: str, dtype: str, layout: str, name: str) -> None:
    problem = Problem(shape, operator, dtype, layout, name)
    assert Problem.parse(str(problem)) == problem


def test_problem_string_fills_in_what_is_left_out() -> None:
    assert str(Problem.parse("n1c2h3_k4r2")) == "n1c2h3w3_k4r2s2_st1pd0dl1g1"
    assert Problem.parse("n1c2h9w8_k4r3s2_st2x1pd0.1.2.3dl1x2g2_f16_nhwc_wgrad_odd") == Problem(
        Conv2dShape(1, 2, 9, 8, 4, 3, 2, (2, 1), (0, 1, 2, 3), (1, 2), 2), "wgrad", "float16", "nhwc", "odd"
    )


@pytest.mark.parametrize(
    "text",
    ["", "resnet", "n1c2h3", "n1c2h3_k4r2_st", "n1c2h3_k4r2_pd1.2", "n1c2h3_k4r2_fprop_wgrad", "n1c2h3_k4r2_one_two"],
)
def test_bad_problem_string_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="problem string"):
        Problem.parse(text)


def test_work_and_bytes() -> None:
    shape = Conv2dShape(2, 4, 5, 6, 8, 3, 3, padding=(1, 1, 1, 1), groups=2)
    assert shape.macs == 2 * 8 * 5 * 6 * 2 * 9
    assert shape.flops == 2 * shape.macs
    assert shape.bytes() == 4 * (2 * 4 * 30 + 8 * 2 * 9 + 2 * 8 * 30)
    assert shape.w_shape == (8, 2, 3, 3)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (2, (2, 2, 2, 2)),
        ((1, 2), (1, 1, 2, 2)),
        ([1, 2], (1, 1, 2, 2)),
        (((0, 1), (2, 3)), (0, 1, 2, 3)),
        ((0, (2, 3)), (0, 0, 2, 3)),
        ((0, 1, 2, 3), (0, 1, 2, 3)),
        ("valid", (0, 0, 0, 0)),
        ("same", (1, 1, 1, 2)),
        (np.int64(3), (3, 3, 3, 3)),
    ],
)
def test_padding_forms(padding: Any, sides: tuple[int, ...]) -> None:
    assert normalize_padding(padding, (3, 4)) == sides


@pytest.mark.parametrize(
    ("padding", "error"),
    [
        (-1, ValueError),
        ((0, -1), ValueError),
        ("Same", ValueError),
        ((1, 2, 3), ValueError),
        (((1, 2, 3), 1), ValueError),
        (1.5, TypeError),
        (None, TypeError),
        (True, TypeError),
        (int, TypeError),
        (np.zeros(2, int), TypeError),
        (2**41, ValueError),
    ],
)
def test_bad_padding_is_named(padding: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="padding"):
        normalize_padding(padding, (3, 3))


def test_same_needs_stride_1() -> None:
    with pytest.raises(ValueError, match="stride"):
        normalize_padding("same", (3, 3), (2, 1))


def test_pair_and_whole() -> None:
    assert pair("stride", [1, 2], 1) == (1, 2)
    assert whole("n", np.int32(4), 0) == 4
    assert type(whole("n", np.int32(4), 0)) is int
    for bad, error in ((0, ValueError), ((1, 0), ValueError), ((1,), ValueError), (1.0, TypeError), ("1", TypeError)):
        with pytest.raises(error, match="stride"):
            pair("stride", bad, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"H": 2}, "smaller than 1: height 2"),
        ({"W": 4, "dilation": (1, 2)}, "smaller than 1: width 4"),
        ({"groups": 2}, "groups must divide"),
        ({"C": 0}, "C must be"),
        ({"N": -1}, "N must be"),
        ({"N": 2**30, "K": 2**30}, r"more than 2\*\*40 elements"),
    ],
)
def test_impossible_convolution_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conv2dShape(**{"N": 1, "C": 3, "H": 5, "W": 5, "K": 4, "R": 3, "S": 3, **changes})


@pytest.mark.parametrize(
    ("size", "window", "stride", "before", "after", "ceil_mode", "out"),
    [
        (6, 3, 2, 0, 0, False, 2),
        (6, 3, 2, 0, 0, True, 3),
        (7, 3, 2, 0, 0, True, 3),
        (5, 2, 3, 1, 1, True, 2),  # the third window would begin in the padding at the end
        (2, 3, 3, 0, 0, True, 1),  # the only window hangs over the edge
        (1, 2, 2, 1, 1, False, 1),
    ],
)
def test_pool_output_size(
    size: int, window: int, stride: int, before: int, after: int, ceil_mode: bool, out: int
) -> None:
    shape = Pool2dShape(1, 1, size, 1, (window, 1), (stride, 1), (before, after, 0, 0), ceil_mode=ceil_mode)
    assert shape.y_shape == (1, 1, out, 1)


def test_taps_inside_are_those_that_meet_the_input() -> None:
    rng = random.Random(3)
    for _ in range(500):
        size, out, window, stride = (rng.randint(1, most) for most in (12, 14, 5, 4))
        before, dilation = rng.randint(-3, 8), rng.randint(1, 5)
        expected = [sum(0 <= i * stride - before + tap * dilation < size for tap in range(window)) for i in range(out)]
        groups = taps_inside(size, out, window, stride, before, dilation)
        assert [taps for count, taps in groups for _ in range(count)] == expected


def test_taps_inside_of_a_long_row_are_found_at_its_ends() -> None:
    assert taps_inside(10**9, 10**9, 3, 1, 1, 1) == [(1, 2), (10**9 - 2, 3), (1, 2)]
