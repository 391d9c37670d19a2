"""LeNet-5, as it is built today and as it was in 1998.

Paper: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", Proceedings of the
IEEE 86(11), 1998, section II.B and figure 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.nn.parameter import unset
from pycnn.shape import whole
from pycnn.tensor import Tensor

__all__ = ["CONNECTIONS", "LeNet5", "LeNet5Of1998", "lenet5", "lenet5_1998"]

PAPER = "LeCun et al. 1998"
SIDE = 32  # of the image that the first layer sees

# Table I of the paper: the maps of S2 that each of the 16 maps of C3 sees.
CONNECTIONS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# The digits of figure 3, 7x12 pixels, one row of text a row of pixels: what the output layer compares F6 with.
_DIGITS = (
    ".#####.|.......|..###..|.##.##.|##...##|##...##|##...##|##...##|.##.##.|..###..|.......|.......",
    "...##..|..###..|.####..|...##..|...##..|...##..|...##..|...##..|...##..|.######|.......|.......",
    ".#####.|.......|.#####.|##...##|#....##|....##.|..###..|.##....|##.....|#######|.......|.......",
    "#######|.....##|....##.|...##..|..####.|.....##|.....##|.....##|##...##|.#####.|.......|.......",
    ".#####.|.......|.......|.##..##|.##..##|###..##|##...##|##...##|##..###|.######|.....##|.....##",
    ".#####.|.......|#######|##.....|##.....|.####..|..####.|.....##|##...##|.#####.|.......|.......",
    "..####.|.##....|##.....|##.....|######.|###..##|##...##|##...##|###..##|.#####.|.......|.......",
    "#######|.....##|.....##|....##.|...##..|...##..|..##...|..##...|..##...|..##...|.......|.......",
    ".#####.|##...##|##...##|##...##|.#####.|##...##|##...##|##...##|##...##|.#####.|.......|.......",
    ".#####.|##..###|##...##|##...##|##..###|.######|.....##|.....##|....##.|.####..|.......|.......",
)


def _centred(x: Any) -> Any:
    """`x` in the middle of a 32x32 field of zeros, as the paper lays its 28x28 digits."""
    height, width = x.shape[2:]
    if height > SIDE or width > SIDE:
        raise ValueError(f"LeNet-5 takes images of at most {SIDE}x{SIDE}, got {height}x{width}")
    below, right = SIDE - height, SIDE - width
    if not below and not right:
        return x
    return F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))


class LeNet5(nn.Module):
    """LeNet-5 with today's parts: ReLU, max pooling, full connections, a linear output.  See `lenet5`."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Any) -> Tensor:
        x = self.pool(F.relu(self.conv1(_centred(x))))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.relu(self.fc1(F.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


class ScaledTanh(nn.Module):
    """1.7159 tanh(2/3 x): passes through (1, 1) and (-1, -1), and is most curved there (the paper's appendix A)."""

    def forward(self, x: Any) -> Tensor:
        return F.tanh(x * (2 / 3)) * 1.7159


class Subsampling(nn.Module):
    """The sum of each 2x2 window times a trainable coefficient plus a trainable bias, one of each a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(unset((channels,)))
        self.bias = nn.Parameter(unset((channels,)))
        init.uniform_(self.weight, -2.4 / 4, 2.4 / 4)
        init.zeros_(self.bias)

    def forward(self, x: Any) -> Tensor:
        sums = F.avg_pool2d(x, 2, divisor_override=1)
        return sums * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


class PartialConv2d(nn.Module):
    """C3: a 5x5 convolution whose every map sees only the input maps that `connections` lists.

    Attributes:
        weight: (number of connections, 5, 5), in the order of `connections`.
        bias: one value an output map.
    """

    def __init__(self, in_channels: int, connections: tuple[tuple[int, ...], ...], kernel_size: int = 5) -> None:
        super().__init__()
        self.connections = connections
        self.dense_shape = (len(connections), in_channels, kernel_size, kernel_size)
        pairs = [k * in_channels + c for k, seen in enumerate(connections) for c in seen]
        self.weight = nn.Parameter(unset((len(pairs), kernel_size, kernel_size)))
        self.bias = nn.Parameter(unset((len(connections),)))
        place = np.zeros((len(connections) * in_channels, len(pairs)), np.float32)
        place[pairs, range(len(pairs))] = 1
        self.register_buffer("place", Tensor(place), persistent=False)
        start = 0
        for seen in connections:
            bound = 2.4 / (len(seen) * kernel_size**2)
            init.uniform_(self.weight, -bound, bound, where=slice(start, start + len(seen)))
            start += len(seen)
        init.zeros_(self.bias)

    def forward(self, x: Any) -> Tensor:
        dense = (self.place @ self.weight.reshape(self.weight.shape[0], -1)).reshape(self.dense_shape)
        return F.conv2d(x, dense, self.bias)


class RBF(nn.Module):
    """Minus the squared distance of the input to each class's fixed code of -1 and +1.

        y[n, i] = - sum over j of (x[n, j] - code[i, j])^2

    The paper's penalty with its sign turned: the class is the arg max, and cross-entropy of y is the paper's criterion
    (9) without the constant e^-j.  The codes of ten classes are the digits of figure 3, pixel by pixel; ink is +1 (the
    paper does not say which colour it is); for another number of classes they are drawn at random, as section II.B
    suggests.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        if num_classes == len(_DIGITS):
            rows = [[1.0 if dot == "#" else -1.0 for dot in digit.replace("|", "")] for digit in _DIGITS]
            code = np.array(rows, np.float32)
        else:
            code = np.random.default_rng(1998).choice(np.array([-1, 1], np.float32), (num_classes, in_features))
        self.register_buffer("code", Tensor(code))

    def forward(self, x: Any) -> Tensor:
        offset = x.reshape(x.shape[0], 1, x.shape[1]) - self.code
        return -(offset * offset).sum(-1)


class LeNet5Of1998(nn.Module):
    """LeNet-5 as the paper has it.  See `lenet5_1998`."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = PartialConv2d(6, CONNECTIONS)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = RBF(84, whole("num_classes", num_classes, 1))
        self.squash = ScaledTanh()
        layers: tuple[nn.Conv2d | nn.Linear, ...] = (self.c1, self.c5, self.f6)
        for layer in layers:
            bound = 2.4 / math.prod(layer.weight.shape[1:])
            draw(layer, init.uniform_, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        x = _centred(x)
        for layer in (self.c1, self.s2, self.c3, self.s4, self.c5):
            x = self.squash(layer(x))
        return self.output(self.squash(self.f6(F.flatten(x, 1))))


@register((1, 32, 32), PAPER)
def lenet5(num_classes: int = 10, in_channels: int = 1) -> LeNet5:
    """LeNet-5 with ReLU, max pooling, a fully connected second convolution and a linear output: 61,706 parameters.

    Input (N, 1, 32, 32); smaller images are centred in zeros, as the paper does with its 28x28 digits.
    PyTorch's default initialisation.

    Paper: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.B.

    Args:
        num_classes: width of the output.
        in_channels: 1 for grey, 3 for colour images.

    Raises:
        ValueError: when called, images larger than 32x32.

    >>> import pycnn
    >>> pycnn.models.lenet5()(pycnn.zeros(2, 1, 28, 28)).shape
    (2, 10)
    """
    return LeNet5(num_classes, in_channels)


@register((1, 32, 32), PAPER)
def lenet5_1998(num_classes: int = 10) -> LeNet5Of1998:
    """LeNet-5 as published: 60,000 trainable parameters.

    Subsampling with a trainable coefficient and bias a map (S2, S4), the partial connections of table I (C3), the
    squashing function 1.7159 tanh(2/3 x) after every layer up to F6, and radial basis functions at the output whose
    codes are the 7x12 digits of figure 3.  The output is minus the paper's penalty, see `RBF`.  Weights are drawn
    uniformly from +-2.4/fan-in (appendix A).

    Parameters by layer: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164.
    Input (N, 1, 32, 32); smaller images are centred in zeros.

    Paper: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.B, table I.

    >>> import pycnn
    >>> pycnn.models.lenet5_1998()(pycnn.zeros(2, 1, 28, 28)).shape
    (2, 10)
    """
    return LeNet5Of1998(num_classes)
