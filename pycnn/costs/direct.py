"""The work of direct convolution: in the plain layouts, in the packed one, with few channels, depthwise."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from pycnn.costs.engine import TASKS, Engine, Work, packed_filters, pointwise, up
from pycnn.shape import Conv2dShape, taps_inside

__all__ = ["depthwise", "direct", "direct_packed", "direct_wgrad", "few_channels", "few_channels_wgrad"]


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
    return _Axis(up(size, stride), 1, reach, min(residues, size))


def direct(e: Engine, operator: str, s: Conv2dShape) -> Work:
    """fprop and dgrad: planes of the image are filled, then tiles walk over channels and taps where they lie."""
    channels, outputs = s.C // s.groups, s.K // s.groups
    if operator == "dgrad":
        channels, outputs = outputs, channels
    along = pointwise(s)  # the images are one row
    if along:
        h, w = _Axis(1, 1, 0, 1), _Axis(s.P * s.Q, 1, 0, 1)
    else:
        h = _axis(operator, s.R, s.H, s.P, s.stride[0], s.dilation[0])
        w = _axis(operator, s.S, s.W, s.Q, s.stride[1], s.dilation[1])
    taps, residues, budget = s.R * s.S, h.residues * w.residues, (512 << 10) // e.size
    images, rows, columns, held = 1, h.results, w.results, channels
    copied, lines = 0, 0
    if along and columns >= e.panel and (s.N == 1 or columns >= 4 * e.panel):
        parts = min(columns // e.panel, up(channels * columns, budget))
        columns = up(columns, parts)
        blocks, runs, width, whole = s.N * parts, 1, up(columns, e.lanes), True
    else:

        def room(channels: int, rows: int, columns: int) -> int:
            return channels * residues * (rows + h.reach) * (columns + w.reach)

        while columns > e.panel and room(channels, 1, columns) > budget:
            columns = up(columns, 2)
        if room(channels, 1, columns) > 2 * budget:
            held = max(1, 2 * budget // room(1, 1, columns))
        rows = max(1, min(rows, budget // (held * residues * (columns + w.reach)) - h.reach))
        rows = up(h.results, up(h.results, rows))
        if rows == h.results and columns == w.results:
            images = max(1, min(s.N, budget // room(held, rows, columns)))
            images = up(s.N, up(s.N, images))
        blocks = up(s.N, images) * up(h.results, rows) * up(w.results, columns)
        runs, width, whole = _strips(e, images, rows, columns, h.reach, w.reach)
        lines = s.groups * blocks * channels * residues * images * (rows + h.reach)
        copied = lines * (columns + w.reach)
    blocks *= s.groups
    shared = blocks < TASKS and held == channels
    tasks = blocks * (min(up(outputs, e.rows), up(2 * TASKS, blocks)) if shared else 1)
    pieces = up(channels, held) * h.phases * w.phases
    results = s.N * s.groups * outputs * (s.P * s.Q if operator == "fprop" else s.H * s.W)
    whole = whole and h.phases * w.phases == 1
    packed = h.phases * w.phases > 1 or blocks * up(images * rows * columns, e.panel) > 6 * s.groups
    strided = s.stride != (1, 1) and not along
    return {
        "fma": blocks * runs * e.steps(outputs, width) * channels * taps * e.uneven(tasks),
        "tile": blocks * runs * up(outputs, e.rows) * up(width, e.vectors) * pieces,
        "copy": copied + (0 if whole else results),
        "row": lines + (0 if whole else results // (s.Q if operator == "fprop" else s.W)),
        "stride": 0 if not strided else copied if operator == "fprop" else results,
        "turn": s.groups * outputs * channels * taps if packed else 0,
        "loop": packed + (shared and copied > 0),
    }


def direct_packed(e: Engine, operator: str, s: Conv2dShape) -> Work:
    """fprop in one sum, dgrad in one for each pair of residues of the stride; in pieces with the same taps inside."""
    channels, outputs, height, width = s.C, s.K, s.P, s.Q
    stride_h, stride_w = (1, 1) if operator == "fprop" else s.stride
    if operator == "dgrad":
        channels, outputs, height, width = s.K, s.C, s.H, s.W
    pairs = stride_h * stride_w
    width_of = up(outputs, e.lanes)
    steps = tiles = 0
    for times, lines, columns, taps in _pieces(operator, s):
        flat, upright = (
            (count * e.packed_steps(pixels, width_of), count * up(pixels, e.packed_rows))
            for count, pixels in ((lines, columns), (columns, lines))
        )
        best = min(flat, upright)
        steps += times * taps * best[0]
        tiles += times * best[1]
    # Filters of one tap are turned like the results, in squares of vectors; those of several are gathered.
    filters, one = packed_filters(e, s, s.R * s.S), s.R * s.S == 1
    return {
        "fma": s.N * steps * channels,
        "tile": s.N * tiles * up(width_of, 2),
        "turn": s.N * width_of * e.lanes * height * width * (1 if pairs == 1 else 2) + (filters if one else 0),
        "filter": 0 if one else filters,
        "loop": pairs + (pairs > 1),
    }


def _pieces(operator: str, s: Conv2dShape) -> list[tuple[int, int, int, int]]:
    """Rows, columns and taps of the rectangles of outputs that meet the input with the same taps, after how many."""
    if pointwise(s):
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
            axes.append(Counter((up(size - a, stride), taps) for a, taps in enumerate(found) if a < size))
    return [
        (times * others, lines, columns, taps * taken)
        for (lines, taps), times in axes[0].items()
        for (columns, taken), others in axes[1].items()
    ]


def _strips(e: Engine, images: int, rows: int, columns: int, down: int, across: int) -> tuple[int, int, bool]:
    """Runs of strips that cover a block's results, the vectors of one, and whether they are stored whole."""
    row = columns + across
    image = (rows - 1) * row + columns
    by_row = images * rows * up(columns, e.lanes)
    by_image = images * up(image, e.lanes)
    by_block = up((images - 1) * (rows + down) * row + image, e.lanes)
    best = by_image if columns < e.panel or 20 * by_image < 19 * by_row else by_row
    if by_block < best:
        return 1, by_block, False
    if best == by_image:
        return images, up(image, e.lanes), False
    return images * rows, up(columns, e.lanes), True


def _joined(e: Engine, s: Conv2dShape) -> bool:
    """Whether a vector of wgrad's holds the taps of a row of the filter next to each other."""
    channels = s.C // s.groups
    fewer = up(channels * s.S, e.lanes) < up(channels, e.lanes) * s.S
    return s.dilation[1] == 1 and s.S > 1 and (fewer or channels < 2 * e.lanes) and channels <= 4 * e.lanes


def few_channels(e: Engine, s: Conv2dShape) -> bool:
    """Whether wgrad's vectors lie along the filters instead."""
    channels, filters = s.C // s.groups, s.K // s.groups
    if s.dilation[0] != 1 and s.R != 1:
        return False
    lanes, taps = (channels * s.S, s.R) if _joined(e, s) else (channels, s.R * s.S)
    turned = 5  # multiply-adds that the kernel takes the turning of a vector for
    return 10 * up(filters, e.lanes) * (channels * s.R * s.S + turned) < 9 * filters * taps * up(lanes, e.lanes)


def few_channels_wgrad(e: Engine, s: Conv2dShape) -> Work:
    """Tiles of taps x filters walk over the pixels of dy, which was turned, filters last."""
    channels, filters = s.C // s.groups, s.K // s.groups
    lines, width = s.R * channels, s.Q + (s.S - 1) * s.dilation[1] // s.stride[1]
    strips = up(up(filters, e.lanes), e.vectors)
    residues = min(s.stride[1], (s.S - 1) * s.dilation[1] + 1)
    copied_lines = s.N * s.groups * strips * residues * s.P * max(1, min(s.R, s.stride[0])) * channels
    all_rows = s.N * s.P
    slices = max(1, min(up(TASKS, s.groups * strips), all_rows, all_rows * s.Q // 256))
    return {
        "fma": s.groups
        * e.steps(lines, up(filters, e.lanes))
        * s.S
        * all_rows
        * s.Q
        * e.uneven(slices * s.groups * strips),
        "tile": s.groups * strips * s.S * up(lines, e.rows) * all_rows,
        "copy": copied_lines * width,
        "row": copied_lines,
        "turn": s.N * s.K * s.P * s.Q,
        "stride": slices * s.K * channels * s.R * s.S,
    }


def direct_wgrad(e: Engine, operator: str, s: Conv2dShape) -> Work:
    """Tiles of filters x channels walk over the pixels of an image that was turned, channels last."""
    channels, filters = s.C // s.groups, s.K // s.groups
    step = tuple(1 if taps == 1 else stride for taps, stride in zip((s.R, s.S), s.stride, strict=True))
    columns = (s.Q - 1) * step[1] + (s.S - 1) * s.dilation[1] + 1
    joined = _joined(e, s)
    lanes, taps = (channels * s.S, s.R) if joined else (channels, s.R * s.S)
    vectors = up(lanes, e.lanes)
    width = 2 if vectors % 6 == 4 else up(vectors, up(vectors, e.vectors))
    lane_blocks = up(vectors, width)
    pixel = channels if joined else width * e.lanes
    budget, reach = (384 << 10) // e.size, (s.R - 1) * s.dilation[0] + 1
    rows = s.P
    while rows > 1 and ((rows - 1) * step[0] + reach) * columns * pixel > budget:
        rows = up(rows, 2)
    row_blocks = s.N * up(s.P, rows)
    slivers = up(filters, e.rows)
    block, slices = slivers, 1
    slice_first = s.K * channels * s.R * s.S < s.N * s.C * s.P * s.Q
    while s.groups * lane_blocks * up(slivers, block) * slices < TASKS:
        can_slice = slices < row_blocks and up(row_blocks, slices) * rows * s.Q > 1024
        if can_slice and (slice_first or block <= 8):
            slices = min(row_blocks, 2 * slices)
        elif block > 4:
            block = up(block, 2)
        else:
            break
    tasks = s.groups * lane_blocks * up(slivers, block) * slices
    last = vectors - (lane_blocks - 1) * width
    steps = (lane_blocks - 1) * e.steps(filters, width) + e.steps(filters, last)
    lines = s.groups * lane_blocks * up(slivers, block) * row_blocks * ((rows - 1) * step[0] + reach)
    tiles = s.groups * lane_blocks * slivers * taps * row_blocks
    return {
        "fma": s.groups * steps * taps * s.N * s.P * s.Q * e.uneven(tasks),
        "tile": tiles,
        "copy": slices * s.groups * lane_blocks * taps * filters * width * e.lanes,
        "row": tiles * rows,
        "stride": lines * columns * pixel if s.stride[1] > step[1] else s.K * channels * s.R * s.S,
        "turn": lines * columns * pixel,
    }


def depthwise(e: Engine, operator: str, s: Conv2dShape) -> Work:
    """Each plane by itself, a vector of results of some rows at a time."""
    phases, height, width = (1, 1), s.P, s.Q
    if operator == "dgrad":
        phases, height, width = s.stride, s.H, s.W
    vectors = s.N * s.C * up(height, phases[0]) * up(up(width, phases[1]), e.lanes)
    taps = up(s.R, 3) * up(s.S, 3) * 9 if operator == "wgrad" else s.R * s.S
    usual = s.R == s.S == 3 and s.stride[0] <= 2 and s.stride[1] <= 2 and s.dilation == (1, 1)
    counted = vectors * e.lanes * taps
    return {
        "tap": counted,
        "other": 0 if usual or operator == "wgrad" else counted,
        "copy": vectors * phases[0] * phases[1] * e.lanes,
        "row": s.N * s.C,
    }
