"""Launch plans for the direct convolution kernels: which instance can run a problem, on what grid, at what cost.

In 16 bits there are the kernels for any problem alone: what has enough channels for a tile has enough for tensor cores.
They read dense NCHW arrays; channels-last ones that they are given by name are copied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pycnn.backends.cuda.device import Argument, Extent, Reads, Writes
from pycnn.backends.cuda.gemm import BUSY_BLOCKS
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.backends.cuda.layout import pack_conv2d_shape, pack_divisors
from pycnn.backends.cuda.plan import Operands, Plan, instances_of, past_32_bits
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

KERNELS = TILED, ANY, DGRAD_TILED, DGRAD = (
    "conv2d_fprop_direct",
    "conv2d_fprop_direct_any",
    "conv2d_dgrad_direct_tiled",
    "conv2d_dgrad_direct",
)

_WARP = 32

# What a multiply-add of the kernels for any problem takes, against one of a tile in registers: they read one operand
# from L1, at a place that is worked out for eight of them, in 64 bits by twice as many instructions.
_GENERAL, _GENERAL_WIDE = 3, 6


@dataclass(frozen=True)
class DirectPlan(Plan):
    """One launch of one kernel.

    Attributes:
        instance: the kernel.
        shape: the problem, as the kernel is told it.
        grid, block: launch geometry.
        geometry: the kernel's second argument: divisors that take its block index apart.
    """

    instance: Instance
    shape: Conv2dShape
    grid: Extent
    block: Extent
    geometry: bytes

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """The one."""
        return (self.instance,)

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch it."""
        arguments: list[Argument] = [pack_conv2d_shape(self.shape), self._divided(operands)]
        if operands.dx is not None:
            arguments += [Reads("dy", operands.dy), Reads("w", operands.w), Writes("dx", operands.dx)]
        else:
            arguments += [Reads("x", operands.x), Reads("w", operands.w)]
            arguments += [*operands.epilogue.arguments, Writes("y", operands.y)]
        host.device.launch(host.device.load(self.instance), self.grid, self.block, 0, arguments)

    def _divided(self, operands: Operands) -> bytes:
        """The kernel's second argument."""
        return self.geometry


def plans(operator: str, shape: Conv2dShape, sources: Sources, ending: str = "") -> list[DirectPlan]:
    """Every direct instance's plan for a pass on arrays of a dtype, specialised ones first."""
    if operator == "fprop":
        tiled = [_tiled(shape, instance) for instance in instances_of(sources, TILED, ending).values()]
        return tiled + [_any(shape, *named) for named in instances_of(sources, ANY, ending).items()]
    if operator == "dgrad":
        tiled = [_dgrad_tiled(shape, instance) for instance in instances_of(sources, DGRAD_TILED, ending).values()]
        return tiled + [_dgrad(shape, *named) for named in instances_of(sources, DGRAD, ending).items()]
    return []


def general_work(tile: Mapping[str, int], multiplies: int, blocks: int) -> int:
    """The cost of a kernel for any problem that does so many multiply-adds in so many blocks.

    In 16 bits it is compared with that of plans on tensor cores, so it counts as they do: in multiply-adds of a tile,
    those included that the blocks a GPU has room for might have done.
    """
    if not tile["type"]:
        return multiplies
    slower = _GENERAL_WIDE if tile["wide"] else _GENERAL
    return slower * multiplies * max(blocks, BUSY_BLOCKS) // max(blocks, 1)


def _tiled(shape: Conv2dShape, instance: Instance) -> DirectPlan:
    tile = instance.tile
    tile_p, tile_q = _WARP // tile["lanes_q"] * tile["rows"], tile["lanes_q"]
    tile_k = tile["warps"] * tile["filters"]
    tiles_p, tiles_q = -(-shape.P // tile_p), -(-shape.Q // tile_q)
    tiles_k = -(-shape.K // shape.groups // tile_k)
    blocks = shape.N * shape.groups * tiles_p * tiles_q * tiles_k
    wanted = {
        "filter": ((tile["R"], tile["S"]), (shape.R, shape.S)),
        "stride": ((tile["stride_h"], tile["stride_w"]), shape.stride),
        "dilation": ((1, 1), shape.dilation),
    }
    return DirectPlan(
        name=f"direct_{instance.name}",
        instance=instance,
        tier=0,
        why="specialised on this filter and stride, with the fewest idle lanes of its tiles",
        workspace=0,
        shape=shape,
        reason=mismatch(wanted) or _too_wide(shape, blocks, tile_p, tile_q),
        grid=(blocks, 1, 1),
        block=(tile["warps"] * _WARP, 1, 1),
        geometry=pack_divisors((tiles_k, tiles_q, tiles_p, shape.groups)),
        cost=blocks * tile_p * tile_q * tile_k * (shape.C // shape.groups) * shape.R * shape.S,
    )


def _dgrad_tiled(shape: Conv2dShape, instance: Instance) -> DirectPlan:
    if shape.stride != (1, 1) or shape.dilation != (1, 1):
        # Its tile says why; the turned convolution below is at stride 1 whatever the problem's stride.
        return _tiled(shape, instance)
    return _tiled(turned(shape), instance)


def turned(shape: Conv2dShape) -> Conv2dShape:
    """The convolution that the data gradient at stride 1 without dilation is: of dy, with filters turned half round."""
    top, bottom, left, right = shape.padding
    padding = (shape.R - 1 - top, shape.R - 1 - bottom, shape.S - 1 - left, shape.S - 1 - right)
    sizes = (shape.N, shape.K, shape.P, shape.Q, shape.C, shape.R, shape.S)
    return Conv2dShape(*sizes, padding=padding, groups=shape.groups)


def _any(shape: Conv2dShape, name: str, instance: Instance) -> DirectPlan:
    tile = instance.tile
    tile_pq, tile_k = _WARP * tile["pixels"], tile["warps"] * tile["filters"]
    tiles_pq = -(-shape.P * shape.Q // tile_pq)
    tiles_k = -(-shape.K // shape.groups // tile_k)
    blocks = shape.N * shape.groups * tiles_pq * tiles_k
    # A thread past the last pixel still computes coordinates: up to tile_pq pixels, so as many rows, too far.
    reason = None if tile["wide"] else _too_wide(shape, blocks, tile_pq, tile_pq, shape.P * shape.Q + tile_pq)
    return DirectPlan(
        name=f"direct_any_{name}",
        instance=instance,
        tier=1 + tile["wide"],
        why="no tile is specialised on this filter, stride and dilation",
        workspace=0,
        shape=shape,
        reason=reason,
        grid=grid_of(blocks),
        block=(tile["warps"] * _WARP, 1, 1),
        geometry=pack_divisors((tiles_k, tiles_pq, shape.groups, shape.Q, shape.S, shape.R)),
        cost=general_work(tile, blocks * tile_pq * tile_k * (shape.C // shape.groups) * shape.R * shape.S, blocks),
    )


def _dgrad(shape: Conv2dShape, name: str, instance: Instance) -> DirectPlan:
    tile = instance.tile
    tile_pixels, tile_c = _WARP * tile["pixels"], tile["warps"] * tile["channels"]
    # Parity classes that have a pixel, and the pixels of the largest.
    classes = (min(shape.stride[0], shape.H), min(shape.stride[1], shape.W))
    rows, columns = -(-shape.H // shape.stride[0]), -(-shape.W // shape.stride[1])
    # r * dilation takes each value (mod stride) that it takes at all once in so many taps.
    step = tuple(
        stride // math.gcd(stride, dilation) for stride, dilation in zip(shape.stride, shape.dilation, strict=True)
    )
    taps = (-(-shape.R // step[0]), -(-shape.S // step[1]))
    tiles_c = -(-shape.C // shape.groups // tile_c)
    tiles_pixels = -(-rows * columns // tile_pixels)
    blocks = shape.N * shape.groups * classes[0] * classes[1] * tiles_pixels * tiles_c
    counted = shape.K // shape.groups * taps[0] * taps[1]
    return DirectPlan(
        name=f"direct_any_{name}",
        instance=instance,
        tier=1 + tile["wide"],
        why="no tile is specialised on this filter, stride and dilation",
        workspace=0,
        shape=shape,
        reason=None if tile["wide"] else _dgrad_too_wide(shape, blocks, rows * columns + tile_pixels, counted),
        grid=grid_of(blocks),
        block=(tile["warps"] * _WARP, 1, 1),
        geometry=pack_divisors(
            (tiles_c, tiles_pixels, *classes[::-1], shape.groups, columns, *taps[::-1], *step[::-1]),
        ),
        cost=general_work(tile, blocks * tile_pixels * tile_c * counted, blocks),
    )


def mismatch(wanted: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]) -> str | None:
    """Why an instance is not for a problem, or None: `wanted` has by name what it is compiled for and what it meets."""
    for what, (has, needs) in wanted.items():
        if has != needs:
            return f"it is compiled for {what} {has[0]}x{has[1]}, and the problem has {needs[0]}x{needs[1]}"
    return None


def _too_wide(shape: Conv2dShape, blocks: int, extra_p: int, extra_q: int, pixels: int = 0) -> str | None:
    """Why 32-bit coordinates do not reach, or None: every index a kernel computes must stay below 2^31."""
    top, left = abs(shape.padding[0]), abs(shape.padding[2])  # negative where a data gradient is turned
    indices = {
        "blocks": blocks,
        "rows": max(shape.H, (shape.P + extra_p) * shape.stride[0] + shape.R * shape.dilation[0] + top),
        "columns": max(shape.W, (shape.Q + extra_q) * shape.stride[1] + shape.S * shape.dilation[1] + left),
        "pixels": pixels,
        "taps": shape.C // shape.groups * shape.R * shape.S + 2**10,
        "filters": shape.K + 2**10,
    }
    return past_32_bits(indices)


def _dgrad_too_wide(shape: Conv2dShape, blocks: int, pixels: int, taps: int) -> str | None:
    top, _, left, _ = shape.padding
    reach_h, reach_w = (shape.R * shape.dilation[0] + top, shape.S * shape.dilation[1] + left)
    return past_32_bits(
        {
            "blocks": blocks,
            # A thread past the last pixel still computes coordinates: up to `pixels` rows too far.
            "pixels": pixels,
            "rows": max(shape.H + reach_h, shape.P + pixels + reach_h),
            "columns": max(shape.W + reach_w, shape.Q + reach_w),
            "taps": taps + 2**10,
            "stride": 2 * max(*shape.stride, *shape.dilation),
            "channels": shape.C + 2**10,
        }
    )
