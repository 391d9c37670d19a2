"""The benchmark: wrong results caught before they are timed, layers found, sums right, reports whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from pycnn import backends, nn, ops, use_precision
from pycnn.bench import contest as contests
from pycnn.bench import workloads
from pycnn.bench.contest import Result, Row, contest
from pycnn.bench.machine import Machine
from pycnn.bench.peers import NumPy, find_peers
from pycnn.bench.processes import PeerProcess, peer_processes
from pycnn.bench.report import render
from pycnn.bench.summary import OURS, NetworkRun, as_dict, gflops, peer_names, totals
from pycnn.bench.timing import Timing, race
from pycnn.bench.workloads import Workload, from_problem
from pycnn.cli import main
from pycnn.models import registry
from pycnn.shape import PASSES, Pool2dShape, Problem

SMALL = "n1c4h8_k4r3_pd1"
MACHINE = Machine("a <fast> one", 2, 2, "avx2", 1e11, 1e10, {"numpy": "2"})


# -- contests ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Every contestant takes one turn, as short as can be."""
    monkeypatch.setattr(contests, "race", lambda racers, seconds: race(racers, 0, rounds=1))


@pytest.fixture(scope="module")
def numpy():
    """NumPy's process."""
    with PeerProcess("numpy", NumPy, 1) as peer:
        yield peer


@pytest.mark.parametrize("operator", PASSES)
def test_every_algorithm_that_can_run_takes_part_and_is_right(operator, numpy):
    result = contest(from_problem(Problem.parse(SMALL)), operator, peers=[numpy])
    known = backends.get("cpu").conv2d_algorithms(operator, result.workload.shape, np.float32)
    assert [row.contestant for row in result.rows] == [name for name, reason in known if reason is None] + ["numpy"]
    assert {row.kind for row in result.rows} == {"ours", "numpy"}
    assert all(row.timing is not None and row.timing.runs > 0 for row in result.rows)
    assert all(0 <= row.error <= row.allowed and not row.note for row in result.rows)
    assert result.taken == result.row(result.auto)
    assert result.refused == {name: reason for name, reason in known if reason is not None}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_algorithms_run_on_the_backend_asked_for(monkeypatch, backend):
    seen = set()
    real = ops.conv2d_fprop

    def spy(*arguments, **options):
        seen.add(backends.selected())
        return real(*arguments, **options)

    monkeypatch.setattr(ops, "conv2d_fprop", spy)
    result = contest(from_problem(Problem.parse(SMALL)), "fprop", backend)
    assert seen == {backend}
    assert result.taken is not None


@pytest.mark.parametrize("damage", [lambda y: y + 1e-3, lambda y: y[..., 1:], lambda y: np.full_like(y, np.nan)])
def test_a_wrong_algorithm_is_named_and_never_timed(monkeypatch, damage):
    calls = []
    real = ops.conv2d_fprop

    def seeded(*arguments, algo):
        y = real(*arguments, algo=algo)
        if algo != "im2col_explicit":
            return y
        calls.append(algo)
        return damage(y)

    monkeypatch.setattr(ops, "conv2d_fprop", seeded)
    result = contest(from_problem(Problem.parse(SMALL)), "fprop")
    (wrong,) = [row for row in result.rows if row.note]
    assert (wrong.contestant, wrong.timing) == ("im2col_explicit", None)
    assert wrong.note.startswith("wrong: error ")
    assert calls == ["im2col_explicit"]  # once, to be judged
    assert result.row("im2col_explicit") is None
    assert result.row("direct") is not None


@pytest.mark.parametrize("auto", [True, False])
def test_what_is_taken_is_right_or_nothing(monkeypatch, auto):
    monkeypatch.setattr(ops, "conv2d_fprop", lambda x, w, *_, algo: np.ones((1, 4, 8, 8), np.float32))
    result = contest(from_problem(Problem.parse(SMALL)), "fprop", algos=[] if auto else ["im2col"])
    assert result.taken is None


def test_a_family_stands_for_its_variants():
    layer = from_problem(Problem.parse(SMALL))
    names = [row.contestant for row in contest(layer, "fprop", algos=["im2col", "winograd_f2x2_3x3"]).rows]
    assert names == ["im2col_implicit", "im2col_explicit", "winograd_f2x2_3x3"]


def test_without_auto_the_fastest_is_taken():
    layer = from_problem(Problem.parse("n1c3h40_k32r7_pd3"))  # whose columns are many and used by few
    result = contest(layer, "fprop", algos=["im2col"])
    assert not result.auto.startswith("im2col")
    taken = result.taken
    assert taken is not None
    assert taken.contestant.startswith("im2col")
    assert taken.timing.median == min(row.timing.median for row in result.rows if row.kind == "ours")


def test_an_algorithm_that_cannot_run_leaves_the_others(numpy):
    result = contest(from_problem(Problem.parse("n1c4h8_k4r1")), "fprop", algos=["winograd"], peers=[numpy])
    assert [row.contestant for row in result.rows] == ["numpy"]
    assert result.taken is None
    assert "winograd_f2x2_3x3" in result.refused


def test_an_unknown_algorithm_is_an_error():
    with pytest.raises(ValueError, match=r"algorithms must be among direct, im2col, winograd.*got 'fft'"):
        contest(from_problem(Problem.parse(SMALL)), "fprop", algos=["fft"])


@pytest.mark.parametrize("operator", contests.POOL_PASSES)
@pytest.mark.parametrize(
    ("op", "shape", "count_pad"),
    [
        ("max_pool2d", Pool2dShape(2, 3, 9, 10, (3, 3), (2, 2), (1, 1, 1, 1)), True),
        ("max_pool2d", Pool2dShape(1, 3, 10, 10, (3, 3), (2, 2), ceil_mode=True), True),
        ("avg_pool2d", Pool2dShape(2, 3, 9, 10, (3, 3), (2, 2), (1, 1, 1, 1)), False),
        ("avg_pool2d", Pool2dShape(1, 3, 8, 8, (2, 2), (2, 2)), True),
    ],
    ids=str,
)
def test_pooling_is_checked_and_timed(op, shape, count_pad, operator, numpy):
    x = np.random.default_rng(0).standard_normal((shape.N, shape.C, shape.H, shape.W), np.float32)
    result = contest(Workload("", "pool", 1, op, shape, x, count_pad=count_pad), operator, peers=[numpy])
    assert [row.contestant for row in result.rows] == ["native", "numpy"]
    assert all(row.timing is not None and row.error <= row.allowed for row in result.rows)
    assert (result.flops, result.bytes) == (0, 4 * (x.size + int(np.prod(shape.y_shape))))


def test_peers_are_judged_too(numpy):
    pytest.importorskip("torch")
    with peer_processes(find_peers(["torch"]), 1) as torches:
        for operator in PASSES:
            result = contest(from_problem(Problem.parse(SMALL)), operator, peers=[numpy, *torches])
            assert [row.kind for row in result.rows if row.kind != "ours"][:3] == ["numpy", "peer", "peer"]
            frozen = ["torch_frozen"] if operator == "fprop" else []  # its gradients would be the others'
            assert peer_names([result]) == ["torch", "torch_cl", *frozen]
            assert result.row("torch") is not None
            assert result.row("torch_cl") is not None


# -- workloads ---------------------------------------------------------------------------------------------------

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def test_the_layers_of_lenet5():
    forward, found = workloads.of_network("lenet5", 2, PHOTO)
    assert forward().shape == (2, 10)
    assert [(layer.op, layer.count) for layer in found] == [
        ("conv2d", 1),
        ("max_pool2d", 1),
        ("conv2d", 1),
        ("max_pool2d", 1),
    ]
    assert str(found[0].shape) == "n2c1h32w32_k6r5s5_st1pd0dl1g1"
    assert all(layer.x.shape == (2, layer.shape.C, layer.shape.H, layer.shape.W) for layer in found)
    assert found[0].x.mean() == pytest.approx(0, abs=1e-5)  # rounding of a mean in float32
    assert found[2].x.min() >= 0  # what reaches the second layer is rectified


def test_layers_of_one_shape_are_counted():
    """GoogLeNet's 57 convolutions and 13 poolings, by how often each shape occurs."""
    _, found = workloads.of_network("googlenet", 1, PHOTO)
    model = registry.create("googlenet")
    convolutions = [layer for layer in found if layer.op == "conv2d"]
    aside = [name for name, _ in model.named_modules() if name.startswith("aux")]
    expected = sum(isinstance(m, nn.Conv2d) for name, m in model.named_modules() if name not in aside)
    assert sum(layer.count for layer in convolutions) == expected == 57
    assert len({layer.shape for layer in convolutions}) == len(convolutions) < 57
    assert sum(layer.count for layer in found if layer.op == "max_pool2d") == 13
    assert [layer.shape.P for layer in found if layer.op == "avg_pool2d"] == [1]


def test_averages_that_count_their_padding_differently_are_different_layers(monkeypatch):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.AvgPool2d(3, 1, 1)
            self.second = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

        def forward(self, x):
            return self.second(self.first(x))

    monkeypatch.setitem(registry._MODELS, "two", registry.ModelInfo("two", Two, (3, 8, 8), ""))
    _, found = workloads.of_network("two", 1, PHOTO)
    assert [(layer.name, layer.count, layer.count_pad) for layer in found] == [("first", 1, True), ("second", 1, False)]


def test_a_problem_keeps_its_name_and_data():
    first, second = (from_problem(Problem.parse(f"{SMALL}_conv1")) for _ in range(2))
    assert first.name == "conv1"
    assert np.array_equal(first.x, second.x)
    with pytest.raises(ValueError, match="float32, float16 and bfloat16, got float64"):
        from_problem(Problem.parse(f"{SMALL}_f64"))


@pytest.mark.parametrize("text", ["f16_nhwc", "bf16", "nhwc"])
@pytest.mark.parametrize("operator", PASSES)
def test_a_problem_is_raced_in_its_dtype_and_layout(numpy, text, operator):
    layer = from_problem(Problem.parse(f"n1c16h6_k8r3_pd1_{text}"))
    assert str(layer.problem) == f"n1c16h6w6_k8r3s3_st1pd1dl1g1_{text}"
    assert layer.x.flags.c_contiguous == ("nhwc" not in text)
    found = contest(layer, operator, peers=[numpy], seconds=0.001)
    assert found.bytes == layer.shape.bytes(layer.x.itemsize)
    assert not [row.note for row in found.rows if row.note]


@pytest.mark.simulator
def test_channels_last_reach_the_kernels_that_read_them_so():
    layer = from_problem(Problem.parse("n1c16h6_k8r3_pd1_f16_nhwc"))
    found = contest(layer, "fprop", "sim", algos=["im2col_tensor_64x64"], seconds=0.001)
    assert [(row.contestant, row.note) for row in found.rows] == [("im2col_tensor_64x64", "")]


@pytest.mark.simulator
def test_a_precision_brings_its_algorithms():
    layer = from_problem(Problem.parse("n1c16h6_k8r3_pd1"))
    name = "im2col_tensor_3xtf32_strided_64x64"
    with use_precision("3xtf32"):
        assert not contest(layer, "fprop", "sim", algos=[name], seconds=0.001).row(name).note
    with pytest.raises(ValueError, match=name):
        contest(layer, "fprop", "sim", algos=[name], seconds=0.001)


# -- summaries and reports ---------------------------------------------------------------------------------------


def row(name, kind, seconds, error=1e-7):
    note = "" if seconds else "wrong: error 1"
    return Row(name, kind, Timing(seconds, seconds, seconds, 3) if seconds else None, error, 1e-6, note)


def result(count, operator, *rows, auto="direct", problem=SMALL):
    layer = from_problem(Problem.parse(f"{problem}_layer-{count}"))
    return Result(
        Workload("net", layer.name, count, "conv2d", layer.shape, layer.x, layer.w),
        operator,
        list(rows),
        auto,
        "why <so>",
        {},
    )


RUN = NetworkRun(
    "net",
    1,
    [
        result(2, "fprop", row("direct", "ours", 1.0), row("im2col_implicit", "ours", 0.5), row("numpy", "numpy", 3.0)),
        result(3, "fprop", row("direct", "ours", 2.0), row("numpy", "numpy", 5.0), row("torch", "peer", 1.0)),
        result(5, "wgrad", row("direct", "ours", None, float("nan")), row("numpy", "numpy", 1.0)),
    ],
    Timing(0.25, 0.25, 0.25, 3),
    ("no kernel for <this>",),
)


def test_totals_count_layers_and_leave_out_who_missed_one():
    assert totals(RUN.results) == {"fprop": {OURS: 2 * 1 + 3 * 2, "numpy": 2 * 3 + 3 * 5}, "wgrad": {"numpy": 5}}


def test_a_rate_counts_the_direct_form():
    one = RUN.results[0]
    assert gflops(one, one.rows[1]) == pytest.approx(2 * 8 * 8 * 4 * 4 * 9 / 0.5 / 1e9)


def test_values_are_plain_json():
    data = json.loads(json.dumps(as_dict(MACHINE, [RUN]), allow_nan=False))
    (network,) = data["networks"]
    assert network["totals_seconds"]["fprop"][OURS] == 8
    assert [layer["taken"] for layer in network["layers"]] == ["direct", "direct", None]
    wrong = network["layers"][2]["contestants"][0]
    assert (wrong["seconds"], wrong["error"], wrong["note"]) == (None, None, "wrong: error 1")


def test_the_report_has_every_layer_and_needs_no_other_file():
    pytest.importorskip("matplotlib")
    text = render(as_dict(MACHINE, [RUN]))
    assert all(f"layer-{count}" in text for count in (2, 3, 5))
    assert text.count("<svg") == text.count("</svg>") == 4  # fprop, wgrad, roofline, errors
    assert all(word in text for word in ("wrong: error 1", "torch", "a &lt;fast&gt; one", "why &lt;so&gt;"))
    assert "no kernel for &lt;this&gt;" in text
    assert not any(word in text for word in ("<script", "src=", "<link", "<fast>"))


# -- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """`pycnn bench` with these arguments: exit code, output, errors, and the values written."""
    for package in ("rich", "threadpoolctl", "matplotlib"):
        pytest.importorskip(package)
    monkeypatch.setattr("pycnn.bench.machine.measure", lambda: MACHINE)
    out = tmp_path / "deep" / "report"

    def call(*arguments):
        code = main(["bench", "--quick", "--out", str(out), *arguments])
        values = out / "bench.json"
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(values.read_text()) if values.exists() else None

    call.folder = out
    return call


def test_a_problem_from_the_command_line(command):
    code, said, _, data = command("--problem", f"{SMALL}_conv1", "--problem", "n1c4h6_k2r1_wgrad", "--passes", "fprop")
    assert code == 0
    layers = data["networks"][0]["layers"]
    assert [(layer["layer"], layer["pass"]) for layer in layers] == [("conv1", "fprop"), ("problem", "wgrad")]
    assert "conv1" in said
    assert "n1c4h6w6_k2r1s1" in said
    assert sorted(file.name for file in command.folder.iterdir()) == ["bench.html", "bench.json"]


def test_layers_of_a_network(command):
    pytest.importorskip("sklearn")
    code, said, _, data = command("--net", "lenet5", "--layers", "conv2", "--passes", "fprop,wgrad", "--algo", "im2col")
    assert code == 0
    assert {layer["layer"] for layer in data["networks"][0]["layers"]} == {"conv2"}
    assert {layer["taken"].partition("_")[0] for layer in data["networks"][0]["layers"]} == {"im2col"}
    assert data["networks"][0]["forward_seconds"] > 0
    assert "whole forward pass" in said


def test_a_wrong_result_is_said_and_is_1(command, monkeypatch):
    monkeypatch.setattr(ops, "conv2d_fprop", lambda x, w, *_, algo: np.ones((1, 4, 8, 8), np.float32))
    code, said, _, data = command("--problem", SMALL, "--passes", "fprop")
    assert code == 1
    assert "problem fprop direct: wrong: error" in said
    assert data["networks"][0]["layers"][0]["taken"] is None


def test_what_a_backend_lacks_is_left_out_and_said(command, monkeypatch):
    missing = NotImplementedError("the sim backend has no kernel for conv2d_dgrad")

    def partly(layer, operator, *rest):
        if operator == "dgrad":
            raise missing
        return contest(layer, operator)

    monkeypatch.setattr(contests, "contest", partly)
    code, said, _, data = command("--problem", SMALL)
    assert code == 0
    assert f"left out: {missing}" in said
    assert [layer["pass"] for layer in data["networks"][0]["layers"]] == ["fprop", "wgrad"]
    code, _, err, _ = command("--problem", SMALL, "--passes", "dgrad")
    assert (code, err) == (2, f"pycnn bench: {missing}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "n1c4"], "not a problem string: 'n1c4'"),
        (["--problem", f"{SMALL}_f64"], "float32, float16 and bfloat16, got float64"),
        (["--problem", f"{SMALL}_f16", "--peers", "torch"], "--peers on the CPU compares float32 in NCHW"),
        (["--problem", SMALL, "--passes", "forward"], "--passes must be among fprop, dgrad, wgrad, got 'forward'"),
        (["--problem", SMALL, "--algo", "fft"], "algorithms must be among"),
        (["--problem", SMALL, "--net", "lenet5"], "leave out --net"),
        (["--problem", SMALL, "--peers", "caffe"], "peers must be among torch, onnxruntime"),
        (["--problem", SMALL, "--threads", "0"], "--threads must be from 1 to 1024, got 0"),
        (["--problem", SMALL, "--threads", "5000"], "--threads must be from 1 to 1024, got 5000"),
        (["--net", "lenet5", "--batch", "0"], "--batch must be at least 1"),
        (["--net", "lenet6"], "no network is named 'lenet6'; did you mean lenet5"),
        (["--net", "lenet5", "--layers", "conv9"], "--layers 'conv9' is in no layer's name of lenet5"),
        (["--net", "lenet5", "--image", "no such file.png"], "no such file.png: No such file or directory"),
    ],
)
def test_bad_arguments_are_one_line_and_2(command, arguments, words):
    code, _, err, data = command(*arguments)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert data is None


def test_reports_replace_each_other_whole(command, monkeypatch):
    command("--problem", SMALL, "--passes", "fprop")
    before = (command.folder / "bench.html").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    code, _, err, _ = command("--problem", SMALL, "--passes", "wgrad")
    assert (code, err) == (2, "pycnn bench: No space left on device\n")
    assert (command.folder / "bench.html").read_bytes() == before
    assert len(list(command.folder.iterdir())) == 2


def test_an_out_that_is_no_folder_is_refused_before_anything_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bench", "--problem", SMALL, "--out", str(tmp_path / "file")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"pycnn bench: --out must be a folder that can be written to, got {tmp_path / 'file'}: ")
