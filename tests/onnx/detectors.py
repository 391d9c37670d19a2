"""torchvision's detectors where torchvision has no compiled operators: enough of these to trace and to export."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import packages
import torch

__all__ = ["models"]

_LIBRARIES = []  # a torch library's operators last as long as it does


def nothing() -> None:
    """In the place of the question whether there are compiled operators."""


def yes() -> bool:
    """The answer to it."""
    return True


def _nms(boxes: Any, scores: Any, threshold: float) -> Any:
    order = scores.argsort(descending=True, stable=True)
    corners = boxes[order]
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    low = torch.maximum(corners[:, None, :2], corners[None, :, :2])
    high = torch.minimum(corners[:, None, 2:], corners[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    overlapping = shared / (areas[:, None] + areas[None] - shared) > threshold
    kept: list[int] = []
    for place in range(len(order)):
        if not overlapping[place, kept].any():
            kept.append(place)
    return order[kept]


@functools.cache
def models() -> Any:
    """`torchvision.models.detection`.  Skips the test where torchvision cannot be imported."""
    found = packages.torchvision_models().detection
    boxes, regions = (importlib.import_module(f"torchvision.ops.{name}") for name in ("boxes", "roi_align"))
    if regions._has_ops():
        return found
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", _nms, "CPU")
    library.impl("roi_align", regions._roi_align, "CPU")
    _LIBRARIES.append(library)
    boxes._assert_has_ops = regions._assert_has_ops = nothing
    regions._has_ops = yes
    return found
