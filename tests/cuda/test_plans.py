"""What every plan of a convolution says of itself: its kernels, its workspace, its launches, and when it counts in 32
bits; on a device that computes nothing, so for many problems."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from simulated import random_problems

from pycnn.backends.cuda import Host, conv
from pycnn.backends.cuda.device import Argument, Extent
from pycnn.backends.cuda.device_trace import TraceDevice, hollow
from pycnn.backends.cuda.plan import Epilogue, Operands, Plan
from pycnn.jit.sources import Instance, installed
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import problems

# Layers of networks: several chunks of columns and of tiles, slices of many lengths.
LARGE = (
    "n32c3h224w224_k64r7s7_st2pd3",
    "n32c64h56w56_k64r3s3_pd1",
    "n32c256h14w14_k1024r1s1",
    "n32c512h7w7_k512r3s3_pd1",
    "n128c96h27w27_k256r5s5_pd2g2",
    "n8c64h56w56_k64r3s3_pd1g64",
    "n1c512h7w7_k512r3s3_pd1",
    "n256c64h112w112_k64r3s3_pd1",
)
EVERYTHING = [each for each in [*problems(), *random_problems(60), *map(Problem.parse, LARGE)] if each.shape.N]


class Weighing(TraceDevice):
    """Knows how many bytes are allocated, and the most that there have been at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0

    def alloc(self, shape: tuple[int, ...], dtype: Any) -> Any:
        array = super().alloc(shape, dtype)
        self._count(array.nbytes)
        weakref.finalize(array.base, self._count, -array.nbytes)  # the pages, which views keep too
        return array

    def launch(self, kernel: Instance, grid: Extent, block: Extent, shared: int, arguments: Sequence[Argument]) -> None:
        assert grid[0] in range(1, 2**31)
        assert grid[1] in range(1, 2**16)
        assert block == (32 * kernel.tile["warps"], 1, 1)
        super().launch(kernel, grid, block, shared, arguments)

    def _count(self, size: int) -> None:
        self.bytes += size
        self.most = max(self.most, self.bytes)


def operands_of(operator: str, s: Conv2dShape, bias: bool) -> Operands:
    x, w, y, k = (hollow(shape, "float32") for shape in (s.x_shape, s.w_shape, s.y_shape, (s.K,)))
    if operator == "fprop":
        return Operands(x=x, w=w, y=y, epilogue=Epilogue(k, k, hollow(s.y_shape, "float32")))
    return Operands(dy=y, w=w, dx=x) if operator == "dgrad" else Operands(dy=y, x=x, dw=w, db=k if bias else None)


def able(operator: str, shape: Conv2dShape) -> Iterator[Plan]:
    return (plan for plan in conv.plans(operator, shape, installed()) if plan.reason is None)


@pytest.mark.parametrize("operator", PASSES)
def test_workspace_and_kernels_are_what_a_run_takes(operator: str) -> None:
    for problem in EVERYTHING:
        for plan in able(operator, problem.shape):
            where, device = f"{operator} {problem.shape} {plan.name}", Weighing()
            plan.run(Host(device), operands_of(operator, problem.shape, plan.bias_gradient))
            assert device.most == plan.workspace, where
            assert set(device.launches) == set(plan.kernels), where
            assert device.bytes == 0, where
