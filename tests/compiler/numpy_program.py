"""A native program played in NumPy: the same calls, on the same packed layout, with any number of lanes.

It is slow and strict.  Sums are taken in float64 and rounded once; the arena is filled with NaN before every run; a
step that reads outside of the arena, or padding lanes that are not zero, fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pycnn.backends import reference


class View(NamedTuple):
    offset: int
    channels: int
    height: int
    width: int
    image: int
    block: int
    row: int


class Plain(NamedTuple):
    space: str
    at: int


class Images(NamedTuple):
    array: Plain
    channels: int
    height: int
    width: int
    channels_last: bool


class Filters:
    """Filters of a kind; full of NaN until they are filled."""

    def __init__(self, lanes: int, kind: str, shape: tuple[int, ...]) -> None:
        assert kind in ("conv", "depthwise", "linear")
        assert len(shape) == (2 if kind == "linear" else 4)
        self.kind, self.lanes = kind, lanes
        self.w = np.full(shape, np.nan, np.float32)

    def fill(self, first: int, w: np.ndarray) -> None:
        assert w.dtype == np.float32
        assert w.flags.c_contiguous
        assert w.shape[1:] == self.w.shape[1:]
        assert first % self.lanes == 0
        assert w.shape[0] % self.lanes == 0 or first + w.shape[0] == self.w.shape[0]
        self.w[first : first + w.shape[0]] = w

    def plain(self) -> np.ndarray:
        return self.w.copy()


class Run:
    """The memory of one run."""

    def __init__(
        self, batch: int, lanes: int, floats: int, inputs: list[np.ndarray], outputs: list[np.ndarray]
    ) -> None:
        self.batch, self.lanes = batch, lanes
        self.arena = np.full(floats, np.nan, np.float32)
        self.inputs, self.outputs = inputs, outputs

    def window(self, x: View) -> np.ndarray:
        """(n, blocks, height, width, lanes), writable."""
        blocks = -(-x.channels // self.lanes)
        shape = (self.batch, blocks, x.height, x.width, self.lanes)
        strides = (x.image, x.block, x.row, self.lanes, 1)
        last = x.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        assert x.offset >= 0, f"{x} begins before the arena"
        assert last < self.arena.size, f"{x} ends behind the arena of {self.arena.size}"
        assert x.row >= x.width * self.lanes, f"{x}: rows overlap"
        assert blocks == 1 or x.block >= x.height * x.row, f"{x}: blocks overlap"
        assert x.offset % self.lanes == 0, f"{x}: not at a whole vector"
        return np.lib.stride_tricks.as_strided(self.arena[x.offset :], shape, [4 * stride for stride in strides])

    def read(self, x: View | Images) -> np.ndarray:
        """(n, channels, height, width), float64."""
        if isinstance(x, Images):
            return self.images(x).astype(np.float64)
        lanes = self.window(x)
        n, blocks, h, w, _ = lanes.shape
        wide = lanes.transpose(0, 1, 4, 2, 3).reshape(n, blocks * self.lanes, h, w).astype(np.float64)
        assert not wide[:, x.channels :].any(), f"{x}: the padding lanes are not zero"
        return wide[:, : x.channels]

    def write(self, y: View | Images, values: np.ndarray) -> None:
        """Values of (n, channels, height, width); zeros in the padding lanes."""
        assert values.shape == (self.batch, y.channels, y.height, y.width), f"{values.shape} does not fit {y}"
        if isinstance(y, Images):
            self.images(y)[...] = values
            return
        window = self.window(y)
        n, blocks, h, w, _ = window.shape
        wide = np.zeros((n, blocks * self.lanes, h, w), np.float32)
        wide[:, : y.channels] = values
        window[...] = wide.reshape(n, blocks, self.lanes, h, w).transpose(0, 1, 3, 4, 2)

    def poison(self, y: View | Images) -> None:
        """NaN where `y` is to be written: a step writes in any order, so it must not read there."""
        if isinstance(y, Images):
            self.images(y)[...] = np.nan
        else:
            self.window(y)[...] = np.nan

    def images(self, x: Images) -> np.ndarray:
        """(n, channels, height, width), writable."""
        array, c, h, w, last = x
        return self.array(array, h, w, c).transpose(0, 3, 1, 2) if last else self.array(array, c, h, w)

    def array(self, x: Plain, *shape: int) -> np.ndarray:
        """(n, *shape), writable."""
        count = self.batch * math.prod(shape)
        if x.space == "arena":
            assert 0 <= x.at <= self.arena.size - count, f"{x} of {count} floats is not in the arena"
            return self.arena[x.at : x.at + count].reshape(self.batch, *shape)
        array = (self.inputs if x.space == "input" else self.outputs)[x.at]
        assert array.size == count, f"{x} has {array.size} floats, not {count}"
        return array.reshape(self.batch, *shape)

    def floats(self, x: Plain, count: int) -> np.ndarray:
        """So many floats from there on, writable."""
        if x.space == "arena":
            assert 0 <= x.at <= self.arena.size - count, f"{x} of {count} floats is not in the arena"
            return self.arena[x.at : x.at + count]
        array = (self.inputs if x.space == "input" else self.outputs)[x.at]
        assert array.size >= count, f"{x} has {array.size} floats, not {count}"
        return array.reshape(-1)[:count]


Call = Callable[[Run], None]
Clamp = tuple[float, float] | None


class Program:
    """The steps of csrc/bindings/program.h, under their names and with their arguments."""

    def __init__(self, lanes: int, batch: int, arena: int) -> None:
        assert batch > 0
        self.lanes, self.batch, self.floats = lanes, batch, arena
        self.calls: list[tuple[str, Call]] = []

    def run(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        run = Run(self.batch, self.lanes, self.floats, inputs, outputs)
        for array in [*inputs, *outputs]:
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
        before = [array.tobytes() for array in inputs]
        for name, call in self.calls:
            try:
                call(run)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
        assert before == [array.tobytes() for array in inputs], "an input was written to"

    def profile(self, inputs: list[np.ndarray], outputs: list[np.ndarray], rounds: int) -> list[float]:
        self.run(inputs, outputs)
        return [1e-6] * len(self.calls)

    def _add(self, name: str, call: Call) -> None:
        self.calls.append((f"step {len(self.calls)}, {name}", call))

    # -- moving

    def pack(self, x: Images, y: View) -> None:
        self._add("pack", lambda run: run.write(y, run.read(x)))

    def unpack(self, x: View, y: Images) -> None:
        self._add("unpack", lambda run: run.write(y, run.read(x)))

    def clear(self, x: View) -> None:
        self._add("clear", lambda run: run.window(x).fill(0))

    def copy(self, x: Plain, y: Plain, count: int) -> None:
        self._add("copy", lambda run: run.floats(y, count).__setitem__(slice(None), run.floats(x, count)))

    # -- layers

    def conv(
        self,
        x: View | Images,
        y: View | Images,
        filters: Filters,
        bias: np.ndarray | None,
        *,
        stride: Any,
        padding: Any,
        dilation: Any,
        residual: View | None,
        clamp: Clamp,
        algo: str,
        keep: bool,
    ) -> None:
        assert filters.kind == "conv"
        assert filters.w.shape[:2] == (y.channels, x.channels)
        kernel = filters.w.shape[2:]
        assert algo == "direct" or algo.startswith("winograd_f")
        assert isinstance(y, View) or residual is None
        if algo != "direct":
            for one in (x, y):
                assert isinstance(one, View) or tuple(dilation) == (1, 1)
                assert isinstance(one, View) or not one.channels_last or one.channels % self.lanes == 0
        around = _around(kernel, stride, padding, dilation, (x.height, x.width), (y.height, y.width))

        def call(run: Run) -> None:
            added = None if residual is None else run.read(residual)  # element by element before it is overwritten
            run.poison(y)
            if residual not in (None, y):
                added = run.read(residual)
            result = _convolved(run.read(x), filters.w, bias, stride, around, dilation)
            result = result[:, :, : y.height, : y.width]
            result = result if added is None else result + added
            run.write(y, _clamped(result, clamp))

        self._add(f"conv {algo}", call)

    def depthwise(
        self,
        x: View | Images,
        y: View | Images,
        filters: Filters,
        bias: np.ndarray | None,
        *,
        stride: Any,
        padding: Any,
        dilation: Any,
        clamp: Clamp,
    ) -> None:
        for one in (x, y):
            assert isinstance(one, View) or (one.channels_last and one.channels % self.lanes == 0)
        assert type(x) is type(y)
        assert filters.kind == "depthwise"
        assert filters.w.shape[:2] == (x.channels, 1)
        kernel = filters.w.shape[2:]
        around = _around(kernel, stride, padding, dilation, (x.height, x.width), (y.height, y.width))

        def call(run: Run) -> None:
            run.poison(y)
            result = _convolved(run.read(x), filters.w, bias, stride, around, dilation, x.channels)
            result = result[:, :, : y.height, : y.width]
            run.write(y, _clamped(result, clamp))

        self._add("depthwise", call)

    def conv_nchw(
        self,
        x: Plain,
        y: Plain,
        w: np.ndarray,
        bias: np.ndarray | None,
        *,
        image: Any,
        out: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> None:
        around = _around(w.shape[2:], stride, padding, dilation, image[1:], out)

        def call(run: Run) -> None:
            given = run.array(x, *image).astype(np.float64)
            result = _convolved(given, w, bias, stride, around, dilation, groups)[:, :, : out[0], : out[1]]
            run.array(y, w.shape[0], *out)[...] = result

        self._add("conv_nchw", call)

    def linear(self, x: Plain, y: Plain, filters: Filters, bias: np.ndarray | None, *, clamp: Clamp) -> None:
        assert filters.kind == "linear"

        def call(run: Run) -> None:
            rows = run.array(x, filters.w.shape[1])
            # In float32, for the largest matrices of the networks; sums of thousands of terms stay far under the bound.
            result = rows @ filters.w.T + (0 if bias is None else bias)
            run.array(y, filters.w.shape[0])[...] = _clamped(result, clamp)

        self._add("linear", call)

    # -- elementwise

    def add(self, a: View, b: View, y: View, clamp: Clamp) -> None:
        self._binary("add", a, b, y, clamp, np.add)

    def mul(self, a: View, b: View, y: View, clamp: Clamp) -> None:
        self._binary("mul", a, b, y, clamp, np.multiply)

    def _binary(self, name: str, a: View, b: View, y: View, clamp: Clamp, function: Any) -> None:
        def call(run: Run) -> None:
            result = function(run.read(a), run.read(b))
            run.write(y, _clamped(result, clamp))

        self._add(name, call)

    def scale(self, x: View, scale: View, y: View, clamp: Clamp) -> None:
        self._binary("scale", x, scale, y, clamp, np.multiply)

    def affine(self, x: View, y: View, scale: np.ndarray | None, shift: np.ndarray | None, clamp: Clamp) -> None:
        def call(run: Run) -> None:
            result = run.read(x)
            result = result if scale is None else result * scale.reshape(-1, 1, 1)
            result = result if shift is None else result + shift.reshape(-1, 1, 1)
            run.write(y, _clamped(result, clamp))

        self._add("affine", call)

    def unary(self, name: str, x: Plain, y: Plain, count: int) -> None:
        function: Any = {
            "relu": lambda v: np.maximum(v, 0),
            "tanh": np.tanh,
            "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        }[name]

        def call(run: Run) -> None:
            run.floats(y, count)[...] = function(run.floats(x, count).astype(np.float64))

        self._add(name, call)

    def activation(self, name: str, x: Plain, y: Plain, count: int, a: float, b: float, c: float) -> None:
        def call(run: Run) -> None:
            values = run.floats(x, count).astype(np.float64)
            run.floats(y, count)[...] = reference.activation_fwd(values, name, a, b, c)

        self._add("activation", call)

    def permute(self, x: Plain, y: Plain, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
        def call(run: Run) -> None:
            images = run.array(x, *shape).transpose(0, *(1 + axis for axis in order))
            run.array(y, *images.shape[1:])[...] = images

        self._add("permute", call)

    def lrn(
        self, x: Plain, y: Plain, *, channels: int, pixels: int, size: int, alpha: float, beta: float, k: float
    ) -> None:
        def call(run: Run) -> None:
            values = run.array(x, channels, pixels).astype(np.float64)
            run.array(y, channels, pixels)[...] = reference.lrn_fwd(values, size, alpha, beta, k)

        self._add("lrn", call)

    def softmax(self, x: Plain, y: Plain, *, outer: int, count: int, inner: int, log: bool) -> None:
        function = reference.log_softmax_fwd if log else reference.softmax_fwd
        floats = outer * count * inner

        def call(run: Run) -> None:
            values = run.floats(x, floats).reshape(outer, count, inner).astype(np.float64)
            run.floats(y, floats)[...] = function(values, 1).reshape(-1)

        self._add("softmax", call)

    # -- pooling

    def max_pool(self, x: View, y: View, *, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
        def call(run: Run) -> None:
            run.poison(y)
            windows = _windows(run.read(x), y, kernel, stride, padding, dilation, -np.inf)
            run.write(y, windows.max((4, 5)))

        self._add("max_pool", call)

    def avg_pool(
        self,
        x: View,
        y: View,
        *,
        kernel: Any,
        stride: Any,
        padding: Any,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        top, bottom, left, right = padding
        if count_include_pad:
            counted, before = (top + x.height + bottom, left + x.width + right), (0, 0, 0, 0)
        else:
            counted, before = (x.height, x.width), padding
        counts: Any = divisor_override
        if counts is None:
            counts = _windows(np.ones((1, 1, *counted)), y, kernel, stride, before, (1, 1), 0.0).sum((4, 5))

        def call(run: Run) -> None:
            run.poison(y)
            sums = _windows(run.read(x), y, kernel, stride, padding, (1, 1), 0.0).sum((4, 5))
            run.write(y, sums / counts)

        self._add("avg_pool", call)

    def adaptive_max_pool(self, x: View, y: View) -> None:
        size = (y.height, y.width)
        self._add("adaptive", lambda run: run.write(y, reference.adaptive_max_pool2d_fwd(run.read(x), size)[0]))

    def adaptive_avg_pool(self, x: View, y: View) -> None:
        size = (y.height, y.width)
        self._add("adaptive", lambda run: run.write(y, reference.adaptive_avg_pool2d_fwd(run.read(x), size)))

    def mean(self, x: View, y: Plain) -> None:
        def call(run: Run) -> None:
            run.array(y, x.channels)[...] = run.read(x).mean((2, 3))

        self._add("mean", call)


def _clamped(values: np.ndarray, clamp: Clamp) -> np.ndarray:
    assert clamp is None or clamp[0] <= 0 <= clamp[1], "lanes without a channel would not stay zero"
    return values if clamp is None else np.clip(values, *clamp)


def _around(kernel: Any, stride: Any, padding: Any, dilation: Any, size: Any, out: Any) -> tuple[int, int, int, int]:
    """Padding as far as the windows reach."""
    after = [
        max(0, (o - 1) * s - p + (k - 1) * d + 1 - n)
        for o, s, p, k, d, n in zip(out, stride, padding, kernel, dilation, size, strict=True)
    ]
    return padding[0], after[0], padding[1], after[1]


def _convolved(
    x: np.ndarray, w: np.ndarray, b: Any, stride: Any, padding: Any, dilation: Any, groups: int = 1
) -> np.ndarray:
    bias = None if b is None else b.astype(np.float64)
    return reference.conv2d_fprop(x, w.astype(np.float64), bias, stride, padding, dilation, groups)


def _windows(x: np.ndarray, y: View, kernel: Any, stride: Any, padding: Any, dilation: Any, fill: float) -> np.ndarray:
    """(n, c, p, q, r, s): what each window sees."""
    n, c, h, w = x.shape
    top, left = padding[0], padding[2]
    reach = [
        (o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip((y.height, y.width), stride, kernel, dilation, strict=True)
    ]
    field = np.full((n, c, max(reach[0], top + h), max(reach[1], left + w)), fill)
    field[:, :, top : top + h, left : left + w] = x
    return np.stack(
        [
            np.stack(
                [
                    field[
                        :,
                        :,
                        r * dilation[0] : r * dilation[0] + (y.height - 1) * stride[0] + 1 : stride[0],
                        s * dilation[1] : s * dilation[1] + (y.width - 1) * stride[1] + 1 : stride[1],
                    ]
                    for s in range(kernel[1])
                ],
                -1,
            )
            for r in range(kernel[0])
        ],
        -2,
    )


class Engine:
    """Stands in for `pycnn._cpu`."""

    View, Plain, Images = View, Plain, Images

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes

    def lanes(self) -> int:
        return self._lanes

    def Program(self, batch: int, arena: int) -> Program:
        return Program(self._lanes, batch, arena)

    def Filters(self, kind: str, shape: tuple[int, ...]) -> Filters:
        return Filters(self._lanes, kind, shape)
