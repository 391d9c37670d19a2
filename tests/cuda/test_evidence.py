"""The evidence command, on places that need no GPU."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import evidence, ledger, section, tasks
from benchmarks.arithmetic import FLOAT32, KINDS
from pycnn.algorithms import precision
from pycnn.backends.cuda import conv, tensor, tensor_product
from pycnn.jit.sources import installed
from pycnn.shape import PASSES, Problem
from pycnn.testing.fragments import Experiment

pytestmark = pytest.mark.simulator


class Place:
    """Takes ten seconds a task, by its own clock; fails what it is told to fail."""

    arch = "sm_90a"

    def __init__(self, fails: str = "", error: type[BaseException] = AssertionError) -> None:
        self.backend = None
        self.asked: list[str] = []
        self._fails, self._error = fails, error
        self._seconds: Iterator[int] = count(0, 10)

    def clock(self) -> float:
        return float(next(self._seconds))

    def describe(self) -> dict[str, str]:
        return {"device": "NVIDIA Test 100"}

    def _answer(self, what: str) -> dict[str, Any]:
        self.asked.append(what)
        if self._fails and self._fails in what:
            raise self._error(f"{what} is wrong")
        return {"answer": what}

    def probe(self) -> Any:
        return SimpleNamespace(has=lambda what: what != "mma tf32")

    def peaks(self) -> dict[str, float]:
        return self._answer("peaks")

    def prepare(self) -> None:
        pass

    def bandwidth(self, moved: tasks.Moved) -> dict[str, Any]:
        return self._answer(f"bandwidth {moved.function}")

    def seconds(self, problem: Problem) -> dict[str, Any]:
        return self._answer(f"time {problem} in {precision()}")

    def step(self, name: str) -> dict[str, Any]:
        return self._answer(f"step {name}")

    def sanitize(self, tool: str, part: str) -> dict[str, Any]:
        return self._answer(f"{tool} {part}")


@pytest.fixture(autouse=True)
def no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proofs by `check_conv2d` and `run` are somebody else's tests."""
    monkeypatch.setattr(tasks, "check_conv2d", lambda backend, problem, algo: None)
    for check in ("check_pool2d", "check_adaptive_pool2d", "check_operator"):
        monkeypatch.setattr(tasks, check, lambda backend, *problem: None)
    monkeypatch.setattr(Experiment, "check", lambda self, probe: self.x.size)
    monkeypatch.setattr(tasks, "accumulation", lambda probe, number: {"rounding": "toward zero"})
    monkeypatch.setattr(tasks, "check_optimisers", lambda backend: 6)
    monkeypatch.setattr(tasks, "check_conversions", lambda backend: 6)
    monkeypatch.setattr(tasks, "run", lambda backend, problem, operands, algo: operands.left)


def prove(place: Place, folder: Path, budget: float = 1e9, only: int | None = None) -> int:
    return evidence.prove(place, folder, budget, only, quick=True, clock=place.clock)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "nvidia-test-100.json").read_text())["results"]


def test_plan_proves_every_algorithm_on_some_problem() -> None:
    planned = tasks.plan()
    names = [task.name for task in planned]
    assert len(set(names)) == len(names)
    shape = Problem.parse("n1c1h1_k1r1").shape
    for dtype, ending in {"float32": "", "float16": "_f16", "bfloat16": "_bf16"}.items():
        chosen = tasks._chosen(quick=False, dtype=dtype)
        for operator in PASSES:
            for plan in conv.plans(operator, shape, installed(), ending):
                assert f"correct/{operator}/{plan.name}{f'/{dtype}' if ending else ''}" in names
                assert chosen[operator, plan.name], plan.name
                assert {problem.dtype for problem in chosen[operator, plan.name]} == {dtype}
    proven = {kernel for task in planned if task.name.startswith("correct/") for kernel in task.kernels}
    assert proven == {instance.kernel for instance in installed().instances}
    of_wgrad = {task.name: task.kernels for task in planned if task.name.startswith("correct/wgrad/")}
    assert all("sum_slices" in kernels for kernels in of_wgrad.values())
    assert [task.slice for task in planned] == sorted(task.slice for task in planned)


def test_every_plan_beside_those_of_float32_runs_some_problem() -> None:
    """Of every arithmetic and pass, in one layout or the other; all instances, with full tiles, tails and steps."""
    reached, ran, listed, filled = set(), set(), set(), set()
    for kind, operator in product(KINDS, PASSES):
        about = kind.arithmetic, operator
        listed |= {(*about, plan.name) for plan in kind.plans(Problem.parse(f"n1c1h1_k1r1_{operator}"), "sm_90a")}
        for problem, algo in tasks.able(kind, operator, "sm_90a"):
            plan = next(plan for plan in kind.plans(problem, "sm_90a") if plan.name == algo)
            assert plan.reason is None
            assert (problem.operator, problem.dtype, problem.layout) == (operator, kind.dtype, kind.layout)
            ran.add((*about, algo))
            reached |= set(plan.kernels)
            if isinstance(plan, tensor.TensorPlan):
                tile = plan.instance.tile
                if min(plan.tiles) > 1 and plan.length > tile["stages"] * tile["tile_k"]:
                    filled.add(plan.instance)
    assert ran == listed
    assert filled == {each for each in installed().instances if each.kernel in tensor.KERNELS}
    kernels = (*tensor.KERNELS, *tensor_product.KERNELS)
    assert {each for each in installed().instances if each.kernel in kernels} <= reached
    halves = {each for each in installed().instances if each.kernel.startswith("conv2d") and "f16" in each.name}
    assert halves <= reached


def test_every_arithmetic_is_timed_on_twenty_layers_and_backward_where_it_matters() -> None:
    planned = [task for task in tasks.plan() if task.slice in (tasks.FAST, tasks.REST)]
    named = [task.name.removeprefix("time/") for task in planned if task.name.startswith("time/")]
    timed = Counter[tuple[str, str, str, str]]()
    for name in named:
        *given, text = name.split("/")
        problem = Problem.parse(text)
        assert problem.shape.N == tasks.FIRST_BATCH
        timed[(*(given or ["float32"]), problem.dtype, problem.layout, problem.operator)] += 1  # type: ignore[index]
    forward = {(kind.precision, kind.dtype, kind.layout, "fprop") for kind in (*KINDS, FLOAT32)}
    backward = {
        (*how, pass_)
        for how in (("float32", "bfloat16", "nhwc"), ("3xtf32", "float32", "nhwc"))
        for pass_ in PASSES[1:]
    }
    assert timed == dict.fromkeys(forward | backward, 20)
    assert planned[0].name.startswith("time/")
    assert "bf16_nhwc" in planned[0].name


def test_each_arithmetic_is_allowed_while_it_is_measured_and_no_longer(tmp_path: Path) -> None:
    place = Place()
    prove(place, tmp_path, only=tasks.FAST)
    assert "time n1c1h32w32_k6r5s5_st1pd0dl1g1_bf16_nhwc_C1 in float32" in place.asked
    quick = next(task for task in tasks.plan() if task.name.startswith("time/3xfp16/"))
    quick.work(place)
    assert place.asked[-1].endswith(" in 3xfp16")
    assert precision() == "float32"


def test_what_a_gpu_has_not_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    place.arch = "sm_75"  # float16 alone
    by_name = {task.name: task for task in tasks.plan()}
    assert "skipped" in by_name["correct/fprop/bf16_nhwc"].work(place)
    assert "skipped" in by_name["correct/products/tf32"].work(place)
    assert "skipped" not in by_name["correct/fprop/f16_nhwc"].work(place)
    monkeypatch.setattr(tasks, "half_dtypes", lambda: (np.dtype(np.float16),))
    place.arch = "sm_90a"
    assert "ml_dtypes" in by_name["correct/fprop/bf16"].work(place)["skipped"]


def test_first_slice_writes_everything_down(tmp_path: Path) -> None:
    assert prove(Place(), tmp_path, only=1) == evidence.OK
    written = json.loads((tmp_path / "nvidia-test-100.json").read_text())
    assert written["device"] == {"device": "NVIDIA Test 100"}
    assert set(written["results"]) == {task.name for task in tasks.plan(quick=True) if task.slice == 1}
    one = written["results"]["correct/fprop/direct_any_narrow"]
    assert one["ok"]
    assert one["sources"] == {"conv2d_fprop_direct_any": ledger.source_hashes()["conv2d_fprop_direct_any"]}
    assert list(tmp_path.iterdir()) == [tmp_path / "nvidia-test-100.json"]


def test_fragments_come_first_and_only_where_they_exist(tmp_path: Path) -> None:
    first, *_ = tasks.plan()
    assert first.name == "fragments/ldmatrix"
    assert prove(Place(), tmp_path) == evidence.OK
    written = results(tmp_path)
    assert written["fragments/mma bfloat16"]["words"] > 1000
    assert written["accumulation/float16"]["rounding"] == "toward zero"
    assert written["fragments/mma tf32"]["skipped"] == written["accumulation/tf32"]["skipped"] == "from sm_80 on"


def test_budget_stops_and_the_next_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = {task.name for task in tasks.plan(quick=True)}
    runs = 0
    while True:
        before = set(results(tmp_path)) if runs else set()
        assert prove(Place(), tmp_path, budget=400) == evidence.OK
        runs += 1
        done = set(results(tmp_path))
        assert before < done, "a run within the budget must add something"
        if "; 0 left" in capsys.readouterr().out:
            break
    assert done == everything
    assert runs > 2


def test_what_took_the_gpu_with_it_does_not_keep_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for left in (True, False):
        place = Place(fails="memcheck convert", error=CUDARuntimeError)
        assert prove(place, tmp_path, only=tasks.REST) == evidence.FAILED
        assert place.asked[-1] == "memcheck convert"
        assert ("; 0 left" not in capsys.readouterr().out) == left
    assert len(results(tmp_path)) == sum(task.slice == tasks.REST for task in tasks.plan(quick=True))


def test_a_task_that_does_not_fit_does_not_keep_shorter_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {"long": 300, "short": 5}
    made = [tasks.Task(name, (), 1, seconds, lambda place: {}) for name, seconds in lengths.items()]
    monkeypatch.setattr(tasks, "plan", lambda quick=False: made)
    assert prove(Place(), tmp_path, budget=100) == evidence.OK
    assert set(results(tmp_path)) == {"short"}


def test_what_holds_is_not_proven_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(Place(), tmp_path)
    again = Place()
    prove(again, tmp_path)
    assert again.asked == []
    changed = {**ledger.source_hashes(), "conv2d_fprop_direct": "changed"}
    monkeypatch.setattr(ledger, "source_hashes", lambda: changed)
    prove(again, tmp_path)
    assert "memcheck direct" in again.asked
    assert "peaks" not in again.asked  # about no kernel, so still true


def test_failure_is_written_down_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove(Place(fails="racecheck pool"), tmp_path) == evidence.FAILED
    assert "FAILED sanitizer/racecheck/pool" in capsys.readouterr().out
    assert not results(tmp_path)["sanitizer/racecheck/pool"]["ok"]
    place = Place()
    assert prove(place, tmp_path) == evidence.OK
    assert place.asked == ["racecheck pool"]


def test_a_task_without_memory_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove(Place(fails="racecheck pool", error=MemoryError), tmp_path) == evidence.FAILED  # CuPy's is one
    assert "0 left" in capsys.readouterr().out


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def torch_error(message: str) -> RuntimeError:
    return RuntimeError(f"CUDA error: an illegal memory access was encountered; {message}")


@pytest.mark.parametrize("error", [CUDARuntimeError, torch_error])
def test_error_of_the_gpu_stops_the_run(tmp_path: Path, error: Any) -> None:
    place = Place(fails="memcheck planted", error=error)
    assert prove(place, tmp_path, only=tasks.REST) == evidence.FAILED
    assert place.asked == ["memcheck planted"]


def test_status_says_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(line.endswith("never proven on a GPU") for line in ledger.status(tmp_path))
    full = tasks.plan()
    monkeypatch.setattr(tasks, "plan", lambda quick=False: [task for task in full if task.slice in (1, tasks.REST)])
    prove(Place(), tmp_path)
    assert all(line.endswith(": proven on NVIDIA Test 100") for line in ledger.status(tmp_path))
    changed = {**ledger.source_hashes(), "conv2d_fprop_direct_any": "changed"}
    monkeypatch.setattr(ledger, "source_hashes", lambda: changed)
    lines = ledger.status(tmp_path)
    assert "are older than the sources" in next(line for line in lines if "direct_any" in line)


def test_hash_covers_source_header_instances_and_host_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycnn.jit.sources import Sources

    before = ledger.source_hashes()
    for file in ("common.cuh", "instances.toml"):
        folder = tmp_path / file
        shutil.copytree(installed().folder, folder)
        text = (folder / file).read_text()
        # A comment is a change of a header; of an instance only its constants count.
        (folder / file).write_text(re.sub(r"warps = (\d+)", r"warps = 1\1", text) + "\n")
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "installed", lambda folder=folder: Sources(folder))
            after = ledger.source_hashes()
        assert all(before[kernel] != after[kernel] for kernel in before)


def test_readme_says_what_the_evidence_says() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"{section.BEGIN}\n{section.text(evidence.FOLDER)}{section.END}" in readme


def test_section_is_written_from_the_results(tmp_path: Path) -> None:
    """A device with one kernel's proofs, peaks, a layer with cuDNN beside it, one without, and one operator."""
    book = ledger.Ledger(tmp_path / "gpu.json")
    book.content["device"] = {"device": "GPU 9", "driver": "1.2", "nvrtc": "13.0", "torch": "2.9", "cudnn": "91"}
    hashes = ledger.source_hashes()
    on_cores = {"algo": "one", "ours_us": 100.0}
    products = {"bf16": 700.4, "f32": 50.0}
    measured = {
        "machine/peaks": {"copy_gbytes": 3000.0, "fma_gflops": 60000.0, "gemm_tflops": products},
        "time/n32c64h56_k64r3_pd1": {"algo": "one", "ours_us": 200.0, "gflops": 37000.0, "cudnn_us": 300.0},
        "time/n32c64h56_k64r1": {"algo": "two", "ours_us": 100.0, "gflops": 8000.0, "cudnn_us": None},
        "bandwidth/relu": {"us": 80.0, "gbytes": 2400.0},
        "bandwidth/relu, bfloat16": {"us": 50.0, "gbytes": 1500.0},
        "time/n32c64h56_k64r3_pd1_bf16_nhwc": {**on_cores, "gflops": 1e5, "of_gemm": 0.2, "cudnn_us": 50.0},
        "time/n32c64h56_k64r1_bf16_nhwc": {**on_cores, "gflops": 2e5, "of_gemm": 0.3, "cudnn_us": 150.0},
        "time/n32c64h56_k256r1_bf16_nhwc": {**on_cores, "gflops": 8e5, "of_gemm": 0.6, "cudnn_us": 600.0},
        "time/3xtf32/n32c64h56_k64r1_dgrad": {**on_cores, "gflops": 4e4, "cudnn_us": None},
        "time/3xtf32/n32c64h56_k64r1_nhwc": {**on_cores, "gflops": 6e4, "cudnn_us": 400.0, "cudnn_nchw_us": 170.0},
        "time/tf32/n32c64h56_k64r1": {"skipped": "sm_75 has no such tensor cores"},
        "step/float32": {"ms": 40.0},
        "step/torch float32": {"ms": 64.0},
        "step/torch float32 compiled": {"skipped": "no C compiler"},
    }
    for task in tasks.plan():
        if "max_pool2d_bwd" in task.kernels and not task.name.startswith(("time/", "bandwidth/")):
            book.write(task, hashes, True, {}, 1.0)
    for name, result in measured.items():
        book.write(tasks.Task(name, (), 1, 1, lambda place: {}), hashes, True, result, 1.0)
    said = section.text(tmp_path)
    assert f"5 of {len(hashes)} kernels are proven" in said  # those of pooling
    # 2 * 32 * 64 * 64 * 9 * 56^2 flops at 60 TFLOP/s are 123.3 us; the 1x1 layer's 51 MB at 3 TB/s take 17.1.
    assert "| n32c64h56w56_k64r3s3_st1pd1dl1g1 | one | 200.0 | 37.0 | 123.3 | 300.0 | 1.50 |" in said
    assert "| n32c64h56w56_k64r1s1_st1pd0dl1g1 | two | 100.0 | 8.0 | 17.1 |  |  |" in said
    assert "over these 1 layers, cuDNN's time over ours: 1.50" in said
    assert "| relu | 80.0 | 2400 | 80% |" in said
    assert "| relu, bfloat16 | 50.0 | 1500 | 50% |" in said
    assert "TFLOP/s: bf16 700, f32 50." in said
    # The 3x3 layer by itself; the geometric means of 200 and 800, 0.3 and 0.6, 1.5 and 6.
    assert "| bf16_nhwc | fprop | 3x3, stride 1 | 1 | 100 | 20% | 0.50 |" in said
    assert "| bf16_nhwc | fprop | others | 2 | 400 | 42% | 3.00 |" in said
    assert "| 3xtf32 | dgrad | others | 1 | 40 |  |  |" in said
    assert "| 3xtf32_nhwc | fprop | others | 1 | 60 |  | 1.70 |" in said  # beside the faster of cuDNN's
    assert "| tf32 |" not in said
    assert "| float32 (CUDA graph) | 40.0 | 800 |\n| torch float32 | 64.0 | 500 |\n\n" in said


def test_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="has no section"):
        section.rewrite(tmp_path / "README.md", tmp_path)
    (tmp_path / "README.md").write_text(f"a\n{section.BEGIN}\nold\n{section.END}\nb\n")
    section.rewrite(tmp_path / "README.md", tmp_path)
    expected = f"a\n{section.BEGIN}\nNo GPU has run the kernels yet.\n{section.END}\nb\n"
    assert (tmp_path / "README.md").read_text() == expected


def test_rehearsal_runs_the_real_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    for number in ("1", "2"):
        assert evidence.main(["--device", "sim", "--slice", number, "--out", str(tmp_path)]) == evidence.OK
        assert "0 failed; 0 left" in capsys.readouterr().out
    assert evidence.main(["status", "--out", str(tmp_path)]) == evidence.OK
    assert "never proven on a GPU" in capsys.readouterr().out


def test_without_a_gpu_one_sentence_and_status_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        assert evidence.main(["--out", str(tmp_path)]) == evidence.NO_DEVICE
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "needs an NVIDIA GPU" in said
        assert list(tmp_path.iterdir()) == []
    else:
        pytest.skip("there is a GPU")


def test_budget_that_holds_no_task_says_what_one_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove(Place(), tmp_path, budget=3) == evidence.FAILED
    assert "a budget of 3 s holds no task: the next is given 10 s" in capsys.readouterr().out


def test_interrupt_keeps_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence, "_place", lambda name: Place(fails="memcheck tensor", error=KeyboardInterrupt))
    assert evidence.main(["--slice", "3", "--out", str(tmp_path), "--budget", "1e9"]) == evidence.INTERRUPTED
    assert "interrupted; what was done is written" in capsys.readouterr().err
    written = results(tmp_path)
    assert written.pop("sanitizer/memcheck/tensor")["error"] == "did not end"
    assert [result["ok"] for result in written.values()] == [True]  # the planted bug's, which came first


def test_damaged_evidence_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gpu.json").write_text("{")
    assert evidence.main(["status", "--out", str(tmp_path)]) == evidence.FAILED
    assert "gpu.json is damaged" in capsys.readouterr().err
