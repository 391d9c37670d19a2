"""The work of the CPU engine's algorithms, counted: what a table of `pycnn.tuning` has seconds for.

Each algorithm's count follows the cut that its kernel makes (csrc/cpu/kernels, where the layouts are drawn), in few
terms; a term has the same meaning wherever it stands:

    call      1: validation, allocation, the way into the engine
    loop      parallel loops that are opened after the first
    task      tasks of a loop, each with room of its own to set up
    fma       multiply-adds of the register tiles, with their idle rows and lanes.  A step of a tile takes as long as
              `_SHORTEST` vector multiply-adds even where it has fewer, since each waits for the one before; and where
              the tasks do not divide evenly among the threads, the last round counts whole.
    tile      register tiles that are started and stored
    copy      values copied along memory: planes of an image, columns, packed panels, results that leave a buffer
    row       rows in which those lie, each with a start and an end of its own
    stride    values of those that lie a stride apart, where they come from or where they go to
    turn      values transposed, or gathered one by one, into the order of a tile
    thin      values read or written by the matrix products for few rows or a short sum
    source, result, filter    values on the Winograd points that its three transforms make, idle lanes included
    sums      values on the Winograd points that wgrad adds up in memory
    tap       multiply-adds of depthwise kernels, idle lanes included; `other`: of those that no 3x3 kernel does
    cache     bytes of operands and columns beyond `_NEAR`, which come from a cache that the cores share
    memory    bytes of those beyond `_SHARED`, which come from memory.  Both borders are usual ones; how a machine
              differs is left to its coefficients.

The seconds are non-negative, so more work of any kind is never predicted to take less time.  What the model leaves out:
how well the prefetchers follow, which cache lines fall into one set, and what else the machine does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pycnn import winograd
from pycnn.shape import Conv2dShape, taps_inside

__all__ = ["Work", "work"]

Work = dict[str, float]

_SHORTEST = 8  # vector multiply-adds a step of a tile takes at least: two a cycle, and four cycles until a sum is there
_TASKS = 16  # into how many a loop is cut at least, where it can be
_NEAR = 1 << 20  # bytes of a core's own cache
_SHARED = 16 << 20  # bytes of the cache that the cores share


def _up(whole: int, part: int) -> int:
    """How many parts cover the whole."""
    return -(-whole // part)


@dataclass(frozen=True, slots=True)
class _Engine:
    """What the cuts depend on besides the problem.

    Attributes:
        lanes: values of a vector.
        rows, vectors: of a register tile; `point_rows`: of the one that multiplies Winograd points, two vectors wide;
            `packed_rows`: of the one of the packed layout, two vectors wide.
        depth: steps of a packed panel.
        size: bytes of a value.
        threads: how many work.
    """

    lanes: int
    rows: int
    vectors: int
    point_rows: int
    depth: int
    size: int
    threads: int
    packed_rows: int

    @property
    def panel(self) -> int:
        """Values across a register tile."""
        return self.vectors * self.lanes

    def uneven(self, tasks: int) -> float:
        """How much longer so many equal tasks take than if they could be divided."""
        return _up(tasks, self.threads) * self.threads / tasks

    def steps(self, rows: int, width: int) -> int:
        """Multiply-adds of a step of all the tiles that cover `rows` x `width` vectors."""
        strips = _up(width, self.vectors)
        narrow, wider = divmod(width, strips)
        whole, rest = divmod(rows, self.rows)
        total = 0
        for height, count in ((self.rows, whole), (rest, 1)):
            if height and count:
                total += count * wider * max(height * (narrow + 1), _SHORTEST)
                total += count * (strips - wider) * max(height * narrow, _SHORTEST)
        return total * self.lanes

    def point_steps(self, rows: int) -> int:
        """The same for the tiles of the Winograd points, two vectors wide and of nearly equal height."""
        return self.lanes * _even(rows, self.point_rows, 2)

    def packed_steps(self, rows: int, width: int) -> int:
        """The same for tiles of the packed layout that cover `rows` x `width` vectors."""
        pairs, odd = divmod(width, 2)
        return self.lanes * sum(
            count * _even(rows, self.packed_rows, vectors) for count, vectors in ((pairs, 2), (odd, 1)) if count
        )


def _even(rows: int, most: int, vectors: int) -> int:
    """Vector multiply-adds of a step of tiles `vectors` wide, of nearly equal height and at most `most` rows."""
    blocks = _up(rows, most)
    low, higher = divmod(rows, blocks)
    return higher * max(vectors * (low + 1), _SHORTEST) + (blocks - higher) * max(vectors * low, _SHORTEST)


# By instruction set: bytes of a vector, `_Engine.rows`, `vectors`, `point_rows`, `depth`, `packed_rows`.
_TILES = {"avx512": (64, 8, 3, 12, 192, 14), "avx2": (32, 6, 2, 6, 256, 6), "baseline": (16, 4, 2, 4, 256, 5)}


@lru_cache(maxsize=64)
def _engine(isa: str, size: int, threads: int) -> _Engine:
    vector, rows, vectors, point_rows, depth, packed_rows = _TILES[isa]
    return _Engine(vector // size, rows, vectors, point_rows, depth, size, threads, packed_rows)


def work(
    name: str, operator: str, shape: Conv2dShape, *, size: int, isa: str, threads: int
) -> tuple[str, dict[str, float]]:
    """Whose coefficients an algorithm has on a problem, and how often each of its terms' units has to be done.

    Args:
        name: an algorithm of the CPU engine that can run the problem.
        operator: the pass.
        shape: the problem; its batch is not empty.
        size: bytes of a value.
        isa: the instruction set.
        threads: how many share the work.

    >>> layer = Conv2dShape(1, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1))
    >>> model, counted = work("direct", "fprop", layer, size=4, isa="avx512", threads=2)
    >>> model, round(counted["fma"] / layer.macs, 2)
    ('direct', 1.04)
    """
    e = _engine(isa, size, threads)
    tile = winograd.tile_of(name)
    if tile is not None and operator == "wgrad":
        counted = _winograd_wgrad(e, operator, shape, tile)
    elif tile is not None and (shape.R == 5 or shape.dilation != (1, 1)):
        name += "" if shape.dilation == (1, 1) else "_dilated"
        counted = _winograd_packed(e, operator, shape, tile)
    elif tile is not None:
        counted = _winograd(e, operator, shape, tile)
    elif name == "direct_packed":
        counted = _direct_packed(e, operator, shape)
    elif name == "im2col_implicit":
        counted = _implicit(e, operator, shape)
    elif name == "im2col_explicit":
        counted = _explicit(e, operator, shape)
    elif shape.groups > 1 and shape.C == shape.K == shape.groups:
        name, counted = "depthwise", _depthwise(e, operator, shape)
    elif operator == "wgrad" and _few_channels(e, shape):
        name, counted = "few_channels", _few_channels_wgrad(e, shape)
    else:
        counted = (_direct_wgrad if operator == "wgrad" else _direct)(e, operator, shape)
    bytes_of_operands = shape.bytes(size)
    counted["call"] = 1
    counted["cache"] = counted.get("cache", 0) + max(0, bytes_of_operands - _NEAR)
    counted["memory"] = counted.get("memory", 0) + max(0, bytes_of_operands - _SHARED)
    return name, counted


def _pointwise(s: Conv2dShape) -> bool:
    """Whether a pass is a matrix product on the images as they lie."""
    return (
        s.R * s.S == 1
        and s.padding[0] == s.padding[2] == 0
        and (s.P, s.Q) == (s.H, s.W)
        and (s.stride[0] == 1 or s.P == 1)
        and (s.stride[1] == 1 or s.Q == 1)
    )


# --------------------------------------------------------------------------------------------------------------- direct


class _Axis(NamedTuple):
    """One axis of a sum over taps: results of a phase, residues of the stride, what a plane has beyond its results."""

    results: int
    residues: int
    reach: int
    phases: int


def _axis(operator: str, taps: int, size: int, out: int, stride: int, dilation: int) -> _Axis:
    residues = len({tap * dilation % stride for tap in range(taps)})
    reach = (taps - 1) * dilation // stride
    if operator == "fprop":
        return _Axis(out, residues, reach, 1)
    return _Axis(_up(size, stride), 1, reach, min(residues, size))


def _direct(e: _Engine, operator: str, s: Conv2dShape) -> Work:
    """fprop and dgrad: planes of the image are filled, then tiles walk over channels and taps where they lie."""
    channels, outputs = s.C // s.groups, s.K // s.groups
    if operator == "dgrad":
        channels, outputs = outputs, channels
    pointwise = _pointwise(s)
    if pointwise:
        h, w = _Axis(1, 1, 0, 1), _Axis(s.P * s.Q, 1, 0, 1)
    else:
        h = _axis(operator, s.R, s.H, s.P, s.stride[0], s.dilation[0])
        w = _axis(operator, s.S, s.W, s.Q, s.stride[1], s.dilation[1])
    taps, residues, budget = s.R * s.S, h.residues * w.residues, (512 << 10) // e.size
    images, rows, columns, held = 1, h.results, w.results, channels
    copied, lines = 0, 0
    if pointwise and columns >= e.panel and (s.N == 1 or columns >= 4 * e.panel):
        parts = min(columns // e.panel, _up(channels * columns, budget))
        columns = _up(columns, parts)
        blocks, runs, width, whole = s.N * parts, 1, _up(columns, e.lanes), True
    else:

        def room(channels: int, rows: int, columns: int) -> int:
            return channels * residues * (rows + h.reach) * (columns + w.reach)

        while columns > e.panel and room(channels, 1, columns) > budget:
            columns = _up(columns, 2)
        if room(channels, 1, columns) > 2 * budget:
            held = max(1, 2 * budget // room(1, 1, columns))
        rows = max(1, min(rows, budget // (held * residues * (columns + w.reach)) - h.reach))
        rows = _up(h.results, _up(h.results, rows))
        if rows == h.results and columns == w.results:
            images = max(1, min(s.N, budget // room(held, rows, columns)))
            images = _up(s.N, _up(s.N, images))
        blocks = _up(s.N, images) * _up(h.results, rows) * _up(w.results, columns)
        runs, width, whole = _strips(e, images, rows, columns, h.reach, w.reach)
        lines = s.groups * blocks * channels * residues * images * (rows + h.reach)
        copied = lines * (columns + w.reach)
    blocks *= s.groups
    shared = blocks < _TASKS and held == channels
    tasks = blocks * (min(_up(outputs, e.rows), _up(2 * _TASKS, blocks)) if shared else 1)
    pieces = _up(channels, held) * h.phases * w.phases
    results = s.N * s.groups * outputs * (s.P * s.Q if operator == "fprop" else s.H * s.W)
    whole = whole and h.phases * w.phases == 1
    packed = h.phases * w.phases > 1 or blocks * _up(images * rows * columns, e.panel) > 6 * s.groups
    strided = s.stride != (1, 1) and not pointwise
    return {
        "fma": blocks * runs * e.steps(outputs, width) * channels * taps * e.uneven(tasks),
        "tile": blocks * runs * _up(outputs, e.rows) * _up(width, e.vectors) * pieces,
        "copy": copied + (0 if whole else results),
        "row": lines + (0 if whole else results // (s.Q if operator == "fprop" else s.W)),
        "stride": 0 if not strided else copied if operator == "fprop" else results,
        "turn": s.groups * outputs * channels * taps if packed else 0,
        "loop": packed + (shared and copied > 0),
    }


def _packed_filters(e: _Engine, s: Conv2dShape, count: int) -> int:
    """`count` values for each filter and channel, in whole vectors."""
    return count * _up(s.C, e.lanes) * _up(s.K, e.lanes) * e.lanes**2


def _direct_packed(e: _Engine, operator: str, s: Conv2dShape) -> Work:
    """fprop in one sum, dgrad in one for each pair of residues of the stride; in pieces with the same taps inside."""
    channels, outputs, height, width = s.C, s.K, s.P, s.Q
    stride_h, stride_w = (1, 1) if operator == "fprop" else s.stride
    if operator == "dgrad":
        channels, outputs, height, width = s.K, s.C, s.H, s.W
    pairs = stride_h * stride_w
    width_of = _up(outputs, e.lanes)
    steps = tiles = 0
    for times, lines, columns, taps in _pieces(operator, s):
        flat, upright = (
            (count * e.packed_steps(pixels, width_of), count * _up(pixels, e.packed_rows))
            for count, pixels in ((lines, columns), (columns, lines))
        )
        best = min(flat, upright)
        steps += times * taps * best[0]
        tiles += times * best[1]
    # Filters of one tap are turned like the results, in squares of vectors; those of several are gathered.
    filters, one = _packed_filters(e, s, s.R * s.S), s.R * s.S == 1
    return {
        "fma": s.N * steps * channels,
        "tile": s.N * tiles * _up(width_of, 2),
        "turn": s.N * width_of * e.lanes * height * width * (1 if pairs == 1 else 2) + (filters if one else 0),
        "filter": 0 if one else filters,
        "loop": pairs + (pairs > 1),
    }


def _pieces(operator: str, s: Conv2dShape) -> list[tuple[int, int, int, int]]:
    """Rows, columns and taps of the rectangles of outputs that meet the input with the same taps, after how many."""
    if _pointwise(s):
        return [(1, 1, s.P * s.Q, 1)]
    axes: list[Counter[tuple[int, int]]] = []
    for i, (size, out, window) in enumerate(((s.H, s.P, s.R), (s.W, s.Q, s.S))):
        stride, before, dilation = s.stride[i], s.padding[2 * i], s.dilation[i]
        if operator == "fprop":
            axes.append(Counter(taps_inside(size, out, window, stride, before, dilation)))
        elif stride == 1:
            axes.append(Counter(taps_inside(out, size, window, 1, (window - 1) * dilation - before, dilation)))
        else:  # each residue, without a look at the padding
            found = [
                len([tap for tap in range(window) if (a + before - tap * dilation) % stride == 0])
                for a in range(min(stride, size))
            ]
            axes.append(Counter((_up(size - a, stride), taps) for a, taps in enumerate(found) if a < size))
    return [
        (times * others, lines, columns, taps * taken)
        for (lines, taps), times in axes[0].items()
        for (columns, taken), others in axes[1].items()
    ]


def _strips(e: _Engine, images: int, rows: int, columns: int, down: int, across: int) -> tuple[int, int, bool]:
    """Runs of strips that cover a block's results, the vectors of one, and whether they are stored whole."""
    row = columns + across
    image = (rows - 1) * row + columns
    by_row = images * rows * _up(columns, e.lanes)
    by_image = images * _up(image, e.lanes)
    by_block = _up((images - 1) * (rows + down) * row + image, e.lanes)
    best = by_image if columns < e.panel or 20 * by_image < 19 * by_row else by_row
    if by_block < best:
        return 1, by_block, False
    if best == by_image:
        return images, _up(image, e.lanes), False
    return images * rows, _up(columns, e.lanes), True


def _joined(e: _Engine, s: Conv2dShape) -> bool:
    """Whether a vector of wgrad's holds the taps of a row of the filter next to each other."""
    channels = s.C // s.groups
    fewer = _up(channels * s.S, e.lanes) < _up(channels, e.lanes) * s.S
    return s.dilation[1] == 1 and s.S > 1 and (fewer or channels < 2 * e.lanes) and channels <= 4 * e.lanes


def _few_channels(e: _Engine, s: Conv2dShape) -> bool:
    """Whether wgrad's vectors lie along the filters instead."""
    channels, filters = s.C // s.groups, s.K // s.groups
    if s.dilation[0] != 1 and s.R != 1:
        return False
    lanes, taps = (channels * s.S, s.R) if _joined(e, s) else (channels, s.R * s.S)
    turned = 5  # multiply-adds that the kernel takes the turning of a vector for
    return 10 * _up(filters, e.lanes) * (channels * s.R * s.S + turned) < 9 * filters * taps * _up(lanes, e.lanes)


def _few_channels_wgrad(e: _Engine, s: Conv2dShape) -> Work:
    """Tiles of taps x filters walk over the pixels of dy, which was turned, filters last."""
    channels, filters = s.C // s.groups, s.K // s.groups
    lines, width = s.R * channels, s.Q + (s.S - 1) * s.dilation[1] // s.stride[1]
    strips = _up(_up(filters, e.lanes), e.vectors)
    residues = min(s.stride[1], (s.S - 1) * s.dilation[1] + 1)
    copied_lines = s.N * s.groups * strips * residues * s.P * max(1, min(s.R, s.stride[0])) * channels
    all_rows = s.N * s.P
    slices = max(1, min(_up(_TASKS, s.groups * strips), all_rows, all_rows * s.Q // 256))
    return {
        "fma": s.groups
        * e.steps(lines, _up(filters, e.lanes))
        * s.S
        * all_rows
        * s.Q
        * e.uneven(slices * s.groups * strips),
        "tile": s.groups * strips * s.S * _up(lines, e.rows) * all_rows,
        "copy": copied_lines * width,
        "row": copied_lines,
        "turn": s.N * s.K * s.P * s.Q,
        "stride": slices * s.K * channels * s.R * s.S,
    }


def _direct_wgrad(e: _Engine, operator: str, s: Conv2dShape) -> Work:
    """Tiles of filters x channels walk over the pixels of an image that was turned, channels last."""
    channels, filters = s.C // s.groups, s.K // s.groups
    step = tuple(1 if taps == 1 else stride for taps, stride in zip((s.R, s.S), s.stride, strict=True))
    columns = (s.Q - 1) * step[1] + (s.S - 1) * s.dilation[1] + 1
    joined = _joined(e, s)
    lanes, taps = (channels * s.S, s.R) if joined else (channels, s.R * s.S)
    vectors = _up(lanes, e.lanes)
    width = 2 if vectors % 6 == 4 else _up(vectors, _up(vectors, e.vectors))
    lane_blocks = _up(vectors, width)
    pixel = channels if joined else width * e.lanes
    budget, reach = (384 << 10) // e.size, (s.R - 1) * s.dilation[0] + 1
    rows = s.P
    while rows > 1 and ((rows - 1) * step[0] + reach) * columns * pixel > budget:
        rows = _up(rows, 2)
    row_blocks = s.N * _up(s.P, rows)
    slivers = _up(filters, e.rows)
    block, slices = slivers, 1
    slice_first = s.K * channels * s.R * s.S < s.N * s.C * s.P * s.Q
    while s.groups * lane_blocks * _up(slivers, block) * slices < _TASKS:
        can_slice = slices < row_blocks and _up(row_blocks, slices) * rows * s.Q > 1024
        if can_slice and (slice_first or block <= 8):
            slices = min(row_blocks, 2 * slices)
        elif block > 4:
            block = _up(block, 2)
        else:
            break
    tasks = s.groups * lane_blocks * _up(slivers, block) * slices
    last = vectors - (lane_blocks - 1) * width
    steps = (lane_blocks - 1) * e.steps(filters, width) + e.steps(filters, last)
    lines = s.groups * lane_blocks * _up(slivers, block) * row_blocks * ((rows - 1) * step[0] + reach)
    tiles = s.groups * lane_blocks * slivers * taps * row_blocks
    return {
        "fma": s.groups * steps * taps * s.N * s.P * s.Q * e.uneven(tasks),
        "tile": tiles,
        "copy": slices * s.groups * lane_blocks * taps * filters * width * e.lanes,
        "row": tiles * rows,
        "stride": lines * columns * pixel if s.stride[1] > step[1] else s.K * channels * s.R * s.S,
        "turn": lines * columns * pixel,
    }


def _depthwise(e: _Engine, operator: str, s: Conv2dShape) -> Work:
    """Each plane by itself, a vector of results of some rows at a time."""
    phases, height, width = (1, 1), s.P, s.Q
    if operator == "dgrad":
        phases, height, width = s.stride, s.H, s.W
    vectors = s.N * s.C * _up(height, phases[0]) * _up(_up(width, phases[1]), e.lanes)
    taps = _up(s.R, 3) * _up(s.S, 3) * 9 if operator == "wgrad" else s.R * s.S
    usual = s.R == s.S == 3 and s.stride[0] <= 2 and s.stride[1] <= 2 and s.dilation == (1, 1)
    counted = vectors * e.lanes * taps
    return {
        "tap": counted,
        "other": 0 if usual or operator == "wgrad" else counted,
        "copy": vectors * phases[0] * phases[1] * e.lanes,
        "row": s.N * s.C,
    }


# --------------------------------------------------------------------------------------------------------------- im2col


class _Product(NamedTuple):
    """A blocked matrix product: multiply-adds and tiles, tasks, how often either operand is packed."""

    fma: float
    tile: int
    task: int
    packs_a: int
    packs_b: int
    copies_a: bool  # a plain operand is copied, since many tiles use it
    copies_b: bool


def _product(e: _Engine, batch: int, m: int, n: int, k: int) -> _Product:
    slivers, strips = _up(m, e.rows), _up(_up(n, e.lanes), e.vectors)
    high, wide = min(slivers, 256 // e.rows), min(strips, 16)
    while batch * _up(slivers, high) * _up(strips, wide) < _TASKS:
        if wide > 1 and wide * e.panel >= high * e.rows:
            wide = _up(wide, 2)
        elif high > 4:
            high = _up(high, 2)
        else:
            break
    down, across = _up(slivers, high), _up(strips, wide)
    tasks = batch * down * across
    return _Product(
        batch * e.steps(m, _up(n, e.lanes)) * k * e.uneven(tasks),
        batch * slivers * strips * _up(k, e.depth),
        tasks,
        batch * across,
        batch * down,
        wide > 4,
        high > 4,
    )


def _implicit(e: _Engine, operator: str, s: Conv2dShape) -> Work:
    """One blocked product that unfolds its panels where it wants them."""
    channels, filters, taps = s.C // s.groups, s.K // s.groups, s.R * s.S
    strided = s.stride != (1, 1) and not _pointwise(s)
    if operator == "wgrad":
        m, n, pixels = filters, channels * taps, s.N * s.P * s.Q
        tiles = s.groups * _up(m, 4 * e.rows) * _up(n, e.panel)
        slices = max(1, min(_up(_TASKS, tiles), pixels // 2048))
        k = _up(pixels, slices)
        p = _product(e, slices * s.groups, m, n, k)
        turned = p.packs_a * m * k + p.packs_b * n * k
        lines = p.packs_b * n * (k // s.Q + _up(k, e.depth))
        summed = s.K * n * slices if slices > 1 else 0
        return _im2col(p, turned, p.packs_b * n * k + summed, lines, strided, int(slices > 1))
    if operator == "fprop":
        m, n, k, width = filters, s.P * s.Q, channels * taps, s.Q
    else:
        m, n, k, width = channels, s.H * s.W, filters * taps, s.W
    p = _product(e, s.N * s.groups, m, n, k)
    turned = p.packs_a * m * k if operator == "dgrad" or p.copies_a else 0
    if _pointwise(s):
        return _im2col(p, turned, p.packs_b * n * k if p.copies_b else 0, 0, False, 0)
    return _im2col(p, turned, p.packs_b * n * k, p.packs_b * k * (n // width + _up(n, e.panel)), strided, 0)


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


def _explicit(e: _Engine, operator: str, s: Conv2dShape) -> Work:
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
    if not _pointwise(s):
        columns = s.groups * window * pixels
        counted["copy"] = counted.get("copy", 0) + (0 if operator == "dgrad" else s.N * columns)
        counted["turn"] = counted.get("turn", 0) + (s.N * columns if operator == "dgrad" else 0)
        counted["row"] = s.N * s.groups * window * s.P
        counted["stride"] = s.N * columns if s.stride != (1, 1) else 0
        counted["loop"] += s.N
        # Written once and read once, and found in the cache of a core only where they are few.
        counted["cache"] = 2 * s.N * max(0, columns * e.size - _NEAR)
        counted["memory"] = 2 * s.N * max(0, columns * e.size - _SHARED)
    return counted


def _thin(e: _Engine, operator: str, s: Conv2dShape, filters: int, window: int, pixels: int) -> Work | None:
    """The products that kernels for few rows or a short sum take, or None."""
    products, values = s.N * s.groups, 0
    if operator == "wgrad":
        if filters <= 12 and pixels >= e.lanes and s.N == 1:  # dot products, four rows at a time
            values = _up(filters, 4) * window * pixels
    elif pixels >= e.lanes:
        m, k = (filters, window) if operator == "fprop" else (window, filters)
        if k <= 4:
            values = m * pixels
        elif m <= 4:
            values = m * k * pixels
    return {"thin": products * values, "loop": products} if values else None


# ------------------------------------------------------------------------------------------------------------- Winograd


class _Grid(NamedTuple):
    """A batch of planes cut into chunks of units, each a run of tiles along a row."""

    unit: int
    units: int
    in_chunk: int
    chunks: int


def _grid(planes: int, height: int, width: int, tile: int, most: int) -> _Grid:
    rows, columns = _up(height, tile), _up(width, tile)
    parts = _up(columns, most)
    unit = _up(columns, parts)
    units = planes * rows * parts
    chunks = max(1, _up(units, max(1, most // unit)))
    in_chunk = _up(units, chunks)
    return _Grid(unit, units, in_chunk, _up(units, in_chunk))


def _at_once(e: _Engine, points: int, step: int) -> int:
    """Tiles along a row that a transform takes in one turn: as many as lie in the vectors that hold one."""
    return (_up(points, e.lanes) * e.lanes - (points - step)) // step


def _winograd(e: _Engine, operator: str, s: Conv2dShape, tile: int) -> Work:
    """fprop and dgrad: inputs of a chunk, then for each panel of filters its U, the products, its results."""
    channels, outputs, height, width = s.C // s.groups, s.K // s.groups, s.P, s.Q
    if operator == "dgrad":
        channels, outputs, height, width = outputs, channels, s.H, s.W
    side = tile + 2
    points, panel = side * side, 2 * e.lanes
    of_channels, of_outputs = _up(channels, e.lanes), _up(outputs, e.lanes)
    depth = max(e.lanes, (288 << 10) // (points * panel * e.size) // e.lanes * e.lanes)
    depth = min(depth, of_channels * e.lanes)
    blocks = _up(channels, depth)
    tiles = s.N * _up(height, tile) * _up(width, tile)
    most = min(
        max(64, tiles // 8),
        (448 << 10) // (points * panel * e.size),
        (8 << 20) // (points * blocks * depth * e.size),
    )
    grid = _grid(s.N, height, width, tile, max(2 * e.point_rows, most // e.point_rows * e.point_rows))
    panels = _up(outputs, panel)
    pieces = min(grid.in_chunk, _up(4, panels))
    parts = grid.chunks * pieces
    held = _up(grid.units * grid.unit, parts)  # tiles of a part
    chunks = s.groups * grid.chunks
    shared = chunks < 8 and chunks % e.threads != 0
    jobs = s.groups * parts * panels
    # Results leave in whole vectors of tiles along a row.
    stored = max(1, e.lanes // 4) if tile == 4 else e.lanes // 2
    return {
        "fma": jobs * points * channels * e.point_steps(held) * e.uneven(panels * pieces if shared else chunks),
        "tile": jobs * points * blocks * _up(held, e.point_rows),
        "source": s.groups * grid.units * _up(grid.unit, _at_once(e, side, tile)) * of_channels * points * e.lanes,
        "result": s.groups * grid.units * _up(grid.unit, stored) * of_outputs * tile * side * e.lanes,
        "filter": jobs * channels * points * panel,
        "loop": 2 * chunks - 1 if shared else 0,
    }


def _winograd_wgrad(e: _Engine, operator: str, s: Conv2dShape, tile: int) -> Work:
    """Inputs and gradients of a chunk, products summed over its tiles on the points, dw from the sums.

    The pixels with one residue of the dilation are an image of their own, copied out with its padding.
    """
    channels, filters = s.C // s.groups, s.K // s.groups
    images, height_y, width_y = s.N, s.P, s.Q
    copied, lines = 0, 0
    if s.dilation != (1, 1):
        images *= s.dilation[0] * s.dilation[1]
        height_y, width_y = _up(s.P, s.dilation[0]), _up(s.Q, s.dilation[1])
        lines = images * (s.C * (height_y + s.R - 1) + s.K * height_y)
        copied = lines * width_y
    side = tile + s.R - 1
    points, panel = side * side, 2 * e.lanes
    of_channels, of_filters = _up(channels, e.lanes), _up(filters, e.lanes)
    height = max(e.lanes, (592 << 10) // (points * 2 * panel * e.size) // e.lanes * e.lanes)
    height = min(height, of_channels * e.lanes)
    blocks, panels = _up(channels, height), _up(filters, panel)
    wide = min(2, panels)
    slab = min(panels, max(1, (64 << 20) // (points * blocks * height * panel * e.size) // wide) * wide)
    room = max(4 << 20, min(points * blocks * height * slab * panel * e.size, 24 << 20))
    most = max(64, room // (points * (blocks * height + slab * panel) * e.size) // 64 * 64)
    grid = _grid(images, height_y, width_y, tile, most)
    slabs = _up(panels, slab)
    fused = grid.chunks == 1 and blocks * _up(slab, wide) >= 8
    tasks = blocks * _up(slab, wide) * (1 if fused else side)
    full, rest = divmod(channels, height)
    steps = full * e.point_steps(height) + (e.point_steps(rest) if rest else 0)
    turns = _up(grid.unit, _at_once(e, side, tile)) * of_channels * slabs
    turns += _up(grid.unit, _up(tile, e.lanes) * e.lanes // tile) * of_filters
    in_chunk = min(grid.in_chunk, grid.units) * grid.unit
    return {
        "fma": s.groups * points * panels * steps * grid.units * grid.unit * e.uneven(tasks),
        "source": s.groups * grid.units * turns * points * e.lanes,
        "sums": s.groups * points * channels * panels * panel * (1 + grid.chunks * _up(in_chunk, 64)),
        "copy": copied,
        "row": lines,
        "loop": s.groups * slabs * (2 if fused else 1 + 2 * grid.chunks) - 1,
    }


def _winograd_packed(e: _Engine, operator: str, s: Conv2dShape, tile: int) -> Work:
    """fprop and dgrad in the packed layout, the pixels with one residue of the dilation as an image of their own."""
    channels, outputs, height, width = s.C, s.K, s.P, s.Q
    if operator == "dgrad":
        channels, outputs, height, width = s.K, s.C, s.H, s.W
    side = tile + s.R - 1
    points, panel = side * side, 2 * e.lanes
    of_channels, of_outputs = _up(channels, e.lanes), _up(outputs, e.lanes)
    images = s.dilation[0] * s.dilation[1]
    tiles = s.N * _up(_up(height, s.dilation[0]), tile) * _up(_up(width, s.dilation[1]), tile)  # of one residue
    most = min(
        max(64, tiles // 8),
        (448 << 10) // (points * panel * e.size),
        (4 << 20) // (points * of_channels * e.lanes * e.size),
    )
    held = min(tiles, max(2 * e.packed_rows, most // e.packed_rows * e.packed_rows))
    chunks = _up(tiles, held)
    counted = {
        "fma": images * points * channels * e.packed_steps(held, of_outputs) * tiles / held,
        "tile": images * points * chunks * _up(held, e.packed_rows) * _up(of_outputs, 2),
        "source": images * tiles * of_channels * points * e.lanes,
        "result": images * tiles * of_outputs * tile * side * e.lanes,
    }
    if images == 1:  # from planes to planes; filters are transformed for every chunk
        shared = chunks < 8 and chunks % e.threads != 0
        filters = _packed_filters(e, s, s.R * s.S + chunks * points)
        return {**counted, "filter": filters, "loop": 2 * chunks if shared else 2}
    # Packed before and unpacked behind, some images at a time; filters are transformed once.
    values = sum(_up(count, e.lanes) * e.lanes * plane for count, plane in ((s.C, s.H * s.W), (s.K, s.P * s.Q)))
    groups = _up(s.N, max(1, (1 << 20) // values))
    filters = _packed_filters(e, s, s.R * s.S + points)
    return {**counted, "turn": s.N * values, "filter": filters, "loop": 2 + (2 + 2 * images) * groups}
