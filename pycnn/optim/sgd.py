"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from pycnn.arrays import module_of
from pycnn.backends.cpu import optim as cpu
from pycnn.memory_format import new_array, wants_channels_last
from pycnn.optim._device import host_of
from pycnn.optim.optimizer import Optimizer, blocks

__all__ = ["SGD"]


class SGD(Optimizer):
    """Gradient descent with momentum, as torch.optim.SGD.

        d = g + weight_decay * p
        v = momentum * v + (1 - dampening) * d          (v = d at the first step)
        p = p - lr * v                                  (nesterov: p - lr * (d + momentum * v))

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        momentum, dampening, weight_decay: as in the equations.
        nesterov: look ahead; needs momentum and no dampening.

    Raises:
        ValueError: a negative setting, or nesterov without momentum or with dampening.

    Reference: Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.

    >>> from pycnn import nn, optim
    >>> optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9).param_groups[0]["lr"]
    0.1
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        if settings["nesterov"] and (not settings["momentum"] or settings["dampening"]):
            raise ValueError("nesterov needs a momentum and no dampening")

    def _numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        from pycnn.backends.cuda.optim import sgd_settings

        names = ("lr", "momentum", "dampening", "weight_decay")
        return sgd_settings(*(float(group[name]) for name in names))

    def _update_together(
        self, parameters: list[Any], states: list[dict[str, Any]], group: dict[str, Any], settings: Any
    ) -> None:
        host, nesterov = host_of(settings), bool(group["nesterov"])
        for params, grads, buffers, first in _lists(parameters, states, bool(group["momentum"]), host.device.alloc):
            if first and buffers is not None and self._scaling.found is not None:
                for buffer in buffers:  # the GPU may leave this step out, and the next one finds them as they are
                    host.device.fill(buffer, 0.0)
            host.sgd_step(params, grads, buffers, settings, nesterov, first, *self._scaling)

    def _update_list(self, parameters: list[Any], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        numbers: dict[str, Any] = {name: float(group[name]) for name in ("lr", "momentum", "dampening", "weight_decay")}
        for params, grads, buffers, first in _lists(parameters, states, bool(group["momentum"]), np.empty):
            cpu.sgd_step(params, grads, buffers, **numbers, nesterov=bool(group["nesterov"]), first=first)

    def _update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, momentum, decay = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        fresh, nesterov = 1.0 - float(group["dampening"]), group["nesterov"]
        xp = module_of(p)
        first = bool(momentum) and "momentum_buffer" not in state
        if first:
            state["momentum_buffer"] = xp.empty_like(p, order="C")
        arrays = (p, g, state["momentum_buffer"]) if momentum else (p, g)
        for parts in blocks(*arrays):
            p_part, d = parts[0], parts[1]
            scratch = xp.empty_like(p_part)
            if decay:
                d = xp.multiply(p_part, decay, out=xp.empty_like(p_part))
                d += parts[1]
            if momentum:
                v = parts[2]
                if first:
                    v[...] = d
                else:
                    v *= momentum
                    v += d if fresh == 1.0 else xp.multiply(d, fresh, out=scratch)
                if nesterov:
                    xp.multiply(v, momentum, out=scratch)
                    scratch += d
                    d = scratch
                else:
                    d = v
            p_part -= xp.multiply(d, lr, out=scratch)


def _lists(
    parameters: list[Any], states: list[dict[str, Any]], momentum: bool, alloc: Callable[[Any, Any], Any]
) -> Iterator[tuple[list[Any], list[Any], list[Any] | None, bool]]:
    """What one kernel steps: parameters, gradients, buffers of momentum if any, whether these hold nothing yet."""
    if not momentum:
        yield [p.data for p in parameters], [p.grad.data for p in parameters], None, False
        return
    fresh = [i for i, state in enumerate(states) if "momentum_buffer" not in state]
    known = [i for i, state in enumerate(states) if "momentum_buffer" in state]
    if fresh:
        arrays = [parameters[i].data for i in fresh]
        buffers = [new_array(alloc, p.shape, p.dtype, wants_channels_last(p)) for p in arrays]
        yield [parameters[i].data for i in fresh], [parameters[i].grad.data for i in fresh], buffers, True
        for i, buffer in zip(fresh, buffers, strict=True):  # once they hold something
            states[i]["momentum_buffer"] = buffer
    if known:
        buffers = [states[i]["momentum_buffer"] for i in known]
        yield [parameters[i].data for i in known], [parameters[i].grad.data for i in known], buffers, False
