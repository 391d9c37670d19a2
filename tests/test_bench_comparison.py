"""The comparison with other engines: which cells there are, who counts as the best, what is kept, what is printed."""

import importlib.util
import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bench_peers import FAKES, Exact

from benchmarks import peers as readme
from pycnn import algorithms, models
from pycnn.bench import training
from pycnn.bench.comparison import assignments, field
from pycnn.bench.comparison.cells import LAYERS, NETWORKS, SECTIONS, Cell, cells, of_problem
from pycnn.bench.comparison.field import Field
from pycnn.bench.comparison.page import draw, render
from pycnn.bench.comparison.results import Comparison, Outcome, Score, contestants, standings
from pycnn.bench.machine import Machine
from pycnn.bench.peers import find_peers
from pycnn.bench.peers.own import OWN, Eager
from pycnn.bench.tasks import WEIGHTS, fill
from pycnn.bench.timing import Timing
from pycnn.cli import main
from pycnn.shape import PASSES, Problem

MACHINE = Machine("a <fast> one", 2, 2, "avx512", 2e11, 4e10, {"pycnn": "0"})
SMALL = Problem.parse("n2c4h8_k6r3_pd1_small")

# -- cells -------------------------------------------------------------------------------------------------------


def test_every_layer_is_there_in_every_pass_and_batch():
    found = cells(PASSES, (1, 8))
    assert len(found) == len(set(map(str, found))) == 2 * 3 * len(LAYERS)
    assert {(cell.section, cell.batch) for cell in found} == {(name, n) for name in PASSES for n in (1, 8)}
    assert all(cell.batch == cell.problem.shape.N and cell.problem.operator == cell.section for cell in found)


def test_networks_have_their_own_batches():
    assert [(cell.name, cell.batch) for cell in cells(["inference"], (3,))] == [(name, 3) for name in NETWORKS]
    steps = {cell.name: cell.batch for cell in cells(["training"], (3,))}
    assert steps == {"lenet5": 64, "alexnet": 8, "vgg16": 8, "googlenet": 8, "resnet50": 8}
    assert [str(cell) for cell in cells(["first", "memory"], (3,))] == ["first resnet50 b1", "memory vgg16 b1"]


def test_words_and_problems_narrow():
    assert [str(cell) for cell in cells(SECTIONS, (8,), ["vgg6", "inference alex"])] == [
        *("fprop vgg6 b8", "dgrad vgg6 b8", "wgrad vgg6 b8", "inference alexnet b8")
    ]
    (cell,) = cells(("wgrad", "inference"), (8,), problems=[SMALL])
    assert (str(cell), str(cell.problem)) == ("wgrad small b2", "n2c4h8w8_k6r3s3_st1pd1dl1g1_wgrad_small")
    one = Problem.parse("n1c2h4_k2r1_wgrad_one")  # which names its pass
    assert [str(cell) for cell in cells(PASSES, problems=[SMALL, one])] == [
        *("fprop small b2", "dgrad small b2", "wgrad small b2", "wgrad one b1")
    ]
    assert of_problem(Problem.parse("n1c2h4_k2r1"), "fprop").name == "n1c2h4w4_k2r1s1_st1pd0dl1g1"


def test_what_is_no_cell_is_refused():
    with pytest.raises(ValueError, match=r"cells must be among fprop, .*memory, got 'speed'"):
        cells(["speed"])
    with pytest.raises(ValueError, match="no cell of fprop with 'vgg99' in its name"):
        cells(["fprop"], words=["vgg99"])
    with pytest.raises(ValueError, match="no cell of inference for problems"):
        cells(["inference"], problems=[SMALL])
    with pytest.raises(ValueError, match="float32 in NCHW"):
        cells(["fprop"], problems=[Problem.parse("n1c2h4_k2r1_f64")])


# -- standings ---------------------------------------------------------------------------------------------------


def score(name, seconds, ours=False, counts=True, note=""):
    timing = None if seconds is None else Timing(seconds, 0.9 * seconds, 1.1 * seconds, 5)
    return Score(name, ours, timing, 1e-6, counts, note)


def outcome(section, name, *scores, batch=1):
    return Outcome(section, name, batch, "problem", 10**9, "direct", [1.9e11, 1.8e11], "2026-01-01", list(scores))


AHEAD = outcome("fprop", "one", score("pycnn", 3.0, True), score("pycnn_compiled", 2.0, True), score("torch", 8.0))
BEHIND = outcome("fprop", "two", score("pycnn", 4.0, True), score("torch", 5.0), score("ncnn", 1.0))
INEXACT = outcome("wgrad", "two", score("pycnn", 4.0, True), score("torch", 5.0), score("mnn", 1.0, counts=False))
LONELY = outcome("dgrad", "two", score("pycnn", 4.0, True), score("torch", None, note="torch <died>", counts=False))


def test_the_best_of_ours_meets_the_best_peer_that_counts():
    assert (AHEAD.ratio, AHEAD.ours.name, AHEAD.best.name) == (4.0, "pycnn_compiled", "torch")
    assert (BEHIND.ratio, BEHIND.best.name) == (0.25, "ncnn")
    assert (INEXACT.ratio, INEXACT.best.name) == (1.25, "torch")
    assert (LONELY.ratio, LONELY.best) == (None, None)
    wrong = outcome("fprop", "bad", score("pycnn", 1.0, True, counts=False), score("torch", 2.0))
    assert (wrong.ratio, wrong.ours) == (None, None)


def test_a_section_ends_with_its_geometric_mean():
    first, second = standings([AHEAD, BEHIND, INEXACT, LONELY])
    assert (first.section, first.cells, first.ahead, first.worst) == ("fprop", 2, 1, BEHIND)
    assert first.mean == pytest.approx(1.0)  # of 4 and a quarter
    assert (second.section, second.mean, second.ahead) == ("wgrad", pytest.approx(1.25), 1)
    assert standings([LONELY]) == []


def test_ours_stand_first_among_the_contestants():
    late = outcome("fprop", "three", score("ncnn", 1.0), score("pycnn", 1.0, True))
    assert contestants([late, AHEAD]) == ["pycnn", "pycnn_compiled", "ncnn", "torch"]


def test_a_layers_share_of_the_peak_counts_the_direct_form():
    assert AHEAD.share(1e9) == 10**9 / 2.0 / 1e9
    assert LONELY.share(1e9) == 0.25
    assert outcome("fprop", "none", score("torch", 1.0)).share(1e9) is None
    assert replace(AHEAD, problem="").share(1e9) is None  # a network


def test_memory_is_read_in_mebibytes():
    memory = outcome("memory", "vgg16", score("pycnn", 3 * 2.0**20, True))
    assert (memory.unit, memory.shown(memory.ours)) == ("MiB", "3.00")
    assert [AHEAD.shown(score("", seconds)) for seconds in (2e-5, 2e-3, 0.2)] == ["0.020", "2.00", "200.0"]


# -- the file ----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(tmp_path):
    comparison = Comparison(MACHINE, {"torch": "2"}, [AHEAD, INEXACT, LONELY])
    comparison.save(tmp_path / "peers.json")
    assert Comparison.load(tmp_path / "peers.json") == comparison
    assert [file.name for file in tmp_path.iterdir()] == ["peers.json"]


def test_later_cells_replace_earlier_ones_in_their_place():
    earlier = Comparison(MACHINE, {"torch": "1", "ncnn": "1"}, [AHEAD, BEHIND])
    again = replace(AHEAD, algo="winograd")
    later = Comparison(replace(MACHINE, fma_peak=1.0), {"torch": "2"}, [INEXACT, again])
    both = later.merged(earlier)
    assert both.outcomes == [again, BEHIND, INEXACT]
    assert (both.versions, both.machine) == ({"torch": "2", "ncnn": "1"}, later.machine)


@pytest.mark.parametrize(("what", "value"), [("processor", "a slow one"), ("isa", "avx2"), ("threads", 1)])
def test_cells_of_another_machine_are_not_mixed(what, value):
    earlier = Comparison(replace(MACHINE, **{what: value}), {}, [AHEAD])
    with pytest.raises(ValueError, match=rf"the cells so far are of {what} {value}, .*choose another --out"):
        Comparison(MACHINE, {}, []).merged(earlier)


@pytest.mark.parametrize("text", ["{", "{}", '{"machine": {}, "versions": {}, "outcomes": []}', "[]"])
def test_a_file_that_holds_something_else_is_refused(tmp_path, text):
    (tmp_path / "peers.json").write_text(text)
    with pytest.raises(ValueError, match=r"peers.json holds no comparison"):
        Comparison.load(tmp_path / "peers.json")


# -- the race ----------------------------------------------------------------------------------------------------


@pytest.fixture
def calm(monkeypatch):
    """A machine on which nobody else is at work."""
    monkeypatch.setattr(field, "_probe", lambda: 1e11)


def race(*fakes, cell=None, seconds=1e-3):
    with Field({"pycnn": Eager}, {name: FAKES[name] for name in fakes}, 1, 1e11) as racing:
        return racing.measure(cell or of_problem(SMALL, "fprop"), seconds)


@pytest.mark.usefixtures("calm")
def test_who_is_right_counts_and_who_is_not_is_shown():
    result = race("exact", "inexact")
    ours, exact, inexact = result.scores
    assert (ours.ours, ours.counts, exact.ours, exact.counts) == (True, True, False, True)
    assert 0 < ours.error < 1e-6  # sums of 36 products
    assert all(score.timing is not None and score.timing.runs >= 5 for score in result.scores)
    assert (inexact.counts, inexact.note) == (False, "error 2.0e-03")
    assert result.best == exact
    assert result.ratio == exact.median / ours.median
    assert result.probe == [1e11] * field.ROUNDS
    assert (result.key, result.problem) == ("fprop small b2", "n2c4h8w8_k6r3s3_st1pd1dl1g1")
    assert (result.flops, result.algo) == (SMALL.shape.flops, algorithms.choose("fprop", SMALL.shape, "float32")[0])


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    ("fake", "note"),
    [
        ("misshapen", "wrong: a result of shape (2, 6, 8, 7) in place of (2, 6, 8, 8)"),
        ("endless", "wrong: a result that is not finite"),
        ("dying", "the process of dying ended (SIGKILL) when asked to compute"),
        ("unable", "unable could not start: RuntimeError: no such machine"),
        ("tiring", "tiring could not time: RuntimeError: enough"),
    ],
)
def test_one_that_fails_is_told_so_and_stops_nobody(fake, note):
    result = race(fake, "exact")
    ours, failed, exact = result.scores
    assert (failed.name, failed.timing, failed.counts, failed.note) == (fake, None, False, note)
    assert (ours.counts, result.best) == (True, exact)


@pytest.mark.usefixtures("calm")
def test_one_that_cannot_do_it_has_no_score():
    assert [score.name for score in race("idle", "exact").scores] == ["pycnn", "exact"]


@pytest.mark.usefixtures("calm")
def test_one_that_fails_at_a_first_call_is_not_asked_again(monkeypatch):
    visits = []
    real = field.PeerProcess

    def spy(name, *rest):
        visits.append(name)
        return real(name, *rest)

    monkeypatch.setattr(field, "PeerProcess", spy)
    with Field({"pycnn_compiled": OWN["pycnn_compiled"]}, {"unable": FAKES["unable"]}, 1, 1e11) as racing:
        ours, unable = racing.measure(Cell("first", "lenet5", 1)).scores
    assert (ours.counts, ours.timing.runs) == (True, 3)
    assert (unable.timing, unable.note) == (None, "unable could not start: RuntimeError: no such machine")
    assert visits == ["pycnn_compiled", "unable", "pycnn_compiled", "pycnn_compiled"]


@pytest.mark.usefixtures("calm")
def test_one_that_failed_starts_anew_with_the_next_cell(tmp_path):
    seen = []
    with Field({}, {"dying": FAKES["dying"], "exact": Exact}, 1, 1e11) as racing:
        for _ in range(2):
            racing.measure(of_problem(SMALL, "fprop"), 1e-3)
            seen.append({name: process._process.pid for name, process in racing._processes.items()})
    assert seen[0] == seen[1]  # who lives goes on
    assert list(seen[0]) == ["exact"]


@pytest.mark.usefixtures("calm")
def test_a_peer_has_the_environment_that_serves_it():
    with Field({}, {"settled": FAKES["settled"]}, 1, 1e11) as racing:
        (settled,) = racing.measure(of_problem(SMALL, "fprop"), 1e-3).scores
    assert settled.counts


@pytest.mark.usefixtures("calm")
def test_ours_is_held_to_its_own_bound():
    with Field({"inexact": FAKES["inexact"]}, {"exact": Exact}, 1, 1e11) as racing:
        result = racing.measure(of_problem(SMALL, "fprop"), 1e-3)
    assert (result.ours, result.ratio) == (None, None)
    with Field({"rounded": FAKES["rounded"]}, {"exact": Exact}, 1, 1e11) as racing:
        result = racing.measure(of_problem(SMALL, "fprop"), 1e-3)
    assert result.scores[0].note == "error 5.0e-04"  # which a peer would be forgiven


@pytest.fixture
def races(monkeypatch):
    """What the next races find: the probe, then seconds and spread of "pycnn" and of "exact"; how many were run."""
    probes, run = [], []

    def plan(*planned):
        def fake(racers, seconds, rounds, between):
            probe, *figures = planned[len(run)]
            run.append(seconds)
            probes[:] = [probe] * rounds
            for _ in range(rounds):
                between()
            return {
                racer.name: Timing(figure, figure * (1 - spread), figure * (1 + spread), rounds)
                for racer, (figure, spread) in zip(racers, figures, strict=True)
            }

        monkeypatch.setattr(field, "race", fake)
        return run

    monkeypatch.setattr(field, "_probe", lambda: probes[0])
    return plan


def test_a_calm_race_is_run_once(races):
    run = races((9.5e10, (2.0, 0.1), (3.0, 0.2)))
    result = race("exact")
    assert (len(run), result.ratio, result.probe) == (1, 1.5, [9.5e10] * 5)


def test_a_race_that_somebody_disturbed_is_run_again_and_each_ones_fastest_counts(races):
    run = races((6e10, (2.0, 0.1), (4.0, 0.1)), (8e10, (3.0, 0.1), (3.0, 0.1)), (7e10, (4.0, 0.1), (5.0, 0.1)), ())
    result = race("exact")
    assert (len(run), result.ratio, result.probe) == (3, 1.5, [8e10] * 5)


def test_a_contestant_that_was_disturbed_has_everybody_race_again(races):
    run = races((1e11, (2.0, 0.1), (9.0, 0.5)), (1e11, (2.5, 0.1), (3.0, 0.1)), ())
    assert (race("exact").ratio, len(run)) == (1.5, 2)


def test_a_network_has_five_times_a_layers_seconds(races):
    run = races((1e11, (2.0, 0.1)))
    race(cell=Cell("inference", "lenet5", 1), seconds=0.25)
    assert run == [1.25]


# -- assignments -------------------------------------------------------------------------------------------------


def test_weights_are_the_same_every_time_and_fill_any_state(tmp_path):
    model = models.create("resnet20")
    weights = assignments.he_weights(model)
    assert {key: value.shape for key, value in weights.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert all(np.array_equal(value, weights[key]) for key, value in assignments.he_weights(model).items())
    assert weights["bn1.running_var"].min() >= 0.5
    assert weights["layer1.0.conv1.weight"].std() == pytest.approx((2 / 144) ** 0.5, rel=0.05)
    with open(tmp_path / WEIGHTS, "wb") as file:
        for value in weights.values():
            value.astype(np.float32).tofile(file)
    state = {key: np.full(value.shape, 9, value.dtype) for key, value in weights.items()}
    fill(str(tmp_path), state.values())
    assert all(np.array_equal(state[key], weights[key]) for key in weights)


def test_a_digest_shows_a_wrong_gradient_of_any_parameter():
    rng = np.random.default_rng(0)
    gradients = [
        scale * rng.standard_normal(size) for scale, size in ((1, (40, 30)), (1e-6, (3,)), (1e3, (20, 2, 3, 3)))
    ]
    scales = [0.5, *(np.abs(each).max() for each in training.sums(gradients))]
    right = training.digest(0.5, gradients, scales)
    assert np.abs(right).max() == 1
    for i in range(3):
        for damage in (np.zeros_like, np.negative, lambda each: each.reshape(-1)[::-1].reshape(each.shape)):
            wrong = [damage(each) if j == i else each for j, each in enumerate(gradients)]
            assert np.abs(training.digest(0.5, wrong, scales) - right).max() > 0.25
    assert np.abs(training.digest(0.7, gradients, scales) - right).max() > 0.25


def test_sums_of_gradients_that_cancel_over_classes_are_not_zero():
    """A softmax's gradients cancel in every column of the last layer, whatever its width."""
    gradient = np.random.default_rng(0).standard_normal((1000, 64))
    gradient -= gradient.mean(0)
    assert np.abs(training.sums([gradient])[0]).max() > 10


# -- engines -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers():
    """What is installed, but for what takes a minute to compile a network."""
    found = {name: factory for name, factory in find_peers(["all"]).items() if name != "torch_frozen"}
    if not found:
        pytest.skip("no peer is installed")
    return found


@pytest.fixture(scope="module")
def everybody(peers):
    with Field(OWN, find_peers(["all"]), 1, 1e11) as racing:
        yield racing


def all_are_right(result, expected):
    assert [score.name for score in result.scores if not score.ours] == list(expected)
    assert [(score.name, score.note) for score in result.scores if not score.counts] == []
    assert all(score.timing is not None and score.median > 0 for score in result.scores)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("operator", PASSES)
def test_every_engine_is_right_on_a_layer_with_everything_uneven(operator, everybody):
    problem = Problem.parse("n3c4h9w8_k6r3s2_st2x1pd1.1.0.0g2_uneven")
    names = [name for name in find_peers(["all"]) if operator == "fprop" or name in ("torch", "torch_cl")]
    all_are_right(everybody.measure(of_problem(problem, operator), 1e-3), names)
    for name in names:  # the input is still what it was
        y = everybody._processes[name].result(name)
        assert np.array_equal(y, everybody._processes[name].result(name))


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("section", ["inference", "training"])
def test_every_engine_is_right_on_a_network(section, peers):
    pytest.importorskip("torch")  # which writes the network for the others
    with Field(OWN, peers, 1, 1e11) as racing:
        result = racing.measure(Cell(section, "lenet5", 3), 1e-3)
    all_are_right(result, [name for name in peers if section == "inference" or name in ("torch", "torch_cl")])
    multiply_adds = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert result.flops == (3 if section == "training" else 1) * 2 * 3 * multiply_adds


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("section", ["first", "memory"])
def test_every_engine_starts_anew_for_a_first_call_and_for_its_memory(section, peers, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(field._VISITS, section, 1)
    with Field(OWN, peers, 1, 1e11) as racing:
        result = racing.measure(Cell(section, "lenet5", 3), 1e-3)
        assert racing._processes == {}
    all_are_right(result, [name for name in peers if section == "memory" or not name.startswith("torch")])
    if section == "memory":  # with its weights of 240 KB, and less than what its libraries are
        assert all(1e5 < score.median < 3e8 for score in result.scores)


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(("name", "section"), [("torch_frozen", "inference"), ("torch_compile", "training")])
def test_torch_compiles_a_network(name, section):
    pytest.importorskip("torch")
    with Field({}, find_peers([name]), 1, 1e11) as racing:
        (score,) = racing.measure(Cell(section, "lenet5", 3), 1e-3).scores
        assert racing.measure(of_problem(SMALL, "dgrad"), 1e-3).scores == []
    assert (score.name, score.counts) == (name, True)


def test_openvino_does_not_report_home():
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    program = (
        "from pycnn.bench.peers import OpenVINO; OpenVINO(1); import sys; print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


# -- pictures ----------------------------------------------------------------------------------------------------


def test_the_page_shows_every_cell_and_needs_no_other_file(tmp_path):
    pytest.importorskip("matplotlib")
    comparison = Comparison(MACHINE, {"torch": "2.0"}, [AHEAD, BEHIND, INEXACT, LONELY])
    text = render(comparison)
    assert text.count("<svg") == text.count("</svg>") == 1
    assert all(word in text for word in ("a &lt;fast&gt; one", "torch 2.0", "torch &lt;died&gt;", "(1000.0)", "failed"))
    assert text.count("<td class=taken>") == 2 * 3 + 1  # both of a pair, ours where it is alone
    assert not any(word in text for word in ("<script", "src=", "<link", "<fast>", "<died>"))
    draw(comparison, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_without_any_ratio_is_drawn_too(tmp_path):
    pytest.importorskip("matplotlib")
    assert "<svg" in render(Comparison(MACHINE, {}, [LONELY]))


# -- the README ---------------------------------------------------------------------------------------------------


def test_the_readme_says_what_was_measured_and_no_more(tmp_path, monkeypatch):
    network = outcome("inference", "vgg16", score("pycnn", 0.05, True), score("mnn", 0.04, counts=False))
    Comparison(MACHINE, {"torch": "2.0"}, [network, AHEAD, INEXACT, LONELY]).save(tmp_path / "peers.json")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "KEPT", tmp_path / "evidence" / "cpu.json")
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert readme.main([str(tmp_path / "peers.json")]) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(
        f"before\n{readme.BEGIN}\na <fast> one, 2 threads, avx512, 200 GFLOP/s of multiply-adds; torch 2.0"
    )
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text
    assert "| fprop | 1 | 4.00 | 1 | 4.00 | one, batch 1 |" in text
    assert "| vgg16 | 1 | 50.0 | (40.0) |  |" in text
    assert "In brackets: off by more than a thousandth" in text
    assert "| ratio, batch | fprop, 1 | dgrad, 1 | wgrad, 1 |" in text
    assert "| two |  |  | 1.25 |" in text
    assert readme.main([]) == 0  # from what is kept
    assert (tmp_path / "README.md").read_text() == text


def test_a_readme_without_the_marks_is_left_alone(tmp_path, monkeypatch, capsys):
    Comparison(MACHINE, {}, [AHEAD]).save(tmp_path / "peers.json")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    monkeypatch.setattr(readme, "KEPT", tmp_path / "evidence" / "cpu.json")
    (tmp_path / "README.md").write_text("nothing")
    assert readme.main([str(tmp_path / "peers.json")]) == 1
    assert "has no section between" in capsys.readouterr().err


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, calm):
    """`pycnn bench --peers all` with fake peers: exit code, output, errors and the values written."""
    for package in ("rich", "threadpoolctl", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.setattr("pycnn.bench.machine.measure", lambda: MACHINE)
    monkeypatch.setattr(
        "pycnn.bench.peers.find_peers", lambda names: {name: FAKES[name] for name in names[0].split("+")}
    )
    monkeypatch.setattr("pycnn.bench.peers.own.OWN", {"pycnn": Eager})

    def call(peers, *arguments):
        code = main(["bench", "--peers", peers, "--out", str(tmp_path), "--seconds", "0.001", *arguments])
        said, values = capsys.readouterr(), tmp_path / "peers.json"
        return code, said.out, said.err, json.loads(values.read_text()) if values.exists() else None

    call.folder = tmp_path
    return call


def test_the_command_prints_a_table_a_section_and_writes_three_files(command):
    code, said, err, data = command("exact+inexact", "--problem", str(SMALL), "--passes", "fprop,wgrad")
    assert (code, err) == (0, "")
    assert [each["section"] for each in data["outcomes"]] == ["fprop", "wgrad"]
    assert sorted(file.name for file in command.folder.iterdir()) == ["peers.html", "peers.json", "peers.png"]
    assert said.count("small b2") >= 2
    assert "x the best peer (geometric mean of 1)" in said
    inexact = data["outcomes"][0]["scores"][2]
    assert f"({Outcome(**{**data['outcomes'][0], 'scores': []}).shown(score('', inexact['timing']['median']))})" in said


def test_runs_add_up(command):
    command("exact", "--problem", str(SMALL), "--cells", "fprop")
    _, said, _, data = command("exact", "--problem", str(SMALL), "--cells", "wgrad")
    assert [each["section"] for each in data["outcomes"]] == ["fprop", "wgrad"]
    assert "fprop" not in said
    assert "fprop" in (command.folder / "peers.html").read_text()


def test_a_wrong_result_of_ours_is_said_and_is_1(command, monkeypatch):
    monkeypatch.setattr("pycnn.bench.peers.own.OWN", {"inexact": FAKES["inexact"]})
    code, said, _, _ = command("exact", "--problem", str(SMALL), "--cells", "fprop")
    assert code == 1
    assert "fprop small b2 inexact: error 2.0e-03" in said


def test_a_peer_that_fails_is_said_and_is_0(command):
    code, said, _, _ = command("exact+dying", "--problem", str(SMALL), "--cells", "fprop")
    assert code == 0
    assert "fprop small b2 dying: the process of dying ended (SIGKILL)" in said


def test_an_interrupted_run_keeps_its_cells_and_leaves_nobody(command, monkeypatch):
    real, processes = Field.measure, []

    def measure(self, cell, seconds):
        if cell.section == "wgrad":
            processes.extend(process._process for process in self._processes.values())
            raise KeyboardInterrupt
        return real(self, cell, seconds)

    monkeypatch.setattr(Field, "measure", measure)
    code, _, err, data = command("exact", "--problem", str(SMALL))
    assert (code, err) == (130, "pycnn bench: interrupted\n")
    assert [each["section"] for each in data["outcomes"]] == ["fprop", "dgrad"]
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cells", "speed"], "cells must be among fprop"),
        (["--only", "vgg99"], "with 'vgg99' in its name"),
        (["--layers", "conv1"], "--layers has no meaning beside --peers"),
        (["--net", "lenet5"], "--net has no meaning beside --peers"),
        (["--algo", "direct"], "--algo has no meaning beside --peers"),
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--batch", "1,0"], "--batch must be at least 1"),
        (["--batch", "x"], "--batch must be at least 1"),
    ],
)
def test_bad_arguments_are_one_line_and_2(command, arguments, words):
    code, _, err, data = command("exact", *arguments)
    assert (code, err.count("\n"), data) == (2, 1, None)
    assert words in err


@pytest.mark.parametrize("option", ["cells", "only", "seconds"])
def test_the_comparisons_options_need_peers(option, tmp_path, capsys):
    assert main(["bench", f"--{option}", "1", "--out", str(tmp_path)]) == 2
    assert f"--{option} needs --peers on the CPU" in capsys.readouterr().err


def test_cells_of_another_machine_are_refused_before_anything_is_timed(command):
    Comparison(replace(MACHINE, isa="avx2"), {}, [AHEAD]).save(command.folder / "peers.json")
    code, _, err, data = command("exact", "--problem", str(SMALL))
    assert code == 2
    assert "choose another --out" in err
    assert len(data["outcomes"]) == 1


def test_there_is_no_progress_bar_in_a_file(command):
    assert command("exact", "--problem", str(SMALL), "--cells", "fprop")[2] == ""
