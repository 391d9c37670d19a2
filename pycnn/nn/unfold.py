"""Layers around windows: columns of them, their sums, and maxima put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["Fold", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "Unfold"]

Ints = int | Sequence[int]


class Unfold(Module):
    """Every window of an image as a column, `pycnn.unfold`.

    >>> import pycnn
    >>> pycnn.nn.Unfold((2, 3))(pycnn.zeros(2, 5, 3, 4)).shape
    (2, 30, 4)
    """

    def __init__(self, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, x: Any) -> Tensor:
        return F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"


class Fold(Module):
    """Columns of windows added up to images, `pycnn.fold`.

    >>> import pycnn
    >>> pycnn.nn.Fold((3, 4), (2, 3))(pycnn.zeros(2, 30, 4)).shape
    (2, 5, 3, 4)
    """

    def __init__(
        self, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, x: Any) -> Tensor:
        return F.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )


class _MaxUnpool(Module):
    """Maxima where they were, zeros elsewhere."""

    function: ClassVar[Callable[..., Any]]

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def forward(self, x: Any, indices: Any, output_size: Sequence[int] | None = None) -> Tensor:
        return type(self).function(x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The partial inverse of `MaxPool1d`.  Args, Raises: as `pycnn.max_unpool1d`."""

    function = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """The partial inverse of `MaxPool2d`.  Args, Raises: as `pycnn.max_unpool2d`.

    >>> import pycnn
    >>> y, indices = pycnn.nn.MaxPool2d(2, return_indices=True)(pycnn.ones(1, 1, 4, 4))
    >>> pycnn.nn.MaxUnpool2d(2)(y, indices).sum().item()
    4.0
    """

    function = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """The partial inverse of `MaxPool3d`.  Args, Raises: as `pycnn.max_unpool3d`."""

    function = staticmethod(F.max_unpool3d)
