"""What the layers of a network make of one image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pycnn.viz._canvas import GREY, INK, as_picture, bare, blank, save

__all__ = ["activation_maps"]


def activation_maps(
    image: np.ndarray,
    layers: Mapping[str, np.ndarray],
    path: str | Path,
    title: str = "",
    most: int = 16,
) -> Path:
    """Draw an image and, a row for each layer, the maps it becomes.

    Args:
        image: uint8, (C, H, W) with C 1 or 3.
        layers: by name, each layer's output for this image, (K, P, Q); the first `most` maps are drawn, each scaled
            to its own range.
        path: the PNG file.
        title: above the picture.
        most: maps a layer.

    Returns:
        `path`.

    Raises:
        ValueError: a layer whose output is not (K, P, Q), or `image` not (1 or 3, H, W).
    """
    for name, maps in layers.items():
        if maps.ndim != 3:
            raise ValueError(f"the output of {name} must have 3 dimensions (K, P, Q), got shape {maps.shape}")
    columns = 1 + min(most, max((len(maps) for maps in layers.values()), default=1))
    rows = max(len(layers), 1)
    figure = blank(0.72 * columns + 1.2, 0.82 * rows + 0.6)
    figure.suptitle(title, color=INK, fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        bare(axes)
    grid[0, 0].imshow(as_picture(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    grid[0, 0].set_xlabel("input", fontsize=7, color=GREY)
    for row, (name, maps) in enumerate(layers.items()):
        grid[row, 1].set_ylabel(name, fontsize=7, color=INK, rotation=0, ha="right", va="center")
        for axes, plane in zip(grid[row, 1:], maps, strict=False):
            axes.imshow(plane, cmap="viridis", interpolation="nearest")
        shape = " x ".join(map(str, maps.shape))
        grid[row, 1].set_title(shape, fontsize=6, color=GREY, loc="left", pad=2)
    return save(figure, path)
