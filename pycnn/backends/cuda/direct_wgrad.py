"""Launch plans for kernels/conv2d_wgrad_direct.cu: instances, grids, and how many slices the pixels are cut into.

In 16 bits there is the kernel for any problem alone, see `direct`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from pycnn.backends.cuda.device import Argument, Extent, Reads, Writes
from pycnn.backends.cuda.direct import general_work, mismatch
from pycnn.backends.cuda.host import FLOAT32, HostBase, grid_of
from pycnn.backends.cuda.layout import pack_conv2d_shape, pack_divisors
from pycnn.backends.cuda.plan import Operands, Plan, instances_of, past_32_bits
from pycnn.backends.cuda.slices import adder, sum_slices
from pycnn.jit.sources import Instance, Sources
from pycnn.shape import Conv2dShape

KERNELS = TILED, ANY = "conv2d_wgrad_direct", "conv2d_wgrad_direct_any"

_WARP = 32

# In a grid: twice what an H100 holds of kernels whose registers leave room for 512 on an SM, which most of these are.
# Fixed, so that results do not depend on the GPU.
_THREADS = 2**17
_MOST_PARTIAL = 2**26  # bytes of partial results


@dataclass(frozen=True)
class WgradPlan(Plan):
    """One launch of one kernel, and the sum of its slices.

    Attributes:
        instance: the kernel.
        shape: the problem, as the kernel is told it.
        grid, block: launch geometry.
        geometry: the kernel's second argument.
        slices: how many partial results there are.
        sums: the kernel that adds them up; of 16 bits, it rounds them too, even if there is but one.
    """

    instance: Instance
    shape: Conv2dShape
    grid: Extent
    block: Extent
    geometry: bytes
    slices: int
    sums: Instance

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """The one that multiplies, and the sum of its slices if it has any."""
        return (self.instance, self.sums) if _adds(self.slices, self.sums) else (self.instance,)

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch it, and add the slices up where there are several, or round them."""
        outputs = {"dw": operands.dw, "db": operands.db}
        parts = outputs
        adds = _adds(self.slices, self.sums)
        if adds:
            parts = {
                name: None if out is None else host.device.alloc((self.slices, *out.shape), FLOAT32)
                for name, out in outputs.items()
            }
        arguments: list[Argument] = [pack_conv2d_shape(self.shape), self._divided(operands)]
        arguments += [Reads("dy", operands.dy), Reads("x", operands.x)]
        arguments += [Writes(name, part) for name, part in parts.items()]
        host.device.launch(host.device.load(self.instance), self.grid, self.block, 0, arguments)
        if adds:
            for name, out in outputs.items():
                if out is not None:
                    sum_slices(host, parts[name], out)

    def _divided(self, operands: Operands) -> bytes:
        """The kernel's second argument."""
        return self.geometry


def plans(operator: str, shape: Conv2dShape, sources: Sources, ending: str = "") -> list[WgradPlan]:
    """Every instance's plan on arrays of a dtype, specialised ones first."""
    if operator != "wgrad":
        return []
    sums = adder(sources, ending)
    tiled = [_tiled(shape, instance, sums) for instance in instances_of(sources, TILED, ending).values()]
    return tiled + [_any(shape, *named, sums) for named in instances_of(sources, ANY, ending).items()]


def in_one_row(shape: Conv2dShape) -> Conv2dShape:
    """The same problem with its pixels in one row, where it is 1x1 at stride 1 without padding; else itself."""
    if (shape.R, shape.S, shape.stride, shape.padding) != (1, 1, (1, 1), (0, 0, 0, 0)):
        return shape
    return replace(shape, H=1, W=shape.H * shape.W)


def slices_of(blocks: int, threads: int, reduction: int, shape: Conv2dShape) -> tuple[int, int]:
    """How many slices a reduction is cut into, and the length of each (the last may be shorter).

    Args:
        blocks, threads: blocks of a slice and their threads.
        reduction: how many steps it takes.
        shape: the problem, for the size of its partial results.
    """
    bytes_of_slice = 4 * (shape.K * (shape.C // shape.groups) * shape.R * shape.S + shape.K)
    wanted = min(-(-_THREADS // (blocks * threads)), max(1, _MOST_PARTIAL // bytes_of_slice), max(1, reduction // 2))
    length = max(1, -(-reduction // wanted))
    return max(1, -(-reduction // length)), length


def workspace_of(slices: int, shape: Conv2dShape, sums: Instance) -> int:
    """Bytes of partial results, those of the bias included."""
    results = shape.K * (shape.C // shape.groups) * shape.R * shape.S + shape.K
    return 4 * slices * results if _adds(slices, sums) else 0


def _adds(slices: int, sums: Instance) -> bool:
    """Whether results are partial at first: of several slices, or float32 where 16 bits are stored."""
    return slices > 1 or sums.tile["type"] != 0


def _tiled(problem: Conv2dShape, instance: Instance, sums: Instance) -> WgradPlan:
    tile = instance.tile
    shape = in_one_row(problem) if tile["rows"] == 1 else problem
    group_filters, group_channels = shape.K // shape.groups, shape.C // shape.groups
    tile_k = tile["warps_k"] * _WARP // tile["lanes_c"] * tile["filters"]
    units = tile["warps"] // tile["warps_k"] // tile["warps_p"] * tile["lanes_c"] * tile["units"]
    tiles_k, tiles_c = -(-group_filters // tile_k), -(-group_channels // tile["channels"])
    tiles_p, tiles_q = -(-shape.P // tile["rows"]), -(-shape.Q // tile["columns"])
    tiles = shape.N * tiles_p * tiles_q
    blocks = shape.groups * tiles_k * tiles_c
    threads = tile["warps"] * _WARP
    slices, tiles_of_slice = slices_of(blocks, threads, tiles, shape)
    wanted = {
        "filter": ((tile["R"], tile["S"]), (shape.R, shape.S)),
        "stride": ((tile["stride_h"], tile["stride_w"]), shape.stride),
        "dilation": ((1, 1), shape.dilation),
    }
    far_p, far_q = shape.P + tile["rows"], shape.Q + tile["columns"]
    reason = mismatch(wanted) or past_32_bits(
        {
            "blocks": blocks * slices,
            "tiles": tiles + tiles_of_slice,
            "rows": max(shape.H, far_p * shape.stride[0] + shape.R + shape.padding[0]),
            "columns": max(shape.W, far_q * shape.stride[1] + shape.S + shape.padding[2]),
            "elements of a tile": max(tile_k * shape.P * shape.Q, tile["channels"] * shape.H * shape.W),
            "filters": shape.K + tile_k,
            "channels": shape.C + tile["channels"],
        }
    )
    return WgradPlan(
        name=f"direct_{instance.name}",
        instance=instance,
        tier=0,
        why="specialised on this filter and stride, with the fewest idle lanes of its tiles",
        workspace=workspace_of(slices, shape, sums),
        bias_gradient=True,
        shape=shape,
        reason=reason,
        grid=(blocks * slices, 1, 1),
        block=(threads, 1, 1),
        geometry=pack_divisors((tiles_c, tiles_k, shape.groups, tiles_q, tiles_p))
        + struct.pack("<2q", tiles, tiles_of_slice),
        slices=slices,
        sums=sums,
        cost=blocks * tile_k * units * tile["tap_rows"] * tile["S"] * tiles * tile["rows"] * tile["columns"],
    )


def _any(shape: Conv2dShape, name: str, instance: Instance, sums: Instance) -> WgradPlan:
    tile = instance.tile
    tile_k, tile_taps = 8 * tile["filters"], 4 * tile["warps"] * tile["taps"]
    taps = shape.C // shape.groups * shape.R * shape.S
    tiles_k, tiles_taps = -(-shape.K // shape.groups // tile_k), -(-taps // tile_taps)
    pixels, staged = shape.N * shape.P * shape.Q, tile["pixels"]
    blocks = shape.groups * tiles_k * tiles_taps
    threads = tile["warps"] * _WARP
    slices, chunks = slices_of(blocks, threads, -(-pixels // staged), shape)
    indices = {
        "blocks": blocks * slices,
        "pixels": pixels + 2 * chunks * staged,
        "rows": max(shape.H, shape.P * shape.stride[0] + shape.R * shape.dilation[0] + shape.padding[0]),
        "columns": max(shape.W, shape.Q * shape.stride[1] + shape.S * shape.dilation[1] + shape.padding[2]),
        # A tap past the last still gets a row and a column; they are below the filter's size.
        "taps": taps + tile_taps,
        "filters": shape.K + tile_k,
    }
    return WgradPlan(
        name=f"direct_any_{name}",
        instance=instance,
        tier=1 + tile["wide"],
        why="no tile is specialised on this filter, stride and dilation",
        workspace=workspace_of(slices, shape, sums),
        bias_gradient=True,
        shape=shape,
        reason=None if tile["wide"] else past_32_bits(indices),
        grid=grid_of(blocks * slices),
        block=(threads, 1, 1),
        geometry=pack_divisors((tiles_taps, tiles_k, shape.groups, shape.Q, shape.P, shape.S, shape.R))
        + struct.pack("<2q", pixels, chunks * staged),
        slices=slices,
        sums=sums,
        cost=general_work(tile, blocks * tile_k * tile_taps * pixels, blocks * slices),
    )
