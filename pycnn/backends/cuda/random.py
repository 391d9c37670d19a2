"""Philox4x32-10 and dropout on the CUDA backend: kernels/random.cu."""

from __future__ import annotations

import math
import struct

from pycnn.backends.cuda.activation import stretch_blocks
from pycnn.backends.cuda.device import Array, Reads, Writes
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import pack_float32, pack_int64
from pycnn.memory_format import wants_channels_last

KERNELS = ("philox_words", "dropout", "dropout_last", "advance")

_64 = 0xFFFFFFFFFFFFFFFF


class RandomHost(HostBase):
    """The functions of `pycnn.backends.reference.random`, and the counter of draws that a CUDA graph replays."""

    def philox_uint32(self, count: int, seed: int, offset: int) -> Array:
        """`count` words of the stream: block i, four words, encrypts the counter offset + i under the key `seed`."""
        words = self.device.alloc((count,), "uint32")
        if count:
            instance = self._only("philox_words")
            numbers = (pack_int64(count), _stream(seed, offset))
            self._launch(instance, stretch_blocks(instance, count), *numbers, Writes("words", words))
        return words

    def dropout(self, x: Array, p: float, seed: int, offset: int, *, counter: Array | None = None) -> Array:
        """x / (1 - p) where the element's word of the stream, as a fraction of 2^32, is at least p; 0 elsewhere.

        Words are counted in the order of NCHW, however `x` lies.
        `counter`, one int64 on the device, is added to `offset` when the kernel runs.  So a captured launch draws other
        numbers at each replay, if `advance` is captured after it.
        """
        ending = self.ending("dropout", x.dtype)
        last = wants_channels_last(x)
        y = self._new(x.shape, x.dtype, last)
        # A word w is kept if w / 2^32 >= p, that is w >= ceil(p * 2^32); beyond the largest word none is.
        threshold = math.ceil(math.ldexp(p, 32))
        if threshold > 0xFFFFFFFF:
            self.device.fill(y, 0.0)
        elif x.size:
            kernel, name, shape = "dropout", "v2", pack_int64(x.size)
            if last and not x.flags.c_contiguous:
                kernel, name = "dropout_last", "v1"
                shape = pack_int64(x.size, x.shape[2] * x.shape[3], x.shape[1])
            instance = self.sources.of(kernel)[name + ending]
            numbers = [shape, _stream(seed, offset), struct.pack("<I", threshold)]
            given = (Reads("counter", counter), self._reads("x", x, last))
            blocks = stretch_blocks(instance, x.size)
            self._launch(instance, blocks, *numbers, pack_float32(1 / (1 - p)), *given, Writes("y", y))
        return y

    def advance(self, counter: Array, by: int) -> None:
        """Add `by` to an int64 on the device: the blocks that a call has drawn, or one step of an optimiser."""
        if str(counter.dtype) != "int64" or counter.size != 1:
            raise ValueError(f"counter must be one int64, got {counter.dtype} of shape {tuple(counter.shape)}")
        self._launch(self._only("advance"), 1, pack_int64(by), Writes("counter", counter))


def _stream(seed: int, offset: int) -> bytes:
    """`PhiloxStream` of kernels/philox.cuh."""
    return struct.pack("<3Q", seed & _64, offset & _64, offset >> 64 & _64)
