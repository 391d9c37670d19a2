"""Convolution problems that others publish for their own tests, and which of them a fast run takes."""

from __future__ import annotations

import lzma
import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("onednn_conv.txt.xz")


class Axis(NamedTuple):
    """One spatial axis of a problem: points of the input, taps of a filter, and how these move over those."""

    inputs: int
    taps: int
    stride: int
    front: int
    back: int
    dilation: int

    @property
    def outputs(self) -> int:
        return (self.inputs + self.front + self.back - self.dilation * (self.taps - 1) - 1) // self.stride + 1


@dataclass(frozen=True)
class Published:
    """A problem and the lists that it is in.

    Attributes:
        text: ``n2c3h32w32_k16r3s3_st1pd1dl1g1``; of three axes ``n2c3d8h32w32_k16t3r3s3_st1pd1dl1g1``, where `st`,
            `pd` and `dl` are one number, one an axis (``1x2x2``), or for `pd` ``front.back`` an axis (``0.1.2.2.2.2``).
        lists: their names.
    """

    text: str
    lists: tuple[str, ...]

    @cached_property
    def _sizes(self) -> tuple[tuple[int, int, int, int], tuple[Axis, ...]]:
        return parse(self.text)

    @property
    def batch(self) -> int:
        return self._sizes[0][0]

    @property
    def channels(self) -> int:
        return self._sizes[0][1]

    @property
    def filters(self) -> int:
        return self._sizes[0][2]

    @property
    def groups(self) -> int:
        return self._sizes[0][3]

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self._sizes[1]

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.channels, *(axis.inputs for axis in self.axes)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return self.filters, self.channels // self.groups, *(axis.taps for axis in self.axes)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.batch, self.filters, *(axis.outputs for axis in self.axes)

    @property
    def macs(self) -> int:
        return math.prod(self.y_shape) * math.prod(self.w_shape[1:])

    @property
    def bytes(self) -> int:
        """Of x, w and y in float32."""
        return 4 * sum(map(math.prod, (self.x_shape, self.w_shape, self.y_shape)))

    @property
    def property(self) -> str:
        """What it is that may go wrong with it: the kind of problem, in words."""
        words = [f"{len(self.axes)}-D"]
        if self.groups > 1:
            words.append("depthwise" if self.groups == self.channels == self.filters else "groups")
        words += ["strided"] * any(axis.stride > 1 for axis in self.axes)
        words += ["dilated"] * any(axis.dilation > 1 for axis in self.axes)
        words += ["pointwise"] * all(axis.taps == 1 for axis in self.axes)
        words += ["padded"] * any(axis.front or axis.back for axis in self.axes)
        return " ".join(words)


_LETTERS = ("", "w", "hw", "dhw"), ("", "s", "rs", "trs")
_TEXT = re.compile(r"n(\d+)c(\d+)((?:[dhw]\d+)+)_k(\d+)((?:[trs]\d+)+)_st([\dx]+)pd([\dx.]+)dl([\dx]+)g(\d+)")


def text_of(batch: int, channels: int, filters: int, groups: int, axes: tuple[Axis, ...]) -> str:
    """The problem's string; of two axes it is `pycnn.shape.Problem`'s."""

    def each(letters: str, values: Iterable[int]) -> str:
        return "".join(f"{letter}{value}" for letter, value in zip(letters, values, strict=True))

    def said(values: tuple[int, ...]) -> str:
        return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))

    symmetric = all(axis.front == axis.back for axis in axes)
    sides = ".".join(f"{axis.front}.{axis.back}" for axis in axes)
    inputs, taps = (letters[len(axes)] for letters in _LETTERS)
    return (
        f"n{batch}c{channels}{each(inputs, (axis.inputs for axis in axes))}"
        f"_k{filters}{each(taps, (axis.taps for axis in axes))}"
        f"_st{said(tuple(axis.stride for axis in axes))}"
        f"pd{said(tuple(axis.front for axis in axes)) if symmetric else sides}"
        f"dl{said(tuple(axis.dilation for axis in axes))}g{groups}"
    )


def parse(text: str) -> tuple[tuple[int, int, int, int], tuple[Axis, ...]]:
    """What `text_of` was given: (batch, channels, filters, groups) and the axes."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"not a published problem: {text!r}")
    n, c, inputs, k, taps, stride, padding, dilation, groups = match.groups()
    points, windows = ([int(size) for size in re.findall(r"\d+", sizes)] for sizes in (inputs, taps))
    rank = len(points)

    def spread(values: str) -> list[int]:
        numbers = [int(value) for value in values.split("x")]
        return numbers * rank if len(numbers) == 1 else numbers

    sides = [int(side) for side in padding.split(".")] if "." in padding else [p for p in spread(padding) for _ in "fb"]
    rows = zip(points, windows, spread(stride), sides[::2], sides[1::2], spread(dilation), strict=True)
    return (int(n), int(c), int(k), int(groups)), tuple(Axis(*row) for row in rows)


@lru_cache(maxsize=1)
def published() -> tuple[tuple[Published, ...], dict[str, int]]:
    """All problems, and how many lines each list has by its name."""
    text = lzma.decompress(FILE.read_bytes()).decode()
    rows = [row.split() for row in text.splitlines() if not row.startswith("#")]
    lines = {name: int(count) for _, name, count in (row for row in rows if row[0].isdigit())}
    names = tuple(lines)
    problems = tuple(Published(row[0], tuple(names[int(i)] for i in row[1:])) for row in rows if not row[0].isdigit())
    return problems, lines


def sample(problems: Iterable[Published], each: int, most_macs: int, seed: int = 0) -> list[Published]:
    """At most `each` problems of every property of every list, drawn with `seed` from those of `most_macs` or fewer."""
    strata: dict[tuple[str, str], list[Published]] = {}
    for problem in problems:
        for name in problem.lists:
            if problem.macs <= most_macs:
                strata.setdefault((name, problem.property), []).append(problem)
    drawn = random.Random(seed)
    chosen = [one for key in sorted(strata) for one in drawn.sample(strata[key], min(each, len(strata[key])))]
    return list(dict.fromkeys(chosen))
