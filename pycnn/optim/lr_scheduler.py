"""Learning-rate schedules, with PyTorch's names and values.

A schedule sets every group's `lr` from the group's first `lr` (kept as ``initial_lr``) and the number of steps taken,
in closed form: so the rate at a step does not depend on how it was reached, and a resumed run has the same.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pycnn.optim.optimizer import Optimizer
from pycnn.shape import whole

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]


class LRScheduler:
    """Base of the schedules: after construction the rates are those of step 0; call `step` once an epoch (or step).

    Attributes:
        last_epoch: how often `step` was called.
        base_lrs: each group's rate before any schedule.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self._set()

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        """The rate after `epoch` steps of a group that began with `base_lr`."""
        raise NotImplementedError(f"{type(self).__name__} has no lr_at")

    def step(self) -> None:
        """Go on to the next rate."""
        self.last_epoch += 1
        self._set()

    def _set(self) -> None:
        for i, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            group["lr"] = self.lr_at(self.last_epoch, base, i)

    def get_last_lr(self) -> list[float]:
        """The rates now, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; its settings are the constructor's business."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where `state_dict` stood, and set the rates."""
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"the saved schedule has {len(state_dict['base_lrs'])} groups, this optimiser {len(self.base_lrs)}"
            )
        self.last_epoch = whole("last_epoch", state_dict["last_epoch"], 0)
        self.base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        self._set()


class LambdaLR(LRScheduler):
    """base * f(epoch); `lr_lambda` is one function, or one a group.

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.LambdaLR(sgd, lambda epoch: 1 / (1 + epoch))
    >>> for _ in range(3):
    ...     schedule.step()
    >>> round(sgd.param_groups[0]["lr"], 6)
    0.25
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"lr_lambda must be one function or {groups}, one a group, got {len(self.lr_lambdas)}")
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        return base_lr * self.lr_lambdas[group](epoch)


class StepLR(LRScheduler):
    """base * gamma^(epoch // step_size).

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.StepLR(sgd, 2)
    >>> for _ in range(3):
    ...     schedule.step()
    >>> round(sgd.param_groups[0]["lr"], 6)
    0.1
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = whole("step_size", step_size, 1)
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        return base_lr * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """base * gamma^(number of milestones reached).

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.MultiStepLR(sgd, [1, 3])
    >>> for _ in range(3):
    ...     schedule.step()
    >>> round(sgd.param_groups[0]["lr"], 6)
    0.01
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(whole("milestones", milestone, 0) for milestone in milestones)
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        return base_lr * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """base * gamma^epoch.

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.ExponentialLR(sgd, 0.5)
    >>> for _ in range(3):
    ...     schedule.step()
    >>> round(sgd.param_groups[0]["lr"], 6)
    0.125
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        return base_lr * self.gamma**epoch


class CosineAnnealingLR(LRScheduler):
    """eta_min + (base - eta_min) * (1 + cos(pi * epoch / T_max)) / 2.

    Reference: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5.

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.CosineAnnealingLR(sgd, 4)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> round(sgd.param_groups[0]["lr"], 6)
    0.5
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = whole("T_max", T_max, 1)
        self.eta_min = eta_min
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2


class LinearLR(LRScheduler):
    """From base * start_factor to base * end_factor in `total_iters` steps, then level: a warm-up.

    Reference: Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.LinearLR(sgd, 0.2, total_iters=4)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> round(sgd.param_groups[0]["lr"], 6)
    0.6
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"start_factor must be above 0 and at most 1, end_factor from 0 to 1, got {start_factor}, {end_factor}"
            )
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = whole("total_iters", total_iters, 1)
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class SequentialLR(LRScheduler):
    """One schedule after another; schedule i+1 begins, at its step 0, at milestone i.

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> warm_up, cosine = optim.LinearLR(sgd, 0.1, total_iters=5), optim.CosineAnnealingLR(sgd, 95)
    >>> optim.SequentialLR(sgd, [warm_up, cosine], [5]).get_last_lr()
    [0.010000000000000002]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        if len(schedulers) != len(milestones) + 1:
            raise ValueError(
                f"milestones must be one fewer than schedulers, got {len(milestones)} for {len(schedulers)}"
            )
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones must ascend, got {list(milestones)}")
        if any(scheduler.optimizer is not optimizer for scheduler in schedulers):
            raise ValueError("all schedulers must belong to the given optimizer")
        self.schedulers = list(schedulers)
        self.milestones = [whole("milestones", milestone, 1) for milestone in milestones]
        super().__init__(optimizer)

    def lr_at(self, epoch: int, base_lr: float, group: int) -> float:
        i = bisect_right(self.milestones, epoch)
        return self.schedulers[i].lr_at(epoch - ([0, *self.milestones][i]), base_lr, group)


class ReduceLROnPlateau:
    """Multiply the rates by `factor` when a metric has not improved for `patience` steps.

    Args:
        optimizer: whose rates to set.
        mode: "min" if a smaller metric is better, else "max".
        factor: below 1.
        patience: how many steps without improvement to bear.
        threshold, threshold_mode: an improvement is better than best * (1 -+ threshold) ("rel") or best -+ threshold
            ("abs").
        cooldown: steps after a reduction in which none is counted as bad.
        min_lr: no rate falls below it.
        eps: a change smaller than this is not made.

    Raises:
        ValueError: a factor of 1 or more, or an unknown mode.

    >>> from pycnn import nn, optim
    >>> sgd = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    >>> schedule = optim.ReduceLROnPlateau(sgd, patience=1)
    >>> for loss in (1.0, 1.0, 1.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1:
            raise ValueError(f"factor must be below 1, got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode must be 'rel' or 'abs', got {threshold_mode!r}")
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metric: Any) -> None:
        """Look at the metric of one more epoch; a NaN is no improvement."""
        value = float(metric)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                lr = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lr > self.eps:
                    group["lr"] = lr
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "abs":
            return sign * value < sign * self.best - self.threshold
        return sign * value < sign * self.best * (1.0 - sign * self.threshold)

    def get_last_lr(self) -> list[float]:
        """The rates now, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands."""
        names = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where `state_dict` stood; the rates themselves are the optimiser's state."""
        self.best = float(state_dict["best"])
        self.num_bad_epochs = int(state_dict["num_bad_epochs"])
        self.cooldown_counter = int(state_dict["cooldown_counter"])
        self.last_epoch = int(state_dict["last_epoch"])
