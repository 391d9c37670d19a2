"""The lecture's picture "comparing complexity": accuracy, operations and parameters of networks side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pycnn.viz._canvas import GREY, INK, blank, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Complexity", "complexity"]

_FAMILIES = {  # colour by the start of the name
    "alexnet": "#b2182b",
    "zfnet": "#ef8a62",
    "overfeat": "#d9a404",
    "vgg": "#2166ac",
    "googlenet": "#1b7837",
    "resnet": "#762a83",
    "mobilenet": "#35978f",
    "squeezenet": "#8c510a",
    "densenet": "#4d4d4d",
    "shufflenet": "#c51b7d",
}
Box = tuple[float, float, float, float]  # left, bottom, width, height, in points
_WORK = "multiply-adds per image (thousands of millions)"


@dataclass(frozen=True)
class Complexity:
    """One network in the picture.

    Attributes:
        name: as it is labelled; its beginning chooses the colour.
        macs: multiply-adds for one image.
        parameters: trainable numbers.
        top1: published accuracy in per cent, or None if there is none.
    """

    name: str
    macs: int
    parameters: int
    top1: float | None


def complexity(networks: Sequence[Complexity], path: str | Path) -> Path:
    """Draw operations against parameters, and accuracy against operations with bubbles as large as the parameters.

    Args:
        networks: at least one; those without a published accuracy are in the first picture only.
        path: the PNG file.

    Returns:
        `path`.

    Reference: Canziani, Culurciello & Paszke, "An analysis of deep neural network models for practical applications",
    2016, figures 1 and 2.
    """
    if not networks:
        raise ValueError("there are no networks to compare")
    figure = blank(15, 7)
    figure.suptitle("Comparing complexity", color=INK, fontsize=15)
    left, right = figure.subplots(1, 2)
    _operations_and_parameters(left, networks)
    rated = [network for network in networks if network.top1 is not None]
    _accuracy(right, rated)
    return save(figure, path)


def _operations_and_parameters(axes: Axes, networks: Sequence[Complexity]) -> None:
    x, y = [n.parameters / 1e6 for n in networks], [n.macs / 1e9 for n in networks]
    axes.scatter(x, y, s=90, c=[_colour(n.name) for n in networks], alpha=0.8, edgecolors="white")
    axes.set(xscale="log", yscale="log", xlabel="parameters (millions)", ylabel=_WORK)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("Operations against parameters", color=INK, fontsize=11, loc="left")
    axes.margins(0.2, 0.1)
    _finish(axes)
    _label(axes, networks, x, y, [6.0] * len(networks))


def _accuracy(axes: Axes, networks: Sequence[Complexity]) -> None:
    x, y = [n.macs / 1e9 for n in networks], [n.top1 or 0.0 for n in networks]
    area = [n.parameters / 1e6 * 14 for n in networks]
    axes.scatter(x, y, s=area, c=[_colour(n.name) for n in networks], alpha=0.45, edgecolors="white")
    axes.set(xlabel=_WORK, ylabel="published top-1 accuracy (%)")
    axes.set_title("Accuracy against operations; area: parameters", color=INK, fontsize=11, loc="left")
    axes.margins(0.17, 0.14)
    for millions in (5, 50, 150):
        axes.scatter([], [], s=millions * 14, c=GREY, alpha=0.45, edgecolors="white", label=f"{millions} M")
    axes.legend(loc="lower right", frameon=False, labelspacing=2.6, handletextpad=1.8, borderpad=2.2, labelcolor=INK)
    _finish(axes)
    _label(axes, networks, x, y, [math.sqrt(a) / 2 for a in area])


def _finish(axes: Axes) -> None:
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)


def _colour(name: str) -> str:
    return next((colour for start, colour in _FAMILIES.items() if name.startswith(start)), INK)


def _label(
    axes: Axes, networks: Sequence[Complexity], x: Sequence[float], y: Sequence[float], radius: Sequence[float]
) -> None:
    """Write each name beside its point, at the first of several places where it covers no other name."""
    figure = axes.figure
    figure.canvas.draw()
    to_points = 72.0 / figure.dpi
    taken: list[Box] = []
    for network, px, py, r in sorted(zip(networks, x, y, radius, strict=True), key=lambda item: item[2]):
        centre_x, centre_y = axes.transData.transform((px, py)) * to_points
        width, beside = 4.9 * len(network.name), r * 0.8 + 3
        candidates = [(side, row * 10.0) for row in (0, 1, -1, 2, -2, 3, -3, 4, -4) for side in (1, -1)]
        boxes = [
            (centre_x + (beside if side > 0 else -beside - width), centre_y + up - 5, width, 10.0)
            for side, up in candidates
        ]
        best = next((i for i, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)), 0)
        taken.append(boxes[best])
        side, up = candidates[best]
        axes.annotate(
            network.name,
            (px, py),
            xytext=(side * beside, up),
            textcoords="offset points",
            fontsize=8,
            color=_colour(network.name),
            ha="left" if side > 0 else "right",
            va="center",
        )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
