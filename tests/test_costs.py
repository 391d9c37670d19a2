"""The counted work of the CPU engine's algorithms: it is there for every problem, follows the cuts, and only grows."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pycnn
from pycnn import _cpu, algorithms, costs, tuning, winograd
from pycnn.backends import cpu
from pycnn.calibration import shapes
from pycnn.machine import ISAS
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import float_operands, problems, run

WIDE = Conv2dShape(8, 256, 56, 56, 256, 3, 3, padding=(1, 1, 1, 1))
HERE = [isa for isa in ISAS if _cpu.isa_supported(isa)]


def work(name: str, operator: str, shape: Conv2dShape, isa: str = "avx512", size: int = 4, threads: int = 2):
    return costs.work(name, operator, shape, size=size, isa=isa, threads=threads)


def able(operator: str, shape: Conv2dShape) -> list[str]:
    return [name for name, reason in algorithms.candidates(operator, shape, "float32") if reason is None]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("operator", PASSES)
def test_every_algorithm_has_work_and_coefficients_for_every_problem(operator: str, isa: str) -> None:
    table = tuning.own(tuning.of_cpu(isa))
    for problem in problems():
        if not problem.shape.N:
            continue
        for name in able(operator, problem.shape):
            for size, threads in ((4, 2), (8, 1), (4, 64)):
                model, counted = work(name, operator, problem.shape, isa, size, threads)
                assert all(count >= 0 for count in counted.values()), (name, problem)
                assert counted["call"] == 1
                assert not counted.keys() - table.coefficients[operator][model].keys(), (name, problem)
                seconds = table.seconds(operator, tuning.Candidate(name, model, counted))
                assert 0 < seconds < 10, (name, problem)


@pytest.mark.parametrize("operator", ["fprop", "wgrad"])  # dgrad may leave out what lies in the padding
@pytest.mark.parametrize("name", ["direct", "im2col_implicit", "im2col_explicit"])
def test_no_tile_multiplies_less_than_the_problem_asks(operator: str, name: str) -> None:
    for problem in problems():
        shape = problem.shape
        model, counted = work(name, operator, shape, threads=1) if shape.N else ("depthwise", {})
        if model != "depthwise" and "thin" not in counted:
            assert counted["fma"] >= shape.macs, problem


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("tile", winograd.TILES)
def test_the_counted_products_are_those_of_the_kernel(tile: int, operator: str, isa: str) -> None:
    """Apart from what the kernel does not count: the shortest step of tiles with few rows, the last tiles of a unit."""
    pycnn.set_isa(isa)
    try:
        for text in ("n2c64h24_k64r3_pd1", "n1c150h17w33_k50r3_pd1", "n3c17h14w15_k100r3_pd2x0", "n8c40h50_k24r3"):
            problem = replace(Problem.parse(text), operator=operator)
            name = winograd.variant(operator, tile)
            run(cpu, problem, float_operands(problem), name)
            counted = work(name, operator, problem.shape, isa, threads=1)[1]["fma"]
            assert 0.99 < counted / _cpu.winograd_multiplies() < 1.35, text
    finally:
        pycnn.set_isa("auto")


def test_larger_tiles_multiply_less() -> None:
    for operator in PASSES:
        fma = [work(winograd.variant(operator, tile), operator, WIDE)[1]["fma"] / WIDE.macs for tile in winograd.TILES]
        # 4/9, 1/4 and 16/81; tiles of 6 over 56 waste a seventh of the last.
        assert all(ideal <= share < 1.35 * ideal for share, ideal in zip(fma, (4 / 9, 1 / 4, 16 / 81), strict=True))


@pytest.mark.parametrize("operator", PASSES)
def test_more_of_anything_takes_longer(operator: str) -> None:
    table = tuning.own(tuning.of_cpu("avx512"))
    for name in able(operator, WIDE):
        model, counted = work(name, operator, WIDE)
        before = table.seconds(operator, tuning.Candidate(name, model, counted))
        for term in counted:
            more = {**counted, term: 2 * counted[term] + 1}
            assert table.seconds(operator, tuning.Candidate(name, model, more)) >= before


@pytest.mark.parametrize("operator", PASSES)
def test_twice_the_images_or_filters_are_predicted_to_take_longer(operator: str) -> None:
    """Another cut may use the threads better or idle less, but hardly by more than what there is more to do."""
    table = tuning.own(tuning.of_cpu("avx512"))
    source = shapes.held_out(seed=7)
    for shape in (next(source) for _ in range(150)):
        more = [replace(shape, N=2 * shape.N)]
        if shape.groups == 1:
            more += [replace(shape, K=2 * shape.K), replace(shape, C=2 * shape.C)]
        for name in able(operator, shape):
            model, counted = work(name, operator, shape)
            seconds = table.seconds(operator, tuning.Candidate(name, model, counted))
            for larger in more:
                also, there = work(name, operator, larger)
                if also == model and ("thin" not in counted or "thin" in there):  # another kernel may take over
                    assert table.seconds(operator, tuning.Candidate(name, also, there)) > 0.85 * seconds, (
                        name,
                        str(shape),
                        str(larger),
                    )


def test_tasks_that_do_not_divide_cost_a_round() -> None:
    # One plane and few filters: eight tasks on 2 threads, but not on 3.
    shape = Conv2dShape(1, 64, 14, 14, 64, 3, 3, padding=(1, 1, 1, 1))
    fma = [work("direct", "fprop", shape, threads=threads)[1]["fma"] for threads in (1, 2, 3)]
    assert fma[0] == fma[1] < fma[2]
