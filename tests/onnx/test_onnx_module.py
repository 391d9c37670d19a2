"""Models from files as modules: names, gradients, training, compilation, and what PyTorch exports."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

import pycnn
import pycnn.onnx
from pycnn import models, nn, optim
from pycnn.onnx import ModelError


def _of_file(network: nn.Module, shape: tuple[int, ...], path: Path) -> pycnn.onnx.OnnxModule:
    pycnn.onnx.export(network, np.zeros(shape, np.float32), path)
    return pycnn.onnx.load(path)


def _close(a: Any, b: Any, terms: int) -> None:
    """Equal but for the rounding of sums of so many terms, taken in another order."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 2**-23 * np.sqrt(terms) * np.abs(b).max()


def test_a_network_comes_back_with_its_names_and_values(tmp_path: Path) -> None:
    network = models.lenet5().eval()
    loaded = _of_file(network, (1, 1, 32, 32), tmp_path / "lenet5.onnx")
    assert loaded.state_dict().keys() == network.state_dict().keys()
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)
    with pycnn.no_grad(), pycnn.use_accuracy("strict"):
        _close(loaded(pycnn.Tensor(x)).data, network(pycnn.Tensor(x)).data, 400)


def test_it_trains(tmp_path: Path) -> None:
    pycnn.manual_seed(0)
    loaded = _of_file(models.lenet5(), (1, 1, 32, 32), tmp_path / "lenet5.onnx")
    optimizer = optim.Adam(loaded.parameters(), lr=0.01)
    random = np.random.default_rng(0)
    x = pycnn.Tensor(random.standard_normal((16, 1, 32, 32)).astype(np.float32))
    labels = pycnn.Tensor(random.integers(0, 10, 16))
    losses = []
    for _ in range(30):
        loss = pycnn.functional.cross_entropy(loaded(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_it_compiles(tmp_path: Path) -> None:
    loaded = _of_file(models.lenet5(), (1, 1, 32, 32), tmp_path / "lenet5.onnx").eval()
    x = np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)
    compiled = pycnn.compile(loaded, x)
    with pycnn.no_grad():
        _close(compiled(x), loaded(pycnn.Tensor(x)).data, 400)


def test_a_clip_becomes_the_end_of_a_convolution(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU6(), nn.Conv2d(5, 5, 1)).eval()
    x = 9 * np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    pycnn.onnx.export(network, x, tmp_path / "net.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node] == ["Conv", "Clip", "Conv"]
    loaded = pycnn.onnx.load(tmp_path / "net.onnx").eval()
    compiled = pycnn.compile(loaded, x)
    assert [(node.op, node["clamp"]) for node in compiled.graph.nodes] == [("conv2d", (0.0, 6.0)), ("conv2d", None)]
    with pycnn.no_grad():
        _close(compiled(x), loaded(pycnn.Tensor(x)).data, 27)


def _model(constants: dict[str, np.ndarray]) -> Any:
    """y = x + a + b + ..., the constants by name."""
    nodes, last = [], "x"
    for i, name in enumerate(constants):
        nodes.append(helper.make_node("Add", [last, name], [f"y{i}"]))
        last = f"y{i}"
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_names_that_no_module_can_have_get_others() -> None:
    names = ["a.weight", "a", "a.weight.more", "train", "b..c", "/d/e", "f:0", "single"]
    constants = {name: np.float32([1, 2]) * i for i, name in enumerate(names)}
    constants["single"] = np.float32(5)
    loaded = pycnn.onnx.load(_model(constants))
    keys = list(loaded.state_dict())
    assert len(keys) == len(names)
    assert {"a", "/d/e", "f:0", "single"} <= set(keys)
    assert [name for name, _ in loaded.named_buffers()] == ["single"]
    got = loaded(pycnn.Tensor(np.zeros((1, 2), np.float32)))
    np.testing.assert_array_equal(got.data, [sum(constants.values())])


def test_batches_of_another_size_than_the_file_says() -> None:
    model = _model({"w": np.float32([1, 2])})
    assert pycnn.onnx.load(model)(pycnn.zeros(5, 2)).shape == (5, 2)
    with pytest.raises(ModelError, match=r"shape \(1, 2\), got \(5, 2\)"):
        pycnn.onnx.prepare(model).run([np.zeros((5, 2), np.float32)])
    with pytest.raises(ModelError, match=r"shape \(1, 2\), got \(5, 3\)"):
        pycnn.onnx.load(model)(pycnn.zeros(5, 3))


def test_what_has_no_gradient_says_so() -> None:
    model = _model({"w": np.float32([1, 2])})
    model.graph.node.append(helper.make_node("Mod", ["y0", "w"], ["z"], fmod=1, name="rest"))
    model.graph.output[0].name = "z"
    loaded = pycnn.onnx.load(model)
    result = loaded(pycnn.ones(1, 2))
    with pytest.raises(RuntimeError, match="Mod has no gradient"):
        result.sum().backward()


def _exported(network: Any, x: Any, **options: Any) -> Any:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, x, buffer, dynamo=False, opset_version=17, **options)
    return onnx.load_from_string(buffer.getvalue())


def test_gradients_of_what_pytorch_exported_are_pytorch_s() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 8, 3, stride=2, groups=4),
        torch.nn.Sigmoid(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
        torch.nn.LogSoftmax(1),
    ).double()
    network[1].running_var.uniform_(0.5, 2)
    network[1].running_mean.uniform_(-1, 1)  # the exporter writes equal tensors once
    network.eval()
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    loaded = pycnn.onnx.load(_exported(network, x, **keep))
    expected = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(loaded.state_dict()) == expected
    assert {name for name, _ in loaded.named_parameters()} == {name for name, _ in network.named_parameters()}
    given = pycnn.Tensor(x.detach().numpy(), requires_grad=True)
    y = loaded(given)
    weight = torch.randn(y.shape, dtype=torch.float64)
    (network(x) * weight).sum().backward()
    (y * weight.numpy()).sum().backward()
    # Both compute in float64; sums here have at most 300 terms.
    np.testing.assert_allclose(given.grad.data, x.grad.numpy(), rtol=1e-11, atol=1e-13)
    for name, parameter in network.named_parameters():
        got = loaded.get_submodule(name.rpartition(".")[0])._parameters[name.rpartition(".")[2]]
        np.testing.assert_allclose(got.grad.data, parameter.grad.numpy(), rtol=1e-11, atol=1e-13, err_msg=name)
