"""Windows side by side and back on the CUDA backend: kernels/windows.cu."""

from __future__ import annotations

from typing import Any

from pycnn.backends.cuda.activation import stretch_blocks, stretch_of
from pycnn.backends.cuda.device import Array, Writes
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import NARROW, pack_divisors, pack_int64
from pycnn.jit.sources import Instance
from pycnn.shape import Pair

KERNELS = ("unfold2d", "fold2d")


class WindowsHost(HostBase):
    """The functions of `pycnn.backends.reference.windows`."""

    def unfold2d(
        self, x: Array, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, out: Pair, rows_first: bool
    ) -> Array:
        """The elements of each window, 0 outside the image."""
        self.ending("unfold2d", x.dtype)
        n, c, h, w = x.shape
        taps = c * kernel[0] * kernel[1]
        y = self._new((n, out[0], taps, out[1]) if rows_first else (n, taps, *out), x.dtype)
        if y.size:
            ending = "_16" if x.dtype.itemsize == 2 else ""
            elements = y.size + stretch_of(self.sources.of("unfold2d")["narrow" + ending])
            most = max(elements, x.size, _reach((h, w), kernel, stride, before, dilation, out))
            instance = self._of_width("unfold2d", most, ending)
            shape = _pack(y.size, x.shape, kernel, stride, before, dilation, out, rows_first)
            self._launch(instance, stretch_blocks(instance, y.size), shape, self._reads("x", x), Writes("y", y))
        return y

    def fold2d(self, y: Array, size: Pair, kernel: Pair, stride: Pair, before: Pair, dilation: Pair) -> Array:
        """The sum of the windows at each pixel: each pixel gathers from those that hold it, tap by tap."""
        ending = self.ending("fold2d", y.dtype)
        n, taps, *out = y.shape
        dx = self._new((n, taps // (kernel[0] * kernel[1]), *size), y.dtype)
        if dx.size:
            threads = 32 * self.sources.of("fold2d")["narrow" + ending].tile["warps"]
            blocks = -(-dx.size // threads)
            windows = (out[0], out[1])
            most = max(blocks * threads, y.size, _reach(size, kernel, stride, before, dilation, windows))
            shape = _pack(dx.size, dx.shape, kernel, stride, before, dilation, windows, False)
            instance = self._of_width("fold2d", most, ending)
            self._launch(instance, blocks, shape, self._reads("y", y), Writes("dx", dx))
        return dx

    def _of_width(self, kernel: str, most: int, ending: str) -> Instance:
        """The instance that counts in 32 bits where nothing exceeds them."""
        return self.sources.of(kernel)[("narrow" if most < NARROW else "wide") + ending]


def _reach(size: Pair, kernel: Pair, stride: Pair, before: Pair, dilation: Pair, out: Pair) -> int:
    """The largest coordinate that a kernel computes."""
    return max(size[i] + abs(before[i]) + (out[i] + 1) * stride[i] + (kernel[i] + 1) * dilation[i] for i in range(2))


def _pack(
    elements: int,
    x_shape: tuple[Any, ...],
    kernel: Pair,
    stride: Pair,
    before: Pair,
    dilation: Pair,
    out: Pair,
    rows_first: bool,
) -> bytes:
    """`WindowsShape` of kernels/windows.cu."""
    divisors = pack_divisors((*x_shape[1:], *kernel, *out, *stride))
    return pack_int64(elements) + divisors + pack_int64(*before, *dilation, rows_first)
