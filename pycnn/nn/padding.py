"""Padding layers; arguments and meaning are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]

_SIDES = {1: "(left, right)", 2: "(left, right, top, bottom)", 3: "(left, right, top, bottom, front, back)"}


class _Pad(Module):
    """`pycnn.functional.pad` of the last `axes` axes; `padding` is an int or a pair for each, the last axis first."""

    axes: ClassVar[int]
    mode: ClassVar[str] = "constant"
    value: float = 0.0

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        sides = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * (2 * self.axes)
        if len(sides) != 2 * self.axes:
            raise ValueError(f"padding must be an int or {_SIDES[self.axes]}, got {padding!r}")
        self.padding = tuple([whole(f"padding[{i}]", side, -(2**40)) for i, side in enumerate(sides)])

    def forward(self, x: Any) -> Tensor:
        return F.pad(x, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ZeroPad1d(_Pad):
    """Zeros around the last axis; `padding` is an int or (left, right)."""

    axes = 1


class ZeroPad2d(_Pad):
    """Zeros around the last two axes; `padding` is an int or (left, right, top, bottom).

    >>> import pycnn
    >>> pycnn.nn.ZeroPad2d((1, 2, 0, 0))(pycnn.zeros(1, 1, 4, 4)).shape
    (1, 1, 4, 7)
    """

    axes = 2


class ZeroPad3d(_Pad):
    """Zeros around the last three axes; `padding` is an int or (left, right, top, bottom, front, back)."""

    axes = 3


class ConstantPad1d(_ConstantPad):
    """`value` around the last axis; `padding` is an int or (left, right)."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two axes; `padding` is an int or (left, right, top, bottom).

    >>> import pycnn
    >>> pycnn.nn.ConstantPad2d((1, 2, 0, 0), 1.0)(pycnn.zeros(1, 1, 4, 4)).shape
    (1, 1, 4, 7)
    """

    axes = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three axes; `padding` is an int or (left, right, top, bottom, front, back)."""

    axes = 3


class ReflectionPad1d(_Pad):
    """What lies behind the edge, mirrored, around the last axis; `padding` is an int or (left, right)."""

    axes = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """What lies behind the edge, mirrored, around the last two axes; `padding` is an int or (left, right, top, bottom).

    >>> import pycnn
    >>> pycnn.nn.ReflectionPad2d((1, 2, 0, 0))(pycnn.zeros(1, 1, 4, 4)).shape
    (1, 1, 4, 7)
    """

    axes = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """What lies behind the edge, mirrored, around the last three axes.

    `padding` is an int or (left, right, top, bottom, front, back).
    """

    axes = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """The edge repeated around the last axis; `padding` is an int or (left, right)."""

    axes = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """The edge repeated around the last two axes; `padding` is an int or (left, right, top, bottom).

    >>> import pycnn
    >>> pycnn.nn.ReplicationPad2d((1, 2, 0, 0))(pycnn.zeros(1, 1, 4, 4)).shape
    (1, 1, 4, 7)
    """

    axes = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """The edge repeated around the last three axes; `padding` is an int or (left, right, top, bottom, front, back)."""

    axes = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """The opposite side around the last axis; `padding` is an int or (left, right)."""

    axes = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """The opposite side around the last two axes; `padding` is an int or (left, right, top, bottom).

    >>> import pycnn
    >>> pycnn.nn.CircularPad2d((1, 2, 0, 0))(pycnn.zeros(1, 1, 4, 4)).shape
    (1, 1, 4, 7)
    """

    axes = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """The opposite side around the last three axes; `padding` is an int or (left, right, top, bottom, front, back)."""

    axes = 3
    mode = "circular"
