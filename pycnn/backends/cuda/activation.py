"""Activations, softmax and their gradients on the CUDA backend: kernels/elementwise.cu, activation.cu, softmax.cu."""

from __future__ import annotations

from pycnn.backends.cuda.device import Array, Writes
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import Rows, pack_float32, pack_int64
from pycnn.jit.sources import Instance
from pycnn.memory_format import wants_channels_last

KERNELS = ("unary", "binary", "activation_fwd", "activation_bwd", "softmax_fwd", "softmax_bwd")

# In the order of `Activation` in kernels/activation.cu.
_FAMILY = (
    *("elu", "erf", "gelu", "gelu_tanh", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "huber", "leaky_relu"),
    *("logsigmoid", "mish", "silu", "softplus", "softshrink", "softsign", "tanhshrink", "threshold"),
)


def stretch_blocks(instance: Instance, elements: int) -> int:
    """Blocks that cover so many elements in stretches (kernels/stream.cuh)."""
    return -(-elements // stretch_of(instance))


def stretch_of(instance: Instance) -> int:
    """Elements of one block's stretch (kernels/stream.cuh): vectors of four, or of eight where they have two bytes."""
    tile = instance.tile
    width = 8 if tile.get("type") or tile.get("bytes") == 2 else 4
    return 32 * width * tile["warps"] * tile["vectors"]


class ActivationHost(HostBase):
    """The functions of `pycnn.backends.reference.dense` that are no matrix products, and `add`."""

    def relu_fwd(self, x: Array) -> Array:
        """max(x, 0); NaN stays."""
        return self._unary("relu_fwd", x)

    def relu_bwd(self, dy: Array, y: Array) -> Array:
        """dy where y is not <= 0."""
        return self._binary("relu_bwd", dy, y)

    def tanh_fwd(self, x: Array) -> Array:
        """tanh(x)."""
        return self._unary("tanh_fwd", x)

    def tanh_bwd(self, dy: Array, y: Array) -> Array:
        """dy * (1 - y^2)."""
        return self._binary("tanh_bwd", dy, y)

    def sigmoid_fwd(self, x: Array) -> Array:
        """1 / (1 + exp(-x))."""
        return self._unary("sigmoid_fwd", x)

    def sigmoid_bwd(self, dy: Array, y: Array) -> Array:
        """dy * y * (1 - y)."""
        return self._binary("sigmoid_bwd", dy, y)

    def activation_fwd(self, x: Array, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Array:
        """The function `name` of the family, with its settings."""
        ending = self.ending("activation_fwd", x.dtype)
        last = wants_channels_last(x)
        y = self._new(x.shape, x.dtype, last)
        if x.size:
            instance = self.sources.of("activation_fwd")["any" + ending]
            numbers = (pack_int64(x.size), pack_int64(_FAMILY.index(name)), pack_float32(a, b, c))
            self._launch(
                instance, stretch_blocks(instance, x.size), *numbers, self._reads("x", x, last), Writes("y", y)
            )
        return y

    def activation_bwd(self, dy: Array, x: Array, name: str, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> Array:
        """dy times the derivative of `activation_fwd` at x."""
        ending = self.ending("activation_bwd", dy.dtype)
        last = wants_channels_last(dy, x)
        dx = self._new(x.shape, dy.dtype, last)
        if x.size:
            instance = self.sources.of("activation_bwd")["any" + ending]
            numbers = (pack_int64(x.size), pack_int64(_FAMILY.index(name)), pack_float32(a, b, c))
            operands = (self._reads("dy", dy, last), self._reads("x", x, last))
            self._launch(instance, stretch_blocks(instance, x.size), *numbers, *operands, Writes("dx", dx))
        return dx

    def add(self, a: Array, b: Array) -> Array:
        """a + b, of one shape."""
        return self._binary("add", a, b)

    def softmax_fwd(self, x: Array, axis: int) -> Array:
        """exp(x - max) over its sum along `axis`."""
        return self._softmax_fwd("softmax_fwd", x, axis, logarithm=False)

    def softmax_bwd(self, dy: Array, y: Array, axis: int) -> Array:
        """y * (dy - sum of dy*y along `axis`)."""
        return self._softmax_bwd("softmax_bwd", dy, y, axis, logarithm=False)

    def log_softmax_fwd(self, x: Array, axis: int) -> Array:
        """x - max - log of the sum of exp(x - max) along `axis`."""
        return self._softmax_fwd("log_softmax_fwd", x, axis, logarithm=True)

    def log_softmax_bwd(self, dy: Array, y: Array, axis: int) -> Array:
        """dy - exp(y) * sum of dy along `axis`."""
        return self._softmax_bwd("log_softmax_bwd", dy, y, axis, logarithm=True)

    def _unary(self, name: str, x: Array) -> Array:
        ending = self.ending(name, x.dtype)
        last = wants_channels_last(x)
        y = self._new(x.shape, x.dtype, last)
        if x.size:
            instance = self.sources.of("unary")[name + ending]
            blocks = stretch_blocks(instance, x.size)
            self._launch(instance, blocks, pack_int64(x.size), self._reads("x", x, last), Writes("y", y))
        return y

    def _binary(self, name: str, a: Array, b: Array) -> Array:
        ending = self.ending(name, a.dtype)
        last = wants_channels_last(a, b)
        y = self._new(a.shape, a.dtype, last)
        if a.size:
            instance = self.sources.of("binary")[name + ending]
            operands = (self._reads("a", a, last), self._reads("b", b, last))
            self._launch(instance, stretch_blocks(instance, a.size), pack_int64(a.size), *operands, Writes("y", y))
        return y

    def _softmax_fwd(self, name: str, x: Array, axis: int, logarithm: bool) -> Array:
        ending = self.ending(name, x.dtype)
        last = wants_channels_last(x)
        y = self._new(x.shape, x.dtype, last)
        if x.size:
            instance = self.sources.of("softmax_fwd")["w8" + ending]
            threads = 32 * instance.tile["warps"]
            rows = _rows(x, axis, last, threads)
            numbers = (rows.pack(), pack_int64(logarithm))
            self._launch(instance, rows.blocks(threads), *numbers, self._reads("x", x, last), Writes("y", y))
        return y

    def _softmax_bwd(self, name: str, dy: Array, y: Array, axis: int, logarithm: bool) -> Array:
        ending = self.ending(name, dy.dtype)
        last = wants_channels_last(dy, y)
        dx = self._new(dy.shape, dy.dtype, last)
        if dy.size:
            instance = self.sources.of("softmax_bwd")["w8" + ending]
            threads = 32 * instance.tile["warps"]
            rows = _rows(dy, axis, last, threads)
            numbers = (rows.pack(), pack_int64(logarithm))
            operands = (self._reads("dy", dy, last), self._reads("y", y, last))
            self._launch(instance, rows.blocks(threads), *numbers, *operands, Writes("dx", dx))
        return dx


def _rows(array: Array, axis: int, last: bool, threads: int) -> Rows:
    """`array` seen along `axis` in the order in which its axes lie."""
    order = (0, 2, 3, 1) if last else tuple(range(array.ndim))
    return Rows.of([array.shape[i] for i in order], order.index(axis % array.ndim), threads)
