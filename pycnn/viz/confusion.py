"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pycnn.viz._canvas import INK, blank, save

__all__ = ["confusion_matrix"]

_MOST_NUMBERED = 25  # classes up to which every cell shows its count


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], path: str | Path, title: str = "") -> Path:
    """Draw how often each class (row) was taken for each class (column); colour is the share of the row.

    Args:
        counts: (len(classes), len(classes)) whole numbers, true class first.
        classes: names.
        path: the PNG file.
        title: above the picture.

    Returns:
        `path`.

    Raises:
        ValueError: a wrong shape.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "picture.png")
    >>> confusion_matrix(np.array([[9, 1], [0, 10]]), ["cat", "dog"], path).exists()
    True
    """
    n = len(classes)
    if counts.shape != (n, n):
        raise ValueError(f"counts must be ({n}, {n}) for {n} classes, got {counts.shape}")
    side = float(np.clip(0.46 * n + 1.9, 4.0, 14.0))
    figure = blank(side + 0.7, side)
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # The square root keeps the few mistakes visible beside a diagonal near 1.
    image = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    if n <= _MOST_NUMBERED:
        for row, column in np.argwhere(counts > 0):
            colour = "white" if share[row, column] > 0.35 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=colour)
    step = -(-n // 50)
    axes.set_xticks(range(0, n, step), classes[::step], rotation=90 if max(map(len, classes)) > 2 else 0, fontsize=8)
    axes.set_yticks(range(0, n, step), classes[::step], fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{title}\n{100 * right:.2f} % of {counts.sum()} right".strip(), fontsize=11, color=INK)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.0)
    axes.tick_params(which="both", length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=np.sqrt([0, 0.01, 0.05, 0.2, 0.5, 1]))
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=8)
    bar.outline.set_visible(False)
    return save(figure, path)
