"""The comparison as one HTML file that needs nothing beside it, and as a picture."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from pycnn._files import replacing
from pycnn.bench.comparison.results import Comparison, Outcome, contestants, standings
from pycnn.bench.page import STYLE, figure, svg

__all__ = ["draw", "render"]

_AHEAD, _BEHIND = "#1b6ca8", "#c2513f"


def render(comparison: Comparison) -> str:
    """The comparison as one HTML document."""
    machine = comparison.machine
    versions = ", ".join(f"{name} {version}" for name, version in {**machine.versions, **comparison.versions}.items())
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>pycnn bench --peers</title>",
        f"<style>{STYLE}</style></head><body><h1>pycnn bench --peers</h1>",
        f"<p>{html.escape(machine.processor)}, {machine.threads} threads, {machine.isa}; measured: "
        f"{machine.fma_peak / 1e9:.0f} GFLOP/s of float32 multiply-adds, {machine.bandwidth / 1e9:.1f} GB/s of "
        f"copying. {html.escape(versions)}.</p><p>Everybody computes in true float32, in a process of its own that "
        "is stopped between its turns, and is checked before it is timed; figures are medians over the calls of all "
        "turns. A peer in brackets is too inexact to count. The ratio is the time of the best peer that counts over "
        "that of our best. The probe is what the machine gave in multiply-adds before each round of a cell, the least "
        "of them, as a share of its peak: a low one says that somebody else was at work.</p>",
        "<table><tr><th class='text'>section</th><th>cells</th><th>ahead in</th><th>geometric mean</th>"
        "<th>worst</th><th class='text'>where</th></tr>",
    ]
    for standing in standings(comparison.outcomes):
        parts.append(
            f"<tr><td class='text'>{standing.section}</td><td>{standing.cells}</td><td>{standing.ahead}</td>"
            f"<td>{standing.mean:.2f}</td><td>{standing.worst.ratio:.2f}</td>"
            f"<td class='text'>{html.escape(standing.worst.key)}</td></tr>"
        )
    parts += ["</table>", svg(_ratios(comparison))]
    for section in dict.fromkeys(outcome.section for outcome in comparison.outcomes):
        parts.append(f"<h2>{section}</h2><div class='wide'>")
        parts += [_table([outcome for outcome in comparison.outcomes if outcome.section == section], machine.fma_peak)]
        parts.append("</div>")
    return "".join(parts) + "</body></html>"


def _table(outcomes: list[Outcome], peak: float) -> str:
    names = contestants(outcomes)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = [
        f"<table><tr><th class='text'>cell</th><th>batch</th><th class='text'>problem</th><th class='text'>algorithm"
        f"</th>{head}<th>ratio</th><th>spread</th><th>of peak</th><th>probe</th></tr>"
    ]
    for outcome in outcomes:
        ratio = "" if outcome.ratio is None else f"{outcome.ratio:.2f}"
        share = "" if outcome.share(peak) is None else f"{outcome.share(peak):.0%}"
        spread = "" if outcome.ours is None or outcome.ours.timing is None else f"{outcome.ours.timing.spread:.0%}"
        rows.append(
            f"<tr><td class='text'>{html.escape(outcome.name)}</td><td>{outcome.batch}</td>"
            f"<td class='text'>{html.escape(outcome.problem)}</td><td class='text'>{html.escape(outcome.algo)}</td>"
            f"{''.join(_cell(outcome, name) for name in names)}<td>{ratio}</td><td>{spread}</td>"
            f"<td>{share}</td><td>{min(outcome.probe) / peak:.0%}</td></tr>"
        )
    return "".join(rows) + "</table>"


def _cell(outcome: Outcome, name: str) -> str:
    score = next((score for score in outcome.scores if score.name == name), None)
    if score is None:
        return "<td></td>"
    if score.timing is None:
        return f"<td class='wrong' title='{html.escape(score.note, quote=True)}'>failed</td>"
    text = outcome.shown(score)
    if not score.counts:
        return f"<td class='wrong' title='{html.escape(score.note, quote=True)}'>({text})</td>"
    return f"<td{' class=taken' if score in (outcome.ours, outcome.best) else ''}>{text}</td>"


def draw(comparison: Comparison, path: Path) -> None:
    """The picture of all ratios as a PNG file."""
    with replacing(path) as temporary:
        _ratios(comparison).savefig(temporary, format="png", dpi=130)


def _ratios(comparison: Comparison) -> Any:
    """Every cell's ratio as a dot in its section's line, the geometric mean beside it."""
    found = standings(comparison.outcomes)
    drawn, axes = figure(9.0, 1.2 + 0.55 * len(found))
    for place, standing in enumerate(found):
        ratios = [
            outcome.ratio
            for outcome in comparison.outcomes
            if outcome.section == standing.section and outcome.ratio is not None
        ]
        colors = [_AHEAD if ratio >= 1 else _BEHIND for ratio in ratios]
        axes.scatter(ratios, [place] * len(ratios), s=22, c=colors, alpha=0.55, edgecolors="none")
        axes.plot([standing.mean] * 2, [place - 0.3, place + 0.3], color="#222", linewidth=2)
        axes.annotate(f"{standing.mean:.2f}", (standing.mean, place - 0.34), ha="center", va="bottom", fontsize=8)
    axes.axvline(1, color="#888", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(found)), [f"{standing.section} ({standing.cells})" for standing in found])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="time of the best peer / time of pycnn: right of the line pycnn is ahead")
    axes.set_xticks(ticks := _ticks(comparison), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", color="#eee")
    axes.set_axisbelow(True)
    return drawn


def _ticks(comparison: Comparison) -> list[float]:
    """Round numbers around all ratios, and 1."""
    ratios = [outcome.ratio for outcome in comparison.outcomes if outcome.ratio is not None] or [1.0]
    steps = [0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0]
    return [step for step in steps if min(*ratios, 1.0) / 1.5 <= step <= max(*ratios, 1.0) * 1.5]
