"""Compiled networks described: their steps, the memory they take, and where the time goes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycnn.compiler.graph import Graph, by
from pycnn.compiler.plan import Flat, Part, Plan, Step

__all__ = ["Profile", "StepTime", "summary"]

_COLUMNS = ("step", "", "module", "ms", "of all", "GFLOP/s")


@dataclass(frozen=True)
class StepTime:
    """One step of a program.

    Attributes:
        method: what it does.
        what: sizes and algorithm.
        name: the module of the network that asked for it.
        seconds: the median.
        flops: floating-point operations, of convolutions and full layers only (Winograd's as if it were direct).
    """

    method: str
    what: str
    name: str
    seconds: float
    flops: int


@dataclass(frozen=True)
class Profile:
    """Where the time of a program goes.  Print it.

    Attributes:
        batch: images.
        isa: the instruction set.
        rows: the steps, in order.
    """

    batch: int
    isa: str
    rows: list[StepTime]

    @staticmethod
    def of(plan: Plan, seconds: Sequence[float], isa: str) -> Profile:
        """The steps of `plan` with the time each takes."""
        rows = [
            StepTime(step.method, _what(step), step.name, time, step.flops)
            for step, time in zip(plan.steps, seconds, strict=True)
        ]
        return Profile(plan.batch, isa, rows)

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(row.seconds for row in self.rows)

    @property
    def title(self) -> str:
        """Batch, instruction set and time."""
        flops = sum(row.flops for row in self.rows)
        return f"batch {self.batch}, {self.isa}: {1e3 * self.seconds:.2f} ms, {_rate(flops, self.seconds)} GFLOP/s"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.method,
                row.what,
                row.name,
                f"{1e3 * row.seconds:.3f}",
                f"{100 * row.seconds / self.seconds:.1f}%",
                _rate(row.flops, row.seconds) if row.flops else "",
            )
            for row in self.rows
        ]

    def __str__(self) -> str:
        return "\n".join([self.title, *_aligned([_COLUMNS, *self._cells()])])

    def __rich__(self) -> Any:
        from rich.table import Table

        table = Table(title=self.title)
        for i, column in enumerate(_COLUMNS):
            table.add_column(column, justify="left" if i < 3 else "right")
        for cells in self._cells():
            table.add_row(*cells)
        return table


def summary(graph: Graph, plan: Plan, isa: str) -> str:
    """The steps of a plan and the memory it takes."""
    weights = sum(array.nbytes for node in graph.nodes for array in node.constants.values())
    kinds = Counter(step.method for step in plan.steps)
    lines = [(step.method, _what(step), step.name) for step in plan.steps]
    return "\n".join(
        [
            *_aligned([_COLUMNS[:3], *lines]),
            f"{len(plan.steps)} steps for batches of {plan.batch} with {isa}: "
            + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
            f"arena {_mib(4 * plan.floats)}, beside {_mib(4 * plan.naive)} if each value had memory of its own; "
            f"weights {_mib(weights)}",
        ]
    )


def _what(step: Step) -> str:
    boxes = [by(one.sizes) for one in step.args if isinstance(one, Part)]
    if step.method == "copy" or not boxes:
        boxes = [_flat(one) for one in step.args if isinstance(one, Flat)]
    words = [" to ".join(boxes[:: max(1, len(boxes) - 1)][:2])]
    words += [one for one in step.args if isinstance(one, str)]
    words += [str(step.options[name]) for name in ("algo",) if name in step.options]
    words += ["+ residual"] if step.options.get("residual") is not None else []
    if (bounds := step.options.get("clamp")) is not None:
        words.append("+ relu" if bounds == (0, math.inf) else "+ clamp {:g}..{:g}".format(*bounds))
    return " ".join(words)


def _flat(one: Flat) -> str:
    return f"{one.space} {one.at}" if one.room is None else by((one.room.channels, one.room.height, one.room.width))


def _rate(flops: int, seconds: float) -> str:
    return f"{flops / seconds / 1e9:.1f}" if seconds else "-"


def _mib(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
