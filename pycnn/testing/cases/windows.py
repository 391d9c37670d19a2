"""Windows side by side, and their sum."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from pycnn.testing.cases.operands import Arguments, Case, gap, special, whole

__all__ = ["CASES"]

# By what is particular: x's shape; window, stride, before, dilation; how many windows.
_WINDOWS: dict[str, tuple[tuple[int, int, int, int], Any, Any, Any, Any, Any]] = {
    "3x3": ((2, 3, 7, 9), (3, 3), (1, 1), (1, 1), (1, 1), (7, 9)),
    "uneven": ((1, 2, 9, 14), (2, 4), (3, 2), (2, 0), (2, 3), (4, 3)),
    "stride beyond the window": ((2, 1, 11, 12), (1, 2), (4, 5), (0, 1), (1, 1), (3, 3)),
    "all in the padding": ((1, 2, 2, 3), (2, 2), (1, 1), (3, 4), (6, 5), (4, 6)),
    "starts inside": ((1, 2, 8, 9), (3, 2), (2, 1), (-2, -3), (1, 2), (5, 9)),
    "depth": ((2, 3, 6, 40), (3, 1), (2, 1), (1, 0), (1, 1), (3, 40)),
    "one": ((3, 2, 4, 5), (1, 1), (1, 1), (0, 0), (1, 1), (4, 5)),
    "empty": ((0, 2, 4, 5), (2, 2), (1, 1), (0, 0), (1, 1), (3, 4)),
    "long": ((1, 3, 40, 50), (3, 5), (1, 1), (1, 2), (1, 1), (40, 50)),
}


def _cases() -> Iterator[Case]:
    for about, (shape, *how, out) in _WINDOWS.items():
        for rows_first in (False, True):
            order = ", rows first" if rows_first else ""
            yield Case("unfold2d", about + order, partial(_unfold, shape, (*how, out, rows_first)))
        yield Case("fold2d", about, partial(_fold, shape, tuple(how), out))
    shape, *how, out = _WINDOWS["uneven"]
    yield Case("unfold2d", "gaps", lambda: (gap(special(*shape)), *how, out, False))


def _unfold(shape: tuple[int, ...], settings: Arguments) -> Arguments:
    return (special(*shape) if shape[0] else np.zeros(shape, np.float32), *settings)


def _fold(shape: tuple[int, ...], how: Arguments, out: tuple[int, int]) -> Arguments:
    kernel = how[0]
    return (whole(shape[0], shape[1] * kernel[0] * kernel[1], *out), shape[2:], *how)


CASES: tuple[Case, ...] = tuple(_cases())
