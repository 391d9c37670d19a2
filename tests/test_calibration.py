"""Calibration: the problems, the fit, regret, and `pycnn tune` from end to end on tiny sets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pycnn
from pycnn import algorithms, costs, machine, tuning
from pycnn.calibration import shapes, subjects
from pycnn.calibration.fit import fit, non_negative
from pycnn.calibration.measure import Sample, visited
from pycnn.calibration.regret import regret
from pycnn.calibration.subjects import Slice, choice
from pycnn.calibration.tune import calibrate, coefficients_of, measure
from pycnn.cli import main
from pycnn.shape import PASSES, Conv2dShape, Problem

TINY = [
    Problem.parse(text).shape
    for text in ("n1c8h8_k8r3_pd1", "n1c4h9_k6r1", "n2c6h10_k6r3_pd1g6", "n1c3h12_k8r5_st2", "n1c16h6_k16r3_pd1")
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder that is looked into; the threads as found."""
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PYCNN_TUNING")
    monkeypatch.setattr(tuning.use, "lasting", [])
    tuning.forget()
    threads = pycnn.get_num_threads()
    yield tmp_path / "cache"
    pycnn.set_num_threads(threads)
    tuning.forget()


# -------------------------------------------------------------------------------------------------------- the problems


def test_the_problems_are_always_the_same_and_not_shared() -> None:
    first = list(itertools.islice(shapes.calibration(), 120))
    assert first == list(itertools.islice(shapes.calibration(), 120))
    assert str(first[0]) == str(next(shapes.calibration()))
    others = list(itertools.islice(shapes.held_out(), 120))
    assert others == list(itertools.islice(shapes.held_out(0), 120))
    assert len(set(others)) == 120
    assert not set(others) & set(first)
    assert not set(others) & set(itertools.islice(shapes.held_out(1), 120))


def test_the_distribution_is_the_written_one() -> None:
    drawn = list(itertools.islice(shapes.held_out(3), 1500))

    def share(what: list[bool]) -> float:
        return sum(what) / len(what)

    assert {shape.R for shape in drawn} == {1, 3, 5, 7}
    assert all(3 <= channels <= 1024 for shape in drawn if shape.groups == 1 for channels in (shape.C, shape.K))
    assert all(5 <= side <= 224 for shape in drawn for side in (shape.H, shape.W))
    assert {shape.N for shape in drawn} == set(range(1, 17))
    # The limits on work and bytes move the shares; three standard deviations of 1500 draws are 0.04.
    assert share([shape.R == 3 for shape in drawn]) == pytest.approx(0.46, abs=0.06)
    assert share([shape.stride == (2, 2) for shape in drawn]) == pytest.approx(0.2, abs=0.06)
    assert share([shape.dilation == (2, 2) for shape in drawn]) == pytest.approx(0.055, abs=0.04)
    assert share([shape.groups > 1 for shape in drawn]) == pytest.approx(0.125, abs=0.06)
    assert share([shape.H == shape.W for shape in drawn]) == pytest.approx(0.8, abs=0.06)
    assert all(3e4 <= shape.macs <= 2.5e9 and shape.bytes() <= 96e6 for shape in drawn)


def test_every_part_of_the_calibration_has_each_algorithm() -> None:
    problems = list(itertools.islice(shapes.calibration(), 72))
    assert sum(s.R == 3 and s.stride == s.dilation == (1, 1) for s in problems) > 24
    assert sum(s.groups > 1 and s.C == s.K == s.groups for s in problems) >= 12
    for taps, dilation in ((5, 1), (3, 2), (5, 2)):
        what = (taps, (1, 1), (dilation, dilation), 1)
        assert sum((s.R, s.stride, s.dilation, s.groups) == what for s in problems) >= 6


# ------------------------------------------------------------------------------------------------------------- the fit

TRUTH = {"call": 4e-6, "fma": 4e-12, "tile": 8e-9, "copy": 5e-11, "row": 2e-9, "turn": 3e-10, "memory": 2.5e-11}


def counted(count: int, operator: str = "fprop", name: str = "im2col_implicit") -> list[Mapping[str, float]]:
    source = shapes.held_out(11)
    return [costs.work(name, operator, next(source), size=4, isa="avx512", threads=2)[1] for _ in range(count)]


def seconds_of(work: Mapping[str, float], truth: Mapping[str, float] = TRUTH) -> float:
    return sum(truth.get(term, 0.0) * value for term, value in work.items())


def test_known_coefficients_are_recovered() -> None:
    found = fit([(work, seconds_of(work)) for work in counted(120)])
    for term, value in TRUTH.items():
        assert found[term] == pytest.approx(value, rel=0.01), term
    # What costs nothing is found to: at most a thousandth of a call's least.
    assert all(found[term] * max(work[term] for work in counted(120)) < 1e-5 for term in found.keys() - TRUTH.keys())


def test_noise_and_disturbed_samples_do_not_pull() -> None:
    rng = np.random.default_rng(0)
    samples = []
    for number, work in enumerate(counted(240)):
        disturbed = 4.0 if number % 20 == 0 else 1.0
        samples.append((work, seconds_of(work) * float(np.exp(0.05 * rng.standard_normal())) * disturbed))
    found = fit(samples)
    errors = [np.log(seconds_of(work, found) / seconds_of(work)) for work in counted(240)]
    # A sample in twenty is four times as slow, which is 7 % of all if nothing is done about it.
    assert abs(np.median(errors)) < 0.03
    assert np.percentile(np.abs(errors), 90) < 0.08
    assert found["fma"] == pytest.approx(TRUTH["fma"], rel=0.05)


def test_no_coefficient_is_negative() -> None:
    rng = np.random.default_rng(1)
    samples = [({"a": float(i), "b": float(i) + rng.random(), "c": 1.0}, 1.0 + 3.0 * i) for i in range(1, 30)]
    assert all(value >= 0 for value in fit(samples).values())
    assert fit([({"call": 1, "none": 0}, 2.0)]) == {"call": 2.0, "none": 0.0}


def test_non_negative_least_squares_is_at_its_optimum() -> None:
    rng = np.random.default_rng(2)
    for columns in (1, 3, 8):
        for _ in range(20):
            matrix = rng.standard_normal((columns * 3, columns)) + 0.5 * rng.random()
            values = rng.standard_normal(columns * 3)
            found = non_negative(matrix, values)
            slope = matrix.T @ (values - matrix @ found)
            assert (found >= 0).all()
            # Karush-Kuhn-Tucker: no slope where a coefficient is free, none upwards where it is held at zero.
            assert np.abs(slope[found > 0]).max(initial=0.0) < 1e-9
            assert slope[found == 0].max(initial=-1.0) < 1e-9
    dependent = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    assert dependent @ non_negative(dependent, np.array([1.0, 2.0, 3.0])) == pytest.approx([1.0, 2.0, 3.0])
    assert non_negative(np.zeros((2, 0)), np.ones(2)).shape == (0,)


# -------------------------------------------------------------------------------------------------------------- regret


def test_regret_is_the_time_of_the_taken_by_that_of_the_best() -> None:
    times = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}, {"a": 1.1, "b": 1.0}, {"a": 5.0}, {"b": 1.0, "c": 1.0}]
    samples = [Sample(PASSES[i % 3], TINY[0], seconds, seconds) for i, seconds in enumerate(times)]
    samples.append(Sample("fprop", TINY[0], {"a": 9.0, "b": 1.0}, {"a": 20.0, "b": 1.0}))  # not certain
    found = regret(samples, lambda sample: "a")
    assert found is not None
    assert [pick.ratio for pick in found.picks] == pytest.approx([1.5, 1.1, 1.0])  # alone, and without a time: left out
    assert (found.median, found.share) == (pytest.approx(1.1), pytest.approx(2 / 3))
    assert found.total == pytest.approx((1 + 3 + 1.1) / (1 + 2 + 1))
    assert found.of("dgrad").median == 1.5  # type: ignore[union-attr]
    assert found.as_dict()["worst"] == 1.5
    assert regret(samples[3:], lambda sample: "a") is None


# ------------------------------------------------------------------------------------------------------- a calibration


class Played(subjects.Cpu):
    """A machine whose times are those of a table, times noise; now and then somebody else takes a core."""

    def __init__(self, truth: tuning.Table, noise: float = 0.03) -> None:
        super().__init__()
        self.threads = truth.threads
        self.truth, self.noise = truth, noise
        self.rng = np.random.default_rng(0)
        self.turns = 0

    def wait(self) -> None:
        self.turns += 1

    def slices(self, operator: str, shape: Conv2dShape, names: list[str]) -> dict[str, Slice]:
        def slice_of(name: str) -> Slice:
            model, work = costs.work(name, operator, shape, size=4, isa=self.identity.kind, threads=self.threads)
            seconds = self.truth.seconds(operator, tuning.Candidate(name, model, work))
            disturbed = 3.0 if self.turns % 10 == 0 else 1.0
            return lambda turn, untimed: [
                seconds * disturbed * float(np.exp(abs(self.noise * self.rng.standard_normal()))) for _ in range(3)
            ]

        return {name: slice_of(name) for name in names}


def machine_of(**factors: float) -> tuning.Table:
    """Another machine: the package's coefficients, each term's times a factor."""
    own = tuning.own(tuning.of_cpu())
    changed = {
        operator: {
            model: {term: value * factors.get(term, factors.get(model, 1.0)) for term, value in terms.items()}
            for model, terms in models.items()
        }
        for operator, models in own.coefficients.items()
    }
    return replace(own, identity=tuning.of_cpu(), coefficients=changed)


def test_another_machine_is_learned() -> None:
    truth = machine_of(fma=3.0, copy=0.5, memory=4.0, call=2.0, direct=1.5)
    said: list[float] = []
    found = calibrate(
        Played(truth),
        seconds=1e-9,
        progress=lambda share, word: said.append(share),
        calibration=itertools.islice(shapes.calibration(), 200),
        held_out=itertools.islice(shapes.held_out(), 3),
    )
    assert found.problems == 8  # there was no time for more
    assert said[-1] == 1.0
    everything = Played(truth)
    samples = [
        visited(everything, visited(everything, Sample(operator, shape), names, 0.001), names, 0.001)
        for shape in itertools.islice(shapes.calibration(), 120)
        for operator in PASSES
        for names in [everything.works(operator, shape)]
    ]
    learned = tuning.Table(tuning.of_cpu(), 2, coefficients_of(everything, samples, tuning.own(tuning.of_cpu())))
    held = [
        Sample(operator, shape, times, times)
        for shape in itertools.islice(shapes.held_out(), 120)
        for operator in PASSES
        for all_of in [everything.works(operator, shape).items()]
        for times in [{name: truth.seconds(operator, tuning.Candidate(name, *works)) for name, works in all_of}]
    ]

    def share(table: tuning.Table) -> float:
        judged = regret(held, lambda sample: choice(everything, table, sample.operator, sample.shape))
        assert judged is not None
        return judged.share

    assert share(truth) > 0.99  # but for the handicap of tiles with a larger error
    assert share(learned) > 0.96
    assert share(learned) > share(tuning.own(tuning.of_cpu()))


def test_an_algorithm_with_few_samples_keeps_its_coefficients_at_the_machines_pace() -> None:
    subject = Played(machine_of(), noise=0.0)
    own = tuning.own(tuning.of_cpu())
    shape = TINY[0]
    works = subject.works("fprop", shape)
    samples = [
        Sample(
            "fprop",
            shape,
            {name: 2 * own.seconds("fprop", tuning.Candidate(name, *works[name])) for name in ("direct",)},
        )
    ]
    found = coefficients_of(subject, samples, own)
    for model, factor in (("direct", 2.0), ("im2col_implicit", 2.0), ("depthwise", 2.0)):
        for term, value in own.coefficients["fprop"][model].items():
            assert found["fprop"][model][term] == pytest.approx(factor * value, rel=1e-3)
    unknown = replace(own, coefficients={})
    assert coefficients_of(subject, samples, unknown)["fprop"].keys() == {"direct"}


def test_the_slow_are_not_timed_again() -> None:
    calls: list[str] = []

    class Counting(Played):
        def slices(self, operator: str, shape: Conv2dShape, names: list[str]) -> dict[str, Slice]:
            times = {"direct": 1.0, "im2col_implicit": 3.9, "im2col_explicit": 4.1}

            def slice_of(name: str) -> Slice:
                return lambda turn, untimed: [calls.append(name) or times[name]] * 3  # type: ignore[func-returns-value]

            return {name: slice_of(name) for name in names}

    subject = Counting(machine_of())
    sample = visited(subject, Sample("fprop", TINY[3]), ["direct", "im2col_implicit", "im2col_explicit"], 0.001)
    assert sample.seconds == {"direct": 1.0, "im2col_implicit": 3.9, "im2col_explicit": 4.1}
    visited(subject, sample, ["direct", "im2col_implicit", "im2col_explicit"], 0.001)
    assert [calls.count(name) for name in ("direct", "im2col_implicit", "im2col_explicit")] == [4, 4, 2]


def test_turns_are_taken_until_two_agree() -> None:
    class Disturbed(Played):
        times: Mapping[str, Iterator[float]]

        def slices(self, operator: str, shape: Conv2dShape, names: list[str]) -> dict[str, Slice]:
            return {name: lambda turn, untimed, name=name: [next(self.times[name])] * 3 for name in names}  # type: ignore[misc]

    subject = Disturbed(machine_of())
    subject.times = {
        "direct": iter([9.0, 2.0, 3.0, 2.05, 0.0]),
        "im2col_implicit": iter([2.5, 2.4, 0.0]),
        "im2col_explicit": iter([100.0, 3.0, 90.0, 80.0, 70.0, 60.0, 2.9, 4.0, 0.0]),
    }
    sample = visited(subject, Sample("fprop", TINY[0]), list(subject.times), 0.001)
    assert sample.seconds == {"direct": 2.0, "im2col_implicit": 2.4, "im2col_explicit": 3.0}
    assert sample.next_least == {"direct": 2.05, "im2col_implicit": 2.5, "im2col_explicit": 60.0}
    # The last was hopeless by no two of its turns, so it is visited again, and then two agree.
    subject.times = {
        "im2col_explicit": iter([2.9, 4.0, 0.0]),
        "direct": iter([2.0, 2.0]),
        "im2col_implicit": iter([2.4, 2.4]),
    }
    sample = visited(subject, sample, list(subject.times), 0.001)
    assert (sample.seconds["im2col_explicit"], sample.next_least["im2col_explicit"]) == (2.9, 3.0)


def test_a_busy_machine_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([500.0, 500.0, 200.0, 200.0, 200.0, 200.0, 480.0])
    monkeypatch.setattr(subjects._cpu, "measure_fma_peak", lambda: next(rates))
    monkeypatch.setattr(subjects.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(subjects, "_PATIENCE", 1e9)
    subject = subjects.Cpu()
    subject.wait()
    subject.wait()
    assert subject.waits == 0
    subject.wait()
    assert subject.waits == 1
    assert next(rates, None) is None
    monkeypatch.setattr(subjects._cpu, "measure_fma_peak", lambda: 1.0)
    monkeypatch.setattr(subjects, "_PATIENCE", 0.0)
    subject.wait()  # there has been waiting enough
    assert subject.waits == 2


# --------------------------------------------------------------------------------------------------------- the command


def test_tune_calibrates_and_auto_uses_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shapes, "calibration", lambda: iter(TINY))
    monkeypatch.setattr(shapes, "held_out", lambda seed: iter([*TINY[:2], *(replace(shape, N=3) for shape in TINY)]))
    assert main(["tune", "--seconds", "0.3", "--threads", "2"]) == 0
    said = capsys.readouterr().out
    path = tuning.path_of(tuning.of_cpu())
    assert "2 threads" in said
    assert "calibrated on 5 problems" in said
    assert "within 1.15x" in said
    assert f"kept in {path}; auto uses it from now on" in said
    table = tuning.in_force(tuning.of_cpu())
    assert table.source == str(path)
    assert table.threads == 2
    assert table.report["problems"] == 5
    assert 0 <= table.report["regret"]["all"]["share within 1.15"] <= 1
    assert [file.name for file in folder.iterdir()] == [path.name]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in (TINY[0].x_shape, TINY[0].w_shape))
    taken = algorithms.choose("fprop", TINY[0], "float32")[0]
    assert np.array_equal(pycnn.conv2d(x, w, padding=1), pycnn.conv2d(x, w, padding=1, algo=taken))
    assert main(["tune", "--show"]) == 0
    assert f"table {table.name} from {path}" in capsys.readouterr().out
    assert main(["tune", "--forget"]) == 0
    assert f"removed {path}" in capsys.readouterr().out
    assert tuning.in_force(tuning.of_cpu()).source == "the package"
    assert main(["tune", "--forget"]) == 0
    assert "there is no" in capsys.readouterr().out


def test_tune_measures_single_problems_and_auto_takes_the_winners(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--problem", "n1c8h8_k8r3_pd1_dgrad", "--problem", "n1c4h9_k6r1", "--passes", "fprop"]) == 0
    said = capsys.readouterr().out
    assert "dgrad n1c8h8w8_k8r3s3_st1pd1dl1g1: " in said
    table = tuning.in_force(tuning.of_cpu())
    assert table.coefficients == tuning.own(tuning.of_cpu()).coefficients
    assert table.measured.keys() == {"n1c8h8w8_k8r3s3_st1pd1dl1g1_dgrad", "n1c4h9w9_k6r1s1_st1pd0dl1g1"}
    times = table.measured["n1c8h8w8_k8r3s3_st1pd1dl1g1_dgrad"]
    assert times.keys() == {
        name for name, reason in algorithms.candidates("dgrad", TINY[0], "float32") if reason is None
    }
    name, why = algorithms.choose("dgrad", TINY[0], "float32")
    assert name == min(times, key=times.__getitem__)
    assert f"on this very problem, the least of {len(times)}" in why
    assert main(["tune", "--problem", "n1c4h9_k6r1_wgrad"]) == 0  # adds to what is there
    assert len(tuning.in_force(tuning.of_cpu()).measured) == 3
    assert main(["explain", "n1c8h8_k8r3_pd1_dgrad", "--backend", "cpu"]) == 0
    assert f"auto takes {name}: measured" in capsys.readouterr().out


def test_tune_measures_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.json"
    assert main(["tune", "lenet5", "--batch", "2", "--passes", "fprop", "--out", str(file)]) == 0
    assert f"written to {file}; PYCNN_TUNING={file} has auto use it" in capsys.readouterr().out
    assert [key[:4] for key in json.loads(file.read_text())["measured"]] == ["n2c1", "n2c6"]
    assert tuning.in_force(tuning.of_cpu()).source == "the package"
    with tuning.use(file):
        assert "on this very problem" in algorithms.choose("fprop", Problem.parse("n2c1h32_k6r5").shape, "float32")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "nonsense"], "not a problem string"),
        (["--problem", "n1c4h9_k6r1_f16"], "float32 in NCHW is measured, got float16"),
        (["--problem", "n0c4h9_k6r1"], "there is nothing to measure"),
        (["--passes", "forward"], "--passes must be among fprop, dgrad, wgrad"),
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--threads", "5000"], "n must be at most 1024"),
        (["nonesuch"], "nonesuch"),
        (["--out", "/no/such/folder/table.json"], "there is no folder /no/such/folder for --out"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_interrupted_tune_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pycnn.calibration.tune.visited", interrupted)
    assert main(["tune", "--quick"]) == 130
    assert list(folder.iterdir()) == []


def test_times_of_a_problem_are_measured_for_every_algorithm() -> None:
    subject = subjects.Cpu()
    assert subject.threads == machine.get_num_threads()
    times = measure(subject, [("wgrad", TINY[0]), ("fprop", TINY[2])])
    for each, (operator, shape) in zip(times.values(), (("wgrad", TINY[0]), ("fprop", TINY[2])), strict=True):
        assert sorted(each) == sorted(subject.able(operator, shape))
    assert all(0 < seconds < 1 for each in times.values() for seconds in each.values())
