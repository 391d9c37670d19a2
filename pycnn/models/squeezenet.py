"""SqueezeNet 1.0 and 1.1, with torchvision's structure and state_dict keys.

Paper: Iandola, Han, Moskewicz, Ashraf, Dally & Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
and <0.5MB model size", 2016, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = ["Fire", "SqueezeNet", "squeezenet1_0", "squeezenet1_1"]

PAPER = "Iandola et al. 2016"
SIZE = (3, 224, 224)

# Fire modules between the poolings: filters of the squeezing 1x1 layer, and of each of the two that expand.
_FIRES_1_0 = (((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), ((64, 256),))
_FIRES_1_1 = (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256)))


class Fire(nn.Module):
    """1x1 convolutions to few channels, then 1x1 and 3x3 ones side by side (figure 1).

    Args:
        in_channels: channels of the input.
        squeeze: filters of the first layer.
        expand: filters of each of the two others.
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Any) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(F.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules with poolings between, and a convolution for the classes, averaged.

    Args:
        filters: of the first convolution.
        size: of its filters.
        fires: rows of fire modules, a pooling before each.
        num_classes: width of the output.
        dropout: probability before the last convolution.
    """

    def __init__(
        self,
        filters: int,
        size: int,
        fires: Sequence[Sequence[tuple[int, int]]],
        num_classes: int = 1000,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, filters, size, 2), nn.ReLU()]
        channels = filters
        for row in fires:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in row:
                layers.append(Fire(channels, squeeze, expand))
                channels = 2 * expand
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(channels, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)))
        for module in self.modules():
            if module is last:
                draw(last, init.normal_, 0.0, 0.01)
            elif isinstance(module, nn.Conv2d):
                draw(module, init.kaiming_uniform_)

    def forward(self, x: Any) -> Tensor:
        return F.flatten(self.classifier(self.features(x)), 1)


@register(SIZE, PAPER)
def squeezenet1_0(num_classes: int = 1000, dropout: float = 0.5) -> SqueezeNet:
    """SqueezeNet as published: 1,248,424 parameters, input (N, 3, 224, 224); torchvision's structure and keys.

    Convolutions from He's uniform distribution, biases 0, the last one from N(0, 0.01^2).

    Paper: Iandola et al., 2016, table 1.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.squeezenet1_0().parameters())
    1248424
    """
    return SqueezeNet(96, 7, _FIRES_1_0, num_classes, dropout)


@register(SIZE, PAPER)
def squeezenet1_1(num_classes: int = 1000, dropout: float = 0.5) -> SqueezeNet:
    """SqueezeNet 1.1: 1,235,496 parameters and 2.4 times less work than 1.0, by smaller filters and earlier poolings.

    As the authors released it (github.com/forresti/SqueezeNet, SqueezeNet_v1.1); else as `squeezenet1_0`.
    """
    return SqueezeNet(64, 3, _FIRES_1_1, num_classes, dropout)
