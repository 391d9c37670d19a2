"""VGG A to E, with torchvision's structure and state_dict keys.

Paper: Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = [
    "VGG",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vgg_a",
    "vgg_a_lrn",
    "vgg_b",
    "vgg_c",
    "vgg_d",
    "vgg_e",
]

PAPER = "Simonyan & Zisserman 2015"
SIZE = (3, 224, 224)

# Table 1: a number is a 3x3 convolution of that many filters, a negative one 1x1; 0 is a 2x2 maximum pooling.
_COLUMNS = {
    "A": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "B": (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "C": (64, 64, 0, 128, 128, 0, 256, 256, -256, 0, 512, 512, -512, 0, 512, 512, -512, 0),
    "D": (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    "E": (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4, 0),
}


class VGG(nn.Module):
    """A column of table 1.

    Args:
        column: "A" to "E".
        batch_norm: normalise after every convolution, as torchvision's `_bn` variants.
        response_norm: local response normalisation after the first convolution (A-LRN).
        num_classes: width of the output.
        dropout: probability in the two hidden full layers.
    """

    def __init__(
        self,
        column: str,
        num_classes: int = 1000,
        *,
        batch_norm: bool = False,
        response_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _COLUMNS[column]:
            if not width:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            first = not layers
            layers.append(nn.Conv2d(channels, width, 3, padding=1) if width > 0 else nn.Conv2d(channels, -width, 1))
            channels = abs(width)
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU())
            if response_norm and first:
                layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
        with init.skip():  # all weights are drawn below
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(4096, num_classes),
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw(module, init.kaiming_normal_, 0.0, "fan_out", "relu")
            elif isinstance(module, nn.Linear):
                draw(module, init.normal_, 0.0, 0.01)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


@register(SIZE, PAPER)
def vgg11(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG A: 11 layers, 132,863,336 parameters, input (N, 3, 224, 224); torchvision's structure, keys and weights.

    Paper: Simonyan & Zisserman, 2015, table 1, column A; initialised as torchvision: He normal (fan out) in
    convolutions, N(0, 0.01^2) in full layers, biases 0.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.vgg11().parameters())
    132863336
    """
    return VGG("A", num_classes, dropout=dropout)


@register(SIZE, PAPER)
def vgg11_bn(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """`vgg11` with batch norm: 132,868,840 parameters; torchvision's, not in the paper."""
    return VGG("A", num_classes, batch_norm=True, dropout=dropout)


@register(SIZE, PAPER)
def vgg13(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG B: 13 layers, 133,047,848 parameters; table 1, column B; else as `vgg11`."""
    return VGG("B", num_classes, dropout=dropout)


@register(SIZE, PAPER)
def vgg13_bn(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """`vgg13` with batch norm: 133,053,736 parameters; torchvision's, not in the paper."""
    return VGG("B", num_classes, batch_norm=True, dropout=dropout)


@register(SIZE, PAPER)
def vgg16(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG D: 16 layers, 138,357,544 parameters; table 1, column D; else as `vgg11`."""
    return VGG("D", num_classes, dropout=dropout)


@register(SIZE, PAPER)
def vgg16_bn(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """`vgg16` with batch norm: 138,365,992 parameters; torchvision's, not in the paper."""
    return VGG("D", num_classes, batch_norm=True, dropout=dropout)


@register(SIZE, PAPER)
def vgg19(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG E: 19 layers, 143,667,240 parameters; table 1, column E; else as `vgg11`."""
    return VGG("E", num_classes, dropout=dropout)


@register(SIZE, PAPER)
def vgg19_bn(num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """`vgg19` with batch norm: 143,678,248 parameters; torchvision's, not in the paper."""
    return VGG("E", num_classes, batch_norm=True, dropout=dropout)


@register(SIZE, PAPER)
def vgg_a(num_classes: int = 1000) -> VGG:
    """VGG A by the paper's name; the same network as `vgg11`."""
    return VGG("A", num_classes)


@register(SIZE, PAPER)
def vgg_a_lrn(num_classes: int = 1000) -> VGG:
    """VGG A with local response normalisation after the first layer: 132,863,336 parameters; table 1, column A-LRN.

    The constants of the normalisation are AlexNet's (section 2.1).
    """
    return VGG("A", num_classes, response_norm=True)


@register(SIZE, PAPER)
def vgg_b(num_classes: int = 1000) -> VGG:
    """VGG B by the paper's name; the same network as `vgg13`."""
    return VGG("B", num_classes)


@register(SIZE, PAPER)
def vgg_c(num_classes: int = 1000) -> VGG:
    """VGG C: 16 layers, three of them 1x1 convolutions: 133,638,952 parameters; table 1, column C.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.vgg_c().parameters())
    133638952
    """
    return VGG("C", num_classes)


@register(SIZE, PAPER)
def vgg_d(num_classes: int = 1000) -> VGG:
    """VGG D by the paper's name; the same network as `vgg16`."""
    return VGG("D", num_classes)


@register(SIZE, PAPER)
def vgg_e(num_classes: int = 1000) -> VGG:
    """VGG E by the paper's name; the same network as `vgg19`."""
    return VGG("E", num_classes)
