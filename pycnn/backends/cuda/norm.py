"""Normalisation on the CUDA backend: over the batch by kernels/batchnorm.cu and channels_last.cu, LRN by lrn.cu.

LRN works on copies in C order of what is channels-last: neighbouring threads walk the channels of neighbouring pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pycnn.backends.cuda.activation import ActivationHost, stretch_blocks, stretch_of
from pycnn.backends.cuda.convert import ConvertHost
from pycnn.backends.cuda.device import Argument, Array, Reads, Writes
from pycnn.backends.cuda.host import FLOAT32
from pycnn.backends.cuda.layout import NARROW, pack_divisors, pack_float32, pack_int64
from pycnn.backends.cuda.reduce import BLOCKS, ChannelSlices, LastSlices, by_channel, goes_by_vectors
from pycnn.jit.sources import Instance
from pycnn.memory_format import wants_channels_last

KERNELS = (
    "batch_norm_moments",
    "batch_norm_statistics",
    "channel_map",
    "batch_norm_slopes",
    "batch_norm_gradients",
    "batch_norm_dx",
    "batch_norm_moments_last",
    "channel_map_last",
    "batch_norm_slopes_last",
    "batch_norm_dx_last",
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
        merging, slices, partial = self._reduce("batch_norm_moments", last, [Reads("x", x)])
        merge = self.sources.of("batch_norm_statistics")["w4" + ending]
        given = (merging, pack_int64(slices), Reads("x", x), Reads("partial", partial))
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
        _, slices, partial = self._reduce("batch_norm_slopes", last, operands, of_mean)
        merge = self._only("batch_norm_gradients")
        given = (pack_int64(channels), pack_int64(slices), pack_float32(eps), Reads("partial", partial))
        sums = (Writes("dweight", dweight), Writes("dbias", dbias))
        self._launch(merge, _thread_blocks(merge, channels), *given, of_var, *sums)
        coefficients = [
            *(self._coefficients("weight", weight), of_mean, of_var),
            *(Reads("dweight", dweight), Reads("dbias", dbias)),
        ]
        numbers = (pack_float32(eps), pack_float32(channels / x.size))
        self._map("batch_norm_dx", last, dx, operands, [*numbers, *operands, *coefficients])
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

    def _reduce(self, kernel: str, last: bool, operands: list[Reads], *more: Reads) -> tuple[bytes, int, Array]:
        """Two values of each slice of each channel, [slice][2][C]; `ChannelSlices` for their merging, and their count.

        `operands` are dense arrays of one shape, `more` what else the kernel takes.
        """
        x = operands[0].array
        assert x is not None
        ending, vector = self.ending(kernel, x.dtype), 16 // x.dtype.itemsize
        slices: ChannelSlices | LastSlices
        if self._by_vectors(last, operands):
            instance = self.sources.of(f"{kernel}_last")["w8" + ending]
            slices = LastSlices.of(x.shape, 32 * instance.tile["warps"], vector)
            merging = slices.pack_for_merging()
        else:
            instances = self.sources.of(kernel)
            slices = ChannelSlices.of(by_channel(x.shape, last), 32 * instances["planes"].tile["warps"], vector)
            instance, merging = instances[slices.layout + ending], slices.pack()
        partial = self.device.alloc((slices.count, 2, x.shape[1]), FLOAT32)
        self._launch_on(instance, slices.grid, slices.pack(), *operands, *more, Writes("partial", partial))
        return merging, slices.count, partial

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
        images = [self._reads("x", x, last), self._reads("residual", residual, last)]
        order = ("mean", "low", "var", "scale", "shift")
        given = [self._coefficients(name, coefficients.get(name)) for name in order]
        # In float32 a sum of its own rounds no more, and the kernel that has it in itself is for vectors alone.
        finish = x.dtype != FLOAT32 or self._by_vectors(last, images)
        if not finish:
            images[1] = Reads("residual", None)
        finishing = (images[1], pack_int64(relu and finish))
        self._map("channel_map", last, y, images, [pack_float32(eps), images[0], *given, *finishing])
        if finish:
            return y
        y = y if residual is None else self.add(y, residual)
        return self.relu_fwd(y) if relu else y

    def _map(self, kernel: str, last: bool, y: Array, images: list[Reads], arguments: list[Argument]) -> None:
        """A kernel that makes `y` of `images` and, behind `ChannelGrid` or `LastSlices`, these arguments."""
        ending = self.ending(kernel, y.dtype)
        if self._by_vectors(last, images):
            instance = self.sources.of(f"{kernel}_last")["w8" + ending]
            slices = LastSlices.of(y.shape, 32 * instance.tile["warps"], 16 // y.dtype.itemsize, most=BLOCKS)
            self._launch_on(instance, slices.grid, slices.pack(), *arguments, Writes(_result_of(kernel), y))
            return
        instances = self.sources.of(kernel)
        chunk = stretch_of(instances["narrow" + ending])
        narrow = -(-y.size // chunk) * chunk < NARROW
        instance = instances[("narrow" if narrow else "wide") + ending]
        grid = pack_int64(y.size) + pack_divisors(by_channel(y.shape, last)[1:])
        self._launch(instance, stretch_blocks(instance, y.size), grid, *arguments, Writes(_result_of(kernel), y))

    def _by_vectors(self, last: bool, images: list[Reads]) -> bool:
        return goes_by_vectors(last, *(each.array for each in images if each.array is not None))

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


def _result_of(kernel: str) -> str:
    return "dx" if kernel == "batch_norm_dx" else "y"


def _power(size: int, alpha: float, beta: float, k: float) -> bytes:
    """`LrnPower` of kernels/lrn.cu."""
    return pack_float32(alpha / size, beta, k)


def _thread_blocks(instance: Instance, threads: int) -> int:
    return -(-threads // (32 * instance.tile["warps"]))
