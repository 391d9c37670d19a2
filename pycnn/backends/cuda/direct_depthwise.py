"""Launch plans for kernels/conv2d_depthwise_direct.cu: convolutions whose groups have one channel each.

In 16 bits the kernels read and write images as they lie, channels-last ones too, as those on tensor cores do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pycnn.backends.cuda.direct import DirectPlan, mismatch
from pycnn.backends.cuda.direct_wgrad import WgradPlan, slices_of, workspace_of
from pycnn.backends.cuda.host import grid_of
from pycnn.backends.cuda.layout import pack_divisors, pack_int64
from pycnn.backends.cuda.plan import Operands, instances_of, past_32_bits
from pycnn.backends.cuda.slices import adder
from pycnn.backends.cuda.tensor import steps_of
from pycnn.jit.sources import Instance, Sources
from pycnn.memory_format import wants_channels_last
from pycnn.shape import Conv2dShape

KERNELS = FPROP, DGRAD, WGRAD = "conv2d_fprop_depthwise", "conv2d_dgrad_depthwise", "conv2d_wgrad_depthwise"

_WHY = "groups of one channel leave most of a tile of filters idle"

# How many multiply-adds of a tile in registers take as long as one of these, whose operands come from L1: about one
# load each, and with coordinates of their own where the filter is not known to the compiler.
_SLOWER, _SLOWER_ANY, _SLOWER_WIDE = 4, 8, 16


@dataclass(frozen=True)
class LaidPlan(DirectPlan):
    """Of 16 bits."""

    strided = True

    def _divided(self, operands: Operands) -> bytes:
        return self.geometry + _lie(operands)


@dataclass(frozen=True)
class LaidWgradPlan(WgradPlan):
    """Of 16 bits."""

    strided = True

    def _divided(self, operands: Operands) -> bytes:
        return self.geometry + _lie(operands)


def _lie(operands: Operands) -> bytes:
    """What DepthwiseGridOf has beyond DepthwiseGrid: how x (or dx) and y (or dy) lie."""
    x = operands.x if operands.dx is None else operands.dx
    y = operands.y if operands.dy is None else operands.dy
    result = x if operands.y is None else y
    return pack_int64(*steps_of(x), *steps_of(y), wants_channels_last(result))


def plans(operator: str, shape: Conv2dShape, sources: Sources, ending: str = "") -> list[DirectPlan | WgradPlan]:
    """Every instance's plan for a pass on arrays of a dtype, specialised ones first."""
    kernel = {"fprop": FPROP, "dgrad": DGRAD, "wgrad": WGRAD}[operator]
    sums = adder(sources, ending)
    return [_plan(operator, shape, *named, sums) for named in instances_of(sources, kernel, ending).items()]


def _plan(operator: str, shape: Conv2dShape, name: str, instance: Instance, sums: Instance) -> DirectPlan | WgradPlan:
    tile = instance.tile
    rows, threads = tile["rows"], 32 * tile["warps"]
    above = rows_above(shape) if operator == "dgrad" else 0
    height, columns = (shape.H + above, shape.W) if operator == "dgrad" else (shape.P, shape.Q)
    tiles_rows, channels = -(-height // rows), shape.C if operator == "dgrad" else shape.K
    wanted = {
        "filter": ((tile["R"], tile["S"]), (shape.R, shape.S)),
        "stride": ((tile["stride_h"], tile["stride_w"]), shape.stride),
        "dilation": ((1, 1), shape.dilation),
    }
    any_problem = tile["R"] == 0
    reason = None if any_problem else mismatch(wanted)
    if shape.groups != shape.C:
        reason = f"it is for groups of one channel, and the problem's have {shape.C // shape.groups}"
    items = shape.N * tiles_rows * columns * (1 if operator == "wgrad" else channels)
    slices, length = 1, items
    if operator == "wgrad":
        slices, rounds = slices_of(channels, threads, -(-items // threads), shape)
        length = rounds * threads
    blocks = slices * channels if operator == "wgrad" else -(-items // threads)
    if reason is None and not tile["wide"]:
        indices = _indices(shape, tiles_rows * rows, columns, max(items, blocks) + max(threads, length))
        if tile["type"]:  # where they are channels-last, a plane's last element is the image's
            indices["elements of an image"] = indices["elements of a plane"] * max(shape.C, shape.K)
        reason = past_32_bits(indices)
    multiplier = shape.K // shape.C if shape.C <= shape.K else 1
    steps = (dilation // stride for dilation, stride in zip(shape.dilation, shape.stride, strict=True))
    geometry = pack_divisors((columns, tiles_rows, channels, multiplier, *shape.stride))
    geometry += struct.pack("<5q", items, length, above, *steps)
    slower = _SLOWER_WIDE if tile["wide"] else _SLOWER_ANY if any_problem else _SLOWER
    results = items * rows * (channels if operator == "wgrad" else shape.K // channels)
    cost = slower * results * shape.R * shape.S
    if operator == "wgrad":
        return (LaidWgradPlan if tile["type"] else WgradPlan)(
            name=f"direct_depthwise_{name}",
            instance=instance,
            tier=0,
            why=_WHY,
            workspace=workspace_of(slices, shape, sums),
            bias_gradient=True,
            shape=shape,
            reason=reason,
            grid=grid_of(blocks),
            block=(threads, 1, 1),
            geometry=geometry,
            slices=slices,
            sums=sums,
            cost=cost,
        )
    return (LaidPlan if tile["type"] else DirectPlan)(
        name=f"direct_depthwise_{name}",
        instance=instance,
        tier=0,
        why=_WHY,
        workspace=0,
        shape=shape,
        reason=reason,
        grid=grid_of(blocks),
        block=(threads, 1, 1),
        geometry=geometry,
        cost=cost // (shape.stride[0] * shape.stride[1] if operator == "dgrad" else 1),
    )


def rows_above(shape: Conv2dShape) -> int:
    """By how many rows the first tile of a data gradient begins above the image."""
    return shape.padding[0] % shape.stride[0]


def _indices(shape: Conv2dShape, rows: int, columns: int, items: int) -> dict[str, int]:
    """The largest of each kind of index that a thread computes."""
    top, _, left, _ = shape.padding
    reach_h, reach_w = shape.R * shape.dilation[0] + top, shape.S * shape.dilation[1] + left
    return {
        "threads": items,
        "rows": max(shape.H, rows * shape.stride[0]) + rows + reach_h,
        "columns": max(shape.W, columns * shape.stride[1]) + reach_w,
        "elements of a plane": max(shape.H * shape.W, shape.P * shape.Q) + max(shape.W, shape.Q) * rows,
        "taps": shape.R * shape.S,
        "strides": 2 * max(shape.stride),
        "filters": shape.K,
    }
