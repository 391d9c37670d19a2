"""Engines to run compiled networks on: the played one with three vector widths, the native one with each ISA."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from numpy_program import Engine

import pycnn
from pycnn import _cpu

ISAS = [isa for isa in ("baseline", "avx2", "avx512") if _cpu.isa_supported(isa)]
ENGINES = ["played 4", "played 8", "played 16", *ISAS]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What `pycnn.compiler` takes as the native module; the real one with its instruction set in force."""
    if request.param.startswith("played"):
        yield Engine(int(request.param.split()[1]))
        return
    before = pycnn.get_isa()
    pycnn.set_isa(request.param)
    try:
        yield _cpu
    finally:
        pycnn.set_isa(before)
