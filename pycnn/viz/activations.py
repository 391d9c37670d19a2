"""What the layers of a network make of one image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pycnn.viz._canvas import GREY, INK, Mosaic, bare, blank, colours, mapped, mosaic, save

__all__ = ["activation_maps"]

_SIDE = 0.72  # inches of each map


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

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "picture.png")
    >>> activation_maps(np.zeros((3, 8, 8), np.uint8), {"conv1": np.zeros((4, 6, 6))}, path).exists()
    True
    """
    for name, maps in layers.items():
        if maps.ndim != 3:
            raise ValueError(f"the output of {name} must have 3 dimensions (K, P, Q), got shape {maps.shape}")
    columns = min(most, max((len(maps) for maps in layers.values()), default=1))
    rows = {name: _row(maps[:most], columns) for name, maps in layers.items()}
    width = max((row.inches[0] for row in rows.values()), default=1.0)
    figure = blank(_SIDE + 0.3 + 0.075 * max(map(len, layers), default=0) + width, max(len(rows), 1) * 0.95 + 0.7)
    figure.suptitle(title, color=INK, fontsize=11)
    grid = figure.subplots(max(len(rows), 1), 2, squeeze=False, width_ratios=(_SIDE, width))
    for axes in grid.flat:
        bare(axes)
    mosaic(colours(image[None]), 1, _SIDE).show(grid[0, 0])
    grid[0, 0].set_xlabel("input", fontsize=7, color=GREY)
    for axes, (name, row) in zip(grid[:, 1], rows.items(), strict=False):
        row.show(axes)
        axes.set_ylabel(name, fontsize=7, color=INK, rotation=0, ha="right", va="center")
        axes.set_title(" x ".join(map(str, layers[name].shape)), fontsize=6, color=GREY, loc="left", pad=2)
    return save(figure, path)


def _row(maps: np.ndarray, columns: int) -> Mosaic:
    """Maps (K, P, Q), each on its own range of colours, in one row with room for `columns`."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return mosaic(mapped(maps, low, high, "viridis"), columns, _SIDE)
