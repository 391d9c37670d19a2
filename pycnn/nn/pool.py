"""Pooling layers of one, two and three axes; arguments and meaning are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]

Ints = int | Sequence[int]
OutSize = int | None | Sequence[int | None]


class _MaxPool(Module):
    """Maximum of each window; `stride` defaults to `kernel_size`.  With `return_indices`, (y, indices)."""

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
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
        return type(self).function(
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


class MaxPool1d(_MaxPool):
    """Maximum of each window of a sequence.  Args, Raises: as `pycnn.max_pool1d`; (N, C, L) or (C, L).

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.MaxPool1d(3, 2)(np.zeros((1, 96, 55), np.float32)).shape
    (1, 96, 27)
    """

    function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """Maximum of each window; `stride` defaults to `kernel_size`.  With `return_indices`, (y, indices).

    Args, Raises: as `pycnn.max_pool2d`, which takes (N, C, H, W) or (C, H, W).

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.MaxPool2d(3, 2)(np.zeros((1, 96, 55, 55), np.float32)).shape
    (1, 96, 27, 27)
    """

    function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """Maximum of each window of a volume.  Args, Raises: as `pycnn.max_pool3d`; (N, C, D, H, W) or (C, D, H, W).

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.MaxPool3d((1, 2, 2))(np.zeros((1, 8, 5, 6, 6), np.float32)).shape
    (1, 8, 5, 3, 3)
    """

    function = staticmethod(F.max_pool3d)


class AvgPool1d(Module):
    """Mean of each window of a sequence; `stride` defaults to `kernel_size`.

    Args, Raises: as `pycnn.avg_pool1d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AvgPool1d(2)(np.arange(4, dtype=np.float32).reshape(1, 1, 4)).tolist()
    [[[0.5, 2.5]]]
    """

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    """Mean of each window; `stride` defaults to `kernel_size`."""

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
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
        return type(self).function(
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


class AvgPool2d(_AvgPool):
    """Mean of each window; `stride` defaults to `kernel_size`.

    Args, Raises: as `pycnn.avg_pool2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AvgPool2d(2)(np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)).item()
    1.5
    """

    function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    """Mean of each window of a volume.  Args, Raises: as `pycnn.avg_pool3d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AvgPool3d(2)(np.arange(8, dtype=np.float32).reshape(1, 1, 2, 2, 2)).item()
    3.5
    """

    function = staticmethod(F.avg_pool3d)


class _LPPool(Module):
    """Root of the sum of powers of each window; `stride` defaults to `kernel_size`."""

    function: ClassVar[Callable[..., Any]]

    def __init__(
        self, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, x: Any) -> Tensor:
        return type(self).function(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """Root of the sum of powers of each window of a sequence.  Args, Raises: as `pycnn.lp_pool1d`."""

    function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    """Root of the sum of powers of each window.  Args, Raises: as `pycnn.lp_pool2d`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.LPPool2d(2, (1, 2))(np.array([[[[3.0, 4.0]]]], np.float32)).item()
    5.0
    """

    function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    """Root of the sum of powers of each window of a volume.  Args, Raises: as `pycnn.lp_pool3d`."""

    function = staticmethod(F.lp_pool3d)


class _AdaptiveAvgPool(Module):
    """Mean over as many windows as give `output_size`; None keeps a side."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: OutSize) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return type(self).function(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Mean over as many windows of a sequence as give `output_size`."""

    function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Mean over as many windows as give `output_size`; None keeps a side.  1 is the global average.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AdaptiveAvgPool2d(1)(np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)).item()
    2.5
    """

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Mean over as many windows of a volume as give `output_size`; None keeps an axis."""

    function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPool(Module):
    """Maximum over as many windows as give `output_size`; None keeps a side.  With `return_indices`, (y, indices)."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: OutSize, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, x: Any) -> Any:
        return type(self).function(x, self.output_size, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maximum over as many windows of a sequence as give `output_size`."""

    function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maximum over as many windows as give `output_size`; None keeps a side.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.AdaptiveMaxPool2d(1)(np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)).item()
    5.0
    """

    function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maximum over as many windows of a volume as give `output_size`; None keeps an axis."""

    function = staticmethod(F.adaptive_max_pool3d)
