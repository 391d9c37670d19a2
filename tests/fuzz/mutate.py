"""Damaged copies of sound files, the same for the same seed: bytes flipped, runs moved, sizes made absurd."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutations(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """The sound files, then damaged ones without end."""
    yield from seeds
    drawn = random.Random(seed)
    while True:
        content = bytearray(drawn.choice(seeds))
        for _ in range(drawn.choice((1, 1, 2, 3, 8))):
            _damage(content, seeds, drawn)
        yield bytes(content)


def _damage(content: bytearray, seeds: Sequence[bytes], drawn: random.Random) -> None:
    size = len(content)
    # Most of what a reader believes stands in the first bytes.
    at = drawn.randrange(min(size, drawn.choice((16, 64, 512, size or 1)))) if size else 0
    way = drawn.randrange(6)
    if way == 0 and size:
        content[at] ^= 1 << drawn.randrange(8)
    elif way == 1 and size:
        content[at] = drawn.randrange(256)
    elif way == 2:
        width = drawn.choice((1, 2, 4))
        number = drawn.choice(_SIZES) & (1 << 8 * width) - 1
        content[at : at + width] = number.to_bytes(width, drawn.choice(("big", "little")))
    elif way == 3:
        del content[at : at + drawn.choice((1, 4, 64, size))]
    elif way == 4:
        other = drawn.choice(seeds)
        start = drawn.randrange(max(1, len(other)))
        content[at:at] = other[start : start + drawn.choice((1, 4, 64, 1024))]
    else:
        content[at:at] = content[at : at + drawn.choice((1, 4, 64))] * drawn.choice((1, 2, 100))
