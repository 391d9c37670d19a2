"""Writes kernels/winograd_transforms.cuh: Winograd's transforms as straight-line code, from their exact fractions.

    python -m pycnn.jit.winograd_codegen kernels/winograd_transforms.cuh

A matrix becomes a list of `Statement`s.  Points come in pairs p, -p, and what the two share is computed once:

    rows of BT and G    row(p) = even + odd, row(-p) = even - odd        over the columns that agree and that differ
    columns of AT       sum = m(p) + m(-p), difference = m(p) - m(-p)    of which each row needs one

Common factors are taken out where that turns a factor into 1, so a shared half costs one multiplication less.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pycnn.winograd import TILES, TILES_5X5, Matrix, cook_toom

__all__ = ["FORMS", "Statement", "Transform", "header", "statements_of_columns", "statements_of_rows", "transforms"]

Terms = tuple[tuple[Fraction, str], ...]


@dataclass(frozen=True)
class Statement:
    """``name = sum of coefficient * operand``."""

    name: str
    terms: Terms

    @property
    def expression(self) -> str:
        """The sum in C++: a unit coefficient goes first, so that every other term is one fused multiply-add."""
        terms = sorted(self.terms, key=lambda term: (term[0] != 1, term[0] != -1))  # stable: the rest in order
        coefficient, operand = terms[0]
        text = _scaled(coefficient, operand)
        for coefficient, operand in terms[1:]:
            if abs(coefficient) == 1:
                text = f"{text} {'+' if coefficient > 0 else '-'} {operand}"
            else:
                text = f"fmaf({_number(coefficient)}, {operand}, {text})"
        return text


@dataclass(frozen=True)
class Transform:
    """One of the transforms: the struct `name`<sizes> of the header, which multiplies a vector by `matrix`."""

    name: str
    sizes: tuple[int, ...]
    matrix: Matrix
    statements: tuple[Statement, ...]  # of in0, in1, ...; those that set out0, out1, ... come last
    what: str


FORMS = (
    *((m, 3) for m in TILES),  # fprop and dgrad
    *((3, m) for m in TILES),  # wgrad
    *((m, 5) for m in TILES_5X5),
)
"""The (m, r) of every F(m, r) that the kernels use."""


def transforms() -> list[Transform]:
    """Every transform that the kernels use, in the header's order."""
    forms = {form: cook_toom(*form) for form in FORMS}
    found = []
    for points in sorted({m + r - 1 for m, r in FORMS}):
        sharing = [form for form in FORMS if sum(form) - 1 == points]
        BT = forms[sharing[0]][2]
        if any(forms[form][2] != BT for form in sharing):
            raise AssertionError("forms with as many points have the same points, so the same BT")
        what = "BT of " + ", ".join(f"F({m}, {r})" for m, r in sharing)
        found.append(Transform("InputTransform", (points,), BT, statements_of_rows(BT), what))
    for (m, r), (AT, G, _) in forms.items():
        found += [
            Transform("FilterTransform", (m, r), G, statements_of_rows(G), f"G of F({m}, {r})"),
            Transform("OutputTransform", (m, r), AT, statements_of_columns(AT), f"AT of F({m}, {r})"),
        ]
    return found


def statements_of_rows(matrix: Matrix) -> tuple[Statement, ...]:
    """BT or G: rows 2i - 1 and 2i, of points p and -p, share their even and odd halves."""
    shared: list[Statement] = []
    results: list[Statement] = []
    row = 0
    while row < len(matrix):
        halves = _halves(matrix[row], matrix[row + 1]) if row % 2 and row + 1 < len(matrix) else None
        if halves is None:
            results.append(Statement(f"out{row}", _terms(matrix[row])))
            row += 1
            continue
        (even_factor, even), (odd_factor, odd) = (
            _half(f"{name}{row}", half, shared) for name, half in zip(("even", "odd"), halves, strict=True)
        )
        if even_factor != 1:
            shared.append(Statement(f"scaled{row}", ((even_factor, even),)))
            even = f"scaled{row}"
        one = Fraction(1)
        results.append(Statement(f"out{row}", ((one, even), (odd_factor, odd))))
        results.append(Statement(f"out{row + 1}", ((one, even), (-odd_factor, odd))))
        row += 2
    return (*shared, *results)


def statements_of_columns(matrix: Matrix) -> tuple[Statement, ...]:
    """AT: each row needs the sum or the difference of columns 2i - 1 and 2i, of points p and -p."""
    shared: list[Statement] = []
    size = len(matrix[0])
    one = Fraction(1)
    rows: list[list[tuple[Fraction, str]]] = [[] for _ in matrix]
    column = 0
    while column < size:
        values = [line[column] for line in matrix]
        pair = [line[column + 1] for line in matrix] if column % 2 and column + 2 < size else None
        if pair is None:
            for terms, value in zip(rows, values, strict=True):
                terms += [(value, f"in{column}")] if value else []
            column += 1
            continue
        first, second = f"in{column}", f"in{column + 1}"
        shared.append(Statement(f"sum{column}", ((one, first), (one, second))))
        shared.append(Statement(f"difference{column}", ((one, first), (-one, second))))
        for terms, value, other in zip(rows, values, pair, strict=True):
            if abs(value) != abs(other):
                raise AssertionError("columns 2i - 1 and 2i of AT belong to points p and -p")
            terms += [(value, f"{'sum' if value == other else 'difference'}{column}")] if value else []
        column += 2
    results = [Statement(f"out{row}", tuple(terms)) for row, terms in enumerate(rows)]
    return (*shared, *results)


def header() -> str:
    """The whole text of kernels/winograd_transforms.cuh."""
    structs = "\n".join(_struct(transform) for transform in transforms())
    return f"{_HEAD}\n{structs}\n}}  // namespace pycnn\n"


_HEAD = """\
// Winograd's transforms along one dimension, as straight-line code.  Written by
//
//     python -m pycnn.jit.winograd_codegen kernels/winograd_transforms.cuh
//
// from the exact fractions of pycnn/winograd.py; a test holds the two together.  Do not edit.
//
//     y = AT ((G g) * (BT d))        y: m outputs, g: r taps, d: m + r - 1 inputs: F(m, r)
//
// BT depends on the number of points, m + r - 1, alone.  wgrad is F(3, m): its "taps" are a tile of dy, and its outputs
// the taps of dw.
//
// X<...>::line reads X::ins values that lie `from` apart and writes X::outs values `to` apart; the two may be the same
// place.  Rows of points p and -p share their even and odd halves, columns their sum and difference.
#pragma once

namespace pycnn {

template <int points>
struct InputTransform;
template <int m, int r>
struct FilterTransform;
template <int m, int r>
struct OutputTransform;
"""


def _struct(transform: Transform) -> str:
    matrix = transform.matrix
    ins, outs = len(matrix[0]), len(matrix)
    lines = [
        f"// {transform.what}.",
        "template <>",
        f"struct {transform.name}<{', '.join(map(str, transform.sizes))}> {{",
        f"    static constexpr int ins = {ins}, outs = {outs};",
        "    template <int from, int to>",
        "    static __device__ __forceinline__ void line(const float* in, float* out) {",
        *(f"        const float in{i} = in[{i} * from];" for i in range(ins)),
        *(f"        const float {each.name} = {each.expression};" for each in transform.statements),
        *(f"        out[{i} * to] = out{i};" for i in range(outs)),
        "    }",
        "};",
    ]
    return "\n".join(lines) + "\n"


def _terms(row: Sequence[Fraction]) -> Terms:
    return tuple((value, f"in{column}") for column, value in enumerate(row) if value)


def _halves(row: Sequence[Fraction], other: Sequence[Fraction]) -> tuple[Terms, Terms] | None:
    """The terms in which two rows agree, and those in which they differ by sign; None if there is a third kind."""
    if any(abs(a) != abs(b) for a, b in zip(row, other, strict=True)):
        return None
    even = [a if a == b else Fraction(0) for a, b in zip(row, other, strict=True)]
    odd = [a if a != b else Fraction(0) for a, b in zip(row, other, strict=True)]
    return _terms(even), _terms(odd)


def _half(name: str, terms: Terms, shared: list[Statement]) -> tuple[Fraction, str]:
    """A sum as (factor, name of what it multiplies); adds to `shared` the statement that computes the latter."""
    if len(terms) == 1:
        return terms[0]
    values = [value for value, _ in terms]
    factor = Fraction(1)
    if factor not in values:
        factor = next(value for value in values if all(_is_dyadic(other / value) for other in values))
    shared.append(Statement(name, tuple((value / factor, operand) for value, operand in terms)))
    return factor, name


def _is_dyadic(value: Fraction) -> bool:
    return value.denominator & (value.denominator - 1) == 0


def _scaled(coefficient: Fraction, operand: str) -> str:
    if abs(coefficient) == 1:
        return operand if coefficient > 0 else f"-{operand}"
    return f"{_number(coefficient)} * {operand}"


def _number(value: Fraction) -> str:
    """A float constant: exact where it is dyadic, else a quotient of exact ones, which the compiler rounds once."""
    if _is_dyadic(value):
        return f"{float(value)!r}f"
    return f"{value.numerator}.0f / {value.denominator}.0f"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(header(), encoding="utf-8")
