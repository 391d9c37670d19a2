"""Batches of float32 matrix products on tensor cores: kernels/tensor_product.cu, and the splitting before them."""

from __future__ import annotations

from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.gemm import BUSY_BLOCKS
from pycnn.backends.cuda.host import FLOAT32, HostBase, grid_of
from pycnn.backends.cuda.layout import pack_divisors, pack_int64
from pycnn.jit.sources import Instance, Sources

KERNELS = ("tensor_product", "split_filters")


def splitter(sources: Sources) -> Instance:
    """The kernel that splits filters."""
    return sources.of("split_filters")["w8"]


def padded(channels: int) -> int:
    """Elements of a row that is read in chunks of 16 bytes."""
    return -(-channels // 4) * 4


def split_size(rows: int, inner: tuple[int, int, int], last: bool) -> int:
    """Elements of a part that `split` makes."""
    channels, R, S = inner
    return rows * (padded(channels) * R * S if last else padded(channels * R * S))


def split(
    host: HostBase,
    w: Array,
    rows: int,
    inner: tuple[int, int, int],
    steps: tuple[int, ...],
    last: bool,
    halves: bool = False,
) -> Array:
    """The high and the low parts of filters, (2, size) or, of halves, (1, size), as kernels/split_filters.cu has them.

    Args:
        host: whose device.
        w: float32.
        rows: filters.
        inner: channels, rows and columns of a filter.
        steps: distances in w, in elements, of filters, channels, rows and columns.
        last: whether channels come last, padded; else they keep their place, and each filter is padded.
        halves: for 3xfp16, instead of 3xtf32.
    """
    channels, R, S = inner
    pitch = padded(channels if last else channels * R * S)
    size = split_size(rows, inner, last)
    parts = host.device.alloc((1 if halves else 2, size), FLOAT32)
    fields = pack_int64(size, pitch, last, halves, channels, R, S, *steps)
    instance = splitter(host.sources)
    threads = 32 * instance.tile["warps"]
    arguments: list[Argument] = [fields, Reads("w", w), Writes("out", parts)]
    host.device.launch(host.device.load(instance), grid_of(-(-size // threads)), (threads, 1, 1), 0, arguments)
    return parts


def kernel_for(M: int, N: int, matrices: int, sources: Sources) -> Instance:
    """The tile with the least work, idle work included; of equals the larger one."""

    def work(instance: Instance) -> int:
        m, n = instance.tile["tile_m"], instance.tile["tile_n"]
        return max(-(-M // m) * -(-N // n) * matrices, BUSY_BLOCKS) * m * n

    return min(sources.of("tensor_product").values(), key=work)


def tensor_product(host: HostBase, parts: Array, b: Array, out: Array) -> None:
    """out[i] = a[i]^T b[i], where `parts` are the split rows of all a; N is a multiple of 4.

    Args:
        host: whose device.
        parts: (2, matrices * K * pitch), by `split` of (matrices * K) rows.
        b: (matrices, K, N).
        out: (matrices, M, N).
    """
    matrices, K, N = map(int, b.shape)
    M = int(out.shape[1])
    instance = kernel_for(M, N, matrices, host.sources)
    tile = instance.tile
    tiles = (-(-M // tile["tile_m"]), -(-N // tile["tile_n"]))
    fields = pack_int64(M, N, K, padded(M), int(parts.shape[1])) + pack_divisors(tiles)
    arguments: list[Argument] = [fields, Reads("a", parts), Reads("b", b), Writes("out", out)]
    shared = tile["stages"] * (2 * tile["tile_m"] + tile["tile_n"]) * tile["tile_k"] * 4
    dynamic = shared if shared > 48 * 1024 else 0
    block = (32 * tile["warps"], 1, 1)
    host.device.launch(host.device.load(instance), (tiles[0] * tiles[1] * matrices, 1, 1), block, dynamic, arguments)
