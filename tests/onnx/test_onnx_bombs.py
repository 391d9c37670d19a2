"""Small files of models that ask for much: refused before anything large is made."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

from pycnn.bench import memory
from pycnn.onnx import ModelError, wire
from pycnn.onnx.graph import array_of, bytes_beside, from_model, load

MEGA = 1 << 20


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _initializer(dtype: int, field: int, content: bytes) -> bytes:
    return _field(7, _field(5, bytes([0x10, dtype]) + _field(field, content) + _field(8, b"w")))


BOMBS = {
    "nodes of no bytes": _field(7, b"\x0a\x00" * (5 * MEGA)),
    "tensors of no bytes": _field(7, b"\x2a\x00" * (5 * MEGA)),
    "inputs of no bytes": _field(7, _field(1, b"\x0a\x00" * (5 * MEGA))),
    "notes of no bytes": b"\x72\x00" * (5 * MEGA),
    "unknown numbers": b"\xf8\x07\x01" * (4 * MEGA),
    "numbers of a byte": _initializer(TensorProto.INT64, 7, bytes(20 * MEGA)),
    "sizes": _field(7, _field(5, _field(1, b"\x01" * (20 * MEGA)))),
    "an attribute's numbers": _field(7, _field(1, _field(5, _field(8, bytes(20 * MEGA))))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_takes_far_more_memory_than_its_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BOMBS[kind])
    gc.collect()
    memory.forget_peak()
    before = memory.resident()
    with pytest.raises(ModelError, match=r"model\.onnx: contents that need far more memory than the file is long"):
        load(path)
    assert memory.peak() - before < 4 * len(BOMBS[kind]) + 64 * MEGA


@pytest.mark.parametrize(
    ("dtype", "field", "bytes_"),
    [(TensorProto.INT64, 7, 2 * MEGA), (TensorProto.INT32, 5, 6 * MEGA), (TensorProto.FLOAT16, 5, 6 * MEGA)],
)
def test_numbers_that_are_just_not_too_many_are_read_in_that_memory(
    dtype: int, field: int, bytes_: int, tmp_path: Path
) -> None:
    content = _initializer(dtype, field, bytes(bytes_)) + b"\x42\x02\x10\x11"  # opset 17
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    gc.collect()
    memory.forget_peak()
    before = memory.resident()
    with pytest.raises(ModelError, match="is damaged"):  # as many numbers as were read do not fit a scalar
        load(path)
    assert memory.peak() - before < 4 * len(content) + 64 * MEGA


@pytest.mark.parametrize(
    "content", [b"\x3a\x05\x0a", b"\x3a\xff", b"\x0b", b"\x3a" + b"\xff" * 10, _field(7, b"\x0a\x7f\x0a\x00")]
)
def test_bytes_that_are_no_message_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX model, or cut off"):
        load(path)


def _external(name: str, **entries: object) -> Any:
    tensor = TensorProto(name=name, dims=[MEGA], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


def _model(nodes: list[Any], constants: list[Any], **more: Any) -> Any:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "xy")
    graph = helper.make_graph(nodes, "test", [x], [y], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def test_tensors_that_take_the_same_bytes_of_a_file_again_and_again_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(4 * MEGA))
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    for count, message in ((3, None), (40, "tensors take more than .* bytes from weights, which has 4,194,304")):
        model = _model(relu, [_external(f"w{i}", location="weights") for i in range(count)])
        if message is None:
            assert len(from_model(model, tmp_path).constants) == count
        else:
            with pytest.raises(ModelError, match=message):
                from_model(model, tmp_path)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", "folder", "missing", "", "a/../../secret"])
def test_weights_outside_the_folder_of_the_model_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * MEGA))
    inside = tmp_path / "model"
    (inside / "folder").mkdir(parents=True)
    (inside / "link").symlink_to("../secret")
    model = _model([helper.make_node("Relu", ["x"], ["y"])], [_external("w", location=location)])
    with pytest.raises(ModelError, match="the weights of tensor 'w'"):
        from_model(model, inside)


def test_files_of_weights_allow_for_a_large_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of a large network takes more than three times its bytes; those outside the folder do not count."""
    monkeypatch.setattr(wire, "_BESIDE", MEGA)
    nodes = [helper.make_node("Relu", ["x" if i == 0 else f"x{i}"], [f"x{i + 1}"]) for i in range(999)]
    nodes.append(helper.make_node("Relu", ["x999"], ["y"]))
    inside = tmp_path / "model"
    inside.mkdir()
    for folder in (tmp_path, inside):
        (folder / f"of {folder.name}").write_bytes(bytes(4 * MEGA))
    (inside / "link").symlink_to(f"../of {tmp_path.name}")
    (inside / "round").symlink_to("round")
    for location in ("of model", f"../of {tmp_path.name}", "link", "round", "missing", "\0"):
        model = _model(nodes, [_external("w", location=location)])
        (inside / "model.onnx").write_bytes(model.SerializeToString())
        if location == "of model":
            assert len(load(inside / "model.onnx").nodes) == 1000
        else:
            with pytest.raises(ModelError, match="far more memory than the file is long"):
                load(inside / "model.onnx")
    twice = _model(nodes, [_external(f"w{i}", location=name) for i, name in enumerate(("of model", "./of model"))])
    assert bytes_beside(twice.SerializeToString(), inside) == 4 * MEGA


def test_functions_that_grow_without_bound_are_refused() -> None:
    def function(name: str, *calls: str) -> Any:
        names = ["a", *(f"t{i}" for i in range(len(calls) - 1)), "b"]
        nodes = [
            helper.make_node(call, [names[i]], [names[i + 1]], domain="own" if call.startswith("f") else "")
            for i, call in enumerate(calls)
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        return helper.make_function("own", name, ["a"], ["b"], nodes, opsets)

    doubling = [function("f0", "Relu"), *(function(f"f{i}", f"f{i - 1}", f"f{i - 1}") for i in range(1, 25))]
    for name, functions, message in (
        ("f24", doubling, "functions written out would take"),
        ("f0", [function("f0", "Relu", "f1"), function("f1", "f0")], "call each other without end"),
        ("f99", [function("f0", "Relu"), *(function(f"f{i}", f"f{i - 1}") for i in range(1, 100))], "or too deep"),
    ):
        model = _model([helper.make_node(name, ["x"], ["y"], domain="own")], [], functions=functions)
        with pytest.raises(ModelError, match=message):
            from_model(model)
    fine = _model([helper.make_node("f3", ["x"], ["y"], domain="own")], [], functions=doubling[:4])
    assert len(from_model(fine).nodes) == 8


def test_a_negative_size_is_refused() -> None:
    """NumPy would find out for itself what it should be."""
    with pytest.raises(ModelError, match=r"tensor 'w' \(-1x2\) is damaged: a negative size"):
        array_of(TensorProto(name="w", dims=[-1, 2], data_type=TensorProto.FLOAT, float_data=[1, 2]))


@pytest.mark.parametrize("name", sorted(set(TensorProto.DataType.keys()) - {"UNDEFINED", "STRING"}))
def test_numbers_of_every_type_are_read_as_onnx_reads_them(name: str) -> None:
    dtype = TensorProto.DataType.Value(name)
    tensor = TensorProto(name="w", dims=[3, 4], data_type=dtype)
    signed = name in ("INT8", "INT16", "INT32", "INT64", "FLOAT", "DOUBLE")
    several = {"COMPLEX64": 24, "COMPLEX128": 24, "FLOAT4E2M1": 6, "INT4": 6, "UINT4": 6, "INT2": 3, "UINT2": 3}
    count = several.get(name, 12)
    numbers = np.random.default_rng(0).integers(-100 if signed else 0, 2 if name == "BOOL" else 100, count).tolist()
    getattr(tensor, helper.tensor_dtype_to_field(dtype)).extend(numbers)
    expected, found = numpy_helper.to_array(tensor), array_of(tensor)
    assert found.dtype == expected.dtype
    assert found.shape == (3, 4)
    assert found.tobytes() == expected.tobytes()
