"""README.md's section about other engines on the CPU, written from what `pycnn bench --peers` has measured.

pycnn bench --peers all                               measure; bench/peers.json keeps the cells
python -m benchmarks.peers bench/peers.json           keep them as evidence, and write README.md's section from it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.section import put
from pycnn.bench.comparison.cells import SECTIONS
from pycnn.bench.comparison.results import Comparison, Outcome, contestants, standings
from pycnn.shape import PASSES

__all__ = ["main", "text"]

KEPT = Path(__file__).with_name("evidence") / "peers" / "cpu.json"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- cpu peers: begin -->", "<!-- cpu peers: end -->"


def text(comparison: Comparison) -> str:
    """The section."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    machine = comparison.machine
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    yield (
        f"{machine.processor}, {machine.threads} threads, {machine.isa}, {machine.fma_peak / 1e9:.0f} GFLOP/s of "
        f"multiply-adds; {versions}. Ratios are the best peer's time (or memory) over ours."
    )
    yield ""
    yield "| | cells | geometric mean | ahead in | least | where |"
    yield "|---|---:|---:|---:|---:|---|"
    outcomes = sorted(comparison.outcomes, key=lambda outcome: SECTIONS.index(outcome.section))
    for each in standings(outcomes):
        yield (
            f"| {each.section} | {each.cells} | {each.mean:.2f} | {each.ahead} | {each.worst.ratio:.2f} | "
            f"{each.worst.name}, batch {each.worst.batch} |"
        )
    yield ""
    for section in SECTIONS:
        found = [outcome for outcome in outcomes if outcome.section == section]
        if found and section not in PASSES:
            yield from _networks(found)
    layers = [outcome for outcome in outcomes if outcome.section in PASSES]
    if layers:
        yield from _layers(layers)


def _networks(outcomes: list[Outcome]) -> Iterator[str]:
    """Everybody's figures."""
    names = contestants(outcomes)
    title = f"{outcomes[0].section}, {outcomes[0].unit}"
    yield f"| {title} | batch | {' | '.join(names)} | ratio |"
    yield f"|---|{'---:|' * (len(names) + 2)}"
    for outcome in outcomes:
        scores = {score.name: score for score in outcome.scores}
        cells = []
        for name in names:
            score = scores.get(name)
            shown = "" if score is None or score.timing is None else outcome.shown(score)
            cells.append(shown if score is None or score.counts or not shown else f"({shown})")
        yield f"| {outcome.name} | {outcome.batch} | {' | '.join(cells)} | {_ratio(outcome)} |"
    yield ""
    if any(score.timing is not None and not score.counts for outcome in outcomes for score in outcome.scores):
        yield "In brackets: off by more than a thousandth of the largest value, and not counted."
        yield ""


def _layers(outcomes: list[Outcome]) -> Iterator[str]:
    """The ratios alone, a layer a line."""
    columns = sorted(
        {(outcome.section, outcome.batch) for outcome in outcomes}, key=lambda each: (SECTIONS.index(each[0]), each[1])
    )
    names = dict.fromkeys(outcome.name for outcome in outcomes)
    found = {(outcome.name, outcome.section, outcome.batch): outcome for outcome in outcomes}
    yield f"| ratio, batch | {' | '.join(f'{section}, {batch}' for section, batch in columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for name in names:
        cells = [found.get((name, *column)) for column in columns]
        yield f"| {name} | {' | '.join('' if each is None else _ratio(each) for each in cells)} |"
    yield ""


def _ratio(outcome: Outcome) -> str:
    return "" if outcome.ratio is None else f"{outcome.ratio:.2f}"


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("values", nargs="?", type=Path, default=KEPT, help="what --peers wrote (default: what is kept)")
    values = parser.parse_args(argv).values
    try:
        comparison = Comparison.load(values)
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        comparison.save(KEPT)
        put(README, BEGIN, END, text(comparison))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
