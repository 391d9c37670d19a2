"""The random stream and dropout."""

from __future__ import annotations

from pycnn.testing.cases.operands import Case, normal

__all__ = ["CASES"]


CASES: tuple[Case, ...] = (
    Case("dropout", "half", lambda: (normal(3, 5, 7, 11), 0.5, 2**40 + 3, 17)),
    Case("dropout", "all", lambda: (normal(3, 5), 1.0, 1, 0)),
    Case("dropout", "carry into the upper counter", lambda: (normal(1001), 0.75, 2**64 - 1, 2**64 - 3)),
    Case("philox_uint32", "words", lambda: (1003, 0x299F31D0A4093822, 2**64 - 2)),
)
