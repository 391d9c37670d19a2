"""Reading and refusing models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

import pycnn.onnx
from pycnn.onnx import ModelError, UnsupportedModelError
from pycnn.onnx.graph import load

FLOAT = TensorProto.FLOAT


def _model(nodes: list[Any], inputs: dict[str, Any], outputs: list[str], opset: int = 17, **more: Any) -> Any:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in more.pop("constants", {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more)


def _relu(**more: Any) -> Any:
    return _model([helper.make_node("Relu", ["x"], ["y"], name="first")], {"x": (2, 3)}, ["y"], **more)


def test_a_path_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"must be an onnx[.]ModelProto, as onnx[.]load reads one, got str"):
        pycnn.onnx.prepare("model.onnx")


def test_all_unsupported_operators_are_named_at_once() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("LSTM", ["a", "w", "r"], ["b"], name="memory", hidden_size=1),
        helper.make_node("Magic", ["b"], ["c"], name="spell", domain="com.example"),
        helper.make_node("Magic", ["c"], ["y"], domain="com.example"),
    ]
    model = _model(nodes, {"x": (1, 1, 1), "w": (1, 4, 1), "r": (1, 4, 1)}, ["y"])
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(UnsupportedModelError) as caught:
        pycnn.onnx.prepare(model)
    assert caught.value.missing == (
        ("LSTM", "", 17, ("memory",)),
        ("Magic", "com.example", 3, ("spell", "-> y")),
    )
    for part in ("ai.onnx.LSTM (opset 17) in memory", "com.example.Magic (opset 3) in spell, -> y"):
        assert part in str(caught.value)


def test_unsupported_operators_of_branches_are_named() -> None:
    inner = helper.make_graph(
        [helper.make_node("Multinomial", ["x"], ["z"], name="inside")],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.INT32, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    model = _model([node], {"x": (1, 1)}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, ()))
    with pytest.raises(UnsupportedModelError, match=r"Multinomial \(opset 17\) in inside, inside"):
        pycnn.onnx.prepare(model)


@pytest.mark.parametrize("keep", [0, 1, 10, 0.5, 0.9, -1])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path: Path, keep: float) -> None:
    w = np.arange(200.0, dtype=np.float32).reshape(20, 10)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    content = _model([node], {"x": (1, 20)}, ["y"], constants={"w": w}).SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        load(path)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ModelError, match=r"photo\.onnx"):
        load(path)
    with pytest.raises(OSError, match="missing"):
        load(tmp_path / "missing.onnx")


def test_a_tensor_with_too_few_bytes_is_named() -> None:
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (3,)}, ["y"])
    model.graph.initializer.append(TensorProto(name="w", data_type=FLOAT, dims=[3], raw_data=b"\0" * 8))
    with pytest.raises(ModelError, match="w"):
        pycnn.onnx.prepare(model)


def _broken(kind: str) -> Any:
    model = _relu()
    node = model.graph.node[0]
    if kind == "input":
        node.input[0] = "nowhere"
    elif kind == "output":
        model.graph.output[0].name = "nowhere"
    elif kind == "twice":
        model.graph.node.append(node)
    elif kind == "new opset":
        model.opset_import[0].version = 99
    elif kind == "circle":
        node.input[0] = "z"
        model.graph.node.append(helper.make_node("Relu", ["y"], ["z"], name="second"))
    elif kind == "attribute":
        node.attribute.append(helper.make_attribute("colour", 1))
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("input", "nowhere"),
        ("output", "nowhere"),
        ("twice", "y"),
        ("new opset", "99"),
        ("circle", "wait for each other: .*(first, second|second, first)"),
        ("attribute", "colour"),
    ],
)
def test_an_invalid_graph_is_refused(kind: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pycnn.onnx.prepare(_broken(kind))


def test_nodes_in_any_order() -> None:
    """The standard has them sorted; tools that insert some append them, and onnxruntime sorts too."""
    inner = helper.make_graph(
        [helper.make_node("Add", ["late", "c"], ["b"])],
        "inner",
        [],
        [helper.make_tensor_value_info("b", FLOAT, None)],
        [numpy_helper.from_array(np.float32(100), "c")],
    )
    nodes = [
        helper.make_node("Mul", ["a", "late"], ["y"]),
        helper.make_node("If", ["yes"], ["a"], then_branch=inner, else_branch=inner),
        helper.make_node("Cast", ["one"], ["yes"], to=TensorProto.BOOL),
        helper.make_node("Neg", ["x"], ["late"]),
    ]
    model = _model(nodes, {"x": (2,)}, ["y"], constants={"one": np.array(1)})
    (y,) = pycnn.onnx.prepare(model).run([np.float32([1, 2])])
    np.testing.assert_array_equal(y, [-99, -196])


def test_weights_in_files_of_their_own(tmp_path: Path) -> None:
    w = np.arange(600.0, dtype=np.float32).reshape(3, 200)
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (1, 3)}, ["y"], constants={"w": w})
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(load(path).constants["w"], w)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=r"model\.onnx.*'w'"):
        load(path)


def test_a_constant_among_the_inputs_may_be_left_out() -> None:
    w = np.float32([10, 20, 30])
    model = _model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (3,), "w": (3,)}, ["y"], constants={"w": w})
    prepared = pycnn.onnx.prepare(model)
    x = np.float32([1, 2, 3])
    np.testing.assert_array_equal(prepared.run([x])[0], x + w)
    np.testing.assert_array_equal(prepared.run([x, x])[0], 2 * x)
    np.testing.assert_array_equal(prepared.run({"x": x})[0], x + w)


def test_functions_that_a_model_brings_along() -> None:
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    model = _model([helper.make_node("Twice", ["x"], ["y"], domain="local")], {"x": (2,)}, ["y"], functions=[function])
    model.opset_import.append(helper.make_opsetid("local", 1))
    np.testing.assert_array_equal(pycnn.onnx.prepare(model).run([np.float32([1, 2])])[0], [2, 4])


def _with_function(function: Any, opset: int = 17) -> Any:
    """Two calls of local.F: with its default, and with a slope of 0.5."""
    nodes = [
        helper.make_node("F", ["x"], ["y"], domain="local"),
        helper.make_node("F", ["x"], ["z"], domain="local", slope=0.5),
    ]
    model = _model(nodes, {"x": (2,)}, ["y", "z"], opset, functions=[function])
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


def test_defaults_of_the_attributes_of_functions() -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    opsets = [helper.make_opsetid("", 17)]
    defaults = [helper.make_attribute("slope", 0.25)]
    model = _with_function(helper.make_function("local", "F", ["a"], ["b"], [leaky], opsets, attribute_protos=defaults))
    content = model.SerializeToString()
    y, z = pycnn.onnx.prepare(model).run([np.float32([-1, 2])])
    np.testing.assert_array_equal(y, [-0.25, 2])
    np.testing.assert_array_equal(z, [-0.5, 2])
    assert model.SerializeToString() == content


def test_functions_that_overload_a_name() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    call = helper.make_node("F", ["a"], ["b"], domain="local", overload="plain")
    functions = [
        helper.make_function("local", "F", ["a"], ["b"], [node], opsets, overload=name)
        for name, node in {"plain": helper.make_node("Neg", ["a"], ["b"]), "calling": call}.items()
    ]
    node = helper.make_node("F", ["x"], ["y"], domain="local", overload="calling")
    model = _model([node], {"x": (2,)}, ["y"], functions=functions)
    model.opset_import.append(helper.make_opsetid("local", 1))
    np.testing.assert_array_equal(pycnn.onnx.prepare(model).run([np.float32([1, -2])])[0], [-1, 2])


def test_functions_of_another_opset_than_the_model_s() -> None:
    """Their operators must have the form that they have in the model's opset."""

    def model(node: Any) -> Any:
        opsets = [helper.make_opsetid("", 11)]
        return _with_function(helper.make_function("local", "F", ["a"], ["b"], [node], opsets, attributes=["slope"]))

    y, z = pycnn.onnx.prepare(model(helper.make_node("Elu", ["a"], ["b"]))).run([np.float32([0, 2])])
    np.testing.assert_array_equal([y, z], [[0, 2]] * 2)
    with pytest.raises(ModelError, match=r"function .F. has the ReduceSum of opset 11, which is not that of .* 17"):
        pycnn.onnx.prepare(model(helper.make_node("ReduceSum", ["a"], ["b"], axes=[0])))


def test_sparse_tensors_are_refused_before_anything_runs() -> None:
    values = numpy_helper.from_array(np.float32([5]), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.int64([1]), "places"), [3])
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse, name="thin"),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    with pytest.raises(ModelError, match=r"Constant 'thin' holds a sparse tensor"):
        pycnn.onnx.prepare(_model(nodes, {"x": (3,)}, ["y"]))
    model = _model(nodes[1:], {"x": (3,)}, ["y"])
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match="sparse tensors"):
        pycnn.onnx.prepare(model)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64])
@pytest.mark.parametrize("rounds", [0, 3])
def test_what_the_rounds_of_a_loop_make(rounds: int, dtype: int) -> None:
    """Of no rounds nothing, but of the dtype and the shape of what each would have made."""
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, ())
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"]),
            helper.make_node("Add", ["a", "a"], ["b"]),
            helper.make_node("Cast", ["b"], ["made"], to=dtype),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, ()),
            going,
            helper.make_tensor_value_info("a", FLOAT, (2,)),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("b", FLOAT, (2,)),
            helper.make_tensor_value_info("made", dtype, (2,)),
        ],
    )
    node = helper.make_node("Loop", ["rounds", "", "x"], ["y", "all"], body=body)
    model = _model([node], {"x": (2,)}, ["y", "all"], constants={"rounds": np.array(rounds)})
    y, made = pycnn.onnx.prepare(model).run([np.float32([1, -3])])
    np.testing.assert_array_equal(y, np.float32([1, -3]) * 2**rounds)
    assert made.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    assert made.shape == (rounds, 2)
    np.testing.assert_array_equal(made, np.outer([2.0**i for i in range(1, rounds + 1)], [1, -3]))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "takes 1 inputs"),
        ([np.zeros((2, 3), np.float32)] * 2, "takes 1 inputs"),
        ([np.zeros((2, 3))], "'x' must be float32, got float64"),
        ([np.zeros((3, 2), np.float32)], r"'x' must have shape \(2, 3\), got \(3, 2\)"),
        ({"z": np.zeros((2, 3), np.float32)}, "no input 'z'"),
        ({}, "'x' is missing"),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pycnn.onnx.prepare(_relu()).run(inputs)


def test_a_node_that_cannot_compute_is_named() -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="sum")]
    model = _model(nodes, {"x": ("N",), "w": ("M",)}, ["y"])
    with pytest.raises(ModelError, match=r"Add 'sum' of float32 \(2,\), float32 \(3,\)"):
        pycnn.onnx.prepare(model).run([np.zeros(2, np.float32), np.zeros(3, np.float32)])


def test_inputs_are_left_as_they_are() -> None:
    x = np.float32([[-1, 2, -3], [4, -5, 6]])
    kept = x.copy()
    prepared = pycnn.onnx.prepare(_relu())
    np.testing.assert_array_equal(prepared.run([x])[0], np.maximum(x, 0))
    np.testing.assert_array_equal(prepared.run([x])[0], np.maximum(x, 0))
    np.testing.assert_array_equal(x, kept)


def test_one_node_by_itself() -> None:
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    x = np.float32([-1, 2, 5])
    (y,) = pycnn.onnx.run_node(node, [x, None, np.float32(3)])
    np.testing.assert_array_equal(y, [-1, 2, 3])
    (y,) = pycnn.onnx.run_node(helper.make_node("Clip", ["x"], ["y"], min=0.0), [x], opset_version=6)
    np.testing.assert_array_equal(y, [0, 2, 5])


def test_devices() -> None:
    assert pycnn.onnx.supports_device("CPU")
    assert not pycnn.onnx.supports_device("TPU")
    with pytest.raises(ValueError, match="tpu"):
        pycnn.onnx.prepare(_relu(), "TPU")
    with pytest.raises(ValueError, match="accuracy must be"):
        pycnn.onnx.prepare(_relu(), accuracy="some")


def test_names_that_are_no_text_are_refused() -> None:
    content = _relu().SerializeToString().replace(b"Relu", b"Re\xffu")
    with pytest.raises(ModelError, match="is no name"):
        pycnn.onnx.prepare(onnx.ModelProto.FromString(content))


def test_names_in_functions_that_are_no_text_are_refused() -> None:
    elu = helper.make_node("Elu", ["a"], ["b"])
    function = helper.make_function("local", "F", ["a"], ["b"], [elu], [helper.make_opsetid("", 11)], ["slope"])
    content = _with_function(function).SerializeToString().replace(b"Elu", b"E\xffu")
    with pytest.raises(ModelError, match="is no name"):
        pycnn.onnx.prepare(onnx.ModelProto.FromString(content))


def test_damaged_files_are_refused_and_nothing_worse(tmp_path: Path) -> None:
    """Bytes changed, cut out and put in: a model that is not valid any more, or one that still is."""
    random = np.random.default_rng(0)
    path, accepted, refused = tmp_path / "damaged.onnx", 0, 0
    w = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=1),
        helper.make_node("Transpose", ["b"], ["y"], perm=[1, 0]),
    ]
    whole = _model(nodes, {"x": (2, 3)}, ["y"], constants={"w": w}).SerializeToString()
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(content)))
            kind = random.integers(3)
            if kind == 0:
                content[place] = random.integers(256)
            elif kind == 1:
                del content[place : place + int(random.integers(1, 20))]
            else:
                content[place:place] = random.bytes(3)
        path.write_bytes(content)
        try:
            load(path)
        except ModelError as error:
            refused += "damaged.onnx" in str(error)
            continue
        accepted += 1
    assert accepted + refused == 2000
    assert 0 < refused < 2000
