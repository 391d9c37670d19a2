"""ShuffleNetV2, with torchvision's structure and state_dict keys.

Paper: Ma, Zhang, Zheng & Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", ECCV 2018,
table 5 and figure 3c, d.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models.registry import register
from pycnn.tensor import Tensor

__all__ = [
    "ShuffleNetV2",
    "ShuffleUnit",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
]

PAPER = "Ma et al. 2018"
SIZE = (3, 224, 224)
_UNITS = (4, 8, 4)  # of the three stages


def _conv(in_channels: int, out_channels: int, size: int = 1, stride: int = 1) -> list[nn.Module]:
    """Convolution, normalisation, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    """3x3 depthwise convolution and normalisation."""
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class ShuffleUnit(nn.Module):
    """Half of the channels pass, the others are convolved, and both are shuffled (figure 3c); at stride 2 all are
    convolved, twice (figure 3d).

    Args:
        in_channels: channels of the input.
        out_channels: of the output; as many at stride 1.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.stride = stride
        self.branch1 = (
            nn.Sequential(*_depthwise(in_channels, stride), *_conv(in_channels, half))
            if stride > 1
            else nn.Sequential()
        )
        self.branch2 = nn.Sequential(
            *_conv(in_channels if stride > 1 else half, half), *_depthwise(half, stride), *_conv(half, half)
        )

    def forward(self, x: Any) -> Tensor:
        if self.stride > 1:
            parts = [self.branch1(x), self.branch2(x)]
        else:
            half = x.shape[1] // 2
            parts = [x[:, :half], self.branch2(x[:, half:])]
        return F.channel_shuffle(F.cat(parts, 1), 2)


class ShuffleNetV2(nn.Module):
    """A column of table 5.

    Args:
        widths: channels of the three stages and of the last convolution.
        num_classes: width of the output.
    """

    def __init__(self, widths: tuple[int, int, int, int], num_classes: int = 1000) -> None:
        super().__init__()
        channels = 24
        self.conv1 = nn.Sequential(*_conv(3, channels, 3, 2))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for stage, (units, width) in enumerate(zip(_UNITS, widths[:3], strict=True), 2):
            chain = [ShuffleUnit(channels if i == 0 else width, width, 2 if i == 0 else 1) for i in range(units)]
            self.add_module(f"stage{stage}", nn.Sequential(*chain))
            channels = width
        self.conv5 = nn.Sequential(*_conv(channels, widths[3]))
        self.fc = nn.Linear(widths[3], num_classes)

    def forward(self, x: Any) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean((2, 3)))


@register(SIZE, PAPER)
def shufflenet_v2_x0_5(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNetV2 of half the width: 1,366,792 parameters; else as `shufflenet_v2_x1_0`."""
    return ShuffleNetV2((48, 96, 192, 1024), num_classes)


@register(SIZE, PAPER)
def shufflenet_v2_x1_0(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNetV2: 2,278,604 parameters, input (N, 3, 224, 224); torchvision's structure and keys.

    PyTorch's default initialisation.

    Paper: Ma et al., 2018, table 5.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.shufflenet_v2_x1_0().parameters())
    2278604
    """
    return ShuffleNetV2((116, 232, 464, 1024), num_classes)


@register(SIZE, PAPER)
def shufflenet_v2_x1_5(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNetV2 of one and a half times the width: 3,503,624 parameters; else as `shufflenet_v2_x1_0`."""
    return ShuffleNetV2((176, 352, 704, 1024), num_classes)


@register(SIZE, PAPER)
def shufflenet_v2_x2_0(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNetV2 of twice the width: 7,393,996 parameters; else as `shufflenet_v2_x1_0`."""
    return ShuffleNetV2((244, 488, 976, 2048), num_classes)
