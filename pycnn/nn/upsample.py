"""Layers that change the size of images; arguments and meaning are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.tensor import Tensor

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]

Size = int | Sequence[int]
Factor = float | Sequence[float]


class Upsample(Module):
    """Images of another size.

    Args, Raises: as `pycnn.interpolate`.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.Upsample(scale_factor=2)(np.zeros((1, 3, 4, 5), np.float32)).shape
    (1, 3, 8, 10)
    """

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: Factor | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.scale_factor = scale_factor
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: Any) -> Tensor:
        return F.interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        to = f"scale_factor={self.scale_factor}" if self.scale_factor is not None else f"size={self.size}"
        return f"{to}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` by the nearest pixel.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.UpsamplingNearest2d((2, 2))(np.ones((1, 1, 1, 1), np.float32)).shape
    (1, 1, 2, 2)
    """

    def __init__(self, size: Size | None = None, scale_factor: Factor | None = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` by bilinear interpolation with aligned corners.

    >>> import numpy as np
    >>> from pycnn import nn
    >>> nn.UpsamplingBilinear2d((1, 3))(np.array([[[[0.0, 1.0]]]], np.float32)).tolist()
    [[[[0.0, 0.5, 1.0]]]]
    """

    def __init__(self, size: Size | None = None, scale_factor: Factor | None = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
