"""Points that are weighted sums of an image's elements, on the CUDA backend: kernels/sample.cu."""

from __future__ import annotations

import math
from typing import Any

from pycnn.backends.cuda.device import Array, Reads, Writes
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import pack_int64

KERNELS = ("sample_fwd", "sample_dx", "sample_dw", "sample_magnitude", "sample_settle")

_FLAGS_OF_A_WORD = 8  # kFlagsOfAWord of kernels/fixed.cuh
_BLOCKS = 1024  # that look for the largest magnitude, at most

Shape3 = tuple[int, int, int]


class SamplingHost(HostBase):
    """The functions of `pycnn.backends.reference.sampling`, in float32, with one difference.

    Looking for an index outside its image, or for a number of no image, would mean waiting for the device: a tap with
    such a one takes no part.
    """

    def sample_fwd(self, x: Array, image: Array, index: Array, weight: Array) -> Array:
        """y[r, c, p] = sum over k of weight[r, k, p] * x[image[r], c, index[r, k, p]], where an index is not -1."""
        self._expect_float32("sample_fwd", x.dtype)
        y = self.device.alloc((index.shape[0], x.shape[1], index.shape[2]), x.dtype)
        given = [self._reads("x", x), *self._places(image, index), self._reads("weight", weight)]
        self._sample("sample_fwd", x.shape, index.shape, x.shape[1], [*given, Writes("y", y)])
        return y

    def sample_dx(self, dy: Array, image: Array, index: Array, weight: Array, x_shape: Shape3) -> Array:
        """dx: each point's gradient times its weights, added in integers to the elements it was made of."""
        self._expect_float32("sample_dx", dy.dtype)
        dx = self.device.alloc(tuple(x_shape), dy.dtype)
        if dx.size == 0:
            return dx
        dy, weight = self._dense(dy), self._dense(weight)
        magnitudes = self._zeros((2,), "uint32")
        for i, array in enumerate((dy, weight)):
            self._magnitude(array, magnitudes[i : i + 1])
        sums = self._zeros(tuple(x_shape), "uint64")
        flags = self._zeros((-(-dx.size // _FLAGS_OF_A_WORD),), "uint32")
        # As many terms as one element may have: all of them.
        count = pack_int64(max(math.prod(index.shape) - 1, 0).bit_length())
        given = [Reads("dy", dy), *self._places(image, index), Reads("weight", weight), Reads("magnitudes", magnitudes)]
        written = [Writes("sums", sums), Writes("flags", flags)]
        self._sample("sample_dx", x_shape, index.shape, x_shape[1], [count, *given, *written])
        instance = self._only("sample_settle")
        found = [Reads("magnitudes", magnitudes), Reads("sums", sums), Reads("flags", flags)]
        blocks = -(-dx.size // (32 * instance.tile["warps"]))
        self._launch(instance, blocks, pack_int64(dx.size), count, *found, Writes("dx", dx))
        return dx

    def sample_dw(self, dy: Array, x: Array, image: Array, index: Array) -> Array:
        """dw[r, k, p] = sum over c of dy[r, c, p] * x[image[r], c, index[r, k, p]]; 0 where the index is -1."""
        self._expect_float32("sample_dw", dy.dtype)
        dw = self.device.alloc(tuple(index.shape), dy.dtype)
        given = [self._reads("dy", dy), self._reads("x", x), *self._places(image, index)]
        self._sample("sample_dw", x.shape, index.shape, index.shape[1], [*given, Writes("dw", dw)])
        return dw

    def _sample(self, kernel: str, x_shape: Any, index_shape: Any, over: int, arguments: list[Any]) -> None:
        """Launch a kernel whose threads share out points, rows, and `over` channels or taps."""
        rows, taps, points = index_shape
        instance = self._only(kernel)
        parts = over if kernel == "sample_dw" else -(-over // instance.tile["channels"])
        blocks = rows * parts * -(-points // (32 * instance.tile["warps"]))
        if blocks:
            shape = pack_int64(rows, taps, points, *x_shape)
            self._launch(instance, blocks, shape, *arguments)

    def _places(self, image: Array, index: Array) -> tuple[Reads, Reads]:
        return self._reads("image", image), self._reads("index", index)

    def _magnitude(self, array: Array, magnitude: Array) -> None:
        instance = self._only("sample_magnitude")
        blocks = min(_BLOCKS, -(-array.size // (32 * instance.tile["warps"])))
        if blocks:
            given = (pack_int64(array.size), Reads("values", array))
            self._launch(instance, blocks, *given, Writes("magnitude", magnitude))

    def _zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        array = self.device.alloc(shape, dtype)
        self.device.fill(array, 0)
        return array
