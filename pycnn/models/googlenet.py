"""GoogLeNet: torchvision's with batch norm, and the one of 2014.

Paper: Szegedy et al., "Going deeper with convolutions", CVPR 2015 (arXiv 1409.4842, 2014), section 5, table 1 and
figures 2 and 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = [
    "GoogLeNet",
    "GoogLeNetOf2014",
    "GoogLeNetOutputs",
    "Inception",
    "InceptionNaive",
    "googlenet",
    "googlenet_2014",
]

PAPER = "Szegedy et al. 2014"

# Table 1: filters of #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
_WIDTHS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """What a GoogLeNet with auxiliary heads returns in training."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class _ConvNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Any) -> Tensor:
        return self.bn(self.conv(x), relu=True)


class _ConvBias(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding)

    def forward(self, x: Any) -> Tensor:
        return F.relu(self.conv(x))


class InceptionNaive(nn.Module):
    """The naive inception module (figure 2a): 1x1, 3x3 and 5x5 filters and 3x3 pooling, side by side.

    Its output has all of the input's channels besides the new ones, so modules of it cannot be stacked deep.

    Args:
        in_channels: channels of the input.
        ch1x1, ch3x3, ch5x5: filters of each size.
    """

    def __init__(self, in_channels: int, ch1x1: int, ch3x3: int, ch5x5: int) -> None:
        super().__init__()
        self.branch1 = _ConvBias(in_channels, ch1x1, 1)
        self.branch2 = _ConvBias(in_channels, ch3x3, 3, padding=1)
        self.branch3 = _ConvBias(in_channels, ch5x5, 5, padding=2)
        self.branch4 = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Any) -> Tensor:
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Inception(nn.Module):
    """The inception module with 1x1 reductions before the 3x3 and 5x5 filters and after the pooling (figure 2b).

    Args:
        in_channels: channels of the input.
        ch1x1, ch3x3red, ch3x3, ch5x5red, ch5x5, pool_proj: filters, as table 1 names them.
        batch_norm: torchvision's form: batch norm instead of biases, and 3x3 filters where the paper has 5x5.
    """

    def __init__(
        self,
        in_channels: int,
        ch1x1: int,
        ch3x3red: int,
        ch3x3: int,
        ch5x5red: int,
        ch5x5: int,
        pool_proj: int,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        conv: Any = _ConvNorm if batch_norm else _ConvBias
        wide = 3 if batch_norm else 5
        self.branch1 = conv(in_channels, ch1x1, 1)
        self.branch2 = nn.Sequential(conv(in_channels, ch3x3red, 1), conv(ch3x3red, ch3x3, 3, padding=1))
        self.branch3 = nn.Sequential(conv(in_channels, ch5x5red, 1), conv(ch5x5red, ch5x5, wide, padding=wide // 2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(in_channels, pool_proj, 1))

    def forward(self, x: Any) -> Tensor:
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class _Aux(nn.Module):
    """An auxiliary head: 14x14 maps averaged to 4x4, 128 1x1 filters, a hidden layer of 1024, dropout, output."""

    def __init__(self, in_channels: int, num_classes: int, *, batch_norm: bool, dropout: float = 0.7) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((4, 4)) if batch_norm else nn.AvgPool2d(5, stride=3)
        self.conv = (_ConvNorm if batch_norm else _ConvBias)(in_channels, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Tensor:
        x = F.relu(self.fc1(F.flatten(self.conv(self.pool(x)), 1)))
        return self.fc2(self.dropout(x))


def _inceptions(batch_norm: bool) -> dict[str, Inception]:
    channels, modules = 192, {}
    for name, widths in _WIDTHS.items():
        modules[f"inception{name}"] = Inception(channels, *widths, batch_norm=batch_norm)
        channels = widths[0] + widths[2] + widths[4] + widths[5]
    return modules


class _GoogLeNet(nn.Module):
    training: bool
    aux1: _Aux | None
    aux2: _Aux | None

    def _tail(self, x: Any) -> Tensor | GoogLeNetOutputs:
        """From inception3a on, where both forms agree."""
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4a(x)
        aux1 = self.aux1(x) if self.aux1 is not None and self.training else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if self.aux2 is not None and self.training else None
        x = self.maxpool4(self.inception4e(x))
        x = self.avgpool(self.inception5b(self.inception5a(x)))
        x = self.fc(self.dropout(F.flatten(x, 1)))
        return x if aux1 is None or aux2 is None else GoogLeNetOutputs(x, aux2, aux1)


class GoogLeNet(_GoogLeNet):
    """GoogLeNet as torchvision builds it.  See `googlenet`."""

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        self.transform_input = transform_input
        self.conv1 = _ConvNorm(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = _ConvNorm(64, 64, 1)
        self.conv3 = _ConvNorm(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        modules = _inceptions(batch_norm=True)
        self.inception3a = modules["inception3a"]
        self.inception3b = modules["inception3b"]
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for letter in "abcde":
            self.add_module(f"inception4{letter}", modules[f"inception4{letter}"])
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = modules["inception5a"]
        self.inception5b = modules["inception5b"]
        self.aux1 = _Aux(512, num_classes, batch_norm=True, dropout=dropout_aux) if aux_logits else None
        self.aux2 = _Aux(528, num_classes, batch_norm=True, dropout=dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.trunc_normal_(module.weight, 0.0, 0.01, -2.0, 2.0)

    def forward(self, x: Any) -> Tensor | GoogLeNetOutputs:
        if self.transform_input:
            # From torchvision's normalisation of the colours to that of the weights converted from TensorFlow.
            means, deviations = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            x = F.cat(
                [x[:, i : i + 1] * (deviations[i] / 0.5) + (means[i] - 0.5) / 0.5 for i in range(3)],
                1,
            )
        x = self.maxpool1(self.conv1(x))
        return self._tail(self.maxpool2(self.conv3(self.conv2(x))))


class GoogLeNetOf2014(_GoogLeNet):
    """GoogLeNet as the paper has it.  See `googlenet_2014`."""

    def __init__(self, num_classes: int = 1000, aux_logits: bool = True) -> None:
        super().__init__()
        self.conv1 = _ConvBias(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.conv2 = _ConvBias(64, 64, 1)
        self.conv3 = _ConvBias(64, 192, 3, padding=1)
        self.norm2 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        for name, inception in _inceptions(batch_norm=False).items():
            self.add_module(name, inception)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.aux1 = _Aux(512, num_classes, batch_norm=False) if aux_logits else None
        self.aux2 = _Aux(528, num_classes, batch_norm=False) if aux_logits else None
        self.avgpool = nn.AvgPool2d(7, stride=1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(1024, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                draw(module, init.xavier_uniform_, bias=0.2 if isinstance(module, nn.Conv2d) else 0.0)

    def forward(self, x: Any) -> Tensor | GoogLeNetOutputs:
        x = self.norm1(self.maxpool1(self.conv1(x)))
        return self._tail(self.maxpool2(self.norm2(self.conv3(self.conv2(x)))))


@register((3, 224, 224), PAPER)
def googlenet(
    num_classes: int = 1000,
    aux_logits: bool = True,
    transform_input: bool = False,
    dropout: float = 0.2,
    dropout_aux: float = 0.7,
) -> GoogLeNet:
    """GoogLeNet with torchvision's structure and state_dict keys: 13,004,888 parameters, 6,624,904 without the heads.

    Against the paper: batch norm instead of biases and response normalisation, 3x3 filters for 5x5, a 2x2 fourth
    pooling, heads that average adaptively.  Input (N, 3, 224, 224).  In training, with `aux_logits`, the result is
    `GoogLeNetOutputs`; otherwise the logits.  Weights from a truncated N(0, 0.01^2).

    Paper: Szegedy et al., 2014, section 5; Ioffe & Szegedy, "Batch normalization", 2015.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.googlenet().parameters())
    13004888
    """
    return GoogLeNet(num_classes, aux_logits, transform_input, dropout, dropout_aux)


@register((3, 224, 224), PAPER)
def googlenet_2014(num_classes: int = 1000, aux_logits: bool = True) -> GoogLeNetOf2014:
    """GoogLeNet as published: 22 layers with parameters, 6,998,552 parameters and 6,379,728 more in the heads.

    Response normalisation, 5x5 filters, biases, two auxiliary heads (average 5x5 at stride 3, weight 0.3 each in the
    paper's loss).  Input (N, 3, 224, 224).  In training, with `aux_logits`, the result is `GoogLeNetOutputs`.  The
    paper names no initialisation: Glorot uniform with biases 0.2, as in Caffe's replica of it.

    Paper: Szegedy et al., "Going deeper with convolutions", 2014, section 5, table 1, figure 3.
    """
    return GoogLeNetOf2014(num_classes, aux_logits)
