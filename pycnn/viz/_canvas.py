"""What every picture shares: an Agg figure outside pyplot's global state, one style, and a file written whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn._extras import extra
from pycnn._files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREY",
    "INK",
    "ORANGE",
    "Mosaic",
    "bare",
    "blank",
    "colours",
    "grid_shape",
    "mapped",
    "mosaic",
    "save",
]

_TILE = 96  # pixels to which small pictures are enlarged
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
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
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
    ((2, 3), (7, 10))
    """
    columns = max(1, min(count, round((count * wide) ** 0.5)))
    rows = -(-count // columns)
    return rows, -(-count // rows)


def colours(images: np.ndarray) -> np.ndarray:
    """uint8 images (N, C, H, W), grey or RGB, as (N, H, W, 3) from 0 to 1.

    Raises ValueError for another number of channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images to draw must be (N, 1, H, W) or (N, 3, H, W), got {images.shape}")
    shown = np.broadcast_to(images.transpose(0, 2, 3, 1), (len(images), *images.shape[2:], 3))
    return shown.astype(np.float32) / 255.0


def mapped(planes: np.ndarray, low: Any, high: Any, name: str) -> np.ndarray:
    """Planes (N, H, W) as colours (N, H, W, 3): Matplotlib's map `name` from `low` to `high`."""
    with extra("viz", "Matplotlib"):
        from matplotlib import colormaps

    span = np.asarray(high - low, np.float64)
    unit = (planes - low) / np.where(span > 0, span, 1.0)
    return np.asarray(colormaps[name](unit))[..., :3]


@dataclass(frozen=True)
class Mosaic:
    """Pictures of one size laid out in rows; one image, because an axes for each would take seconds.

    Attributes:
        pixels: (height, width, 3) from 0 to 1, white where there is no picture.
        centres: x of each picture's middle and y of its lower edge, (N, 2), in pixels.
        inches: width and height to draw it at.
    """

    pixels: np.ndarray
    centres: np.ndarray
    inches: tuple[float, float]

    def show(self, axes: Axes) -> None:
        """Fill the axes with it."""
        bare(axes)
        axes.imshow(self.pixels, interpolation="nearest", aspect="equal")


def mosaic(pictures: np.ndarray, columns: int, side: float, below: float = 0.0) -> Mosaic:
    """Lay out pictures (N, H, W, 3), each about `side` inches wide, with `below` inches for a caption under each row.

    Pixels are repeated, never blended.
    """
    n, h, w = pictures.shape[:3]
    repeat = max(1, round(_TILE / max(h, w)))
    pictures = pictures.repeat(repeat, 1).repeat(repeat, 2)
    h, w = h * repeat, w * repeat
    inch = w / side
    gap, caption = max(1, round(0.06 * inch)), round(below * inch)
    rows = -(-n // columns)
    pixels = np.ones((rows * (h + gap + caption) - gap, columns * (w + gap) - gap, 3))
    centres = np.empty((n, 2))
    for i, picture in enumerate(pictures):
        top, left = i // columns * (h + gap + caption), i % columns * (w + gap)
        pixels[top : top + h, left : left + w] = picture
        centres[i] = left + (w - 1) / 2, top + h
    return Mosaic(pixels, centres, (pixels.shape[1] / inch, pixels.shape[0] / inch))
