"""The CUDA backend: host code written once, for whatever answers the five calls of `_device.Device`.

`Host` plans a call (instance, grid, arguments), allocates and launches.  Bound to the GPU by CuPy, its methods are this
module's backend functions; bound to the simulator they are those of `sim`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.backends import _cuda_direct
from pycnn.backends._cuda_host import UnavailableError
from pycnn.backends._cuda_pool import PoolHost
from pycnn.backends._device import Argument, Array, Reads, Writes
from pycnn.backends._layout import pack_conv2d_shape
from pycnn.shape import Conv2dShape, Padding, Pair

__all__ = ["Host", "UnavailableError"]


class Host(PoolHost):
    """The backend functions on one device: pooling (`_cuda_pool`) and convolution.

    Args:
        device: where the kernels run.
        sources: the kernels.
    """

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
        algo: str = "auto",
    ) -> Array:
        """As `pycnn.backends.reference.conv2d_fprop`; `algo` is "auto", "direct" or a name of `conv2d_algorithms`."""
        shape = Conv2dShape.of(tuple(x.shape), tuple(w.shape), stride, padding, dilation, groups)
        plan = self._plan("fprop", shape, x.dtype, algo)
        y = self.device.alloc(shape.y_shape, x.dtype)
        if shape.N == 0:
            return y
        arguments: list[Argument] = [
            pack_conv2d_shape(shape),
            plan.geometry,
            Reads("x", self._dense(x)),
            Reads("w", self._dense(w)),
            Reads("b", None if b is None else self._dense(b)),
            Writes("y", y),
        ]
        self.device.launch(self.device.load(plan.instance), plan.grid, plan.block, 0, arguments)
        return y

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
        algo: str = "auto",
    ) -> Array:
        """As `pycnn.backends.reference.conv2d_dgrad`; `algo` as in `conv2d_fprop`."""
        shape = Conv2dShape.of(tuple(x_shape), tuple(w.shape), stride, padding, dilation, groups)
        plan = self._plan("dgrad", shape, dy.dtype, algo)
        dx = self.device.alloc(shape.x_shape, dy.dtype)
        if shape.N == 0:
            return dx
        arguments: list[Argument] = [
            pack_conv2d_shape(shape),
            plan.geometry,
            Reads("dy", self._dense(dy)),
            Reads("w", self._dense(w)),
            Writes("dx", dx),
        ]
        self.device.launch(self.device.load(plan.instance), plan.grid, plan.block, 0, arguments)
        return dx

    def conv2d_algorithms(self, operator: str, shape: Conv2dShape, dtype: Any) -> list[tuple[str, str | None]]:
        """Every algorithm of an operator ("fprop", "dgrad"), and why it cannot run `shape`, or None if it can."""
        return [(plan.name, plan.reason) for plan in self._plans(operator, shape, dtype)]

    def conv2d_choose(self, operator: str, shape: Conv2dShape, dtype: Any) -> tuple[str, str]:
        """What ``algo="auto"`` takes, and the sentence saying why."""
        plan, why = _cuda_direct.choice(operator, self._plans(operator, shape, dtype))
        return plan.name, why

    def _plan(self, operator: str, shape: Conv2dShape, dtype: Any, algo: str) -> _cuda_direct.Plan:
        plans = self._plans(operator, shape, dtype)
        if algo in ("auto", "direct"):
            return _cuda_direct.choice(operator, plans)[0]
        for plan in plans:
            if plan.name == algo:
                if plan.reason:
                    raise ValueError(f"algo {algo!r} cannot run {shape}: {plan.reason}")
                return plan
        if algo.partition("_")[0] in ("im2col", "winograd"):
            self._unavailable(f"conv2d_{operator} by algo {algo!r}")
        names = ", ".join(plan.name for plan in plans)
        raise ValueError(f"algo must be auto, direct or one of {names}; got {algo!r}")

    def _plans(self, operator: str, shape: Conv2dShape, dtype: Any) -> list[_cuda_direct.Plan]:
        if operator not in _cuda_direct.PASSES:
            self._unavailable(f"conv2d_{operator}")
        if str(dtype) != "float32":
            self._unavailable(f"conv2d_{operator} in {dtype}")
        return _cuda_direct.plans(operator, shape, self.sources)


_hosts: dict[int, Host] = {}


def _host(*arguments: object) -> Host:
    """The host code of the GPU that holds the first array among `arguments`, or of the current one."""
    from pycnn.backends.device_cupy import CupyDevice, current_device

    held = (array.device.id for array in arguments if hasattr(array, "device"))
    number = next(held, None)
    if number is None:
        number = current_device()
    if number not in _hosts:
        _hosts[number] = Host(CupyDevice(number))
    return _hosts[number]


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def function(*arguments: Any, **options: Any) -> Any:
        return getattr(_host(*arguments), name)(*arguments, **options)

    function.__name__ = name
    return function
