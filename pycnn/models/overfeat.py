"""OverFeat, fast and accurate.

Paper: Sermanet et al., "OverFeat: integrated recognition, localization and detection using convolutional networks",
ICLR 2014, tables 1 and 3.
"""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn import nn
from pycnn.models._weights import draw
from pycnn.models.registry import register
from pycnn.nn import init
from pycnn.tensor import Tensor

__all__ = ["OverFeat", "overfeat_accurate", "overfeat_fast"]

PAPER = "Sermanet et al. 2014"


class OverFeat(nn.Module):
    """The given feature layers, then two hidden full layers with dropout and the output."""

    def __init__(self, features: list[nn.Module], widths: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        with init.skip():  # all weights are drawn below
            self.features = nn.Sequential(*features)
            flat, first, second = widths
            self.classifier = nn.Sequential(
                nn.Dropout(0.5),
                nn.Linear(flat, first),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(first, second),
                nn.ReLU(),
                nn.Linear(second, num_classes),
            )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                draw(module, init.normal_, 0.0, 0.01)

    def forward(self, x: Any) -> Tensor:
        return self.classifier(F.flatten(self.features(x), 1))


@register((3, 231, 231), PAPER)
def overfeat_fast(num_classes: int = 1000) -> OverFeat:
    """OverFeat's fast model: 145,920,872 parameters, input (N, 3, 231, 231).

    Maps of 56, 28, 24, 12 and 6 (table 1 lists the 24 that conv2 gives as its input); pooling without overlap, no
    contrast normalisation.

    Paper: Sermanet et al., "OverFeat", 2014, table 1.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.overfeat_fast().parameters())
    145920872
    """
    features = [
        *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(96, 256, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(256, 512, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    ]
    return OverFeat(features, (1024 * 6 * 6, 3072, 4096), num_classes)


@register((3, 221, 221), PAPER)
def overfeat_accurate(num_classes: int = 1000) -> OverFeat:
    """OverFeat's accurate model: 144,656,488 parameters, input (N, 3, 221, 221); maps of 36, 15 and 5.

    Paper: Sermanet et al., "OverFeat", 2014, table 3.

    >>> from pycnn import models, nn
    >>> with nn.init.skip():
    ...     sum(p.numel() for p in models.overfeat_accurate().parameters())
    144656488
    """
    features = [
        *(nn.Conv2d(3, 96, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3)),
        *(nn.Conv2d(96, 256, 7), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(256, 512, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(512, 512, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3)),
    ]
    return OverFeat(features, (1024 * 5 * 5, 4096, 4096), num_classes)
