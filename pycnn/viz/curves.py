"""Loss and accuracy over a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pycnn.viz._canvas import BLUE, GREY, INK, ORANGE, blank, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves"]


def curves(history: Sequence[Mapping[str, float]], path: str | Path, title: str = "") -> Path:
    """Draw loss, error rate and learning rate by epoch.

    Args:
        history: one mapping an epoch with ``train_loss``, ``test_loss``, ``train_accuracy``, ``test_accuracy`` (from 0
            to 1) and ``lr``.
        path: the PNG file.
        title: above the picture.

    Returns:
        `path`.

    Raises:
        ValueError: an empty history.
    """
    if not history:
        raise ValueError("history must have at least one epoch, got none")
    figure = blank(10.5, 3.9)
    figure.suptitle(title, color=INK, fontsize=12)
    loss, error, rate = figure.subplots(1, 3, width_ratios=(4, 4, 2))
    epochs = range(1, len(history) + 1)
    marker = "o" if len(history) <= 30 else None
    for axes, what in ((loss, "loss"), (error, "accuracy")):
        for part, colour in (("train", GREY), ("test", BLUE)):
            values = [epoch[f"{part}_{what}"] for epoch in history]
            if what == "accuracy":
                values = [100.0 * (1.0 - value) for value in values]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3, lw=1.6, label=part)
        axes.legend(frameon=False)
    loss.set_title("loss (training: with label smoothing, if any)", fontsize=10)
    error.set_title(f"error, % (last: test {100.0 * (1.0 - history[-1]['test_accuracy']):.2f} %)", fontsize=10)
    _logarithmic(error)
    rate.plot(epochs, [epoch["lr"] for epoch in history], color=ORANGE, lw=1.6, marker=marker, markersize=3)
    rate.set_title("learning rate", fontsize=10)
    rate.set_ylim(bottom=0)
    for axes in (loss, error, rate):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def _logarithmic(axes: Axes) -> None:
    """A logarithmic percent axis with plain numbers; from the smallest error that is not 0 downwards it is linear."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, SymmetricalLogLocator

    values = np.concatenate([line.get_ydata() for line in axes.get_lines()])
    smallest = float(min(values[values > 0], default=0.0))
    if values.max() < 3 * smallest or not smallest:  # a logarithmic axis needs a range
        return
    if values.all():
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=smallest, linscale=0.3)
        axes.set_ylim(bottom=0)
    low = 0.0 if not values.all() else smallest
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=low or smallest, subs=[1, 2, 5]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
