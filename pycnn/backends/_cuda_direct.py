"""Launch plans for the direct convolution kernels: which instance can run a problem, on what grid, at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pycnn.backends._cuda_host import grid_of
from pycnn.backends._device import Extent
from pycnn.backends._layout import NARROW, pack_divisors
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

TILED, ANY, DGRAD = "conv2d_fprop_direct", "conv2d_fprop_direct_any", "conv2d_dgrad_direct"

PASSES = ("fprop", "dgrad")

_WARP = 32


@dataclass(frozen=True)
class Plan:
    """One way to run a problem.

    Attributes:
        name: the algorithm's name, as `algo=` takes it.
        instance: the kernel.
        reason: why it cannot run this problem, or None.
        grid, block: launch geometry.
        geometry: the kernel's second argument: divisors that take its block index apart.
        padded_macs: multiply-adds of all tiles, the idle ones included.
    """

    name: str
    instance: Instance
    reason: str | None
    grid: Extent
    block: Extent
    geometry: bytes
    padded_macs: int


def plans(operator: str, shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """Every direct instance's plan for a pass of `PASSES`."""
    return (fprop_plans if operator == "fprop" else dgrad_plans)(shape, sources)


def choice(operator: str, plans: list[Plan]) -> tuple[Plan, str]:
    """The plan that `auto` takes among the plans of a pass, and why."""
    return (fprop_choice if operator == "fprop" else dgrad_choice)(plans)


def fprop_plans(shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """Every direct instance's plan for `shape`, specialised ones first."""
    tiled = [_tiled(shape, instance) for instance in sources.of(TILED).values()]
    return tiled + [_any(shape, instance) for instance in sources.of(ANY).values()]


def dgrad_plans(shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """Every direct instance's plan for the gradient of the input, narrow ones first."""
    return [_dgrad(shape, instance) for instance in sources.of(DGRAD).values()]


def dgrad_choice(plans: list[Plan]) -> tuple[Plan, str]:
    """The plan that `auto` takes, and why."""
    return next(plan for plan in plans if plan.reason is None), "the only kernel of this pass"


def fprop_choice(plans: list[Plan]) -> tuple[Plan, str]:
    """The plan that `auto` takes, and why: the tiled one with the fewest idle lanes, else the first that can run."""
    able = [plan for plan in plans if plan.reason is None]
    tiled = [plan for plan in able if plan.instance.kernel == TILED]
    if tiled:
        best = min(tiled, key=lambda plan: plan.padded_macs)
        return best, f"specialised on this filter and stride, with the fewest idle lanes of {len(tiled)} tiles"
    return able[0], "no tile is specialised on this filter, stride and dilation"


def _tiled(shape: Conv2dShape, instance: Instance) -> Plan:
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
    return Plan(
        name=f"direct_{instance.name}",
        instance=instance,
        reason=_mismatch(wanted) or _too_wide(shape, blocks, tile_p, tile_q),
        grid=(blocks, 1, 1),
        block=(tile["warps"] * _WARP, 1, 1),
        geometry=pack_divisors((tiles_k, tiles_q, tiles_p, shape.groups)),
        padded_macs=blocks * tile_p * tile_q * tile_k * (shape.C // shape.groups) * shape.R * shape.S,
    )


def _any(shape: Conv2dShape, instance: Instance) -> Plan:
    tile = instance.tile
    tile_pq, tile_k = _WARP * tile["pixels"], tile["warps"] * tile["filters"]
    tiles_pq = -(-shape.P * shape.Q // tile_pq)
    tiles_k = -(-shape.K // shape.groups // tile_k)
    blocks = shape.N * shape.groups * tiles_pq * tiles_k
    # A thread past the last pixel still computes coordinates: up to tile_pq pixels, so as many rows, too far.
    reason = None if tile["wide"] else _too_wide(shape, blocks, tile_pq, tile_pq, shape.P * shape.Q + tile_pq)
    return Plan(
        name=f"direct_any_{instance.name}",
        instance=instance,
        reason=reason,
        grid=grid_of(blocks),
        block=(tile["warps"] * _WARP, 1, 1),
        geometry=pack_divisors((tiles_k, tiles_pq, shape.groups, shape.Q, shape.S, shape.R)),
        padded_macs=blocks * tile_pq * tile_k * (shape.C // shape.groups) * shape.R * shape.S,
    )


def _dgrad(shape: Conv2dShape, instance: Instance) -> Plan:
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
    return Plan(
        name=f"direct_{instance.name}",
        instance=instance,
        reason=None if tile["wide"] else _dgrad_too_wide(shape, blocks, rows * columns + tile_pixels, counted),
        grid=grid_of(blocks),
        block=(tile["warps"] * _WARP, 1, 1),
        geometry=pack_divisors(
            (tiles_c, tiles_pixels, *classes[::-1], shape.groups, columns, *taps[::-1], *step[::-1]),
        ),
        padded_macs=blocks * tile_pixels * tile_c * counted,
    )


def _mismatch(wanted: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]) -> str | None:
    for what, (has, needs) in wanted.items():
        if has != needs:
            return f"it is compiled for {what} {has[0]}x{has[1]}, and the problem has {needs[0]}x{needs[1]}"
    return None


def _too_wide(shape: Conv2dShape, blocks: int, extra_p: int, extra_q: int, pixels: int = 0) -> str | None:
    """Why 32-bit coordinates do not reach, or None: every index a kernel computes must stay below 2^31."""
    top, _, left, _ = shape.padding
    indices = {
        "blocks": blocks,
        "rows": max(shape.H, (shape.P + extra_p) * shape.stride[0] + shape.R * shape.dilation[0] + top),
        "columns": max(shape.W, (shape.Q + extra_q) * shape.stride[1] + shape.S * shape.dilation[1] + left),
        "pixels": pixels,
        "taps": shape.C // shape.groups * shape.R * shape.S + 2**10,
        "filters": shape.K + 2**10,
    }
    return _past_32_bits(indices)


def _dgrad_too_wide(shape: Conv2dShape, blocks: int, pixels: int, taps: int) -> str | None:
    top, _, left, _ = shape.padding
    reach_h, reach_w = (shape.R * shape.dilation[0] + top, shape.S * shape.dilation[1] + left)
    return _past_32_bits(
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


def _past_32_bits(indices: Mapping[str, int]) -> str | None:
    for what, most in indices.items():
        if most >= NARROW:
            return f"it counts in 32 bits, and the {what} go up to {most}"
    return None
