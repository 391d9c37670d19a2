"""Launch plans for kernels/conv2d_pointwise_direct.cu: 1x1 convolutions and their data gradients."""

from __future__ import annotations

import struct

from pycnn.backends.cuda.direct import DirectPlan
from pycnn.backends.cuda.layout import pack_divisors
from pycnn.backends.cuda.plan import past_32_bits
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

KERNELS = FPROP, DGRAD = "conv2d_fprop_pointwise", "conv2d_dgrad_pointwise"


def plans(operator: str, shape: Conv2dShape, sources: Sources) -> list[DirectPlan]:
    """Every instance's plan for a pass."""
    if operator == "fprop":
        sizes = shape.P, shape.Q, shape.C, shape.K
        return [_plan(shape, sizes, instance) for instance in sources.of(FPROP).values()]
    if operator == "dgrad":
        sizes = shape.H, shape.W, shape.K, shape.C
        return [_plan(shape, sizes, instance) for instance in sources.of(DGRAD).values()]
    return []


def _plan(shape: Conv2dShape, sizes: tuple[int, int, int, int], instance: Instance) -> DirectPlan:
    rows, columns, channels, filters = sizes  # of the result, and those summed over and made
    tile = instance.tile
    tile_pixels, tile_k = tile["warps"] // tile["warps_k"] * 64, tile["warps_k"] * 32
    pixels = shape.N * rows * columns
    tiles_k = -(-filters // shape.groups // tile_k)
    blocks = -(-pixels // tile_pixels) * shape.groups * tiles_k
    reason = None
    if (shape.R, shape.S) != (1, 1):
        reason = f"it is compiled for filter 1x1, and the problem has {shape.R}x{shape.S}"
    top, _, left, _ = shape.padding
    # A thread past the last pixel still computes coordinates.
    reason = reason or past_32_bits(
        {
            "blocks": blocks,
            "pixels": pixels + tile_pixels,
            "rows": max(shape.H, shape.P * shape.stride[0]) + top,
            "columns": max(shape.W, shape.Q * shape.stride[1]) + left,
            "strides": 2 * max(shape.stride),
            "weights": (channels // shape.groups + 2**10) * (filters // shape.groups + 2**10),
            "filters": max(shape.K, shape.C) + 2**10,
        }
    )
    return DirectPlan(
        name=f"direct_1x1_{instance.name}",
        instance=instance,
        tier=0,
        why="for 1x1 filters: the pixels of all images lie in one row, so small planes leave no lane idle",
        workspace=0,
        shape=shape,
        reason=reason,
        grid=(blocks, 1, 1),
        block=(32 * tile["warps"], 1, 1),
        geometry=pack_divisors((tiles_k, shape.groups, columns, rows, *shape.stride)) + struct.pack("<q", pixels),
        cost=blocks * tile_pixels * tile_k * (channels // shape.groups),
    )
