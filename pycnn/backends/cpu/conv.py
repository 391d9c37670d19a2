"""Convolution, its gradients and the bias gradient on the CPU engine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pycnn import _cpu, algorithms, tuning, winograd
from pycnn.backends.cpu._dense import dense
from pycnn.backends.cpu.activation import relu_fwd
from pycnn.backends.cpu.norm import channel_affine
from pycnn.backends.cpu.shaping import add
from pycnn.shape import Conv2dShape

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]

_DTYPES = {"f": "float32", "d": "float64"}  # by character: asking an array for its dtype's name takes a microsecond


def conv2d_fprop(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
    scale: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """y = relu(scale[k] * (x convolved with w) + b[k] + residual), each step where it is given.

    The engine's convolutions add b themselves; the other steps are its operators, run one after another.
    """
    if scale is not None:
        y = _convolved(x, w, None, stride, padding, dilation, groups, algo)
        y = channel_affine(y, scale, np.zeros_like(scale) if b is None else b)
    else:
        y = _convolved(x, w, b, stride, padding, dilation, groups, algo)
    if residual is not None:
        y = add(y, residual)
    return relu_fwd(y) if relu else y


def _convolved(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    algo: str,
) -> np.ndarray:
    """y = x convolved with w, plus b a filter."""
    shape = Conv2dShape.of(x.shape, w.shape, stride, padding, dilation, groups)
    name, tile = _resolve(algo, "fprop", shape, x.dtype.char, *_settings())
    bias = None if b is None else dense(b)
    if tile is not None and shape.R == 3 and dilation == (1, 1):
        return _cpu.winograd_fprop(dense(x), dense(w), bias, padding, groups, tile)
    if tile is not None:
        return _cpu.winograd_packed_fprop(dense(x), dense(w), bias, shape.y_shape, padding[::2], dilation, tile)
    return _cpu.conv2d_fprop(
        name,
        dense(x),
        dense(w),
        bias,
        shape.y_shape,
        stride,
        padding[::2],
        dilation,
        groups,
    )


def conv2d_dgrad(
    dy: np.ndarray,
    w: np.ndarray,
    x_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
) -> np.ndarray:
    """dx of `x_shape` from dy and w."""
    shape = Conv2dShape.of(x_shape, w.shape, stride, padding, dilation, groups)
    name, tile = _resolve(algo, "dgrad", shape, dy.dtype.char, *_settings())
    if tile is not None and shape.R == 3 and dilation == (1, 1):
        return _cpu.winograd_dgrad(dense(dy), dense(w), x_shape, padding, groups, tile)
    if tile is not None:
        return _cpu.winograd_packed_dgrad(dense(dy), dense(w), x_shape, padding[::2], dilation, tile)
    return _cpu.conv2d_dgrad(name, dense(dy), dense(w), x_shape, stride, padding[::2], dilation, groups)


def conv2d_wgrad(
    dy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    *,
    algo: str = "auto",
    bias: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """dw of `w_shape` from dy and x; with `bias` (dw, db), db by `channel_sum`."""
    dw = _gradient_of_w(dy, x, w_shape, stride, padding, dilation, groups, algo)
    return (dw, channel_sum(dy)) if bias else dw


def _gradient_of_w(
    dy: np.ndarray,
    x: np.ndarray,
    w_shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    algo: str,
) -> np.ndarray:
    """dw of `w_shape` from dy and x."""
    shape = Conv2dShape.of(x.shape, w_shape, stride, padding, dilation, groups)
    name, tile = _resolve(algo, "wgrad", shape, dy.dtype.char, *_settings())
    if tile is not None:
        return _cpu.winograd_wgrad(dense(dy), dense(x), w_shape, padding, dilation, groups, tile)
    return _cpu.conv2d_wgrad(name, dense(dy), dense(x), w_shape, stride, padding[::2], dilation, groups)


def _settings() -> tuple[str, tuning.Table, tuple[int, int] | None]:
    """What goes into a choice besides the problem."""
    limit = algorithms.workspace_limit()
    return (
        algorithms.accuracy(),
        tuning.in_force(tuning.of_cpu()),
        None if limit is None else (limit, _cpu.num_threads()),
    )


@lru_cache(maxsize=4096)
def _resolve(
    algo: str,
    operator: str,
    shape: Conv2dShape,
    dtype: str,
    accuracy: str,
    table: tuning.Table,
    workspace: tuple[int, int] | None,
) -> tuple[str, int | None]:
    """The implementation that `algo` stands for and its Winograd tile, if any; remembered, so cheap to repeat.

    `accuracy`, `table` and `workspace`, the limit and the number of threads, are what is in force.
    """
    name = algorithms.resolve(algo, operator, shape, _DTYPES[dtype])
    return name, winograd.tile_of(name)


def winograd_workspace(name: str, operator: str, shape: Conv2dShape, dtype: npt.DTypeLike) -> int:
    """Bytes of scratch that the Winograd variant `name` holds at most, with the threads and ISA in force."""
    tile = winograd.tile_of(name)
    wide = np.dtype(dtype) == np.float64
    return _cpu.winograd_workspace(
        operator, shape.x_shape, shape.w_shape, shape.y_shape, shape.padding, shape.dilation, shape.groups, tile, wide
    )


def conv2d_algorithms(operator: str, shape: Conv2dShape, dtype: npt.DTypeLike) -> list[tuple[str, str | None]]:
    """Every implementation of `operator`, with the reason why it cannot run this problem, or None."""
    return algorithms.candidates(operator, shape, np.dtype(dtype).name)


def conv2d_choose(operator: str, shape: Conv2dShape, dtype: npt.DTypeLike) -> tuple[str, str]:
    """The implementation `auto` takes, and why."""
    return algorithms.choose(operator, shape, np.dtype(dtype).name)


def conv2d_predicted(operator: str, shape: Conv2dShape, dtype: npt.DTypeLike) -> dict[str, float]:
    """The seconds that each implementation is predicted to take, by name, where it can run the problem."""
    return algorithms.predicted(operator, shape, np.dtype(dtype).name)


def channel_sum(dy: np.ndarray) -> np.ndarray:
    """Sum over all axes but the second: the gradient of a bias, (C,)."""
    return _cpu.channel_sum(dense(dy))
