"""``pycnn bench --peers``: the cells one after the other, a table a section, and the files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycnn.bench.comparison.cells import Cell
    from pycnn.bench.comparison.results import Comparison, Outcome

_FILE = "peers.json"
_SECONDS = 0.1


def compare(args: argparse.Namespace, console: Any) -> int:
    """Measure the cells that `args` asks for; 1 if a result of ours was wrong."""
    from pycnn.bench import machine as machines
    from pycnn.bench.comparison.field import Field, versions
    from pycnn.bench.comparison.results import Comparison
    from pycnn.bench.peers import find_peers
    from pycnn.bench.peers.own import OWN

    asked = _cells(args)
    peers = find_peers(args.peers.split(","))
    path = args.out / _FILE
    earlier = Comparison.load(path) if path.exists() else None
    threads = machines.set_threads(args.threads)
    comparison = Comparison(machines.measure(), versions(), [])
    if earlier is not None:
        comparison.merged(earlier)  # refused now, not after minutes of work
    machine = comparison.machine
    console.print(
        f"{machine.processor}, {machine.threads} threads, {machine.isa}: {machine.fma_peak / 1e9:.0f} GFLOP/s of "
        f"multiply-adds, {machine.bandwidth / 1e9:.1f} GB/s of copying"
    )
    if not peers:
        console.print("no peer is installed: pip install 'pycnn[peers]'", markup=False)
    seconds = args.seconds or (_SECONDS / 3 if args.quick else _SECONDS)
    with Field(OWN, peers, threads, machine.fma_peak) as field:
        for section in dict.fromkeys(cell.section for cell in asked):
            mine = [cell for cell in asked if cell.section == section]
            outcomes = _section(field, mine, seconds, comparison, earlier, path)
            _print_section(console, outcomes, machine.fma_peak)
    _print_standings(console, comparison)
    whole = comparison if earlier is None else comparison.merged(earlier)
    _draw(args.out, whole)
    console.print(f"report: {args.out / 'peers.html'}  picture: {args.out / 'peers.png'}  values: {path}")
    wrong = [
        (outcome, score)
        for outcome in comparison.outcomes
        for score in outcome.scores
        if score.note and (score.ours or score.timing is None)
    ]
    for outcome, score in wrong:
        console.print(f"{outcome.key} {score.name}: {score.note}", style="red", markup=False, highlight=False)
    return 1 if any(score.ours for _, score in wrong) else 0


def _cells(args: argparse.Namespace) -> list[Cell]:
    from pycnn.bench.comparison.cells import BATCHES, SECTIONS, cells
    from pycnn.shape import Problem

    sections = (args.cells or args.passes or ",".join(SECTIONS)).split(",")
    words = args.only.split(",") if args.only else []
    return cells(sections, args.batch or BATCHES, words, [Problem.parse(text) for text in args.problem])


def _section(
    field: Any, asked: Sequence[Cell], seconds: float, comparison: Comparison, earlier: Comparison | None, path: Path
) -> list[Outcome]:
    """The outcomes of some cells, each in the file as soon as it is there."""
    from pycnn.cli._progress import bar

    outcomes = []
    with bar(f"bench {asked[0].section}") as drawn:
        for done, cell in enumerate(asked):
            drawn.update(done, len(asked), str(cell))
            outcomes.append(field.measure(cell, seconds))
            comparison.outcomes.append(outcomes[-1])
            (comparison if earlier is None else comparison.merged(earlier)).save(path)
    return outcomes


def _print_section(console: Any, outcomes: Sequence[Outcome], peak: float) -> None:
    from rich import box
    from rich.table import Table

    from pycnn.bench.comparison.results import contestants

    names = contestants(outcomes)
    table = Table(title=outcomes[0].section, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column(outcomes[0].unit, no_wrap=True)
    for name in (*names, "ratio", "±", "probe", "of peak", "algorithm"):
        table.add_column(name, justify="left" if name == "algorithm" else "right", no_wrap=True)
    for outcome in outcomes:
        ours = outcome.ours
        table.add_row(
            f"{outcome.name} b{outcome.batch}",
            *(_figure(outcome, name) for name in names),
            "" if outcome.ratio is None else f"{outcome.ratio:.2f}",
            "" if ours is None or ours.timing is None else f"{ours.timing.spread:.0%}",
            f"{min(outcome.probe) / peak:.0%}",
            "" if (share := outcome.share(peak)) is None else f"{share:.0%}",
            outcome.algo,
        )
    console.print(table)


def _figure(outcome: Outcome, name: str) -> str:
    """A contestant's figure: bold as the best of the peers, in brackets where they do not count."""
    score = next((score for score in outcome.scores if score.name == name), None)
    if score is None:
        return ""
    if score.timing is None:
        return "failed"
    text = outcome.shown(score)
    if not score.counts:
        return f"({text})"
    return f"[bold]{text}[/bold]" if score == outcome.best else text


def _print_standings(console: Any, comparison: Comparison) -> None:
    from pycnn.bench.comparison.results import standings

    for standing in standings(comparison.outcomes):
        console.print(
            f"{standing.section}: {standing.mean:.2f}x the best peer (geometric mean of {standing.cells}), ahead in "
            f"{standing.ahead}; least {standing.worst.ratio:.2f}x, {standing.worst.name} b{standing.worst.batch}",
            highlight=False,
        )


def _draw(folder: Path, comparison: Comparison) -> None:
    from pycnn._files import replacing
    from pycnn.bench.comparison.page import draw, render

    with replacing(folder / "peers.html") as temporary:
        temporary.write_text(render(comparison), encoding="utf-8")
    draw(comparison, folder / "peers.png")
