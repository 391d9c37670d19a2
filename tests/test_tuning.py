"""Tables: what they predict, where they come from, what is refused; and the choice by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pycnn
from pycnn import algorithms, backends, checkpoint, tuning
from pycnn.backends import cpu
from pycnn.cli import main
from pycnn.machine import ISAS
from pycnn.shape import PASSES, Conv2dShape, Problem
from pycnn.testing import problems

LAYER = Problem.parse("n1c32h14_k32r3_pd1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder that is looked into."""
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PYCNN_TUNING")
    monkeypatch.setattr(tuning.use, "lasting", [])
    (tmp_path / "cache").mkdir()
    tuning.forget()
    yield tmp_path / "cache"
    tuning.forget()


def here() -> tuning.Table:
    """The table in force."""
    return tuning.in_force(tuning.of_cpu())


def favouring(name: str, **values: object) -> tuning.Table:
    """A table of this machine by which `name` always takes least."""
    models = {
        "depthwise",
        *(each for operator in PASSES for each, _ in algorithms.candidates(operator, LAYER.shape, "float32")),
    }
    call = {model: {"call": 1.0 if model == name else 2.0} for model in models}
    return replace(
        tuning.Table(tuning.of_cpu(), 2, dict.fromkeys(PASSES, call)),
        **values,  # type: ignore[arg-type]
    )


def chosen(operator: str = "fprop", problem: Problem = LAYER) -> str:
    return algorithms.choose(operator, problem.shape, problem.dtype)[0]


# ---------------------------------------------------------------------------------------------------------- the choice


def test_the_least_is_taken_and_the_next_is_named() -> None:
    with tuning.use(favouring("im2col_implicit")):
        name, why = algorithms.choose("fprop", LAYER.shape, "float32")
        assert name == "im2col_implicit"
        assert why == "predicted 1e+03 ms, the least; next is direct with 2e+03 ms"
        assert cpu.conv2d_choose("fprop", LAYER.shape, np.float32) == (name, why)
        assert cpu.conv2d_predicted("fprop", LAYER.shape, np.float32)["direct"] == 2.0


def test_what_is_taken_is_what_runs() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in (LAYER.shape.x_shape, LAYER.shape.w_shape))
    for name in ("direct", "im2col_explicit", "winograd_f6x6_3x3", "winograd_f2x2_3x3"):
        with tuning.use(favouring(name)):
            assert np.array_equal(pycnn.conv2d(x, w, padding=1), pycnn.conv2d(x, w, padding=1, algo=name)), name


def test_a_family_stands_for_its_least() -> None:
    with tuning.use(favouring("im2col_explicit")):
        assert algorithms.resolve("im2col", "wgrad", LAYER.shape, "float32") == "im2col_explicit"
        assert algorithms.resolve("direct", "wgrad", LAYER.shape, "float32") == "direct"


@pytest.mark.parametrize("isa", [isa for isa in ISAS if pycnn._cpu.isa_supported(isa)])  # type: ignore[attr-defined]
def test_the_choice_does_not_depend_on_the_number_of_threads(isa: str) -> None:
    cases = [(operator, problem) for operator in PASSES for problem in problems()]
    try:
        pycnn.set_isa(isa)
        taken = []
        for threads in (1, 2, 3, 7):
            pycnn.set_num_threads(threads)
            taken.append([algorithms.choose(operator, p.shape, "float32") for operator, p in cases])
        assert taken[0] == taken[1] == taken[2] == taken[3]
    finally:
        pycnn.set_isa("auto")
        pycnn.set_num_threads(0)


def test_every_problem_gets_something_able() -> None:
    for operator in PASSES:
        for problem in problems():
            for dtype in ("float32", "float64"):
                name, why = algorithms.choose(operator, problem.shape, dtype)
                assert dict(algorithms.candidates(operator, problem.shape, dtype))[name] is None
                assert why


def test_strict_accuracy_takes_no_larger_tile_however_fast() -> None:
    table = favouring("winograd_f4x4_3x3", measured={str(LAYER): {"winograd_f6x6_3x3": 1e-6, "direct": 1.0}})
    with tuning.use(table), pycnn.use_accuracy("strict"):
        assert chosen() == "direct"
        assert "strict accuracy allows the smallest tile alone" in algorithms.choose("fprop", LAYER.shape, "float32")[1]
        assert chosen("dgrad") != "winograd_f4x4_3x3"


def test_a_tile_that_is_hardly_faster_is_not_worth_its_error() -> None:
    def table(seconds: float) -> tuning.Table:
        base = favouring("direct")
        models = {**base.coefficients["fprop"], "winograd_f6x6_3x3": {"call": seconds}}
        return replace(base, coefficients={**base.coefficients, "fprop": models})

    limit = 1 / algorithms.HANDICAPS[8]
    with tuning.use(table(limit * 0.999)):
        assert chosen() == "winograd_f6x6_3x3"
    with tuning.use(table(limit * 1.001)):
        name, why = algorithms.choose("fprop", LAYER.shape, "float32")
        assert name == "direct"
        assert "winograd_f6x6_3x3's 944 ms are too little less for its larger error" in why


def test_columns_that_would_fill_memory_are_left_to_those_who_ask_for_them() -> None:
    large = Problem.parse("n1c64h224_k8r7_pd3").shape  # 600 MiB of columns
    with tuning.use(favouring("im2col_explicit")):
        assert algorithms.choose("fprop", large, "float32")[0] == "direct"
        assert algorithms.resolve("im2col_explicit", "fprop", large, "float32") == "im2col_explicit"
        assert "its columns would take 600 MiB" in str(algorithms.spared("im2col_explicit", "fprop", large, "float32"))


def test_an_empty_batch_takes_anything() -> None:
    empty = Conv2dShape(0, 4, 9, 9, 4, 3, 3)
    assert "empty batch" in algorithms.choose("fprop", empty, "float32")[1]
    assert algorithms.predicted("fprop", empty, "float32") == {}


def test_an_unknown_algorithm_is_never_the_least() -> None:
    with tuning.use(tuning.Table(tuning.of_cpu(), 2, {"fprop": {"im2col_implicit": {"call": 9.0}}})):
        assert chosen() == "im2col_implicit"
        assert chosen("wgrad") == "direct"  # nothing is known: the first


# -------------------------------------------------------------------------------------------------- measured problems


def test_measured_winners_are_obeyed() -> None:
    table = favouring(
        "direct", measured={str(LAYER): {"direct": 3e-5, "im2col_explicit": 2e-5, "im2col_implicit": 4e-5}}
    )
    with tuning.use(table):
        name, why = algorithms.choose("fprop", LAYER.shape, "float32")
        assert name == "im2col_explicit"
        assert why == "measured 20 us on this very problem, the least of 3"
        assert chosen("dgrad") == "direct"
        assert algorithms.choose("fprop", LAYER.shape, "float64")[0] == "direct"
        assert chosen("fprop", Problem.parse("n2c32h14_k32r3_pd1")) == "direct"


def test_a_measured_winner_that_cannot_run_is_refused_in_words() -> None:
    strided = Problem.parse("n1c32h14_k32r3_st2pd1")
    table = favouring(
        "direct", measured={str(strided): {"winograd_f4x4_3x3": 1e-6, "im2col_implicit": 2e-5, "fft": 1e-7}}
    )
    with tuning.use(table):
        name, why = algorithms.choose("fprop", strided.shape, "float32")
    assert name == "im2col_implicit"
    assert "fft's 0.1 us are not to be had: it cannot run here" in why
    table = replace(table, measured={str(strided): {"winograd_f4x4_3x3": 1e-6}})
    with tuning.use(table):
        assert chosen("fprop", strided) == "direct"


# ---------------------------------------------------------------------------------------------- where tables come from


@pytest.mark.parametrize("isa", ISAS)
def test_the_package_has_a_table_for_each_instruction_set(isa: str) -> None:
    table = tuning.in_force(tuning.of_cpu(isa))
    assert table.source == "the package"
    assert table.identity[:2] == ("cpu", isa)
    assert table.calibrated
    assert {"direct", "depthwise", "im2col_implicit", "im2col_explicit"} < table.coefficients["wgrad"].keys()


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    table = replace(here(), measured={str(LAYER): {"direct": 1.25e-05}}, report={"problems": 3})
    tuning.save(table, tmp_path / "table.json")
    read = tuning.load(tmp_path / "table.json")
    assert read.as_dict() == table.as_dict()
    assert read.name == table.name != here().name
    assert read.source == str(tmp_path / "table.json")
    assert os.listdir(tmp_path / "cache") == []


def test_use_ends_with_its_block_and_lasts_without_one(tmp_path: Path) -> None:
    table = favouring("direct")
    tuning.save(table, tmp_path / "table.json")
    with tuning.use(tmp_path / "table.json"):
        assert here().name == table.name
        with tuning.use("off"):
            assert here().source == "the package"
        with tuning.use(replace(table, identity=table.identity._replace(kind="elsewhere"))):
            assert here().source == "the package"  # it is for another instruction set
    assert here().source == "the package"
    tuning.use(table)
    assert here() is table
    tuning.use("auto")
    assert here().source == "the package"


def test_what_is_given_to_use_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no two for the same"):
        tuning.use(favouring("direct"), favouring("im2col_implicit"))
    with pytest.raises(ValueError, match="one table at least"):
        tuning.use()
    with pytest.raises(FileNotFoundError):
        tuning.use(tmp_path / "none.json")
    assert tuning.use.lasting == []


def test_the_environment_names_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    tuning.save(favouring("im2col_implicit"), tmp_path / "table.json")
    tuning.save(favouring("direct"), tuning.path_of(tuning.of_cpu()))
    monkeypatch.setenv("PYCNN_TUNING", str(tmp_path / "table.json"))
    assert chosen() == "im2col_implicit"
    monkeypatch.setenv("PYCNN_TUNING", "off")
    assert chosen() == "im2col_implicit"  # it is looked at once
    tuning.forget()
    assert here().source == "the package"
    monkeypatch.setenv("PYCNN_TUNING", "")
    tuning.forget()
    assert chosen() == "direct"
    for content, words in ((None, "No such file"), ("{", "is no tuning table")):
        file = tmp_path / "other.json"
        if content is not None:
            file.write_text(content)
        monkeypatch.setenv("PYCNN_TUNING", str(file))
        tuning.forget()
        with pytest.raises(ValueError, match=f"PYCNN_TUNING must be off or a file .*{words}"):
            chosen()


def test_what_tune_kept_is_used(folder: Path) -> None:
    path = tuning.path_of(tuning.of_cpu())
    assert path.parent == folder
    assert here().source == "the package"
    tuning.save(favouring("im2col_implicit"), path)
    tuning.forget()
    assert here().source == str(path)
    assert chosen() == "im2col_implicit"
    with tuning.use("off"):
        assert here().source == "the package"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"format": "pycnn-tuning-9"}',
        b'{"format": "pycnn-tuning-1", "identity": {}}',
    ],
)
def test_a_corrupt_file_is_ignored_with_one_warning(content: bytes, folder: Path) -> None:
    tuning.path_of(tuning.of_cpu()).write_bytes(content)
    with pytest.warns(UserWarning, match="ignored, `pycnn tune` writes it anew: .* is no tuning table"):
        assert here().source == "the package"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert here().source == "the package"
        chosen()


@pytest.mark.parametrize("field", ["engine", "device", "cores"])
def test_a_stale_file_is_ignored_with_one_warning(field: str, folder: Path) -> None:
    other = replace(favouring("direct"), identity=tuning.of_cpu()._replace(**{field: "0" if field != "cores" else 999}))
    tuning.save(other, tuning.path_of(tuning.of_cpu()))
    with pytest.warns(UserWarning, match="another build of the engine"):
        assert here().source == "the package"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("coefficients", "fprop", "direct", "call"), -1.0, "must be a number of seconds, at least 0, got -1.0"),
        (("coefficients", "fprop", "direct", "call"), float("nan"), "must be a number of seconds"),
        (("coefficients", "fprop", "direct", "call"), "1", "must be a number of seconds"),
        (("coefficients", "forward"), {}, "not 'forward'"),
        (("coefficients",), 3, "AttributeError"),
        (("measured", "n1"), {"direct": 1.0}, "not a problem string"),
        (("measured", "n1c1h3_k1r1"), {"direct": 1.0}, "not in its own form"),
        (("measured", str(LAYER)), {"direct": True}, "must be a number of seconds"),
        (("threads",), 0, "threads must be"),
        (("identity", "backend"), "tpu", "backend must be one of cpu, cuda, got 'tpu'"),
        (("identity", "more"), 1, "TypeError"),
        (("format",), "pycnn-tuning-2", "its format is 'pycnn-tuning-2'"),
    ],
)
def test_a_table_that_is_none_is_refused_in_words(
    path: tuple[str, ...], value: object, words: str, tmp_path: Path
) -> None:
    values = json.loads(json.dumps(here().as_dict()))
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "table.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is no tuning table") as refused:
        tuning.load(file)
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


def test_import_reads_no_table_and_a_choice_reads_one() -> None:
    code = (
        "import builtins, io, pathlib, sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import pycnn, numpy as np\n"
        "assert not [f for f in opened if f.endswith('.json')], opened\n"
        "x, w = np.zeros((1, 4, 9, 9), np.float32), np.zeros((4, 4, 3, 3), np.float32)\n"
        "opened.clear()\n"
        "for _ in range(3): pycnn.conv2d(x, w)\n"
        "print([f for f in opened if f.endswith('.json')])\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYCNN_TUNING": "off",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (file,) = eval(done.stdout)
    assert Path(file).parent.name == "tables"


# --------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_brings_its_tables(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    table = favouring("im2col_implicit", measured={str(LAYER): {"direct": 1e-6, "im2col_implicit": 1e-5}})
    with tuning.use(table):
        checkpoint.save(tmp_path / "run", {})
    assert here().source == "the package"
    checkpoint.restore(tmp_path / "run", {})
    assert here().name == table.name
    assert chosen() == "direct"
    assert chosen("dgrad") == "im2col_implicit"


def test_a_checkpoint_of_the_same_tables_sets_none(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    checkpoint.save(tmp_path / "run", {})
    checkpoint.restore(tmp_path / "run", {})
    assert tuning.use.lasting == []


# ------------------------------------------------------------------------------------------------------------- explain


def test_explain_shows_times_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    measured = {str(replace(LAYER, operator="dgrad")): {"direct": 3e-5, "winograd_f2x2_3x3": 2e-5}}
    with tuning.use(favouring("im2col_implicit", measured=measured)):
        assert main(["explain", str(LAYER.shape), "--backend", "cpu"]) == 0
    fprop, dgrad, _, told = capsys.readouterr().out.split("\n\n")
    assert "auto takes im2col_implicit: predicted 1e+03 ms, the least" in fprop
    assert "measured" not in fprop
    assert "winograd_f3x3_4x4 computes the filter gradient only" in fprop
    assert "auto takes winograd_f2x2_3x3: measured 20 us on this very problem, the least of 2" in dgrad
    assert "predicted  measured" in dgrad
    assert told.startswith("times: memory, measured on ")


def test_explain_names_what_strict_accuracy_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(LAYER.shape), "--backend", "cpu", "--accuracy", "strict"]) == 0
    assert capsys.readouterr().out.count("strict accuracy allows the smallest tile alone") == 6


def test_backends_agree_on_the_interface() -> None:
    for name in ("cpu", "cuda"):
        module = backends.get(name)
        assert callable(module.conv2d_choose)
