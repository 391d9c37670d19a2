"""ZFNet.

Paper: Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, figure 3.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = ["ZFNet", "zfnet"]


class ZFNet(nn.Module):
    """AlexNet with 7x7 filters at stride 2 in the first layer.  See `zfnet`."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        # Pooling rounds up: 110 -> 55 and 26 -> 13, the sizes in figure 3.
        with init.skip():  # all weights are drawn below
            self.features = nn.Sequential(
                nn.Conv2d(3, 96, 7, stride=2, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
                nn.Conv2d(96, 256, 5, stride=2),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, ceil_mode=True),
                nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0),
                nn.Conv2d(256, 384, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384, 384, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, ceil_mode=True),
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
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                draw(module, init.normal_, 0.0, 0.01)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(F.flatten(self.features(x), 1))


@register((3, 224, 224), "Zeiler & Fergus 2014")
def zfnet(num_classes: int = 1000) -> ZFNet:
    """ZFNet, the winner of 2013's kind: 62,357,608 parameters, input (N, 3, 224, 224).

    Maps of 110, 55, 26, 13 and 6 as in figure 3, contrast normalisation across maps after the first two poolings
    (with AlexNet's constants), dense connections in all layers, weights from N(0, 0.01^2), biases 0 (section 3).

    Paper: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014, figure 3.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.zfnet().parameters())
    62357608
    """
    return ZFNet(num_classes)
