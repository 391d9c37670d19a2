"""Padding and concatenation on the CUDA backend: kernels/shaping.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycnn.backends.cuda.activation import stretch_blocks, stretch_of
from pycnn.backends.cuda.device import Array, Pointers, Writes
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import NARROW, pack_arrays, pack_divisors, pack_int64
from pycnn.jit.sources import Instance
from pycnn.memory_format import wants_channels_last
from pycnn.shape import Padding

KERNELS = ("pad2d", "concat")

PARTS = 32  # arrays of one concat launch: kParts of kernels/shaping.cu


class ShapingHost(HostBase):
    """The functions of `pycnn.backends.reference.shaping` that move elements."""

    def pad2d(self, x: Array, padding: Padding, value: float) -> Array:
        """x with `value` around the last two axes."""
        self.ending("pad2d", x.dtype)
        top, bottom, left, right = padding
        n, c, h, w = x.shape
        last = wants_channels_last(x)
        y = self._new((n, c, top + h + bottom, left + w + right), x.dtype, last)
        if y.size:
            instance = self._fitting("pad2d", y.size, x.dtype)
            step = c if last else 1  # a column of a channels-last plane is as many neighbours
            planes = pack_divisors((y.shape[2], y.shape[3] * step))
            shape = pack_int64(y.size) + planes + pack_int64(h, w * step, top, left * step)
            arrays = (self._reads("x", x, last), Writes("y", y))
            self._launch(instance, stretch_blocks(instance, y.size), shape, _word(value, x.dtype), *arrays)
        return y

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        """The arrays one after another along `axis`."""
        first = arrays[0]
        for array in arrays:
            self.ending("concat", array.dtype)
        axis %= len(first.shape)
        width = sum(array.shape[axis] for array in arrays)
        last = wants_channels_last(*arrays)
        y = self._new((*first.shape[:axis], width, *first.shape[axis + 1 :]), first.dtype, last)
        order = (0, 2, 3, 1) if last else tuple(range(len(first.shape)))
        inner = math.prod(first.shape[i] for i in order[order.index(axis) + 1 :])
        parts, offset = [], 0
        for array in arrays:
            length = array.shape[axis] * inner
            if array.size:
                parts.append((self._dense(array, last), length, offset))
            offset += length
        for begin in range(0, len(parts), PARTS):
            self._concat(parts[begin : begin + PARTS], offset, y)
        return y

    def _concat(self, parts: list[tuple[Array, int, int]], length: int, y: Array) -> None:
        """One launch: each part is an array, the length of its rows, and where in y's they begin."""
        arrays, lengths, offsets = zip(*parts, strict=True)
        instance = self._fitting("concat", max(array.size for array in arrays), y.dtype)
        table, blocks = pack_arrays([array.size for array in arrays], stretch_of(instance), PARTS)
        rest = PARTS - len(parts)
        shape = pack_int64(length) + pack_divisors((*lengths, *(1,) * rest)) + pack_int64(*offsets, *(0,) * rest)
        given = Pointers("arrays", arrays, written=False, capacity=PARTS)
        self._launch(instance, blocks, table, shape, given, Writes("y", y))

    def _fitting(self, kernel: str, elements: int, dtype: Any) -> Instance:
        """The instance for elements of so many bytes that counts in 32 bits where that reaches."""
        instances, ending = self.sources.of(kernel), "_16" if dtype.itemsize == 2 else ""
        narrow = elements + stretch_of(instances["narrow" + ending]) < NARROW
        return instances[("narrow" if narrow else "wide") + ending]


def _word(value: float, dtype: Any) -> bytes:
    """`value` as the kernels move it: four bytes, the low two of them a number of 16 bits."""
    with np.errstate(over="ignore"):
        return np.array(value).astype(dtype).tobytes().ljust(4, b"\0")
