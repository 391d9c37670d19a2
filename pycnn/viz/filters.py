"""The filters of a convolution layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pycnn.viz._canvas import INK, bare, blank, grid_shape, save

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
    """
    if w.ndim != 4:
        raise ValueError(f"w must have 4 dimensions (K, C, R, S), got shape {w.shape}")
    k, c = w.shape[:2]
    colour = c == 3
    tiles = w if colour else w.reshape(k * c, 1, *w.shape[2:])
    rows, columns = (k, c) if not colour and 1 < c <= 16 and k * c <= _MOST else grid_shape(min(len(tiles), _MOST))
    figure = blank(max(0.75 * columns, 3.2), 0.75 * rows + 0.5)
    figure.suptitle(title, color=INK, fontsize=11)
    extent = float(np.abs(w).max()) or 1.0
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        bare(axes)
        if i >= min(len(tiles), _MOST):
            continue
        if colour:
            low, high = tiles[i].min(), tiles[i].max()
            picture = (tiles[i].transpose(1, 2, 0) - low) / ((high - low) or 1.0)
            axes.imshow(picture, interpolation="nearest")
        else:
            axes.imshow(tiles[i, 0], cmap="RdBu_r", vmin=-extent, vmax=extent, interpolation="nearest")
    return save(figure, path)
