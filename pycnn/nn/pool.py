"""Pooling layers; arguments and meaning are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "MaxPool2d"]

IntPair = int | Sequence[int]
OutSize = int | None | Sequence[int | None]


class MaxPool2d(Module):
    """Maximum of each window; `stride` defaults to `kernel_size`.  With `return_indices`, (y, indices).

    Args, Raises: as `pycnn.max_pool2d`, which takes (N, C, H, W) or (C, H, W).

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.MaxPool2d(3, 2)(np.zeros((1, 96, 55, 55), np.float32)).shape
    (1, 96, 27, 27)
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        dilation: IntPair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, x: Any) -> Any:
        return F.max_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """Mean of each window; `stride` defaults to `kernel_size`.

    Args, Raises: as `pycnn.avg_pool2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AvgPool2d(2)(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)).item()
    1.5
    """

    def __init__(
        self,
        kernel_size: IntPair,
        stride: IntPair | None = None,
        padding: IntPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Mean over as many windows as give `output_size`; None keeps a side.  1 is the global average.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AdaptiveAvgPool2d(1)(np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)).item()
    2.5
    """

    def __init__(self, output_size: OutSize) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(Module):
    """Maximum over as many windows as give `output_size`; None keeps a side.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AdaptiveMaxPool2d(1)(np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)).item()
    5.0
    """

    def __init__(self, output_size: OutSize, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, x: Any) -> Any:
        return F.adaptive_max_pool2d(x, self.output_size, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
