"""Convolution of the CUDA backend: the plans of all families, the one that is taken, the arrays it works on."""

from __future__ import annotations

from typing import Any

from pycnn.algorithms import FAMILIES
from pycnn.backends.cuda import columns, direct, im2col
from pycnn.backends.cuda.device import Array
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.plan import Epilogue, Operands, Plan
from pycnn.jit.sources import Sources
from pycnn.shape import PASSES, Conv2dShape, Padding, Pair

# The modules that make plans, in the order in which `auto` asks them.
PLANNERS = (direct, im2col, columns)


def plans(operator: str, shape: Conv2dShape, sources: Sources) -> list[Plan]:
    """Every algorithm's plan for a pass ("fprop", "dgrad", "wgrad"), those that cannot run included."""
    return [plan for planner in PLANNERS for plan in planner.plans(operator, shape, sources)]


class ConvHost(HostBase):
    """Convolution's backend functions on one device."""

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
        """As `pycnn.backends.reference.conv2d_fprop`; `algo` is "auto" or (part of) a name of `conv2d_algorithms`."""
        shape = Conv2dShape.of(tuple(x.shape), tuple(w.shape), stride, padding, dilation, groups)
        plan = self._plan("fprop", shape, x.dtype, algo)
        y = self.device.alloc(shape.y_shape, x.dtype)
        if shape.N:
            b = None if b is None else self._dense(b)
            plan.run(self, Operands(x=self._dense(x), w=self._dense(w), y=y, epilogue=Epilogue(b=b)))
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
        if shape.N:
            plan.run(self, Operands(dy=self._dense(dy), w=self._dense(w), dx=dx))
        return dx

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
        algo: str = "auto",
    ) -> Array:
        """As `pycnn.backends.reference.conv2d_wgrad`; `algo` as in `conv2d_fprop`."""
        shape = Conv2dShape.of(tuple(x.shape), tuple(w_shape), stride, padding, dilation, groups)
        plan = self._plan("wgrad", shape, dy.dtype, algo)
        dw = self.device.alloc(shape.w_shape, dy.dtype)
        if shape.N:
            plan.run(self, Operands(dy=self._dense(dy), x=self._dense(x), dw=dw))
        else:
            self.device.fill(dw, 0.0)
        return dw

    def conv2d_algorithms(self, operator: str, shape: Conv2dShape, dtype: Any) -> list[tuple[str, str | None]]:
        """Every algorithm of an operator ("fprop", "dgrad", "wgrad"), and why it cannot run `shape`, or None."""
        return [(plan.name, plan.reason) for plan in self._plans(operator, shape, dtype)]

    def conv2d_choose(self, operator: str, shape: Conv2dShape, dtype: Any) -> tuple[str, str]:
        """What ``algo="auto"`` takes, and the sentence saying why."""
        plan = self._plan(operator, shape, dtype, "auto")
        return plan.name, plan.why

    def _plan(self, operator: str, shape: Conv2dShape, dtype: Any, algo: str) -> Plan:
        plans = self._plans(operator, shape, dtype)
        asked = plans if algo == "auto" else [plan for plan in plans if plan.answers_to(algo)]
        if not asked:
            if algo.partition("_")[0] in FAMILIES:
                self._unavailable(f"conv2d_{operator} by algo {algo!r}")
            names = ", ".join((*FAMILIES, *(plan.name for plan in plans)))
            raise ValueError(f"algo must be auto or one of {names}; got {algo!r}")
        able = [plan for plan in asked if plan.reason is None]
        if not able:
            listed = "; ".join(f"{plan.name}: {plan.reason}" for plan in asked)
            raise ValueError(f"algo {algo!r} cannot run {operator} of {shape} ({listed})")
        return min(able, key=lambda plan: (plan.tier, plan.cost))

    def _plans(self, operator: str, shape: Conv2dShape, dtype: Any) -> list[Plan]:
        if operator not in PASSES:
            raise ValueError(f"operator must be one of {', '.join(PASSES)}, got {operator!r}")
        if str(dtype) != "float32":
            self._unavailable(f"conv2d_{operator} in {dtype}")
        found = plans(operator, shape, self.sources)
        if not found:
            self._unavailable(f"conv2d_{operator}")
        return found
