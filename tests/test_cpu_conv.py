"""Convolution on the CPU engine: direct and im2col, every pass, instruction set and thread count."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import pycnn
from pycnn import _cpu, algorithms
from pycnn.backends import cpu, reference
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import check_conv2d
from pycnn.testing.problems import BY_REASON, every_pass, problems

ISAS = [isa for isa in ("baseline", "avx2", "avx512") if _cpu.isa_supported(isa)]
ALGORITHMS = ("direct", "im2col_implicit", "im2col_explicit")


@pytest.fixture(autouse=True)
def engine_as_found() -> Iterator[None]:
    """Every test starts from the default threads and the best instruction set, and leaves them so."""
    yield
    pycnn.set_isa("auto")
    pycnn.set_num_threads(0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("reason", BY_REASON)
def test_every_problem_is_right(reason: str, algo: str, isa: str) -> None:
    pycnn.set_isa(isa)
    for problem in every_pass(problems(reason)):
        check_conv2d(cpu, problem, algo)
