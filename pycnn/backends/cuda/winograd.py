"""Launch plans for Winograd's convolutions: which tile can run a problem, in what pieces, at what cost.

    winograd_f2x2_3x3                       fprop, dgrad: one fused kernel behind the transform of the filters
    winograd_f4x4_3x3, winograd_f6x6_3x3    fprop, dgrad: transforms around a batched matrix product, a chunk of tiles
                                            at a time
    winograd_f2x2_5x5, winograd_f4x4_5x5    the same for 5x5 filters
    winograd_f1x4_1x3, ..._f4x1_3x1,        the same for filters of one line, transformed along that line alone
    winograd_f1x4_1x5, ..._f4x1_5x1
    ..._3xtf32                              fprop, dgrad: the staged ones with their products on tensor cores, split in
                                            three for float32's accuracy
    winograd_f3x3_2x2, ..._4x4, ..._6x6     wgrad: the same around a product that sums over tiles; chunks add up in
                                            order

Workspace is cut so that what grows with the batch stays under `CHUNK_BYTES`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from pycnn import winograd
from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.gemm import gemm_plan, sgemm
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import pack_divisors
from pycnn.backends.cuda.plan import MOVED, Operands, Plan, past_32_bits
from pycnn.backends.cuda.slices import adder
from pycnn.backends.cuda.tensor import COST
from pycnn.backends.cuda.tensor_product import kernel_for, padded, split, splitter, tensor_product
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

KERNELS = FUSED, WINDOWS, FILTERS, RESULTS, TAPS = (
    "winograd_f2x2_fused",
    "winograd_windows",
    "winograd_filters",
    "winograd_results",
    "winograd_taps",
)

CHUNK_BYTES = 2**28
"""Most bytes of transformed tiles and products that are held at a time, unless 32 tiles take more."""

# What the fused kernel does beside its products, for each 256 of a lane's multiply-adds: transforms, loads, stores.
_FUSED_REST = 80

_FEWEST_TILES = 32  # of a chunk: a line of 128 bytes
_ROWS = {3: 32, 5: 32, 9: 32, 25: 8}  # of U that a block of winograd_filters makes, by the taps of the filters
_WARP = 32
_FLOAT = 4


@dataclass(frozen=True)
class Tiling:
    """A batch of images of `rows` x `columns` pixels, cut into tiles of m x m for filters of r x r; for filters of one
    line, along `axis`, into tiles of one line."""

    N: int
    groups: int
    m: int
    rows: int
    columns: int
    r: int = 3
    axis: int | None = None

    @property
    def instance(self) -> str:
        """Of the kernels that transform its tiles."""
        if self.axis is not None:
            return f"f{self.m}r{self.r}{'hw'[self.axis]}"
        return f"f{self.m}" if self.r == 3 else f"f{self.m}r{self.r}"

    @property
    def filter_instance(self) -> str:
        """Of the kernel that transforms its filters; those of one line lie alike along both axes."""
        return self.instance if self.axis is None else f"f{self.m}r{self.r}w"

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        return winograd.sides(self.m, self.axis)

    @property
    def down(self) -> int:
        """Tiles of an image, one under another."""
        return -(-self.rows // self.tile[0])

    @property
    def across(self) -> int:
        """Tiles of an image, one beside another."""
        return -(-self.columns // self.tile[1])

    @property
    def tiles(self) -> int:
        """Tiles of the batch."""
        return self.N * self.down * self.across

    @property
    def points(self) -> int:
        """Winograd's points: multiplications a tile."""
        return prod(winograd.sides(self.m + self.r - 1, self.axis))

    def chunk_sizes(self, channels: int) -> tuple[int, int]:
        """Tiles of every chunk but the last, a multiple of 32, and of the last, a multiple of 4; (0, 0) of no tiles.

        Args:
            channels: of all tensors and groups together that keep a tile's points for the time of a chunk.
        """
        if not self.tiles:
            return 0, 0
        most = max(CHUNK_BYTES // (_FLOAT * self.points * channels) // _FEWEST_TILES, 1) * _FEWEST_TILES
        size = -(-self.tiles // -(-self.tiles // most))
        size = -(-size // _FEWEST_TILES) * _FEWEST_TILES
        last = self.tiles - (self.tiles - 1) // size * size
        return size, -(-last // 4) * 4

    def chunks(self, channels: int) -> Iterator[tuple[int, int]]:
        """(first tile, tiles) of each chunk; `channels` as in `chunk_sizes`."""
        size, last = self.chunk_sizes(channels)
        for first in range(0, self.tiles, max(size, 1)):
            yield first, size if first + size < self.tiles else last


@dataclass(frozen=True)
class Image:
    """A tensor under a tiling: `TiledImage` of kernels/winograd.cuh.  `corner`: the first pixel of the first window."""

    tiling: Tiling
    channels: int
    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)

    def pack(self) -> bytes:
        """The struct."""
        tiling = self.tiling
        head = struct.pack("<6q", self.channels, *self.size, *self.corner, tiling.tiles)
        return head + pack_divisors((tiling.across, tiling.down, tiling.groups))

    def chunk(self, first: int, tiles: int) -> tuple[bytes, int]:
        """`TileChunk` of these tiles and all channels, and its number of threads."""
        plane = self.channels * tiles
        threads = self.tiling.groups * plane
        return struct.pack("<2q", first, threads) + pack_divisors((tiles, plane)), threads


@dataclass(frozen=True)
class Convolution:
    """fprop or dgrad as one thing: a convolution of stride 1 from `source` to `result`, with the filters as they are
    (fprop) or turned by 180 degrees and with channels and filters exchanged (dgrad)."""

    source: Image
    result: Image
    turned: bool

    @staticmethod
    def of(operator: str, shape: Conv2dShape, m: int, r: int, axis: int | None = None) -> Convolution:
        """The pass "fprop" or "dgrad" of a problem with filters of r x r, in tiles of m x m results; with an axis, of
        one line along it."""
        top, _, left, _ = shape.padding
        channels, filters = shape.C // shape.groups, shape.K // shape.groups
        if operator == "fprop":
            tiling = Tiling(shape.N, shape.groups, m, shape.P, shape.Q, r, axis)
            source = Image(tiling, channels, (shape.H, shape.W), (-top, -left))
            return Convolution(source, Image(tiling, filters, (shape.P, shape.Q)), False)
        tiling = Tiling(shape.N, shape.groups, m, shape.H, shape.W, r, axis)
        # A padding of x above R - 1 leaves dy none: its first windows then begin inside of it.
        R, S = winograd.sides(r, axis)
        source = Image(tiling, filters, (shape.P, shape.Q), (top - (R - 1), left - (S - 1)))
        return Convolution(source, Image(tiling, channels, (shape.H, shape.W)), True)

    @property
    def tiling(self) -> Tiling:
        """Of the result; the source's windows lie as its tiles do."""
        return self.result.tiling

    def transform_filters(self, host: HostBase, w: Array, u: Array, block: tuple[int, int]) -> None:
        """Write U into `u`, [group][column block][row block][point][row][column] in blocks of `block`."""
        groups, rows, columns = self.tiling.groups, self.source.channels, self.result.channels
        blocks = (-(-rows // block[0]), -(-columns // block[1]))
        made = (_ROWS[prod(winograd.sides(self.tiling.r, self.tiling.axis))], _WARP)  # by a block of the kernel
        tiles = tuple(-(-count * size // each) for count, size, each in zip(blocks, block, made, strict=True))
        filters, channels = (rows, columns) if self.turned else (columns, rows)
        grid = struct.pack("<5q", filters, channels, self.turned, *blocks)
        grid += pack_divisors((*block, tiles[1], tiles[0]))
        instance = host.sources.of(FILTERS)[self.tiling.filter_instance]
        _launch(host, instance, groups * prod(tiles), [grid, Reads("w", w), Writes("u", u)])

    def arrays(self, operands: Operands) -> tuple[Array, Array]:
        """The source's and the result's."""
        return (operands.dy, operands.dx) if self.turned else (operands.x, operands.y)


@dataclass(frozen=True)
class FusedPlan(Plan):
    """The filters' transform, and one kernel for the rest."""

    convolution: Convolution
    filters: Instance
    instance: Instance

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """The two."""
        return (self.filters, self.instance)

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them."""
        problem = self.convolution
        tile, groups = self.instance.tile, problem.tiling.groups
        source, result = problem.arrays(operands)
        u = host.device.alloc((self.workspace // _FLOAT,), "float32")
        problem.transform_filters(host, operands.w, u, (tile["channels"], tile["filters"]))
        stages, blocks_k, blocks_t = _fused_blocks(problem, tile)
        arguments: list[Argument] = [
            struct.pack("<q", stages) + pack_divisors((blocks_k, groups)),
            problem.source.pack(),
            problem.result.pack(),
            Reads("x", source),
            Reads("u", u),
            *operands.epilogue.arguments,
            Writes("y", result),
        ]
        _launch(host, self.instance, groups * blocks_k * blocks_t, arguments)


@dataclass(frozen=True)
class StagedPlan(Plan):
    """fprop or dgrad: the filters' transform, then, a chunk of tiles at a time, windows, products and results."""

    convolution: Convolution
    instances: tuple[Instance, ...]
    split: bool

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """The transforms', and what the products launch."""
        return self.instances

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them, chunk after chunk in the same memory."""
        problem = self.convolution
        tiling, depth, width = problem.tiling, problem.source.channels, problem.result.channels
        matrices = tiling.groups * tiling.points
        chunks = list(tiling.chunks(tiling.groups * (depth + width)))
        source, result = problem.arrays(operands)
        u = host.device.alloc((matrices, depth, width), "float32")
        v = host.device.alloc((matrices * depth * chunks[0][1],), "float32")
        m = host.device.alloc((matrices * width * chunks[0][1],), "float32")
        problem.transform_filters(host, operands.w, u, (depth, width))
        parts = split(host, u, matrices * depth, (width, 1, 1), (width, 1, 1, 1), True) if self.split else None
        for first, tiles in chunks:
            windows = _part(v, (matrices, depth, tiles))
            products = _part(m, (matrices, width, tiles))
            _transform_windows(host, tiling.instance, problem.source, (first, tiles), source, windows)
            if parts is None:
                sgemm(host, u, windows, products, trans_a=True)
            else:
                tensor_product(host, parts, windows, products)
            chunk, threads = problem.result.chunk(first, tiles)
            instance = host.sources.of(RESULTS)[tiling.instance]
            arguments: list[Argument] = [
                chunk,
                problem.result.pack(),
                Reads("m", products),
                *operands.epilogue.arguments,
                Writes("y", result),
            ]
            _launch(host, instance, _blocks(instance, threads), arguments)


@dataclass(frozen=True)
class GradientPlan(Plan):
    """wgrad: a chunk of tiles at a time, windows of x, tiles of dy, products over the tiles, taps added to dw."""

    x: Image
    dy: Image
    instances: tuple[Instance, ...]

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """The transforms', and what the products launch."""
        return self.instances

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them, chunk after chunk in the same memory."""
        tiling, channels, filters = self.x.tiling, self.x.channels, self.dy.channels
        matrices = tiling.groups * tiling.points
        chunks = list(tiling.chunks(tiling.groups * (channels + filters)))
        v = host.device.alloc((matrices * channels * chunks[0][1],), "float32")
        d = host.device.alloc((matrices * filters * chunks[0][1],), "float32")
        products = host.device.alloc((matrices, filters, channels), "float32")
        instance = host.sources.of(TAPS)[tiling.instance]
        pairs = filters * channels
        for first, tiles in chunks:
            windows = _part(v, (matrices, channels, tiles))
            outputs = _part(d, (matrices, filters, tiles))
            _transform_windows(host, tiling.instance, self.x, (first, tiles), operands.x, windows)
            _transform_windows(host, f"dy{tiling.m}", self.dy, (first, tiles), operands.dy, outputs)
            sgemm(host, outputs, windows, products, trans_b=True)
            arguments: list[Argument] = [
                struct.pack("<q", tiling.groups * pairs),
                pack_divisors((pairs,)),
                struct.pack("<i", first > 0),
                Reads("m", products),
                Writes("dw", operands.dw),
            ]
            _launch(host, instance, _blocks(instance, tiling.groups * pairs), arguments)


def plans(operator: str, shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """Every tile's plan for a pass."""
    if operator == "wgrad":
        return [_gradient(shape, m, sources) for m in winograd.TILES]
    tiles: list[tuple[int, int, int | None]] = [
        *((m, 3, None) for m in winograd.TILES if m > 2),
        *((m, 5, None) for m in winograd.TILES_5X5),
        *((winograd.TILE_OF_LINES, taps, axis) for taps, axis in winograd.LINES),
    ]
    staged = [_staged(operator, shape, tile, sources) for tile in tiles]
    return [_fused(operator, shape, sources), *staged]


def split_plans(operator: str, shape: Conv2dShape, sources: Sources, arch: str) -> list[Plan]:
    """The staged plans for fprop and dgrad whose products are computed on tensor cores, in 3xtf32."""
    found = [] if operator == "wgrad" else plans(operator, shape, sources)[1:]
    return [_on_tensor_cores(plan, sources, arch) for plan in found if isinstance(plan, StagedPlan)]


def _on_tensor_cores(plan: StagedPlan, sources: Sources, arch: str) -> Plan:
    """The same transforms around other products."""
    problem = plan.convolution
    tiling, depth, width = problem.tiling, problem.source.channels, problem.result.channels
    matrices = tiling.groups * tiling.points
    sizes = _chunk_sizes(tiling, depth + width)
    kernels = [splitter(sources), *(kernel_for(width, tiles, matrices, sources) for tiles in sizes)]
    archs = splitter(sources).archs
    blocks = max((matrices * -(-width // 64) * -(-tiles // 64) for tiles in sizes), default=0)
    multiplied, moved = tiling.tiles * depth * width, tiling.tiles * (depth + width)
    return replace(
        plan,
        name=plan.name + winograd.SPLIT,
        reason=plan.reason
        or (None if arch in archs else f"its products are for {archs[0]} and later, this is {arch}")
        or past_32_bits({"elements of a product": depth * max(padded(width), *sizes, 1), "blocks": blocks}),
        cost=int(matrices * (COST["3xtf32"] * multiplied + MOVED * (moved + 3 * depth * width))),
        workspace=_FLOAT * matrices * (depth * (width + 2 * padded(width)) + max(sizes, default=0) * (depth + width)),
        instances=_distinct([*plan.instances[:3], *kernels]),
        split=True,
    )


def _fused(operator: str, shape: Conv2dShape, sources: Sources) -> FusedPlan:
    name = winograd.variant(operator, 2)
    problem = Convolution.of(operator, shape, 2, 3)
    (instance,) = sources.of(FUSED).values()
    tile = instance.tile
    stages, blocks_k, blocks_t = _fused_blocks(problem, tile)
    depth, width = stages * tile["channels"], blocks_k * tile["filters"]
    groups, points = problem.tiling.groups, problem.tiling.points
    indices = _indices(problem.source, problem.result) | {"blocks": groups * blocks_k * blocks_t}
    return FusedPlan(
        name=name,
        reason=winograd.refuses(name, operator, shape) or past_32_bits(indices),
        tier=10,
        cost=points * groups * depth * width * blocks_t * tile["tiles"] * (256 + _FUSED_REST) // 256,
        why="tiles of 2x2 do the least work, transforms included: they need no memory between their stages",
        workspace=_FLOAT * points * groups * depth * width,
        convolution=problem,
        filters=sources.of(FILTERS)["f2"],
        instance=instance,
    )


def _fused_blocks(problem: Convolution, tile: Mapping[str, int]) -> tuple[int, int, int]:
    """Stages of channels, blocks of a group's filters, blocks of tiles."""
    counts = (problem.source.channels, problem.result.channels, problem.tiling.tiles)
    sizes = (tile["channels"], tile["filters"], tile["tiles"])
    stages, blocks_k, blocks_t = (-(-count // size) for count, size in zip(counts, sizes, strict=True))
    return stages, blocks_k, blocks_t


def _staged(operator: str, shape: Conv2dShape, tile: tuple[int, int, int | None], sources: Sources) -> StagedPlan:
    m = tile[0]
    name = winograd.variant(operator, *tile)
    problem = Convolution.of(operator, shape, *tile)
    tiling, depth, width = problem.tiling, problem.source.channels, problem.result.channels
    matrices = tiling.groups * tiling.points
    sizes = _chunk_sizes(tiling, depth + width)
    products, kernels = 0, []
    for tiles in sizes:
        product = gemm_plan(width, tiles, depth, matrices, True, False, sources)
        kernels += [product.instance, *((adder(sources),) if product.slices > 1 else ())]
        products = max(products, product.slices if product.slices > 1 else 0)
    most = max(sizes, default=0)
    indices = _indices(problem.source, problem.result)
    indices["threads"] = tiling.groups * max(depth, width) * most + 2**10
    return StagedPlan(
        name=name,
        reason=winograd.refuses(name, operator, shape) or past_32_bits(indices),
        tier=11 if m == 6 else 10,
        cost=tiling.points * tiling.groups * (tiling.tiles * depth * width + MOVED * tiling.tiles * (depth + width)),
        why=f"tiles of {tiling.tile[0]}x{tiling.tile[1]} do the least work, transforms included"
        if m < 6
        else "taken only where no smaller tile can run: it loses another factor of two or three in accuracy",
        workspace=_FLOAT * matrices * (depth * width + most * (depth + width * (1 + products))),
        convolution=problem,
        instances=_distinct(
            [
                sources.of(WINDOWS)[tiling.instance],
                sources.of(FILTERS)[tiling.filter_instance],
                sources.of(RESULTS)[tiling.instance],
                *kernels,
            ]
        ),
        split=False,
    )


def _chunk_sizes(tiling: Tiling, channels: int) -> set[int]:
    """The one or two sizes of chunk that occur, `channels` of a group; none of an empty batch."""
    size, last = tiling.chunk_sizes(tiling.groups * channels)
    return ({size} if size < tiling.tiles else set()) | ({last} if last else set())


def _gradient(shape: Conv2dShape, m: int, sources: Sources) -> GradientPlan:
    name = winograd.variant("wgrad", m)
    top, _, left, _ = shape.padding
    tiling = Tiling(shape.N, shape.groups, m, shape.P, shape.Q)
    x = Image(tiling, shape.C // shape.groups, (shape.H, shape.W), (-top, -left))
    dy = Image(tiling, shape.K // shape.groups, (shape.P, shape.Q))
    matrices, pairs = shape.groups * tiling.points, x.channels * dy.channels
    sizes = _chunk_sizes(tiling, x.channels + dy.channels)
    products, kernels = 1, []
    for tiles in sizes:
        product = gemm_plan(dy.channels, x.channels, tiles, matrices, False, True, sources)
        kernels += [product.instance, *((adder(sources),) if product.slices > 1 else ())]
        products = max(products, product.slices + 1 if product.slices > 1 else 1)
    most = max(sizes, default=0)
    indices = _indices(x, dy)
    indices["threads"] = shape.groups * max(max(x.channels, dy.channels) * most, pairs) + 2**10
    return GradientPlan(
        name=name,
        reason=winograd.refuses(name, "wgrad", shape) or past_32_bits(indices),
        tier=10 if m < 6 else 11,
        cost=matrices * tiling.tiles * (pairs + MOVED * (x.channels + dy.channels)),
        why=f"tiles of {m}x{m} do the least work, transforms included"
        if m < 6
        else "taken only where no smaller tile can run: it loses another factor of two or three in accuracy",
        workspace=_FLOAT * matrices * (most * (x.channels + dy.channels) + products * pairs),
        x=x,
        dy=dy,
        instances=_distinct(
            [sources.of(WINDOWS)[f"f{m}"], sources.of(WINDOWS)[f"dy{m}"], *kernels, sources.of(TAPS)[f"f{m}"]]
        ),
    )


def _transform_windows(
    host: HostBase, instance_name: str, image: Image, chunk: tuple[int, int], x: Array, v: Array
) -> None:
    instance = host.sources.of(WINDOWS)[instance_name]
    packed, threads = image.chunk(*chunk)
    _launch(host, instance, _blocks(instance, threads), [packed, image.pack(), Reads("x", x), Writes("v", v)])


def _launch(host: HostBase, instance: Instance, blocks: int, arguments: list[Argument]) -> None:
    block = (_WARP * instance.tile["warps"], 1, 1)
    host.device.launch(host.device.load(instance), (blocks, 1, 1), block, 0, arguments)


def _blocks(instance: Instance, threads: int) -> int:
    return -(-threads // (_WARP * instance.tile["warps"]))


def _part(buffer: Array, shape: tuple[int, ...]) -> Array:
    """The first elements of a flat buffer, as a dense array."""
    return buffer[: prod(shape)].reshape(shape)


def _distinct(instances: list[Instance]) -> tuple[Instance, ...]:
    return tuple(dict.fromkeys(instances))


def _indices(*images: Image) -> dict[str, int]:
    """What kernels count in 32 bits, of images under one tiling."""
    tiling = images[0].tiling
    # A thread past the last tile computes the corner of one of the next image.
    ends = ((tiling.down + 1) * tiling.tile[0] + 8, (tiling.across + 1) * tiling.tile[1] + 8)
    return {
        "tiles": tiling.tiles + 2**10,
        "rows": max(max(image.size[0], ends[0] + abs(image.corner[0])) for image in images),
        "columns": max(max(image.size[1], ends[1] + abs(image.corner[1])) for image in images),
        "channels": max(image.channels for image in images) + 2**10,
    }
