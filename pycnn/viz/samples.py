"""Grids of images with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pycnn.viz._canvas import GREY, INK, ORANGE, as_picture, bare, blank, grid_shape, save

__all__ = ["misclassified", "sample_grid"]


def sample_grid(
    images: np.ndarray,
    captions: Sequence[str],
    path: str | Path,
    title: str = "",
    colours: Sequence[str] | None = None,
) -> Path:
    """Draw images in a grid, a caption under each.

    Args:
        images: uint8, (N, C, H, W) with C 1 or 3; N may be 0, which gives a picture that says so.
        captions: one an image.
        path: the PNG file.
        title: above the grid.
        colours: of the captions.

    Returns:
        `path`.

    Raises:
        ValueError: captions that do not agree with the images in number, or images of another number of channels.
    """
    if len(captions) != len(images):
        raise ValueError(f"captions must be one for each of the {len(images)} images, got {len(captions)}")
    if len(images) == 0:
        figure = blank(5.0, 1.2)
        figure.text(0.5, 0.5, f"{title}: none" if title else "none", ha="center", va="center", color=GREY)
        return save(figure, path)
    rows, columns = grid_shape(len(images))
    lines = max(caption.count("\n") + 1 for caption in captions)
    figure = blank(1.15 * columns, (1.05 + 0.14 * lines) * rows + 0.5)
    figure.suptitle(title, color=INK, fontsize=11)
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        bare(axes)
        if i < len(images):
            axes.imshow(as_picture(images[i]), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xlabel(captions[i], fontsize=7, color=colours[i] if colours else INK, labelpad=2)
    return save(figure, path)


def misclassified(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: str | Path,
    title: str = "",
) -> Path:
    """Draw wrongly classified images: what each was taken for, how surely, and what it is.

    Args:
        images: uint8, (N, C, H, W).
        labels: the true classes, (N,).
        probabilities: (N, len(classes)).
        classes: names.
        path: the PNG file.
        title: above the grid.

    Returns:
        `path`.
    """
    captions = [
        f"{classes[row.argmax()]} ({100 * row.max():.0f} %)\nis {classes[label]}"
        for label, row in zip(labels.tolist(), probabilities, strict=True)
    ]
    return sample_grid(images, captions, path, title, colours=[ORANGE] * len(captions))
