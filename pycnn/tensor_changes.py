"""Tensor's methods that change its elements in place, recorded where a gradient may be wanted."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Self

from pycnn import graph
from pycnn import movement as move
from pycnn.arrays import beside, is_floating, module_of, same_elements
from pycnn.graph import Variable
from pycnn.tensor_arithmetic import Arithmetic, Number
from pycnn.tensor_shape import index_of

__all__ = ["Changes"]


class Changes(Arithmetic):
    """What of `pycnn.Tensor` changes it."""

    __slots__ = ()

    def __setitem__(self, index: Any, value: Any) -> None:
        index = index_of(index)
        if graph.is_grad_enabled() and (self._requires_grad or (isinstance(value, Variable) and value._requires_grad)):
            if (
                isinstance(value, Variable)
                and value._versions is self._versions
                and self._seen == self._versions.recorded - 1
                and same_elements(self._data[index], value._data)
            ):
                # base[index] += v: Python changes the view base[index], then writes it back to where it lies.
                self._seen = self._versions.recorded
            self._become(move.SetItem.apply(self, value, index))
        else:
            self._data[index] = beside(value._data if isinstance(value, Variable) else value, self._data)
            self._versions.version += 1

    def _become(self, result: Any) -> Self:
        """Take the value and the history of `result`, which was computed from this tensor and has its shape."""
        shape = self._data.shape
        if result._data.shape != shape:
            raise ValueError(f"a tensor of shape {shape} cannot hold a result of shape {result.shape} in place")
        if result._requires_grad:
            if self._requires_grad and self._node is None:
                raise RuntimeError(
                    "a leaf that requires a gradient cannot be changed in place while it is recorded; use no_grad()"
                )
            if not is_floating(self._data):
                raise RuntimeError(f"a tensor of dtype {self._data.dtype} cannot take part in recorded changes")
            result = result.to(self._data.dtype)
        module_of(self._data).copyto(self._data, result._data, casting="same_kind")
        self._versions.version += 1
        if result._requires_grad:
            self._node, self._index = result._node, result._index
            self._requires_grad = True
            self._versions.recorded += 1
            self._seen = self._versions.recorded
        return self

    def _change(self, function: Callable[[Any, Any], Any], in_place: Callable[[Any, Any], Any], other: Any) -> Self:
        """self = function(self, other) in place."""
        if graph.is_grad_enabled() and (self._requires_grad or (isinstance(other, Variable) and other._requires_grad)):
            return self._become(function(self, other))
        in_place(self._data, other._data if isinstance(other, Variable) else other)
        self._versions.version += 1
        return self

    def add_(self, other: Any, *, alpha: Number = 1) -> Self:
        """self += alpha * other."""
        return self._change(operator.add, operator.iadd, other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, *, alpha: Number = 1) -> Self:
        """self -= alpha * other."""
        return self._change(operator.sub, operator.isub, other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Self:
        """self *= other."""
        return self._change(operator.mul, operator.imul, other)

    def div_(self, other: Any) -> Self:
        """self /= other."""
        return self._change(operator.truediv, operator.itruediv, other)

    def pow_(self, exponent: Any) -> Self:
        """self **= exponent."""
        return self._change(operator.pow, operator.ipow, exponent)

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_
    __ipow__ = pow_

    def copy_(self, source: Any) -> Self:
        """Overwrite with `source`, broadcast to this shape; the gradient goes to `source` from then on.

        >>> import pycnn
        >>> pycnn.zeros(2).copy_(pycnn.tensor([1.0, 2.0]))
        tensor([1., 2.])
        """
        if graph.is_grad_enabled() and (
            self._requires_grad or (isinstance(source, Variable) and source._requires_grad)
        ):
            return self._become(move.SetItem.apply(self, source, ...))
        self._data[...] = beside(source._data if isinstance(source, Variable) else source, self._data)
        self._versions.version += 1
        return self

    def fill_(self, value: Number) -> Self:
        """Overwrite every element with one number."""
        if graph.is_grad_enabled() and self._requires_grad:
            return self._become(move.Full.apply(self, value))
        self._data[...] = value
        self._versions.version += 1
        return self

    def zero_(self) -> Self:
        """Overwrite with zeros."""
        return self.fill_(0)

    def clamp_(self, min: Number | None = None, max: Number | None = None) -> Self:
        """Limit every element to [min, max] in place."""
        return self._become(self.clamp(min, max))

    def exp_(self) -> Self:
        """self = exp(self) in place."""
        return self._become(self.exp())

    def sqrt_(self) -> Self:
        """self = sqrt(self) in place."""
        return self._become(self.sqrt())
