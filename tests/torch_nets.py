"""The same networks in PyTorch, written from the papers and torchvision's structure: the tests' other opinion."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def _lrn() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class Features(nn.Module):
    """features -> (avgpool) -> flatten -> classifier, as AlexNet, VGG and their kin are built."""

    def __init__(self, features, classifier, pool=None):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.Identity() if pool is None else nn.AdaptiveAvgPool2d(pool)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class LeNet5(nn.Module):
    def __init__(self, num_classes=10, in_channels=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x):
        if x.shape[-1] == 28:
            x = F.pad(x, (2, 2, 2, 2))
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


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


def alexnet(num_classes=1000):
    features = [
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    classifier = [
        *(nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),
        nn.Linear(4096, num_classes),
    ]
    return Features(features, classifier, (6, 6))


def _two_hidden(flat, num_classes):
    return [
        *(nn.Linear(flat, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
        nn.Linear(4096, num_classes),
    ]


def alexnet_of_2012(towers, num_classes=1000):
    features = [
        *(nn.Conv2d(3, 96, 11, 4), nn.ReLU(), _lrn(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=towers), nn.ReLU(), _lrn(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1, groups=towers), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=towers), nn.ReLU(), nn.MaxPool2d(3, 2)),
    ]
    return Features(features, _two_hidden(9216, num_classes))


def zfnet(num_classes=1000):
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    features = [
        *(nn.Conv2d(3, 96, 7, 2, 1), nn.ReLU(), pool(), _lrn(), nn.Conv2d(96, 256, 5, 2), nn.ReLU(), pool(), _lrn()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), pool()),
    ]
    return Features(features, _two_hidden(9216, num_classes))


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


VGG = {  # filters of the 3x3 layers of each stage; then, for C, a 1x1 layer in the last three
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "D": ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    "E": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


def vgg(column, batch_norm=False, response_norm=False, num_classes=1000):
    features, channels = [], 3
    for stage, widths in enumerate(VGG["B" if column == "C" else column]):
        layers = [(width, 3) for width in widths] + ([(widths[-1], 1)] if column == "C" and stage >= 2 else [])
        for width, kernel in layers:
            features.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            features += [nn.BatchNorm2d(width)] if batch_norm else []
            features.append(nn.ReLU())
            features += [_lrn()] if response_norm and channels == 3 else []
            channels = width
        features.append(nn.MaxPool2d(2))
    return Features(features, _two_hidden(25088, num_classes), (7, 7))


class Conv(nn.Module):
    def __init__(self, c, k, size, norm, **settings):
        super().__init__()
        self.conv = nn.Conv2d(c, k, size, bias=not norm, **settings)
        if norm:
            self.bn = nn.BatchNorm2d(k, eps=0.001)

    def forward(self, x):
        x = self.conv(x)
        return F.relu(self.bn(x) if hasattr(self, "bn") else x)


class Inception(nn.Module):
    def __init__(self, c, a, br, b, cr, cc, d, norm):
        super().__init__()
        size = 3 if norm else 5
        self.branch1 = Conv(c, a, 1, norm)
        self.branch2 = nn.Sequential(Conv(c, br, 1, norm), Conv(br, b, 3, norm, padding=1))
        self.branch3 = nn.Sequential(Conv(c, cr, 1, norm), Conv(cr, cc, size, norm, padding=size // 2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Conv(c, d, 1, norm))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Aux(nn.Module):
    def __init__(self, c, num_classes, norm):
        super().__init__()
        self.conv = Conv(c, 128, 1, norm)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.norm = norm

    def forward(self, x):
        x = F.adaptive_avg_pool2d(x, 4) if self.norm else F.avg_pool2d(x, 5, 3)
        return self.fc2(F.relu(self.fc1(self.conv(x).flatten(1))))  # the tests switch dropout off


class GoogLeNet(nn.Module):
    def __init__(self, norm, num_classes=1000, aux=True):
        super().__init__()
        self.norm = norm
        self.conv1 = Conv(3, 64, 7, norm, stride=2, padding=3)
        self.conv2 = Conv(64, 64, 1, norm)
        self.conv3 = Conv(64, 192, 3, norm, padding=1)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32, norm)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64, norm)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64, norm)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64, norm)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64, norm)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64, norm)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128, norm)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128, norm)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128, norm)
        if aux:
            self.aux1 = Aux(512, num_classes, norm)
            self.aux2 = Aux(528, num_classes, norm)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x):
        lrn = nn.Identity() if self.norm else nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        x = self.conv3(self.conv2(lrn(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))))
        x = F.max_pool2d(lrn(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.inception3b(self.inception3a(x)), 3, 2, ceil_mode=True)
        x = self.inception4a(x)
        heads = [self.aux1(x)] if self.training and hasattr(self, "aux1") else []
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        heads += [self.aux2(x)] if heads else []
        x = F.max_pool2d(self.inception4e(x), 2 if self.norm else 3, 2, ceil_mode=True)
        x = self.inception5b(self.inception5a(x))
        x = self.fc(x.mean((2, 3)))
        return (x, heads[1], heads[0]) if heads else x


class Block(nn.Module):
    """A residual block from a list of (filters, kernel, stride); `shortcut` "B" projects, "A" subsamples and pads."""

    def __init__(self, c, convs, shortcut):
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

    def forward(self, x):
        y = x
        for i in range(1, self.convs + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.convs else y
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = torch.cat([x, x.new_zeros(x.shape[0], self.added, *x.shape[2:])], 1)
        return F.relu(x + y)


class ResNet(nn.Module):
    def __init__(self, layers, bottleneck=False, stride_first=False, num_classes=1000):
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

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


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


BUILDERS = {
    "lenet5": LeNet5,
    "alexnet": alexnet,
    "alexnet_one_tower": lambda: alexnet_of_2012(1),
    "alexnet_two_tower": lambda: alexnet_of_2012(2),
    "zfnet": zfnet,
    "overfeat_fast": lambda: overfeat(False),
    "overfeat_accurate": lambda: overfeat(True),
    "vgg11": lambda: vgg("A"),
    "vgg13": lambda: vgg("B"),
    "vgg16": lambda: vgg("D"),
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
    "googlenet": lambda: GoogLeNet(True),
    "googlenet_2014": lambda: GoogLeNet(False),
    "resnet18": lambda: ResNet((2, 2, 2, 2)),
    "resnet34": lambda: ResNet((3, 4, 6, 3)),
    "resnet50": lambda: ResNet((3, 4, 6, 3), True),
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
}
