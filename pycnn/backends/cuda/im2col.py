"""Plans of the im2col kernels that never store columns: implicit GEMM, for all three passes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.gemm import slices_of, work
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.backends.cuda.layout import NARROW, pack_conv2d_shape, pack_divisors
from pycnn.backends.cuda.plan import Operands, Plan
from pycnn.backends.cuda.slices import adder, sum_slices
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

KERNELS = ("conv2d_fprop_im2col", "conv2d_dgrad_im2col", "conv2d_wgrad_im2col")

TIER = 10

# Rows and columns of an image stay below it in 32 bits, for `nowhere` of kernels/im2col.cuh is one beyond them.
_NOWHERE = 2**30


@dataclass(frozen=True)
class _Product:
    """A pass as a matrix product.

    Attributes:
        size: gemm_m, gemm_n and gemm_k of one product.
        products: how many there are: groups, times parity classes in dgrad.
        digits: the divisors of the kernel's grid after those of the tiles.
        bounds: the largest indices that it counts in 32 bits, by what they are; NARROW is too many.
        reach: the largest rows and columns.
    """

    size: tuple[int, int, int]
    products: int
    digits: tuple[int, ...]
    bounds: Mapping[str, int]
    reach: int


@dataclass(frozen=True)
class ImplicitPlan(Plan):
    """One launch, and the sum of its slices.

    Attributes:
        operator: the pass.
        shape: the problem.
        instance: the kernel.
        product: the pass as a matrix product.
        tiles: of one product, along gemm_m and gemm_n.
        slices: of gemm_k; above 1, each is a partial result to be added up.
        sums: the kernel that does.
    """

    operator: str
    shape: Conv2dShape
    instance: Instance
    product: _Product
    tiles: tuple[int, int]
    slices: int
    sums: Instance

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """The product, and the sum of its slices if it has any."""
        return (self.instance, self.sums) if self.slices > 1 else (self.instance,)

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them."""
        blocks = self.tiles[0] * self.tiles[1] * self.product.products
        split = not operands.epilogue.relu  # a sum is rectified when it is whole
        slices, k_slice = slices_of(self.instance, blocks, self.product.size[2], split)
        grid = struct.pack("<q", k_slice) + pack_divisors((*self.tiles, *self.product.digits))
        arguments: list[Argument] = [pack_conv2d_shape(self.shape), grid]
        results: list[tuple[str, Array | None]]
        if self.operator == "fprop":
            arguments += [Reads("x", operands.x), Reads("w", operands.w), *operands.epilogue.arguments]
            results = [("y", operands.y)]
        elif self.operator == "dgrad":
            arguments += [Reads("dy", operands.dy), Reads("w", operands.w)]
            results = [("dx", operands.dx)]
        else:
            arguments += [Reads("dy", operands.dy), Reads("x", operands.x)]
            results = [("dw", operands.dw), ("db", operands.db)]
        parts = [self._part(host, result, slices) for _, result in results]
        arguments += [Writes(name, part) for (name, _), part in zip(results, parts, strict=True)]
        block = (32 * self.instance.tile["warps"], 1, 1)
        host.device.launch(host.device.load(self.instance), grid_of(blocks * slices), block, 0, arguments)
        if slices > 1:
            for part, (_, result) in zip(parts, results, strict=True):
                if result is not None:
                    sum_slices(host, part, result)

    @staticmethod
    def _part(host: HostBase, result: Array | None, slices: int) -> Array | None:
        """What the launch writes of a result: itself, or slices of it."""
        if result is None or slices == 1:
            return result
        return host.device.alloc((slices, *result.shape), result.dtype)


def plans(operator: str, shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """A plan for every tile."""
    product = {"fprop": _fprop, "dgrad": _dgrad, "wgrad": _wgrad}[operator](shape)
    results = {"fprop": shape.y_shape, "dgrad": shape.x_shape, "wgrad": shape.w_shape}[operator]
    sums = adder(sources)
    return [
        _plan(operator, shape, instance, product, math.prod(results), sums)
        for instance in sources.of(f"conv2d_{operator}_im2col").values()
    ]


def _plan(
    operator: str, shape: Conv2dShape, instance: Instance, product: _Product, result: int, sums: Instance
) -> ImplicitPlan:
    m, n, k = product.size
    tile = instance.tile
    tiles = (-(-m // tile["tile_m"]), -(-n // tile["tile_n"]))
    blocks = tiles[0] * tiles[1] * product.products
    slices, _ = slices_of(instance, blocks, k)
    bias = shape.K if operator == "wgrad" else 0
    return ImplicitPlan(
        name=f"im2col_implicit_{instance.name}",
        reason=None if tile["wide"] else _too_wide(product, blocks * slices),
        tier=TIER + tile["wide"],
        cost=int(work(instance, blocks, slices) * k),
        why="the tile with the least work, idle work included",
        workspace=4 * slices * (result + bias) if slices > 1 else 0,
        bias_gradient=True,
        operator=operator,
        shape=shape,
        instance=instance,
        product=product,
        tiles=tiles,
        slices=slices,
        sums=sums,
    )


def _fprop(shape: Conv2dShape) -> _Product:
    pixels, taps = shape.P * shape.Q, shape.C // shape.groups * shape.R * shape.S
    reach_h, reach_w = _reach(shape)
    return _Product(
        size=(shape.K // shape.groups, shape.N * pixels, taps),
        products=shape.groups,
        digits=(shape.groups, pixels, shape.Q, shape.S, shape.R),
        bounds={
            "pixels": shape.N * pixels,
            "taps": taps,
            "filters": shape.K,
            "pixels of a group's channels": (shape.C // shape.groups * shape.H + reach_h) * shape.W + reach_w,
        },
        reach=max(reach_h, reach_w),
    )


def _dgrad(shape: Conv2dShape) -> _Product:
    # Parity classes that have a pixel, and the pixels of the largest.
    classes = (min(shape.stride[0], shape.H), min(shape.stride[1], shape.W))
    rows, columns = -(-shape.H // shape.stride[0]), -(-shape.W // shape.stride[1])
    # r * dilation takes each value (mod stride) that it takes at all once in so many taps.
    step = tuple(
        stride // math.gcd(stride, dilation) for stride, dilation in zip(shape.stride, shape.dilation, strict=True)
    )
    taps = (-(-shape.R // step[0]), -(-shape.S // step[1]))
    filters, channels = shape.K // shape.groups, shape.C // shape.groups
    reach_h, reach_w = _reach(shape)
    return _Product(
        size=(channels, shape.N * rows * columns, filters * taps[0] * taps[1]),
        products=shape.groups * classes[0] * classes[1],
        digits=(*classes[::-1], shape.groups, rows * columns, columns, *taps[::-1], *step[::-1]),
        bounds={
            "pixels": shape.N * rows * columns,
            "taps": filters * taps[0] * taps[1],
            "weights of a group": filters * channels * shape.R * shape.S,
            "channels": shape.C,
            "pixels of a group's filters": (filters * shape.P + reach_h) * shape.Q + reach_w,
            "stride": 2 * max(*shape.stride, *shape.dilation),
        },
        reach=max(reach_h, reach_w),
    )


def _wgrad(shape: Conv2dShape) -> _Product:
    pixels, taps = shape.P * shape.Q, shape.C // shape.groups * shape.R * shape.S
    reach_h, reach_w = _reach(shape)
    return _Product(
        size=(shape.K // shape.groups, taps, shape.N * pixels),
        products=shape.groups,
        digits=(shape.groups, pixels, shape.Q, shape.S, shape.R),
        bounds={
            "pixels of dy": shape.N * shape.K * pixels,
            "pixels of x": ((shape.N * shape.C + shape.C // shape.groups) * shape.H + 2 * reach_h) * shape.W + reach_w,
            "taps": taps,
        },
        reach=max(reach_h, reach_w),
    )


def _reach(shape: Conv2dShape) -> tuple[int, int]:
    """The farthest row and column that a tap of a pixel looks at, or looks from, in x or in dy."""
    top, _, left, _ = shape.padding
    return (
        max(shape.H, shape.P * shape.stride[0]) + shape.R * shape.dilation[0] + top,
        max(shape.W, shape.Q * shape.stride[1]) + shape.S * shape.dilation[1] + left,
    )


def _too_wide(product: _Product, blocks: int) -> str | None:
    """Why 32-bit coordinates do not reach, or None: every index a kernel computes must stay below 2^31."""
    if product.reach >= _NOWHERE:
        return f"it counts in 32 bits, and the rows or columns go up to {product.reach}"
    for what, most in {"blocks": blocks, **product.bounds}.items():
        if most + 2**12 >= NARROW:  # threads past the last count on, to the end of their tile
            return f"it counts in 32 bits, and the {what} go up to {most}"
    return None
