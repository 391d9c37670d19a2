"""Automatic differentiation: operations are recorded as they run, and walked back in the opposite order.

A `Function` is one differentiable operation, and an instance of it is one node of the graph: `apply` runs `forward` on
plain arrays and, if a gradient may be wanted, links the node to the nodes that made its inputs.  `backward` is written
with differentiable operations itself, so the gradient of a gradient needs no further code.

Every node gets a number as it is made.  A node is always younger than those it depends on, so taking the youngest
node that has a gradient waiting, over and over, is a topological order: no recursion and no counting.

What a node saved must not change before `backward` reads it.  All views of an array share a `Versions` counter;
every change through a Tensor method, an optimiser or loading raises it, and a stale saved array is an error.  What is
not seen: writing into ``t.data`` or ``t.numpy()`` directly, or into an array that NumPy shares with a Tensor.
`set_debug(True)` or ``with detect_changes():`` hash every saved array and catch those too.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar, Token
from heapq import heappop, heappush
from sys import getrefcount
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pycnn import random

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

_enabled: ContextVar[bool] = ContextVar("pycnn_grad_enabled", default=True)
_segment: ContextVar[_Segment | None] = ContextVar("pycnn_segment", default=None)
_debug: ContextVar[bool | None] = ContextVar("pycnn_debug", default=None)
_debug_default = False
_number = itertools.count()


class Versions:
    """What all views of one array share: how often it was changed, and how often by a recorded operation."""

    __slots__ = ("recorded", "version")

    def __init__(self) -> None:
        self.version = 0
        self.recorded = 0


class Variable:
    """What the graph knows of a tensor; `pycnn.Tensor` is its one subclass and has everything else."""

    __slots__ = (
        "__weakref__",
        "_data",
        "_grad",
        "_hooks",
        "_index",
        "_node",
        "_requires_grad",
        "_seen",
        "_versions",
    )

    tensor_type: ClassVar[Any]  # set by pycnn.tensor, so that the graph can make Tensors without importing them

    _data: Array
    _requires_grad: bool
    _grad: Tensor | None
    _node: Function | None  # the operation that made it; None for a leaf
    _index: int  # which of the node's outputs it is
    _versions: Versions
    _seen: int  # value of _versions.recorded for which _node is right
    _hooks: dict[int, Callable[[Tensor], Tensor | None]] | None


def wrap(array: Array, node: Function | None = None, index: int = 0, versions: Versions | None = None) -> Tensor:
    """`array` as a Tensor: output `index` of `node`, or a constant where `node` is None."""
    tensor = object.__new__(Variable.tensor_type)
    tensor._data = array
    tensor._requires_grad = node is not None
    tensor._grad = None
    tensor._node = node
    tensor._index = index
    if versions is None:
        tensor._versions = Versions()
        tensor._seen = 0
    else:
        tensor._versions = versions
        tensor._seen = versions.recorded
    tensor._hooks = None
    return tensor


class Saved:
    """One array kept for `backward`, with what is needed to notice a change and to record through it."""

    __slots__ = ("array", "digest", "index", "segment", "source", "version", "versions")

    def __init__(self, array: Array, variable: Variable | None, own_output: int) -> None:
        self.array = array
        self.versions = self.source = self.segment = self.digest = None
        self.index = own_output  # the node itself is not referenced: that would be a cycle
        if variable is not None:
            self.versions = variable._versions
            self.version = variable._versions.version
            if own_output < 0 and variable._requires_grad:
                self.source = variable if variable._node is None else variable._node
                self.index = variable._index
        segment = _segment.get()
        if segment is not None:
            self.segment, self.array = segment, segment.keep(array)
        elif debugging():
            self.digest = _digest(array)

    def tensor(self, node: Function) -> Tensor:
        """The saved array as a Tensor.  Raises RuntimeError if it was changed after `node` had saved it."""
        versions = self.versions
        if versions is not None and versions.version != self.version:
            raise RuntimeError(
                f"an array that {type(node).__name__} saved for its backward was changed in place "
                f"(it was at version {self.version} and is at {versions.version} now); compute the new value out of "
                f"place, or clone() the tensor before it is changed"
            )
        array = self.array if self.segment is None else self.segment.array(self.array)
        if self.digest is not None and _digest(array) != self.digest:
            raise RuntimeError(
                f"an array that {type(node).__name__} saved for its backward was changed behind the back of its "
                f"Tensor: shape {tuple(array.shape)}, dtype {array.dtype} (found by comparing hashes)"
            )
        source = self.source
        if source is None:
            return wrap(array, node if self.index >= 0 else None, max(self.index, 0), versions)
        if isinstance(source, Variable):
            return source  # type: ignore[return-value]
        return wrap(array, source, self.index, versions)


class Function:
    """A differentiable operation; an instance is one node of the graph and the `ctx` of both methods.

    Write a subclass with two static methods:

        forward(ctx, *args) -> array or tuple of arrays
            gets arrays where `apply` got Tensors and everything else as it was.  ``ctx.save(*arrays)`` keeps what
            backward needs (inputs, outputs or anything else); plain numbers go into attributes of `ctx`.
        backward(ctx, *dys) -> Tensor, None, or a tuple with one entry for every argument of forward
            gets the gradients of the outputs (None for an output that nothing depended on); ``ctx.saved`` are the
            saved arrays as Tensors and ``ctx.needs_input_grad[i]`` says whether a gradient is wanted.  Written with
            Tensor operations, so it can be differentiated again.

    Attributes of a subclass:
        view: the output may share memory with the first argument.
        constant_outputs: indices of outputs that have no gradient (outputs that are not floating never have one).

    >>> import numpy as np, pycnn
    >>> class Cube(pycnn.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save(x)
    ...         return x**3
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         (x,) = ctx.saved
    ...         return 3 * x * x * dy
    >>> x = pycnn.Tensor(np.array([2.0]), requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor([12.], dtype=float64)
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_edges",
        "_hooks",
        "_indices",
        "_kept",
        "_number",
        "_outputs",
        "needs_input_grad",
    )

    view: ClassVar[bool] = False
    constant_outputs: ClassVar[tuple[int, ...]] = ()
    forward: ClassVar[Callable[..., Any]]
    backward: ClassVar[Callable[..., Any]]

    _kept: Any  # arrays after save(), a tuple of Saved once recorded, None once freed
    _edges: list[Function | Variable | None]
    _indices: list[int]
    _hooks: list[tuple[int, dict[int, Callable[[Tensor], Tensor | None]]]]

    def save(self, *arrays: Array | None) -> None:
        """Keep `arrays` (None is allowed) for backward."""
        self._kept = arrays

    @property
    def saved(self) -> list[Any]:
        """The arrays given to `save`, as Tensors.  Raises RuntimeError if they were freed or changed."""
        kept = self._kept
        if kept is None:
            raise RuntimeError(
                f"{type(self).__name__}: the graph was freed by an earlier backward; pass retain_graph=True to the "
                f"first one to go through it again"
            )
        return [None if one is None else one.tensor(self) for one in kept]

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward`.  Tensors among `args` make the results Tensors; without any, they are plain arrays."""
        tensors = record = False
        arrays = []
        for arg in args:
            if isinstance(arg, Variable):
                tensors = True
                if arg._requires_grad:
                    record = True
                arrays.append(arg._data)
            else:
                arrays.append(arg)
        node = cls()
        node._kept = ()
        if not record or not _enabled.get():
            node.needs_input_grad = (False,) * len(args)
            results = cls.forward(node, *arrays)
            if not tensors:
                return results
            if type(results) is tuple:
                return tuple([wrap(array) for array in results])
            if cls.view and _shares_memory(results, arrays[0]):
                return wrap(results, None, 0, args[0]._versions)
            return wrap(results)
        return node._record(args, arrays)

    def _record(self, args: tuple[Any, ...], arrays: list[Any]) -> Any:
        edges: list[Function | Variable | None] = []
        indices: list[int] = []
        needs: list[bool] = []
        for arg in args:
            if isinstance(arg, Variable):
                if arg._seen != arg._versions.recorded:
                    raise RuntimeError(_STALE)
                if arg._requires_grad:
                    edges.append(arg if arg._node is None else arg._node)
                    indices.append(arg._index)
                    needs.append(True)
                    continue
            edges.append(None)
            indices.append(0)
            needs.append(False)
        self.needs_input_grad = tuple(needs)
        results = self.forward(self, *arrays)
        self._edges, self._indices, self._hooks = edges, indices, []
        self._number = next(_number)
        if type(results) is tuple:
            self._outputs = len(results)
            constant = self.constant_outputs
            outputs: Any = tuple(
                [
                    wrap(array, self if array.dtype.kind in "fV" and i not in constant else None, i)
                    for i, array in enumerate(results)
                ]
            )
        else:
            self._outputs = 1
            shared = self.view and _shares_memory(results, arrays[0])
            outputs = wrap(results, self, 0, args[0]._versions if shared else None)
        if self._kept:
            self._kept = self._pack(args, outputs if type(outputs) is tuple else (outputs,))
        return outputs

    def _pack(self, args: tuple[Any, ...], outputs: tuple[Variable, ...]) -> tuple[Saved | None, ...]:
        packed: list[Saved | None] = []
        for array in self._kept:
            if array is None:
                packed.append(None)
                continue
            for output in outputs:
                if output._data is array:
                    packed.append(Saved(array, output, output._index if output._requires_grad else -1))
                    break
            else:
                for arg in args:
                    if isinstance(arg, Variable) and arg._data is array:
                        packed.append(Saved(array, arg, -1))
                        break
                else:
                    packed.append(Saved(array, None, -1))
        return tuple(packed)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} #{self._number}>"


_STALE = (
    "this tensor shares memory with one that a recorded operation changed in place afterwards, so its history is out "
    "of date; take the view again after the change, or write base[index] = value instead of changing a view"
)


def _shares_memory(a: Array, b: Array) -> bool:
    return a is b or (a.base is not None and (np.may_share_memory(a, b) if type(a) is np.ndarray else True))


# --------------------------------------------------------------------------------------------------------- modes


class _GradMode:
    _mode: ClassVar[bool]

    def __enter__(self) -> _GradMode:
        self._token: Token[bool] = _enabled.set(self._mode)
        return self

    def __exit__(self, *exc: object) -> None:
        _enabled.reset(self._token)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{type(self).__name__} cannot decorate the generator {function.__qualname__}")
        kind = type(self)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with kind():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):
    """Record nothing: a context manager, or a decorator as ``@no_grad()``.  Holds for the current thread only."""

    _mode = False


class enable_grad(_GradMode):
    """Record again inside a `no_grad`: a context manager, or a decorator as ``@enable_grad()``."""

    _mode = True


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require a gradient are recorded in this thread."""
    return _enabled.get()


def set_debug(on: bool) -> None:
    """Hash every array saved for backward from now on, and compare when it is used (slow; finds stray writes)."""
    global _debug_default
    _debug_default = bool(on)


class detect_changes:
    """`set_debug` for the length of a ``with`` block; what was saved inside is checked whenever it is used."""

    def __enter__(self) -> detect_changes:
        self._token = _debug.set(True)
        return self

    def __exit__(self, *exc: object) -> None:
        _debug.reset(self._token)


def debugging() -> bool:
    """Whether saved arrays are hashed."""
    chosen = _debug.get()
    return _debug_default if chosen is None else chosen


def _digest(array: Array) -> bytes:
    host = array if type(array) is np.ndarray else array.get()
    return hashlib.blake2b(host.tobytes(), digest_size=16).digest()


# --------------------------------------------------------------------------------------------------- walking back


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
    owned: set[tuple[Function, int]] = set()  # sums made here, which may be added to in place
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
        if before is None:
            slots[index] = gradient
        elif (target, index) in owned:
            before._data += gradient._data
        else:
            slots[index] = before + gradient
            if not create_graph:
                owned.add((target, index))

    mode = _enabled.set(create_graph)
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
                if dys[index] is not None:
                    captured[position] = dys[index]
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
                gradient = results[i]
                if gradient is not None and needs[i]:
                    # Nobody else holds it: the tuple, the name and getrefcount's argument are the three references.
                    send(edges[i], node._indices[i], gradient, getrefcount(gradient) == 3)
        for leaf, gradient in sums.items():
            total = _call_hooks(leaf._hooks, gradient) if leaf._hooks else gradient
            if wanted_leaves is None:
                _accumulate(leaf, total, False, create_graph)
            else:
                sums[leaf] = total
    finally:
        _enabled.reset(mode)
    if inputs is None:
        return []
    return [sums.get(t) if t._node is None else captured.get(position) for position, t in enumerate(inputs)]


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
        if alone and array.base is None and array.dtype == leaf._data.dtype and getrefcount(array) == 3:
            leaf._grad = gradient if gradient._node is None else wrap(array)
        else:
            leaf._grad = wrap(array.astype(leaf._data.dtype, order="C", copy=True))
    elif leaf._grad._node is not None:
        leaf._grad = wrap(leaf._grad._data + array)
    else:
        leaf._grad._data += array
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
    return gradient  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------- checkpointing


class _Segment:
    """A stretch of the graph whose saved arrays are dropped after the forward pass and computed again when needed."""

    def __init__(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.function = function
        self.inputs = [Saved(x._data, x, -1) if isinstance(x, Variable) else x for x in inputs]
        self.state = random.get_state()
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
        state, token, mode = random.get_state(), _segment.set(self), _enabled.set(True)
        try:
            random.set_state(self.state)
            self.function(*inputs)
            if self.count != expected:
                raise RuntimeError(
                    f"checkpoint: running {getattr(self.function, '__name__', 'the function')} again saved "
                    f"{self.count} arrays instead of {expected}; it must do the same each time it is called"
                )
        finally:
            _enabled.reset(mode)
            _segment.reset(token)
            random.set_state(state)
            self.count, self.again = expected, False


class _CheckpointInput(Function):
    """Stands for the segment in the message about a changed input."""


def checkpoint(function: Callable[..., Any], *inputs: Any) -> Any:
    """Call ``function(*inputs)`` without keeping what its backward needs: it is computed again when it is needed.

    The random state is put back for the second run, so dropout repeats itself, and running statistics are updated once
    only.  Tensors that `function` takes from elsewhere (parameters) get their gradients as always, and the result can
    be differentiated twice.  Memory: the inputs only.  Time: one more forward pass.

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
    >>> pycnn.checkpoint(lambda t: (t * t).exp(), x).sum().backward()
    >>> bool((x.grad == 2 * x * (x * x).exp()).all())
    True
    """
    if not _enabled.get():
        return function(*inputs)
    segment = _Segment(function, inputs)
    token = _segment.set(segment)
    try:
        return function(*inputs)
    finally:
        _segment.reset(token)


def recomputing() -> bool:
    """Whether a checkpointed segment is being run again, so that side effects must not happen a second time."""
    segment = _segment.get()
    return segment is not None and segment.again
