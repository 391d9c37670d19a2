"""The structs of kernels/common.cuh, packed from Python; field for field in the same order."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pycnn.shape import Conv2dShape

# An index that fits 31 bits is divided by multiplication (see Divisor in kernels/common.cuh).
NARROW = 2**31


def pack_conv2d_shape(shape: Conv2dShape) -> bytes:
    """`Conv2dShape` of kernels/common.cuh."""
    top, _, left, _ = shape.padding
    return struct.pack(
        "<16q",
        *(shape.N, shape.C, shape.H, shape.W),
        *(shape.K, shape.R, shape.S),
        *(shape.P, shape.Q),
        *shape.stride,
        *(top, left),
        *shape.dilation,
        shape.groups,
    )


@dataclass(frozen=True, slots=True)
class PoolAxis:
    """`out` windows over `size` pixels along one axis; before, after: the padding."""

    size: int
    out: int
    stride: int = 1
    window: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1


def pack_pool2d_shape(planes: int, rows: PoolAxis, columns: PoolAxis, channels: int = 1) -> bytes:
    """`Pool2dShape` of kernels/common.cuh."""
    return struct.pack("<q", planes) + _pool_axis(rows) + _pool_axis(columns) + pack_divisors((channels,))


def _pool_axis(axis: PoolAxis) -> bytes:
    divisors = pack_divisors((axis.size, axis.out, axis.stride))
    return divisors + struct.pack("<4q", axis.window, axis.before, axis.after, axis.dilation)


def pack_divisors(divisors: Iterable[int]) -> bytes:
    """A struct of `Divisor`s: DirectGrid and its like."""
    return b"".join(_divisor(value) for value in divisors)


@lru_cache(maxsize=4096)
def _divisor(value: int) -> bytes:
    if value >= NARROW:  # only 64-bit kernels see such a one, and they divide
        return struct.pack("<qII", value, 0, 0)
    shift = (value - 1).bit_length()
    multiplier = (2**32 * (2**shift - value)) // value + 1
    return struct.pack("<qII", value, multiplier, shift)


def pack_int64(*values: int) -> bytes:
    """64-bit integers, one parameter or the fields of a struct."""
    return struct.pack(f"<{len(values)}q", *values)


def pack_float32(*values: float) -> bytes:
    """32-bit floats, one parameter or the fields of a struct; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float64).astype("<f4").tobytes()


def pack_arrays(sizes: Sequence[int], chunk: int, capacity: int) -> tuple[bytes, int]:
    """`Arrays` of kernels/tensors.cuh for arrays cut into chunks of a block each, and how many blocks that are."""
    first, blocks = [], 0
    for size in sizes:
        first.append(blocks)
        blocks += -(-size // chunk)
    rest = capacity - len(sizes)
    return struct.pack(f"<{capacity}q{capacity}i", *sizes, *(0,) * rest, *first, *(NARROW - 1,) * rest), blocks


@dataclass(frozen=True, slots=True)
class Rows:
    """An array (outer, length, inner) and who in a block walks along `length`: `RowsShape` of kernels/rows.cuh.

    Attributes:
        lanes: neighbours of the inner axis that a group of threads owns.
        rows: threads that share the length.
    """

    outer: int
    length: int
    inner: int
    lanes: int
    rows: int

    @staticmethod
    def of(shape: Sequence[int], axis: int, threads: int) -> Rows:
        """Lanes as many as the inner axis has, up to a warp; rows so that each has some four elements."""
        axis %= len(shape)
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        lanes = min(32, _power_of_two(inner))
        rows = min(threads // lanes, _power_of_two(-(-shape[axis] // 4)))
        return Rows(outer, shape[axis], inner, lanes, rows)

    def blocks(self, threads: int) -> int:
        """Blocks of so many threads that cover the array."""
        groups = threads // (self.lanes * self.rows)
        return -(-(self.outer * -(-self.inner // self.lanes)) // groups)

    def pack(self) -> bytes:
        """The struct."""
        return pack_int64(self.outer, self.length, self.inner, self.lanes, self.rows)


def _power_of_two(least: int) -> int:
    return 1 << (max(least, 1) - 1).bit_length()
