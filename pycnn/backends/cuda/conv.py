"""Convolution of the CUDA backend: the plans of all families, the one that is taken, the arrays it works on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pycnn import tuning
from pycnn.algorithms import FAMILIES, accuracy, precision, workspace_limit
from pycnn.backends.cuda import (
    columns,
    direct,
    direct_depthwise,
    direct_pointwise,
    direct_wgrad,
    im2col,
    order,
    tensor,
    winograd,
)
from pycnn.backends.cuda.convert import convert
from pycnn.backends.cuda.device import Array, Device
from pycnn.backends.cuda.host import FLOAT32, HostBase
from pycnn.backends.cuda.plan import Epilogue, Operands, Plan
from pycnn.jit.sources import Sources
from pycnn.memory_format import wants_channels_last
from pycnn.shape import PASSES, Conv2dShape, Padding, Pair
from pycnn.tuning import Identity, Table

# The modules that make plans for float32, and for 16 bits (`tensor` makes those on tensor cores); `order` has the rules
# by which `auto` chooses among them.
PLANNERS = (direct, direct_depthwise, direct_pointwise, direct_wgrad, im2col, columns, winograd)
HALF_PLANNERS = (direct, direct_depthwise, direct_wgrad)


def plans(operator: str, shape: Conv2dShape, sources: Sources, ending: str = "") -> list[Plan]:
    """The plans of a pass ("fprop", "dgrad", "wgrad") beside those on tensor cores, those that cannot run included.

    `ending` is that of the arrays' dtype, see `HostBase.ending`; by default float32's.
    """
    if ending:
        return [plan for planner in HALF_PLANNERS for plan in planner.plans(operator, shape, sources, ending)]
    return [plan for planner in PLANNERS for plan in planner.plans(operator, shape, sources)]


_MOST_PLANS = 4096  # remembered at a time


def _asked(algo: str, plans: Sequence[Plan]) -> list[Plan]:
    """The plan of that name, or else all whose names begin with those words."""
    return [plan for plan in plans if plan.name == algo] or [plan for plan in plans if plan.answers_to(algo)]


class ConvHost(HostBase):
    """Convolution's backend functions on one device."""

    def __init__(self, device: Device, sources: Sources | None = None) -> None:
        super().__init__(device, sources)
        self._chosen: dict[tuple[Any, ...], Plan] = {}

    @cached_property
    def identity(self) -> Identity:
        """The GPU, for the tables of what was measured on it."""
        name, multiprocessors = self.device.chip
        return Identity("cuda", self.device.arch, name, multiprocessors, self.sources.digest if name else "")

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
        scale: Array | None = None,
        residual: Array | None = None,
        relu: bool = False,
    ) -> Array:
        """As `pycnn.backends.reference.conv2d_fprop`; `algo` is "auto" or (part of) a name of `conv2d_algorithms`."""
        shape = Conv2dShape.of(tuple(x.shape), tuple(w.shape), stride, padding, dilation, groups)
        plan = self._plan("fprop", shape, x.dtype, algo, x, filters=w)
        y = self._result(shape.y_shape, plan, x, w)
        if shape.N:
            scale, b = (None if each is None else self._dense(convert(self, each, FLOAT32)) for each in (scale, b))
            residual = None if residual is None else self._dense(residual, wants_channels_last(y))
            epilogue = Epilogue(scale, b, residual, relu)
            plan.run(self, Operands(x=self._placed(x, plan), w=self._placed(w, plan), y=y, epilogue=epilogue))
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
        plan = self._plan("dgrad", shape, dy.dtype, algo, dy, filters=w)
        dx = self._result(shape.x_shape, plan, dy, w)
        if shape.N:
            plan.run(self, Operands(dy=self._placed(dy, plan), w=self._placed(w, plan), dx=dx))
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
        bias: bool = False,
    ) -> Array | tuple[Array, Array]:
        """As `pycnn.backends.reference.conv2d_wgrad`; `algo` as in `conv2d_fprop`.

        db comes from the same kernels as dw where they can, else from `channel_sum`.
        """
        shape = Conv2dShape.of(tuple(x.shape), tuple(w_shape), stride, padding, dilation, groups)
        plan = self._plan("wgrad", shape, dy.dtype, algo, dy, x)
        dw = self._result(shape.w_shape, plan, x, dy)
        db = self.device.alloc((shape.K,), dy.dtype) if bias and (plan.bias_gradient or not shape.N) else None
        if shape.N:
            dy = self._placed(dy, plan)
            plan.run(self, Operands(dy=dy, x=self._placed(x, plan), dw=dw, db=db))
        else:
            self.device.fill(dw, 0.0)
            if db is not None:
                self.device.fill(db, 0.0)
        if not bias:
            return dw
        return dw, self.channel_sum(dy) if db is None else db

    def _result(self, shape: tuple[int, ...], plan: Plan, *operands: Array) -> Array:
        """Where a result goes: channels-last where one of the operands is and the plan can, as PyTorch has it.

        So a network whose filters lie so takes images as they come.
        """
        return self._new(shape, operands[0].dtype, plan.strided and any(map(wants_channels_last, operands)))

    def _placed(self, array: Array, plan: Plan) -> Array:
        """An operand as the plan takes it."""
        return self._dense(array, plan.strided and wants_channels_last(array))

    def conv2d_algorithms(
        self, operator: str, shape: Conv2dShape, dtype: Any, channels_last: bool = False
    ) -> list[tuple[str, str | None]]:
        """Every algorithm of an operator ("fprop", "dgrad", "wgrad"), and why it cannot run `shape`, or None.

        `channels_last` says how the images lie, and that they are aligned to 16 bytes.
        """
        return [(plan.name, plan.reason) for plan in self._plans(operator, shape, dtype, channels_last)]

    def conv2d_choose(
        self, operator: str, shape: Conv2dShape, dtype: Any, channels_last: bool = False
    ) -> tuple[str, str]:
        """What ``algo="auto"`` takes, and the sentence saying why."""
        table = tuning.in_force(self.identity)
        plan, why = self._choice(operator, shape, dtype, "auto", table, channels_last, channels_last)
        return plan.name, why

    def conv2d_table(
        self, operator: str, shape: Conv2dShape, dtype: Any, channels_last: bool = False
    ) -> list[tuple[str, str | None, int, int]]:
        """Every algorithm of an operator: its name, why it is not to be had or None, bytes of workspace, its work."""
        return [
            (plan.name, plan.reason or _over(plan, workspace_limit()), plan.workspace, plan.cost)
            for plan in self._plans(operator, shape, dtype, channels_last)
        ]

    def conv2d_works(self, operator: str, shape: Conv2dShape, dtype: Any) -> dict[str, tuple[str, dict[str, float]]]:
        """What a calibrated ``algo="auto"`` chooses among, by name: family, and work in the terms of `order`."""
        able = [plan for plan in self._plans(operator, shape, dtype) if plan.reason is None]
        fitting = [plan for plan in able if _over(plan, workspace_limit()) is None]
        found = [order.candidate(plan, shape) for plan in order.first_tiers(fitting)]
        return {one.name: (one.model, dict(one.work)) for one in found}

    def conv2d_predicted(self, operator: str, shape: Conv2dShape, dtype: Any) -> dict[str, float]:
        """The seconds that each algorithm is predicted to take, by name; none where no table was calibrated for it."""
        table = tuning.in_force(self.identity)
        if not table.calibrated or not _is_measured(dtype):
            return {}
        able = [plan for plan in self._plans(operator, shape, dtype) if plan.reason is None]
        return {plan.name: table.seconds(operator, order.candidate(plan, shape)) for plan in able}

    def _plan(
        self,
        operator: str,
        shape: Conv2dShape,
        dtype: Any,
        algo: str,
        *images: Array,
        filters: Array | None = None,
    ) -> Plan:
        """The plan for a call on these images and filters; known from the second call on."""
        on_tensor_cores = tensor.arithmetic_of(dtype, precision()) is not None
        chunks = on_tensor_cores and all(map(tensor.reads_chunks, images))
        operands = images if filters is None else (*images, filters)
        last = on_tensor_cores and any(map(wants_channels_last, operands))
        table = tuning.in_force(self.identity)
        key = (operator, shape, dtype, algo, chunks, last, accuracy(), precision(), workspace_limit(), table)
        plan = self._chosen.get(key)
        if plan is None:
            if len(self._chosen) >= _MOST_PLANS:
                self._chosen.clear()
            plan = self._chosen[key] = self._choice(operator, shape, dtype, algo, table, chunks, last)[0]
        return plan

    def _choice(
        self,
        operator: str,
        shape: Conv2dShape,
        dtype: Any,
        algo: str,
        table: Table,
        chunks: bool = False,
        last: bool = False,
    ) -> tuple[Plan, str]:
        """The plan that `algo` stands for, and why it and no other.

        `chunks`: whether all images are as `tensor.Setting` has it; `last`: whether an operand is channels-last.
        """
        plans, limit = self._plans(operator, shape, dtype, chunks), workspace_limit()
        asked = plans if algo == "auto" else _asked(algo, plans)
        if not asked:
            names = ", ".join((*FAMILIES, *(plan.name for plan in plans)))
            raise ValueError(f"algo of {operator} must be auto or one of {names}; got {algo!r}")
        able = [plan for plan in asked if plan.reason is None and _over(plan, limit) is None]
        fitting = [plan for plan in asked if plan.reason is None]
        if not able and algo == "auto" and fitting:
            least = min(fitting, key=lambda plan: plan.workspace)
            raise ValueError(
                f"no algorithm for {operator} of {shape} keeps to the workspace limit of {limit} bytes; {least.name} "
                f"needs the least, {least.workspace}"
            )
        if not able:
            listed = "; ".join(f"{plan.name}: {plan.reason or _over(plan, limit)}" for plan in asked)
            raise ValueError(f"algo {algo!r} cannot run {operator} of {shape} ({listed})")
        if algo == "auto":
            measured = _is_measured(dtype)
            if last and not measured:
                able = order.without_copies(able)
            return order.take(operator, shape, able, table if measured else None)
        plan = order.least(able)
        return plan, plan.why

    def _plans(self, operator: str, shape: Conv2dShape, dtype: Any, chunks: bool = False) -> list[Plan]:
        """The plans for arrays of that dtype; `chunks`: which are channels-last, see `tensor.Setting`."""
        if operator not in PASSES:
            raise ValueError(f"operator must be one of {', '.join(PASSES)}, got {operator!r}")
        found = plans(operator, shape, self.sources, self.ending(f"conv2d_{operator}", dtype))
        arithmetic = tensor.arithmetic_of(dtype, precision())
        if arithmetic is not None:
            setting = tensor.Setting(arithmetic, chunks, self.device.arch)
            found += tensor.plans(operator, shape, self.sources, setting)
        if arithmetic == "3xtf32":
            found += winograd.split_plans(operator, shape, self.sources, self.device.arch)
        return found


def _is_measured(dtype: Any) -> bool:
    """Whether tables say anything of arrays of this dtype: they were measured with float32's own arithmetic."""
    return tensor.arithmetic_of(dtype, precision()) is None


def _over(plan: Plan, limit: int | None) -> str | None:
    """Why the workspace limit does not allow it, or None."""
    if limit is None or plan.workspace <= limit:
        return None
    return f"it needs {plan.workspace} bytes of workspace, and the limit is {limit}"
