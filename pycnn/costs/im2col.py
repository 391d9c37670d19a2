"""The work of im2col: a matrix product of filters and columns, which are stored or unfolded on the way."""

from __future__ import annotations

from typing import NamedTuple

from pycnn.costs.engine import NEAR, SHARED, TASKS, Engine, Work, pointwise, up
from pycnn.shape import Conv2dShape

__all__ = ["explicit", "implicit"]


class _Product(NamedTuple):
    """A blocked matrix product: multiply-adds and tiles, tasks, how often either operand is packed."""

    fma: float
    tile: int
    task: int
    packs_a: int
    packs_b: int
    copies_a: bool  # a plain operand is copied, since many tiles use it
    copies_b: bool


def _product(e: Engine, batch: int, m: int, n: int, k: int) -> _Product:
    slivers, strips = up(m, e.rows), up(up(n, e.lanes), e.vectors)
    high, wide = min(slivers, 256 // e.rows), min(strips, 16)
    while batch * up(slivers, high) * up(strips, wide) < TASKS:
        if wide > 1 and wide * e.panel >= high * e.rows:
            wide = up(wide, 2)
        elif high > 4:
            high = up(high, 2)
        else:
            break
    down, across = up(slivers, high), up(strips, wide)
    tasks = batch * down * across
    return _Product(
        batch * e.steps(m, up(n, e.lanes)) * k * e.uneven(tasks),
        batch * slivers * strips * up(k, e.depth),
        tasks,
        batch * across,
        batch * down,
        wide > 4,
        high > 4,
    )


def implicit(e: Engine, operator: str, s: Conv2dShape) -> Work:
    """One blocked product that unfolds its panels where it wants them."""
    channels, filters, taps = s.C // s.groups, s.K // s.groups, s.R * s.S
    strided = s.stride != (1, 1) and not pointwise(s)
    if operator == "wgrad":
        m, n, pixels = filters, channels * taps, s.N * s.P * s.Q
        tiles = s.groups * up(m, 4 * e.rows) * up(n, e.panel)
        slices = max(1, min(up(TASKS, tiles), pixels // 2048))
        k = up(pixels, slices)
        p = _product(e, slices * s.groups, m, n, k)
        turned = p.packs_a * m * k + p.packs_b * n * k
        lines = p.packs_b * n * (k // s.Q + up(k, e.depth))
        summed = s.K * n * slices if slices > 1 else 0
        return _im2col(p, turned, p.packs_b * n * k + summed, lines, strided, int(slices > 1))
    if operator == "fprop":
        m, n, k, width = filters, s.P * s.Q, channels * taps, s.Q
    else:
        m, n, k, width = channels, s.H * s.W, filters * taps, s.W
    p = _product(e, s.N * s.groups, m, n, k)
    turned = p.packs_a * m * k if operator == "dgrad" or p.copies_a else 0
    if pointwise(s):
        return _im2col(p, turned, p.packs_b * n * k if p.copies_b else 0, 0, False, 0)
    return _im2col(p, turned, p.packs_b * n * k, p.packs_b * k * (n // width + up(n, e.panel)), strided, 0)


def _im2col(p: _Product, turned: int, copied: int, lines: int, strided: bool, loops: int) -> Work:
    return {
        "fma": p.fma,
        "tile": p.tile,
        "task": p.task,
        "turn": turned,
        "copy": copied,
        "row": lines,
        "stride": copied if strided else 0,
        "loop": loops,
    }


def explicit(e: Engine, operator: str, s: Conv2dShape) -> Work:
    """The columns of an image are stored, then multiplied; image by image and group by group."""
    channels, filters, pixels = s.C // s.groups, s.K // s.groups, s.P * s.Q
    window, products = channels * s.R * s.S, s.N * s.groups
    counted = _thin(e, operator, s, filters, window, pixels)
    if counted is None:
        if operator == "fprop":
            p = _product(e, 1, filters, pixels, window)
            turned, copied = p.packs_a * filters * window * p.copies_a, p.packs_b * window * pixels * p.copies_b
        elif operator == "dgrad":
            p = _product(e, 1, window, pixels, filters)
            turned, copied = 0, filters * (p.packs_a * window * p.copies_a + p.packs_b * pixels * p.copies_b)
        else:
            p = _product(e, 1, filters, window, pixels)
            turned, copied = pixels * (p.packs_a * filters + p.packs_b * window), 0
        counted = {key: products * value for key, value in _im2col(p, turned, copied, 0, False, 1).items()}
    counted["loop"] -= 1
    if not pointwise(s):
        columns = s.groups * window * pixels
        counted["copy"] = counted.get("copy", 0) + (0 if operator == "dgrad" else s.N * columns)
        counted["turn"] = counted.get("turn", 0) + (s.N * columns if operator == "dgrad" else 0)
        counted["row"] = s.N * s.groups * window * s.P
        counted["stride"] = s.N * columns if s.stride != (1, 1) else 0
        counted["loop"] += s.N
        # Written once and read once, and found in the cache of a core only where they are few.
        counted["cache"] = 2 * s.N * max(0, columns * e.size - NEAR)
        counted["memory"] = 2 * s.N * max(0, columns * e.size - SHARED)
    return counted


def _thin(e: Engine, operator: str, s: Conv2dShape, filters: int, window: int, pixels: int) -> Work | None:
    """The products that kernels for few rows or a short sum take, or None."""
    products, values = s.N * s.groups, 0
    if operator == "wgrad":
        if filters <= 12 and pixels >= e.lanes and s.N == 1:  # dot products, four rows at a time
            values = up(filters, 4) * window * pixels
    elif pixels >= e.lanes:
        m, k = (filters, window) if operator == "fprop" else (window, filters)
        if k <= 4:
            values = m * pixels
        elif m <= 4:
            values = m * k * pixels
    return {"thin": products * values, "loop": products} if values else None
