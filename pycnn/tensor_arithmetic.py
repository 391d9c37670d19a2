"""Tensor's arithmetic: operators, comparisons, functions of every element and reductions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pycnn import arithmetic as op
from pycnn import graph
from pycnn import movement as move
from pycnn.arrays import is_floating, module_of
from pycnn.graph import Variable
from pycnn.tensor_shape import Dims, Shaped, axes_of, kept

if TYPE_CHECKING:
    from pycnn.tensor import Tensor

__all__ = ["Arithmetic", "Number"]

Number = int | float


class Arithmetic(Shaped):
    """What of `pycnn.Tensor` computes."""

    __slots__ = ()

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
        if isinstance(other, (int, float)) and is_floating(self._data):
            return op.PowNumber.apply(self, other)
        a, b = _operands(self, other)
        return op.Pow.apply(a, b) if a is not None else NotImplemented

    def __rpow__(self, other: Any) -> Tensor:
        a, b = _operands(self, other)
        return op.Pow.apply(graph.wrap(module_of(self._data).asarray(b)), a) if a is not None else NotImplemented

    def __matmul__(self, other: Any) -> Tensor:
        """Matrix product over the last two dimensions, broadcast over the others.

        >>> import pycnn
        >>> (pycnn.tensor([[1.0, 2.0]]) @ pycnn.tensor([[3.0], [4.0]])).item()
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

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Tensor:
        """Absolute values; the derivative at 0 is 0."""
        return op.Abs.apply(self)

    def add(self, other: Any, *, alpha: Number = 1) -> Tensor:
        """self + alpha * other.

        >>> import pycnn
        >>> pycnn.ones(2).add(pycnn.ones(2), alpha=3)
        tensor([4., 4.])
        """
        return self + (other if alpha == 1 else other * alpha)

    def sub(self, other: Any, *, alpha: Number = 1) -> Tensor:
        """self - alpha * other."""
        return self - (other if alpha == 1 else other * alpha)

    mul = __mul__

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """self / other; rounded towards zero ("trunc") or down ("floor"), which has no gradient.

        >>> import pycnn
        >>> pycnn.tensor([-3.0]).div(2.0, rounding_mode="trunc"), pycnn.tensor([-3.0]).div(2.0, rounding_mode="floor")
        (tensor([-1.]), tensor([-2.]))
        """
        if rounding_mode is None:
            return self / other
        if rounding_mode not in ("trunc", "floor"):
            raise ValueError(f"rounding_mode must be None, 'trunc' or 'floor', got {rounding_mode!r}")
        a, b = _operands(self, other)
        x, y = a._data, _data_of(b)
        if rounding_mode == "floor":
            return graph.wrap(module_of(self._data).asarray(x // y))
        quotient = module_of(self._data).trunc(x / y)
        return graph.wrap(module_of(self._data).asarray(quotient.astype(x.dtype)))

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
        return graph.wrap(module_of(self._data).asarray(result))

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
        return graph.wrap(module_of(self._data).asarray(~self._data))

    def all(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Whether every element is true, or every one over dimensions; `dim` and `keepdim` as `sum`."""
        return self._truth("all", dim, keepdim)

    def any(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Whether an element is true, or one over dimensions; `dim` and `keepdim` as `sum`."""
        return self._truth("any", dim, keepdim)

    def _truth(self, name: str, dim: Dims, keepdim: bool) -> Tensor:
        result = getattr(self._data != 0, name)(axis=axes_of(dim, self._data.ndim))
        if keepdim:
            result = result.reshape(kept(self._data.shape, dim))
        return graph.wrap(module_of(self._data).asarray(result))

    def isnan(self) -> Tensor:
        """Where the elements are NaN."""
        return graph.wrap(module_of(self._data).asarray(self._data != self._data))

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

        >>> import pycnn
        >>> pycnn.tensor([-2.0, 0.5, 2.0]).clamp(0, 1)
        tensor([0. , 0.5, 1. ])
        """
        if min is None and max is None:
            raise ValueError("clamp needs min, max or both")
        if not any(hasattr(bound, "shape") for bound in (min, max)):
            return op.Clamp.apply(self, min, max)
        result: Any = self
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

        >>> import pycnn
        >>> pycnn.tensor([1.0, 5.0]).maximum(3.0)
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

        >>> import pycnn
        >>> pycnn.ones(2, 3).sum(1)
        tensor([3., 3.])
        """
        return op.Sum.apply(self, axes_of(dim, self._data.ndim), keepdim)

    def mean(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Mean of all elements, or over one or several dimensions; integers give floats.

        Args:
            dim, keepdim: as `sum`.
        """
        axes = axes_of(dim, self._data.ndim)
        return op.Sum.apply(self, axes, keepdim) / math.prod([self._data.shape[axis] for axis in axes])

    def var(
        self, dim: Dims = None, correction: Number | None = 1, keepdim: bool = False, unbiased: bool | None = None
    ) -> Tensor:
        """sum((x - mean)^2) / (n - correction); correction=0 is the biased variance.

        Args:
            dim, keepdim: as `sum`.
            correction: what is taken from the number of elements; None is 1.
            unbiased: True or False for a correction of 1 or 0; also in the place of `dim`.

        >>> import pycnn
        >>> pycnn.tensor([1.0, 3.0]).var().item(), pycnn.tensor([1.0, 3.0]).var(unbiased=False).item()
        (2.0, 1.0)
        """
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        correction = 1 if correction is None else correction
        correction = correction if unbiased is None else int(unbiased)
        axes = axes_of(dim, self._data.ndim)
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
        return op.Extreme.apply(self, axes_of(dim, self._data.ndim), keepdim, True)

    def amin(self, dim: Dims = None, keepdim: bool = False) -> Tensor:
        """Smallest element over dimensions; elements that tie share the gradient."""
        return op.Extreme.apply(self, axes_of(dim, self._data.ndim), keepdim, False)

    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """Largest element; with `dim`, the pair (values, indices) along it; with a tensor, `maximum`.

        >>> import pycnn
        >>> pycnn.tensor([[1.0, 5.0], [4.0, 2.0]]).max(1)
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
        values = move.TakeAlong.apply(self, index, dim % self._data.ndim)
        return (values, index) if keepdim else (values.squeeze(dim), index.squeeze(dim))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the first largest element (in the flattened tensor without `dim`).

        >>> import pycnn
        >>> pycnn.tensor([[1.0, 5.0], [4.0, 2.0]]).argmax(1)
        tensor([1, 0])
        """
        result = self._data.argmax(axis=dim, keepdims=keepdim)
        return graph.wrap(module_of(self._data).asarray(result))

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Index of the first smallest element (in the flattened tensor without `dim`)."""
        result = self._data.argmin(axis=dim, keepdims=keepdim)
        return graph.wrap(module_of(self._data).asarray(result))


def _tensor_or_array(name: str, value: Any) -> Any:
    if isinstance(value, Variable) or hasattr(value, "dtype"):
        return value
    raise TypeError(f"{name} must be a Tensor or an array, got {type(value).__name__}")


def _operands(a: Any, other: Any, divide: bool = False) -> tuple[Any, Any]:
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
        b = Variable.tensor_type(other)
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


def _data_of(value: Any) -> Any:
    return value._data if isinstance(value, Variable) else value
