"""Convolution layers of one, two and three axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pycnn import functional as F
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.nn.parameter import Parameter, unset
from pycnn.shape import whole
from pycnn.spatial import each, sides_of
from pycnn.tensor import Tensor

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

Ints = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What the layers share, whatever the number of their axes."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Any]]

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        algo: str | dict[str, str] = "auto",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = checked_channels(in_channels, out_channels, groups)
        self.kernel_size = each("kernel_size", kernel_size, 1, self.axes)
        self.stride = each("stride", stride, 1, self.axes)
        self.dilation = each("dilation", dilation, 1, self.axes)
        sides_of(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding
        if padding_mode not in _MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(_MODES)}, got {padding_mode!r}")
        self.padding_mode = padding_mode
        self.algo = algo
        self.weight = Parameter(unset((self.out_channels, self.in_channels // self.groups, *self.kernel_size)))
        self.bias = Parameter(unset((self.out_channels,))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.default_(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            sides = sides_of(padding, self.kernel_size, self.stride, self.dilation)
            pairs = zip(sides[-2::-2], sides[::-2], strict=True)  # the last axis first
            x, padding = F.pad(x, [side for pair in pairs for side in pair], self.padding_mode), 0
        how = self.stride, padding, self.dilation, self.groups
        return type(self).function(x, self.weight, self.bias, *how, algo=self.algo)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}" + _settings(self)
        return text + (f", padding_mode={self.padding_mode!r}" if self.padding_mode != "zeros" else "")


class Conv1d(_Convolution):
    """1-D convolution, `pycnn.conv1d` with filters and bias of its own; arguments as `Conv2d` has them.

    Attributes:
        weight: (K, C // groups, S).
        bias: (K,) or None.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.Conv1d(3, 8, 3, padding=1, padding_mode="circular")(np.zeros((1, 3, 32), np.float32)).shape
    (1, 8, 32)
    """

    axes = 1
    function = staticmethod(F.conv1d)


class Conv2d(_Convolution):
    """2-D convolution, `pycnn.conv2d` with filters and bias of its own.

    Args:
        in_channels, out_channels: C and K; `groups` divides both.
        kernel_size, stride, dilation: an int or a pair (height, width).
        padding: as `pycnn.conv2d` takes it: an int, (h, w), ((top, bottom), (left, right)), (top, bottom, left, right),
            "same" or "valid".
        groups: a filter sees ``in_channels // groups`` channels.
        bias: whether to add one value a filter.
        padding_mode: what the padding holds: "zeros", or as `pycnn.functional.pad` has it "reflect", "replicate" or
            "circular".
        algo: the convolution algorithm, "auto" or a name, for all three passes, or a dict by pass.

    Attributes:
        weight: (K, C // groups, R, S), drawn as PyTorch does: uniform in +-1/sqrt(fan_in).
        bias: (K,), drawn likewise, or None.

    Raises:
        ValueError, TypeError: a size out of range, channels that the groups do not divide, a bad `padding` or
            `padding_mode`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.Conv2d(3, 8, 3, padding="same")(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    """

    axes = 2
    function = staticmethod(F.conv2d)


class Conv3d(_Convolution):
    """3-D convolution, `pycnn.conv3d` with filters and bias of its own; arguments as `Conv2d` has them, by three.

    Attributes:
        weight: (K, C // groups, T, R, S).
        bias: (K,) or None.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.Conv3d(3, 8, (3, 1, 1), padding="same")(np.zeros((1, 3, 4, 5, 6), np.float32)).shape
    (1, 8, 4, 5, 6)
    """

    axes = 3
    function = staticmethod(F.conv3d)


class _Transposed(Module):
    """What the transposed layers share, whatever the number of their axes."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Any]]

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        *,
        algo: str | dict[str, str] = "auto",
    ) -> None:
        super().__init__()
        if padding_mode != "zeros":
            raise ValueError(f"a transposed convolution has padding_mode='zeros' alone, got {padding_mode!r}")
        self.in_channels, self.out_channels, self.groups = checked_channels(in_channels, out_channels, groups)
        self.kernel_size = each("kernel_size", kernel_size, 1, self.axes)
        self.stride = each("stride", stride, 1, self.axes)
        self.padding = each("padding", padding, 0, self.axes)
        self.output_padding = each("output_padding", output_padding, 0, self.axes)
        self.dilation = each("dilation", dilation, 1, self.axes)
        self.algo = algo
        self.weight = Parameter(unset((self.in_channels, self.out_channels // self.groups, *self.kernel_size)))
        self.bias = Parameter(unset((self.out_channels,))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.default_(self.weight, self.bias)

    def forward(self, x: Any, output_size: Sequence[int] | None = None) -> Tensor:
        """y, of `output_size` (its last dimensions) where that is given, else with the layer's `output_padding`."""
        extra = self.output_padding if output_size is None else self._extra(x.shape, output_size)
        how = self.stride, self.padding, extra, self.groups, self.dilation
        return type(self).function(x, self.weight, self.bias, *how, algo=self.algo)

    def _extra(self, x_shape: Sequence[int], output_size: Sequence[int]) -> tuple[int, ...]:
        """The output padding that gives `output_size`.  Raises ValueError for a size that none gives."""
        wanted = [whole(f"output_size[{i}]", size, 1) for i, size in enumerate(output_size)]
        if len(wanted) not in (self.axes, self.axes + 1, self.axes + 2):
            raise ValueError(f"output_size must have {self.axes} sizes, got {tuple(output_size)}")
        extra = []
        for i, size in enumerate(wanted[-self.axes :]):
            span = self.dilation[i] * (self.kernel_size[i] - 1) + 1
            least = (x_shape[i - self.axes] - 1) * self.stride[i] - 2 * self.padding[i] + span
            if not least <= size < least + self.stride[i]:
                most = least + self.stride[i] - 1
                raise ValueError(f"output_size must lie between {least} and {most} in axis {i}, got {size}")
            extra.append(size - least)
        return tuple(extra)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}" + _settings(self)
        return text + (f", output_padding={self.output_padding}" if any(self.output_padding) else "")


class ConvTranspose1d(_Transposed):
    """Transposed 1-D convolution; arguments as `ConvTranspose2d` has them.

    Attributes:
        weight: (in_channels, out_channels // groups, S).
        bias: (out_channels,) or None.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.ConvTranspose1d(8, 3, 4, stride=2, padding=1)(np.zeros((1, 8, 16), np.float32)).shape
    (1, 3, 32)
    """

    axes = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_Transposed):
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
        ValueError, TypeError: a size out of range, channels that the groups do not divide, or a `padding_mode` other
            than "zeros".

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(np.zeros((1, 8, 16, 16), np.float32)).shape
    (1, 3, 32, 32)
    """

    axes = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """Transposed 3-D convolution; arguments as `ConvTranspose2d` has them, by three.

    Attributes:
        weight: (in_channels, out_channels // groups, T, R, S).
        bias: (out_channels,) or None.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.ConvTranspose3d(8, 3, 2, stride=2)(np.zeros((1, 8, 2, 3, 4), np.float32)).shape
    (1, 3, 4, 6, 8)
    """

    axes = 3
    function = staticmethod(F.conv_transpose3d)


def checked_channels(in_channels: int, out_channels: int, groups: int) -> tuple[int, int, int]:
    """The three as ints.  ValueError for one below 1, and for groups that do not divide both channel counts."""
    c, k = whole("in_channels", in_channels, 1), whole("out_channels", out_channels, 1)
    if c % whole("groups", groups, 1) or k % groups:
        raise ValueError(f"groups must divide both channel counts, got groups={groups}, {c} in, {k} out")
    return c, k, groups


def _settings(layer: _Convolution | _Transposed) -> str:
    text = f", kernel_size={layer.kernel_size}, stride={layer.stride}"
    if layer.padding not in (0, (0,) * layer.axes, "valid"):
        text += f", padding={layer.padding!r}"
    if any(reach != 1 for reach in layer.dilation):
        text += f", dilation={layer.dilation}"
    if layer.groups != 1:
        text += f", groups={layer.groups}"
    if layer.bias is None:
        text += ", bias=False"
    return text + (f", algo={layer.algo!r}" if layer.algo != "auto" else "")
