"""The one exception of every reader: a file that is not what it should be."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CorruptFile"]


class CorruptFile(ValueError):
    """A data file is truncated, damaged or of another kind.

    The message names the file, what was found and what was expected.

    >>> str(CorruptFile("labels.gz", "2 bytes", "a header of 8 bytes"))
    'labels.gz: found 2 bytes, expected a header of 8 bytes'
    """

    def __init__(self, path: str | Path, found: str, expected: str) -> None:
        super().__init__(f"{path}: found {found}, expected {expected}")
        self.path = Path(path)
        self.found = found
        self.expected = expected
