"""The filters of a convolution layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pycnn.viz._canvas import INK, blank, grid_shape, mapped, mosaic, save

__all__ = ["filters"]

_MOST = 128


def filters(w: np.ndarray, path: str | Path, title: str = "") -> Path:
    """Draw filters as pictures: RGB ones in colour, others one input channel each.

    Each colour filter is scaled to its own range; a single channel is red where positive and blue where negative,
    white at zero, on one scale for all.

    Args:
        w: (K, C, R, S).  With C of 3 the K filters are drawn; otherwise the first channel of each if C is 1, or the
            K x C planes as rows and columns.  At most 128 tiles.
        path: the PNG file.
        title: above the picture.

    Returns:
        `path`.

    Raises:
        ValueError: a wrong rank.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "picture.png")
    >>> filters(np.zeros((8, 3, 5, 5)), path).exists()
    True
    """
    if w.ndim != 4:
        raise ValueError(f"w must have 4 dimensions (K, C, R, S), got shape {w.shape}")
    k, c = w.shape[:2]
    if c == 3:
        low, high = (getattr(w, edge)((1, 2, 3), keepdims=True) for edge in ("min", "max"))
        tiles = ((w - low) / np.where(high > low, high - low, 1.0)).transpose(0, 2, 3, 1)
        columns = grid_shape(min(k, _MOST))[1]
    else:
        extent = float(np.abs(w).max())
        tiles = mapped(w.reshape(k * c, *w.shape[2:]), -extent, extent, "RdBu_r")
        columns = c if 1 < c <= 16 and k * c <= _MOST else grid_shape(min(len(tiles), _MOST))[1]
    drawn = mosaic(tiles[:_MOST], columns, side=0.6)
    figure = blank(max(drawn.inches[0], 0.075 * len(title)) + 0.2, drawn.inches[1] + 0.5)
    figure.suptitle(title, color=INK, fontsize=11)
    drawn.show(figure.add_subplot())
    return save(figure, path)
