"""README.md's section about GPUs, written from the evidence and never saying more than it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.arithmetic import FLOAT32, KINDS, Kind
from benchmarks.ledger import Ledger, ledgers, status
from benchmarks.steps import STEPS, Size
from benchmarks.tasks import BANDWIDTH, FIRST_BATCH
from pycnn._files import replacing
from pycnn.shape import DTYPES, PASSES, Problem

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
        products = peaks.get("gemm_tflops")
        if products:
            rates = ", ".join(f"{name} {rate:.0f}" for name, rate in products.items())
            yield f"The library's product of two matrices of 8192 x 8192, TFLOP/s: {rates}."
    yield ""
    by_kind = _timed(results)
    layers = by_kind.pop(FLOAT32, [])
    yield from _arithmetics(by_kind)
    yield from _steps(results)
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


Timed = list[tuple[Problem, dict[str, Any]]]


def _timed(results: dict[str, Any]) -> dict[Kind, Timed]:
    """The layers that were timed, by arithmetic and layout."""
    shorts = {full: short for short, full in DTYPES.items()}
    found: dict[Kind, Timed] = {}
    for name, each in results.items():
        if name.startswith("time/") and each["ok"] and "ours_us" in each:  # not one that was skipped
            *precision, text = name.removeprefix("time/").split("/")
            problem = Problem.parse(text)
            kind = Kind(precision[0] if precision else shorts[problem.dtype], problem.layout)
            found.setdefault(kind, []).append((problem, each))
    return found


def _arithmetics(by_kind: dict[Kind, Timed]) -> Iterator[str]:
    """Geometric means over the layers of each arithmetic; those where cuDNN has Winograd by themselves."""
    rows = []
    for kind in KINDS:
        for operator in PASSES:
            chosen = [(p, each) for p, each in by_kind.get(kind, []) if p.operator == operator]
            for what in ("3x3, stride 1", "others"):
                group = [each for p, each in chosen if _has_winograd(p) == (what != "others")]
                if group:
                    rows.append(f"| {kind.name} | {operator} | {what} | {len(group)} | {_summary(group)} |")
    if rows:
        yield "| arithmetic | pass | filters | layers | TFLOP/s | of the GEMM | cuDNN / ours |"
        yield "|---|---|---|---:|---:|---:|---:|"
        yield from rows
        yield ""
        yield (
            "Geometric means, cuDNN in the same dtype, layout and precision, or in NCHW where float32 is faster so "
            "there; beside 3xtf32 and 3xfp16 it is cuDNN's float32, which has Winograd for 3x3 filters of stride 1."
        )
        yield ""


def _has_winograd(problem: Problem) -> bool:
    s = problem.shape
    return (s.R, s.S, s.stride, s.dilation) == (3, 3, (1, 1), (1, 1))


def _summary(group: list[dict[str, Any]]) -> str:
    rate = f"{_mean([each['gflops'] / 1e3 for each in group]):.0f}"
    shares = [each["of_gemm"] for each in group if "of_gemm" in each]
    peers = [min(each["cudnn_us"] or 0.0, each.get("cudnn_nchw_us", math.inf)) for each in group]
    ratios = [peer / each["ours_us"] for peer, each in zip(peers, group, strict=True) if peer]
    return " | ".join([rate, f"{_mean(shares):.0%}" if shares else "", f"{_mean(ratios):.2f}" if ratios else ""])


def _mean(numbers: list[float]) -> float:
    """The geometric one."""
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def _steps(results: dict[str, Any]) -> Iterator[str]:
    """Training steps, ours and torch's."""
    done = [(name, results.get(f"step/{name}", {"ok": False})) for name, step in STEPS.items() if not step.timeline]
    done = [(name, each) for name, each in done if each["ok"] and "ms" in each]  # not those that were skipped
    if done:
        yield f"| a step of training ResNet-50, {Size().batch} images | ms | images/s |"
        yield "|---|---:|---:|"
        for name, each in done:
            captured = " (CUDA graph)" if STEPS[name].captured and not STEPS[name].peer else ""
            yield f"| {name}{captured} | {each['ms']:.1f} | {1e3 * Size().batch / each['ms']:.0f} |"
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
        yield f"Geometric mean over these {len(ratios)} layers, cuDNN's time over ours: {_mean(ratios):.2f}."
        yield ""


def _floor(problem: Problem, peaks: dict[str, Any]) -> float:
    """Microseconds that no algorithm without fewer multiply-adds can go below."""
    s = problem.shape
    elements = sum(math.prod(shape) for shape in (s.x_shape, s.w_shape, s.y_shape))
    return 1e6 * max(s.flops / (peaks["fma_gflops"] * 1e9), 4 * elements / (peaks["copy_gbytes"] * 1e9))
