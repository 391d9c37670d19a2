"""Plans of the convolutions on tensor cores: float16 and bfloat16, and float32 where a lower precision is asked for.

The kernels read arrays with whatever strides they have.  Channels-last ones are read in chunks of 16 bytes, and their
results are channels-last too: no layout is ever changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.gemm import BUSY_BLOCKS, slices_of
from pycnn.backends.cuda.host import FLOAT32, HostBase, address, grid_of
from pycnn.backends.cuda.layout import NARROW, pack_conv2d_shape, pack_divisors, pack_int64
from pycnn.backends.cuda.plan import MOVED, Operands, Plan
from pycnn.backends.cuda.slices import adder, sum_slices
from pycnn.backends.cuda.tensor_product import padded, split, split_size, splitter
from pycnn.jit.sources import Instance, Sources
from pycnn.memory_format import is_channels_last
from pycnn.shape import Conv2dShape

KERNELS = ("conv2d_fprop_tensor", "conv2d_dgrad_tensor", "conv2d_wgrad_tensor")

TIER = 10

# What a multiply-add costs by arithmetic, against one on an H100's float32 pipes: the ratio of the peaks, of which
# mma.sync is taken to reach six tenths there (split products: three of them, less what they share).  Not calibrated.
COST = {"f16": 0.11, "bf16": 0.11, "tf32": 0.22, "3xtf32": 0.6, "3xfp16": 0.5}
# And by tile, against the largest: a smaller one reads more for each.  Elements that come one by one take a dozen
# instructions each, which weigh the more the faster the product is.
_WEIGHTS = {"256x128": 1.0, "128x128": 1.1, "64x64": 1.5, "wide": 6.0}
_STRIDED = {
    "strided_128x128": {"f16": 2.2, "bf16": 2.2, "tf32": 1.8, "3xtf32": 1.3, "3xfp16": 1.4},
    "strided_64x64": {"f16": 3.0, "bf16": 3.0, "tf32": 2.4, "3xtf32": 1.8, "3xfp16": 1.9},
}

# Copies of the filters that a split product makes.
_SPLIT = {"3xtf32": 2, "3xfp16": 1}

_ARITHMETIC = {"float16": "f16", "bfloat16": "bf16"}

# Rows and columns of an image stay below it in 32 bits, for `nowhere` of kernels/places.cuh is one beyond them.
_NOWHERE = 2**30

_BY_ROWS, _BY_COLUMNS, _BY_CHUNKS = 0, 1, 2  # Way of kernels/tensor_conv.cuh

Steps = tuple[int, int, int, int]  # distances in elements: of n, c, h, w, or of k, c, r, s


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides among the kernels beyond the shape.

    Attributes:
        arithmetic: "f16", "bf16", "tf32", "3xtf32" or "3xfp16".
        chunks: whether every image of the pass is channels-last and begins at a multiple of 16 bytes.
        arch: of the GPU.
    """

    arithmetic: str
    chunks: bool
    arch: str

    @property
    def chunk(self) -> int:
        """Elements of 16 bytes."""
        return 8 if self.arithmetic in ("f16", "bf16") else 4


def arithmetic_of(dtype: Any, precision: str) -> str | None:
    """What tensor cores compute arrays of this dtype in, or None where they do not."""
    if dtype == FLOAT32:
        return None if precision == "float32" else precision
    return _ARITHMETIC.get(dtype if isinstance(dtype, str) else np.dtype(dtype).name)


def has(arithmetic: str, arch: str, sources: Sources) -> bool:
    """Whether the tensor cores of a GPU compute in this arithmetic."""
    instances = sources.of("conv2d_fprop_tensor").values()
    return any(each.name.startswith(f"{arithmetic}_") and arch in each.archs for each in instances)


def reads_chunks(array: Array) -> bool:
    """Whether an image's channels can be read 16 bytes at a time, as far as its memory goes."""
    return is_channels_last(array) and address(array) % 16 == 0


@dataclass(frozen=True)
class TensorPlan(Plan):
    """One launch, the splitting of the filters before it and the sum of its slices after it.

    Attributes:
        operator: the pass.
        shape: the problem.
        instance: the kernel.
        tiles: of channels (filters in fprop and wgrad) and of pixels (taps in wgrad), of one product.
        products: how many there are: groups, times parity classes in dgrad.
        slices: of gemm_k; above 1, each is a partial result to be added up.
        length: gemm_k.
        split: the kernel that splits the filters, where that is needed.
        sums: the kernel that adds slices up.
    """

    operator: str
    shape: Conv2dShape
    instance: Instance
    tiles: tuple[int, int]
    products: int
    slices: int
    length: int
    split: Instance | None
    sums: Instance

    strided = True

    @property
    def kernels(self) -> tuple[Instance, ...]:
        """In the order of their launches."""
        before = () if self.split is None else (self.split,)
        return (*before, self.instance, *((self.sums,) if self.slices > 1 else ()))

    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them."""
        s, tile = self.shape, self.instance.tile
        whole = operands.epilogue.relu  # a sum is rectified when it is whole
        blocks = self.tiles[0] * self.tiles[1] * self.products
        slices, k_slice = slices_of(self.instance, blocks, self.length, not whole)
        image, result = {
            "fprop": (operands.x, operands.y),
            "dgrad": (operands.dy, operands.dx),
            "wgrad": (operands.x, operands.dw),
        }[self.operator]
        assert image is not None
        assert result is not None
        gradient = steps_of(operands.dy) if self.operator == "wgrad" else (0, 0, 0, 0)
        filters, filter_steps, part, chunks = self._filters(host, operands.w)
        grid = pack_int64(k_slice, int(result.size) if slices > 1 else 0) + self._digits()
        grid += pack_int64(*steps_of(image), *filter_steps, *gradient, *steps_of(result))
        grid += pack_int64(part, chunks, self._way(result))
        partial = host.device.alloc((slices, result.size), FLOAT32) if slices > 1 else None
        arguments: list[Argument] = [pack_conv2d_shape(s), grid]
        if self.operator == "wgrad":
            arguments += [Reads("dy", operands.dy), Reads("x", image)]
        else:
            arguments += [Reads("x" if self.operator == "fprop" else "dy", image), Reads("w", filters)]
        if self.operator == "fprop":
            arguments += operands.epilogue.arguments
        name = {"fprop": "y", "dgrad": "dx", "wgrad": "dw"}[self.operator]
        arguments += [Writes(name, None if slices > 1 else result), Writes("partial", partial)]
        block = (32 * tile["warps"], 1, 1)
        shared = shared_bytes(self.operator, self.instance)
        host.device.launch(host.device.load(self.instance), grid_of(blocks * slices), block, shared, arguments)
        if partial is not None:
            flat = result if result.flags.c_contiguous else result.transpose(0, 2, 3, 1)
            sum_slices(host, partial, flat.reshape(-1))

    def _filters(self, host: HostBase, w: Array | None) -> tuple[Array | None, Steps, int, bool]:
        """The filters as the kernel reads them: the array, its distances, from part to part, whether in chunks."""
        s = self.shape
        if w is None:
            return None, (0, 0, 0, 0), 0, False
        channels, vectors = s.C // s.groups, bool(self.instance.tile["vectors"])
        if self.split is None:
            steps = steps_of(w)
            run = 3 if self.operator == "fprop" and not vectors else 1  # axes of what is read side by side
            return w, steps, 0, _in_chunks(steps, w.shape, run, 16 // int(w.dtype.itemsize))
        inner = vectors or self.operator == "dgrad"
        halves = self.instance.tile["arithmetic"] == 5
        parts = split(host, w, s.K, (channels, s.R, s.S), steps_of(w), inner, halves)
        pitch = padded(channels if inner else channels * s.R * s.S)
        row = (s.S * pitch, pitch)
        steps = (s.R * row[0], 1, *row) if inner else (pitch, s.R * s.S, s.S, 1)
        return parts, steps, int(parts.shape[1]), True

    def _digits(self) -> bytes:
        """The divisors of TensorGrid."""
        s = self.shape
        taps, step, classes = (s.R, s.S), (1, 1), (1, 1)
        rows, columns, channels = s.P, s.Q, s.C // s.groups
        if self.operator == "dgrad":
            step, taps, classes = _parity(s)
            rows, columns, channels = -(-s.H // s.stride[0]), -(-s.W // s.stride[1]), s.K // s.groups
        block = (*self.tiles, s.groups, *classes[::-1])
        return pack_divisors((*block, rows * columns, columns, channels, *taps[::-1], *step[::-1]))

    def _way(self, result: Array) -> int:
        """How results may go out."""
        s, steps = self.shape, steps_of(result)
        vectors = self.instance.tile["vectors"]
        if self.operator == "wgrad":  # gemm_n are taps, in the order r, s, c or c, r, s
            if not vectors:
                return _BY_CHUNKS if _in_chunks(steps, s.w_shape, 3, 8) else _BY_COLUMNS
            return _BY_CHUNKS if _in_chunks(steps, s.w_shape, 1, 8) else _BY_COLUMNS
        channels = (s.K if self.operator == "fprop" else s.C) // s.groups
        if vectors:  # gemm_n are channels
            if steps[1] != 1:
                return _BY_ROWS
            return _BY_CHUNKS if channels % 8 == 0 else _BY_COLUMNS
        if steps[1] == 1 and channels > 1:
            return _BY_ROWS
        plane = s.P * s.Q if self.operator == "fprop" else s.H * s.W
        dense = steps[2:] == (s.Q if self.operator == "fprop" else s.W, 1)
        unit = self.operator == "fprop" or s.stride == (1, 1)
        return _BY_CHUNKS if dense and unit and plane % 8 == 0 else _BY_COLUMNS


def steps_of(array: Array | None) -> Steps:
    """Distances of an array's four axes, in elements."""
    assert array is not None
    n, c, h, w = (int(stride) // int(array.dtype.itemsize) for stride in array.strides)
    return n, c, h, w


def _in_chunks(steps: Steps, shape: tuple[int, ...], run: int, chunk: int) -> bool:
    """Whether w's c (run = 1), or its c, r and s together (3), lie side by side in whole chunks that start together."""
    together = 1
    for step, size in reversed([*zip(steps, shape, strict=True)][1 : 1 + run]):
        if size > 1 and step != together:
            return False
        together *= size
    others = [(steps[0], shape[0]), *([] if run == 3 else zip(steps[2:], shape[2:], strict=True))]
    return together % chunk == 0 and all(step % chunk == 0 for step, size in others if size > 1)


def _parity(shape: Conv2dShape) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Of dgrad: between the taps of a parity class, the most taps that one has, and the classes that have a pixel."""
    # r * dilation takes each value (mod stride) that it takes at all once in so many taps.
    step_h, step_w = (
        stride // math.gcd(stride, dilation) for stride, dilation in zip(shape.stride, shape.dilation, strict=True)
    )
    classes = min(shape.stride[0], shape.H), min(shape.stride[1], shape.W)
    return (step_h, step_w), (-(-shape.R // step_h), -(-shape.S // step_w)), classes


def shared_bytes(operator: str, instance: Instance) -> int:
    """The dynamic shared memory of a block: what kernels/conv2d_*_tensor.cu share, where it passes 48 KiB."""
    tile = instance.tile
    size = 2 if tile["arithmetic"] < 3 else 4
    parts = 2 if tile["arithmetic"] == 4 and operator != "wgrad" else 1
    m, n, k, vectors = tile["tile_m"], tile["tile_n"], tile["tile_k"], tile["vectors"]
    place = 32 if tile["wide"] else 16
    filters, pixels = (n, m) if vectors else (m, n)
    step = 16 // size if vectors else 1
    if operator == "wgrad":
        total = tile["stages"] * (m + n) * k * size + 4 * k * place + n // step * place + n * place // 4
    else:
        total = tile["stages"] * (pixels + parts * filters) * k * size + 4 * (k // step) * place + pixels * place
    total = -(-total // 128) * 128
    return total if total > 48 * 1024 else 0


def plans(operator: str, shape: Conv2dShape, sources: Sources, setting: Setting) -> list[Plan]:
    """A plan for every tile of the setting's arithmetic."""
    prefix = f"{setting.arithmetic}_"
    instances = sources.of(f"conv2d_{operator}_tensor")
    size, products, bounds, reach = {"fprop": _fprop, "dgrad": _dgrad, "wgrad": _wgrad}[operator](shape)
    result = {"fprop": shape.y_shape, "dgrad": shape.x_shape, "wgrad": shape.w_shape}[operator]
    bounds = bounds | {
        f"elements of {name}": math.prod(each) + (reach + 1) * _widest(each)
        for name, each in {"x": shape.x_shape, "w": shape.w_shape, "y": shape.y_shape}.items()
    }
    found: list[Plan] = []
    for name, instance in instances.items():
        if not name.startswith(prefix):
            continue
        plan = _plan(operator, shape, sources, setting, instance, size, products, math.prod(result))
        blocks = plan.tiles[0] * plan.tiles[1] * plan.products * plan.slices
        counted = bounds | {"blocks": blocks, "elements of a part of w": _part(operator, shape, setting, instance)}
        reason = _refusal(operator, shape, setting, instance, counted, reach)
        found.append(replace(plan, reason=reason))
    return found


def _part(operator: str, s: Conv2dShape, setting: Setting, instance: Instance) -> int:
    """Elements of each part of the filters, rows padded; 0 where they are read as they are."""
    if setting.arithmetic not in _SPLIT or operator == "wgrad":
        return 0
    return split_size(s.K, (s.C // s.groups, s.R, s.S), bool(instance.tile["vectors"]) or operator == "dgrad")


def _widest(shape: tuple[int, int, int, int]) -> int:
    """The most elements between neighbouring rows, in any layout."""
    return shape[1] * shape[3]


def _plan(
    operator: str,
    shape: Conv2dShape,
    sources: Sources,
    setting: Setting,
    instance: Instance,
    size: tuple[int, int, int],
    products: int,
    result: int,
) -> TensorPlan:
    tile = instance.tile
    channels, pixels, length = size
    first = operator == "wgrad" or not tile["vectors"]  # whether channels are gemm_m
    tiles = (
        -(-channels // tile["tile_m" if first else "tile_n"]),
        -(-pixels // tile["tile_n" if first else "tile_m"]),
    )
    blocks = tiles[0] * tiles[1] * products
    slices, _ = slices_of(instance, blocks, length)
    split = splitter(sources) if setting.arithmetic in _SPLIT and operator != "wgrad" else None
    ending = f"_{setting.arithmetic}" if setting.chunk == 8 else ""
    sums = adder(sources, ending)
    words = instance.name.removeprefix(f"{setting.arithmetic}_")
    weight = COST[setting.arithmetic] * (_WEIGHTS.get(words) or _STRIDED[words][setting.arithmetic])
    steps = -(-length // tile["tile_k"]) * tile["tile_k"]
    work = max(blocks * slices, BUSY_BLOCKS) / slices * tile["tile_m"] * tile["tile_n"] * steps * weight
    parts = 4 * _SPLIT.get(setting.arithmetic, 0) * _part(operator, shape, setting, instance)
    partial = 4 * slices * result if slices > 1 else 0
    named = words if setting.chunk == 8 else f"{setting.arithmetic}_{words}"
    return TensorPlan(
        name=f"im2col_tensor_{named}",
        reason=None,
        tier=TIER + tile["wide"],
        cost=int(work + MOVED * (parts + partial) / 8),
        why="on tensor cores, the tile with the least work, idle work included",
        workspace=parts + partial,
        operator=operator,
        shape=shape,
        instance=instance,
        tiles=tiles,
        products=products,
        slices=slices,
        length=length,
        split=split,
        sums=sums,
    )


Product = tuple[tuple[int, int, int], int, dict[str, int], int]
"""Channels, pixels and gemm_k of one product; how many products; what is counted in 32 bits; the farthest row."""


def _fprop(s: Conv2dShape) -> Product:
    pixels, taps = s.N * s.P * s.Q, s.C // s.groups * s.R * s.S
    return (s.K // s.groups, pixels, taps), s.groups, {"pixels": pixels, "taps": taps}, _reach(s)


def _dgrad(s: Conv2dShape) -> Product:
    _, most, classes = _parity(s)
    taps = s.K // s.groups * most[0] * most[1]
    pixels = s.N * -(-s.H // s.stride[0]) * -(-s.W // s.stride[1])
    bounds = {"pixels": pixels, "taps": taps, "stride": 2 * max(*s.stride, *s.dilation)}
    return (s.C // s.groups, pixels, taps), s.groups * classes[0] * classes[1], bounds, _reach(s)


def _wgrad(s: Conv2dShape) -> Product:
    pixels, taps = s.N * s.P * s.Q, s.C // s.groups * s.R * s.S
    return (s.K // s.groups, taps, pixels), s.groups, {"pixels": pixels, "taps": taps}, _reach(s)


def _reach(s: Conv2dShape) -> int:
    """The farthest row or column that a tap of a pixel looks at, or looks from, in x or in dy."""
    top, _, left, _ = s.padding
    rows = max(s.H, s.P * s.stride[0]) + s.R * s.dilation[0] + top
    return max(rows, max(s.W, s.Q * s.stride[1]) + s.S * s.dilation[1] + left)


def _refusal(
    operator: str, s: Conv2dShape, setting: Setting, instance: Instance, bounds: Mapping[str, int], reach: int
) -> str | None:
    """Why the kernel cannot run the problem, or None."""
    tile = instance.tile
    if setting.arch not in instance.archs:
        return f"it is for {instance.archs[0]} and later, this is {setting.arch}"
    if not tile["wide"]:
        if reach >= _NOWHERE:
            return f"it counts in 32 bits, and the rows or columns go up to {reach}"
        for what, most in bounds.items():
            if most + 2**12 >= NARROW:  # threads past the last count on, to the end of their tile
                return f"it counts in 32 bits, and the {what} go up to {most}"
    if not tile["vectors"]:
        return None
    if not setting.chunks:
        return "it reads 16 bytes of channels at a time, and these arrays are not channels-last or not aligned"
    read = {"x": s.C // s.groups} if operator == "fprop" else {"dy": s.K // s.groups}
    if operator == "wgrad":
        read["x"] = s.C // s.groups
    for name, channels in read.items():
        if channels % setting.chunk:
            return f"it reads {setting.chunk} channels at a time, and a group of {name} has {channels}"
    return None
