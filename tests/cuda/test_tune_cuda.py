"""Tables of GPUs: what `auto` takes by them, and `pycnn tune` on a CuPy that the simulator plays."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from played import playing

import pycnn
from pycnn import backends, tuning
from pycnn.backends.cuda import Host, order
from pycnn.backends.cuda.device_trace import TraceDevice
from pycnn.calibration import shapes
from pycnn.cli import main
from pycnn.shape import PASSES, Problem
from pycnn.tuning import Identity, Table

FLOAT32 = np.dtype(np.float32)
FAMILIES = ("direct", "im2col_implicit", "im2col_explicit", "winograd")
LAYER = Problem.parse("n32c64h56_k64r3_pd1")
GPU = Identity("cuda", "sm_90a", "a GPU", 132, "")


def favouring(family: str, **values: object) -> Table:
    """A table by which a family's work costs a hundredth of the others'."""
    models = {each: {"launch": 1e-6, "work": 1e-14 if each == family else 1e-12, "bytes": 1e-13} for each in FAMILIES}
    return replace(Table(GPU, 1, dict.fromkeys(PASSES, models)), **values)  # type: ignore[arg-type]


@pytest.fixture
def host() -> Host:
    return Host(TraceDevice())


def test_without_a_table_of_the_gpu_the_rules_hold(host: Host) -> None:
    assert not tuning.in_force(host.identity).calibrated
    taken, why = host.conv2d_choose("fprop", LAYER.shape, FLOAT32)
    assert "of the work of the best direct or implicit kernel" in why
    assert host.conv2d_predicted("fprop", LAYER.shape, FLOAT32) == {}
    with tuning.use(favouring("direct", identity=GPU._replace(kind="sm_80"))):  # for another GPU
        assert host.conv2d_choose("fprop", LAYER.shape, FLOAT32) == (taken, why)


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_least_predicted_is_taken(family: str, operator: str, host: Host) -> None:
    with tuning.use(favouring(family)):
        name, why = host.conv2d_choose(operator, LAYER.shape, FLOAT32)
        assert name.startswith(family)
        assert why.startswith("predicted ")
        predicted = host.conv2d_predicted(operator, LAYER.shape, FLOAT32)
        works = host.conv2d_works(operator, LAYER.shape, FLOAT32)
        if family != "winograd":  # whose handicaps are part of the choice
            assert name == min(works, key=predicted.__getitem__)
        assert host._plan(operator, LAYER.shape, FLOAT32, "auto").name == name
    assert (
        host._plan(operator, LAYER.shape, FLOAT32, "auto").name == host.conv2d_choose(operator, LAYER.shape, FLOAT32)[0]
    )


def test_general_kernels_are_no_candidates_where_there_are_others(host: Host) -> None:
    works = host.conv2d_works("fprop", LAYER.shape, FLOAT32)
    assert "direct_r3s3_st1_8x32" in works
    assert "direct_any_narrow" not in works
    plans = [plan for plan in host._plans("fprop", LAYER.shape, FLOAT32) if plan.reason is None]
    assert {plan.name for plan in order.first_tiers(plans)} == works.keys()


def test_measured_winners_are_obeyed_and_refused_where_they_cannot_be_had(host: Host) -> None:
    times = {"winograd_f6x6_3x3": 1e-5, "direct_any_narrow": 2e-5, "direct_r5s5_st1_14x16": 1e-6}
    with tuning.use(Table(GPU, 1, {}, {str(LAYER): times})):  # no coefficients: for the others the rules hold
        name, why = host.conv2d_choose("fprop", LAYER.shape, FLOAT32)
        assert name == "winograd_f6x6_3x3"
        assert "measured 10 us on this very problem, the least of 2" in why
        with pycnn.use_workspace_limit(0):
            assert host.conv2d_choose("fprop", LAYER.shape, FLOAT32)[0] == "direct_any_narrow"
        with pycnn.use_accuracy("strict"):
            name, why = host.conv2d_choose("fprop", LAYER.shape, FLOAT32)
            assert name == "direct_any_narrow"
        assert "of the work of" in host.conv2d_choose("dgrad", LAYER.shape, FLOAT32)[1]


def test_strict_accuracy_holds_by_a_table_too(host: Host) -> None:
    with tuning.use(favouring("winograd")), pycnn.use_accuracy("strict"):
        assert host.conv2d_choose("fprop", LAYER.shape, FLOAT32)[0] == "winograd_f2x2_3x3"


@pytest.mark.parametrize(("dtype", "precision"), [("float16", "float32"), ("float32", "3xtf32")])
def test_what_runs_on_tensor_cores_goes_by_the_rules(dtype: str, precision: str, host: Host) -> None:
    """Tables are measured in float32's own arithmetic."""
    given = (LAYER.shape, np.dtype(dtype))
    with pycnn.use_precision(precision):
        by_rules = host.conv2d_choose("fprop", *given)
        with tuning.use(favouring("direct", measured={str(LAYER): {"direct_any_narrow": 1e-9}})):
            assert host.conv2d_choose("fprop", *given) == by_rules
            assert host.conv2d_predicted("fprop", *given) == {}


@pytest.mark.simulator
@pytest.mark.nvrtc
def test_tune_measures_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Kernels come from the usual cache; tables are kept apart.
    monkeypatch.delenv("PYCNN_TUNING")
    monkeypatch.setattr(tuning, "path_of", lambda identity: tmp_path / f"tuning-cuda-{identity.device}.json")
    monkeypatch.setattr("pycnn._files.cache_folder", lambda: tmp_path)
    small = [Problem.parse(text).shape for text in ("n1c3h6_k4r1", "n1c4h5_k3r1")]
    monkeypatch.setattr(shapes, "calibration", lambda: iter(small[:1]))
    monkeypatch.setattr(shapes, "held_out", lambda seed: iter(small))
    monkeypatch.setattr(tuning, "_asked", {})
    tuning.forget()
    try:
        with playing():
            assert main(["tune", "--backend", "cuda", "--seconds", "0.1"]) == 0
            said = capsys.readouterr().out
            assert "played, 132 multiprocessors, sm_90a" in said
            assert "calibrated on 1 problems" in said
            host = backends.get("cuda").host_on()
            table = tuning.in_force(host.identity)
            assert table.source == str(tmp_path / "tuning-cuda-played.json")
            assert table.identity.engine == host.sources.digest
            assert {"direct", "im2col_implicit", "im2col_explicit"} == table.coefficients["fprop"].keys()
            assert host.conv2d_choose("fprop", small[1], FLOAT32)[1].startswith("predicted ")
            assert main(["tune", "--backend", "cuda", "--problem", f"{small[1]}_dgrad"]) == 0
            assert "on this very problem" in host.conv2d_choose("dgrad", small[1], FLOAT32)[1]
            capsys.readouterr()
            assert main(["explain", str(small[1])]) == 0
            assert f"times: {table.source}, measured on played, sm_90a" in capsys.readouterr().out
        assert os.listdir(tmp_path) == ["tuning-cuda-played.json"]
    finally:
        tuning.forget()
