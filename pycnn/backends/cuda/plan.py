"""`Plan`: one way to run one pass of one convolution.  Every family of algorithms makes some, `conv` takes one.

A family is a module (`direct`, ...) with

    KERNELS                            the kernels it launches, by name
    plans(operator, shape, sources)    its plans, those that cannot run the problem included; the modules that have
                                       kernels of 16 bits also take the `ending` that `HostBase.ending` gives a dtype

Its plans are asked for by the family's name, by a plan's name, or by anything between ("im2col", "im2col_implicit",
"im2col_implicit_128x128"): the words before an underscore.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pycnn.backends.cuda.device import Argument, Array, Reads
from pycnn.backends.cuda.host import HostBase
from pycnn.backends.cuda.layout import NARROW
from pycnn.jit.sources import Instance, Sources

__all__ = ["Epilogue", "Operands", "Plan", "instances_of", "past_32_bits"]


# Multiply-adds that an H100 does while it moves one float to memory and back: 33 against 0.84 * 10^12 a second, and two
# ways.  What an algorithm moves between its own kernels counts as so many.
MOVED = 80

_ENDINGS = ("", "_f16", "_bf16")  # of the names of instances, by the member `type` of their tiles


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What happens to a sum before it is stored: y = relu(scale[k] * sum + b[k] + residual); None leaves a step out."""

    scale: Array | None = None
    b: Array | None = None
    residual: Array | None = None
    relu: bool = False

    @property
    def arguments(self) -> list[Argument]:
        """What a kernel that includes epilogue.cuh takes before its output."""
        relu = struct.pack("<i", self.relu)
        return [Reads("scale", self.scale), Reads("b", self.b), Reads("residual", self.residual), relu]


@dataclass(frozen=True, slots=True)
class Operands:
    """The dense arrays of a pass.  fprop: x, w -> y.  dgrad: dy, w -> dx.  wgrad: dy, x -> dw, and db where wanted."""

    x: Array | None = None
    w: Array | None = None
    y: Array | None = None
    dx: Array | None = None
    dw: Array | None = None
    dy: Array | None = None
    db: Array | None = None
    epilogue: Epilogue = Epilogue()


@dataclass(frozen=True)
class Plan(ABC):
    """One way to run a problem.

    Attributes:
        name: the algorithm's name, as `algo=` takes it; begins with its family's.
        reason: why it cannot run this problem, or None.
        tier: plans of a family are taken in the order of their tiers (of two families, `order` says which),
        cost: and within one, of what they do: multiply-adds of all tiles, the idle ones included, and `MOVED` for each
            float that goes from one of the plan's kernels to another.
        why: why it is taken before the others of its family.
        workspace: bytes of device memory that it needs beside operands and results.
        bias_gradient: whether, in wgrad, its kernels write db where the operands have one; otherwise they are not given
            one, and db is summed from dy by itself.
    """

    name: str
    reason: str | None
    tier: int
    cost: int
    why: str
    workspace: int
    bias_gradient: bool = field(default=False, kw_only=True)

    strided: ClassVar[bool] = False
    """Whether its kernels read and write arrays of any strides; otherwise they are given dense NCHW ones."""

    @property
    @abstractmethod
    def kernels(self) -> tuple[Instance, ...]:
        """The kernels it launches."""

    @abstractmethod
    def run(self, host: HostBase, operands: Operands) -> None:
        """Launch them on `host.device`.  Called only where `reason` is None and the batch is not empty."""

    def answers_to(self, algo: str) -> bool:
        """Whether the plan is one of several that `algo` asks for."""
        return self.name.startswith(f"{algo}_")


def instances_of(sources: Sources, kernel: str, ending: str) -> dict[str, Instance]:
    """A kernel's instances for arrays of one dtype, by their names without its `ending` (see `HostBase.ending`)."""
    found = sources.of(kernel).values()
    return {each.name.removesuffix(ending): each for each in found if _ENDINGS[each.tile.get("type", 0)] == ending}


def past_32_bits(indices: Mapping[str, int]) -> str | None:
    """Why 32 bits do not hold these indices, or None."""
    for what, most in indices.items():
        if most >= NARROW:
            return f"it counts in 32 bits, and the {what} go up to {most}"
    return None
