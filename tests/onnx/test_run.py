"""``pycnn run``: photographs and arrays through ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("PIL")

from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

from pycnn.cli import main

FLOAT = TensorProto.FLOAT


def _write(path: Path, shape: tuple[object, ...], kind: int = FLOAT, nodes: list[object] | None = None) -> None:
    """A model whose output is its input, or what the nodes make of it."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.int64([1, -1]), "rows")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Red on the left, blue on the right."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:, 2] = 255
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def _outputs(tmp_path: Path, photo: Path, shape: tuple[object, ...], *options: str, kind: int = FLOAT) -> np.ndarray:
    model, out = tmp_path / "model.onnx", tmp_path / "out.npz"
    _write(model, shape, kind)
    assert main(["run", str(model), "--input", str(photo), "--out", str(out), *options]) == 0
    with np.load(out) as arrays:
        return arrays["y"]


def test_a_photograph_is_cut_scaled_and_normalised(tmp_path: Path, photo: Path) -> None:
    y = _outputs(tmp_path, photo, (1, 3, 14, 14))
    assert y.shape == (1, 3, 14, 14)
    red = (np.float32([1, 0, 0]) - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    np.testing.assert_allclose(y[0, :, 7, 0], red, rtol=1e-5)  # the mean and deviation are decimal fractions


@pytest.mark.parametrize(("how", "left"), [("unit", [1, 0, 0]), ("symmetric", [1, -1, -1]), ("none", [255, 0, 0])])
def test_ways_to_normalise(tmp_path: Path, photo: Path, how: str, left: list[float]) -> None:
    y = _outputs(tmp_path, photo, ("N", 3, "H", "W"), "--normalize", how, "--size", "20x30", "--fit", "stretch")
    assert y.shape == (1, 3, 20, 30)
    np.testing.assert_allclose(y[0, :, 10, 3], left, atol=1e-4)  # what scaling leaves of 255 in float32
    swapped = _outputs(tmp_path, photo, ("N", 3, "H", "W"), "--normalize", how, "--size", "20x30", "--bgr")
    np.testing.assert_allclose(swapped[0, ::-1, 10, 3], left, atol=1e-4)


def test_channels_last_grey_and_bytes(tmp_path: Path, photo: Path) -> None:
    y = _outputs(tmp_path, photo, (1, 8, 12, 3), "--normalize", "unit", "--fit", "stretch")
    np.testing.assert_allclose(y[0, 4, 1], [1, 0, 0], atol=1e-5)
    y = _outputs(tmp_path, photo, (1, 1, 8, 12), "--normalize", "unit", "--fit", "stretch")
    np.testing.assert_allclose(y[0, 0, 4, [1, 10]], [0.299, 0.114], atol=1e-5)
    y = _outputs(tmp_path, photo, (1, 3, 8, 12), "--fit", "stretch", kind=TensorProto.UINT8)
    assert y.dtype == np.uint8
    assert y[0, :, 4, 1].tolist() == [255, 0, 0]


def test_the_likeliest_classes_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, scores, labels = tmp_path / "model.onnx", tmp_path / "scores.npy", tmp_path / "labels.txt"
    _write(model, (1, 3))
    np.save(scores, np.log(np.float32([[0.1, 0.7, 0.2]])))
    labels.write_text("cat\ndog\nowl\n")
    assert main(["run", str(model), "--input", f"x={scores}", "--labels", str(labels), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["   70.0 %  dog (1)", "   20.0 %  owl (2)"]


def test_other_outputs_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, array = tmp_path / "model.onnx", tmp_path / "array.npz"
    _write(model, (2, 2))
    np.savez(array, x=np.float32([[1, 2], [3, 6]]))
    assert main(["run", str(model), "--input", str(array)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["y: float32 2x2", "  least 1, mean 3, largest 6"]


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.onnx"
    _write(model, (1, 3, 8, 8))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:60])
    text = tmp_path / "text.png"
    text.write_text("no image")
    memory = tmp_path / "memory.onnx"
    _write(memory, (1, 3, 8, 8), nodes=[helper.make_node("Multinomial", ["x"], ["y"], name="draw")])
    np.save(tmp_path / "array.npy", np.zeros((1, 3, 8, 8), np.float32))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999,), }"
    arrays = {
        "cut.npy": (tmp_path / "array.npy").read_bytes()[:100],
        "short.npy": (tmp_path / "array.npy").read_bytes()[:-1],
        "cut.npz": b"PK\3\4abc",
        "other.npz": (tmp_path / "array.npy").read_bytes(),
        "quote.npy": b"\x93NUMPY\1\0v\0" + header.replace("), }", "), '''").encode().ljust(117) + b"\n",
        "large.npy": b"\x93NUMPY\1\0v\0" + header.encode().ljust(117) + b"\n",
    }
    for name, content in arrays.items():
        (tmp_path / name).write_bytes(content)
    for arguments, message in (
        *(([str(model), "--input", str(tmp_path / name)], f"{name}: no sound array of NumPy") for name in arrays),
        ([str(model)], "--input for x is missing: float32 1x3x8x8"),
        ([str(cut), "--input", str(photo)], "cut.onnx"),
        ([str(tmp_path / "none.onnx"), "--input", str(photo)], "none.onnx"),
        ([str(model), "--input", str(text)], "text.png"),
        ([str(memory), "--input", str(photo)], "ai.onnx.Multinomial (opset 17) in draw"),
        ([str(model), "--input", str(photo), "--input", str(photo)], "takes 1 inputs (x)"),
        ([str(model), "--input", str(photo), "--size", "big"], "--size must be HxW"),
    ):
        assert main(["run", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
