"""The GPU's side of the evidence command, on a CuPy that the simulator plays; its torch passes, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from played import playing

from benchmarks import gpu, sanitized
from benchmarks.tasks import Moved, launched_by, subject
from pycnn.backends import reference
from pycnn.backends.cuda import LAUNCHERS
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Problem
from pycnn.testing import Case, exact_operands, float_operands, operators, run
from pycnn.testing.fragments import ProbeSources, accumulation, experiments

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]

SMALL = Problem.parse("n1c8h9_k8r3_pd1")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[gpu.Gpu]:
    monkeypatch.setattr(gpu, "RUNS", 2)
    monkeypatch.setattr(gpu, "COPIED", 2**12)
    monkeypatch.setattr(gpu, "_torch", lambda: None)
    with playing():
        yield gpu.Gpu()


def test_device_is_described_and_measured(place: gpu.Gpu) -> None:
    about = place.describe()
    assert about["device"] == "played"
    assert about["arch"] == "sm_90a"
    assert all(value > 0 for value in place.peaks().values())


def test_wrappers_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_torch", lambda: None)
    with playing(sources=ProbeSources(installed())):
        probe = gpu.Gpu().probe()
        assert all(probe.has(experiment.what) for experiment in experiments())
        assert experiments()[0].check(probe) == 512
        assert accumulation(probe, "float16")["rounding"] == "toward zero"


@pytest.mark.parametrize("operator", PASSES)
def test_layer_is_timed_by_every_family(place: gpu.Gpu, operator: str) -> None:
    measured = place.seconds(replace(SMALL, operator=operator))
    assert set(measured["families_us"]) == {"direct", "im2col", "winograd"}
    assert measured["algo"].startswith(tuple(measured["families_us"]))
    assert min(measured["families_us"].values()) > 0
    assert measured["cudnn_us"] is None


def test_bandwidth_counts_arrays_and_results(place: gpu.Gpu) -> None:
    measured = place.bandwidth(Moved("batch_norm_fwd", ((2, 3, 4, 5), (3,), (3,)), (1e-5,)))
    moved = 4 * (2 * 120 + 2 * 3 + 2 * 3)  # x and y, weight and bias, mean and variance
    assert measured["gbytes"] * measured["us"] == pytest.approx(moved / 1e3)


def test_numpy_arrays_go_in_and_come_out(place: gpu.Gpu) -> None:
    operands = exact_operands(SMALL)
    y = run(place.backend, SMALL, operands, "auto")
    assert np.array_equal(y, run(reference, SMALL, operands, "auto"))


@pytest.mark.parametrize("part", [subject(launcher) for launcher in LAUNCHERS])
def test_what_the_sanitizer_watches_runs_the_launchers_kernels(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few problems in place of all: that they reach the kernels is what matters here."""
    monkeypatch.setattr(sanitized, "PROBLEMS", ("n1c5h7w9_k6r3s3_pd1", "n1c6h7w9_k6r3s3_pd1g6", "n1c5h7w9_k6r1s1"))
    monkeypatch.setattr(sanitized, "pools", lambda: [])

    def one_each(dtype: Any) -> list[Case]:
        return list({case.function: case for case in reversed(operators(dtype=dtype))}.values())

    monkeypatch.setattr(sanitized, "operators", one_each)
    launcher = next(each for each in LAUNCHERS if subject(each) == part)
    with playing() as played:
        sanitized._worker(part)
        launched = {instance.kernel for instance in played.simulator.launches}
    reached = launched & set(launcher.KERNELS)
    cases = [case for case in operators() if case.function in launched_by(launcher)]
    assert reached or not (launcher in sanitized.conv.PLANNERS or cases)


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("text", ["n2c6h9w10_k4r3s2_st2x1pd1.1.0.0g2", "n1c3h8w8_k5r3s3_pd1dl2"])
def test_peer_computes_the_same_pass(operator: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gpu, "_torch", lambda: torch)
    problem = replace(Problem.parse(text), operator=operator)
    operands = float_operands(problem)
    given = [None if each is None else torch.from_numpy(each) for each in (operands.left, operands.right, operands.b)]
    found = gpu._by_torch(problem, *given)().numpy()
    # Two float32 sums of under a hundred terms of size one.
    assert np.allclose(found, run(reference, problem, operands, "auto"), atol=1e-4)
