"""`Optimizer`: parameter groups, per-parameter state, and the loop over blocks that keeps an update in cache.

A parameter of 16 bits has a master copy in float32, which is what is stepped; the parameter is that copy, rounded.
Most steps are smaller than the distance between two numbers of 16 bits, and would be lost without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from pycnn import backends
from pycnn.arrays import beside, is_array, is_half, is_host
from pycnn.backends.replay import active
from pycnn.optim import _device
from pycnn.tensor import Tensor

__all__ = ["Optimizer", "blocks"]

# Elements that one NumPy call works on: four float32 arrays of this length are 256 KiB, which stays in a second-level
# cache, so an update of several calls reads and writes main memory once.
BLOCK = 16384


class Optimizer:
    """Base of the optimisers.

    Of each float16 or bfloat16 parameter it keeps a float32 copy, ``state[parameter]["master"]``, and all else that it
    remembers is float32 too.  Where such a parameter was written to by someone else, the copy follows it.

    Args:
        params: parameters, or (name, parameter) pairs, or dicts with "params" and settings of their own for that group.
        defaults: settings of a group that does not say otherwise.

    Attributes:
        param_groups: list of dicts, "params" and the settings; schedules and users change `lr` in it.
        state: dict by parameter of what the optimiser remembers, arrays and numbers by name.

    Raises:
        ValueError: no parameters, or a parameter given twice.
        TypeError: something that is no Tensor.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of parameters, got a single Tensor")
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._settings: dict[tuple[str, int], _device.Settings] = {}
        self._scaling = _device.Scaling()
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ValueError("params is empty: there is nothing to optimise")
        for group in groups if isinstance(groups[0], Mapping) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimise more parameters: a dict with "params" and settings that differ from the defaults."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f'a parameter group must be a dict with "params", got {group!r:.60}')
        given = group["params"]
        tensors = [given] if isinstance(given, Tensor) else [p[1] if isinstance(p, tuple) else p for p in given]
        known = {id(p) for old in self.param_groups for p in old["params"]}
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"an optimiser takes Tensors, got {type(tensor).__name__}")
            if id(tensor) in known:
                raise ValueError(f"a parameter of shape {tuple(tensor.shape)} is given twice")
            known.add(id(tensor))
        settings = {**self.defaults, **{key: value for key, value in group.items() if key != "params"}}
        self._check(settings)
        self.param_groups.append({"params": tensors, **settings})

    def _check(self, settings: dict[str, Any]) -> None:
        """Raise ValueError for a setting out of range."""
        for name in ("lr", "weight_decay", "eps", "momentum"):
            if name in settings and not settings[name] >= 0:
                raise ValueError(f"{name} must be at least 0, got {settings[name]!r}")

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: if given, called first to compute the loss and its gradients.

        Returns:
            what `closure` returned, or None.
        """
        loss = None if closure is None else closure()
        for number, group in enumerate(self.param_groups):
            together: dict[str, list[Tensor]] = {}
            native = backends.selected() in (None, "cpu")
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if _device.is_fused(parameter) and (native or not is_host(parameter.data)):
                    together.setdefault(parameter.device, []).append(parameter)
                    continue
                _device.expect_not_captured(parameter.data)
                state = self.state.setdefault(parameter, {})
                (stepped,) = _device.masters([parameter], [state])
                self._update(stepped.data, stepped.grad.data, state, group)
                _device.write_back([stepped], [parameter])
            for device, chosen_here in together.items():
                states = [self.state.setdefault(parameter, {}) for parameter in chosen_here]
                _device.follow(states, chosen_here)
                parameters = _device.masters(chosen_here, states)
                if device == "cpu":
                    for chosen in _apart([parameter.data for parameter in parameters]):
                        self._update_list([parameters[i] for i in chosen], [states[i] for i in chosen], group)
                else:
                    settings = self._settings_on(device, number, parameters[0].data)
                    self._update_together(parameters, states, group, settings)
                _device.write_back(parameters, chosen_here)
        return loss

    def step_unless(self, scaling: _device.Scaling) -> Any:
        """`step` on a GPU as `scaling` says, which its kernels read there: see `pycnn.amp.GradScaler`."""
        self._scaling = scaling
        try:
            return self.step()
        finally:
            self._scaling = _device.Scaling()

    def _settings_on(self, device: str, number: int, like: Any) -> Any:
        """The settings of group `number` in a GPU's memory, as `_numbers` lists them; kept up to date for replays."""
        settings = self._settings.get((device, number))
        if settings is None:
            values = self._numbers(self.param_groups[number])
            settings = self._settings[device, number] = _device.Settings(like, values)

        def update() -> None:
            settings.update(self._numbers(self.param_groups[number]))

        replay = active()
        if replay is not None:
            replay.refresh(settings, update)
        update()
        return settings.array

    def _update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Update the array `p` in place from its gradient `g`."""
        raise NotImplementedError(f"{type(self).__name__} has no _update")

    def _update_list(self, parameters: list[Any], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        """Update dense float32 arrays in main memory: one by one, where a subclass has nothing faster."""
        for parameter, state in zip(parameters, states, strict=True):
            self._update(parameter.data, parameter.grad.data, state, group)

    def _numbers(self, group: dict[str, Any]) -> tuple[float, ...]:
        """The settings of a group as the CUDA kernel takes them."""
        raise NotImplementedError(f"{type(self).__name__} has no _numbers")

    def _update_together(
        self, parameters: list[Any], states: list[dict[str, Any]], group: dict[str, Any], settings: Any
    ) -> None:
        """Update dense float32 arrays of one GPU, `settings` being `_numbers` in its memory."""
        raise NotImplementedError(f"{type(self).__name__} has no _update_together")

    def state_dict(self) -> dict[str, Any]:
        """State and settings in plain containers, parameters numbered in order, as PyTorch lays it out.

        The arrays are the optimiser's own; copy what must stay.
        """
        numbers = {id(p): i for i, p in enumerate(self._parameters())}
        return {
            "state": {numbers[id(p)]: _plain(values) for p, values in self.state.items()},
            "param_groups": [
                {**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` saved; arrays are copied, in each parameter's dtype or, for 16 bits, float32.

        Raises ValueError, with nothing changed, if the groups or an array's shape do not fit.
        """
        saved = state_dict["param_groups"]
        sizes, own_sizes = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if sizes != own_sizes:
            raise ValueError(f"the saved optimiser has groups of {sizes} parameters, this one of {own_sizes}")
        parameters = list(self._parameters())
        order = [number for group in saved for number in group["params"]]
        by_number = dict(zip(order, parameters, strict=True))
        state: dict[Tensor, dict[str, Any]] = {}
        for number, values in state_dict["state"].items():
            parameter = by_number.get(int(number))
            if parameter is None:
                raise ValueError(f"the saved optimiser has state for parameter {number}, which no group names")
            state[parameter] = {name: _fitting(name, value, parameter) for name, value in values.items()}
        self.state = state
        for group, old in zip(self.param_groups, saved, strict=True):
            group.update({key: value for key, value in old.items() if key != "params"})

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def __repr__(self) -> str:
        groups = [
            ", ".join(f"{key}={value}" for key, value in group.items() if key != "params")
            + f", {len(group['params'])} parameters"
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(groups)})"


def _apart(arrays: list[np.ndarray[Any, Any]]) -> list[list[int]]:
    """Positions of arrays in lists of which none has two that share memory: most in the first, the others alone."""
    starts = [array.__array_interface__["data"][0] for array in arrays]
    together: list[int] = []
    alone: list[int] = []
    end = 0
    for i in sorted(range(len(arrays)), key=starts.__getitem__):
        (alone if starts[i] < end else together).append(i)
        end = max(end, starts[i] + arrays[i].nbytes)
    return [sorted(together), *([i] for i in alone)]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """A parameter's state with its step count as a number, wherever it is counted."""
    return {name: int(value) if name == "step" else value for name, value in values.items()}


def _fitting(name: str, value: Any, parameter: Tensor) -> Any:
    if isinstance(value, (int, float)) or value is None:
        return value
    array = value if is_array(value) else np.asarray(value)
    dtype = np.float32 if is_half(parameter.data) else parameter.data.dtype
    array = beside(array, parameter.data).astype(dtype, order="C", copy=True)
    if array.shape != tuple(parameter.shape):
        raise ValueError(f"saved {name} has shape {array.shape}, its parameter {tuple(parameter.shape)}")
    return array


def blocks(*arrays: Any) -> Iterator[list[Any]]:
    """Matching flat views of `arrays` (one shape), block by block; whole arrays where one is not C-contiguous.

    >>> [[part.size for part in parts] for parts in blocks(np.zeros((3, 10000)), np.ones((3, 10000)))]
    [[16384, 16384], [13616, 13616]]
    """
    size = arrays[0].size
    if size <= BLOCK or not all(isinstance(a, np.ndarray) and a.flags.c_contiguous for a in arrays):
        yield list(arrays)
        return
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, size, BLOCK):
        yield [a[start : start + BLOCK] for a in flat]
