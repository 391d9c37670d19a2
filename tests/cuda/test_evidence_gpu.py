"""The GPU's side of the evidence command, on a CuPy that the simulator plays; its torch passes, on the CPU."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from played import playing

from benchmarks import gpu, sanitized, steps
from benchmarks.arithmetic import FLOAT32, KINDS, Kind
from benchmarks.child import ended
from benchmarks.steps import STEPS, Size
from benchmarks.tasks import Moved, launched_by, subject
from pycnn import backends, use_precision
from pycnn.backends import reference
from pycnn.backends.cuda import LAUNCHERS, convert, gemm, tensor, tensor_product
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Problem
from pycnn.testing import (
    Case,
    check_conv2d,
    error_bound,
    exact_operands,
    float_operands,
    laid_out,
    operators,
    oracle,
    run,
    scattered,
)
from pycnn.testing.fragments import ProbeSources, accumulation, experiments

with suppress(ImportError):  # before a CuPy is played, which it would take for a real one
    import torch  # noqa: F401

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]

SMALL = Problem.parse("n1c8h9_k8r3_pd1")
SMALL_STEP = Size("lenet5", 2, (1, 32, 32))


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
    peaks = place.peaks()
    assert peaks.pop("gemm_tflops") == {}  # the library's are torch's
    assert all(value > 0 for value in peaks.values())


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
    assert set(measured["others_us"]) == {"direct", "im2col", "winograd"}
    assert measured["algo"].startswith(tuple(measured["others_us"]))
    assert min(measured["others_us"].values()) > 0
    assert measured["cudnn_us"] is None


@pytest.mark.parametrize("operator", PASSES)
def test_layer_on_tensor_cores_is_timed_by_every_tile(place: gpu.Gpu, operator: str) -> None:
    measured = place.seconds(replace(SMALL, operator=operator, dtype="bfloat16", layout="nhwc"))
    tiles = ("256x128", "128x128", "64x64", "strided_128x128", "strided_64x64")
    assert set(measured["others_us"]) == {f"im2col_tensor_{tile}" for tile in tiles}
    assert measured["algo"] == "im2col_tensor_64x64"  # which reads chunks of channels
    strided = place.seconds(replace(SMALL, operator=operator, dtype="bfloat16"))
    assert set(strided["others_us"]) == {f"im2col_tensor_{tile}" for tile in tiles if "strided" in tile}


def test_float32_layer_is_timed_in_the_precision_in_force(place: gpu.Gpu) -> None:
    with use_precision("3xtf32"):
        measured = place.seconds(SMALL)
    assert {name for name in measured["others_us"] if name.startswith("winograd")} == {
        "winograd_f4x4_3x3_3xtf32",
        "winograd_f6x6_3x3_3xtf32",
    }
    assert "im2col_tensor_3xtf32_strided_64x64" in measured["others_us"]


@pytest.mark.parametrize("precision", ["3xfp16", "tf32"])
def test_peer_is_asked_in_the_same_precision_and_in_both_layouts(
    place: gpu.Gpu, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends_of_torch = SimpleNamespace(
        cudnn=SimpleNamespace(allow_tf32=False), cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False))
    )
    torch = SimpleNamespace(backends=backends_of_torch, cuda=SimpleNamespace(empty_cache=lambda: None))
    asked = []

    def cudnn(problem: Problem, left: Any, right: Any, b: Any) -> Any:
        assert left.flags.c_contiguous == right.flags.c_contiguous == (problem.layout == "nchw")
        return lambda: asked.append((problem.layout, torch.backends.cudnn.allow_tf32))

    monkeypatch.setattr(gpu, "_torch", lambda: torch)
    monkeypatch.setattr(gpu, "_cudnn", cudnn)
    monkeypatch.setattr(place, "_check_large", lambda *given: {"error": 0.0})
    place.products = {"tf32": 0.5, "bf16": 2.0}
    with use_precision(precision):
        measured = place.seconds(replace(SMALL, layout="nhwc"))
    assert dict.fromkeys(asked) == dict.fromkeys([("nhwc", precision == "tf32"), ("nchw", precision == "tf32")])
    assert not torch.backends.cudnn.allow_tf32
    assert measured["cudnn_us"] > 0
    assert measured["cudnn_nchw_us"] > 0
    if precision == "tf32":
        assert measured["of_gemm"] == pytest.approx(measured["gflops"] / 500)
    else:
        assert "of_gemm" not in measured


def test_operands_are_drawn_in_the_problems_dtype_and_layout(place: gpu.Gpu) -> None:
    problem = replace(SMALL, dtype="float16", layout="nhwc")
    left, right, b = place._operands(problem)
    assert [each.dtype for each in (left, right, b)] == [np.float16] * 3
    assert all(map(tensor.reads_chunks, (left, right)))
    assert b is not None
    values = np.concatenate([each.get().ravel() for each in (left, right, b)]).astype(np.float64)
    assert -1 <= values.min() < -0.9
    assert 0.9 < values.max() <= 1
    assert abs(values.mean()) < 0.05  # some 1200 numbers of deviation 0.58
    assert len(set(left.get().ravel()[:8]) & set(right.get().ravel()[:8])) < 8


@pytest.mark.parametrize(
    "name",
    ["float32", "float16 channels-last", "bfloat16", "bfloat16 channels-last", "float32 eager", "3xfp16 channels-last"],
)
def test_step_is_timed(place: gpu.Gpu, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEP", SMALL_STEP)
    monkeypatch.setattr(steps, "RUNS", 2)
    built: list[steps.Training] = []

    class Training(steps.Training):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            built.append(self)

    monkeypatch.setattr(steps, "Training", Training)
    measured = place.step(name)
    assert measured["ms"] > 0
    assert 1 < measured["loss"] < 4  # some log(10) of ten classes
    assert measured["last_loss"] <= measured["loss"]  # it has learnt, if little
    assert built[0].graphs == (name != "float32 eager")


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("float32 kernels", {"conv2d_fprop_direct", "sgemm"}),
        ("bfloat16 channels-last kernels", {"conv2d_fprop_tensor", "conv2d_wgrad_tensor", "convert"}),
    ],
)
def test_timeline_has_every_launch_of_a_step(
    monkeypatch: pytest.MonkeyPatch, place: gpu.Gpu, name: str, kernels: set[str]
) -> None:
    monkeypatch.setattr(gpu, "STEP", SMALL_STEP)
    monkeypatch.setattr(gpu, "BUSY", 2**10)
    monkeypatch.setattr(steps, "RUNS", 1)
    measured = place.step(name)
    assert set(measured["launches"]) == set(measured["kernels_ms"])
    assert measured["launches"]["sgd_step"] == 1
    assert {"max_pool2d_bwd", "nll_losses", *kernels} <= set(measured["launches"])
    device = backends.get("cuda").host_on(0).device
    assert "launch" not in vars(device)
    assert "load" not in vars(device)


def test_steps_of_torch_are_a_process_of_their_own(place: gpu.Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "in_a_process", lambda name: {"asked": name})
    assert place.step("torch float32") == {"asked": "torch float32"}


def test_a_loss_that_is_no_number_is_wrong(place: gpu.Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEP", SMALL_STEP)
    data = SMALL_STEP.data()
    data[0][0, 0, 0, 0] = np.nan
    monkeypatch.setattr(steps.Size, "data", lambda self: data)
    with pytest.raises(AssertionError, match="the loss is no number"):
        place.step("float32 eager")


def test_bandwidth_counts_arrays_and_results(place: gpu.Gpu) -> None:
    measured = place.bandwidth(Moved("batch_norm_fwd", ((2, 3, 4, 5), (3,), (3,)), (1e-5,)))
    moved = 4 * (2 * 120 + 2 * 3 + 2 * 3)  # x and y, weight and bias, mean and variance
    assert measured["gbytes"] * measured["us"] == pytest.approx(moved / 1e3)
    measured = place.bandwidth(Moved("batch_norm_fwd", ((2, 3, 4, 5), (3,), (3,)), (1e-5,), "bfloat16"))
    assert measured["gbytes"] * measured["us"] == pytest.approx((moved - 2 * 2 * 120) / 1e3)


def test_numpy_arrays_go_in_and_come_out(place: gpu.Gpu) -> None:
    operands = exact_operands(SMALL)
    y = run(place.backend, SMALL, operands, "auto")
    assert np.array_equal(y, run(reference, SMALL, operands, "auto"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_layouts_go_in_and_come_out(place: gpu.Gpu, dtype: str) -> None:
    backend = gpu.OnNumpy(place.host, place.cupy)
    problem = replace(SMALL, dtype=dtype, layout="nhwc")
    operands = laid_out(problem, exact_operands(problem))
    given = backend.into(operands.left)
    assert (given.shape, given.strides, given.dtype) == (operands.left.shape, operands.left.strides, dtype)
    assert backend._out(given).strides == operands.left.strides
    assert backend._out(given).tobytes() == operands.left.tobytes()
    gaps = scattered(operands).right
    given = backend.into(gaps)
    assert not given.flags.c_contiguous
    assert given.get().tobytes() == np.ascontiguousarray(gaps).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_fresh_arrays_are_full_of_nan(place: gpu.Gpu, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.CupyDevice, "alloc", lambda self, shape, dtype: place.cupy.zeros(shape, dtype))
    array = place.backend.host.device.alloc((3, 5), np.dtype(dtype)).get()
    assert np.isnan(array).all()


def test_tensor_cores_are_proven_through_numpy(place: gpu.Gpu) -> None:
    check_conv2d(place.backend, "n1c8h5w6_k16r3s3_pd1_bf16_nhwc", "im2col_tensor_64x64")
    check_conv2d(place.backend, "n1c3h5w6_k5r3s3_pd1_f16_wgrad", "im2col_tensor_strided_64x64")


@pytest.mark.parametrize("part", [subject(launcher) for launcher in LAUNCHERS])
def test_what_the_sanitizer_watches_runs_the_launchers_kernels(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few problems in place of all: that they reach the kernels is what matters here."""
    monkeypatch.setattr(sanitized, "PROBLEMS", ("n1c5h7w9_k6r3s3_pd1", "n1c6h7w9_k6r3s3_pd1g6", "n1c5h7w9_k6r1s1"))
    monkeypatch.setattr(sanitized, "TENSOR_PROBLEMS", ("n1c8h5w6_k8r3s3_pd1",))
    monkeypatch.setattr(sanitized, "KINDS", (Kind("f16", "nhwc"), Kind("3xtf32")))
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
    if launcher in (tensor, tensor_product, gemm, convert):
        assert reached == set(launcher.KERNELS)
    assert reached or not (launcher in sanitized.conv.PLANNERS or cases)


@pytest.mark.parametrize("operator", PASSES)
@pytest.mark.parametrize("text", ["n2c6h9w10_k4r3s2_st2x1pd1.1.0.0g2", "n1c3h8w8_k5r3s3_pd1dl2"])
@pytest.mark.parametrize("kind", [FLOAT32, *KINDS[:4]], ids=lambda kind: kind.name)
def test_peer_computes_the_same_pass(operator: str, text: str, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gpu, "_torch", lambda: torch)
    empty = torch.empty
    problem = kind.of(replace(Problem.parse(text), operator=operator))
    operands = laid_out(problem, float_operands(problem))
    arrays = (operands.left, operands.right, operands.b)
    given = [None if each is None else gpu._tensor(torch, each) for each in arrays]
    made = []
    monkeypatch.setattr(torch, "empty", lambda *shape, **how: made.append(how["memory_format"]) or empty(*shape, **how))
    found = gpu._by_torch(problem, *given)()
    layout = torch.channels_last if problem.layout == "nhwc" else torch.contiguous_format
    assert made == [layout] * (operator != "fprop")  # else torch would copy it into the other's layout
    assert str(found.dtype) == f"torch.{problem.dtype}"
    if problem.layout == "nhwc":
        assert found.is_contiguous(memory_format=torch.channels_last)
    # Two float32 sums of under a hundred terms of size one; and one rounding to 16 bits, or of a bias and a sum two.
    unit = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(problem.dtype, 0.0)
    expected = oracle(problem, operands)
    assert np.allclose(found.double().numpy(), expected, rtol=0, atol=1e-4 + unit * abs(expected).max())


def test_layer_is_held_to_its_bound_at_full_size(place: gpu.Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gpu, "_torch", lambda: torch)
    problem = Problem.parse("n2c8h9_k8r3_pd1_bf16_nhwc")
    operands = laid_out(problem, float_operands(problem))
    exact = oracle(problem, operands)
    algo = "im2col_tensor_64x64"
    y = exact.astype(operands.left.dtype)
    checked = place._check_large(problem, algo, operands.left, operands.right, operands.b, y)
    assert checked["error"] == abs(y - exact).max()
    assert checked["bound"] == pytest.approx(error_bound(problem, operands, exact, algo))
    y[1, 2, 3, 4] += np.asarray(2 * checked["bound"], y.dtype)
    with pytest.raises(AssertionError, match="exceeds the bound"):
        place._check_large(problem, algo, operands.left, operands.right, operands.b, y)


def test_tf32_is_allowed_to_the_peer_alone() -> None:
    torch = pytest.importorskip("torch")
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    with gpu._tf32(torch, False):
        with gpu._tf32(torch, True):
            assert all(place.allow_tf32 for place in places)
        assert not any(place.allow_tf32 for place in places)
        with pytest.raises(RuntimeError, match="stop"), gpu._tf32(torch, True):
            raise RuntimeError("stop")
        assert not any(place.allow_tf32 for place in places)


@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step.peer])
def test_torch_trains_as_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    seen: dict[str, Any] = {}

    def compile_(model: Any) -> Any:
        seen["compiled"] = True
        return model

    def cross_entropy(logits: Any, labels: Any) -> Any:
        seen["dtype"] = logits.dtype
        return real(logits, labels)

    real = torch.nn.functional.cross_entropy
    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", cross_entropy)
    step = STEPS[name]
    with gpu._tf32(torch, False):
        measured = steps.by_torch(step, SMALL_STEP, "cpu")
        assert torch.backends.cudnn.allow_tf32 == (step.arithmetic == "tf32")
    assert measured["ms"] > 0
    assert 1 < measured["loss"] < 4
    assert seen == {"dtype": getattr(torch, step.arithmetic if step.mixed else "float32")} | (
        {"compiled": True} if step.compiled else {}
    )


def test_what_keeps_torch_from_a_step_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(status: int, stdout: str, stderr: str) -> None:
        done = subprocess.CompletedProcess([], status, stdout, stderr)
        monkeypatch.setattr(steps, "ended", lambda command, seconds: done)

    compiled, eager = "torch float32 compiled", "torch float32"
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: None)
    assert steps.in_a_process(eager) == {"skipped": "torch is not installed"}
    monkeypatch.setattr(steps.importlib.util, "find_spec", lambda name: name)
    ends(0, 'noise\n{"ms": 3.0}\n', "a warning")
    assert steps.in_a_process(eager) == {"ms": 3.0}
    ends(1, "", "Traceback\nRuntimeError: no C compiler\n")
    assert steps.in_a_process(compiled) == {"skipped": "torch.compile: RuntimeError: no C compiler"}
    with pytest.raises(RuntimeError, match="torch's step: RuntimeError: no C compiler"):
        steps.in_a_process(eager)
    ends(-9, "", "")
    assert steps.in_a_process(compiled) == {"skipped": "torch.compile: it ended with status -9"}

    def late(command: list[str], seconds: float) -> None:
        raise subprocess.TimeoutExpired(command, seconds)

    monkeypatch.setattr(steps, "ended", late)
    assert steps.in_a_process(compiled) == {"skipped": "torch.compile was not done in 150 s"}


def test_a_child_is_heard_and_killed_with_its_own(tmp_path: Path) -> None:
    done = ended(["sh", "-c", "pwd; echo no >&2; exit 3"], 60)
    assert (done.returncode, done.stderr) == (3, "no\n")
    assert (Path(done.stdout.strip()) / "benchmarks" / "child.py").is_file()
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        ended(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; sleep 60"], 1)
    grandchild = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    while grandchild.exists() and grandchild.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() - start < 30
        time.sleep(0.01)


def test_a_sanitizer_that_does_not_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(command: list[str], seconds: float) -> None:
        raise subprocess.TimeoutExpired(command, seconds)

    monkeypatch.setattr(sanitized.shutil, "which", lambda name, path=None: name)
    monkeypatch.setattr(sanitized, "ended", late)
    with pytest.raises(RuntimeError, match="racecheck on tensor did not end in 150 s"):
        sanitized.under("racecheck", "tensor")
