"""Progress bars on stderr for commands; nothing at all where stderr is not a terminal or rich is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Bar", "bar", "download_progress", "is_live"]


def is_live() -> bool:
    """Whether progress is worth drawing: stderr is a terminal."""
    return sys.stderr.isatty()


class Bar:
    """One progress bar, or none: every method may be called either way."""

    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Set how much is done, of how much, with a word on the current state."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, text=text)

    def title(self, words: str) -> None:
        """Set what stands before the bar."""
        if self._progress is not None:
            self._progress.update(self._task, description=words)


@contextmanager
def bar(words: str, *, transient: bool = True) -> Iterator[Bar]:
    """A bar that is alive until the end of the ``with`` block, then gone if `transient`."""
    if not is_live():
        yield Bar(None, None)
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        yield Bar(None, None)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=transient,
        redirect_stdout=sys.stdout.isatty(),  # such lines go above the bar; into a file, as ever
    ) as progress:
        yield Bar(progress, progress.add_task(words, total=None, text=""))


@contextmanager
def download_progress() -> Iterator[Any]:
    """A function (file name, bytes so far, bytes in all) for `pycnn.data.load`, drawn as a bar once it is called."""
    with bar("looking for data") as drawn:

        def show(name: str, done: int, total: int | None) -> None:
            drawn.title(f"downloading {name}")
            drawn.update(done, total, f"{done / 1e6:.1f} MB")

        yield show
