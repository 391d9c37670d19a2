"""Normalisation on the CUDA backend, over the batch and across channels: kernels/batchnorm.cu and lrn.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pycnn.backends.cuda.activation import ActivationHost, stretch_blocks, stretch_of
from pycnn.backends.cuda.convert import ConvertHost
from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.host import FLOAT32
from pycnn.backends.cuda.layout import NARROW, pack_divisors, pack_float32, pack_int64
from pycnn.backends.cuda.reduce import ChannelSlices, by_channel
from pycnn.jit.sources import Instance
from pycnn.memory_format import wants_channels_last

KERNELS = (
    "batch_norm_moments",
    "batch_norm_statistics",
    "channel_map",
    "batch_norm_slopes",
    "batch_norm_gradients",
    "batch_norm_dx",
    "lrn_fwd",
    "lrn_slopes",
    "lrn_bwd",
)

# Of LRN: threads to cut the channels for, and the fewest channels a thread walks, beside the window before them.
_LRN_THREADS = 2**18
_LRN_CHANNELS = 16


class NormHost(ActivationHost, ConvertHost):
    """The functions of `pycnn.backends.reference.norm`."""

    def batch_norm_fwd(
        self,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        residual: Array | None = None,
        relu: bool = False,
    ) -> tuple[Array, Array, Array]:
        """(x - mean) / sqrt(var + eps) * weight + bias, mean and biased variance over all axes but the second.

        Then `residual` is added and a ReLU taken: in 16 bits before y is rounded, in float32 by kernels of their own.
        Mean and variance are float32.
        """
        ending = self.ending("batch_norm_fwd", x.dtype)
        channels = x.shape[1]
        mean, low, var = (self.device.alloc((channels,), FLOAT32) for _ in range(3))
        if x.size == 0:
            self.device.fill(mean, math.nan)
            self.device.fill(var, math.nan)
            return self.device.alloc(tuple(x.shape), x.dtype), mean, var
        last = wants_channels_last(x)
        x = self._dense(x, last)
        slices, partial = self._reduce("batch_norm_moments", x, last, [Reads("x", x)])
        merge = self.sources.of("batch_norm_statistics")["w4" + ending]
        given = (slices.pack(), pack_int64(slices.count), Reads("x", x), Reads("partial", partial))
        written = (Writes("mean", mean), Writes("low", low), Writes("var", var))
        self._launch(merge, _thread_blocks(merge, channels), *given, *written)
        y = self._channel_map(x, last, eps, residual, relu, mean=mean, low=low, var=var, scale=weight, shift=bias)
        return y, mean, var

    def batch_norm_bwd(
        self,
        dy: Array,
        x: Array,
        weight: Array | None,
        mean: Array,
        var: Array,
        eps: float,
        y: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """dx, dweight and dbias; mean and var are functions of x here; `y` is what a ReLU gave at the end.

        dweight and dbias are float32.
        """
        self.ending("batch_norm_bwd", dy.dtype)
        dy = dy if y is None else self.relu_bwd(dy, y)
        channels, last = x.shape[1], wants_channels_last(x, dy)
        dx = self._new(x.shape, dy.dtype, last)
        dweight, dbias = (self.device.alloc((channels,), FLOAT32) for _ in range(2))
        if x.size == 0:
            self.device.fill(dweight, 0.0)
            self.device.fill(dbias, 0.0)
            return dx, dweight, dbias
        operands = [self._reads("dy", dy, last), self._reads("x", x, last)]
        of_mean, of_var = self._coefficients("mean", mean), self._coefficients("var", var)
        slices, partial = self._reduce("batch_norm_slopes", x, last, [*operands, of_mean])
        merge = self._only("batch_norm_gradients")
        given = (pack_int64(channels), pack_int64(slices.count), pack_float32(eps), Reads("partial", partial))
        sums = (Writes("dweight", dweight), Writes("dbias", dbias))
        self._launch(merge, _thread_blocks(merge, channels), *given, of_var, *sums)
        instance, grid = self._channel_grid("batch_norm_dx", x, last)
        coefficients = [
            *(self._coefficients("weight", weight), of_mean, of_var),
            *(Reads("dweight", dweight), Reads("dbias", dbias)),
        ]
        numbers = (grid, pack_float32(eps), pack_float32(channels / x.size))
        blocks = stretch_blocks(instance, x.size)
        self._launch(instance, blocks, *numbers, *operands, *coefficients, Writes("dx", dx))
        return dx, dweight, dbias

    def batch_norm_eval(
        self, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> Array:
        """(x - mean) / sqrt(var + eps) * weight + bias, with statistics that are given."""
        self.ending("batch_norm_eval", x.dtype)
        return self._channel_map(x, wants_channels_last(x), eps, mean=mean, var=var, scale=weight, shift=bias)

    def channel_affine(self, x: Array, scale: Array | None, shift: Array) -> Array:
        """x * scale[c] + shift[c]; a scale of None is 1."""
        self.ending("channel_affine", x.dtype)
        return self._channel_map(x, wants_channels_last(x), 0.0, scale=scale, shift=shift)

    def lrn_fwd(self, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        """y[c] = x[c] / (k + alpha/size * sum of x^2 over channels c - size//2 .. c + (size - 1)//2)^beta."""
        ending = self.ending("lrn_fwd", x.dtype)
        y = self.device.alloc(tuple(x.shape), x.dtype)
        if x.size:
            arrays: list[Argument] = [self._reads("x", x), Writes("y", y)]
            self._lrn("lrn_fwd", size, ending, x.shape, _power(size, alpha, beta, k), arrays)
        return y

    def lrn_bwd(self, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
        """dx[c] = dy[c]/s[c]^beta - 2*alpha*beta/size * x[c] * sum of dy*x/s^(beta + 1) over channels that see c."""
        ending = self.ending("lrn_bwd", dy.dtype)
        dx = self.device.alloc(tuple(dy.shape), dy.dtype)
        if dy.size == 0:
            return dx
        power = _power(size, alpha, beta, k)
        operands: list[Argument] = [self._reads("dy", dy), self._reads("x", x)]
        slopes = None
        if f"of_{size}" not in self.sources.of("lrn_bwd"):
            slopes = self.device.alloc(tuple(dy.shape), FLOAT32)
            self._lrn("lrn_slopes", size, ending, x.shape, power, [*operands, Writes("slopes", slopes)])
        self._lrn("lrn_bwd", size, ending, x.shape, power, [*operands, Reads("slopes", slopes), Writes("dx", dx)])
        return dx

    def _reduce(self, kernel: str, x: Array, last: bool, operands: list[Reads]) -> tuple[ChannelSlices, Array]:
        """Two values of each slice of each channel of `x`, [slice][2][C]."""
        instances = self.sources.of(kernel)
        threads, vector = 32 * instances["planes"].tile["warps"], 16 // x.dtype.itemsize
        slices = ChannelSlices.of(by_channel(x.shape, last), threads, vector)
        partial = self.device.alloc((slices.count, 2, slices.C), "float32")
        instance = instances[slices.layout + self.ending(kernel, x.dtype)]
        self._launch_on(instance, slices.grid, slices.pack(), *operands, Writes("partial", partial))
        return slices, partial

    def _channel_map(
        self,
        x: Array,
        last: bool,
        eps: float,
        residual: Array | None = None,
        relu: bool = False,
        **coefficients: Array | None,
    ) -> Array:
        y = self._new(x.shape, x.dtype, last)
        if x.size == 0:
            return y
        instance, grid = self._channel_grid("channel_map", x, last)
        order = ("mean", "low", "var", "scale", "shift")
        given = [self._coefficients(name, coefficients.get(name)) for name in order]
        finish = bool(instance.tile["finish"])
        arguments: list[Argument] = [grid, pack_float32(eps), self._reads("x", x, last), *given]
        arguments += [self._reads("residual", residual if finish else None, last), pack_int64(relu and finish)]
        self._launch(instance, stretch_blocks(instance, x.size), *arguments, Writes("y", y))
        if finish:
            return y
        y = y if residual is None else self.add(y, residual)
        return self.relu_fwd(y) if relu else y

    def _channel_grid(self, kernel: str, x: Array, last: bool) -> tuple[Instance, bytes]:
        """The instance, counting in 32 bits where that reaches, and `ChannelGrid` of kernels/channels.cuh."""
        instances, ending = self.sources.of(kernel), self.ending(kernel, x.dtype)
        chunk = stretch_of(instances["narrow" + ending])
        narrow = -(-x.size // chunk) * chunk < NARROW
        grid = pack_int64(x.size) + pack_divisors(by_channel(x.shape, last)[1:])
        return instances[("narrow" if narrow else "wide") + ending], grid

    def _lrn(
        self, kernel: str, size: int, ending: str, shape: Sequence[int], power: bytes, arrays: list[Argument]
    ) -> None:
        instances = self.sources.of(kernel)
        instance = instances.get(f"of_{size}{ending}", instances["any" + ending])
        N, C, L = shape[0], shape[1], math.prod(shape[2:])
        segments = max(1, min(-(-_LRN_THREADS // (N * L)), C // _LRN_CHANNELS))
        channels = -(-C // segments)
        segments = -(-C // channels)
        packed = pack_int64(N, C, L, segments, channels, size)
        self._launch(instance, _thread_blocks(instance, N * segments * L), packed, power, *arrays)


def _power(size: int, alpha: float, beta: float, k: float) -> bytes:
    """`LrnPower` of kernels/lrn.cu."""
    return pack_float32(alpha / size, beta, k)


def _thread_blocks(instance: Instance, threads: int) -> int:
    return -(-threads // (32 * instance.tile["warps"]))
