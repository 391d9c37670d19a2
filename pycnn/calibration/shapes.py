"""The problems that are measured: like the layers of networks, but of no network.

The distribution, all numbers independent of each other unless said otherwise, [a, b] log-uniform:

    channels, filters   [3, 1024], rounded to a multiple of 8 in 7 of 10
    height              [5, 224]; width the same in 8 of 10, else [5, 224]
    filter              1x1 in 32 of 100, 3x3 in 45, 5x5 in 13, 7x7 in 10
    stride              2 in 1 of 5;  dilation 2 in 1 of 12, not with 1x1
    padding             so that stride 1 keeps the size in 17 of 20, else none
    batch               1 in 4 of 10, else [2, 16]
    groups              in 1 of 8: 2, 4, 8 or depthwise

and between 3 * 10^4 and 2.5 * 10^9 multiply-adds on at most 96 MB of operands: a call of a few microseconds to some ten
milliseconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping

from pycnn.shape import Conv2dShape

__all__ = ["calibration", "draw", "held_out"]

_MACS = (3e4, 2.5e9)
_BYTES = 96e6

# What every so manyth problem of the calibration has been given, so that each algorithm's coefficients rest on enough.
_TURNS: tuple[Mapping[str, int], ...] = (
    {},
    {"filter": 3, "stride": 1, "dilation": 1},
    {"filter": 5, "stride": 1, "dilation": 1, "groups": 1},
    {},
    {"filter": 3, "stride": 1, "dilation": 1},
    {"filter": 3, "groups": 0},
    {},
    {"filter": 3, "stride": 1, "dilation": 2, "groups": 1},
    {"filter": 3, "stride": 1, "dilation": 1},
    {},
    {"filter": 5, "stride": 1, "dilation": 2, "groups": 1},
    {"groups": 0},
)


def calibration() -> Iterator[Conv2dShape]:
    """The sequence that coefficients are fitted on, always the same: as much of it as there is time for."""
    number = 0
    while True:
        yield draw(random.Random(f"calibration {number}"), _TURNS[number % len(_TURNS)])
        number += 1


def held_out(seed: int = 0) -> Iterator[Conv2dShape]:
    """Problems of the distribution, none twice."""
    number, seen = 0, set()
    while True:
        shape = draw(random.Random(f"held out {seed} {number}"))
        number += 1
        if shape not in seen:
            seen.add(shape)
            yield shape


def draw(rng: random.Random, given: Mapping[str, int] | None = None) -> Conv2dShape:
    """One problem of the distribution.

    Args:
        rng: of which only ``random()`` is asked, whose stream is the same in every version of Python.
        given: values that are not drawn: filter, stride, dilation, groups (0 for depthwise).
    """
    given = given or {}
    while True:
        shape = _drawn(rng, given)
        if shape is not None and _MACS[0] <= shape.macs <= _MACS[1] and shape.bytes() <= _BYTES:
            return shape


def _drawn(rng: random.Random, given: Mapping[str, int]) -> Conv2dShape | None:
    def between(low: int, high: int) -> int:
        return round(math.exp(math.log(low) + rng.random() * math.log(high / low)))

    def channels() -> int:
        count, rounded = between(3, 1024), rng.random() < 0.7
        return max(8, round(count / 8) * 8) if rounded and count >= 8 else count

    height = between(5, 224)
    width = height if rng.random() < 0.8 else between(5, 224)
    c, k = channels(), channels()
    which = rng.random()
    side = given.get("filter", 1 if which < 0.32 else 3 if which < 0.77 else 5 if which < 0.9 else 7)
    stride = given.get("stride", 2 if rng.random() < 0.2 else 1)
    dilation = given.get("dilation", 2 if rng.random() < 1 / 12 else 1) if side > 1 else 1
    padding = side // 2 * dilation if rng.random() < 0.85 else 0
    images = 1 if rng.random() < 0.4 else between(2, 16)
    groups = given.get("groups", (2, 4, 8, 0)[int(rng.random() * 4)] if rng.random() < 1 / 8 else 1)
    if groups == 0:
        groups = k = c
    c, k = (max(groups, count // groups * groups) for count in (c, k))
    try:
        return Conv2dShape(
            images, c, height, width, k, side, side, (stride, stride), (padding,) * 4, (dilation, dilation), groups
        )
    except ValueError:  # a filter larger than the image
        return None
