"""Padding and concatenation."""

from __future__ import annotations

from pycnn.testing.cases.operands import Case, gap, normal, special

__all__ = ["CASES"]


CASES: tuple[Case, ...] = (
    Case("pad2d", "sides differ", lambda: (special(2, 3, 5, 7), (1, 0, 2, 3), -1.5)),
    Case("pad2d", "none", lambda: (normal(1, 2, 3, 5), (0, 0, 0, 0), 0.0)),
    Case("concat", "channels", lambda: ([special(2, c, 5, 7, seed=c) for c in (3, 1, 4)], 1)),
    Case("concat", "images, gaps", lambda: ([gap(normal(n, 3, 5)) for n in (1, 2)], 0)),
    Case("concat", "last axis", lambda: ([normal(4, n) for n in (5, 3, 9)], 1)),
)
