"""The suites that the package onnx ships, on the arrays of a played CuPy: every node's kernels run in the simulator."""

from __future__ import annotations

import pytest
from played import playing

pytest.importorskip("onnx")

from pycnn.onnx import conformance, registry

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]

# What onnx writes as several nodes is made of those of the first suite.
SUITES = ("node", "pytorch-operator", "pytorch-converted")


@pytest.mark.parametrize("suite", SUITES)
def test_suite_on_a_gpu(suite: str) -> None:
    had = set(registry.names())
    with playing(1):
        cases = [case for case in conformance.cases(suite) if case.operators <= had]
        run = [case for case in cases if case.name not in conformance.SKIPPED]
        failed = [f"{case.name}: {wrong}" for case in run if (wrong := conformance.failure(case, "CUDA")) is not None]
    assert failed == []
    assert len(run) > 30
