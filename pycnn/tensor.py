"""Tensor: an array and its place in the graph.  Names and meanings are PyTorch's.

What differs: ``t.data`` is the array itself (NumPy's or CuPy's), which says where the tensor is; and an operation that
a method does not offer is a function of `pycnn.functional`.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from pycnn import _dlpack, autograd, graph
from pycnn import arithmetic as op
from pycnn.arrays import (
    beside,
    copied,
    device_of,
    from_others,
    is_array,
    is_device,
    module_of,
    parse_device,
    place,
    same_elements,
    to_host,
)
from pycnn.graph import Variable, Versions
from pycnn.memory_format import (
    MemoryFormat,
    channels_last,
    contiguous_format,
    is_channels_last,
    lies_as,
    wants_channels_last,
)

__all__ = ["Tensor", "from_dlpack", "ones", "tensor", "zeros"]

Array = Any
Dims = int | Sequence[int] | None
Number = int | float


class Tensor(Variable):
    """An array that may ask for a gradient.

    Args:
        data: a NumPy or CuPy array (shared, not copied), anything with DLPack, another Tensor (its array is shared, its
            history is not), or numbers in nested lists (floats become float32).
        requires_grad: gather the gradient of this tensor in ``.grad``; only floating dtypes.
        dtype: converts to it first.

    Raises:
        TypeError: data that is no array of numbers.
        RuntimeError: `requires_grad` for integers or bools.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ()

    # ufuncs of NumPy leave Tensors alone, so that array + tensor is Tensor.__radd__
    __array_ufunc__ = None

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        array = _array(data)
        if dtype is not None and array.dtype != dtype:
            array = array.astype(dtype)
        self._data = array
        self._requires_grad = False
        self._grad = None
        self._node = None
        self._index = 0
        self._versions = data._versions if isinstance(data, Variable) and array is data._data else Versions()
        self._seen = self._versions.recorded
        self._hooks = None
        if requires_grad:
            self.requires_grad = True

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def data(self) -> Array:
        """The array itself.  Writing into it is not noticed by autograd (see `pycnn.autograd`); assigning is."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        self._data = _array(value)
        self._versions.version += 1

    @property
    def grad(self) -> Tensor | None:
        """The gradient gathered so far, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value._data.shape != self._data.shape:
                raise ValueError(f"grad must have the tensor's shape {self.shape}, got {value.shape}")
        self._grad = value

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not _is_floating(self._data):
            raise RuntimeError(f"only floating tensors can require a gradient, this one is {self._data.dtype}")
        if not value and self._node is not None:
            raise RuntimeError("only a leaf can stop requiring a gradient; use detach() for the result of an operation")
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad`; returns the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad_fn(self) -> graph.Function | None:
        """The recorded operation that made this tensor, or None for a leaf."""
        return self._node

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._node is None

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each dimension."""
        return self._data.shape

    @property
    def dtype(self) -> Any:
        """The NumPy dtype of the elements."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    @property
    def device(self) -> str:
        """``"cpu"``, or ``"cuda:0"`` and so on for a CuPy array."""
        return device_of(self._data)

    @property
    def is_cuda(self) -> bool:
        """Whether a GPU holds the array."""
        return device_of(self._data) != "cpu"

    @property
    def array_module(self) -> ModuleType:
        """The library of the array: numpy or cupy."""
        return module_of(self._data)

    @property
    def version(self) -> int:
        """How often this array was changed in place; shared by all views of it."""
        return self._versions.version

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        return self._data.shape if dim is None else self._data.shape[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    def numel(self) -> int:
        """The number of elements."""
        return int(self._data.size)

    def item(self) -> Any:
        """The one element as a Python number.  Raises ValueError if there is not exactly one.

        >>> ones(1, 1).item()
        1.0
        """
        try:
            return self._data.item()
        except ValueError:
            raise ValueError(f"item() needs a tensor of one element, this one has shape {self.shape}") from None

    def tolist(self) -> Any:
        """The elements as nested lists."""
        return self._data.tolist()

    def numpy(self) -> np.ndarray:
        """The array as NumPy: itself, or a copy of what a GPU holds.

        Raises RuntimeError if a gradient is required: detach first.
        """
        if self._requires_grad:
            raise RuntimeError("numpy() of a tensor that requires a gradient would lose it; use .detach().numpy()")
        return to_host(self._data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.is_cuda:
            raise TypeError(f"this tensor is on {self.device}; NumPy gets a copy of it by .numpy() or .cpu()")
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"a conversion from {array.dtype} to {np.dtype(dtype)} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if self._requires_grad:
            raise RuntimeError("exporting a tensor that requires a gradient would lose it; use .detach()")
        asked = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        return _dlpack.capsule(self._data, **{name: value for name, value in asked.items() if value is not None})

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def __len__(self) -> int:
        if self._data.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self._data.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self._data.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(self._data.shape[0]))

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self._data.dtype.kind not in "iub":
            raise TypeError(f"only integer tensors can be used as an index, this one is {self._data.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        try:
            return bool(self._data.item())
        except ValueError:
            raise ValueError(
                "the truth value of a tensor of more or less than one element is ambiguous; use any/all"
            ) from None

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self._data.ndim == 0 else format(repr(self), spec)

    def __repr__(self) -> str:
        host = to_host(self._data)
        text = np.array2string(host, separator=", ", prefix="tensor(")
        notes = "" if str(host.dtype) in ("float32", "int64", "bool") else f", dtype={host.dtype}"
        if host.size == 0:
            notes += f", shape={host.shape}"
        if self.device != "cpu":
            notes += f", device='{self.device}'"
        if self._node is not None:
            notes += f", grad_fn=<{type(self._node).__name__}>"
        elif self._requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({text}{notes})"

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError("only leaves can be deep-copied; detach() the tensor first")
        copy = object.__new__(type(self))
        Tensor.__init__(copy, _copied(self._data), self._requires_grad)
        if self._grad is not None:
            copy._grad = graph.wrap(_copied(self._grad._data))
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> Any:
        if self._node is not None:
            raise RuntimeError("only leaves can be pickled; detach() the tensor first")
        return type(self), (self._data, self._requires_grad)

    # -------------------------------------------------------------------------------------------------- gradients

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Add the gradient of this tensor to ``.grad`` of every leaf it depends on.

        Args:
            gradient: of the end result with respect to this tensor; may be left out for one element (it is 1).
            retain_graph: keep what the graph saved, to walk through it again.  None means `create_graph`.
            create_graph: record the walk, so that the gradients can be differentiated.

        Raises:
            RuntimeError: a tensor that requires no gradient, a graph already freed, a saved array that was changed.
            ValueError: a `gradient` of another shape.

        >>> x = ones(2, requires_grad=True)
        >>> (3 * x * x).backward(ones(2))
        >>> x.grad
        tensor([6., 6.])
        """
        if not self._requires_grad:
            raise RuntimeError("this tensor does not require a gradient: nothing it was made from asked for one")
        start = autograd.seed(self, gradient)
        autograd.backward((self,), (start,), create_graph if retain_graph is None else retain_graph, create_graph)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._grad = None

    def detach(self) -> Tensor:
        """The same array without a history; changes of either are seen by both.

        >>> (2 * ones(2, requires_grad=True)).detach().requires_grad
        False
        """
        return graph.wrap(self._data, None, 0, self._versions)

    def detach_(self) -> Tensor:
        """Cut this tensor's own history; returns it."""
        self._node = None
        self._index = 0
        self._requires_grad = False
        return self

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook` with the gradient of this tensor in every backward; what it returns (if not None) replaces it.

        Returns:
            a function that removes the hook.

        Raises:
            RuntimeError: a tensor that requires no gradient.

        >>> x = ones(1, requires_grad=True)
        >>> remove = x.register_hook(lambda gradient: gradient * 10)
        >>> (2 * x).sum().backward()
        >>> x.grad
        tensor([20.])
        """
        if not self._requires_grad:
            raise RuntimeError("a hook needs a tensor that requires a gradient")
        if self._node is None:
            if self._hooks is None:
                self._hooks = {}
            hooks = self._hooks
        else:
            hooks = {}
            self._node._hooks.append((self._index, hooks))
        key = len(hooks)
        while key in hooks:
            key += 1
        hooks[key] = hook
        return lambda: hooks.pop(key, None) and None

    def retain_grad(self) -> None:
        """Gather ``.grad`` for this tensor although it is not a leaf.

        >>> x = ones(1, requires_grad=True)
        >>> y = 2 * x
        >>> y.retain_grad()
        >>> (y * y).sum().backward()
        >>> y.grad
        tensor([4.])
        """
        if self._node is not None:
            keeper = _GradKeeper(self)
            self.register_hook(keeper)

    # ------------------------------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Tensor:
        a, b = _operands(self, other)
        return op.Add.apply(a, b) if a is not None else NotImplemented

    def __sub__(self, other: Any) -> Tensor:
        a, b = _operands(self, other)
        return op.Sub.apply(a, b) if a is not None else NotImplemented

    def __rsub__(self, other: Any) -> Tensor:
        a, b = _operands(self, other)
        return op.Sub.apply(b, a) if a is not None else NotImplemented

    def __mul__(self, other: Any) -> Tensor:
        """self * other, broadcast."""
        a, b = _operands(self, other)
        return op.Mul.apply(a, b) if a is not None else NotImplemented

    def __truediv__(self, other: Any) -> Tensor:
        """self / other, broadcast; integers give floats."""
        a, b = _operands(self, other, True)
        return op.Div.apply(a, b) if a is not None else NotImplemented

    def __rtruediv__(self, other: Any) -> Tensor:
        a, b = _operands(self, other, True)
        return op.Div.apply(b, a) if a is not None else NotImplemented

    def __pow__(self, other: Any) -> Tensor:
        """self to the power of `other`, a number or a tensor."""
        if isinstance(other, (int, float)) and _is_floating(self._data):
            return op.PowNumber.apply(self, other)
        a, b = _operands(self, other)
        return op.Pow.apply(a, b) if a is not None else NotImplemented

    def __rpow__(self, other: Any) -> Tensor:
        a, b = _operands(self, other)
        return op.Pow.apply(graph.wrap(self.array_module.asarray(b)), a) if a is not None else NotImplemented

    def __matmul__(self, other: Any) -> Tensor:
        """Matrix product over the last two dimensions, broadcast over the others.

        >>> (tensor([[1.0, 2.0]]) @ tensor([[3.0], [4.0]])).item()
        11.0
        """
        return op.Matmul.apply(self, _tensor_or_array("other", other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return op.Matmul.apply(_tensor_or_array("other", other), self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Tensor:
        """-self."""
        return op.Neg.apply(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        """Absolute values; the derivative at 0 is 0."""
        return op.Abs.apply(self)

    def add(self, other: Any, *, alpha: Number = 1) -> Tensor:
        """self + alpha * other.

        >>> ones(2).add(ones(2), alpha=3)
        tensor([4., 4.])
        """
        return self + (other if alpha == 1 else other * alpha)

    def sub(self, other: Any, *, alpha: Number = 1) -> Tensor:
        """self - alpha * other."""
        return self - (other if alpha == 1 else other * alpha)

    mul = __mul__

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """self / other; rounded towards zero ("trunc") or down ("floor"), which has no gradient.

        >>> tensor([-3.0]).div(2.0, rounding_mode="trunc"), tensor([-3.0]).div(2.0, rounding_mode="floor")
        (tensor([-1.]), tensor([-2.]))
        """
        if rounding_mode is None:
            return self / other
        if rounding_mode not in ("trunc", "floor"):
            raise ValueError(f"rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")
        a, b = _operands(self, other)
        x, y = a._data, _data_of(b)
        if rounding_mode == "floor":
            return graph.wrap(self.array_module.asarray(x // y))
        quotient = self.array_module.trunc(x / y)
        return graph.wrap(self.array_module.asarray(quotient.astype(x.dtype)))

    pow = __pow__
    matmul = __matmul__
    neg = __neg__
    abs = __abs__

    # comparisons: bool tensors without a gradient
    def _compare(self, other: Any, name: str) -> Tensor:
        with np.errstate(invalid="ignore"):
            result = getattr(self._data, name)(other._data if isinstance(other, Variable) else other)
        if result is NotImplemented:
            return NotImplemented
        return graph.wrap(self.array_module.asarray(result))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare(other, "__eq__")

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._compare(other, "__ne__")

    def __lt__(self, other: Any) -> Tensor:
        return self._compare(other, "__lt__")

    def __le__(self, other: Any) -> Tensor:
        return self._compare(other, "__le__")

    def __gt__(self, other: Any) -> Tensor:
        return self._compare(other, "__gt__")

    def __ge__(self, other: Any) -> Tensor:
        return self._compare(other, "__ge__")

    def __and__(self, other: Any) -> Tensor:
        return self._compare(other, "__and__")

    def __or__(self, other: Any) -> Tensor:
        return self._compare(other, "__or__")

    def __invert__(self) -> Tensor:
        return graph.wrap(self.array_module.asarray(~self._data))

    def all(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Whether every element is true, or every one over dimensions; `dim` and `keepdim` as `sum`."""
        return self._truth("all", dim, keepdim)

    def any(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Whether an element is true, or one over dimensions; `dim` and `keepdim` as `sum`."""
        return self._truth("any", dim, keepdim)

    def _truth(self, name: str, dim: Dims, keepdim: bool) -> Tensor:
        result = getattr(self._data != 0, name)(axis=_axes(dim, self._data.ndim))
        if keepdim:
            result = result.reshape(_kept(self._data.shape, dim))
        return graph.wrap(self.array_module.asarray(result))

    def isnan(self) -> Tensor:
        """Where the elements are NaN."""
        return graph.wrap(self.array_module.asarray(self._data != self._data))

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return op.Exp.apply(self)

    def log(self) -> Tensor:
        """Natural logarithm of each element."""
        return op.Log.apply(self)

    def sqrt(self) -> Tensor:
        """Square root of each element."""
        return op.Sqrt.apply(self)

    def square(self) -> Tensor:
        """self * self."""
        return op.Mul.apply(self, self)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Limit every element to [min, max]; either may be left out, and either may be a tensor, broadcast.

        >>> tensor([-2.0, 0.5, 2.0]).clamp(0, 1)
        tensor([0. , 0.5, 1. ])
        """
        if min is None and max is None:
            raise ValueError("clamp needs min, max or both")
        if not any(hasattr(bound, "shape") for bound in (min, max)):
            return op.Clamp.apply(self, min, max)
        result = self
        if min is not None:
            x, low = _operands(result, min)
            result = op.Where.apply(x._data < _data_of(low), low, x)
        if max is not None:
            x, high = _operands(result, max)
            result = op.Where.apply(x._data > _data_of(high), high, x)
        return result

    clip = clamp

    def maximum(self, other: Any) -> Tensor:
        """Elementwise larger one; a tie splits the gradient.

        >>> tensor([1.0, 5.0]).maximum(3.0)
        tensor([3., 5.])
        """
        a, b = _operands(self, other)
        return op.Bigger.apply(a, b, True)

    def minimum(self, other: Any) -> Tensor:
        """Elementwise smaller one; a tie splits the gradient."""
        a, b = _operands(self, other)
        return op.Bigger.apply(a, b, False)

    # ------------------------------------------------------------------------------------------------- reductions

    def sum(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Sum of all elements, or over one or several dimensions.

        Args:
            dim: one dimension or several, negative ones counted from the end; None for all.
            keepdim: keep them with size 1.

        >>> ones(2, 3).sum(1)
        tensor([3., 3.])
        """
        return op.Sum.apply(self, _axes(dim, self._data.ndim), keepdim)

    def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Mean of all elements, or over one or several dimensions; integers give floats.

        Args:
            dim, keepdim: as `sum`.
        """
        axes = _axes(dim, self._data.ndim)
        return op.Sum.apply(self, axes, keepdim) / math.prod([self._data.shape[axis] for axis in axes])

    def var(
        self, dim: Dims = None, correction: Number | None = 1, keepdim: bool = False, unbiased: bool | None = None
    ) -> Tensor:
        """sum((x - mean)^2) / (n - correction); correction=0 is the biased variance.

        Args:
            dim, keepdim: as `sum`.
            correction: what is taken from the number of elements; None is 1.
            unbiased: True or False for a correction of 1 or 0; also in the place of `dim`.

        >>> tensor([1.0, 3.0]).var().item(), tensor([1.0, 3.0]).var(unbiased=False).item()
        (2.0, 1.0)
        """
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        correction = 1 if correction is None else correction
        correction = correction if unbiased is None else int(unbiased)
        axes = _axes(dim, self._data.ndim)
        count = math.prod([self._data.shape[axis] for axis in axes])
        centred = self - self.mean(axes, keepdim=True)
        total = op.Sum.apply(centred * centred, axes, keepdim)
        return total / max(count - correction, 0) if count > correction else total * math.nan

    def std(
        self, dim: Dims = None, correction: Number | None = 1, keepdim: bool = False, unbiased: bool | None = None
    ) -> Tensor:
        """Square root of `var`."""
        return self.var(dim, correction, keepdim, unbiased).sqrt()

    def amax(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Largest element over dimensions; elements that tie share the gradient."""
        return op.Extreme.apply(self, _axes(dim, self._data.ndim), keepdim, True)

    def amin(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Smallest element over dimensions; elements that tie share the gradient."""
        return op.Extreme.apply(self, _axes(dim, self._data.ndim), keepdim, False)

    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """Largest element; with `dim`, the pair (values, indices) along it; with a tensor, `maximum`.

        >>> tensor([[1.0, 5.0], [4.0, 2.0]]).max(1)
        (tensor([5., 4.]), tensor([1, 0]))
        """
        if hasattr(dim, "shape"):
            return self.maximum(dim)
        return self.amax() if dim is None else self._extreme_along(self.argmax(dim, True), dim, keepdim)

    def min(self, dim: Any = None, keepdim: bool = False) -> Any:
        """Smallest element; with `dim`, the pair (values, indices) along it; with a tensor, `minimum`."""
        if hasattr(dim, "shape"):
            return self.minimum(dim)
        return self.amin() if dim is None else self._extreme_along(self.argmin(dim, True), dim, keepdim)

    def _extreme_along(self, index: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
        if self._data.ndim == 0:
            return self.clone(), index
        values = op.TakeAlong.apply(self, index, dim % self._data.ndim)
        return (values, index) if keepdim else (values.squeeze(dim), index.squeeze(dim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the first largest element (in the flattened tensor without `dim`).

        >>> tensor([[1.0, 5.0], [4.0, 2.0]]).argmax(1)
        tensor([1, 0])
        """
        result = self._data.argmax(axis=dim, keepdims=keepdim)
        return graph.wrap(self.array_module.asarray(result))

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the first smallest element (in the flattened tensor without `dim`)."""
        result = self._data.argmin(axis=dim, keepdims=keepdim)
        return graph.wrap(self.array_module.asarray(result))

    # ----------------------------------------------------------------------------------------------------- shapes

    def reshape(self, *shape: Any) -> Tensor:
        """The elements in another shape; a view where the memory allows it.

        >>> ones(2, 3).reshape(3, -1).shape
        (3, 2)
        """
        return op.Reshape.apply(self, _sizes(shape))

    def view(self, *shape: Any) -> Tensor:
        """`reshape` that never copies.  Raises ValueError where the memory does not allow it."""
        result = op.Reshape.apply(self, _sizes(shape))
        if result._versions is not self._versions and self._data.size:
            raise ValueError(f"view of shape {_sizes(shape)} needs a copy of this strided tensor; use reshape")
        return result

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Dimensions `start_dim` to `end_dim` (inclusive) as one."""
        shape, n = self._data.shape, self._data.ndim
        if n == 0:
            return self.reshape(1)
        first, last = _axis(start_dim, n), _axis(end_dim, n)
        if first > last:
            raise ValueError(f"start_dim {start_dim} lies behind end_dim {end_dim}")
        return op.Reshape.apply(self, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two dimensions exchanged (a view)."""
        n = self._data.ndim
        if n == 0 and {dim0, dim1} <= {0, -1}:
            return op.Permute.apply(self, ())
        axes = list(range(n))
        first, second = _axis(dim0, n), _axis(dim1, n)
        axes[first], axes[second] = second, first
        return op.Permute.apply(self, tuple(axes))

    def permute(self, *dims: Any) -> Tensor:
        """The dimensions in another order (a view).

        >>> ones(2, 3, 4).permute(2, 0, 1).shape
        (4, 2, 3)
        """
        n = self._data.ndim
        return op.Permute.apply(self, tuple([_axis(dim, n) for dim in _sizes(dims)]))

    @property
    def T(self) -> Tensor:
        """All dimensions in reverse order (a view)."""
        return op.Permute.apply(self, tuple(reversed(range(self._data.ndim))))

    def squeeze(self, dim: Dims = None) -> Tensor:
        """Without the dimensions of size 1, or without those of `dim` that have size 1.

        >>> ones(1, 3, 1).squeeze().shape, ones(1, 3, 1).squeeze(0).shape
        ((3,), (3, 1))
        """
        axes = () if isinstance(dim, (tuple, list)) and not dim else _axes(dim, self._data.ndim)
        shape = tuple([size for i, size in enumerate(self._data.shape) if i not in axes or size != 1])
        return op.Reshape.apply(self, shape)

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new dimension of size 1 at `dim`.

        >>> ones(3).unsqueeze(0).shape
        (1, 3)
        """
        place = _axis(dim, self._data.ndim + 1)
        shape = self._data.shape
        return op.Reshape.apply(self, (*shape[:place], 1, *shape[place:]))

    def expand(self, *sizes: Any) -> Tensor:
        """Repeated along dimensions of size 1 (a read-only view); -1 leaves a size as it is.

        >>> ones(3, 1).expand(2, -1, 4).shape
        (2, 3, 4)
        """
        wanted = _sizes(sizes)
        lead = len(wanted) - self._data.ndim
        shape = tuple([self._data.shape[i - lead] if size == -1 else size for i, size in enumerate(wanted)])
        return op.Expand.apply(self, shape)

    def is_contiguous(self, memory_format: MemoryFormat = contiguous_format) -> bool:
        """Whether the elements are one piece of memory in C order or, asked for it, channels-last.

        >>> ones(2, 3, 4, 4).is_contiguous(), ones(2, 3, 4, 4).is_contiguous(channels_last)
        (True, False)
        """
        return lies_as(self._data, is_last(memory_format))

    def contiguous(self, memory_format: MemoryFormat = contiguous_format) -> Tensor:
        """The tensor itself if it lies in C order or, asked for it, channels-last; else a copy that does.

        On a GPU what computes with images, LRN and losses excepted, reads a channels-last tensor as it lies, and its
        results lie so too: convolutions if they run on tensor cores, in 16 bits or in a `precision` that allows them.
        All else there, and each operator on the CPU, makes its own copy in C order.

        Args:
            memory_format: `pycnn.channels_last`, of 4 dimensions (N, C, H, W) whose memory is (N, H, W, C); or
                `pycnn.contiguous_format`.

        Raises:
            ValueError: channels_last for a tensor that has not 4 dimensions.
            TypeError: something that is no memory format.

        >>> ones(2, 3, 4, 5).contiguous(memory_format=channels_last).data.strides
        (240, 4, 60, 12)
        """
        array = self._data
        if not is_last(memory_format):
            return self if array.flags.c_contiguous else op.Clone.apply(self, False)
        if array.ndim != 4:
            raise ValueError(f"only tensors of 4 dimensions lie channels-last, got shape {tuple(array.shape)}")
        if not is_channels_last(array):
            return op.Clone.apply(self, True)
        if wants_channels_last(array):
            return self
        n, c, h, w = array.shape  # one channel or one pixel: the same memory, seen otherwise
        return op.Permute.apply(op.Reshape.apply(self, (n, h, w, c)), (0, 3, 1, 2))

    def clone(self) -> Tensor:
        """A copy, channels-last if the tensor is, else in C order; the gradient passes through."""
        last = not self._data.flags.c_contiguous and wants_channels_last(self._data)
        return op.Clone.apply(self, last)

    def to(
        self,
        *wanted: Any,
        dtype: Any = None,
        device: Any = None,
        non_blocking: bool = False,
        copy: bool = False,
        memory_format: MemoryFormat | None = None,
    ) -> Tensor:
        """On another device, in another dtype, lying otherwise in memory; the tensor itself if it is all of it already.

        Args:
            *wanted: a device ("cpu", "cuda", "cuda:1"), a dtype, one after the other, or a Tensor to be like.
            dtype, device: the same by name.
            non_blocking: as PyTorch has it; a copy to a GPU is always in the order of its stream.
            copy: always copy.  Both may also follow `wanted`, in this order.
            memory_format: as `contiguous` has it; None leaves it as it is.

        Raises:
            ValueError: a device of another name.  MissingToolError: no CuPy, no driver or no such GPU.
            TypeError: something that is no memory format.

        >>> ones(2).to(np.float64).dtype
        dtype('float64')
        >>> ones(2).to("cpu", np.float16).device
        'cpu'
        """
        flags = [one for one in wanted if isinstance(one, bool)]
        copy = copy or flags[1:] == [True]
        dtype, device = destination(tuple([one for one in wanted if not isinstance(one, bool)]), dtype, device)
        result = self
        if device is not None and (name := parse_device(device)) != device_of(self._data):
            result = op.Move.apply(result, name)
        if dtype is not None and dtype != result._data.dtype:
            result = op.Cast.apply(result, dtype)
        result = result if memory_format is None else result.contiguous(memory_format)
        return result.clone() if copy and result is self else result

    def cuda(self, device: int | str | None = None) -> Tensor:
        """On a GPU: the current one, or the one of this number or name."""
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def cpu(self) -> Tensor:
        """In main memory."""
        return self.to("cpu")

    def astype(self, dtype: Any) -> Tensor:
        """In another dtype."""
        return self.to(dtype=dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """In the dtype of `other`."""
        return self.to(other.dtype)

    def float(self, memory_format: MemoryFormat | None = None) -> Tensor:
        """In float32."""
        return self.to(np.float32, memory_format=memory_format)

    def double(self, memory_format: MemoryFormat | None = None) -> Tensor:
        """In float64."""
        return self.to(np.float64, memory_format=memory_format)

    def half(self, memory_format: MemoryFormat | None = None) -> Tensor:
        """In float16."""
        return self.to(np.float16, memory_format=memory_format)

    def long(self, memory_format: MemoryFormat | None = None) -> Tensor:
        """In int64."""
        return self.to(np.int64, memory_format=memory_format)

    def __getitem__(self, index: Any) -> Tensor:
        return op.GetItem.apply(self, _index(index))

    # --------------------------------------------------------------------------------------------- in-place changes

    def __setitem__(self, index: Any, value: Any) -> None:
        index = _index(index)
        if graph.is_grad_enabled() and (self._requires_grad or (isinstance(value, Variable) and value._requires_grad)):
            if (
                isinstance(value, Variable)
                and value._versions is self._versions
                and self._seen == self._versions.recorded - 1
                and same_elements(self._data[index], value._data)
            ):
                # base[index] += v: Python changes the view base[index], then writes it back to where it lies.
                self._seen = self._versions.recorded
            self._become(op.SetItem.apply(self, value, index))
        else:
            self._data[index] = beside(value._data if isinstance(value, Variable) else value, self._data)
            self._versions.version += 1

    def _become(self, result: Tensor) -> Tensor:
        """Take the value and the history of `result`, which was computed from this tensor and has its shape."""
        if result._data.shape != self._data.shape:
            raise ValueError(f"a tensor of shape {self.shape} cannot hold a result of shape {result.shape} in place")
        if result._requires_grad:
            if self._requires_grad and self._node is None:
                raise RuntimeError(
                    "a leaf that requires a gradient cannot be changed in place while it is recorded; use no_grad()"
                )
            if not _is_floating(self._data):
                raise RuntimeError(f"a tensor of dtype {self.dtype} cannot take part in recorded changes")
            result = result.to(self._data.dtype)
        self.array_module.copyto(self._data, result._data, casting="same_kind")
        self._versions.version += 1
        if result._requires_grad:
            self._node, self._index = result._node, result._index
            self._requires_grad = True
            self._versions.recorded += 1
            self._seen = self._versions.recorded
        return self

    def _change(self, function: Callable[[Any, Any], Any], in_place: Callable[[Any, Any], Any], other: Any) -> Tensor:
        """self = function(self, other) in place."""
        if graph.is_grad_enabled() and (self._requires_grad or (isinstance(other, Variable) and other._requires_grad)):
            return self._become(function(self, other))
        in_place(self._data, other._data if isinstance(other, Variable) else other)
        self._versions.version += 1
        return self

    def add_(self, other: Any, *, alpha: Number = 1) -> Tensor:
        """self += alpha * other."""
        return self._change(operator.add, operator.iadd, other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, *, alpha: Number = 1) -> Tensor:
        """self -= alpha * other."""
        return self._change(operator.sub, operator.isub, other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Tensor:
        """self *= other."""
        return self._change(operator.mul, operator.imul, other)

    def div_(self, other: Any) -> Tensor:
        """self /= other."""
        return self._change(operator.truediv, operator.itruediv, other)

    def pow_(self, exponent: Any) -> Tensor:
        """self **= exponent."""
        return self._change(operator.pow, operator.ipow, exponent)

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_
    __ipow__ = pow_

    def copy_(self, source: Any) -> Tensor:
        """Overwrite with `source`, broadcast to this shape; the gradient goes to `source` from then on.

        >>> zeros(2).copy_(tensor([1.0, 2.0]))
        tensor([1., 2.])
        """
        if graph.is_grad_enabled() and (
            self._requires_grad or (isinstance(source, Variable) and source._requires_grad)
        ):
            return self._become(op.SetItem.apply(self, source, ...))
        self._data[...] = beside(source._data if isinstance(source, Variable) else source, self._data)
        self._versions.version += 1
        return self

    def fill_(self, value: Number) -> Tensor:
        """Overwrite every element with one number."""
        if graph.is_grad_enabled() and self._requires_grad:
            return self._become(op.Full.apply(self, value))
        self._data[...] = value
        self._versions.version += 1
        return self

    def zero_(self) -> Tensor:
        """Overwrite with zeros."""
        return self.fill_(0)

    def clamp_(self, min: Number | None = None, max: Number | None = None) -> Tensor:
        """Limit every element to [min, max] in place."""
        return self._become(self.clamp(min, max))

    def exp_(self) -> Tensor:
        """self = exp(self) in place."""
        return self._become(self.exp())

    def sqrt_(self) -> Tensor:
        """self = sqrt(self) in place."""
        return self._become(self.sqrt())


Variable.tensor_type = Tensor


class _GradKeeper:
    """Hook of `Tensor.retain_grad`; knows its tensor weakly, because the tensor's node holds the hook."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)

    def __call__(self, gradient: Tensor) -> None:
        tensor = self._tensor()
        if tensor is not None:
            tensor._grad = gradient.clone() if tensor._grad is None else tensor._grad + gradient


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A Tensor with a copy of `data`; see `Tensor` for what that may be.

    >>> tensor([[1, 2], [3, 4]], dtype=np.float32).shape
    (2, 2)
    """
    array = _array(data)
    return Tensor(_placed(array.astype(dtype or array.dtype, copy=True), device), requires_grad)


def from_dlpack(x: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A Tensor of an array of any library (NumPy, CuPy, torch, JAX, ...), which share their memory from then on.

    Args:
        x: an array with ``__dlpack__``, or with ``__cuda_array_interface__`` alone; bfloat16 too, with ml_dtypes.
            What is read-only stays so: changing the Tensor in place raises ValueError.
        device: where the Tensor is to be, as `Tensor.to` has it; None leaves it where it is.
        copy: True always copies, False never; None only to another device.

    Raises:
        TypeError: no such array, or elements that are no numbers.
        BufferError: memory that neither NumPy nor CuPy can see, or `copy=False` to another device.

    >>> array = np.zeros(2, np.float32)
    >>> from_dlpack(array)[0] = 5.0
    >>> array
    array([5., 0.], dtype=float32)
    """
    if not hasattr(x, "__dlpack__") and not hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"x must be an array with __dlpack__ or __cuda_array_interface__, got {type(x).__name__}")
    array = _array(x)
    if copy is False and device is not None and parse_device(device) != device_of(array):
        raise BufferError(f"x is on {device_of(array)}: it does not get to {device} without a copy")
    placed = _placed(array, device)
    return Tensor(_copied(placed) if copy and placed is array else placed)


def zeros(*size: Any, dtype: Any = np.float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A Tensor of zeros; the sizes one by one or as a tuple.

    >>> zeros(2, 3).shape, zeros((2, 3), dtype=np.float64).dtype
    ((2, 3), dtype('float64'))
    """
    return Tensor(_placed(np.zeros(_sizes(size), dtype), device), requires_grad)


def ones(*size: Any, dtype: Any = np.float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A Tensor of ones; the sizes one by one or as a tuple.

    >>> ones(2)
    tensor([1., 1.])
    """
    return Tensor(_placed(np.ones(_sizes(size), dtype), device), requires_grad)


def destination(wanted: tuple[Any, ...], dtype: Any, device: Any) -> tuple[np.dtype[Any] | None, Any]:
    """What the arguments of a `to` ask for: a dtype or None, a device's name or None."""
    for one in wanted:
        if isinstance(one, Variable):
            dtype, device = one._data.dtype, device_of(one._data)
        elif is_device(one):
            if isinstance(one, str) and one.partition(":")[0] not in ("cpu", "cuda"):
                raise ValueError(f'a device is "cpu", "cuda" or "cuda:N", got {one!r}, which is no dtype either')
            device = one
        elif one is not None:
            dtype = one
    return None if dtype is None else np.dtype(dtype), device


def _placed(array: Array, device: Any) -> Array:
    return array if device is None else place(array, parse_device(device))


def _array(data: Any) -> Array:
    if isinstance(data, np.ndarray):
        array = data
    elif isinstance(data, Variable):
        return data._data
    elif isinstance(data, np.generic):
        array = np.asarray(data)
    elif is_array(data):
        array = data
    elif hasattr(data, "__dlpack__") or hasattr(data, "__cuda_array_interface__"):
        array = from_others(data.detach() if hasattr(data, "detach") else data)
    else:
        array = np.asarray(data)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
    if array.dtype.kind not in "fiubV" or array.dtype.names is not None:
        raise TypeError(f"a tensor holds numbers, got {type(data).__name__} of dtype {array.dtype}")
    return array


def is_last(memory_format: Any) -> bool:
    """Whether it is channels_last.  Raises TypeError if it is no memory format."""
    if not isinstance(memory_format, MemoryFormat):
        raise TypeError(
            f"memory_format must be pycnn.channels_last or pycnn.contiguous_format, got {memory_format!r:.60}"
        )
    return memory_format is channels_last


def _copied(array: Array) -> Array:
    """A copy that is channels-last where the array is."""
    return copied(array, not array.flags.c_contiguous and wants_channels_last(array))


def _is_floating(array: Array) -> bool:
    return array.dtype.kind in "fV"


def _tensor_or_array(name: str, value: Any) -> Any:
    if isinstance(value, Variable) or hasattr(value, "dtype"):
        return value
    raise TypeError(f"{name} must be a Tensor or an array, got {type(value).__name__}")


def _operands(a: Tensor, other: Any, divide: bool = False) -> tuple[Any, Any]:
    """Both operands with numbers and 0-d operands taken to the other's dtype, as PyTorch promotes; None if foreign."""
    dtype = a._data.dtype
    if isinstance(other, Variable):
        if other._data.dtype == dtype and not (divide and dtype.kind in "iub"):
            return a, other
        b: Any = other
    elif isinstance(other, (int, float, np.generic)):
        if dtype.kind in "fV":
            return a, dtype.type(other)
        if isinstance(other, (float, np.floating)) or divide:
            return a.to(np.float32), np.float32(other)
        return a, other
    elif hasattr(other, "dtype") and hasattr(other, "shape"):
        b = Tensor(other)
    else:
        return None, None
    kinds = dtype.kind in "fV", b.dtype.kind in "fV"
    if kinds == (False, False):
        return (a.to(np.float32), b.to(np.float32)) if divide else (a, b)
    if kinds == (True, False) or (kinds == (True, True) and b.ndim == 0 < a.ndim):
        return a, b.to(dtype)
    if kinds == (False, True) or a.ndim == 0 < b.ndim:
        return a.to(b.dtype), b
    return a, b


def _axis(dim: int, ndim: int) -> int:
    if not isinstance(dim, (int, np.integer)):
        raise TypeError(f"a dimension must be an int, got {dim!r}")
    if not -ndim <= dim < ndim:
        raise IndexError(f"dimension {dim} is out of range for a tensor of {ndim} dimensions")
    return dim % ndim


def _axes(dim: Dims, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if ndim == 0 and all(one in (0, -1) for one in dims):
        return ()
    return tuple([_axis(one, ndim) for one in dims]) or tuple(range(ndim))


def _kept(shape: tuple[int, ...], dim: Dims) -> tuple[int, ...]:
    """The shape of what was reduced over `dim`, with those dimensions kept."""
    axes = _axes(dim, len(shape))
    return tuple([1 if i in axes else size for i, size in enumerate(shape)])


def _data_of(value: Any) -> Any:
    return value._data if isinstance(value, Variable) else value


def _sizes(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple([part._data if isinstance(part, Variable) else part for part in index])
    return index._data if isinstance(index, Variable) else index
