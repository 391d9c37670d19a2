"""What every picture shares: an Agg figure outside pyplot's global state, one style, and a file written whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pycnn._extras import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "INK", "ORANGE", "as_picture", "bare", "blank", "grid_shape", "save"]

INK, GREY, BLUE, ORANGE = "#222222", "#888888", "#2166ac", "#d6604d"


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches.  Raises ModuleNotFoundError naming the extra if Matplotlib is missing."""
    with extra("viz", "Matplotlib"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG, under a temporary name first, so that `path` is never half a picture."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, dpi=120, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def bare(axes: Axes) -> None:
    """Take ticks and frame off, for an axes that holds an image."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def grid_shape(count: int, wide: float = 1.6) -> tuple[int, int]:
    """Rows and columns for `count` tiles, about `wide` times as wide as high.

    >>> grid_shape(6), grid_shape(64)
    ((2, 3), (6, 11))
    """
    columns = max(1, min(count, round((count * wide) ** 0.5)))
    rows = -(-count // columns)
    return rows, -(-count // rows)


def as_picture(image: np.ndarray) -> np.ndarray:
    """A (C, H, W) image as Matplotlib wants it: (H, W) for one channel, (H, W, 3) for three.

    Raises ValueError for another number of channels.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image to draw must be (1, H, W) or (3, H, W), got {image.shape}")
    return image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
