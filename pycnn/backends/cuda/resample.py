"""Interpolation on the CUDA backend: kernels/resample.cu."""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakKeyDictionary

from pycnn.backends.cuda.convert import ConvertHost, convert
from pycnn.backends.cuda.device import Argument, Array, Device, Reads, Writes
from pycnn.backends.cuda.host import FLOAT32
from pycnn.backends.cuda.layout import NARROW, pack_divisors, pack_int64
from pycnn.jit.sources import Sources
from pycnn.memory_format import wants_channels_last
from pycnn.resampling import Taps

KERNELS = ("resample",)

# Rows times columns of taps beyond which two launches read less than one: bicubic's sixteen go at once.
_TAPS_AT_ONCE = 16

OnDevice = tuple[Array, Array, Array]  # start, count and weight of a table


class ResampleHost(ConvertHost):
    """`resample` of `pycnn.backends.reference.sampling`."""

    def __init__(self, device: Device, sources: Sources | None = None) -> None:
        super().__init__(device, sources)
        self._tables: WeakKeyDictionary[Taps, OnDevice] = WeakKeyDictionary()

    def resample(self, x: Array, rows: Taps | None, columns: Taps | None) -> Array:
        """x (..., H, W) with each table applied to its axis; None leaves the axis as it is."""
        self.ending("resample", x.dtype)
        if rows is None or columns is None or rows.most * columns.most <= _TAPS_AT_ONCE:
            return self._resample(x, rows, columns)
        dtype, y = x.dtype, x if x.dtype == FLOAT32 else convert(self, x, FLOAT32)  # rounded once, at the end
        # The axis first that leaves less for the other.
        if rows.out * columns.size <= columns.out * rows.size:
            y = self._resample(self._resample(y, rows, None), None, columns)
        else:
            y = self._resample(self._resample(y, None, columns), rows, None)
        return convert(self, y, dtype)

    def _resample(self, x: Array, rows: Taps | None, columns: Taps | None) -> Array:
        """One launch."""
        *outer, h, w = x.shape
        p, q = h if rows is None else rows.out, w if columns is None else columns.out
        last = wants_channels_last(x)
        planes, inner = (outer[0], outer[1]) if last else (math.prod(outer), 1)
        y = self._new((*outer, p, q), x.dtype, last)
        if y.size:
            instances, ending = self.sources.of("resample"), self.ending("resample", x.dtype)
            threads = 32 * instances["narrow" + ending].tile["warps"]
            blocks = -(-y.size // threads)
            narrow = max(blocks * threads, h, w) < NARROW
            shape = pack_int64(planes, h, w) + pack_divisors((p, q, inner))
            tables = [*self._table("rows", rows), *self._table("columns", columns)]
            arrays = (self._reads("x", x, last), Writes("y", y))
            self._launch(instances[("narrow" if narrow else "wide") + ending], blocks, shape, *tables, *arrays)
        return y

    def _table(self, name: str, taps: Taps | None) -> list[Argument]:
        """A table as arguments; its arrays stay on the device for as long as it lives."""
        found: Any = (None, None, None)
        if taps is not None:
            found = self._tables.get(taps)
            if found is None:
                found = self._tables[taps] = (
                    self._copy(taps.start, "int64"),
                    self._copy(taps.count, "int64"),
                    self._copy(taps.weight, "float32"),
                )
        return [Reads(f"{name}.{part}", array) for part, array in zip(("start", "count", "weight"), found, strict=True)]

    def _copy(self, array: Any, dtype: str) -> Array:
        copy = self.device.alloc(array.shape, dtype)
        self.device.fill(copy, array.astype(dtype))
        return copy
