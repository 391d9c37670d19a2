"""MobileNetV2, with torchvision's structure and state_dict keys.

Paper: Sandler, Howard, Zhu, Zhmoginov & Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018,
table 2 and figure 4d.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = ["InvertedResidual", "MobileNetV2", "mobilenet_v2"]

# Table 2: expansion t, output channels c, blocks n, stride s of the first of them.
_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU6; the size of the map is kept, or halved by stride 2."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, 1x1 back without an activation, and a shortcut (figure 4d).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the 3x3 convolution; only at 1, and with as many channels out as in, is there a shortcut.
        expansion: 1 leaves the first convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and in_channels == out_channels
        width = in_channels * expansion
        self.conv = nn.Sequential(
            *([_conv(in_channels, width, 1)] if expansion != 1 else []),
            _conv(width, width, 3, stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Any) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Table 2.

    Args:
        num_classes: width of the output.
        width_mult: factor of all channels, each rounded to a multiple of 8; the last layer only grows with it.
        dropout: probability before the output layer.

    Raises:
        ValueError: a factor that is not positive.
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2) -> None:
        super().__init__()
        if not width_mult > 0:
            raise ValueError(f"width_mult must be positive, got {width_mult}")
        with init.skip():  # all weights are drawn below
            channels = _rounded(32 * width_mult)
            layers: list[nn.Module] = [_conv(3, channels, 3, 2)]
            for expansion, width, blocks, stride in _ROWS:
                out = _rounded(width * width_mult)
                for i in range(blocks):
                    layers.append(InvertedResidual(channels, out, stride if i == 0 else 1, expansion))
                    channels = out
            last = _rounded(1280 * max(1.0, width_mult))
            self.features = nn.Sequential(*layers, _conv(channels, last, 1))
            self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw(module, init.kaiming_normal_, 0.0, "fan_out")
            elif isinstance(module, nn.Linear):
                draw(module, init.normal_, 0.0, 0.01)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(F.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and at least nine tenths of what was asked for."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


@register((3, 224, 224), "Sandler et al. 2018")
def mobilenet_v2(num_classes: int = 1000, width_mult: float = 1.0, dropout: float = 0.2) -> MobileNetV2:
    """MobileNetV2 as torchvision's: 3,504,872 parameters, input (N, 3, 224, 224), 300 million multiply-adds.

    Convolutions from He's normal distribution (fan out), the full layer from N(0, 0.01^2) with biases 0.

    Paper: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, table 2.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.mobilenet_v2().parameters())
    3504872
    """
    return MobileNetV2(num_classes, width_mult, dropout)
