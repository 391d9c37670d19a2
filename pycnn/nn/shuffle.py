"""Layers that move blocks between space and channels."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn.module import Module
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["ChannelShuffle", "PixelShuffle", "PixelUnshuffle"]


class PixelShuffle(Module):
    """r*r channels as the r x r pixels of one, `pycnn.pixel_shuffle`.

    >>> import pycnn
    >>> pycnn.nn.PixelShuffle(2)(pycnn.zeros(1, 8, 3, 4)).shape
    (1, 2, 6, 8)
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = whole("upscale_factor", upscale_factor, 1)

    def forward(self, x: Any) -> Tensor:
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """The r x r pixels of a block as r*r channels, `pycnn.pixel_unshuffle`.

    >>> import pycnn
    >>> pycnn.nn.PixelUnshuffle(2)(pycnn.zeros(1, 2, 6, 8)).shape
    (1, 8, 3, 4)
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = whole("downscale_factor", downscale_factor, 1)

    def forward(self, x: Any) -> Tensor:
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """The channels of `groups` groups in turn, `pycnn.channel_shuffle`.

    >>> import pycnn
    >>> pycnn.nn.ChannelShuffle(2)(pycnn.zeros(1, 8, 3, 4)).shape
    (1, 8, 3, 4)
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = whole("groups", groups, 1)

    def forward(self, x: Any) -> Tensor:
        return F.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
