"""Split reductions: the sum of partial results in a fixed order, by kernels/slices.cu."""

from __future__ import annotations

import struct

from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.jit.sources import Instance, Sources

KERNELS = ("sum_slices",)


def adder(sources: Sources, ending: str = "") -> Instance:
    """The kernel, for results of float32, or as `HostBase.ending` says."""
    return sources.of("sum_slices")[f"w8{ending}"]


def sum_slices(host: HostBase, slices: Array, out: Array) -> None:
    """Write into `out` the sum of slices[0], slices[1], ...; each has as many elements as `out`, dense.

    The slices are float32; the sum, be it of one, is rounded once where `out` is float16 or bfloat16.
    """
    count, size = int(slices.shape[0]), int(out.size)
    if size == 0:
        return
    instance = adder(host.sources, host.ending("sum_slices", out.dtype))
    threads = 32 * instance.tile["warps"]
    arguments: list[Argument] = [
        struct.pack("<q", count),
        struct.pack("<q", size),
        Reads("slices", slices),
        Writes("out", out),
    ]
    host.device.launch(host.device.load(instance), grid_of(-(-size // threads)), (threads, 1, 1), 0, arguments)
