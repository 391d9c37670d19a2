"""The transform matrices of Winograd's minimal filtering F(m, r), in exact fractions.

    y = AT @ ((G @ g) * (BT @ d))        y: m outputs, g: r taps, d: m + r - 1 inputs

and for images the same along both axes: ``y = AT @ ((G @ g @ G.T) * (BT @ d @ BT.T)) @ AT.T``.

Cook-Toom: a polynomial product of degree m + r - 2 is fixed by its values at m + r - 2 points and its leading
coefficient (the point at infinity).  Transposing that product gives the filtering above.  The native engine computes
the same matrices from the same points at compile time; a test holds the two together.

Reference: Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015; Lavin's wincnn, whose points and
signs are kept.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

__all__ = ["POINTS", "cook_toom", "is_exact"]

Matrix = tuple[tuple[Fraction, ...], ...]

POINTS = tuple(Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2", "4", "-4", "1/4", "-1/4"))
"""wincnn's evaluation points: F(m, r) uses the first m + r - 2 of them, and infinity."""


@lru_cache(maxsize=64)
def cook_toom(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """The matrices AT (m x a), G (a x r) and BT (a x a) of F(m, r), a = m + r - 1.

    Args:
        m: outputs of a tile, at least 1.
        r: taps of the filter, at least 1.

    Raises:
        ValueError: m or r below 1, or more points needed than `POINTS` has.

    >>> AT, G, BT = cook_toom(2, 3)
    >>> [[str(v) for v in row] for row in G]
    [['1', '0', '0'], ['1/2', '1/2', '1/2'], ['1/2', '-1/2', '1/2'], ['0', '0', '1']]
    """
    count = m + r - 2
    if m < 1 or r < 1 or count < 1 or count > len(POINTS):
        raise ValueError(f"F({m}, {r}) needs m, r >= 1 and between 1 and {len(POINTS)} points, not {count}")
    points = POINTS[:count]
    # N_i(p_i), N_i(x) = product of x - p_k over k != i: what BT's rows are at their own point, so G divides by it.
    scale = [_value(_product(points, i), p) for i, p in enumerate(points)]
    sign = [1] * count
    if scale[0] < 0:  # wincnn keeps the first row's scale positive
        scale[0], sign[0] = -scale[0], -1
    infinity_m = tuple(Fraction(int(i == m - 1)) for i in range(m))
    infinity_r = tuple(Fraction(int(i == r - 1)) for i in range(r))
    columns = [tuple(p**i for i in range(m)) for p in points] + [infinity_m]
    AT = tuple(tuple(column[i] for column in columns) for i in range(m))
    G = (*(tuple(p**j / f for j in range(r)) for p, f in zip(points, scale, strict=True)), infinity_r)
    rows = [tuple(s * c for c in _product(points, i)) + (Fraction(0),) for i, s in enumerate(sign)]
    BT = (*rows, _product(points, None))
    return AT, G, BT


def is_exact(AT: Matrix, G: Matrix, BT: Matrix) -> bool:
    """Whether the matrices compute y[o] = sum over t of g[t] * d[o + t] for every d and g.

    Both sides are bilinear, so comparing them on every pair of unit vectors is a proof.

    >>> is_exact(*cook_toom(4, 3))
    True
    """
    taps, inputs = len(G[0]), len(BT[0])
    return all(
        sum(row[i] * G[i][t] * BT[i][j] for i in range(inputs)) == int(j == o + t)
        for o, row in enumerate(AT)
        for t in range(taps)
        for j in range(inputs)
    )


def _product(points: tuple[Fraction, ...], without: int | None) -> tuple[Fraction, ...]:
    """Coefficients, constant first, of the product of x - p over the points but one."""
    polynomial = [Fraction(1)]
    for k, p in enumerate(points):
        if k != without:
            shifted = [Fraction(0), *polynomial]
            polynomial = [s - p * c for s, c in zip(shifted, [*polynomial, Fraction(0)], strict=True)]
    return tuple(polynomial)


def _value(polynomial: tuple[Fraction, ...], x: Fraction) -> Fraction:
    return sum((c * x**i for i, c in enumerate(polynomial)), Fraction(0))
