"""Winograd convolution on the CPU engine: every tile, pass and instruction set; its counted multiplies; its choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cpu_engine import ISAS

import pycnn
from pycnn import _cpu, algorithms, ops, winograd
from pycnn import functional as F
from pycnn.backends import cpu
from pycnn.backends.cpu.conv import winograd_workspace
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.tensor import Tensor
from pycnn.testing import check_conv2d, float_operands, run
from pycnn.testing.problems import every_pass, problems

pytestmark = pytest.mark.usefixtures("engine_as_found")


# Every listed problem that Winograd runs, and what its own cutting into tiles, units, chunks, panels and blocks can get
# wrong: a row of tiles longer than a chunk, several chunks (shared by the threads, and one a thread), several blocks of
# channels, several panels of filters, tails of each, tiles that hang over every edge.
LISTED = [p for p in problems() if (s := p.shape).R == s.S == 3 and s.stride == (1, 1) and s.dilation == (1, 1)]
CUTS = [
    Problem.parse(text)
    for text in (
        "n1c3h5w1100_k2r3s3_pd1",
        "n13c3h30w31_k5r3s3_pd1",
        "n2c150h5w8_k50r3s3_pd1",
        "n3c17h14w15_k100r3s3_pd2x0",
        "n1c40h6w7_k40r3s3_pd6.0.0.7g2",
        "n2c4h2w2_k4r3s3_pd5",
        "n2c70h12w12_k6r3s3_g2",
    )
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", winograd.TILES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_problem_is_right(dtype: str, tile: int, isa: str) -> None:
    pycnn.set_isa(isa)
    for problem in every_pass((LISTED if dtype == "float32" else LISTED[::4]) + CUTS):
        typed = Problem(problem.shape, problem.operator, dtype, problem.layout)
        check_conv2d(cpu, typed, winograd.variant(problem.operator, tile))


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("tile", winograd.TILES)
def test_bits_do_not_depend_on_the_number_of_threads(tile: int, operator: str) -> None:
    for problem in CUTS:
        typed = Problem(problem.shape, operator)
        operands = float_operands(typed)
        results = []
        for threads in (1, 2, 3, 7):
            pycnn.set_num_threads(threads)
            results.append(run(cpu, typed, operands, winograd.variant(operator, tile)).tobytes())
        assert len(set(results)) == 1, f"{typed} tile {tile}"


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("tile", winograd.TILES)
def test_products_do_the_multiplies_of_winograd_and_no_more(tile: int, operator: str) -> None:
    # Whole tiles and vectors: every pass multiplies (tile + 2)^2 times a tile and pair of channels, against 9 tile^2 of
    # direct convolution, so a pass that fell back to direct products would be seen.
    shape = Conv2dShape(2, 64, 24, 24, 64, 3, 3, padding=(1, 1, 1, 1))
    problem = Problem(shape, operator)
    run(cpu, problem, float_operands(problem), winograd.variant(operator, tile))
    multiplies = _cpu.winograd_multiplies()
    assert multiplies == shape.N * (24 // tile) ** 2 * 64 * 64 * (tile + 2) ** 2
    assert multiplies * 9 * tile**2 == shape.macs * (tile + 2) ** 2


def test_a_bias_is_added_once_to_every_output() -> None:
    x, w = np.zeros((2, 40, 9, 9), np.float32), np.zeros((37, 40, 3, 3), np.float32)
    b = np.arange(37, dtype=np.float32)
    for tile in winograd.TILES:
        y = pycnn.ops.conv2d_fprop(x, w, b, padding=1, algo=winograd.variant("fprop", tile))
        assert (y == b[None, :, None, None]).all()


def test_a_forced_tile_that_cannot_run_says_why() -> None:
    x, w = np.zeros((1, 2, 9, 9)), np.zeros((2, 2, 3, 3))
    with pytest.raises(ValueError, match="stride 1, this is 2x2"):
        pycnn.ops.conv2d_fprop(x, w, stride=2, algo="winograd")
    with pytest.raises(ValueError, match="3x3 filters, these are 5x5"):
        pycnn.ops.conv2d_fprop(x, np.zeros((2, 2, 5, 5)), algo="winograd_f2x2_3x3")
    with pytest.raises(ValueError, match="with dilation 2x2 the packed layout holds float32 only"):
        pycnn.ops.conv2d_dgrad(np.zeros((1, 2, 5, 5)), w, x.shape, dilation=2, algo="winograd")


def test_native_code_checks_what_it_is_given() -> None:
    x, w = np.zeros((1, 2, 9, 9)), np.zeros((2, 2, 3, 3))
    for wrong in ({"tile": 3}, {"padding": (-1, 0, 0, 0)}, {"groups": 2}, {"padding": (0, 0, 0, 0), "x": x[:, :, :2]}):
        given = {"x": x, "w": w, "b": None, "padding": (0, 0, 0, 0), "groups": 1, "tile": 2, **wrong}
        given["x"] = np.ascontiguousarray(given["x"])
        with pytest.raises(ValueError, match="winograd"):
            _cpu.winograd_fprop(**given)
    with pytest.raises(TypeError):
        _cpu.winograd_fprop(x[:, :, :, ::2], w, None, (0, 0, 0, 0), 1, 2)


@pytest.mark.parametrize("operator", PASSES)
def test_the_family_and_auto_take_a_tile_on_wide_layers(operator: str) -> None:
    # Which tile is a matter of the instruction set and its table; that it is one, on every machine, is not.
    for isa in ISAS:
        pycnn.set_isa(isa)
        for side, channels in ((28, 256), (56, 128), (14, 512)):
            wide = Conv2dShape(1, channels, side, side, channels, 3, 3, padding=(1, 1, 1, 1))
            name, why = algorithms.choose(operator, wide, "float32")
            assert name.startswith("winograd_f")
            assert "predicted" in why
            assert algorithms.resolve("winograd", operator, wide, "float32") == name
    thin = Conv2dShape(1, 3, 28, 28, 8, 3, 3, padding=(1, 1, 1, 1))
    assert not algorithms.choose(operator, thin, "float32")[0].startswith("winograd")
    assert algorithms.resolve("winograd", operator, thin, "float32").startswith("winograd_f")


@pytest.mark.parametrize("operator", PASSES)
def test_strict_accuracy_keeps_auto_to_the_smallest_tile(operator: str) -> None:
    allowed = ("direct", "direct_packed", "im2col_implicit", "im2col_explicit", winograd.variant(operator, 2))
    with pycnn.use_accuracy("strict"):
        for problem in problems():
            assert algorithms.choose(operator, problem.shape, "float32")[0] in allowed
        wide = Conv2dShape(1, 256, 28, 28, 256, 3, 3, padding=(1, 1, 1, 1))
        assert algorithms.choose(operator, wide, "float32")[0] == winograd.variant(operator, 2)
    assert algorithms.choose(operator, wide, "float32")[0] != winograd.variant(operator, 2)
    with pytest.raises(ValueError, match="fast, strict"):
        pycnn.use_accuracy("careful")


@pytest.mark.parametrize("transposed", [False, True])
def test_a_call_asks_for_its_own_accuracy_in_all_passes(transposed: bool) -> None:
    # Wide enough that "fast" takes a larger tile in every pass, whose rounding differs.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 256, 16, 16), np.float32)
    w = rng.standard_normal((256, 128, 3, 3), np.float32)
    function = F.conv_transpose2d if transposed else F.conv2d
    smallest = {operator: winograd.variant(operator, 2) for operator in PASSES}

    def passes(**options: Any) -> list[np.ndarray]:
        tensors = [Tensor(a, requires_grad=True) for a in (x, w)]
        y = function(*tensors, padding=1, groups=2, **options)
        return [y.data, *(g.data for g in pycnn.grad((y * y).sum(), tensors))]

    strict, fast = passes(accuracy="strict"), passes()
    assert all(np.array_equal(one, other) for one, other in zip(strict, passes(algo=smallest), strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(strict, fast, strict=True))
    with pycnn.use_accuracy("strict"):
        assert all(np.array_equal(one, other) for one, other in zip(passes(accuracy="fast"), fast, strict=True))
    assert algorithms.accuracy() == "fast"

    name = "conv_transpose2d" if transposed else "conv2d"
    fprop, dgrad, wgrad = (getattr(ops, f"{name}_{operator}") for operator in PASSES)
    y, dx, dw = strict
    assert np.array_equal(fprop(x, w, padding=1, groups=2, accuracy="strict"), y)
    assert np.array_equal(dgrad(2 * y, w, x.shape, padding=1, groups=2, accuracy="strict"), dx)
    assert np.array_equal(wgrad(2 * y, x, w.shape, padding=1, groups=2, accuracy="strict"), dw)
    for call, arguments in ((fprop, (x, w)), (dgrad, (y, w, x.shape)), (wgrad, (y, x, w.shape))):  # a forced one stays
        forced = call(*arguments, padding=1, groups=2, algo="direct")
        assert np.array_equal(call(*arguments, padding=1, groups=2, algo="direct", accuracy="strict"), forced)
    with pytest.raises(ValueError, match="fast, strict"):
        function(x, w, accuracy="careful")
    assert algorithms.accuracy() == "fast"


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("tile", winograd.TILES)
def test_scratch_is_bounded_and_told(tile: int, operator: str) -> None:
    pycnn.set_num_threads(2)
    name = winograd.variant(operator, tile)
    shape = Conv2dShape(4, 64, 60, 60, 64, 3, 3, padding=(1, 1, 1, 1))
    told = winograd_workspace(name, operator, shape, "float32")
    problem = Problem(shape, operator)
    operands = float_operands(problem, bias=False)
    _cpu.release_cached()
    result = run(cpu, problem, operands, name)
    # Freed scratch stays cached: it is what the call held, in blocks of up to an eighth more than was asked for.
    held = _cpu.cached_bytes()
    assert 0.4 * told < held <= 1.13 * told, (told, held)
    del result
    # A hundred times the images: no more scratch, whose bound is that of a chunk, once a thread.
    many = Conv2dShape(400, 64, 60, 60, 64, 3, 3, padding=(1, 1, 1, 1))
    assert winograd_workspace(name, operator, many, "float32") < 64 << 20
