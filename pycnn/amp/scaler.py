"""`GradScaler`: the scale of the loss that keeps float16 gradients above zero, and below infinity."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from pycnn import graph
from pycnn.arrays import device_of, is_half, place, to_host
from pycnn.large import cast
from pycnn.memory_format import is_dense
from pycnn.nn.parameter import changed
from pycnn.optim import Optimizer
from pycnn.optim._device import Scaling, host_of, is_fused
from pycnn.optim.optimizer import blocks
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["GradScaler"]

Array = Any
T = TypeVar("T")

_MOST_OPTIMIZERS = 64  # of one `update` on a GPU: ARRAYS of pycnn.backends.cuda.optim


class GradScaler:
    """Multiply the loss so that small gradients survive in float16, and leave out the steps in which large ones do not.

        scale(loss).backward()      every gradient is `scale` times what it would be
        step(optimizer)             divides them by it and steps, unless one is not finite
        update()                    scale = scale * backoff_factor    after a step that was left out
                                    scale = scale * growth_factor     after growth_interval steps in a row that were not

    The scale is a power of two as long as the factors are, and then changes no digit of a gradient that float16 holds.

    In main memory `step` divides the gradients in place and looks at them before it steps.  On a GPU scale, count and
    what was found lie in its memory and are read there: the division is part of the optimiser's kernels, which leave
    parameters, moments and step count alone where a gradient is not finite, and nothing waits for the host; so a step
    that `pycnn.cuda.capture` has captured goes on scaling.  (There `step` leaves the gradients multiplied; ``unscale_``
    divides them.  A step of SGD that is left out on a GPU before there is momentum makes it begin at 0: it matters with
    dampening alone, which the first one is spared otherwise.)  Parameters in float64, or with gaps, have no such
    kernels, and the host waits to know.

    Args:
        init_scale: the first scale, above 0.
        growth_factor: above 1.
        backoff_factor: between 0 and 1.
        growth_interval: steps in a row, at least 1; None for a static scale, which neither grows nor backs off.
        enabled: False makes `scale` and `unscale_` do nothing, and `step` a plain step.

    Raises:
        ValueError: a number out of range.
        TypeError: a `growth_interval` that is no whole number.

    Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2; names and numbers are
    torch.amp.GradScaler's.

    >>> import pycnn
    >>> p = pycnn.ones(1, requires_grad=True)
    >>> sgd, scaler = pycnn.optim.SGD([p], lr=0.5), GradScaler(init_scale=8.0)
    >>> scaler.scale((p * 2).sum()).backward()
    >>> p.grad.item()
    16.0
    >>> scaler.step(sgd)
    >>> scaler.update()
    >>> p.item(), scaler.get_scale()
    (0.0, 8.0)
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int | None = 2000,
        enabled: bool = True,
    ) -> None:
        self._enabled = bool(enabled)
        self._check_scale("init_scale", init_scale)
        self._set_rule(growth_factor, backoff_factor, growth_interval)
        self._place = "cpu"
        self._put(float(init_scale), 0)
        self._stages: dict[int, str] = {}  # by optimiser, since the last update: "unscaled" or "stepped"
        self._founds: weakref.WeakKeyDictionary[Optimizer, Array] = weakref.WeakKeyDictionary()
        self._seen: list[Optimizer] = []  # since the last update

    # ------------------------------------------------------------------------------------------------ the four calls

    def scale(self, outputs: T) -> T:
        """The loss, or several in a list or tuple, times the scale; a loss of 16 bits becomes float32.

        Raises TypeError for something that is neither.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._follow(outputs.data)
            wide = outputs.to(np.float32) if is_half(outputs.data) else outputs
            return (wide * self._scale).to(wide.dtype)  # type: ignore[return-value]
        if isinstance(outputs, (list, tuple)):
            return type(outputs)([self.scale(one) for one in outputs])
        raise TypeError(f"outputs must be a Tensor, or a list or tuple of them, got {type(outputs).__name__}")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimiser's parameters by the scale now, as clipping them before `step` asks.

        Gradients of 16 bits come back in float32, which holds what they are divided to.

        Raises:
            RuntimeError: done already since the last `update`, or after `step`.
            ValueError: gradients on several devices.
        """
        if not self._enabled:
            return
        stage = self._stages.get(id(optimizer))
        if stage is not None:
            done = "unscale_() has been called for this optimiser" if stage == "unscaled" else "it has stepped"
            raise RuntimeError(f"{done} since the last update()")
        gradients = self._gradients(optimizer)
        self._look(optimizer, gradients, True)
        self._stages[id(optimizer)] = "unscaled"

    def step(self, optimizer: Optimizer) -> Any:
        """Step an optimiser whose gradients were scaled, unless one of them is not finite.

        Returns:
            what the optimiser's own `step` returned; None where it was left out by the host.

        Raises:
            RuntimeError: it has stepped already since the last `update`.
            ValueError: gradients on several devices.
        """
        if not self._enabled:
            return optimizer.step()
        stage = self._stages.get(id(optimizer))
        if stage == "stepped":
            raise RuntimeError("step() has been called for this optimiser since the last update()")
        gradients = self._gradients(optimizer)
        if self._place != "cpu" and all(map(is_fused, _with_gradients(optimizer))):
            if stage is None:
                self._look(optimizer, gradients, False)
            scale = self._scale.data if stage is None else None
            result = optimizer.step_unless(Scaling(scale, self._founds[optimizer]))
        else:
            if stage is None:
                self._look(optimizer, gradients, True)
            result = None if float(to_host(self._founds[optimizer])) else optimizer.step()
        self._stages[id(optimizer)] = "stepped"
        return result

    def update(self, new_scale: float | None = None) -> None:
        """Move the scale as the steps since the last update went.

        Args:
            new_scale: set it to this instead.

        Raises:
            RuntimeError: no gradients were looked at since the last update.
            ValueError: a scale that is not above 0 and finite.
        """
        if not self._enabled:
            return
        if new_scale is None and not self._seen:
            raise RuntimeError("update() comes after step() or unscale_(): no gradients were looked at since the last")
        founds = [self._founds[optimizer] for optimizer in self._seen]
        if new_scale is not None:
            self._check_scale("new_scale", new_scale)
            self._scale.data[...] = new_scale
            for found in founds:
                found[...] = 0
        elif self._place == "cpu":
            self._next_scale(founds)
        else:
            scale = self._scale.data
            interval = self._growth_interval or 0
            host_of(scale).next_scale(founds, scale, self._steady, self._growth, self._backoff, interval)
        changed(self._scale)
        self._seen = []
        self._stages.clear()

    # ----------------------------------------------------------------------------------------------- what it remembers

    def get_scale(self) -> float:
        """The scale; 1.0 if not enabled.  On a GPU it waits for what was started."""
        return float(to_host(self._scale.data)) if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale, rule and count in plain numbers, as PyTorch names them; empty if not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth,
            "backoff_factor": self._backoff,
            "growth_interval": self._growth_interval,
            "_growth_tracker": int(to_host(self._steady)),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            RuntimeError: the state of one that was not enabled.
            ValueError: a number out of range.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("the state is empty: it was saved by a GradScaler that was not enabled")
        self._check_scale("scale", state_dict["scale"])
        steady = whole("_growth_tracker", state_dict["_growth_tracker"], 0)
        self._set_rule(state_dict["growth_factor"], state_dict["backoff_factor"], state_dict["growth_interval"])
        self._scale.data[...] = state_dict["scale"]
        self._steady[...] = steady
        changed(self._scale)

    def __repr__(self) -> str:
        if not self._enabled:
            return "GradScaler(enabled=False)"
        grown = f"growth_factor={self._growth}, backoff_factor={self._backoff}, "
        return f"GradScaler({grown}growth_interval={self._growth_interval}, on {self._place})"

    # ---------------------------------------------------------------------------------------------------- how it works

    def _set_rule(self, growth: float, backoff: float, interval: int | None) -> None:
        if not 1 < growth < math.inf:
            raise ValueError(f"growth_factor must be above 1 and finite, got {growth}")
        if not 0 < backoff < 1:
            raise ValueError(f"backoff_factor must lie between 0 and 1, got {backoff}")
        self._growth, self._backoff = float(growth), float(backoff)
        self._growth_interval = None if interval is None else whole("growth_interval", interval, 1)

    def _check_scale(self, name: str, scale: float) -> None:
        with np.errstate(over="ignore"):
            rounded = np.float32(scale)
        if not 0 < rounded < math.inf:
            raise ValueError(f"{name} must be above 0 and finite in float32, got {scale}")

    def _put(self, scale: float, steady: int) -> None:
        """Scale and count in memory of their own at `self._place`."""
        self._scale = graph.wrap(place(np.array(scale, np.float32), self._place))
        self._steady = place(np.array(steady, np.int64), self._place)

    def _follow(self, like: Array) -> None:
        """Be where the losses are.  Raises ValueError where that changes between the look at gradients and `update`."""
        device = device_of(like)
        if device != self._place:
            if self._seen:
                raise ValueError(
                    "between two updates a GradScaler's losses and gradients must be on one device, got "
                    f"{device} after {self._place}"
                )
            scale, steady = self.get_scale(), int(to_host(self._steady))
            self._place = device
            self._put(scale, steady)
            self._founds.clear()

    def _gradients(self, optimizer: Optimizer) -> list[Array]:
        """The arrays of the gradients, those of 16 bits widened."""
        parameters = _with_gradients(optimizer)
        places = {parameter.grad.device for parameter in parameters}
        if len(places) > 1:
            raise ValueError(f"the gradients of an optimiser must be on one device, got {', '.join(sorted(places))}")
        for parameter in parameters:
            self._follow(parameter.grad.data)
            if is_half(parameter.grad.data):
                parameter.grad = graph.wrap(cast(parameter.grad.data, np.float32))
        return [parameter.grad.data for parameter in parameters]

    def _look(self, optimizer: Optimizer, gradients: list[Array], write: bool) -> None:
        """Find out whether the gradients divided by the scale are finite; with `write`, divide them."""
        found = self._founds.get(optimizer)
        if found is None:
            found = self._founds[optimizer] = place(np.zeros((), np.float32), self._place)
        if optimizer not in self._seen:
            self._seen.append(optimizer)
        if len(self._seen) > _MOST_OPTIMIZERS:
            raise ValueError(f"a GradScaler takes {_MOST_OPTIMIZERS} optimisers between two updates at most")
        scale = self._scale.data
        if self._place == "cpu":
            inverse = np.float32(1) / scale
            for gradient in gradients:
                if not _divide(gradient, inverse):
                    found[...] = 1
        else:
            dense: list[Array] = []
            for gradient in gradients:
                if gradient.dtype == np.float32 and is_dense(gradient):
                    dense.append(gradient)
                else:
                    self._look_by_arithmetic(gradient, found, write)
            host_of(scale).unscale_gradients(dense, scale, found, write)
        if write:
            for parameter in _with_gradients(optimizer):
                changed(parameter.grad)

    def _look_by_arithmetic(self, gradient: Array, found: Array, write: bool) -> None:
        divided = gradient * (1 / self._scale.data).astype(gradient.dtype)
        finite = abs(divided) <= np.finfo(gradient.dtype).max
        found[...] = 1 - (1 - found) * finite.all()
        if write:
            gradient[...] = divided

    def _next_scale(self, founds: list[Array]) -> None:
        """As `next_scale` of kernels/optimizer.cu."""
        any_found = any(float(found) for found in founds)
        for found in founds:
            found[...] = 0
        interval = self._growth_interval
        if interval is None:
            return
        steady = 0 if any_found else int(self._steady) + 1
        grows = steady == interval
        if any_found or grows:
            with np.errstate(over="ignore"):
                scale = np.float32(float(self._scale.data) * (self._backoff if any_found else self._growth))
            if any_found or np.isfinite(scale):
                self._scale.data[...] = scale
        self._steady[...] = 0 if grows else steady


def _with_gradients(optimizer: Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _divide(gradient: Array, inverse: Any) -> bool:
    """Multiply in place; whether all of it is finite then."""
    finite = True
    for (part,) in blocks(gradient):
        with np.errstate(over="ignore", invalid="ignore"):
            part *= inverse
        finite = finite and bool(np.isfinite(part).all())
    return finite
