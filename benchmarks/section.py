"""README.md's section about GPUs, written from the evidence and never saying more than it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ledger import Ledger, ledgers, status
from benchmarks.tasks import BANDWIDTH, FIRST_BATCH
from pycnn._files import replacing
from pycnn.shape import PASSES, Problem

__all__ = ["put", "rewrite", "text"]

BEGIN, END = "<!-- gpu evidence: begin -->", "<!-- gpu evidence: end -->"


def rewrite(readme: Path, folder: Path) -> None:
    """Put the section about GPUs into `readme`.  Raises ValueError if its marks are not there."""
    put(readme, BEGIN, END, text(folder))


def put(readme: Path, begin: str, end: str, section: str) -> None:
    """Put `section` between two marks in `readme`.  Raises ValueError if they are not there."""
    before, first, rest = readme.read_text().partition(begin)
    _, second, after = rest.partition(end)
    if not first or not second:
        raise ValueError(f"{readme} has no section between {begin!r} and {end!r}")
    with replacing(readme) as temporary:
        temporary.write_text(f"{before}{begin}\n{section}{end}{after}")


def text(folder: Path) -> str:
    """The section."""
    books = ledgers(folder)
    if not books:
        return "No GPU has run the kernels yet.\n"
    return "\n".join(line for book in books for line in _device(book, folder))


def _device(book: Ledger, folder: Path) -> Iterator[str]:
    device, results = book.content["device"], book.content["results"]
    lines = status(folder)
    proven = sum(f"proven on {book.device}" in line for line in lines)
    yield (
        f"**{book.device}**, driver {device['driver']}, NVRTC {device['nvrtc']}, torch {device['torch']} with cuDNN "
        f"{device['cudnn']}. {proven} of {len(lines)} kernels are proven on it as they stand"
        " (`python -m benchmarks.evidence status`)."
    )
    peaks = results.get("machine/peaks")
    if peaks and peaks["ok"]:
        yield (
            f"Measured there: copy {peaks['copy_gbytes']:.0f} GB/s, FMA {peaks['fma_gflops'] / 1e3:.1f} TFLOP/s. "
            f"The floor is what a layer's multiply-adds or its bytes take at these rates, whichever is longer."
        )
    yield ""
    timed = {name.removeprefix("time/"): each for name, each in results.items() if name.startswith("time/")}
    layers = [(Problem.parse(name), each) for name, each in timed.items() if each["ok"]]
    for operator in PASSES:
        chosen = [(p, each) for p, each in layers if p.operator == operator and p.shape.N == FIRST_BATCH]
        if chosen:
            yield from _layers(operator, chosen, peaks)
    moved = [(name, results.get(f"bandwidth/{name}")) for name in BANDWIDTH]
    if peaks and any(each and each["ok"] for _, each in moved):
        yield "| operator | us | GB/s | of copy |"
        yield "|---|---:|---:|---:|"
        for name, each in moved:
            if each and each["ok"]:
                share = each["gbytes"] / peaks["copy_gbytes"]
                yield f"| {name} | {each['us']:.1f} | {each['gbytes']:.0f} | {share:.0%} |"
        yield ""


def _layers(operator: str, chosen: list[tuple[Problem, dict[str, Any]]], peaks: dict[str, Any] | None) -> Iterator[str]:
    yield f"| {operator}, batch {FIRST_BATCH} | algorithm | us | TFLOP/s | floor, us | cuDNN, us | cuDNN / ours |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    ratios = []
    for problem, each in chosen:
        cudnn = each["cudnn_us"]
        floor = f"{_floor(problem, peaks):.1f}" if peaks and peaks["ok"] else ""
        beside = ("", "")
        if cudnn:
            ratios.append(cudnn / each["ours_us"])
            beside = (f"{cudnn:.1f}", f"{ratios[-1]:.2f}")
        yield (
            f"| {problem} | {each['algo']} | {each['ours_us']:.1f} | {each['gflops'] / 1e3:.1f} | {floor} | "
            f"{beside[0]} | {beside[1]} |"
        )
    yield ""
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        yield f"Geometric mean over these {len(ratios)} layers, cuDNN's time over ours: {mean:.2f}."
        yield ""


def _floor(problem: Problem, peaks: dict[str, Any]) -> float:
    """Microseconds that no algorithm without fewer multiply-adds can go below."""
    s = problem.shape
    elements = sum(math.prod(shape) for shape in (s.x_shape, s.w_shape, s.y_shape))
    return 1e6 * max(s.flops / (peaks["fma_gflops"] * 1e9), 4 * elements / (peaks["copy_gbytes"] * 1e9))
