"""Tensor: an array and its place in the graph.  Names and meanings are PyTorch's.

What differs: ``t.data`` is the array itself (NumPy's or CuPy's), which says where the tensor is; and an operation that
a method does not offer is a function of `pycnn.functional`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from pycnn import _dlpack, autograd, graph
from pycnn.arrays import copied, device_of, from_others, is_array, is_floating, module_of, parse_device, place, to_host
from pycnn.graph import Variable, Versions
from pycnn.memory_format import wants_channels_last
from pycnn.tensor_changes import Changes
from pycnn.tensor_shape import sizes_of

__all__ = ["Tensor", "from_dlpack", "ones", "tensor", "zeros"]

Array = Any


class Tensor(Changes):
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
        if value and not is_floating(self._data):
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
    return Tensor(_placed(np.zeros(sizes_of(size), dtype), device), requires_grad)


def ones(*size: Any, dtype: Any = np.float32, requires_grad: bool = False, device: Any = None) -> Tensor:
    """A Tensor of ones; the sizes one by one or as a tuple.

    >>> ones(2)
    tensor([1., 1.])
    """
    return Tensor(_placed(np.ones(sizes_of(size), dtype), device), requires_grad)


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


def _copied(array: Array) -> Array:
    """A copy that is channels-last where the array is."""
    return copied(array, not array.flags.c_contiguous and wants_channels_last(array))
