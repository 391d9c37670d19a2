"""One stretch of memory for all that a program keeps between its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "Need", "assign"]

ALIGNMENT = 16  # floats in 64 bytes, a cache line and the widest vector


@dataclass(frozen=True)
class Need:
    """Memory that must stay from one step to another.

    Attributes:
        floats: how much.
        first, last: the first and the last step that touch it.
    """

    floats: int
    first: int
    last: int


def assign(needs: Sequence[Need]) -> tuple[list[int], int]:
    """An offset for each need, and the floats they take in all; two share memory only if no step touches both.

    The largest goes first, each to the lowest place that is free during all of its life.  Offsets are multiples of
    `ALIGNMENT`.

    >>> assign([Need(16, 0, 1), Need(32, 1, 2), Need(16, 2, 3)])
    ([32, 0, 32], 48)
    """
    offsets = [0] * len(needs)
    placed: list[int] = []
    total = 0
    for i in sorted(range(len(needs)), key=lambda i: -needs[i].floats):
        need, place = needs[i], 0
        size = _rounded(need.floats)
        for j in sorted(placed, key=lambda j: offsets[j]):
            other = needs[j]
            if other.first <= need.last and need.first <= other.last:
                if offsets[j] >= place + size:
                    break
                place = max(place, offsets[j] + _rounded(other.floats))
        offsets[i] = place
        placed.append(i)
        total = max(total, place + size)
    return offsets, total


def _rounded(floats: int) -> int:
    return -(-floats // ALIGNMENT) * ALIGNMENT
