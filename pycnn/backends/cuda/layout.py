"""The structs of kernels/common.cuh, packed from Python; field for field in the same order."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

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


def pack_pool2d_shape(planes: int, rows: PoolAxis, columns: PoolAxis) -> bytes:
    """`Pool2dShape` of kernels/common.cuh."""
    return struct.pack("<q", planes) + _pool_axis(rows) + _pool_axis(columns)


def _pool_axis(axis: PoolAxis) -> bytes:
    divisors = pack_divisors((axis.size, axis.out, axis.stride))
    return divisors + struct.pack("<4q", axis.window, axis.before, axis.after, axis.dilation)


def pack_divisors(divisors: Iterable[int]) -> bytes:
    """A struct of `Divisor`s: DirectGrid and its like."""
    return b"".join(_divisor(value) for value in divisors)


def _divisor(value: int) -> bytes:
    if value >= NARROW:  # only 64-bit kernels see such a one, and they divide
        return struct.pack("<qII", value, 0, 0)
    shift = (value - 1).bit_length()
    multiplier = (2**32 * (2**shift - value)) // value + 1
    return struct.pack("<qII", value, multiplier, shift)
