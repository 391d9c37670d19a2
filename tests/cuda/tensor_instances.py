"""How the instances of convolution on tensor cores are asked for, and held to the exact result."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from pycnn import use_precision
from pycnn.backends.cuda import Host, tensor
from pycnn.backends.cuda.device import Device
from pycnn.backends.sim import Simulated
from pycnn.jit.sources import installed
from pycnn.shape import Problem
from pycnn.testing import (
    Operands,
    exact_operands,
    oracle,
    run,
)
from pycnn.testing.regimes import split_operands

LAYOUTS = ("nchw", "nhwc")
DTYPES = {"f16": "float16", "bf16": "bfloat16", "tf32": "float32", "3xtf32": "float32", "3xfp16": "float32"}
INSTANCES = tuple(installed().of("conv2d_fprop_tensor"))

# bfloat16 has the code of float16 but for one instruction, tf32 that of 3xtf32 without the splitting.
FAST = (
    *("f16_256x128", "f16_64x64", "f16_strided_64x64", "f16_wide", "bf16_64x64"),
    *("tf32_strided_64x64", "3xtf32_64x64", "3xtf32_strided_64x64", "3xfp16_64x64", "3xfp16_strided_64x64"),
)
# Those that go through the problem lists, and how large a problem is in the fast run.
MOST_MACS = {
    "f16_64x64": 3_000_000,
    "f16_strided_64x64": 3_000_000,
    "3xtf32_64x64": 800_000,
    "3xtf32_strided_64x64": 800_000,
    "3xfp16_64x64": 800_000,
    "3xfp16_strided_64x64": 800_000,
}
LISTED = tuple(MOST_MACS)


class Kind(NamedTuple):
    """How an instance is asked for, and what it takes."""

    algo: str
    dtype: str
    precision: str
    vectors: bool
    chunk: int  # elements of 16 bytes


def kind(instance: str) -> Kind:
    arithmetic, _, words = instance.partition("_")
    vectors = bool(installed().of("conv2d_fprop_tensor")[instance].tile["vectors"])
    if DTYPES[arithmetic] == "float32":
        return Kind(f"im2col_tensor_{instance}", "float32", arithmetic, vectors, 4)
    return Kind(f"im2col_tensor_{words}", DTYPES[arithmetic], "float32", vectors, 8)


def of(instance: str, given: Problem | str, operator: str) -> Problem:
    """The problem in the dtype and layout that an instance takes, its channels as many as make whole chunks."""
    problem = Problem.parse(given) if isinstance(given, str) else given
    _, dtype, _, vectors, chunk = kind(instance)
    s = problem.shape
    if vectors:

        def whole(count: int) -> int:
            return s.groups * chunk * math.ceil(count / s.groups / chunk)

        read = {"fprop": (whole(s.C), s.K), "dgrad": (s.C, whole(s.K)), "wgrad": (whole(s.C), whole(s.K))}[operator]
        s = replace(s, C=read[0], K=read[1])
    return Problem(s, operator, dtype, "nhwc" if vectors else "nchw")


def laid(array: np.ndarray, layout: str) -> np.ndarray:
    return array if layout == "nchw" else np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def on(device: Device, array: np.ndarray, layout: str = "nchw", skew: int = 0) -> Any:
    """A copy on the device in a layout, `skew` elements past a multiple of 16 bytes."""
    n, c, h, w = array.shape
    room = device.alloc((array.size + skew,), array.dtype)[skew:]
    place = room.reshape(array.shape) if layout == "nchw" else room.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    place[...] = array
    return place


def rounded(problem: Problem, operands: Operands) -> np.ndarray:
    """The exact result, rounded once."""
    return oracle(problem, operands).astype(operands.left.dtype)


def on_integers(problem: Problem, precision: str) -> list[Operands]:
    """Operands on which the product must be exact."""
    if precision.startswith("3x"):
        return [split_operands(problem, side) for side in ("left", "right")]
    return [exact_operands(problem, "im2col", bias=False)]


def computed(instance: str, problem: Problem, operands: Operands, device: Device) -> np.ndarray:
    given = replace(operands, left=laid(operands.left, problem.layout), right=laid(operands.right, problem.layout))
    with use_precision(kind(instance).precision):
        return run(Simulated(Host(device)), problem, given, kind(instance).algo)


def exactly(instance: str, problem: Problem, device: Device) -> bool:
    return all(
        np.array_equal(computed(instance, problem, operands, device), rounded(problem, operands))
        for operands in on_integers(problem, kind(instance).precision)
    )


def by_cost(instance: str) -> tuple[()] | pytest.MarkDecorator:
    return () if instance in FAST else pytest.mark.slow


def plans(problem: Problem, precision: str = "float32", chunks: bool = False, arch: str = "sm_90a") -> dict[str, Any]:
    arithmetic = tensor.arithmetic_of(np.dtype(problem.dtype), precision)
    assert arithmetic is not None
    setting = tensor.Setting(arithmetic, chunks, arch)
    return {plan.name: plan for plan in tensor.plans(problem.operator, problem.shape, installed(), setting)}


def result(host: Host, problem: Problem, left: Any, right: Any, algo: str = "im2col_tensor") -> Any:
    """The pass on arrays of the device."""
    s = problem.shape
    how = (s.stride, s.padding, s.dilation, s.groups)
    if problem.operator == "fprop":
        return host.conv2d_fprop(left, right, None, *how, algo=algo)
    if problem.operator == "dgrad":
        return host.conv2d_dgrad(left, right, s.x_shape, *how, algo=algo)
    return host.conv2d_wgrad(left, right, s.w_shape, *how, algo=algo)
