"""Automatic differentiation: walking back through the recorded graph.

Every node gets a number as it is made.  A node is always younger than those it depends on, so taking the youngest
node that has a gradient waiting, over and over, is a topological order: no recursion and no counting.  Gradients that
nobody needs are not computed.

Operations, and how they are recorded, are in `pycnn.graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from heapq import heappop, heappush
from sys import getrefcount
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import _cpu, random
from pycnn.arrays import copied, is_array
from pycnn.graph import (
    Function,
    Saved,
    Variable,
    active_segment,
    caster,
    detect_changes,
    enable_grad,
    grad_mode,
    is_grad_enabled,
    no_grad,
    set_debug,
    wrap,
)
from pycnn.large import add_to
from pycnn.memory_format import lie_alike, wants_channels_last

if TYPE_CHECKING:
    from pycnn.tensor import Tensor

__all__ = [
    "Function",
    "checkpoint",
    "detect_changes",
    "enable_grad",
    "grad",
    "is_grad_enabled",
    "no_grad",
    "recomputing",
    "set_debug",
]

Array = Any

_recomputing: ContextVar[bool] = ContextVar("pycnn_recomputing", default=False)


def backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor] | None = None,
) -> list[Tensor | None]:
    """Walk back from `outputs`; without `inputs`, gradients are added to the leaves, else those of `inputs` returned.

    `Tensor.backward` and `grad` check the arguments; this runs them.
    """
    pending: dict[Function, list[Tensor | None]] = {}
    waiting: list[tuple[int, Function]] = []
    sums: dict[Variable, Tensor] = {}  # leaves whose gradient is needed as a whole: inputs, and leaves with hooks
    owned: set[tuple[Function, int]] = set()  # gradients that nobody else holds, which may be added to in place
    wanted_leaves = {id(t) for t in inputs if t._node is None} if inputs is not None else None
    wanted_outputs: dict[Function, list[tuple[int, int]]] = {}
    captured: dict[int, Tensor] = {}
    leading: set[Function] | None = None
    if inputs is not None:
        for position, tensor in enumerate(inputs):
            if tensor._node is not None:
                wanted_outputs.setdefault(tensor._node, []).append((tensor._index, position))
        leading = _leading_to(outputs, wanted_leaves or set(), wanted_outputs)

    def send(target: Function | Variable, index: int, gradient: Tensor, alone: bool) -> None:
        if isinstance(target, Variable):
            if wanted_leaves is None and not target._hooks:
                _accumulate(target, gradient, alone, create_graph)
            elif wanted_leaves is None or id(target) in wanted_leaves:
                before = sums.get(target)
                sums[target] = gradient if before is None else before + gradient
            return
        slots = pending.get(target)
        if slots is None:
            slots = pending[target] = [None] * target._outputs
            heappush(waiting, (-target._number, target))
        before = slots[index]
        writable = alone and not create_graph and _is_unshared(gradient._data)
        if before is None:
            slots[index] = gradient
            if not writable:
                return
        elif (target, index) in owned and _are_alike(before._data, gradient._data):
            add_to(before._data, gradient._data)
        elif writable and _are_alike(before._data, gradient._data):
            add_to(gradient._data, before._data)
            slots[index] = gradient
        else:
            slots[index] = before + gradient
        if not create_graph:
            owned.add((target, index))

    mode = grad_mode.set(create_graph)
    casts = caster.set(None)  # in the dtypes of forward, inside an autocast block too
    try:
        for tensor, gradient in zip(outputs, gradients, strict=True):
            if tensor._requires_grad:
                send(tensor if tensor._node is None else tensor._node, tensor._index, gradient, False)
        while waiting:
            node = heappop(waiting)[1]
            dys = pending.pop(node)
            for index, hooks in node._hooks:
                if dys[index] is not None:
                    dys[index] = _call_hooks(hooks, dys[index])
            for index, position in wanted_outputs.get(node, ()):
                whole = dys[index]
                if whole is not None:
                    captured[position] = whole
            if leading is not None and node not in leading:
                continue
            recorded_needs = node.needs_input_grad
            if leading is not None:
                node.needs_input_grad = tuple(
                    [
                        edge is not None and _wanted(edge, i, leading, wanted_leaves, wanted_outputs)
                        for edge, i in zip(node._edges, node._indices, strict=True)
                    ]
                )
            needs = node.needs_input_grad
            try:
                results = node.backward(node, *dys)
            finally:
                node.needs_input_grad = recorded_needs
                _release(node, retain_graph)
            del dys
            if type(results) is not tuple:
                results = (results,)
            edges = node._edges
            if len(results) != len(edges):
                raise RuntimeError(
                    f"{type(node).__name__}.backward returned {len(results)} gradients for {len(edges)} arguments"
                )
            for i in range(len(results)):
                gradient, edge = results[i], edges[i]
                if gradient is not None and needs[i] and edge is not None:
                    alone = getrefcount(gradient) == 3  # held by the tuple, by the name and by this very call
                    send(edge, node._indices[i], gradient, alone)
        for leaf, gradient in sums.items():
            total = _call_hooks(leaf._hooks, gradient) if leaf._hooks else gradient
            if wanted_leaves is None:
                _accumulate(leaf, total, False, create_graph)
            else:
                sums[leaf] = total
    finally:
        caster.reset(casts)
        grad_mode.reset(mode)
    if inputs is None:
        return []
    return [sums.get(t) if t._node is None else captured.get(position) for position, t in enumerate(inputs)]


def _is_unshared(array: Array) -> bool:
    """Whether nobody but the one Tensor that the caller took `array` from can see it change."""
    return getrefcount(array) == 3 and _has_memory_of_its_own(array)  # the Tensor, the argument, this very call


def _has_memory_of_its_own(array: Array) -> bool:
    if type(array) is np.ndarray:
        return array.flags.writeable and (array.base is None or _cpu.made(array))
    if not is_array(array):
        return False
    base = array.base  # of a channels-last result the same memory, in the order of its axes, which nobody else holds
    if base is None or type(base) is not type(array):
        return base is None
    return base.base is None and base.size == array.size and getrefcount(base) == 3


def _are_alike(a: Array, b: Array) -> bool:
    """Whether their sum fits into either."""
    return a.shape == b.shape and a.dtype == b.dtype


def _wanted(edge: Any, index: int, leading: set[Function], leaves: Any, outputs: Any) -> bool:
    if isinstance(edge, Variable):
        return id(edge) in leaves
    return edge in leading or any(index == i for i, _ in outputs.get(edge, ()))


def _leading_to(outputs: Iterable[Tensor], leaves: set[int], targets: dict[Function, Any]) -> set[Function]:
    """The nodes behind `outputs` from which one of the leaves or an output of one of the target nodes is reached."""
    seen: set[Function] = set()
    stack = [tensor._node for tensor in outputs if tensor._node is not None]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(edge for edge in node._edges if isinstance(edge, Function))
    leading: set[Function] = set()
    for node in sorted(seen, key=lambda one: one._number):
        for edge, index in zip(node._edges, node._indices, strict=True):
            if edge is not None and _wanted(edge, index, leading, leaves, targets):
                leading.add(node)
                break
    return leading


def _release(node: Function, retain_graph: bool) -> None:
    kept = node._kept
    if kept:
        for one in kept:
            if one is not None and one.segment is not None:
                one.segment.forget(one.array)
        if not retain_graph:
            node._kept = None


def _call_hooks(hooks: dict[int, Callable[[Tensor], Tensor | None]], gradient: Any) -> Tensor:
    for hook in list(hooks.values()):
        changed = hook(gradient)
        if changed is not None:
            gradient = changed
    return gradient


def _accumulate(leaf: Variable, gradient: Tensor, alone: bool, create_graph: bool) -> None:
    array = gradient._data
    if array.shape != leaf._data.shape:
        raise RuntimeError(
            f"a gradient of shape {tuple(array.shape)} reached a tensor of shape {tuple(leaf._data.shape)}"
        )
    if create_graph:
        leaf._grad = gradient if leaf._grad is None else leaf._grad + gradient
        return
    if leaf._grad is None:
        # Kept as it is only if no other tensor, saved array or variable of the caller can see it change.
        if alone and array.dtype == leaf._data.dtype and getrefcount(array) == 3 and _has_memory_of_its_own(array):
            leaf._grad = gradient if gradient._node is None else wrap(array)
        else:
            last = lie_alike(array, leaf._data) and wants_channels_last(leaf._data)
            leaf._grad = wrap(copied(array, last, leaf._data.dtype))
    elif leaf._grad._node is not None:
        leaf._grad = wrap(leaf._grad._data + array)
    else:
        add_to(leaf._grad._data, array)
        leaf._grad._versions.version += 1


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of `outputs` with respect to `inputs`, returned and not added to any ``.grad``.

        result[i] = sum over j of grad_outputs[j] . d outputs[j] / d inputs[i]

    Args:
        outputs: a Tensor or several.
        inputs: a Tensor or several; leaves or not.  Only what leads to them is computed.
        grad_outputs: one for every output; may be left out (None) for outputs of one element.
        retain_graph: keep what the graph saved, to walk through it again.  None means `create_graph`.
        create_graph: record the walk itself, so that the results can be differentiated.
        allow_unused: give None for an input that no output depends on, instead of raising.

    Raises:
        RuntimeError: an output or input that requires no gradient, an unused input without `allow_unused`, a graph
            already freed, a saved array that was changed.
        ValueError: a `grad_outputs` of another length or shape.

    >>> import numpy as np, pycnn
    >>> x = pycnn.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> (dx,) = pycnn.grad((x**3).sum(), x, create_graph=True)
    >>> pycnn.grad(dx.sum(), x)
    (tensor([ 6., 12.], dtype=float64),)
    """
    ends = (outputs,) if isinstance(outputs, Variable) else tuple(outputs)
    starts = (inputs,) if isinstance(inputs, Variable) else tuple(inputs)
    given: tuple[Any, ...]
    if grad_outputs is None:
        given = (None,) * len(ends)
    else:
        given = (grad_outputs,) if isinstance(grad_outputs, Variable) else tuple(grad_outputs)
    if len(given) != len(ends):
        raise ValueError(f"grad_outputs must have one entry for each of the {len(ends)} outputs, got {len(given)}")
    for name, tensors in (("outputs", ends), ("inputs", starts)):
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, Variable):
                raise TypeError(f"{name}[{i}] must be a Tensor, got {type(tensor).__name__}")
            if not tensor._requires_grad:
                raise RuntimeError(f"{name}[{i}] does not require a gradient")
    seeds = [seed(tensor, gradient) for tensor, gradient in zip(ends, given, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    results = backward(ends, seeds, keep, create_graph, starts)
    for i, result in enumerate(results):
        if result is None and not allow_unused:
            raise RuntimeError(
                f"inputs[{i}] was not used in computing the outputs; pass allow_unused=True to get None for it"
            )
    return tuple(results)


def seed(tensor: Tensor, gradient: Any) -> Tensor:
    """The gradient to start from at `tensor`: as given, or one for a tensor of one element."""
    if gradient is None:
        if tensor._data.size != 1:
            raise RuntimeError(
                f"the gradient may be left out only for a tensor of one element, this one has shape {tensor.shape}"
            )
        module = np if type(tensor._data) is np.ndarray else tensor.array_module
        return wrap(module.ones_like(tensor._data))
    if not isinstance(gradient, Variable):
        gradient = Variable.tensor_type(gradient, dtype=tensor._data.dtype)
    if gradient._data.shape != tensor._data.shape:
        raise ValueError(f"the gradient must have the tensor's shape {tensor.shape}, got {gradient._data.shape}")
    return gradient


# ------------------------------------------------------------------------------------------------- checkpointing


class _Segment:
    """A stretch of the graph whose saved arrays are dropped after the forward pass and computed again when needed."""

    def __init__(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.function = function
        self.inputs = [Saved(x._data, x, -1) if isinstance(x, Variable) else x for x in inputs]
        self.state, self.caster = random.get_state(), caster.get()
        self.count = 0
        self.arrays: dict[int, Array] = {}
        self.again = False

    def keep(self, array: Array) -> int:
        slot = self.count
        self.count += 1
        if self.again:
            self.arrays[slot] = array
        return slot

    def array(self, slot: int) -> Array:
        if slot not in self.arrays:
            self._recompute()
        return self.arrays[slot]

    def forget(self, slot: int) -> None:
        self.arrays.pop(slot, None)

    def _recompute(self) -> None:
        expected, self.count, self.again = self.count, 0, True
        node = _CheckpointInput()
        inputs = []
        for one in self.inputs:
            if isinstance(one, Saved):
                tensor = wrap(one.tensor(node)._data)
                tensor._requires_grad = one.source is not None
                inputs.append(tensor)
            else:
                inputs.append(one)
        state = random.get_state()
        token, mode, again = active_segment.set(self), grad_mode.set(True), _recomputing.set(True)
        casts = caster.set(self.caster)
        try:
            random.set_state(self.state)
            self.function(*inputs)
            if self.count != expected:
                raise RuntimeError(
                    f"checkpoint: running {getattr(self.function, '__name__', 'the function')} again saved "
                    f"{self.count} arrays instead of {expected}; it must do the same each time it is called"
                )
        finally:
            caster.reset(casts)
            _recomputing.reset(again)
            grad_mode.reset(mode)
            active_segment.reset(token)
            random.set_state(state)
            self.count, self.again = expected, False


class _CheckpointInput(Function):
    """Stands for the segment in the message about a changed input."""


def checkpoint(function: Callable[..., Any], *inputs: Any) -> Any:
    """Call ``function(*inputs)`` without keeping what its backward needs: it is computed again when it is needed.

    The state of pycnn's own generator is put back for the second run, so dropout repeats itself, and running
    statistics are updated once only.  Tensors that `function` takes from elsewhere (parameters) get their gradients as
    always, and the result can be differentiated twice.  Memory: the inputs only.  Time: one more forward pass.

    Args:
        function: called with `inputs`; must do the same each time.
        *inputs: Tensors or anything else.

    Returns:
        what `function` returns.

    Raises:
        RuntimeError: in backward, if an input was changed in place or `function` did something else the second time.

    Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.

    >>> import numpy as np, pycnn
    >>> x = pycnn.Tensor(np.array([1.0, 2.0]), requires_grad=True)
    >>> pycnn.autograd.checkpoint(lambda t: (t * t).exp(), x).sum().backward()
    >>> bool((x.grad == 2 * x * (x * x).exp()).all())
    True
    """
    if not grad_mode.get():
        return function(*inputs)
    segment = _Segment(function, inputs)
    token = active_segment.set(segment)
    try:
        return function(*inputs)
    finally:
        active_segment.reset(token)


def recomputing() -> bool:
    """Whether a checkpointed segment is being run again, so that side effects must not happen a second time."""
    return _recomputing.get()
