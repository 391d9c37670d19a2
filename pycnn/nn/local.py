"""Locally connected layers: convolutions whose every window has filters of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.conv import checked_channels
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter, unset
from pycnn.spatial import each, sides_of
from pycnn.tensor import Tensor

__all__ = ["LocallyConnected1d", "LocallyConnected2d"]

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


class _LocallyConnected(Module):
    axes: ClassVar[int]
    function: ClassVar[Callable[..., Any]]

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: Ints,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        c, k, groups = checked_channels(in_channels, out_channels, groups)
        self.in_channels, self.out_channels, self.groups = c, k, groups
        self.input_size = each("input_size", input_size, 1, self.axes)
        self.kernel_size = each("kernel_size", kernel_size, 1, self.axes)
        self.stride = each("stride", stride, 1, self.axes)
        self.dilation = each("dilation", dilation, 1, self.axes)
        self.padding = padding
        sides = sides_of(padding, self.kernel_size, self.stride, self.dilation)
        out = []
        for i, size in enumerate(self.input_size):
            room = size + sides[2 * i] + sides[2 * i + 1] - self.dilation[i] * (self.kernel_size[i] - 1) - 1
            if room < 0:
                raise ValueError(f"kernel_size {self.kernel_size} does not fit an input of {self.input_size}")
            out.append(room // self.stride[i] + 1)
        self.weight = Parameter(unset((*out, k, c // groups, *self.kernel_size)))
        self.bias = Parameter(unset((k, *out))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew: uniform in +-1/sqrt(fan_in), as a convolution's."""
        bound = 1 / math.sqrt(self.in_channels // self.groups * math.prod(self.kernel_size))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        how = self.stride, self.padding, self.dilation, self.groups
        return type(self).function(x, self.weight, self.bias, *how)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}"
        )


class LocallyConnected1d(_LocallyConnected):
    """`pycnn.locally_connected1d` with filters and bias of its own; arguments as `LocallyConnected2d` has them.

    Attributes:
        weight: (Q, K, C // groups, S).
        bias: (K, Q) or None.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.LocallyConnected1d(2, 4, 9, 3)(np.zeros((1, 2, 9), np.float32)).shape
    (1, 4, 7)
    """

    axes = 1
    function = staticmethod(F.locally_connected1d)


class LocallyConnected2d(_LocallyConnected):
    """`pycnn.locally_connected2d` with filters and bias of its own, for inputs of one size.

    Args:
        in_channels, out_channels: C and K; `groups` divides both.
        input_size: (H, W), or one int for both: what the filters are counted for.
        kernel_size, stride, padding, dilation, groups, bias: as `Conv2d`.

    Attributes:
        weight: (P, Q, K, C // groups, R, S).
        bias: (K, P, Q) or None.

    Raises:
        ValueError, TypeError: a size out of range, channels that the groups do not divide, or windows that do not fit.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.LocallyConnected2d(3, 8, (6, 7), 3, padding=1)(np.zeros((1, 3, 6, 7), np.float32)).shape
    (1, 8, 6, 7)
    """

    axes = 2
    function = staticmethod(F.locally_connected2d)
