"""AlexNet: torchvision's, and the one of 2012 with one tower or two.

Paper: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012,
section 3.5 and figure 2; torchvision's follows Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = ["AlexNet", "AlexNetOf2012", "alexnet", "alexnet_one_tower", "alexnet_two_tower"]

PAPER = "Krizhevsky et al. 2012"


class AlexNet(nn.Module):
    """AlexNet as torchvision builds it.  See `alexnet`."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Any) -> Tensor:
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


class AlexNetOf2012(nn.Module):
    """AlexNet with the widths and local response normalisation of the paper.

    Args:
        num_classes: width of the output.
        towers: into how many groups of channels conv2, conv4 and conv5 are split: 2 in the paper, one tower a GPU.
    """

    def __init__(self, num_classes: int = 1000, towers: int = 2) -> None:
        super().__init__()
        # The paper's alpha multiplies the plain sum over n = 5 channels; LocalResponseNorm divides its own by 5.
        with init.skip():  # all weights are drawn below
            self.features = nn.Sequential(
                nn.Conv2d(3, 96, 11, stride=4),
                nn.ReLU(),
                nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
                nn.MaxPool2d(3, 2),
                nn.Conv2d(96, 256, 5, padding=2, groups=towers),
                nn.ReLU(),
                nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
                nn.MaxPool2d(3, 2),
                nn.Conv2d(256, 384, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384, 384, 3, padding=1, groups=towers),
                nn.ReLU(),
                nn.Conv2d(384, 256, 3, padding=1, groups=towers),
                nn.ReLU(),
                nn.MaxPool2d(3, 2),
            )
            self.classifier = nn.Sequential(
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(4096, 4096),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(4096, num_classes),
            )
        layers = [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for number, layer in enumerate(layers, 1):  # section 5: bias 1 in layers 2, 4, 5 and the hidden full ones
            draw(layer, init.normal_, 0.0, 0.01, bias=1.0 if number in (2, 4, 5, 6, 7) else 0.0)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(F.flatten(self.features(x), 1))


@register((3, 224, 224), PAPER)
def alexnet(num_classes: int = 1000, dropout: float = 0.5) -> AlexNet:
    """AlexNet with torchvision's structure and state_dict keys: 61,100,840 parameters, input (N, 3, 224, 224).

    Against the paper: 64, 192, 384, 256, 256 filters instead of 96, 256, 384, 384, 256, one tower, no response
    normalisation, dropout before the full layers.  PyTorch's default initialisation.

    Paper: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, section 3.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.alexnet().parameters())
    61100840
    """
    return AlexNet(num_classes, dropout)


@register((3, 227, 227), PAPER)
def alexnet_one_tower(num_classes: int = 1000) -> AlexNetOf2012:
    """AlexNet of 2012 in one tower, as the lecture draws it: 62,378,344 parameters, input (N, 3, 227, 227).

    All connections between the two halves are there; else as `alexnet_two_tower`.

    Paper: Krizhevsky, Sutskever & Hinton, 2012, section 3.5.
    """
    return AlexNetOf2012(num_classes, towers=1)


@register((3, 227, 227), PAPER)
def alexnet_two_tower(num_classes: int = 1000) -> AlexNetOf2012:
    """AlexNet of 2012: two towers as groups, local response normalisation: 60,965,224 parameters.

    Input (N, 3, 227, 227): the paper says 224, but its 55x55 maps of 11x11 filters at stride 4 need 227.
    Weights from N(0, 0.01^2), biases 1 in layers 2, 4, 5 and the hidden full layers, else 0 (section 5).

    Paper: Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
    section 3.5, figure 2.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.alexnet_two_tower().parameters())
    60965224
    """
    return AlexNetOf2012(num_classes, towers=2)
