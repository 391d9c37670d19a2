"""The graph: what it knows of a tensor, what it saves, and `Function`, which is an operation and a node of it.

`apply` runs `forward` on plain arrays and, if a gradient may be wanted, links the node to the nodes that made its
inputs.  Nodes refer to nodes and to leaves, never to the tensors in between and never to their own outputs, so a graph
has no cycles and is freed as soon as the last tensor that depends on it goes.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from pycnn.arrays import to_host

if TYPE_CHECKING:
    from pycnn.tensor import Tensor

__all__ = [
    "Caster",
    "Function",
    "Saved",
    "Tracer",
    "Variable",
    "Versions",
    "caster",
    "debugging",
    "detect_changes",
    "enable_grad",
    "is_grad_enabled",
    "no_grad",
    "set_debug",
    "tracing",
    "wrap",
]

Array = Any

grad_mode: ContextVar[bool] = ContextVar("pycnn_grad_enabled", default=True)
active_segment: ContextVar[Segment | None] = ContextVar("pycnn_segment", default=None)
caster: ContextVar[Caster | None] = ContextVar("pycnn_caster", default=None)
_tracer: ContextVar[Tracer | None] = ContextVar("pycnn_tracer", default=None)
_debug: ContextVar[bool | None] = ContextVar("pycnn_debug", default=None)
_debug_default = False
_number = itertools.count()


class Segment(Protocol):
    """A stretch of the graph that keeps its saved arrays itself (see `pycnn.autograd.checkpoint`)."""

    def keep(self, array: Array) -> int: ...
    def array(self, slot: int) -> Array: ...
    def forget(self, slot: int) -> None: ...


class Tracer(Protocol):
    """Follows what a network does with arrays that have no values (see `pycnn.compiler`)."""

    def call(self, function: type[Function], args: tuple[Any, ...]) -> Any:
        """The results of ``function.apply(*args)``, or NotImplemented where none of `args` has come from the tracer."""


class Caster(Protocol):
    """Says in which dtypes operations are computed (see `pycnn.amp.autocast`)."""

    def cast(self, function: type[Function], args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments with which ``function.apply(*args)`` runs."""


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
        segment = active_segment.get()
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
        tracer = _tracer.get()
        if tracer is not None:
            if (followed := tracer.call(cls, args)) is not NotImplemented:
                return followed
        elif (casts := caster.get()) is not None:
            args = casts.cast(cls, args)
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
        if not record or not grad_mode.get():
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
        # What `forward` keeps is known by its array, so arguments that share one (a and a.detach()) get one each.
        for i in range(1, len(arrays)):
            for j in range(i):
                if arrays[j] is arrays[i] and args[j] is not args[i]:
                    arrays[i] = arrays[i].view()
                    break
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
            self._kept = self._pack(args, arrays, outputs if type(outputs) is tuple else (outputs,))
        return outputs

    def _pack(
        self, args: tuple[Any, ...], arrays: list[Any], outputs: tuple[Variable, ...]
    ) -> tuple[Saved | None, ...]:
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
                for arg, given in zip(args, arrays, strict=True):
                    if given is array and isinstance(arg, Variable):
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


@contextmanager
def tracing(tracer: Tracer) -> Iterator[None]:
    """Within it, this thread's operations go to `tracer` first."""
    token = _tracer.set(tracer)
    try:
        yield
    finally:
        _tracer.reset(token)


class _GradMode:
    _mode: ClassVar[bool]

    def __enter__(self) -> _GradMode:
        self._token: Token[bool] = grad_mode.set(self._mode)
        return self

    def __exit__(self, *exc: object) -> None:
        grad_mode.reset(self._token)

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
    """Record nothing: a context manager, or a decorator as ``@no_grad()``.  Holds for the current thread only.

    >>> import pycnn
    >>> w = pycnn.ones(2, requires_grad=True)
    >>> with pycnn.no_grad():
    ...     (2 * w).requires_grad
    False
    """

    _mode = False


class enable_grad(_GradMode):
    """Record again inside a `no_grad`: a context manager, or a decorator as ``@enable_grad()``."""

    _mode = True


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require a gradient are recorded in this thread."""
    return grad_mode.get()


def set_debug(on: bool) -> None:
    """Hash every array saved for backward from now on, and compare when it is used (slow; finds stray writes)."""
    global _debug_default
    _debug_default = bool(on)


class detect_changes:
    """`set_debug` for the length of a ``with`` block; what was saved inside is checked whenever it is used.

    >>> import pycnn
    >>> x = pycnn.ones(2, requires_grad=True)
    >>> with pycnn.detect_changes():
    ...     y = (x * x).sum()
    >>> x.data[0] = 3.0
    >>> y.backward()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    RuntimeError: an array that Mul saved for its backward was changed behind the back of its Tensor: ...
    """

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
    return hashlib.blake2b(to_host(array).tobytes(), digest_size=16).digest()
