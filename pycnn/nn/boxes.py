"""Layers that bring regions of images to one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.ops._checks import flag, real
from pycnn.shape import pair, whole
from pycnn.tensor import Tensor

__all__ = ["RoIAlign", "RoIPool"]


class RoIAlign(Module):
    """Regions of images as bins of bilinear samples, `pycnn.functional.roi_align`; torchvision's.

    Args, Raises: as there; the call is of images and boxes.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.RoIAlign(7, 0.25, 2, True)(pycnn.zeros(1, 3, 16, 16), np.array([[0.0, 0, 0, 40, 40]])).shape
    (1, 3, 7, 7)
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = pair("output_size", output_size, 1)
        self.spatial_scale = real("spatial_scale", spatial_scale)
        self.sampling_ratio = whole("sampling_ratio", sampling_ratio, -(2**40))
        self.aligned = flag("aligned", aligned)

    def forward(self, x: Any, boxes: Any) -> Tensor:
        return F.roi_align(x, boxes, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


class RoIPool(Module):
    """Regions of images as maxima of whole pixels, `pycnn.functional.roi_pool`; torchvision's.

    Args, Raises: as there; the call is of images and boxes.

    >>> import numpy as np, pycnn
    >>> pycnn.nn.RoIPool((2, 3))(pycnn.zeros(1, 3, 16, 16), np.array([[0.0, 0, 0, 9, 9]])).shape
    (1, 3, 2, 3)
    """

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float = 1.0) -> None:
        super().__init__()
        self.output_size = pair("output_size", output_size, 1)
        self.spatial_scale = real("spatial_scale", spatial_scale)

    def forward(self, x: Any, boxes: Any) -> Tensor:
        return F.roi_pool(x, boxes, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
