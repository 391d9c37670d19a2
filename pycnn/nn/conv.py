"""Convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter, unset
from pycnn.shape import normalize_padding, pair, whole
from pycnn.tensor import Tensor

__all__ = ["Conv2d", "ConvTranspose2d"]

IntPair = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


class Conv2d(Module):
    """2-D convolution, `pycnn.conv2d` with filters and bias of its own.

    Args:
        in_channels, out_channels: C and K; `groups` divides both.
        kernel_size, stride, dilation: an int or a pair (height, width).
        padding: as `pycnn.conv2d` takes it: an int, (h, w), ((top, bottom), (left, right)), (top, bottom, left, right),
            "same" or "valid".
        groups: a filter sees ``in_channels // groups`` channels.
        bias: whether to add one value a filter.
        algo: the convolution algorithm, "auto" or a name, for all three passes, or a dict by pass.

    Attributes:
        weight: (K, C // groups, R, S), drawn as PyTorch does: uniform in +-1/sqrt(fan_in).
        bias: (K,), drawn likewise, or None.

    Raises:
        ValueError, TypeError: a size out of range, channels that the groups do not divide, or a bad `padding`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.Conv2d(3, 8, 3, padding="same")(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        algo: str | dict[str, str] = "auto",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = _channels(in_channels, out_channels, groups)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.dilation = pair("dilation", dilation, 1)
        normalize_padding(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding
        self.algo = algo
        self.weight = Parameter(unset((self.out_channels, self.in_channels // self.groups, *self.kernel_size)))
        self.bias = Parameter(unset((self.out_channels,))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.default_(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, algo=self.algo
        )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}" + _settings(self, self.bias is None)


class ConvTranspose2d(Module):
    """Transposed 2-D convolution (the input gradient of a convolution as a layer), with PyTorch's arguments.

    The output is (H - 1)*stride - top - bottom + dilation*(R - 1) + output_padding + 1 high (the width likewise).

    Args:
        in_channels, out_channels: channels of the input and of the output; `groups` divides both.
        kernel_size, stride, dilation: an int or a pair (height, width).
        padding: an int or a pair: how much of the full output is cut from each side.
        output_padding: an int or a pair, smaller than stride or dilation: rows and columns added below and right.

    Attributes:
        weight: (in_channels, out_channels // groups, R, S).
        bias: (out_channels,) or None.

    Raises:
        ValueError, TypeError: a size out of range, or channels that the groups do not divide.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(np.zeros((1, 8, 16, 16), np.float32)).shape
    (1, 3, 32, 32)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        output_padding: IntPair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntPair = 1,
        *,
        algo: str | dict[str, str] = "auto",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = _channels(in_channels, out_channels, groups)
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)
        self.output_padding = pair("output_padding", output_padding, 0)
        self.dilation = pair("dilation", dilation, 1)
        self.algo = algo
        self.weight = Parameter(unset((self.in_channels, self.out_channels // self.groups, *self.kernel_size)))
        self.bias = Parameter(unset((self.out_channels,))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.default_(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
            algo=self.algo,
        )

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}" + _settings(self, self.bias is None)
        return text + (f", output_padding={self.output_padding}" if self.output_padding != (0, 0) else "")


def _channels(in_channels: int, out_channels: int, groups: int) -> tuple[int, int, int]:
    c, k = whole("in_channels", in_channels, 1), whole("out_channels", out_channels, 1)
    if c % whole("groups", groups, 1) or k % groups:
        raise ValueError(f"groups must divide both channel counts, got groups={groups}, {c} in, {k} out")
    return c, k, groups


def _settings(layer: Conv2d | ConvTranspose2d, no_bias: bool) -> str:
    text = f", kernel_size={layer.kernel_size}, stride={layer.stride}"
    if layer.padding not in (0, (0, 0), "valid"):
        text += f", padding={layer.padding!r}"
    if layer.dilation != (1, 1):
        text += f", dilation={layer.dilation}"
    if layer.groups != 1:
        text += f", groups={layer.groups}"
    if no_bias:
        text += ", bias=False"
    return text + (f", algo={layer.algo!r}" if layer.algo != "auto" else "")
