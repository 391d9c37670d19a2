"""Networks written to ONNX files, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pycnn
from pycnn import Tensor, models, nn
from pycnn import functional as F
from pycnn.cli import main
from pycnn.compiler import CompileError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from pycnn.onnx.writer import export, to_model  # noqa: E402

RNG = np.random.default_rng(0)


def drawn(model: nn.Module) -> nn.Module:
    """He et al.'s weights, small biases, and statistics that are not those of a new network."""
    rng = np.random.default_rng(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype != np.float32:
            continue
        shape = tensor.shape
        if len(shape) > 1:
            tensor.data[...] = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            positive = name.endswith(("running_var", "weight"))
            tensor.data[...] = rng.uniform(0.5, 1.5, shape) if positive else 0.1 * rng.standard_normal(shape)
    return model.eval()


def leaves(result: Any) -> list[np.ndarray]:
    if isinstance(result, dict):
        result = list(result.values())
    return [part.numpy() for part in result] if isinstance(result, (tuple, list)) else [result.numpy()]


def expect_same(model: nn.Module, proto: Any, *inputs: np.ndarray) -> list[str]:
    """What onnxruntime computes is what the network does; the operators that the model consists of.

    Both round float32 in an order of their own: a sum of n products is off by sqrt(n) * 2^-24 of it or so, tens of
    layers by a few times that, and Winograd's by tens of times.
    """
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, dict(zip(names, inputs, strict=True)))
    with pycnn.no_grad():
        expected = leaves(model(*map(Tensor, inputs)))
    assert len(found) == len(expected)
    for y, right in zip(found, expected, strict=True):
        assert y.shape == right.shape
        assert np.abs(right).max() > 1e-3, "a comparison of nothing"
        assert np.abs(y - right).max() <= 1e-4 * np.abs(right).max()
    return [node.op_type for node in proto.graph.node]


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def conv(*sizes: int, **options: Any) -> nn.Module:
    return nn.Conv2d(*sizes, **options)


# By name: the network, the shape of an image, and the operators that it becomes.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "conv": (
        lambda: conv(4, 6, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (4, 9, 11),
        "Conv",
    ),
    "no bias": (lambda: conv(3, 5, 3, bias=False), (3, 7, 7), "Conv"),
    "batch norm": (
        lambda: nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        (3, 8, 8),
        "Conv Relu",
    ),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), (3, 8, 8), "Mul Add Relu"),
    "shortcut": (
        lambda: Of(lambda m, x: F.relu(m.body(x) + x), body=conv(3, 3, 3, padding=1)),
        (3, 8, 8),
        "Conv Add Relu",
    ),
    "product": (lambda: Of(lambda m, x: F.relu(F.tanh(x) * F.sigmoid(x))), (3, 5), "Tanh Sigmoid Mul Relu"),
    "squeeze and excite": (
        lambda: Of(lambda m, x: F.relu(x * F.sigmoid(x[:, :, :1, :1]))),
        (3, 5, 6),
        "Slice Sigmoid Mul Relu",
    ),
    "permute": (lambda: Of(lambda m, x: x.transpose(1, 3)), (3, 5, 6), "Transpose"),
    "relu6": (nn.ReLU6, (3, 5), "Clip"),
    "clamp": (lambda: Of(lambda m, x: x.clamp(max=0.3).clamp(min=-0.2)), (3, 5), "Clip Clip"),
    "elu": (lambda: nn.Sequential(nn.ELU(0.7), nn.SELU(), nn.CELU(0.6)), (3, 5), "Elu Selu Celu"),
    "gelu": (
        lambda: nn.Sequential(nn.GELU(), nn.GELU("tanh")),
        (3, 5),
        "Mul Erf Mul Add Mul Mul Mul Mul Add Mul Sigmoid Mul",
    ),
    "hard": (
        lambda: nn.Sequential(nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(-0.4, 0.6)),
        (3, 5),
        "HardSwish HardSigmoid Clip",
    ),
    "leaky": (lambda: nn.LeakyReLU(0.2), (3, 5), "LeakyRelu"),
    "logsigmoid": (nn.LogSigmoid, (3, 5), "Neg Softplus Neg"),
    "mish": (nn.Mish, (3, 5), "Softplus Tanh Mul"),
    "silu": (nn.SiLU, (3, 5), "Sigmoid Mul"),
    "softplus": (lambda: nn.Sequential(nn.Softplus(), nn.Softplus(2.0)), (3, 5), "Softplus Mul Softplus Div"),
    "shrink": (lambda: nn.Sequential(nn.Hardshrink(0.2), nn.Softshrink(0.1)), (3, 5), "Shrink Shrink"),
    "soft": (lambda: nn.Sequential(nn.Softsign(), nn.Tanhshrink()), (3, 5), "Softsign Tanh Sub"),
    "threshold": (lambda: nn.Threshold(0.1, 0.7), (3, 5), "Greater Where"),
    "linear": (lambda: nn.Sequential(nn.Linear(7, 5), nn.ReLU()), (7,), "Gemm Relu"),
    "flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 5, bias=False)), (2, 3, 4), "Reshape Gemm"),
    "branches": (
        lambda: Of(lambda m, x: pycnn.cat([m.a(x), m.b(x)], 1), a=conv(3, 2, 1), b=conv(3, 4, 3, padding=1)),
        (3, 6, 6),
        "Conv Conv Concat",
    ),
    "pad": (lambda: Of(lambda m, x: F.pad(x, (1, 0, 2, 3))), (3, 5, 6), "Pad"),
    "slice": (lambda: Of(lambda m, x: x[:, 1:, ::2, 1:5]), (3, 5, 6), "Slice"),
    "max pool": (
        lambda: nn.MaxPool2d(3, stride=2, padding=1, dilation=2, ceil_mode=True),
        (3, 11, 12),
        "MaxPool",
    ),
    "average": (lambda: nn.AvgPool2d((2, 3), stride=2, padding=1), (3, 8, 9), "AveragePool"),
    "average without padding": (
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        (3, 8, 9),
        "AveragePool",
    ),
    "average with a divisor": (lambda: nn.AvgPool2d(3, 2, 1, divisor_override=4), (3, 8, 9), "AveragePool Mul"),
    "mean": (lambda: nn.AdaptiveAvgPool2d(1), (3, 8, 9), "GlobalAveragePool"),
    "adaptive average": (
        lambda: nn.AdaptiveAvgPool2d((2, 3)),
        (3, 7, 3),
        "Slice ReduceMean Slice ReduceMean Concat " + "Slice ReduceMean " * 3 + "Concat",
    ),
    "adaptive maximum": (
        lambda: nn.AdaptiveMaxPool2d(2),
        (3, 7, 5),
        "Slice ReduceMax Slice ReduceMax Concat " * 2,
    ),
    "lrn": (lambda: nn.LocalResponseNorm(5, 0.3, 0.7, 2.0), (9, 4, 4), "LRN"),
    "softmax": (lambda: Of(lambda m, x: F.softmax(x, 2)), (3, 4, 5), "Softmax"),
    "log softmax": (lambda: Of(lambda m, x: F.log_softmax(x, -1)), (7,), "LogSoftmax"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_operation(name: str) -> None:
    make, shape, ops = NETWORKS[name]
    model = drawn(make())
    x = RNG.standard_normal((3, *shape), np.float32)
    assert expect_same(model, to_model(model, x[:1]), x) == ops.split()


FAST = ("lenet5", "lenet5_1998", "resnet20", "resnet18", "googlenet", "mobilenet_v2", "shufflenet_v2_x0_5")


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one in FAST else pytest.mark.slow) for one in models.list_models()]
)
def test_our_networks(name: str) -> None:
    model = drawn(models.create(name))
    x = RNG.standard_normal((2, *models.info(name).input_shape), np.float32)
    expect_same(model, to_model(model, x[:1]), x)


def test_several_inputs_and_outputs() -> None:
    model = Of(lambda m, a, b: {"sum": a + b, "first": F.relu(a), "again": a})
    a, b = RNG.standard_normal((2, 2, 3, 4), np.float32)
    proto = to_model(model, (a, b))
    assert [value.name for value in proto.graph.input] == ["input_0", "input_1"]
    assert [value.name for value in proto.graph.output] == ["output_0", "output_1", "output_2"]
    expect_same(model, proto, a, b)
    named = to_model(model, (a, b), input_names=["a", "b"], output_names=["x", "y", "z"])
    assert [value.name for value in [*named.graph.input, *named.graph.output]] == ["a", "b", "x", "y", "z"]
    expect_same(model, named, a, b)


def test_a_result_handed_back_twice_and_an_input_as_a_result() -> None:
    def twice(m: nn.Module, x: Any) -> Any:
        y = F.relu(x)
        return y, y, x, F.tanh(y)

    model, x = Of(twice), RNG.standard_normal((2, 3), np.float32)
    expect_same(model, to_model(model, x), x)


def test_weights_keep_their_names() -> None:
    model = drawn(nn.Sequential(conv(3, 8, 3), nn.ReLU(), nn.Sequential(conv(8, 2, 3))))
    proto = to_model(model, np.zeros((1, 3, 8, 8), np.float32))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    state = model.state_dict()
    assert weights.keys() == state.keys()
    assert all(np.array_equal(array, np.asarray(state[name])) for name, array in weights.items())


def test_a_layer_used_twice_is_written_twice() -> None:
    layer = conv(3, 3, 3, padding=1)
    model = drawn(Of(lambda m, x: m.layer(F.relu(m.layer(x))), layer=layer))
    x = RNG.standard_normal((2, 3, 6, 6), np.float32)
    expect_same(model, to_model(model, x), x)


def test_what_was_compiled_is_exported(tmp_path: Path) -> None:
    model = drawn(models.create("resnet20"))
    x = RNG.standard_normal((2, 3, 32, 32), np.float32)
    export(pycnn.compile(model, x), None, tmp_path / "net.onnx")
    expect_same(model, onnx.load(tmp_path / "net.onnx"), x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.LocalResponseNorm(4), "over 4 channels, an even number, is no operator"),
        (
            nn.Sequential(nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True, divisor_override=3)),
            r"ceil_mode .* \(in module 1\)",
        ),
        (Of(lambda m, x: x.sum()), "mixes the images"),
    ],
    ids=["lrn", "divisor", "batch"],
)
def test_what_has_no_operator_is_refused(model: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=message):
        export(model, np.zeros((1, 4, 5, 5), np.float32), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"input_names": ["a", "b"]}, "input_names must be 1 names, got 2: a, b"),
        ({"output_names": []}, "output_names must be 1 names, got 0"),
        ({"output_names": [""]}, "output_names must be different and not empty, got ''"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_model(nn.ReLU(), np.zeros((1, 4), np.float32), **names)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.onnx"
    assert main(["export", "resnet20", "--classes", "7", "--input", "3x24x40", "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: resnet20, 3x24x40, 1.03 MiB\n"
    session = onnxruntime.InferenceSession(file)
    assert session.get_inputs()[0].shape == ["N", 3, 24, 40]
    assert session.get_outputs()[0].shape == ["N", 7]
    assert main(["export", "resnet20", "--out", str(tmp_path / "absent" / "net.onnx")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
