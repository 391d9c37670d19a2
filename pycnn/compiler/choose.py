"""Which algorithm computes a convolution of a compiled network, by a count of what the packed kernels do.

The count is in cycles of one core, of which a machine with any number of threads does the same number:

    direct:    tiles of pixels * filters * C * taps inside the image / 2            (two multiply-adds a cycle)
    Winograd:  points * tiles of m x m * filters * C / 2 / 0.87                     the products
               + tiles * C * `into` + tiles * K * `back`                            the transforms of x and y
               + chunks * C * K * `filter`   or   the bytes of U, wherever they lie of filters, made or kept

with C and K in vectors of channels.  The coefficients are the cycles of one vector's transform, measured on a core
whose vectors are 64 bytes wide; they count instructions, so they hold for others as well as for that one.  On 17 layers
of 1 to 8 images, with every tile, the prediction was within a fifth of the measurement in 97 of 113 cases.
"""

from __future__ import annotations

from typing import NamedTuple

from pycnn import algorithms, winograd
from pycnn.shape import Conv2dShape, taps_inside

__all__ = ["SHARED", "Choice", "choose"]


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
_TILE = 100.0  # cycles to begin and end a tile of one vector
_SHORTEST = 4  # a tile of fewer pixels takes as long as one of this many
_NEAR, _FAR = 256, 6  # the same for a tile of more steps, whose filters come from L2
_MEMORY = 0.1  # cycles of all cores for a byte from memory, half of them hidden behind the products
SHARED = 24 << 20  # bytes that a call leaves in the cache of all cores for the next one
_CACHE = 0.01  # the same for a byte of filters that the cache of all cores still holds from the call before
_AGAIN = 0.03  # the same for a byte that the next chunk reads again, from a nearer cache
_LOOP = 15_000.0  # cycles to start and join a loop, with what it leaves in the wrong core's cache
_WORTH = 0.97  # of the time: filters kept transformed take two to seven times their memory
_MARGIN = 0.9  # Winograd costs accuracy: it has to save this much


def choose(shape: Conv2dShape, algo: str = "auto", lanes: int = 16, resident: bool = False) -> Choice:
    """The packed layout's algorithm for a convolution without groups.

    Args:
        shape: the problem, with its batch.
        algo: what the layer asks for.  "im2col" and its variants stand for "direct" here: both sum in one pass, without
            stored columns.
        lanes: channels of a vector.
        resident: whether the filters of the whole network, kept transformed, stay in cache between calls.

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
        made, kept = _winograd(shape, tile, lanes, resident)
        handicap = algorithms.HANDICAPS[tile + shape.R - 1] / _MARGIN
        if min(made, kept) * handicap < least:
            least = min(made, kept) * handicap
            best = Choice(winograd.variant("fprop", tile, shape.R), kept < _WORTH * made)
    return best


def _vectors(channels: int, lanes: int) -> int:
    return -(-channels // lanes)


def _rows(count: int, shortest: int = _SHORTEST) -> float:
    """Rows of register tiles that cover `count` pixels, in time."""
    tiles = -(-count // _ROWS)
    return tiles * max(shortest, count / tiles)


def _covered(count: int, length: int, steps: float) -> float:
    """Cycles for `count` lines of `length` pixels in register tiles, each `steps` deep, for a vector of filters."""
    shortest = _SHORTEST if steps <= _NEAR else _FAR
    return count * (_rows(length, shortest) * steps / 2 + -(-length // _ROWS) * _TILE)


def _direct(shape: Conv2dShape, lanes: int) -> float:
    if shape.R * shape.S == 1 and not any(shape.padding) and shape.stride == (1, 1):
        cycles = _covered(1, shape.P * shape.Q, shape.C)
    else:
        lines, columns = (
            taps_inside(size, out, window, shape.stride[axis], shape.padding[2 * axis], shape.dilation[axis])
            for axis, size, out, window in ((0, shape.H, shape.P, shape.R), (1, shape.W, shape.Q, shape.S))
        )
        cycles = sum(
            min(_covered(count, width, taps * taken * shape.C), _covered(width, count, taps * taken * shape.C))
            for count, taps in lines
            for width, taken in columns
        )
    return _LOOP + shape.N * cycles * _vectors(shape.K, lanes)


def _winograd(shape: Conv2dShape, tile: int, lanes: int, resident: bool) -> tuple[float, float]:
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
    products = points * tiles / most * K * _rows(most) * shape.C / 2 / _PRODUCTS
    work = 2 * _LOOP + products + tiles * (C * t.into + K * t.back)
    filters = points * shape.C * K * lanes * 4
    byte = _CACHE if resident and filters <= SHARED else _MEMORY
    return (
        work + chunks * shape.C * K * t.filter,
        work + filters * (byte + _AGAIN * (chunks - 1)),
    )
