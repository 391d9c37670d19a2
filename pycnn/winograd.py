"""Winograd's minimal filtering F(m, r): its transform matrices in exact fractions and its limits.

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

from pycnn.shape import Conv2dShape

__all__ = [
    "LINES",
    "POINTS",
    "TILES",
    "TILES_5X5",
    "TILE_OF_LINES",
    "cook_toom",
    "is_exact",
    "points_of",
    "refuses",
    "sides",
    "tile_of",
    "variant",
]

Matrix = tuple[tuple[Fraction, ...], ...]

TILES = (2, 4, 6)
"""Sides of the tiles of y (of dy in wgrad) that the engines know for 3x3 filters."""

TILES_5X5 = (2, 4)
"""Sides of the tiles of y (of dx in dgrad, of dy in wgrad) that the engines know for 5x5 filters."""

LINES = tuple((taps, axis) for taps in (3, 5) for axis in (1, 0))
"""(taps, axis) of the filters of one line that the CUDA backend knows: 1x3, 3x1, 1x5 and 5x1."""

TILE_OF_LINES = 4
"""Length of their tiles of y (of dx in dgrad)."""

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
    rows = [(*(s * c for c in _product(points, i)), Fraction(0)) for i, s in enumerate(sign)]
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


def sides(size: int, axis: int | None = None) -> tuple[int, int]:
    """Rows and columns of a square of `size`, or of a line that lies along one axis.

    >>> sides(3), sides(3, axis=1), sides(3, axis=0)
    ((3, 3), (1, 3), (3, 1))
    """
    return (1 if axis == 1 else size, 1 if axis == 0 else size)


def variant(operator: str, tile: int, taps: int = 3, axis: int | None = None) -> str:
    """Name of the variant with tiles of `tile`: fprop and dgrad compute tiles, wgrad computes taps from tiles.

    >>> variant("fprop", 4), variant("wgrad", 4), variant("dgrad", 4, 5), variant("fprop", 4, 3, axis=0)
    ('winograd_f4x4_3x3', 'winograd_f3x3_4x4', 'winograd_f4x4_5x5', 'winograd_f4x1_3x1')
    """
    results, factors = (taps, tile) if operator == "wgrad" else (tile, taps)
    return "winograd_f{}x{}_{}x{}".format(*sides(results, axis), *sides(factors, axis))


def tile_of(name: str) -> int | None:
    """Side of the tile of a variant's name, or None where `name` is no Winograd variant.

    >>> tile_of("winograd_f6x6_3x3"), tile_of("winograd_f3x3_2x2"), tile_of("winograd_f4x4_5x5"), tile_of("direct")
    (6, 2, 4, None)
    """
    return _VARIANTS[name][0] if name in _VARIANTS else None


def points_of(name: str) -> int | None:
    """Points along an axis, on which a variant's accuracy depends; None where `name` is no Winograd variant.

    >>> points_of("winograd_f6x6_3x3"), points_of("winograd_f4x4_5x5"), points_of("winograd_f3x3_2x2")
    (8, 8, 4)
    >>> points_of("winograd_f4x4_3x3_3xtf32")
    6
    """
    name = name.removesuffix(SPLIT)
    return sum(_VARIANTS[name][:2]) - 1 if name in _VARIANTS else None


SPLIT = "_3xtf32"
"""How the names of variants end whose products are split and computed on tensor cores."""

# (tile, taps, axis) of every variant's name.
_VARIANTS: dict[str, tuple[int, int, int | None]] = {
    **{variant(operator, tile): (tile, 3, None) for operator in ("fprop", "wgrad") for tile in TILES},
    **{variant(operator, tile, 5): (tile, 5, None) for operator in ("fprop", "wgrad") for tile in TILES_5X5},
    **{variant("fprop", TILE_OF_LINES, taps, axis): (TILE_OF_LINES, taps, axis) for taps, axis in LINES},
}


def refuses(name: str, operator: str, shape: Conv2dShape) -> str | None:
    """The condition that keeps the variant `name` from running this problem, in a sentence, or None.

    >>> refuses("winograd_f2x2_3x3", "fprop", Conv2dShape(1, 4, 8, 8, 4, 5, 5))
    'this tile needs 3x3 filters, these are 5x5'
    """
    tile, taps, axis = _VARIANTS.get(name, (0, 0, None))
    if name != variant(operator, tile, taps, axis):
        gradient = "the filter gradient only" if operator != "wgrad" else "fprop and dgrad only"
        return f"{name} computes {gradient}"
    if sides(taps, axis) != (shape.R, shape.S):
        R, S = sides(taps, axis)
        return f"this tile needs {R}x{S} filters, these are {shape.R}x{shape.S}"
    if shape.stride != (1, 1):
        return f"Winograd needs stride 1, this is {shape.stride[0]}x{shape.stride[1]}"
    if shape.dilation != (1, 1):
        return f"Winograd needs dilation 1, this is {shape.dilation[0]}x{shape.dilation[1]}"
    return None


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
