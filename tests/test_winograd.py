"""Winograd's matrices and cost: exact identities, published values, the native engine's constants."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pycnn import algorithms, winograd
from pycnn.shape import Conv2dShape

TILINGS = [(2, 3), (4, 3), (6, 3), (3, 2), (3, 4), (3, 6), (5, 2), (5, 4)]


@pytest.mark.parametrize(("m", "r"), [*TILINGS, (1, 3), (3, 3), (5, 3), (2, 5), (4, 5), (2, 2)])
def test_matrices_compute_the_filtering_exactly(m: int, r: int) -> None:
    AT, G, BT = winograd.cook_toom(m, r)
    assert (len(AT), len(G), len(BT)) == (m, m + r - 1, m + r - 1)
    assert winograd.is_exact(AT, G, BT)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_wrong_entry_is_seen(which: int) -> None:
    matrices = [list(map(list, matrix)) for matrix in winograd.cook_toom(4, 3)]
    row = next(i for i, values in enumerate(matrices[which]) if values[1])
    matrices[which][row][1] += Fraction(1, 64)
    assert not winograd.is_exact(*matrices)


def test_matrices_are_the_published_ones() -> None:
    AT, G, BT = (np.array(matrix, float) for matrix in winograd.cook_toom(4, 3))  # Lavin & Gray, section 4.2
    assert AT.tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    assert (24 * G).round(12).tolist() == [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
    assert BT.tolist() == [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]


@pytest.mark.parametrize(("m", "r"), TILINGS)
def test_native_constants_are_the_fractions_rounded_once(m: int, r: int) -> None:
    cpu = pytest.importorskip("pycnn._cpu")
    for ours, native in zip(winograd.cook_toom(m, r), cpu.winograd_matrices(m, r), strict=True):
        assert [[float(value) for value in row] for row in ours] == native


@pytest.mark.parametrize("m", winograd.TILES_5X5)
def test_tiles_of_5x5_filters_share_the_windows_transform(m: int) -> None:
    assert winograd.cook_toom(m, 5)[2] == winograd.cook_toom(m + 2, 3)[2]


def test_too_many_points_are_refused() -> None:
    with pytest.raises(ValueError, match="points"):
        winograd.cook_toom(12, 3)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Conv2dShape(1, 4, 9, 9, 4, 5, 3), "3x3 filters, these are 5x3"),
        (Conv2dShape(1, 4, 9, 9, 4, 3, 3, stride=(1, 2)), "stride 1, this is 1x2"),
        (Conv2dShape(1, 4, 9, 9, 4, 3, 3, dilation=(2, 1)), "dilation 1, this is 2x1"),
    ],
)
def test_refusals_name_the_condition(shape: Conv2dShape, said: str) -> None:
    for operator in ("fprop", "dgrad", "wgrad"):
        assert said in (winograd.refuses(winograd.variant(operator, 4), operator, shape) or "")


def test_variants_belong_to_their_operators() -> None:
    shape = Conv2dShape(1, 4, 9, 9, 4, 3, 3)
    assert winograd.refuses("winograd_f4x4_3x3", "dgrad", shape) is None
    assert "fprop and dgrad only" in (winograd.refuses("winograd_f4x4_3x3", "wgrad", shape) or "")
    assert "filter gradient only" in (winograd.refuses("winograd_f3x3_4x4", "fprop", shape) or "")


def test_tiles_of_5x5_filters_refuse_the_others() -> None:
    name = winograd.variant("fprop", 4, 5)
    square, line = Conv2dShape(1, 4, 9, 9, 4, 5, 5), Conv2dShape(1, 4, 9, 9, 4, 5, 3)
    assert winograd.refuses(name, "fprop", square) is winograd.refuses(name, "dgrad", square) is None
    assert "fprop and dgrad only" in (winograd.refuses(name, "wgrad", square) or "")
    assert "5x5 filters, these are 5x3" in (winograd.refuses(name, "fprop", line) or "")
    assert "stride 1, this is 2x1" in (winograd.refuses(name, "fprop", replace(square, stride=(2, 1))) or "")


@pytest.mark.parametrize(("taps", "axis"), winograd.LINES)
def test_tiles_of_one_line_refuse_the_others(taps: int, axis: int) -> None:
    name, window = winograd.variant("fprop", 4, taps, axis), winograd.sides(taps, axis)
    line = Conv2dShape(1, 4, 9, 9, 4, *window)
    assert winograd.refuses(name, "fprop", line) is winograd.refuses(name, "dgrad", line) is None
    assert winograd.tile_of(name) == 4
    assert winograd.points_of(name) == taps + 3
    assert "fprop and dgrad only" in (winograd.refuses(name, "wgrad", line) or "")
    said = winograd.refuses(name, "fprop", Conv2dShape(1, 4, 9, 9, 4, *window[::-1])) or ""
    assert f"{window[0]}x{window[1]} filters, these are {window[1]}x{window[0]}" in said
    assert "dilation 1, this is 2x1" in (winograd.refuses(name, "fprop", replace(line, dilation=(2, 1))) or "")


def test_the_cpu_engine_lists_and_takes_no_tile_of_lines() -> None:
    for tile in ((winograd.TILE_OF_LINES, taps, axis) for taps, axis in winograd.LINES):
        shape = Conv2dShape(1, 4, 9, 9, 4, *winograd.sides(*tile[1:]))
        names = {name for name, _ in algorithms.candidates("fprop", shape, "float32")}
        name = winograd.variant("fprop", *tile)
        assert name not in names
        with pytest.raises(ValueError, match=f"algo='{name}': the CPU engine has Winograd's tiles for 3x3 and 5x5"):
            algorithms.resolve(name, "fprop", shape, "float32")
