"""Normalisation of groups of channels on the CUDA backend: kernels/group_norm.cu."""

from __future__ import annotations

import math

from pycnn.backends.cuda.convert import ConvertHost
from pycnn.backends.cuda.device import Array, Reads, Writes
from pycnn.backends.cuda.host import FLOAT32
from pycnn.backends.cuda.layout import Rows, pack_divisors, pack_float32, pack_int64
from pycnn.backends.cuda.reduce import ReduceHost

KERNELS = ("group_norm_fwd", "group_norm_bwd")


class GroupNormHost(ReduceHost, ConvertHost):
    """The functions of `pycnn.backends.reference.group_norm`."""

    def group_norm_fwd(
        self,
        x: Array,
        groups: int,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        centred: bool = True,
    ) -> tuple[Array, Array, Array]:
        """(x - mean) / sqrt(var + eps) * weight + bias, with mean and biased variance of each group, in float32."""
        ending = self.ending("group_norm_fwd", x.dtype)
        y = self._new(x.shape, x.dtype)
        mean, var = (self.device.alloc((x.shape[0], groups), FLOAT32) for _ in range(2))
        if x.size == 0:
            self.device.fill(mean, math.nan if centred else 0.0)
            self.device.fill(var, math.nan)
            return y, mean, var
        instance = self.sources.of("group_norm_fwd")["w8" + ending]
        rows, numbers = _rows(x, groups, instance.tile["warps"])
        given = (self._reads("x", x), self._coefficients("weight", weight), self._coefficients("bias", bias))
        written = (Writes("y", y), Writes("mean", mean), Writes("var", var))
        settings = (pack_float32(eps), pack_int64(centred))
        self._launch(instance, rows.blocks(32 * instance.tile["warps"]), *numbers, *settings, *given, *written)
        return y, mean, var

    def group_norm_bwd(
        self,
        dy: Array,
        x: Array,
        groups: int,
        weight: Array | None,
        mean: Array,
        var: Array,
        eps: float,
        centred: bool = True,
        affine: bool = True,
    ) -> tuple[Array, Array | None, Array | None]:
        """dx and, with `affine`, dweight and dbias in float32; mean and var are functions of x here."""
        ending = self.ending("group_norm_bwd", dy.dtype)
        dx = self._new(x.shape, dy.dtype)
        product = self._new(x.shape, FLOAT32) if affine else None
        if x.size:
            instance = self.sources.of("group_norm_bwd")["w8" + ending]
            rows, numbers = _rows(x, groups, instance.tile["warps"])
            given = (self._reads("dy", dy), self._reads("x", x), self._coefficients("weight", weight))
            statistics = (self._coefficients("mean", mean), self._coefficients("var", var))
            to = Reads("product", None) if product is None else Writes("product", product)
            settings = (pack_float32(eps), pack_int64(centred))
            threads = 32 * instance.tile["warps"]
            self._launch(instance, rows.blocks(threads), *numbers, *settings, *given, *statistics, Writes("dx", dx), to)
        if product is None:
            return dx, None, None
        return dx, self.channel_sum(product), self.channel_sum(dy)


def _rows(x: Array, groups: int, warps: int) -> tuple[Rows, tuple[bytes, bytes]]:
    """A group a row, and the structs that the kernels take first."""
    samples, channels = x.shape[:2]
    length = x.size // (samples * groups)
    rows = Rows.of((samples * groups, length), 1, 32 * warps)
    each = channels // groups
    return rows, (rows.pack(), pack_int64(groups, each) + pack_divisors((length // each,)))
