"""GPUs: which there are, and whole steps as one CUDA graph.

A network of many small kernels spends more time in its host code than on the GPU.  `capture` runs a step a few times,
writes down what it starts, and from then on starts all of that with one call.

>>> import numpy as np, pycnn
>>> net = pycnn.models.resnet20().cuda()                                              # doctest: +SKIP
>>> optimizer = pycnn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)               # doctest: +SKIP
>>> @pycnn.cuda.capture                                                               # doctest: +SKIP
... def step(images, labels):
...     loss = pycnn.cross_entropy(net(images), labels)
...     optimizer.zero_grad()
...     loss.backward()
...     optimizer.step()
...     return loss
>>> for images, labels in loader:                                                     # doctest: +SKIP
...     print(step(images, labels).item())
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from pycnn import backends, graph
from pycnn.arrays import beside, is_array, parse_device
from pycnn.backends.replay import CaptureError, Replay
from pycnn.graph import Variable
from pycnn.jit.errors import MissingToolError
from pycnn.memory_format import new_array, wants_channels_last

__all__ = ["CaptureError", "Captured", "capture", "device", "device_count", "is_available", "synchronize"]

_MOST_WARM = 8  # runs after which a step that still takes more memory will not stop to


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy or a driver.

    >>> device_count() >= 0
    True
    """
    try:
        return backends.get("cuda").device_count()
    except MissingToolError:
        return 0


def is_available() -> bool:
    """Whether there is a GPU to run on."""
    return device_count() > 0


def device(number: int) -> Any:
    """A context in which GPU `number` is the current one: CuPy's ``cupy.cuda.Device``.

    Operators run where their arrays are.  Arithmetic on the arrays of another GPU than the current one is CuPy's, and
    needs this around it.
    """
    return backends.get("cuda").within(number)


def synchronize(number: int | None = None) -> None:
    """Wait for all that was started in the current stream of a GPU, the current one if not said."""
    backends.get("cuda").host_on(number).device.sync()


def capture(step: Callable[..., Any], *, device: str = "cuda") -> Captured:
    """Make a function whose calls replay `step` as one CUDA graph.

    Each call is one step.  The first ones, for each combination of input shapes and layouts, run `step` as it is, in a
    stream of their own: until one of them needed no more memory than the one before.  The next is captured, and from
    then on a call copies its inputs into the graph's own arrays and starts the graph.

    What `step` computes on the GPU is replayed; what it does in Python is not.  pycnn's optimisers read learning rate
    and step count, and dropout its place in the random stream, from device memory that is brought up to date before
    each replay, so replays are what eager steps would have been, bit for bit.  Other numbers of the host's are as they
    were when the step was captured.

    Args:
        step: takes Tensors (for what is given as a Tensor), CuPy arrays (for NumPy's and CuPy's), lists, tuples and
            dicts of them, and other hashable values, which are part of what was captured; returns such a structure.
        device: the GPU.

    Returns:
        the function.  Its results lie in the graph's memory and are written over by the next call: copy what must stay.
        All calls belong in one stream, for inputs are written in the current one.

    Raises (when called):
        CaptureError: while it is captured, a step allocates memory it did not need before, loads a kernel, or waits for
            the GPU (``.item()``, ``.numpy()``, `bool` of a tensor).
        ValueError: an input that requires a gradient, or a device that is no GPU.
        TypeError: an input that is neither an array nor hashable.
        MissingToolError: no CuPy, no driver or no GPU.
    """
    return Captured(step, device)


class Captured:
    """What `capture` returns: call it.

    Attributes:
        graphs: how many graphs were captured so far, one for each combination of input shapes.
    """

    def __init__(self, step: Callable[..., Any], device: str) -> None:
        if not callable(step):
            raise TypeError(f"step must be a function, got {type(step).__name__}")
        functools.update_wrapper(self, step)
        self._step = step
        self._device = device
        self._runs: dict[Any, _Run] = {}

    @property
    def graphs(self) -> int:
        """Graphs captured so far."""
        return sum(run.ready for run in self._runs.values())

    def __call__(self, *args: Any, **options: Any) -> Any:
        """One step."""
        leaves: list[Any] = []
        key = _flatten((args, options), leaves)
        run = self._runs.get(key)
        if run is not None and run.replay.stale:
            run = None
        if run is None:
            host = backends.get("cuda").host_on(_number_of(self._device))
            run = self._runs[key] = _Run(self._step, host, leaves)
        return run(args, options, leaves)


class _Run:
    """A step with inputs of one shape: run, then captured, then replayed."""

    def __init__(self, step: Callable[..., Any], host: Any, leaves: list[Any]) -> None:
        self._step, self._host = step, host
        self._buffers = [
            new_array(host.device.alloc, leaf.shape, leaf.dtype, wants_channels_last(leaf))
            for leaf in map(_array, leaves)
        ]
        self._recorder = host.device.recorder()
        self.replay = Replay(host)
        self.ready = False
        self._warm = 0
        self._quiet = False
        self._result: Any = None

    def __call__(self, args: Any, options: Any, leaves: list[Any]) -> Any:
        for buffer, leaf in zip(self._buffers, leaves, strict=True):
            self._host.device.fill(buffer, beside(_array(leaf), buffer))
        if not self.ready:
            if not self._quiet:
                return self._run(args, options)
            self._record(args, options)
        self.replay.before()
        self._recorder.replay()
        self.replay.after()
        return self._result

    def _run(self, args: Any, options: Any) -> Any:
        if self._warm == _MOST_WARM:
            raise CaptureError(
                f"{_name(self._step)} took more memory in each of {_MOST_WARM} runs, so it cannot be captured: does it "
                "keep what it computes?"
            )
        self._warm += 1
        self.replay.before()
        result, taken = self._recorder.run(lambda: self._call(args, options))
        self._quiet = taken == 0 and self._warm > 1
        return result

    def _record(self, args: Any, options: Any) -> None:
        self.replay.before()
        self._result = self._recorder.record(lambda: self._call(args, options))
        self.replay.recorded()
        self.ready = True

    def _call(self, args: Any, options: Any) -> Any:
        given, named = _rebuilt((args, options), iter(self._buffers))
        with self.replay.step():
            return _detached(self._step(*given, **named))


def _number_of(device: str) -> int:
    name, _, number = parse_device(device).partition(":")
    if name != "cuda":
        raise ValueError(f'device must be a GPU, "cuda" or "cuda:N", got {device!r}')
    return int(number)


def _name(step: Callable[..., Any]) -> str:
    return getattr(step, "__name__", "the step")


def _array(leaf: Any) -> Any:
    return leaf._data if isinstance(leaf, Variable) else leaf


def _flatten(value: Any, leaves: list[Any]) -> Any:
    """What makes two calls alike; the arrays go to `leaves`."""
    if isinstance(value, Variable) or is_array(value):
        if isinstance(value, Variable) and value._requires_grad:
            raise ValueError("an input of a captured step cannot require a gradient; parameters are no inputs")
        leaves.append(value)
        array = _array(value)
        return (isinstance(value, Variable), tuple(array.shape), str(array.dtype), wants_channels_last(array))
    if isinstance(value, (tuple, list)):
        return (type(value), *[_flatten(one, leaves) for one in value])
    if isinstance(value, dict):
        return (dict, *[(name, _flatten(one, leaves)) for name, one in value.items()])
    if not isinstance(value, Hashable):
        raise TypeError(f"an input of a captured step must be an array or hashable, got {type(value).__name__}")
    return (type(value), value)


def _rebuilt(value: Any, buffers: Any) -> Any:
    """`value` with the graph's own arrays in place of the caller's."""
    if isinstance(value, Variable):
        return graph.wrap(next(buffers))
    if is_array(value):
        return next(buffers)
    if isinstance(value, (tuple, list)):
        return _sequence(type(value), [_rebuilt(one, buffers) for one in value])
    if isinstance(value, dict):
        return {name: _rebuilt(one, buffers) for name, one in value.items()}
    return value


def _sequence(kind: Any, parts: list[Any]) -> Any:
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)  # named tuples take them one by one


def _detached(value: Any) -> Any:
    if isinstance(value, Variable):
        return graph.wrap(value._data)
    if isinstance(value, (tuple, list)):
        return _sequence(type(value), [_detached(one) for one in value])
    if isinstance(value, dict):
        return {name: _detached(one) for name, one in value.items()}
    return value
