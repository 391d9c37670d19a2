"""Adam, and AdamW with weight decay decoupled from the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pycnn.arrays import module_of
from pycnn.backends.cpu import optim as cpu
from pycnn.memory_format import new_array, wants_channels_last
from pycnn.optim._device import host_of, shared_steps
from pycnn.optim.optimizer import Optimizer, blocks

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam, as torch.optim.Adam.

        g = g + weight_decay * p
        m = b1 * m + (1 - b1) * g                       v = b2 * v + (1 - b2) * g^2
        p = p - lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: (b1, b2), each at least 0 and below 1.
        eps: added to the denominator.
        weight_decay: as in the equations.

    Raises:
        ValueError: a setting out of range.

    Reference: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.

    >>> import pycnn
    >>> p = pycnn.ones(1, requires_grad=True)
    >>> adam = pycnn.optim.Adam([p], lr=0.1)
    >>> (3 * p).sum().backward()
    >>> adam.step()
    >>> round(p.item(), 4)
    0.9
    """

    _decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        if len(settings["betas"]) != 2 or not all(0 <= beta < 1 for beta in settings["betas"]):
            raise ValueError(f"betas must be two numbers from 0 to below 1, got {settings['betas']!r}")

    def _numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        from pycnn.backends.cuda.optim import adam_settings

        b1, b2 = map(float, group["betas"])
        return adam_settings(float(group["lr"]), (b1, b2), float(group["eps"]), float(group["weight_decay"]))

    def _update_together(
        self, parameters: list[Any], states: list[dict[str, Any]], group: dict[str, Any], settings: Any
    ) -> None:
        host = host_of(settings)
        for parameter, state in zip(parameters, states, strict=True):
            if "step" not in state:
                _begin(state, parameter.data)
        for step, chosen in shared_steps(states, settings):
            found = self._scaling.found
            if found is None:
                host.advance(step, 1)
            else:
                host.count_step(step, found)
            params, grads = [parameters[i].data for i in chosen], [parameters[i].grad.data for i in chosen]
            moments = ([states[i][name] for i in chosen] for name in ("exp_avg", "exp_avg_sq"))
            host.adam_step(params, grads, *moments, settings, step, self._decoupled, *self._scaling)

    def _update_list(self, parameters: list[Any], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        b1, b2 = map(float, group["betas"])
        numbers: dict[str, Any] = {name: float(group[name]) for name in ("lr", "eps", "weight_decay")}
        for parameter, state in zip(parameters, states, strict=True):
            if "step" not in state:
                _begin(state, parameter.data)
        alike: dict[int, list[int]] = {}  # those that are at one step
        for i, state in enumerate(states):
            alike.setdefault(int(state["step"]) + 1, []).append(i)
        for step, chosen in alike.items():
            params, grads = [parameters[i].data for i in chosen], [parameters[i].grad.data for i in chosen]
            moments = ([states[i][name] for i in chosen] for name in ("exp_avg", "exp_avg_sq"))
            cpu.adam_step(params, grads, *moments, step=step, betas=(b1, b2), **numbers, decoupled=self._decoupled)
            for i in chosen:
                states[i]["step"] = step

    def _update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, eps, decay = float(group["lr"]), float(group["eps"]), float(group["weight_decay"])
        b1, b2 = map(float, group["betas"])
        xp = module_of(p)
        if "step" not in state:
            _begin(state, p)
        state["step"] = int(state["step"]) + 1
        step_size = lr / (1.0 - b1 ** state["step"])
        root = math.sqrt(1.0 - b2 ** state["step"])
        for p_part, d, m, v in blocks(p, g, state["exp_avg"], state["exp_avg_sq"]):
            scratch = xp.empty_like(p_part)
            if decay and self._decoupled:
                p_part *= 1.0 - lr * decay
            elif decay:
                total = xp.multiply(p_part, decay, out=xp.empty_like(p_part))
                total += d
                d = total
            xp.subtract(d, m, out=scratch)
            scratch *= 1.0 - b1
            m += scratch
            xp.multiply(d, d, out=scratch)
            scratch *= 1.0 - b2
            v *= b2
            v += scratch
            xp.sqrt(v, out=scratch)
            scratch /= root
            scratch += eps
            xp.divide(m, scratch, out=scratch)
            scratch *= step_size
            p_part -= scratch


class AdamW(Adam):
    """Adam with p = p - lr * weight_decay * p apart from the gradient, as torch.optim.AdamW.

    Args, Raises: as `Adam`.

    Reference: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def _begin(state: dict[str, Any], p: Any) -> None:
    zeros, last = module_of(p).zeros, wants_channels_last(p)
    first, second = (new_array(zeros, p.shape, p.dtype, last) for _ in range(2))
    state.update(step=0, exp_avg=first, exp_avg_sq=second)
