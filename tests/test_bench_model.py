"""``pycnn bench FILE.onnx``: models of files, raced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pycnn
from pycnn import nn
from pycnn.cli import main

onnx = pytest.importorskip("onnx")
pytest.importorskip("rich")

import pycnn.onnx  # noqa: E402
from pycnn.bench import model_file  # noqa: E402
from pycnn.bench.peers.engines import OnnxRuntime  # noqa: E402


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pycnn.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    pycnn.onnx.export(net, np.zeros((1, 3, 12, 12), np.float32), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_everybody_is_checked_and_timed(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    arguments = ["--peers", "onnxruntime", "--batch", "2", "--threads", "1", "--seconds", "0.01"]
    assert main(["bench", str(file), *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f"{file}, 2x3x12x12, 1 threads" in printed
    values = json.loads((tmp_path / "out" / "model.json").read_text())
    assert [row["name"] for row in values["rows"]] == ["pycnn", "pycnn_compiled", "onnxruntime"]
    assert all(row["timing"]["median"] > 0 and row["error"] < 1e-5 for row in values["rows"])


class Wrong(OnnxRuntime):
    def __init__(self, threads: int) -> None:
        self.threads = threads

    def contestants(self, task: object) -> dict[str, Callable[[], np.ndarray]]:
        return {"wrong": lambda: np.zeros((1, 5), np.float32)}


def test_who_is_wrong_is_not_timed(file: Path) -> None:
    (row,) = model_file.bench_file(file, model_file.batch_of(file, None), {"wrong": Wrong}, 1, 0.01)
    assert row.timing is None
    assert row.error == 1
    assert row.note == "is wrong"


def test_a_model_that_cannot_be_compiled_says_why(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Exp", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), tmp_path / "e.onnx")
    x = model_file.batch_of(tmp_path / "e.onnx", None)
    assert x.shape == (2, 3)
    rows = model_file.bench_file(tmp_path / "e.onnx", x, model_file.OURS, 1, 0.01)
    assert [row.name for row in rows] == ["pycnn", "pycnn_compiled"]
    assert rows[0].timing is not None
    assert rows[1].timing is None
    assert "Exp has no compiled form" in rows[1].note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--net", "lenet5"], "--net has no meaning for a model of a file"),
        (["--backend", "sim"], "--backend has no meaning"),
        (["--batch", "1,2"], "--batch must be one number"),
        (["--peers", "nobody"], "peers must be among"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    arguments: list[str], message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(file), *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_inputs_that_are_not_one_array_of_known_size_are_refused(tmp_path: Path) -> None:
    def saved(*shapes: list[object], dtype: int = onnx.TensorProto.FLOAT) -> Path:
        inputs = [onnx.helper.make_tensor_value_info(f"x{i}", dtype, shape) for i, shape in enumerate(shapes)]
        output = onnx.helper.make_tensor_value_info("y", dtype, None)
        node = onnx.helper.make_node("Identity", ["x0"], ["y"])
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", inputs, [output])), path)
        return path

    assert model_file.batch_of(saved(["n", 4]), 3).shape == (3, 4)
    for path, batch, message in (
        (saved([1, 3], [1, 3]), None, r"one array of float32 .* takes x0 .*, x1"),
        (saved([2, 3], dtype=onnx.TensorProto.INT64), None, "takes x0 \\(int64"),
        (saved([2, "w"]), None, "leaves sizes of x0 open"),
        (saved([2, 3]), 4, "--batch 4, but the file is made for 2"),
    ):
        with pytest.raises(ValueError, match=message):
            model_file.batch_of(path, batch)
