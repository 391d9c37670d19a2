"""float32 matrix products of the CUDA backend: which instance of kernels/sgemm.cu, what grid, how many slices of K.

`sgemm` is what other parts of the host code call.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from pycnn.backends.cuda.device import Argument, Array, Extent, Reads, Writes
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.backends.cuda.layout import pack_divisors
from pycnn.backends.cuda.plan import Epilogue
from pycnn.backends.cuda.slices import sum_slices
from pycnn.jit.sources import Instance, Sources

KERNELS = ("sgemm",)

# What a multiply-add costs by tile, against the largest: a smaller tile reads more of shared memory for each.
WEIGHTS = {"128x128": 1.0, "64x128": 1.1, "64x64": 1.25, "32x128": 1.35, "wide": 2.0}

# A product of fewer blocks than this leaves part of a large GPU idle, which counts as work.  The same on every GPU, so
# that the number of slices, and with it every bit of a result, depends on the shape alone.
BUSY_BLOCKS = 128

# K is cut into slices only where each keeps at least so many k.
LEAST_SLICE = 256

# sgemm counts the k of a slice in 32 bits.
MOST_SLICE = 2**30

_PLAIN = Epilogue()


@dataclass(frozen=True)
class GemmPlan:
    """One launch, and how many slices it leaves behind.

    Attributes:
        instance: the kernel.
        tiles: along M and N.
        slices: of K; above 1, each is a partial result to be added up.
        k_slice: of K in one slice.
        grid, block: launch geometry.
    """

    instance: Instance
    tiles: tuple[int, int]
    slices: int
    k_slice: int
    grid: Extent
    block: Extent


@lru_cache(maxsize=4096)
def gemm_plan(
    M: int,
    N: int,
    K: int,
    batch: int,
    trans_a: bool,
    trans_b: bool,
    sources: Sources,
    *,
    sliced: bool = True,
    tile: str | None = None,
) -> GemmPlan:
    """The tile with the least work, the idle work of its tails and of blocks that are not there included.

    Args:
        M, N, K: of one product.
        batch: how many there are.
        trans_a, trans_b: which matrices are given transposed.
        sources: the kernels.
        sliced: whether K may be split.
        tile: take this one.
    """
    form = f"{'nt'[trans_a]}{'nt'[trans_b]}_"
    instances = sources.of("sgemm")
    able = [instance for name, instance in instances.items() if name.startswith(form + (tile or ""))]
    if not able:
        raise ValueError(f"sgemm has no tile {tile!r} for this transposition, only {', '.join(instances)}")

    def cost(instance: Instance) -> float:
        m, n = _tiles(instance, M, N)
        return work(instance, m * n * batch, slices_of(instance, m * n * batch, K, sliced)[0])

    instance = min(able, key=cost)
    tiles = _tiles(instance, M, N)
    slices, k_slice = slices_of(instance, tiles[0] * tiles[1] * batch, K, sliced)
    grid = grid_of(tiles[0] * tiles[1] * batch * slices)
    return GemmPlan(instance, tiles, slices, k_slice, grid, (32 * instance.tile["warps"], 1, 1))


def sgemm(
    host: HostBase,
    a: Array,
    b: Array,
    out: Array,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    epilogue: Epilogue = _PLAIN,
    channel: str = "row",
    tile: str | None = None,
) -> None:
    """Write op(a) @ op(b), through the epilogue, into `out`: one product or a batch of them.

    Batches are axes before the last two, at most two of them, that broadcast against those of `out`: a (M, K) matrix
    serves every product of a batch.  Arrays may be views: rows and batches lie at any distance, and begin at any
    multiple of 4 bytes, but neighbours in a row are neighbours in memory.

        sgemm(host, U, V, M)                        (16, K, C) @ (16, C, T) -> (16, K, T)
        sgemm(host, w, columns, y)                  (K, CRS) @ (N, CRS, PQ) -> (N, K, PQ)
        sgemm(host, w, columns, y)                  (groups, K, CRS) @ (N, groups, CRS, PQ) -> (N, groups, K, PQ)
        sgemm(host, dy, x, dw, trans_a=True)        (N, K) transposed @ (N, C) -> (K, C)

    Where `out` is dense and the epilogue has no ReLU, a long K may be split into slices that are added up in order.

    Args:
        host: whose device, kernels and memory.
        a: (..., M, K), or (..., K, M) if `trans_a`; float32, as the others.
        b: (..., K, N), or (..., N, K) if `trans_b`.
        out: (..., M, N).
        epilogue: what happens to each sum; `residual` is laid out as `out` is.
        channel: whether the epilogue's channel is the "row" or the "column" of the result.  Along the last batch axis
            channels go on: product i has channels i*M ... i*M + M - 1 (or N).
        tile: "128x128", "64x64" or "32x128" instead of the one with the least work.

    Raises:
        ValueError: shapes that do not match, neighbours in a row that are not neighbours in memory, or a K past 2^30
            that may not be split.
    """
    M, N = map(int, out.shape[-2:])
    K = int(a.shape[-2] if trans_a else a.shape[-1])
    expected_a, expected_b = ((K, M) if trans_a else (M, K)), ((N, K) if trans_b else (K, N))
    if tuple(a.shape[-2:]) != expected_a or tuple(b.shape[-2:]) != expected_b or channel not in ("row", "column"):
        raise ValueError(
            f"sgemm of {tuple(a.shape)}{'^T' if trans_a else ''} @ {tuple(b.shape)}{'^T' if trans_b else ''} "
            f"-> {tuple(out.shape)}, channel {channel!r}: these do not go together"
        )
    if out.size == 0:
        return
    outer, inner = (1,) * (4 - out.ndim) + tuple(map(int, out.shape[:-2]))
    matrices = {name: _matrix(name, array, (outer, inner)) for name, array in (("a", a), ("b", b), ("out", out))}
    sliced = bool(out.flags.c_contiguous) and not epilogue.relu
    plan = gemm_plan(M, N, K, outer * inner, trans_a, trans_b, host.sources, sliced=sliced, tile=tile)
    if plan.k_slice > MOST_SLICE:
        raise ValueError(
            f"sgemm cannot sum {K} products at once, nor split them: the result has gaps or goes through ReLU"
        )
    target = out if plan.slices == 1 else host.device.alloc((plan.slices, *out.shape), out.dtype)
    problem = struct.pack("<4q", M, N, K, plan.k_slice)
    problem += matrices["a"] + matrices["b"] + matrices["out"]
    problem += struct.pack("<2q", int(out.size) if plan.slices > 1 else 0, channel == "column")
    problem += pack_divisors((*plan.tiles, inner, outer))
    arguments: list[Argument] = [problem, Reads("a", a), Reads("b", b), *epilogue.arguments]
    arguments.append(Writes("out", target))
    host.device.launch(host.device.load(plan.instance), plan.grid, plan.block, 0, arguments)
    if plan.slices > 1:
        sum_slices(host, target, out)


def work(instance: Instance, blocks: int, slices: int) -> float:
    """Sums that a launch has threads for, by what they cost: those of `blocks` tiles, each cut into `slices`."""
    area = instance.tile["tile_m"] * instance.tile["tile_n"]
    return max(blocks * slices, BUSY_BLOCKS) / slices * area * WEIGHTS[instance.name.rpartition("_")[2]]


def slices_of(instance: Instance, blocks: int, K: int, split: bool = True) -> tuple[int, int]:
    """How many slices of K for a launch of so many blocks, and the k of each: a whole number of tiles.

    Not more than one where K may not be split.
    """
    tile_k = instance.tile["tile_k"]
    wanted = min(-(-2 * BUSY_BLOCKS // max(blocks, 1)), K // LEAST_SLICE) if split else 1
    k_slice = -(-max(K, 1) // (max(wanted, 1) * tile_k)) * tile_k
    if split:
        k_slice = min(k_slice, MOST_SLICE)
    return max(-(-K // k_slice), 1), k_slice


def _tiles(instance: Instance, M: int, N: int) -> tuple[int, int]:
    return -(-M // instance.tile["tile_m"]), -(-N // instance.tile["tile_n"])


def _matrix(name: str, array: Array, batch: tuple[int, int]) -> bytes:
    """`GemmMatrix` of kernels/sgemm.cu: distances in elements; 0 along a batch axis that repeats one matrix."""
    shape, strides = tuple(map(int, array.shape)), tuple(map(int, array.strides))
    itemsize = int(array.dtype.itemsize)
    if array.size and shape[-1] > 1 and strides[-1] != itemsize:
        raise ValueError(f"neighbours in a row of {name} must be neighbours in memory, got strides {strides}")
    missing = 4 - len(shape)
    distances = (0,) * missing + strides
    sizes = (1,) * missing + shape
    for size, wanted in zip(sizes[:2], batch, strict=True):
        if size not in (1, wanted):
            raise ValueError(f"{name} has a batch of {shape[:-2]}, which does not broadcast to {batch}")
    outer, inner, pitch = (
        0 if size == 1 else distance // itemsize for size, distance in zip(sizes[:3], distances[:3], strict=True)
    )
    return struct.pack("<3q", pitch, outer, inner)
