"""Pooling of the CUDA backend: which instance of kernels/pool2d.cu, on what grid, with what arguments."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pycnn.backends.cuda.device import Argument, Array, Extent, Writes
from pycnn.backends.cuda.host import HostBase, grid_of
from pycnn.backends.cuda.layout import NARROW, PoolAxis, pack_pool2d_shape
from pycnn.jit.sources import Instance, Sources
from pycnn.memory_format import wants_channels_last
from pycnn.shape import Padding, Pair, Pool2dShape

KERNELS = ("max_pool2d_fwd", "max_pool2d_bwd", "plane_take", "avg_pool2d_fwd", "avg_pool2d_bwd")

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class PoolProblem:
    """What a pooling kernel is told: so many planes, their axes, and whether the windows are spread evenly."""

    planes: int
    rows: PoolAxis
    columns: PoolAxis
    adaptive: bool = False

    @staticmethod
    def windows(
        x_shape: tuple[int, ...], out: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
    ) -> PoolProblem:
        """Windows of one size, `stride` apart."""
        rows, columns = (
            PoolAxis(x_shape[2 + i], out[i], stride[i], kernel[i], padding[2 * i], padding[2 * i + 1], dilation[i])
            for i in range(2)
        )
        return PoolProblem(x_shape[0] * x_shape[1], rows, columns)

    @staticmethod
    def even(x_shape: tuple[int, ...], out: tuple[int, ...]) -> PoolProblem:
        """Adaptive windows."""
        rows, columns = (PoolAxis(x_shape[2 + i], out[i]) for i in range(2))
        return PoolProblem(x_shape[0] * x_shape[1], rows, columns, adaptive=True)

    @property
    def largest(self) -> int:
        """The largest coordinate that a kernel computes, the index of its element apart."""
        axes = (self.rows, self.columns)
        if self.adaptive:
            return max((axis.size + 1) * (axis.out + 1) for axis in axes)
        return max(
            axis.out * axis.stride + axis.stride + axis.window * axis.dilation + axis.size + axis.before + axis.after
            for axis in axes
        )


@dataclass(frozen=True)
class PoolPlan:
    """A kernel and its launch geometry."""

    instance: Instance
    grid: Extent
    block: Extent


def pool_plan(kernel: str, problem: PoolProblem, elements: int, sources: Sources, ending: str = "") -> PoolPlan:
    """The plan for an output of `elements`, one a thread: 32-bit coordinates where they reach.

    `ending` is what the names of its dtype's instances end in.
    """
    instances = sources.of(kernel)
    form = "adaptive_" if problem.adaptive else ""
    threads = instances[f"{form}narrow{ending}"].tile["warps"] * 32
    blocks = -(-elements // threads)
    narrow = max(problem.largest, blocks * threads) < NARROW
    return PoolPlan(instances[f"{form}{'narrow' if narrow else 'wide'}{ending}"], grid_of(blocks), (threads, 1, 1))


class PoolHost(HostBase):
    """The pooling functions, as those of `pycnn.backends.reference` with one difference.

    Looking for an index outside its plane, or outside the window it belongs to, would mean waiting for the device:
    `plane_take` gives NaN where an index is outside its plane, and the backward passes over an index that its window
    does not reach.
    """

    def max_pool2d_fwd(
        self,
        x: Array,
        kernel: Pair,
        stride: Pair,
        padding: Padding,
        dilation: Pair,
        ceil_mode: bool,
        return_indices: bool = True,
    ) -> tuple[Array, Array | None]:
        """The largest value of each window and where it is (None unless asked for)."""
        shape = Pool2dShape.of(tuple(x.shape), kernel, stride, padding, dilation, ceil_mode)
        problem = PoolProblem.windows(x.shape, (shape.P, shape.Q), kernel, stride, padding, dilation)
        return self._max_fwd(x, problem, return_indices)

    def adaptive_max_pool2d_fwd(
        self, x: Array, out_size: Pair, return_indices: bool = True
    ) -> tuple[Array, Array | None]:
        """The largest value of each adaptive window and where it is."""
        return self._max_fwd(x, PoolProblem.even(x.shape, out_size), return_indices)

    def max_pool2d_bwd(
        self,
        dy: Array,
        indices: Array,
        x_shape: Shape4,
        kernel: Pair,
        stride: Pair,
        padding: Padding,
        dilation: Pair,
    ) -> Array:
        """dx: each pixel gathers from the windows that reach it, in scan order."""
        problem = PoolProblem.windows(x_shape, dy.shape[2:], kernel, stride, padding, dilation)
        return self._max_bwd(dy, indices, x_shape, problem)

    def adaptive_max_pool2d_bwd(self, dy: Array, indices: Array, x_shape: Shape4) -> Array:
        """dx: each pixel gathers from the windows that hold it, in scan order."""
        return self._max_bwd(dy, indices, x_shape, PoolProblem.even(x_shape, dy.shape[2:]))

    def plane_take(self, x: Array, indices: Array) -> Array:
        """y[n, c, p, q] = x[n, c] at the flat index indices[n, c, p, q]; 0 where that is -1."""
        last = wants_channels_last(x, indices)
        y = self._new(indices.shape, x.dtype, last)
        ones = (1, 1)
        problem = PoolProblem.windows(x.shape, indices.shape[2:], ones, ones, (0, 0, 0, 0), ones)
        given = [self._reads("x", x, last), self._reads("indices", indices, last)]
        self._pool("plane_take", problem, last, y, [*given, Writes("y", y)])
        return y

    def avg_pool2d_fwd(
        self,
        x: Array,
        kernel: Pair,
        stride: Pair,
        padding: Padding,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Array:
        """The sum of each window over its divisor."""
        shape = Pool2dShape.of(tuple(x.shape), kernel, stride, padding, (1, 1), ceil_mode)
        problem = PoolProblem.windows(x.shape, (shape.P, shape.Q), kernel, stride, padding, (1, 1))
        return self._avg_fwd(x, problem, count_include_pad, divisor_override)

    def adaptive_avg_pool2d_fwd(self, x: Array, out_size: Pair) -> Array:
        """The mean of each adaptive window."""
        return self._avg_fwd(x, PoolProblem.even(x.shape, out_size))

    def avg_pool2d_bwd(
        self,
        dy: Array,
        x_shape: Shape4,
        kernel: Pair,
        stride: Pair,
        padding: Padding,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Array:
        """dx: each pixel's windows' gradients over their divisors, in scan order."""
        problem = PoolProblem.windows(x_shape, dy.shape[2:], kernel, stride, padding, (1, 1))
        return self._avg_bwd(dy, x_shape, problem, count_include_pad, divisor_override)

    def adaptive_avg_pool2d_bwd(self, dy: Array, x_shape: Shape4) -> Array:
        """dx: each pixel's adaptive windows' gradients over their sizes, in scan order."""
        return self._avg_bwd(dy, x_shape, PoolProblem.even(x_shape, dy.shape[2:]))

    def _max_fwd(self, x: Array, problem: PoolProblem, return_indices: bool) -> tuple[Array, Array | None]:
        y_shape = (*x.shape[:2], problem.rows.out, problem.columns.out)
        last = wants_channels_last(x)
        y = self._new(y_shape, x.dtype, last)
        indices = self._new(y_shape, "int64", last) if return_indices else None
        given = self._reads("x", x, last)
        self._pool("max_pool2d_fwd", problem, last, y, [given, Writes("y", y), Writes("indices", indices)])
        return y, indices

    def _max_bwd(self, dy: Array, indices: Array, x_shape: Shape4, problem: PoolProblem) -> Array:
        last = wants_channels_last(indices, dy)
        dx = self._new(x_shape, dy.dtype, last)
        given = [self._reads("dy", dy, last), self._reads("indices", indices, last)]
        self._pool("max_pool2d_bwd", problem, last, dx, [*given, Writes("dx", dx)])
        return dx

    def _avg_fwd(self, x: Array, problem: PoolProblem, include_pad: bool = True, divisor: int | None = None) -> Array:
        last = wants_channels_last(x)
        y = self._new((*x.shape[:2], problem.rows.out, problem.columns.out), x.dtype, last)
        averaging = _averaging(include_pad, divisor)
        self._pool("avg_pool2d_fwd", problem, last, y, [averaging, self._reads("x", x, last), Writes("y", y)])
        return y

    def _avg_bwd(
        self, dy: Array, x_shape: Shape4, problem: PoolProblem, include_pad: bool = True, divisor: int | None = None
    ) -> Array:
        last = wants_channels_last(dy)
        dx = self._new(x_shape, dy.dtype, last)
        averaging = _averaging(include_pad, divisor)
        self._pool("avg_pool2d_bwd", problem, last, dx, [averaging, self._reads("dy", dy, last), Writes("dx", dx)])
        return dx

    def _pool(self, kernel: str, problem: PoolProblem, last: bool, output: Any, arguments: list[Argument]) -> None:
        ending = self.ending(kernel, output.dtype)
        if output.size == 0:
            return
        plan = pool_plan(kernel, problem, output.size, self.sources, ending)
        channels = int(output.shape[1]) if last else 1
        packed = pack_pool2d_shape(problem.planes // channels, problem.rows, problem.columns, channels)
        self.device.launch(self.device.load(plan.instance), plan.grid, plan.block, 0, [packed, *arguments])


def _averaging(count_include_pad: bool, divisor_override: int | None) -> bytes:
    """`Averaging` of kernels/pool2d.cu."""
    return struct.pack("<2q", divisor_override or 0, count_include_pad)
