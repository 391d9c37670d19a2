"""``pycnn compile``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import images

import pycnn
from pycnn import checkpoint, models
from pycnn.cli import main

pytest.importorskip("safetensors")


def test_a_trained_network_becomes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.create("lenet5", num_classes=7).eval()
    checkpoint.save(tmp_path / "run", {"model": model})
    arguments = [
        "compile",
        "lenet5",
        "--classes",
        "7",
        "--weights",
        str(tmp_path / "run"),
        "--out",
        str(tmp_path / "net"),
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "7 steps for batches of 1" in text
    assert f"{tmp_path / 'net'}: 0." in text
    x = images(3, 1, 32, 32)
    with pycnn.no_grad():
        expected = model(pycnn.Tensor(x)).numpy()
    np.testing.assert_allclose(pycnn.load_compiled(tmp_path / "net")(x), expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_network_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--input", "3x40x48", "--batch", "2", "--profile", "--accuracy", "strict"]
    assert main(["compile", "resnet20", *size, "--out", str(tmp_path / "net")]) == 0
    assert "batch 2, " in capsys.readouterr().out
    loaded = pycnn.load_compiled(tmp_path / "net")
    assert loaded.accuracy == "strict"
    assert loaded.graph.inputs[0].shape == (3, 40, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19"], "no network is named 'resnet19'"),
        (["lenet5", "--input", "32"], "--input must be CxHxW"),
        (["lenet5", "--batch", "0"], "--batch must be between 1"),
        (["lenet5", "--weights", "absent"], "absent: No such file"),
        (["lenet5", "--weights", "other"], "other: cannot load this state_dict into LeNet5"),
        (["lenet5", "--weights", "empty"], "empty: cannot load this state_dict into LeNet5"),
        (["lenet5", "--input", "2x32x32"], "channels disagree"),
        (["lenet5", "--out", "no/folder/net"], "cannot write the compiled network no/folder/net"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save("other", {"model": pycnn.nn.Linear(2, 2)})
    checkpoint.save("empty", {"optimizer": pycnn.nn.Linear(2, 2)})
    out = [] if "--out" in arguments else ["--out", "net"]
    assert main(["compile", *arguments, *out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("net").exists()
