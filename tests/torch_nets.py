"""The same networks in PyTorch, written from the papers and torchvision's structure: the tests' other opinion.

Those that the benchmark's peers run are in `pycnn.bench.peers.torch_networks`; here are the others.
"""

from __future__ import annotations

import packages
import torch
from torch import nn
from torch.nn import functional as F

from pycnn.bench.peers import torch_networks
from pycnn.bench.peers.torch_networks import Block, Features, GoogLeNet, ResNet, lrn, two_hidden, vgg


class LeNet5Of1998(nn.Module):
    """C3 as sixteen convolutions of their own; the table as it is printed, rows S2, columns C3."""

    TABLE = (
        *("X...XXX..XXXX.XX", "XX...XXX..XXXX.X", "XXX...XXX..X.XXX"),
        *(".XXX..XXXX..X.XX", "..XXX..XXXX.XX.X", "...XXX..XXXX.XXX"),
    )

    def __init__(self, code):
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = nn.ParameterDict({"weight": torch.zeros(6), "bias": torch.zeros(6)})
        self.seen = [[row for row in range(6) if self.TABLE[row][k] == "X"] for k in range(16)]
        size = sum(map(len, self.seen))
        self.c3 = nn.ParameterDict({"weight": torch.zeros(size, 5, 5), "bias": torch.zeros(16)})
        self.s4 = nn.ParameterDict({"weight": torch.zeros(16), "bias": torch.zeros(16)})
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Module()
        self.output.register_buffer("code", code)

    @staticmethod
    def squash(x):
        return 1.7159 * torch.tanh(2 * x / 3)

    def sub(self, x, p):
        sums = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
        return self.squash(sums * p["weight"][:, None, None] + p["bias"][:, None, None])

    def forward(self, x):
        x = self.sub(self.squash(self.c1(x)), self.s2)
        maps, start = [], 0
        for k, seen in enumerate(self.seen):
            weight = self.c3["weight"][start : start + len(seen)]
            start += len(seen)
            maps.append(F.conv2d(x[:, seen], weight[None], self.c3["bias"][k : k + 1]))
        x = self.sub(self.squash(torch.cat(maps, 1)), self.s4)
        x = self.squash(self.f6(self.squash(self.c5(x)).flatten(1)))
        return -torch.stack([((x - code) ** 2).sum(1) for code in self.output.code], 1)


def alexnet_of_2012(towers, num_classes=1000):
    features = [
        *(nn.Conv2d(3, 96, 11, 4), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=towers), nn.ReLU(), lrn(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1, groups=towers), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=towers), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    return Features(features, two_hidden(9216, num_classes))


def zfnet(num_classes=1000):
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    features = [
        *(nn.Conv2d(3, 96, 7, 2, 1), nn.ReLU(), pool(), lrn(), nn.Conv2d(96, 256, 5, 2), nn.ReLU(), pool(), lrn()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), pool()),
    ]
    return Features(features, two_hidden(9216, num_classes))


def overfeat(accurate, num_classes=1000):
    first = (7, 2, 3, 7, 512, 512, 1024, 3) if accurate else (11, 4, 2, 5, 512, 1024, None, 2)
    kernel, stride, pool, kernel2, third, fourth, fifth, last = first
    features = [nn.Conv2d(3, 96, kernel, stride), nn.ReLU(), nn.MaxPool2d(pool)]
    features += [nn.Conv2d(96, 256, kernel2), nn.ReLU(), nn.MaxPool2d(2)]
    channels = 256
    for width in (third, fourth, fifth, 1024):
        if width is not None:
            features += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    features.append(nn.MaxPool2d(last))
    flat, one, two = (25600, 4096, 4096) if accurate else (36864, 3072, 4096)
    classifier = [nn.Dropout(), nn.Linear(flat, one), nn.ReLU(), nn.Dropout(), nn.Linear(one, two), nn.ReLU()]
    return Features(features, [*classifier, nn.Linear(two, num_classes)])


class CifarResNet(nn.Module):
    def __init__(self, n, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        c = 16
        for stage in range(3):
            width, blocks = 16 << stage, []
            for i in range(n):
                blocks.append(Block(c, [(width, 3, 2 if stage and not i else 1), (width, 3, 1)], "A"))
                c = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def mobilenet_v2(num_classes=1000):
    """MobileNetV2 from its table 2; batch norm, ReLU6 and containers in torchvision's places."""

    def conv(c, k, size, stride=1, groups=1):
        layers = [nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(k), nn.ReLU6()]
        return nn.Sequential(*layers)

    class Block(nn.Module):
        def __init__(self, c, k, stride, t):
            super().__init__()
            first = [] if t == 1 else [conv(c, t * c, 1)]
            last = [nn.Conv2d(t * c, k, 1, bias=False), nn.BatchNorm2d(k)]
            self.conv = nn.Sequential(*first, conv(t * c, t * c, 3, stride, t * c), *last)
            self.add = stride == 1 and c == k

        def forward(self, x):
            return x + self.conv(x) if self.add else self.conv(x)

    layers, c = [conv(3, 32, 3, 2)], 32
    for t, k, n, s in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for i in range(n):
            layers.append(Block(c, k, 1 if i else s, t))
            c = k
    layers.append(conv(c, 1280, 1))
    return torch_networks.Features(layers, [nn.Dropout(0.2), nn.Linear(1280, num_classes)], 1)


def torchvisions(name):
    """One of torchvision's own networks."""
    return lambda: getattr(packages.torchvision_models(), name)()


BUILDERS = {
    **torch_networks.BUILDERS,
    "alexnet_one_tower": lambda: alexnet_of_2012(1),
    "alexnet_two_tower": lambda: alexnet_of_2012(2),
    "zfnet": zfnet,
    "overfeat_fast": lambda: overfeat(False),
    "overfeat_accurate": lambda: overfeat(True),
    "vgg11": lambda: vgg("A"),
    "vgg13": lambda: vgg("B"),
    "vgg19": lambda: vgg("E"),
    "vgg11_bn": lambda: vgg("A", batch_norm=True),
    "vgg13_bn": lambda: vgg("B", batch_norm=True),
    "vgg16_bn": lambda: vgg("D", batch_norm=True),
    "vgg19_bn": lambda: vgg("E", batch_norm=True),
    "vgg_a": lambda: vgg("A"),
    "vgg_a_lrn": lambda: vgg("A", response_norm=True),
    "vgg_b": lambda: vgg("B"),
    "vgg_c": lambda: vgg("C"),
    "vgg_d": lambda: vgg("D"),
    "vgg_e": lambda: vgg("E"),
    "googlenet_2014": lambda: GoogLeNet(False),
    "resnet34": lambda: ResNet((3, 4, 6, 3)),
    "resnet101": lambda: ResNet((3, 4, 23, 3), True),
    "resnet152": lambda: ResNet((3, 8, 36, 3), True),
    "resnet50_2015": lambda: ResNet((3, 4, 6, 3), True, True),
    "resnet101_2015": lambda: ResNet((3, 4, 23, 3), True, True),
    "resnet152_2015": lambda: ResNet((3, 8, 36, 3), True, True),
    "resnet20": lambda: CifarResNet(3),
    "resnet32": lambda: CifarResNet(5),
    "resnet44": lambda: CifarResNet(7),
    "resnet56": lambda: CifarResNet(9),
    "resnet110": lambda: CifarResNet(18),
    "mobilenet_v2": mobilenet_v2,
    **{name: torchvisions(name) for name in ("squeezenet1_0", "squeezenet1_1")},
    **{name: torchvisions(name) for name in ("densenet121", "densenet161", "densenet169", "densenet201")},
    **{name: torchvisions(name) for name in (f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0"))},
}
