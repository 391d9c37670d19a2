"""The work of the CPU engine's algorithms, counted: what a table of `pycnn.tuning` has seconds for.

Each algorithm's count follows the cut that its kernel makes (csrc/cpu/kernels, where the layouts are drawn), in few
terms; a term has the same meaning wherever it stands:

    call      1: validation, allocation, the way into the engine
    loop      parallel loops that are opened after the first
    task      tasks of a loop, each with room of its own to set up
    fma       multiply-adds of the register tiles, with their idle rows and lanes.  A step of a tile takes as long as
              `_SHORTEST` vector multiply-adds even where it has fewer, since each waits for the one before; and where
              the tasks do not divide evenly among the threads, the last round counts whole.
    tile      register tiles that are started and stored
    copy      values copied along memory: planes of an image, columns, packed panels, results that leave a buffer
    row       rows in which those lie, each with a start and an end of its own
    stride    values of those that lie a stride apart, where they come from or where they go to
    turn      values transposed, or gathered one by one, into the order of a tile
    thin      values read or written by the matrix products for few rows or a short sum
    source, result, filter    values on the Winograd points that its three transforms make, idle lanes included
    sums      values on the Winograd points that wgrad adds up in memory
    tap       multiply-adds of depthwise kernels, idle lanes included; `other`: of those that no 3x3 kernel does
    cache     bytes of operands and columns beyond `NEAR`, which come from a cache that the cores share
    memory    bytes of those beyond `SHARED`, which come from memory.  Both borders are usual ones; how a machine
              differs is left to its coefficients.

The seconds are non-negative, so more work of any kind is never predicted to take less time.  What the model leaves out:
how well the prefetchers follow, which cache lines fall into one set, and what else the machine does.
"""

from __future__ import annotations

from pycnn.costs.direct import depthwise, direct, direct_packed, direct_wgrad, few_channels, few_channels_wgrad
from pycnn.costs.engine import NEAR, SHARED, Work, engine_of
from pycnn.costs.im2col import explicit, implicit
from pycnn.costs.winograd import winograd, winograd_packed, winograd_wgrad
from pycnn.shape import Conv2dShape
from pycnn.winograd import tile_of

__all__ = ["Work", "work"]


def work(
    name: str, operator: str, shape: Conv2dShape, *, size: int, isa: str, threads: int
) -> tuple[str, dict[str, float]]:
    """Whose coefficients an algorithm has on a problem, and how often each of its terms' units has to be done.

    Args:
        name: an algorithm of the CPU engine that can run the problem.
        operator: the pass.
        shape: the problem; its batch is not empty.
        size: bytes of a value.
        isa: the instruction set.
        threads: how many share the work.

    >>> layer = Conv2dShape(1, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1))
    >>> model, counted = work("direct", "fprop", layer, size=4, isa="avx512", threads=2)
    >>> model, round(counted["fma"] / layer.macs, 2)
    ('direct', 1.04)
    """
    e = engine_of(isa, size, threads)
    tile = tile_of(name)
    if tile is not None and operator == "wgrad":
        counted = winograd_wgrad(e, operator, shape, tile)
    elif tile is not None and (shape.R == 5 or shape.dilation != (1, 1)):
        name += "" if shape.dilation == (1, 1) else "_dilated"
        counted = winograd_packed(e, operator, shape, tile)
    elif tile is not None:
        counted = winograd(e, operator, shape, tile)
    elif name == "direct_packed":
        counted = direct_packed(e, operator, shape)
    elif name == "im2col_implicit":
        counted = implicit(e, operator, shape)
    elif name == "im2col_explicit":
        counted = explicit(e, operator, shape)
    elif shape.groups > 1 and shape.C == shape.K == shape.groups:
        name, counted = "depthwise", depthwise(e, operator, shape)
    elif operator == "wgrad" and few_channels(e, shape):
        name, counted = "few_channels", few_channels_wgrad(e, shape)
    else:
        counted = (direct_wgrad if operator == "wgrad" else direct)(e, operator, shape)
    bytes_of_operands = shape.bytes(size)
    counted["call"] = 1
    counted["cache"] = counted.get("cache", 0) + max(0, bytes_of_operands - NEAR)
    counted["memory"] = counted.get("memory", 0) + max(0, bytes_of_operands - SHARED)
    return name, counted
