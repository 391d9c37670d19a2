"""The generated transforms: the header is what the generator writes, and its code is the matrices, exactly."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pycnn.jit import winograd_codegen
from pycnn.jit.sources import installed
from pycnn.winograd import LINES, TILE_OF_LINES, Matrix, cook_toom

HEADER = "winograd_transforms.cuh"

_STRUCT = re.compile(r"struct (\w+)<([\d, ]+)> \{(.*?)\n\};", re.DOTALL)
_ASSIGNMENT = re.compile(r"^\s*(?:const float )?([\w\[\] *]+?) = (.*);$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)f?(?![\w.])")


def header_text() -> str:
    return (installed().folder / HEADER).read_text()


def bodies(text: str) -> dict[tuple[str, tuple[int, ...]], str]:
    return {(name, tuple(map(int, sizes.split(", ")))): body for name, sizes, body in _STRUCT.findall(text)}


def matrix_of(body: str, ins: int, outs: int) -> list[list[Fraction]]:
    """What the emitted C++ does: its own text, evaluated on unit vectors in exact fractions."""
    columns = []
    for unit in range(ins):
        values: dict[str, Any] = {"fmaf": lambda a, b, c: a * b + c, "Fraction": Fraction}
        column = [Fraction(0)] * outs
        for target, expression in _ASSIGNMENT.findall(body.partition("float* out) {")[2]):
            if read := re.fullmatch(r"in\[(\d+) \* from\]", expression):
                values[target] = Fraction(int(int(read[1]) == unit))
            elif written := re.fullmatch(r"out\[(\d+) \* to\]", target):
                column[int(written[1])] = values[expression]
            else:
                values[target] = eval(_NUMBER.sub(r"Fraction('\1')", expression), values)
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def expected(name: str, sizes: tuple[int, ...]) -> Matrix:
    if name == "InputTransform":
        return cook_toom(sizes[0] - 2, 3)[2]  # of any form with so many points
    AT, G, _ = cook_toom(*sizes)
    return {"FilterTransform": G, "OutputTransform": AT}[name]


def test_the_header_is_what_the_generator_writes(tmp_path: Path) -> None:
    written = tmp_path / HEADER
    subprocess.run([sys.executable, "-m", "pycnn.jit.winograd_codegen", str(written)], check=True)
    assert written.read_bytes() == (installed().folder / HEADER).read_bytes()


def test_every_transform_is_there() -> None:
    forms = [(2, 3), (4, 3), (6, 3), (3, 2), (3, 4), (3, 6), (2, 5), (4, 5)]
    wanted = {(name, form) for name in ("FilterTransform", "OutputTransform") for form in forms}
    assert set(bodies(header_text())) == wanted | {("InputTransform", (points,)) for points in (4, 6, 8)}


@pytest.mark.parametrize("taps", sorted({taps for taps, _ in LINES}))
def test_lines_take_the_transforms_of_squares(taps: int) -> None:
    """Each is along one axis: with one axis alone there is nothing else to generate."""
    assert (TILE_OF_LINES, taps) in winograd_codegen.FORMS


@pytest.mark.parametrize(("m", "r"), winograd_codegen.FORMS)
def test_one_BT_serves_every_form_with_as_many_points(m: int, r: int) -> None:
    assert cook_toom(m, r)[2] == expected("InputTransform", (m + r - 1,))


@pytest.mark.parametrize(("name", "sizes"), sorted(bodies(header_text())))
def test_the_code_is_the_matrix_exactly(name: str, sizes: tuple[int, ...]) -> None:
    matrix = expected(name, sizes)
    body = bodies(header_text())[name, sizes]
    assert f"ins = {len(matrix[0])}, outs = {len(matrix)};" in body
    assert matrix_of(body, len(matrix[0]), len(matrix)) == [list(row) for row in matrix]


@pytest.mark.parametrize(
    ("before", "after"),
    [("-4.25f, in4", "4.25f, in4"), ("fmaf(-1.25f, in4", "fmaf(-1.5f, in4"), ("odd3, even3);", "odd5, even3);")],
)
def test_a_wrong_term_is_seen(before: str, after: str) -> None:
    body = bodies(header_text())["InputTransform", (8,)]
    assert before in body
    wrong = body.replace(before, after, 1)
    assert matrix_of(wrong, 8, 8) != [list(row) for row in expected("InputTransform", (8,))]


@pytest.mark.parametrize("transform", winograd_codegen.transforms(), ids=lambda each: f"{each.name}{each.sizes}")
def test_sharing_saves_work(transform: winograd_codegen.Transform) -> None:
    """An operation of a statement is one instruction; a row of its own would take one for each entry but 0."""
    plain = sum(sum(value != 0 for value in row) - 1 for row in transform.matrix)
    plain += sum(all(value not in (0, 1) for value in row) for row in transform.matrix)
    shared = sum(
        max(len(each.terms) - 1, 0) + (not any(abs(value) == 1 for value, _ in each.terms))
        for each in transform.statements
    )
    assert shared <= plain
    few_rows = transform.name == "OutputTransform" and len(transform.matrix) <= 3  # each half is used once or twice
    if sum(transform.sizes) > 5 and not few_rows:
        assert shared < plain


@pytest.mark.parametrize(("m", "r"), [(3, 3), (5, 3), (4, 5), (2, 5), (2, 2), (3, 7)])
def test_other_sizes_are_exact_too(m: int, r: int) -> None:
    AT, G, BT = cook_toom(m, r)
    for matrix, make in (
        (BT, winograd_codegen.statements_of_rows),
        (G, winograd_codegen.statements_of_rows),
        (AT, winograd_codegen.statements_of_columns),
    ):
        for unit in range(len(matrix[0])):
            values = {f"in{i}": Fraction(int(i == unit)) for i in range(len(matrix[0]))}
            for statement in make(matrix):
                values[statement.name] = sum(
                    (coefficient * values[operand] for coefficient, operand in statement.terms), Fraction(0)
                )
            assert [values[f"out{i}"] for i in range(len(matrix))] == [row[unit] for row in matrix]
