"""Photographs beside what a network takes them for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pycnn.viz._canvas import BLUE, GREY, INK, bare, blank, colours, grid_shape, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["classified"]

_SIDE, _BARS = 1.9, 2.9  # inches of a photograph's side, and of its bars with their names


def classified(
    images: np.ndarray,
    answers: Sequence[Sequence[tuple[str, float]]],
    captions: Sequence[str],
    path: str | Path,
    title: str = "",
) -> Path:
    """Draw images, each with bars for its likeliest classes.

    Args:
        images: uint8, (N, C, H, W) with C 1 or 3, N at least 1.
        answers: for each image (name of a class, its probability), the likeliest first.
        captions: one an image, above it.
        path: the PNG file.
        title: above the picture.

    Returns:
        `path`.

    Raises:
        ValueError: no images, or answers or captions that do not agree with them in number.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "picture.png")
    >>> classified(np.zeros((1, 3, 8, 8), np.uint8), [[("cat", 0.9), ("dog", 0.1)]], ["black.png"], path).exists()
    True
    """
    if not len(images) == len(answers) == len(captions) or not captions:
        raise ValueError(
            f"images, answers and captions must agree in number and be at least one, got {len(images)}, "
            f"{len(answers)} and {len(captions)}"
        )
    rows, columns = grid_shape(len(images), wide=0.8)
    figure = blank(columns * (_SIDE + _BARS), rows * (_SIDE + 0.3) + (0.4 if title else 0.0))
    figure.suptitle(title, color=INK, fontsize=11)
    grid = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=(_SIDE, _BARS) * columns).reshape(-1, 2)
    for (photograph, bars), image, answer, caption in zip(grid, colours(images), answers, captions, strict=False):
        bare(photograph)
        photograph.imshow(image)
        photograph.set_title(_short(caption, 30), fontsize=8, color=GREY)
        _draw(bars, answer)
    for axes in grid[len(images) :].flat:
        axes.axis("off")
    return save(figure, path)


def _draw(axes: Axes, answer: Sequence[tuple[str, float]]) -> None:
    """The bars, each with its name above it, so that a long name needs no margin."""
    places = np.arange(len(answer))
    axes.barh(places, [share for _, share in answer], height=0.3, color=BLUE)
    for place, (name, share) in zip(places.tolist(), answer, strict=True):
        axes.text(0, place - 0.24, _short(name, 34), va="bottom", fontsize=7.5, color=INK)
        axes.text(1.0, place - 0.24, f"{100 * share:.1f} %", va="bottom", ha="right", fontsize=7.5, color=INK)
    axes.set(xlim=(0, 1), ylim=(max(len(answer), 1) - 0.5, -0.75))
    bare(axes)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
