"""Residual networks: torchvision's and the paper's for ImageNet, and the paper's for CIFAR-10.

Paper: He, Zhang, Ren & Sun, "Deep residual learning for image recognition", CVPR 2016 (arXiv 1512.03385, 2015), table 1
and section 4.2.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "CifarResNet",
    "ResNet",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet50_2015",
    "resnet56",
    "resnet101",
    "resnet101_2015",
    "resnet110",
    "resnet152",
    "resnet152_2015",
]

PAPER = "He et al. 2015"
SIZE = (3, 224, 224)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (figure 5, left).

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions.
        stride: of the first one.
        downsample: what the shortcut does to the input, or None to pass it on.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x: Any) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x), relu=True)
        return self.bn2(self.conv2(x), shortcut, relu=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide, and a shortcut (figure 5, right).

    Args:
        in_channels, width, stride, downsample: as in `BasicBlock`.
        stride_first: put the stride into the first 1x1 convolution, as in the paper, instead of the 3x3, as
            torchvision does.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = _conv1x1(in_channels, width, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = downsample

    def forward(self, x: Any) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x), relu=True)
        x = self.bn2(self.conv2(x), relu=True)
        return self.bn3(self.conv3(x), shortcut, relu=True)


class ResNet(nn.Module):
    """A column of table 1, with projection shortcuts where the size changes (option B).

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: blocks in each of the four stages.
        num_classes: width of the output.
        stride_first: as in `Bottleneck`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        num_classes: int = 1000,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        settings = {"stride_first": True} if stride_first else {}
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, blocks in enumerate(layers):
            width = 64 * 2**stage
            stride = 1 if stage == 0 else 2
            out = width * block.expansion
            chain: list[nn.Module] = []
            for i in range(blocks):
                step = stride if i == 0 else 1
                downsample = None
                if step != 1 or channels != out:
                    downsample = nn.Sequential(_conv1x1(channels, out, step), nn.BatchNorm2d(out))
                chain.append(block(channels, width, step, downsample, **settings))
                channels = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*chain))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        _he(self)

    def forward(self, x: Any) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x), relu=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.flatten(self.avgpool(x), 1))


class Subsample(nn.Module):
    """Shortcut without parameters (option A): every second row and column, and zeros for the channels that are new."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.added = out_channels - in_channels

    def forward(self, x: Any) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added))


class CifarResNet(nn.Module):
    """6n+2 layers for 32x32 images: a 3x3 convolution, three stages of n basic blocks, global average, output.

    The shortcuts are option A: where the size halves they take every second row and column and add zero channels
    after the others, so they have no parameters.

    Args:
        n: blocks a stage.
        num_classes: width of the output.
        in_channels: 3 for colour, 1 for grey images.
    """

    def __init__(self, n: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage, width in enumerate((16, 32, 64), 1):
            chain = []
            for _ in range(n):
                wider = width != channels
                shortcut = Subsample(channels, width) if wider else None
                chain.append(BasicBlock(channels, width, 2 if wider else 1, shortcut))
                channels = width
            self.add_module(f"layer{stage}", nn.Sequential(*chain))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        _he(self)

    def forward(self, x: Any) -> Tensor:
        x = self.bn1(self.conv1(x), relu=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.flatten(self.avgpool(x), 1))


def _he(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@register(SIZE, PAPER)
def resnet18(num_classes: int = 1000) -> ResNet:
    """ResNet-18: 11,689,512 parameters, input (N, 3, 224, 224); torchvision's structure and keys.

    Convolutions from He's normal distribution (fan out), full layer as PyTorch's default.

    Paper: He et al., "Deep residual learning for image recognition", 2015, table 1.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.resnet18().parameters())
    11689512
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


@register(SIZE, PAPER)
def resnet34(num_classes: int = 1000) -> ResNet:
    """ResNet-34: 21,797,672 parameters; table 1; else as `resnet18`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


@register(SIZE, PAPER)
def resnet50(num_classes: int = 1000) -> ResNet:
    """ResNet-50 as torchvision's, the stride in the 3x3 convolutions: 25,557,032 parameters; else as `resnet18`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)


@register(SIZE, PAPER)
def resnet101(num_classes: int = 1000) -> ResNet:
    """ResNet-101 as torchvision's: 44,549,160 parameters; else as `resnet50`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes)


@register(SIZE, PAPER)
def resnet152(num_classes: int = 1000) -> ResNet:
    """ResNet-152 as torchvision's: 60,192,808 parameters; else as `resnet50`."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes)


@register(SIZE, PAPER)
def resnet50_2015(num_classes: int = 1000) -> ResNet:
    """ResNet-50 as published, with the stride in the first 1x1 convolution of a block: 25,557,032 parameters.

    3.8e9 multiply-adds (table 1), against 4.1e9 of `resnet50`.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.resnet50_2015().parameters())
    25557032
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, stride_first=True)


@register(SIZE, PAPER)
def resnet101_2015(num_classes: int = 1000) -> ResNet:
    """ResNet-101 as published: 44,549,160 parameters, 7.6e9 multiply-adds; else as `resnet50_2015`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, stride_first=True)


@register(SIZE, PAPER)
def resnet152_2015(num_classes: int = 1000) -> ResNet:
    """ResNet-152 as published: 60,192,808 parameters, 11.3e9 multiply-adds; else as `resnet50_2015`."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, stride_first=True)


@register((3, 32, 32), PAPER)
def resnet20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20 for CIFAR-10 (n = 3): 269,722 parameters, input (N, 3, 32, 32), shortcuts without parameters.

    Convolutions from He's normal distribution (fan out).

    Paper: He et al., 2015, section 4.2 and table 6 (0.27M).

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.resnet20().parameters())
    269722
    """
    return CifarResNet(3, num_classes, in_channels)


@register((3, 32, 32), PAPER)
def resnet32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-32 for CIFAR-10 (n = 5): 464,154 parameters; else as `resnet20`."""
    return CifarResNet(5, num_classes, in_channels)


@register((3, 32, 32), PAPER)
def resnet44(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-44 for CIFAR-10 (n = 7): 658,586 parameters; else as `resnet20`."""
    return CifarResNet(7, num_classes, in_channels)


@register((3, 32, 32), PAPER)
def resnet56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-56 for CIFAR-10 (n = 9): 853,018 parameters; else as `resnet20`."""
    return CifarResNet(9, num_classes, in_channels)


@register((3, 32, 32), PAPER)
def resnet110(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-110 for CIFAR-10 (n = 18): 1,727,962 parameters; else as `resnet20`."""
    return CifarResNet(18, num_classes, in_channels)
