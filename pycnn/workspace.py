"""How much memory the CPU engine's convolutions take beside their operands and result, at most.

Bounds, not measurements: what grows with the problem is counted as the kernels of csrc/cpu cut it, and what every
thread has for itself for the threads in force; both are rounded up.  The planar Winograd kernels tell theirs
themselves.  What is of one size whatever the problem, `fixed`, is not counted.

A gradient of the image through filters that hold an infinity or a NaN is the exception: direct and im2col_implicit then
unfold an image, as im2col_explicit does.
"""

from __future__ import annotations

import numpy as np

from pycnn import _cpu, winograd
from pycnn.shape import Conv2dShape

__all__ = ["at_most", "fixed"]

_TASKS = 16  # into which the kernels cut a problem at least
_TILE_ROWS, _TILE_VECTORS = 8, 3  # of a register tile, at most
_DEPTH = 256  # steps of a packed panel, at most
_GROUP = 4 << 20  # bytes of packed images at a time, where one image is not more


def at_most(name: str, operator: str, shape: Conv2dShape, dtype: str) -> int:
    """Bytes that the implementation `name` has allocated at any time of a pass, at most.

    Args:
        name: of an implementation that can run the problem.
        operator: "fprop", "dgrad" or "wgrad".
        shape: the problem.
        dtype: "float32" or "float64".

    >>> columns = 4 * 64 * 3 * 3 * 54 * 54
    >>> at_most("im2col_explicit", "fprop", Conv2dShape(1, 64, 56, 56, 64, 3, 3), "float32") == columns
    True
    """
    size, threads, s = np.dtype(dtype).itemsize, _cpu.num_threads(), shape
    lanes = {"baseline": 16, "avx2": 32, "avx512": 64}[_cpu.isa()] // size
    taps, filters = s.R * s.S, s.K * (s.C // s.groups) * s.R * s.S
    if name == "im2col_explicit":
        columns = s.C * taps * s.P * s.Q
        return size * (columns + (filters if operator == "dgrad" else 0))
    if name == "im2col_implicit":
        slices = min(_TASKS, s.N * s.P * s.Q // 2048) if operator == "wgrad" else 0
        return size * slices * filters if slices > 1 else 0
    tile = winograd.tile_of(name)
    if name == "direct_packed" or (tile is not None and (s.R == 5 or s.dilation != (1, 1)) and operator != "wgrad"):
        return _packed(operator, s, tile, lanes, threads)
    if tile is not None:
        wide = dtype == "float64"
        sizes = (s.x_shape, s.w_shape, s.y_shape, s.padding, s.dilation, s.groups)
        return _cpu.winograd_workspace(operator, *sizes, tile, wide)
    return _direct(operator, s, size, lanes, threads)


def fixed(dtype: str) -> int:
    """Bytes that any pass may allocate beside, of a blocked product's operands for each thread, and of short lists."""
    panel = _TILE_VECTORS * 64 // np.dtype(dtype).itemsize
    product = 264 * _DEPTH + panel * _DEPTH + _TILE_ROWS * panel
    return _cpu.num_threads() * product * np.dtype(dtype).itemsize + (1 << 16)


def _direct(operator: str, s: Conv2dShape, size: int, lanes: int, threads: int) -> int:
    """Planes of the image that stay in the second cache, filters in the order of the tiles, sums of slices."""
    panel = _TILE_VECTORS * lanes
    taps, filters = s.R * s.S, s.K * (s.C // s.groups) * s.R * s.S
    reach = [dilation * (window - 1) + 1 for dilation, window in zip(s.dilation, (s.R, s.S), strict=True)]
    high, wide = (max(s.P, s.H), max(s.Q, s.W))
    if s.groups == s.C == s.K and s.groups > 1:
        tables = 8 * high * s.R + 16 * s.stride[0] + 160 * (-(-wide // lanes) + s.stride[1]) * s.S + 16 * (taps + wide)
        own = max(4096, wide) * lanes * 9 // 8 + taps + 9 * lanes * s.groups
        return tables + size * (wide + threads * own)
    channels = max(s.C, s.K) // s.groups
    if operator == "wgrad":
        kept = (s.Q - 1) * s.stride[1] + reach[1]
        slices = min(_TASKS, s.N * s.P)
        vectors = -(-s.C // s.groups * s.S // lanes) + s.S * 2
        turned = max(384 << 10, size * reach[0] * kept * min(max(panel, 4 * lanes), s.C // s.groups + panel))
        few = max(192 << 10, size * (reach[0] + s.stride[0]) * s.stride[1] * (s.C // s.groups) * (s.Q + reach[1]))
        few += max(192 << 10, size * s.Q * panel)
        sums = slices * (s.K + s.groups * panel) * max(s.R * vectors * lanes, filters // s.K + panel * taps)
        return size * sums + threads * (max(turned, few) + size * channels * kept) + 4 * s.P * s.Q
    residues = min(s.stride[0], s.R) * min(s.stride[1], s.S) if operator == "fprop" else 1
    rows, columns = (high + reach[0], wide + reach[1])
    whole = s.N * channels * residues * rows * columns
    most = max((1 << 20) // size, residues * (1 + reach[0]) * (panel + reach[1]))
    blocks = max(threads, _TASKS if whole > (512 << 10) // size else min(_TASKS, s.groups))
    planes = size * min(whole, most) + channels * 128 + size * panel
    pixels = s.P * s.Q
    if taps == 1 and (s.P, s.Q) == (s.H, s.W) and pixels >= panel * (1 if s.N == 1 else 4):
        planes = 0  # a 1x1 filter reads the image where it lies
    lines = min(s.N * rows, planes // size)
    strips = planes // size // lanes + 2 * lines + 1
    lists = threads * (88 * strips + 24 * lines)
    return size * filters + 4 * taps * channels + blocks * planes + lists


def _packed(operator: str, s: Conv2dShape, tile: int | None, lanes: int, threads: int) -> int:
    """Filters in blocks of vectors; where pixels are taken apart some images; the points of a chunk of tiles."""

    def up(channels: int) -> int:
        return -(-channels // lanes) * lanes

    taps = s.R * s.S
    filters = up(s.K) * up(s.C) * taps
    turned = threads * max(s.C, s.K, lanes) * taps * lanes
    image = up(s.C) * s.H * s.W + (up(s.K) * s.P * s.Q if tile is not None else 0)
    apart = s.stride != (1, 1) if tile is None else s.dilation != (1, 1)
    images = max(_GROUP // 4, image) if apart else 0
    points = 0
    if tile is not None:
        side = tile + s.R - 1
        if apart:
            points += up(s.K) * up(s.C) * side**2
        # V, U and M of a chunk: 4 MiB, 288 KiB for each of two vectors, 448 KiB; more where one tile's are.
        channels = max(up(s.C), up(s.K))
        tiles = s.N * (-(-max(s.P, s.H) // tile) + 1) * (-(-max(s.Q, s.W) // tile) + 1)
        v = min(max(1 << 20, 32 * side**2 * channels), (tiles + 32) * side**2 * channels) + side**2 * lanes
        u = max(1 << 18, 4 * side**2 * lanes * lanes)
        m = min(max(1 << 18, 64 * side**2 * lanes), (tiles + 32) * side**2 * 2 * lanes)
        points += threads * (v + u + m)
    runs = 16 * (-(-max(s.C, s.K) // lanes) + 1) * (s.R + 2) * (s.S + 2) * (2 * s.R + 1) * (2 * s.S + 1)
    return 4 * (filters + turned + images + points) + runs + 128 * s.stride[0] * s.stride[1]
