"""What is compared: the lecture's layers in each pass, its networks in inference, in training and from the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pycnn.shape import PASSES, Problem

__all__ = ["BATCHES", "LAYERS", "NETWORKS", "SECTIONS", "TRAINING", "Cell", "cells", "of_problem"]

BATCHES = (1, 8)  # of layers and inference
INFERENCE, STEP, FIRST, MEMORY = "inference", "training", "first", "memory"
SECTIONS = (*PASSES, INFERENCE, STEP, FIRST, MEMORY)

NETWORKS = ("alexnet", "vgg16", "googlenet", "resnet18", "resnet50")
TRAINING = {"lenet5": 64, "alexnet": 8, "vgg16": 8, "googlenet": 8, "resnet50": 8}  # images at once
STARTED = {FIRST: "resnet50", MEMORY: "vgg16"}

LAYERS = tuple(
    Problem.parse(text)
    for text in (
        "n1c3h224_k64r11_st4pd2_alex1",
        "n1c64h27_k192r5_pd2_alex2",
        "n1c192h13_k384r3_pd1_alex3",
        "n1c3h224_k96r7_st2pd1_zf1",
        "n1c3h224_k64r3_pd1_vgg1",
        "n1c64h224_k64r3_pd1_vgg2",
        "n1c128h112_k128r3_pd1_vgg3",
        "n1c256h56_k256r3_pd1_vgg4",
        "n1c512h28_k512r3_pd1_vgg5",
        "n1c512h14_k512r3_pd1_vgg6",
        "n1c16h28_k32r5_pd2_goog3a",
        "n1c832h7_k384r1_goog5b",
        "n1c3h224_k64r7_st2pd3_res1",
        "n1c64h56_k64r3_pd1_res2",
        "n1c128h56_k128r3_st2pd1_res3",
        "n1c256h14_k256r3_pd1_res4",
        "n1c512h7_k512r3_pd1_res5",
        "n1c64h56_k256r1_res2-1x1",
        "n1c1024h14_k256r1_res4-1x1",
        "n1c256h56_k512r1_st2_res3-1x1",
        "n1c16h32_k16r3_pd1_cifar1",
        "n1c32h16_k32r3_pd1_cifar2",
        "n1c16h32_k32r3_st2pd1_cifar3",
        "n1c1h28_k6r5_pd2_lenet1",
        "n1c6h14_k16r5_lenet2",
        "n1c512h14_k512r3_pd1g512_depthwise",
        "n1c256h28_k256r3_st2pd1g256_depthwise-st2",
        "n1c512h28_k512r3_pd2dl2_dilated",
    )
)


@dataclass(frozen=True)
class Cell:
    """One thing that everybody does.

    Attributes:
        section: which table it belongs to, one of SECTIONS: a pass of a convolution, or what a network does, "first"
            being the first call of a new process and "memory" the most that inference takes.
        name: of the layer or the network.
        batch: images at once.
        problem: a layer's, its pass and batch included; None for a network.
    """

    section: str
    name: str
    batch: int
    problem: Problem | None = None

    def __str__(self) -> str:
        return f"{self.section} {self.name} b{self.batch}"


def of_problem(problem: Problem, section: str) -> Cell:
    """A pass of a layer as a cell.

    Raises ValueError for another element type or layout than float32 NCHW.
    """
    if (problem.dtype, problem.layout) != ("float32", "nchw"):
        raise ValueError(f"{problem}: the benchmark runs float32 in NCHW, got {problem.dtype} in {problem.layout}")
    return Cell(section, problem.name or str(problem.shape), problem.shape.N, replace(problem, operator=section))


def cells(
    sections: Sequence[str] = SECTIONS,
    batches: Sequence[int] = BATCHES,
    words: Sequence[str] = (),
    problems: Sequence[Problem] = (),
) -> list[Cell]:
    """The cells of these sections and batch sizes, in the order of the lists.

    Args:
        sections: among SECTIONS.
        batches: images at once, of the lists' layers and of inference.
        words: only cells whose names contain one of them; empty for all.
        problems: layers given by hand, in place of the lists', at their own batch sizes, in one pass alone where they
            name dgrad or wgrad; then there are no networks.

    Raises:
        ValueError: an unknown section, a problem that is not float32 in NCHW, or nothing left.
    """
    for section in sections:
        if section not in SECTIONS:
            raise ValueError(f"cells must be among {', '.join(SECTIONS)}, got {section!r}")
    found = [cell for cell in _all(sections, batches, problems) if _named(cell, words)]
    if not found:
        wanted = f" with {' or '.join(map(repr, words))} in its name" if words else " for problems"
        raise ValueError(f"there is no cell of {', '.join(sections)}{wanted}")
    return found


def _all(sections: Sequence[str], batches: Sequence[int], problems: Sequence[Problem]) -> Iterator[Cell]:
    layers = problems or [replace(layer, shape=replace(layer.shape, N=batch)) for batch in batches for layer in LAYERS]
    for section in sections:
        if section in PASSES:
            yield from (of_problem(layer, section) for layer in layers if layer.operator in (section, "fprop"))
        elif problems:
            continue
        elif section == INFERENCE:
            yield from (Cell(section, network, batch) for batch in batches for network in NETWORKS)
        elif section == STEP:
            yield from (Cell(section, network, batch) for network, batch in TRAINING.items())
        else:
            yield Cell(section, STARTED[section], 1)


def _named(cell: Cell, words: Sequence[str]) -> bool:
    return not words or any(word in str(cell) for word in words)
