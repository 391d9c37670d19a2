"""Deformable convolution as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional as F
from pycnn.nn.conv import Conv2d
from pycnn.tensor import Tensor

__all__ = ["DeformConv2d"]

IntPair = int | Sequence[int]


class DeformConv2d(Conv2d):
    """Deformable convolution; torchvision's, with its parameters' names.  The offsets come from another layer.

    Args, Raises: as `pycnn.nn.Conv2d`, and in the call as `pycnn.functional.deform_conv2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> x, offset = np.zeros((1, 4, 8, 8), np.float32), np.zeros((1, 18, 8, 8), np.float32)
    >>> nn.DeformConv2d(4, 6, 3, padding=1)(x, offset).shape
    (1, 6, 8, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, x: Any, offset: Any, mask: Any = None) -> Tensor:  # type: ignore[override]
        padding: Any = self.padding
        return F.deform_conv2d(x, offset, self.weight, self.bias, self.stride, padding, self.dilation, mask)
