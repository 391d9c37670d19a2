"""The one exception of every reader of weights."""

from __future__ import annotations

import os

__all__ = ["WeightsError"]


class WeightsError(ValueError):
    """A file of weights is damaged, of another kind, or asks for something that building arrays does not need.

    The message names the file, what was found and what was expected.

    >>> str(WeightsError("net.pt", "a reference to os.system", "tensors, numbers, strings, lists and dicts"))
    'net.pt: found a reference to os.system, expected tensors, numbers, strings, lists and dicts'
    """

    def __init__(self, path: str | os.PathLike[str], found: str, expected: str) -> None:
        super().__init__(f"{os.fspath(path)}: found {found}, expected {expected}")
        self.path = path
        self.found = found
        self.expected = expected
