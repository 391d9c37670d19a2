"""The lecture's networks in PyTorch, with torchvision's structure and keys: what the peers run, and what tests compare.

Written from the papers and torchvision's documentation, not from `pycnn.models`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["BUILDERS", "Block", "Features", "GoogLeNet", "LeNet5", "ResNet", "alexnet", "lrn", "two_hidden", "vgg"]


def lrn() -> nn.Module:
    """Local response normalisation as AlexNet's paper has it."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class Features(nn.Module):
    """features -> (avgpool) -> flatten -> classifier, as AlexNet, VGG and their kin are built."""

    def __init__(self, features: Sequence[nn.Module], classifier: Sequence[nn.Module], pool: Any = None) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.Identity() if pool is None else nn.AdaptiveAvgPool2d(pool)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Any) -> Any:
        """The logits."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class LeNet5(nn.Module):
    """LeNet-5 in its modern form: rectifiers and maximum pooling; 28x28 images are padded to 32x32."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Any) -> Any:
        """The logits."""
        if x.shape[-1] == 28:
            x = F.pad(x, (2, 2, 2, 2))
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def alexnet(num_classes: int = 1000) -> nn.Module:
    """torchvision's AlexNet."""
    features = [
        *(nn.Conv2d(3, 64, 11, 4, 2), _relu(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), _relu(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), _relu(), nn.Conv2d(384, 256, 3, padding=1), _relu()),
        *(nn.Conv2d(256, 256, 3, padding=1), _relu(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Dropout(), nn.Linear(9216, 4096), _relu(), nn.Dropout(), nn.Linear(4096, 4096), _relu()),
        nn.Linear(4096, num_classes),
    ]
    return Features(features, classifier, (6, 6))


def two_hidden(flat: int, num_classes: int) -> list[nn.Module]:
    """A classifier with two hidden layers of 4096."""
    return [
        *(nn.Linear(flat, 4096), _relu(), nn.Dropout(), nn.Linear(4096, 4096), _relu(), nn.Dropout()),
        nn.Linear(4096, num_classes),
    ]


_VGG = {  # filters of the 3x3 layers of each stage; then, for C, a 1x1 layer in the last three
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "D": ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    "E": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


def vgg(column: str, batch_norm: bool = False, response_norm: bool = False, num_classes: int = 1000) -> nn.Module:
    """A column of table 1 of VGG's paper."""
    features: list[nn.Module] = []
    channels = 3
    for stage, widths in enumerate(_VGG["B" if column == "C" else column]):
        layers = [(width, 3) for width in widths] + ([(widths[-1], 1)] if column == "C" and stage >= 2 else [])
        for width, kernel in layers:
            features.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            features += [nn.BatchNorm2d(width)] if batch_norm else []
            features.append(_relu())
            features += [lrn()] if response_norm and channels == 3 else []
            channels = width
        features.append(nn.MaxPool2d(2))
    return Features(features, two_hidden(25088, num_classes), (7, 7))


class _Conv(nn.Module):
    def __init__(self, c: int, k: int, size: int, norm: bool, **settings: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, k, size, bias=not norm, **settings)
        self.bn = nn.BatchNorm2d(k, eps=0.001) if norm else None

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        return F.relu(x if self.bn is None else self.bn(x), inplace=True)


class _Inception(nn.Module):
    def __init__(self, c: int, a: int, br: int, b: int, cr: int, cc: int, d: int, norm: bool) -> None:
        super().__init__()
        size = 3 if norm else 5
        self.branch1 = _Conv(c, a, 1, norm)
        self.branch2 = nn.Sequential(_Conv(c, br, 1, norm), _Conv(br, b, 3, norm, padding=1))
        self.branch3 = nn.Sequential(_Conv(c, cr, 1, norm), _Conv(cr, cc, size, norm, padding=size // 2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), _Conv(c, d, 1, norm))

    def forward(self, x: Any) -> Any:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class _Aux(nn.Module):
    def __init__(self, c: int, num_classes: int, norm: bool) -> None:
        super().__init__()
        self.conv = _Conv(c, 128, 1, norm)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)
        self.norm = norm

    def forward(self, x: Any) -> Any:
        x = F.adaptive_avg_pool2d(x, 4) if self.norm else F.avg_pool2d(x, 5, 3)
        return self.fc2(self.dropout(F.relu(self.fc1(self.conv(x).flatten(1)), inplace=True)))


class GoogLeNet(nn.Module):
    """GoogLeNet: torchvision's with `norm`, else the one of 2014.  In training (logits, second head, first head)."""

    def __init__(self, norm: bool, num_classes: int = 1000) -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = _Conv(3, 64, 7, norm, stride=2, padding=3)
        self.conv2 = _Conv(64, 64, 1, norm)
        self.conv3 = _Conv(64, 192, 3, norm, padding=1)
        self.inception3a = _Inception(192, 64, 96, 128, 16, 32, 32, norm)
        self.inception3b = _Inception(256, 128, 128, 192, 32, 96, 64, norm)
        self.inception4a = _Inception(480, 192, 96, 208, 16, 48, 64, norm)
        self.inception4b = _Inception(512, 160, 112, 224, 24, 64, 64, norm)
        self.inception4c = _Inception(512, 128, 128, 256, 24, 64, 64, norm)
        self.inception4d = _Inception(512, 112, 144, 288, 32, 64, 64, norm)
        self.inception4e = _Inception(528, 256, 160, 320, 32, 128, 128, norm)
        self.inception5a = _Inception(832, 256, 160, 320, 32, 128, 128, norm)
        self.inception5b = _Inception(832, 384, 192, 384, 48, 128, 128, norm)
        self.aux1 = _Aux(512, num_classes, norm)
        self.aux2 = _Aux(528, num_classes, norm)
        self.dropout = nn.Dropout(0.2 if norm else 0.4)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x: Any) -> Any:
        """The logits, with the heads' in training."""
        norm: Any = nn.Identity() if self.norm else nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        x = self.conv3(self.conv2(norm(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))))
        x = F.max_pool2d(norm(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.inception3b(self.inception3a(x)), 3, 2, ceil_mode=True)
        x = self.inception4a(x)
        heads = [self.aux1(x)] if self.training else []
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        heads += [self.aux2(x)] if self.training else []
        x = F.max_pool2d(self.inception4e(x), 2 if self.norm else 3, 2, ceil_mode=True)
        x = self.inception5b(self.inception5a(x))
        x = self.fc(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return (x, heads[1], heads[0]) if heads else x


class Block(nn.Module):
    """A residual block from a list of (filters, kernel, stride); `shortcut` "B" projects, "A" subsamples and pads."""

    def __init__(self, c: int, convs: Sequence[tuple[int, int, int]], shortcut: str) -> None:
        super().__init__()
        self.convs = len(convs)
        total, out, before = 1, convs[-1][0], c
        for i, (k, size, stride) in enumerate(convs, 1):
            setattr(self, f"conv{i}", nn.Conv2d(c, k, size, stride, size // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(k))
            c, total = k, total * stride
        self.stride, self.added = total, out - before
        if shortcut == "B" and (total != 1 or self.added):
            self.downsample = nn.Sequential(nn.Conv2d(before, out, 1, total, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        """The block's output."""
        y = x
        for i in range(1, self.convs + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y, inplace=True) if i < self.convs else y
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = torch.cat([x, x.new_zeros(x.shape[0], self.added, *x.shape[2:])], 1)
        y += x
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """A ResNet of ImageNet's size; `stride_first` has a bottleneck's stride in its first 1x1 layer, as in 2015."""

    def __init__(
        self, layers: Sequence[int], bottleneck: bool = False, stride_first: bool = False, num_classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        c = 64
        for stage, count in enumerate(layers):
            width, blocks = 64 << stage, []
            for i in range(count):
                s = 2 if stage and not i else 1
                if bottleneck:
                    a, b = (s, 1) if stride_first else (1, s)
                    convs = [(width, 1, a), (width, 3, b), (4 * width, 1, 1)]
                else:
                    convs = [(width, 3, s), (width, 3, 1)]
                blocks.append(Block(c, convs, "B"))
                c = convs[-1][0]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c, num_classes)

    def forward(self, x: Any) -> Any:
        """The logits."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet5,
    "alexnet": alexnet,
    "vgg16": lambda: vgg("D"),
    "googlenet": lambda: GoogLeNet(True),
    "resnet18": lambda: ResNet((2, 2, 2, 2)),
    "resnet50": lambda: ResNet((3, 4, 6, 3), True),
}
