"""Reductions to a value a channel on the CUDA backend: how channels are cut into slices, and the sum of each.

The kernels are those of channel_sum.cu and, where arrays lie channels-last and are whole vectors, channels_last.cu.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pycnn.backends.cuda.device import Array, Extent, Reads, Writes
from pycnn.backends.cuda.host import FLOAT32, HostBase, address, grid_of
from pycnn.backends.cuda.layout import pack_int64
from pycnn.backends.cuda.slices import sum_slices
from pycnn.memory_format import wants_channels_last

KERNELS = ("channel_sum", "channel_sum_last")

# How many blocks a reduction is cut into where it has the work for them: several for each SM of the largest GPUs.  The
# same on every GPU, for the order of a sum must not depend on the machine.
BLOCKS = 1024
_MOST_SLICES = 256
_LEAST_ELEMENTS = 4096  # of a slice of one channel, where neighbours in memory are in one channel
_LEAST_SAMPLES = 64  # of a slice of 32 channels, where they are in 32
_MOST_ELEMENTS = 2**30  # of a slice, which counts in 32 bits
_LEAST_ROWS = 8  # of a thread, where arrays lie channels-last


@dataclass(frozen=True)
class ChannelSlices:
    """How a reduction of (N, C, L) to (C,) is cut: `ChannelSlices` of kernels/channels.cuh.

    Attributes:
        samples, columns: of a slice.
        column_slices: slices side by side.
        across: threads side by side in a slice of one channel.
    """

    N: int
    C: int
    L: int
    samples: int
    columns: int
    column_slices: int
    across: int

    @staticmethod
    def of(shape: Sequence[int], threads: int, vector: int = 4) -> ChannelSlices:
        """Slices enough to fill a GPU, each with work enough to pay for its merging; by samples first.

        `vector` elements are in 128 bits; of eight, planes of whole fours go by four.
        """
        N, C, L = shape[0], shape[1], math.prod(shape[2:])
        tiles = C if L > 1 else -(-C // 32)
        worth = -(-N * L // _LEAST_ELEMENTS) if L > 1 else -(-N // _LEAST_SAMPLES)
        wanted = max(1, min(-(-BLOCKS // tiles), worth, _MOST_SLICES), -(-N * L // _MOST_ELEMENTS))
        samples = -(-N // min(N, wanted))
        beside = max(1, wanted // -(-N // samples)) if L > 1 else 1
        columns = -(-L // beside)
        columns += -columns % vector  # a slice begins where 128 bits may
        width = next(width for width in (vector, 4, 1) if L % width == 0)
        across = min(threads, 1 << (L // width - 1).bit_length())
        return ChannelSlices(N, C, L, samples, columns, -(-L // columns), across)

    @property
    def count(self) -> int:
        """How many slices a channel has."""
        return -(-self.N // self.samples) * self.column_slices

    @property
    def layout(self) -> str:
        """The instance: neighbours in memory are in one channel ("planes"), or each in another."""
        return "planes" if self.L > 1 else "columns"

    @property
    def grid(self) -> Extent:
        """Channels (or tiles of 32) along x and on along z, slices along y."""
        x, z, _ = grid_of(self.C if self.L > 1 else -(-self.C // 32))
        return (x, self.count, z)

    def pack(self) -> bytes:
        """The struct."""
        return pack_int64(self.N, self.C, self.L, self.samples, self.columns, self.column_slices, self.across)


@dataclass(frozen=True)
class LastSlices:
    """How (N, H, W) rows of C channels are cut: `LastSlices` of kernels/channels_last.cu.

    Attributes:
        length: rows of a slice.
        lanes: vectors of channels, a thread each, side by side in a block.
    """

    rows: int
    channels: int
    length: int
    lanes: int
    vector: int

    @staticmethod
    def of(shape: Sequence[int], threads: int, vector: int, most: int = _MOST_SLICES) -> LastSlices:
        """At most so many slices, enough to fill a GPU, each with work enough to pay for what a thread sets out with.

        `vector` elements are 16 bytes.
        """
        rows, channels, _ = by_channel(shape, last=True)
        vectors = channels // vector
        lanes = 1 << (-(-vectors // -(-vectors // 32)) - 1).bit_length()
        tiles = -(-vectors // lanes)
        worth = -(-rows * lanes // (_LEAST_ROWS * threads))
        wanted = max(1, min(-(-BLOCKS // tiles), worth, most))
        return LastSlices(rows, channels, -(-rows // wanted), lanes, vector)

    @property
    def count(self) -> int:
        """How many slices there are."""
        return -(-self.rows // self.length)

    @property
    def grid(self) -> Extent:
        """Tiles of channels along x, slices along y."""
        return (-(-self.channels // (self.lanes * self.vector)), self.count, 1)

    def pack(self) -> bytes:
        """The struct."""
        return pack_int64(self.rows, self.channels, self.length, self.lanes)

    def pack_for_merging(self) -> bytes:
        """`ChannelSlices` of kernels/channels.cuh for what merges the slices: of each channel so many samples."""
        return pack_int64(self.rows, self.channels, 1, self.length, 1, 1, 1)


def goes_by_vectors(last: bool, *arrays: Array) -> bool:
    """Whether kernels/channels_last.cu may: arrays that lie channels-last, of whole vectors of 16 bytes, aligned."""
    return last and all(a.shape[1] * a.dtype.itemsize % 16 == 0 and address(a) % 16 == 0 for a in arrays)


def by_channel(shape: Sequence[int], last: bool) -> tuple[int, ...]:
    """(N, C, L) of an array; (N*H*W, C, 1) of one that lies channels-last."""
    inner = math.prod(shape[2:])
    return (shape[0] * inner, shape[1], 1) if last else (shape[0], shape[1], inner)


class ReduceHost(HostBase):
    """`channel_sum`, and what other reductions over channels share with it."""

    def channel_sum(self, dy: Array) -> Array:
        """Sum over all axes but the second: the gradient of a bias, (C,), in float32."""
        ending = self.ending("channel_sum", dy.dtype)
        total = self.device.alloc((dy.shape[1],), FLOAT32)
        if dy.size == 0:
            self.device.fill(total, 0.0)
            return total
        instances = self.sources.of("channel_sum")
        last = wants_channels_last(dy)
        dy = self._dense(dy, last)
        threads, vector = 32 * instances["planes"].tile["warps"], 16 // dy.dtype.itemsize
        slices: ChannelSlices | LastSlices
        if goes_by_vectors(last, dy):
            slices = LastSlices.of(dy.shape, threads, vector)
            instance = self.sources.of("channel_sum_last")["w8" + ending]
        else:
            slices = ChannelSlices.of(by_channel(dy.shape, last), threads, vector)
            instance = instances[slices.layout + ending]
        partial = self.device.alloc((slices.count, dy.shape[1]), FLOAT32)
        self._launch_on(instance, slices.grid, slices.pack(), Reads("dy", dy), Writes("partial", partial))
        sum_slices(self, partial, total)
        return total
