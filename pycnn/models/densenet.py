"""DenseNets for ImageNet, with torchvision's structure and state_dict keys.

Paper: Huang, Liu, van der Maaten & Weinberger, "Densely connected convolutional networks", CVPR 2017, table 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.nn.module import Incompatible
from pycnn.tensor import Tensor

__all__ = ["DenseLayer", "DenseNet", "densenet121", "densenet161", "densenet169", "densenet201"]

PAPER = "Huang et al. 2017"
SIZE = (3, 224, 224)
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_BOTTLENECK = 4  # growths that a layer's 1x1 convolution gives its 3x3 one


class DenseLayer(nn.Module):
    """Normalisation, ReLU and convolution, twice: 1x1 then 3x3 (section 3, DenseNet-B).

    Args:
        in_channels: of everything before it in its block.
        growth: channels that it adds.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, _BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(_BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(_BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Tensor:
        x = self.conv1(self.norm1(x, relu=True))
        return self.conv2(self.norm2(x, relu=True))


class _Block(nn.Module):
    """Layers that each see what all before them made."""

    def __init__(self, layers: int, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth))

    def forward(self, x: Any) -> Tensor:
        for layer in self.children():
            x = F.cat([x, layer(x)], 1)
        return x


class _Transition(nn.Module):
    """Half the channels, and a quarter of the pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool2d(self.conv(self.norm(x, relu=True)), 2)


class DenseNet(nn.Module):
    """A column of table 1.

    Args:
        growth: channels that each layer adds.
        blocks: layers in each of the four blocks.
        channels: of the first convolution.
        num_classes: width of the output.
    """

    def __init__(self, growth: int, blocks: Sequence[int], channels: int = 64, num_classes: int = 1000) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(3, channels, 7, 2, 3, bias=False),
            "norm0": nn.BatchNorm2d(channels),
            "relu0": nn.ReLU(),
            "pool0": nn.MaxPool2d(3, 2, 1),
        }
        for i, layers in enumerate(blocks, 1):
            parts[f"denseblock{i}"] = _Block(layers, channels, growth)
            channels += layers * growth
            if i < len(blocks):
                parts[f"transition{i}"] = _Transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, num_classes)
        draw(self.classifier, init.kaiming_uniform_, math.sqrt(5))  # as every full layer, but for the biases
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw(module, init.kaiming_normal_)

    def forward(self, x: Any) -> Tensor:
        x = F.relu(self.features(x))
        return self.classifier(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Incompatible:
        """As every module's; also with the names of torchvision's published files, which predate its own layers'.

        Their "denselayer1.norm.1.weight" is "denselayer1.norm1.weight" here and in torchvision since 0.3.
        """
        if isinstance(state_dict, Mapping):
            state_dict = {_OLD_NAME.sub(r"\1\2", str(key)): value for key, value in state_dict.items()}
        return super().load_state_dict(state_dict, strict)


@register(SIZE, PAPER)
def densenet121(num_classes: int = 1000) -> DenseNet:
    """DenseNet-121: 7,978,856 parameters, input (N, 3, 224, 224); torchvision's structure and keys.

    Convolutions from He's normal distribution, the full layer as PyTorch's default with biases 0.

    Paper: Huang et al., 2017, table 1.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.densenet121().parameters())
    7978856
    """
    return DenseNet(32, (6, 12, 24, 16), num_classes=num_classes)


@register(SIZE, PAPER)
def densenet161(num_classes: int = 1000) -> DenseNet:
    """DenseNet-161, 48 channels a layer: 28,681,000 parameters; else as `densenet121`."""
    return DenseNet(48, (6, 12, 36, 24), 96, num_classes)


@register(SIZE, PAPER)
def densenet169(num_classes: int = 1000) -> DenseNet:
    """DenseNet-169: 14,149,480 parameters; else as `densenet121`."""
    return DenseNet(32, (6, 12, 32, 32), num_classes=num_classes)


@register(SIZE, PAPER)
def densenet201(num_classes: int = 1000) -> DenseNet:
    """DenseNet-201: 20,013,928 parameters; else as `densenet121`."""
    return DenseNet(32, (6, 12, 48, 32), num_classes=num_classes)
