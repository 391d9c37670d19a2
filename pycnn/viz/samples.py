"""Grids of images with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pycnn.viz._canvas import GREY, INK, ORANGE, blank, colours, grid_shape, mosaic, save

__all__ = ["misclassified", "sample_grid"]


def sample_grid(
    images: np.ndarray,
    captions: Sequence[str],
    path: str | Path,
    title: str = "",
    caption_colours: Sequence[str] | None = None,
) -> Path:
    """Draw images in a grid, a caption under each.

    Args:
        images: uint8, (N, C, H, W) with C 1 or 3; N may be 0, which gives a picture that says so.
        captions: one an image.
        path: the PNG file.
        title: above the grid.
        caption_colours: one a caption.

    Returns:
        `path`.

    Raises:
        ValueError: captions that do not agree with the images in number, or images of another number of channels.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "picture.png")
    >>> sample_grid(np.zeros((2, 1, 8, 8), np.uint8), ["three", "five"], path).exists()
    True
    """
    if len(captions) != len(images):
        raise ValueError(f"captions must be one for each of the {len(images)} images, got {len(captions)}")
    if len(images) == 0:
        figure = blank(5.0, 1.2)
        figure.text(0.5, 0.5, f"{title}: none" if title else "none", ha="center", va="center", color=GREY)
        return save(figure, path)
    lines = max(caption.count("\n") + 1 for caption in captions)
    drawn = mosaic(colours(images), grid_shape(len(images))[1], side=1.05, below=0.06 + 0.14 * lines)
    figure = blank(max(drawn.inches[0], 0.08 * len(title)) + 0.2, drawn.inches[1] + 0.14 * lines + 0.5)
    figure.suptitle(title, color=INK, fontsize=11)
    axes = figure.add_subplot()
    drawn.show(axes)
    for i, ((x, y), caption) in enumerate(zip(drawn.centres, captions, strict=True)):
        colour = caption_colours[i] if caption_colours else INK
        axes.annotate(
            caption, (x, y), (0, -2), textcoords="offset points", ha="center", va="top", fontsize=7, color=colour
        )
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
    return sample_grid(images, captions, path, title, caption_colours=[ORANGE] * len(captions))
