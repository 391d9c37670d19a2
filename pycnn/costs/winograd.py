"""The work of Winograd's algorithms: transforms, products on the points, transforms back."""

from __future__ import annotations

from typing import NamedTuple

from pycnn.costs.engine import Engine, Work, packed_filters, up
from pycnn.shape import Conv2dShape

__all__ = ["winograd", "winograd_packed", "winograd_wgrad"]


class _Grid(NamedTuple):
    """A batch of planes cut into chunks of units, each a run of tiles along a row."""

    unit: int
    units: int
    in_chunk: int
    chunks: int


def _grid(planes: int, height: int, width: int, tile: int, most: int) -> _Grid:
    rows, columns = up(height, tile), up(width, tile)
    parts = up(columns, most)
    unit = up(columns, parts)
    units = planes * rows * parts
    chunks = max(1, up(units, max(1, most // unit)))
    in_chunk = up(units, chunks)
    return _Grid(unit, units, in_chunk, up(units, in_chunk))


def _at_once(e: Engine, points: int, step: int) -> int:
    """Tiles along a row that a transform takes in one turn: as many as lie in the vectors that hold one."""
    return (up(points, e.lanes) * e.lanes - (points - step)) // step


def winograd(e: Engine, operator: str, s: Conv2dShape, tile: int) -> Work:
    """fprop and dgrad: inputs of a chunk, then for each panel of filters its U, the products, its results."""
    channels, outputs, height, width = s.C // s.groups, s.K // s.groups, s.P, s.Q
    if operator == "dgrad":
        channels, outputs, height, width = outputs, channels, s.H, s.W
    side = tile + 2
    points, panel = side * side, 2 * e.lanes
    of_channels, of_outputs = up(channels, e.lanes), up(outputs, e.lanes)
    depth = max(e.lanes, (288 << 10) // (points * panel * e.size) // e.lanes * e.lanes)
    depth = min(depth, of_channels * e.lanes)
    blocks = up(channels, depth)
    tiles = s.N * up(height, tile) * up(width, tile)
    most = min(
        max(64, tiles // 8),
        (448 << 10) // (points * panel * e.size),
        (8 << 20) // (points * blocks * depth * e.size),
    )
    grid = _grid(s.N, height, width, tile, max(2 * e.point_rows, most // e.point_rows * e.point_rows))
    panels = up(outputs, panel)
    pieces = min(grid.in_chunk, up(4, panels))
    parts = grid.chunks * pieces
    held = up(grid.units * grid.unit, parts)  # tiles of a part
    chunks = s.groups * grid.chunks
    shared = chunks < 8 and chunks % e.threads != 0
    jobs = s.groups * parts * panels
    # Results leave in whole vectors of tiles along a row.
    stored = max(1, e.lanes // 4) if tile == 4 else e.lanes // 2
    return {
        "fma": jobs * points * channels * e.point_steps(held) * e.uneven(panels * pieces if shared else chunks),
        "tile": jobs * points * blocks * up(held, e.point_rows),
        "source": s.groups * grid.units * up(grid.unit, _at_once(e, side, tile)) * of_channels * points * e.lanes,
        "result": s.groups * grid.units * up(grid.unit, stored) * of_outputs * tile * side * e.lanes,
        "filter": jobs * channels * points * panel,
        "loop": 2 * chunks - 1 if shared else 0,
    }


def winograd_wgrad(e: Engine, operator: str, s: Conv2dShape, tile: int) -> Work:
    """Inputs and gradients of a chunk, products summed over its tiles on the points, dw from the sums.

    The pixels with one residue of the dilation are an image of their own, copied out with its padding.
    """
    channels, filters = s.C // s.groups, s.K // s.groups
    images, height_y, width_y = s.N, s.P, s.Q
    copied, lines = 0, 0
    if s.dilation != (1, 1):
        images *= s.dilation[0] * s.dilation[1]
        height_y, width_y = up(s.P, s.dilation[0]), up(s.Q, s.dilation[1])
        lines = images * (s.C * (height_y + s.R - 1) + s.K * height_y)
        copied = lines * width_y
    side = tile + s.R - 1
    points, panel = side * side, 2 * e.lanes
    of_channels, of_filters = up(channels, e.lanes), up(filters, e.lanes)
    height = max(e.lanes, (592 << 10) // (points * 2 * panel * e.size) // e.lanes * e.lanes)
    height = min(height, of_channels * e.lanes)
    blocks, panels = up(channels, height), up(filters, panel)
    wide = min(2, panels)
    slab = min(panels, max(1, (64 << 20) // (points * blocks * height * panel * e.size) // wide) * wide)
    room = max(4 << 20, min(points * blocks * height * slab * panel * e.size, 24 << 20))
    most = max(64, room // (points * (blocks * height + slab * panel) * e.size) // 64 * 64)
    grid = _grid(images, height_y, width_y, tile, most)
    slabs = up(panels, slab)
    fused = grid.chunks == 1 and blocks * up(slab, wide) >= 8
    tasks = blocks * up(slab, wide) * (1 if fused else side)
    full, rest = divmod(channels, height)
    steps = full * e.point_steps(height) + (e.point_steps(rest) if rest else 0)
    turns = up(grid.unit, _at_once(e, side, tile)) * of_channels * slabs
    turns += up(grid.unit, up(tile, e.lanes) * e.lanes // tile) * of_filters
    in_chunk = min(grid.in_chunk, grid.units) * grid.unit
    return {
        "fma": s.groups * points * panels * steps * grid.units * grid.unit * e.uneven(tasks),
        "source": s.groups * grid.units * turns * points * e.lanes,
        "sums": s.groups * points * channels * panels * panel * (1 + grid.chunks * up(in_chunk, 64)),
        "copy": copied,
        "row": lines,
        "loop": s.groups * slabs * (2 if fused else 1 + 2 * grid.chunks) - 1,
    }


def winograd_packed(e: Engine, operator: str, s: Conv2dShape, tile: int) -> Work:
    """fprop and dgrad in the packed layout, the pixels with one residue of the dilation as an image of their own."""
    channels, outputs, height, width = s.C, s.K, s.P, s.Q
    if operator == "dgrad":
        channels, outputs, height, width = s.K, s.C, s.H, s.W
    side = tile + s.R - 1
    points, panel = side * side, 2 * e.lanes
    of_channels, of_outputs = up(channels, e.lanes), up(outputs, e.lanes)
    images = s.dilation[0] * s.dilation[1]
    tiles = s.N * up(up(height, s.dilation[0]), tile) * up(up(width, s.dilation[1]), tile)  # of one residue
    most = min(
        max(64, tiles // 8),
        (448 << 10) // (points * panel * e.size),
        (4 << 20) // (points * of_channels * e.lanes * e.size),
    )
    held = min(tiles, max(2 * e.packed_rows, most // e.packed_rows * e.packed_rows))
    chunks = up(tiles, held)
    counted = {
        "fma": images * points * channels * e.packed_steps(held, of_outputs) * tiles / held,
        "tile": images * points * chunks * up(held, e.packed_rows) * up(of_outputs, 2),
        "source": images * tiles * of_channels * points * e.lanes,
        "result": images * tiles * of_outputs * tile * side * e.lanes,
    }
    if images == 1:  # from planes to planes; filters are transformed for every chunk
        shared = chunks < 8 and chunks % e.threads != 0
        filters = packed_filters(e, s, s.R * s.S + chunks * points)
        return {**counted, "filter": filters, "loop": 2 * chunks if shared else 2}
    # Packed before and unpacked behind, some images at a time; filters are transformed once.
    values = sum(up(count, e.lanes) * e.lanes * plane for count, plane in ((s.C, s.H * s.W), (s.K, s.P * s.Q)))
    groups = up(s.N, max(1, (1 << 20) // values))
    filters = packed_filters(e, s, s.R * s.S + points)
    return {**counted, "turn": s.N * values, "filter": filters, "loop": 2 + (2 + 2 * images) * groups}
