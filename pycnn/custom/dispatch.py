"""A call whose `algo` is a registered kernel: conditions, the kernel, what it returned, bias and epilogue."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from pycnn import algorithms, backends
from pycnn.arrays import module_of
from pycnn.custom import registry
from pycnn.custom.registry import DevicePass, Kernel, result_shape
from pycnn.shape import Conv2dShape, Padding, Pair

__all__ = ["Registered", "answering", "expect_runs", "place_of"]

Array = Any


def answering(backend: Any, algo: str) -> Any:
    """What answers a convolution: `backend` itself, or a registered kernel in its place where `algo` names one.

    Raises ValueError for a name that is neither pycnn's own nor registered.
    """
    if registry.is_built_in(algo):
        return backend
    kernel = registry.find(algo)
    if kernel is None:
        registered = ", ".join(registry.names()) or "there is none"
        raise ValueError(
            f"algo must be one of auto, direct, im2col, winograd, a variant of these, or a kernel that was registered "
            f"by pycnn.register_conv2d ({registered}), got {algo!r}"
        )
    return backend if place_of(backend) == "shapes" else Registered(kernel, backend)


def expect_runs(algo: str, operator: str, shape: Conv2dShape, dtype: str) -> None:
    """ValueError, as the call itself would raise it, unless `algo` can run a problem where NumPy's arrays go now."""
    place = backends.selected() or "cpu"
    answers = answering(backends.get(place), algo)
    if isinstance(answers, Registered):
        answers.expect_runs(operator, shape, dtype)
    elif place == "cpu":
        algorithms.resolve(algo, operator, shape, dtype)


def place_of(backend: Any) -> str:
    """The name of a backend, as `use_backend` takes it, from its module."""
    name: str = backend.__name__.split(".")[2]
    return name


class Registered:
    """The convolutions of a registered kernel on the arrays of `backend`, whose other operators finish them."""

    def __init__(self, kernel: Kernel, backend: Any) -> None:
        self.__name__ = backend.__name__  # as a module has, for messages
        self._kernel = kernel
        self._backend = backend
        self._place = place_of(backend)

    def conv2d_fprop(
        self,
        x: Array,
        w: Array,
        b: Array | None,
        stride: Pair,
        padding: Padding,
        dilation: Pair,
        groups: int,
        *,
        algo: str,
        scale: Array | None = None,
        residual: Array | None = None,
        relu: bool = False,
    ) -> Array:
        """As a backend's; the steps after the sum are the backend's operators, one after another."""
        shape = Conv2dShape.of(tuple(x.shape), tuple(w.shape), stride, padding, dilation, groups)
        y = self._run("fprop", x, w, shape)
        if scale is not None or b is not None:
            with self._there(y):
                shift = module_of(scale).zeros_like(scale) if b is None else b
            y = self._backend.channel_affine(y, scale, shift)
        if residual is not None:
            y = self._backend.add(y, residual)
        return self._backend.relu_fwd(y) if relu else y

    def conv2d_dgrad(
        self,
        dy: Array,
        w: Array,
        x_shape: tuple[int, ...],
        stride: Pair,
        padding: Padding,
        dilation: Pair,
        groups: int,
        *,
        algo: str,
    ) -> Array:
        """As a backend's."""
        shape = Conv2dShape.of(tuple(x_shape), tuple(w.shape), stride, padding, dilation, groups)
        return self._run("dgrad", dy, w, shape)

    def conv2d_wgrad(
        self,
        dy: Array,
        x: Array,
        w_shape: tuple[int, ...],
        stride: Pair,
        padding: Padding,
        dilation: Pair,
        groups: int,
        *,
        algo: str,
        bias: bool = False,
    ) -> Array | tuple[Array, Array]:
        """As a backend's; db is the backend's `channel_sum`."""
        shape = Conv2dShape.of(tuple(x.shape), tuple(w_shape), stride, padding, dilation, groups)
        dw = self._run("wgrad", dy, x, shape)
        return (dw, self._backend.channel_sum(dy)) if bias else dw

    def expect_runs(self, operator: str, shape: Conv2dShape, dtype: str) -> None:
        """ValueError where the kernel refuses a problem."""
        reason = self._kernel.refuses(operator, shape, dtype, self._place)
        if reason is not None:
            raise ValueError(f"algo={self._kernel.name!r} cannot run {operator} of {shape} ({reason})")

    def _run(self, operator: str, left: Array, right: Array, shape: Conv2dShape) -> Array:
        kernel = self._kernel
        self.expect_runs(operator, shape, left.dtype.name)
        expected = result_shape(operator, shape)
        with self._there(left):
            if not shape.N:
                return module_of(left).zeros(expected, left.dtype)
            run, left, right = kernel.passes[operator], _dense(left), _dense(right)
            if isinstance(run, DevicePass):
                return self._on_device(run, operator, left, right, shape)
            result = run(left, right, shape)
        _check(result, f"{operator} of the registered kernel {kernel.name}", left, shape, expected)
        return result

    def _there(self, array: Array) -> Any:
        """A context in which fresh arrays are where `array` is."""
        return self._backend.within(array.data.device_id) if self._place == "cuda" else nullcontext()

    def _on_device(self, run: DevicePass, operator: str, left: Array, right: Array, shape: Conv2dShape) -> Array:
        if self._place == "sim":  # whose memory is a copy of NumPy's
            into = self._backend.into
            return np.array(run.run(self._backend.host, operator, into(left), into(right), shape))
        return run.run(self._backend.host_on(left.data.device_id), operator, left, right, shape)


def _check(y: Any, who: str, like: Array, shape: Conv2dShape, expected: tuple[int, ...]) -> None:
    """TypeError or ValueError unless `y` is what a pass may return where its operands are as `like`."""
    kind = np.ndarray if isinstance(like, np.ndarray) else type(like)
    if not isinstance(y, kind):
        raise TypeError(f"{who} must return an array of {kind.__module__}, got {type(y).__name__}, for {shape}")
    if y.dtype != like.dtype:
        raise TypeError(f"{who} must return {like.dtype}, as its operands are, got {y.dtype}, for {shape}")
    if tuple(y.shape) != expected:
        raise ValueError(f"{who} must return the shape {expected}, got {tuple(y.shape)}, for {shape}")
    if not y.flags.c_contiguous:
        raise ValueError(f"{who} must return a C-contiguous array, got one with strides {y.strides}, for {shape}")


def _dense(array: Array) -> Array:
    return array if array.flags.c_contiguous else array.copy()
