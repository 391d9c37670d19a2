"""Tensor's methods that compute nothing: its shape, how and where its elements lie, and parts of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import movement as move
from pycnn.arrays import device_of, is_device, parse_device
from pycnn.graph import Variable
from pycnn.memory_format import (
    MemoryFormat,
    contiguous_format,
    is_channels_last,
    is_last,
    lies_as,
    wants_channels_last,
)

if TYPE_CHECKING:
    from pycnn.tensor import Tensor

__all__ = ["Dims", "Shaped", "axes_of", "destination", "index_of", "kept", "sizes_of"]

Dims = int | Sequence[int] | None


class Shaped(Variable):
    """What of `pycnn.Tensor` leaves the elements as they are."""

    __slots__ = ()

    def reshape(self, *shape: Any) -> Tensor:
        """The elements in another shape; a view where the memory allows it.

        >>> import pycnn
        >>> pycnn.ones(2, 3).reshape(3, -1).shape
        (3, 2)
        """
        return move.Reshape.apply(self, sizes_of(shape))

    def view(self, *shape: Any) -> Tensor:
        """`reshape` that never copies.  Raises ValueError where the memory does not allow it."""
        result = move.Reshape.apply(self, sizes_of(shape))
        if result._versions is not self._versions and self._data.size:
            raise ValueError(f"view of shape {sizes_of(shape)} needs a copy of this strided tensor; use reshape")
        return result

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Dimensions `start_dim` to `end_dim` (inclusive) as one."""
        shape, n = self._data.shape, self._data.ndim
        if n == 0:
            return self.reshape(1)
        first, last = _axis(start_dim, n), _axis(end_dim, n)
        if first > last:
            raise ValueError(f"start_dim {start_dim} lies behind end_dim {end_dim}")
        return move.Reshape.apply(self, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two dimensions exchanged (a view)."""
        n = self._data.ndim
        if n == 0 and {dim0, dim1} <= {0, -1}:
            return move.Permute.apply(self, ())
        axes = list(range(n))
        first, second = _axis(dim0, n), _axis(dim1, n)
        axes[first], axes[second] = second, first
        return move.Permute.apply(self, tuple(axes))

    def permute(self, *dims: Any) -> Tensor:
        """The dimensions in another order (a view).

        >>> import pycnn
        >>> pycnn.ones(2, 3, 4).permute(2, 0, 1).shape
        (4, 2, 3)
        """
        n = self._data.ndim
        return move.Permute.apply(self, tuple([_axis(dim, n) for dim in sizes_of(dims)]))

    @property
    def T(self) -> Tensor:
        """All dimensions in reverse order (a view)."""
        return move.Permute.apply(self, tuple(reversed(range(self._data.ndim))))

    def squeeze(self, dim: Dims = None) -> Tensor:
        """Without the dimensions of size 1, or without those of `dim` that have size 1.

        >>> import pycnn
        >>> pycnn.ones(1, 3, 1).squeeze().shape, pycnn.ones(1, 3, 1).squeeze(0).shape
        ((3,), (3, 1))
        """
        axes = () if isinstance(dim, (tuple, list)) and not dim else axes_of(dim, self._data.ndim)
        shape = tuple([size for i, size in enumerate(self._data.shape) if i not in axes or size != 1])
        return move.Reshape.apply(self, shape)

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new dimension of size 1 at `dim`.

        >>> import pycnn
        >>> pycnn.ones(3).unsqueeze(0).shape
        (1, 3)
        """
        place = _axis(dim, self._data.ndim + 1)
        shape = self._data.shape
        return move.Reshape.apply(self, (*shape[:place], 1, *shape[place:]))

    def expand(self, *sizes: Any) -> Tensor:
        """Repeated along dimensions of size 1 (a read-only view); -1 leaves a size as it is.

        >>> import pycnn
        >>> pycnn.ones(3, 1).expand(2, -1, 4).shape
        (2, 3, 4)
        """
        wanted = sizes_of(sizes)
        lead = len(wanted) - self._data.ndim
        shape = tuple([self._data.shape[i - lead] if size == -1 else size for i, size in enumerate(wanted)])
        return move.Expand.apply(self, shape)

    def is_contiguous(self, memory_format: MemoryFormat = contiguous_format) -> bool:
        """Whether the elements are one piece of memory in C order or, asked for it, channels-last.

        >>> import pycnn
        >>> pycnn.ones(2, 3, 4, 4).is_contiguous(), pycnn.ones(2, 3, 4, 4).is_contiguous(pycnn.channels_last)
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

        >>> import pycnn
        >>> pycnn.ones(2, 3, 4, 5).contiguous(memory_format=pycnn.channels_last).data.strides
        (240, 4, 60, 12)
        """
        array = self._data
        itself: Any = self
        if not is_last(memory_format):
            return itself if array.flags.c_contiguous else move.Clone.apply(self, False)
        if array.ndim != 4:
            raise ValueError(f"only tensors of 4 dimensions lie channels-last, got shape {tuple(array.shape)}")
        if not is_channels_last(array):
            return move.Clone.apply(self, True)
        if wants_channels_last(array):
            return itself
        n, c, h, w = array.shape  # one channel or one pixel: the same memory, seen otherwise
        return move.Permute.apply(move.Reshape.apply(self, (n, h, w, c)), (0, 3, 1, 2))

    def clone(self) -> Tensor:
        """A copy, channels-last if the tensor is, else in C order; the gradient passes through."""
        last = not self._data.flags.c_contiguous and wants_channels_last(self._data)
        return move.Clone.apply(self, last)

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

        >>> import pycnn
        >>> pycnn.ones(2).to(np.float64).dtype
        dtype('float64')
        >>> pycnn.ones(2).to("cpu", np.float16).device
        'cpu'
        """
        flags = [one for one in wanted if isinstance(one, bool)]
        copy = copy or flags[1:] == [True]
        dtype, device = destination(tuple([one for one in wanted if not isinstance(one, bool)]), dtype, device)
        result: Any = self
        if device is not None and (name := parse_device(device)) != device_of(self._data):
            result = move.Move.apply(result, name)
        if dtype is not None and dtype != result._data.dtype:
            result = move.Cast.apply(result, dtype)
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
        return move.GetItem.apply(self, index_of(index))


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


def _axis(dim: int, ndim: int) -> int:
    if not isinstance(dim, (int, np.integer)):
        raise TypeError(f"a dimension must be an int, got {dim!r}")
    if not -ndim <= dim < ndim:
        raise IndexError(f"dimension {dim} is out of range for a tensor of {ndim} dimensions")
    return dim % ndim


def axes_of(dim: Dims, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if ndim == 0 and all(one in (0, -1) for one in dims):
        return ()
    return tuple([_axis(one, ndim) for one in dims]) or tuple(range(ndim))


def kept(shape: tuple[int, ...], dim: Dims) -> tuple[int, ...]:
    """The shape of what was reduced over `dim`, with those dimensions kept."""
    axes = axes_of(dim, len(shape))
    return tuple([1 if i in axes else size for i, size in enumerate(shape)])


def sizes_of(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


def index_of(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple([part._data if isinstance(part, Variable) else part for part in index])
    return index._data if isinstance(index, Variable) else index
