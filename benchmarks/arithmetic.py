"""The arithmetics of tensor cores, each in both layouts: how it is asked for, and what it is proven on.

>>> [kind.name for kind in KINDS][:3]
['f16', 'f16_nhwc', 'bf16']
>>> str(KINDS[1].fitted(Problem.parse("n1c3h8_k5r3")))
'n1c8h8w8_k8r3s3_st1pd0dl1g1_f16_nhwc'
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from pycnn import use_precision
from pycnn.backends.cuda import conv, tensor, winograd
from pycnn.backends.cuda.plan import Plan
from pycnn.jit.sources import installed
from pycnn.shape import DTYPES, Problem

__all__ = ["ARITHMETICS", "FLOAT32", "KINDS", "Kind"]

ARITHMETICS = ("f16", "bf16", "tf32", "3xtf32", "3xfp16")


@dataclass(frozen=True)
class Kind:
    """One arithmetic in one layout.

    Attributes:
        arithmetic: one of `ARITHMETICS`, or "f32".
        layout: "nchw" or "nhwc".
    """

    arithmetic: str
    layout: str = "nchw"

    @property
    def name(self) -> str:
        """Unique."""
        return self.arithmetic if self.layout == "nchw" else f"{self.arithmetic}_{self.layout}"

    @property
    def dtype(self) -> str:
        """Of the arrays."""
        return DTYPES.get(self.arithmetic, "float32")

    @property
    def precision(self) -> str:
        """What `pycnn.use_precision` is told."""
        return self.arithmetic if self.arithmetic not in DTYPES else "float32"

    def allowed(self) -> AbstractContextManager[object]:
        """A block in which float32 arrays may be computed so."""
        return use_precision(self.precision)

    def of(self, problem: Problem) -> Problem:
        """The same problem on such arrays."""
        return replace(problem, dtype=self.dtype, layout=self.layout)

    def fitted(self, problem: Problem) -> Problem:
        """`of`, with as many more channels as the kernels that read chunks of 16 bytes ask for, in channels-last."""
        if self.layout == "nchw":
            return self.of(problem)
        s = problem.shape
        chunk = s.groups * 16 // (2 if self.dtype != "float32" else 4)
        return self.of(replace(problem, shape=replace(s, C=_up(s.C, chunk), K=_up(s.K, chunk))))

    def plans(self, problem: Problem, arch: str) -> list[Plan]:
        """Every plan beside float32's, those that cannot run included: on tensor cores, and direct in 16 bits."""
        if self.arithmetic not in ARITHMETICS:
            return []
        setting = tensor.Setting(self.arithmetic, self.layout == "nhwc", arch)
        found = tensor.plans(problem.operator, problem.shape, installed(), setting)
        if self.layout == "nchw" and self.dtype != "float32":  # direct makes its arrays dense first
            found += conv.plans(problem.operator, problem.shape, installed(), f"_{self.arithmetic}")
        if self == Kind("3xtf32"):  # so does Winograd
            found += winograd.split_plans(problem.operator, problem.shape, installed(), arch)
        return found


def _up(channels: int, chunk: int) -> int:
    return chunk * math.ceil(channels / chunk)


FLOAT32 = Kind("f32")
KINDS = tuple(Kind(arithmetic, layout) for arithmetic in ARITHMETICS for layout in ("nchw", "nhwc"))
