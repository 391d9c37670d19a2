"""Which algorithm computes a convolution of a compiled network, by a count of what the packed kernels do.

The count is in cycles of one core, of which a machine with any number of threads does the same number:

    direct:    tiles of pixels * filters * C R S / 2                                (two multiply-adds a cycle)
    Winograd:  points * tiles of m x m * filters * C / 2 / 0.87                     the products
               + tiles * C * `into` + tiles * K * `back`                            the transforms of x and y
               + chunks * C * K * `filter`   or   the bytes of U over the memory's  of filters, made or kept

with C and K in vectors of channels.  The coefficients are the cycles of one vector's transform, measured on a core
whose vectors are 64 bytes wide; they count instructions, so they hold for others as well as for that one.  What is
predicted was within a fifth of what was measured on 20 layers of 1 to 8 images.
"""

from __future__ import annotations

from typing import NamedTuple

from pycnn import algorithms, winograd
from pycnn.shape import Conv2dShape

__all__ = ["Choice", "choose"]


class Choice(NamedTuple):
    """An algorithm of the packed layout: "direct" or a Winograd variant; `keep`: its filters stay transformed."""

    algo: str
    keep: bool


class _Tile(NamedTuple):
    into: float
    back: float
    filter: float


_TILES = {
    (2, 3): _Tile(90, 60, 56),
    (4, 3): _Tile(260, 160, 128),
    (6, 3): _Tile(720, 720, 260),
    (2, 5): _Tile(260, 90, 150),
    (4, 5): _Tile(720, 520, 330),
}
_PRODUCTS = 0.87  # share of the peak that the products of a point reach
_ROWS = 14  # pixels of a register tile
_SHORTEST = 4  # a tile of fewer pixels takes as long as one of this many
_MEMORY = 0.1  # cycles of all cores for a byte from memory, half of them hidden behind the products
_AGAIN = 0.03  # the same for a byte that the next chunk reads again, from a nearer cache
_LOOP = 25_000.0  # cycles to start and join a loop, with what it leaves in the wrong core's cache
_WORTH = 0.97  # of the time: filters kept transformed take two to seven times their memory
_MARGIN = 0.9  # Winograd costs accuracy: it has to save this much


def choose(shape: Conv2dShape, algo: str = "auto", lanes: int = 16) -> Choice:
    """The packed layout's algorithm for a convolution without groups.

    Args:
        shape: the problem, with its batch.
        algo: what the layer asks for.  "im2col" and its variants stand for "direct" here: both sum in one pass, without
            stored columns.
        lanes: channels of a vector.

    Raises:
        ValueError: as `pycnn.conv2d`, for an algorithm that cannot run the problem.

    >>> choose(Conv2dShape(1, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1)))
    Choice(algo='winograd_f4x4_3x3', keep=False)
    >>> choose(Conv2dShape(1, 64, 56, 56, 64, 1, 1))
    Choice(algo='direct', keep=False)
    """
    tiles = [tile for tile, taps in _TILES if shape.R == shape.S == taps and shape.stride == (1, 1)]
    if algo == "auto":
        if algorithms.accuracy() == "strict":
            tiles = [tile for tile in tiles if tile == 2 and shape.R == 3]
    else:
        name = algorithms.resolve(algo, "fprop", shape, "float32")
        tile = winograd.tile_of(name)
        if tile is None:
            return Choice("direct", False)
        tiles = [tile] if algo != "winograd" else tiles
    best, least = Choice("direct", False), _direct(shape, lanes)
    if algo != "auto":
        least = float("inf")
    for tile in tiles:
        made, kept = _winograd(shape, tile, lanes)
        handicap = algorithms.HANDICAPS[tile + shape.R - 1] / _MARGIN
        if min(made, kept) * handicap < least:
            least = min(made, kept) * handicap
            best = Choice(winograd.variant("fprop", tile, shape.R), kept < _WORTH * made)
    return best


def _vectors(channels: int, lanes: int) -> int:
    return -(-channels // lanes)


def _rows(count: int) -> float:
    """Rows of register tiles that cover `count` pixels, in time."""
    tiles = -(-count // _ROWS)
    return tiles * max(_SHORTEST, count / tiles)


def _direct(shape: Conv2dShape, lanes: int) -> float:
    flat = shape.R * shape.S == 1 and not any(shape.padding)
    rows = _rows(shape.P * shape.Q) if flat else shape.P * _rows(shape.Q)
    return _LOOP + shape.N * rows * _vectors(shape.K, lanes) * shape.C * shape.R * shape.S / 2


def _winograd(shape: Conv2dShape, tile: int, lanes: int) -> tuple[float, float]:
    """Cycles with filters transformed for every chunk of tiles, and with filters kept."""
    points = (tile + shape.R - 1) ** 2
    dilation = shape.dilation[0] * shape.dilation[1]  # as many images
    planes = shape.N * dilation
    P, Q = (-(-size // step) for size, step in zip((shape.P, shape.Q), shape.dilation, strict=True))
    tiles = planes * -(-P // tile) * -(-Q // tile)
    C, K = _vectors(shape.C, lanes), _vectors(shape.K, lanes)
    t = _TILES[tile, shape.R]
    room = min(max(64, tiles // 8), (448 << 10) // (points * 8 * lanes), (4 << 20) // (points * C * lanes * 4))
    chunks = dilation * -(-tiles // dilation // max(2 * _ROWS, room))
    most = min(tiles, max(2 * _ROWS, room))
    products = points * tiles / most * _rows(most) * K * shape.C / 2 / _PRODUCTS
    work = 3 * _LOOP + products + tiles * (C * t.into + K * t.back)
    filters = points * shape.C * K * lanes * 4
    return (
        work + chunks * shape.C * K * t.filter,
        work + filters * (_MEMORY + _AGAIN * (chunks - 1)),
    )
