"""The tracer: everything a network does is written down, and what cannot be is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
from graphs import GRAPHS, Net, make

import pycnn
from pycnn import functional as F
from pycnn import nn
from pycnn.autograd import Function
from pycnn.compiler import CompileError
from pycnn.compiler.graph import assemble
from pycnn.compiler.tracer import Traced, trace
from pycnn.graph import wrap
from pycnn.tensor import Tensor


def leaves(result: Any) -> list[np.ndarray]:
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in leaves(part)]
    if isinstance(result, dict):
        return [leaf for part in result.values() for leaf in leaves(part)]
    return [] if result is None else [result.numpy()]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_computes_what_the_network_does(name: str) -> None:
    """In float64 on both sides, so that a wrong constant or setting cannot hide in roundings."""
    model, inputs = make(name)
    graph = trace(model, [x.shape[1:] for x in inputs])
    found = oracle.outputs(graph, inputs)
    with pycnn.no_grad():
        expected = model.double().eval()(*[Tensor(x.astype(np.float64)) for x in inputs])
    assert len(leaves(expected)) == len(found)
    for a, b in zip(found, leaves(expected), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-6 * np.abs(b).max()  # parameters such as 2/3 were rounded to float32


def test_the_structure_of_the_result_is_kept() -> None:
    model, inputs = make("intermediate output")
    graph = trace(model, [x.shape[1:] for x in inputs])
    assert assemble(graph.structure, lambda number: number) == {"logits": 0, "hidden": 1, "again": [2, None]}
    assert graph.outputs[1] is graph.outputs[2]


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x**3

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy


def into_an_array(net: Any, x: Any) -> Any:
    kept = np.zeros((2, 4), np.float32)
    kept[0] = x.data
    return x


def into_a_tensor(net: Any, x: Any) -> Any:
    kept = pycnn.zeros(2, 4)
    kept[...] = x
    return kept


def in_place(net: Any, x: Any) -> Any:
    x += 1.0
    return x


def item_in_place(net: Any, x: Any) -> Any:
    x[:, 0] = 0.0
    return x


def branch(net: Any, x: Any) -> Any:
    return x if x.sum() > 0 else -x


def buffer(net: Any, x: Any) -> Any:
    net.layer.weight.copy_(x)
    return x


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "item": (lambda net, x: x * x[:, 0].item(), r"asks for item\(\), float\(\), int\(\) or the truth of"),
    "float": (lambda net, x: x * float(x[:, 0]), r"float\(\)"),
    "truth": (lambda net, x: x if x else -x, "the truth of"),
    "comparison": (lambda net, x: x if (x > 0).all() else -x, r"compares \(by >\)"),
    "branch": (branch, "compares|a sum mixes the images"),
    "numpy": (lambda net, x: Tensor(np.tanh(x.numpy())), r"numpy\(\)"),
    "tolist": (lambda net, x: Tensor(np.array(x.tolist())), "tolist"),
    "asarray": (lambda net, x: Tensor(np.asarray(x)), r"asks for numpy\(\)"),
    "ufunc": (lambda net, x: Tensor(np.tanh(x.data)), r"calls NumPy's tanh\(\) on"),
    "function": (lambda net, x: Tensor(np.concatenate([x.data, x.data])), r"NumPy's concatenate\(\)"),
    "array operator": (lambda net, x: Tensor(x.data * 2), r"computes \(\*\)"),
    "array beside it": (lambda net, x: Tensor(np.ones(4) * x.data), r"NumPy's multiply\(\)"),
    "length": (lambda net, x: x * len(x.data), "asks for elements"),
    "element of the array": (lambda net, x: x * x.data[0, 0], "asks for elements"),
    "method of the array": (lambda net, x: x * x.data.mean(), "mean"),
    "DLPack": (lambda net, x: Tensor(np.from_dlpack(x)), "__dlpack__"),
    "raw operator": (lambda net, x: Tensor(pycnn.ops.relu(x.data)), "__dlpack__|must be an array"),
    "argmax": (lambda net, x: x[:, x.argmax()], "argmax"),
    "isnan": (lambda net, x: F.where(x.isnan(), 0.0, x), r"compares \(by !=\)"),
    "mask": (lambda net, x: x * (x > 0).float(), r"compares \(by >\)"),
    "into an array": (into_an_array, r"asks for numpy\(\)"),
    "into a tensor": (into_a_tensor, r"asks for numpy\(\)"),
    "in place": (in_place, r"changes in place \(by \+=\)"),
    "item in place": (item_in_place, "changes elements in place"),
    "into a buffer": (buffer, r"asks for numpy\(\)"),
    "own function": (lambda net, x: Cube.apply(x), "Cube has no compiled form"),
    "exp": (lambda net, x: x.exp(), "Exp has no compiled form"),
    "index by the input": (lambda net, x: net.layer.weight[x], "GetItem|index"),
    "sorting into the batch": (lambda net, x: x.sum(0, keepdim=True) + x, "mixes the images"),
    "reshape over the batch": (lambda net, x: x.reshape(-1, 2), "mixes the images"),
    "fixed batch": (lambda net, x: x.reshape(2, -1), "mixes the images"),
    "transposed batch": (lambda net, x: x.T, "mixes the images"),
    "first image": (lambda net, x: x[0], "mixes the images"),
    "first two images": (lambda net, x: x[:2], "mixes the images"),
    "product of images": (lambda net, x: x @ x.T, "mixes the images"),
    "softmax over images": (lambda net, x: F.softmax(x, 0), "mixes the images"),
    "concatenated images": (lambda net, x: F.cat([x, x], 0), "mixes the images"),
    "more images": (lambda net, x: F.pad(x, (0, 0, 0, 1)), "mixes the images"),
    "constant of the batch": (lambda net, x: x + pycnn.ones(x.shape[0], 4), "batch as a whole"),
    "constant by the batch": (lambda net, x: x * x.shape[0], "was not the same in two runs"),
    "more steps for more images": (lambda net, x: F.relu(x) if x.shape[0] > 2 else x, "more, or other things"),
    "only two images": (
        lambda net, x: x if x.shape[0] == 2 else x.no_such_thing(),
        "runs with 2 images and not with 3",
    ),
    "chance": (lambda net, x: x * pycnn.Tensor(pycnn.random.uniform(4).astype(np.float32)), "or on chance"),
    "training": (lambda net, x: F.dropout(x, 0.5, training=True), "Dropout has no compiled form"),
    "batch statistics": (lambda net, x: F.batch_norm(x, training=True), "BatchNorm has no compiled form"),
    "double": (lambda net, x: x.double(), "conversion to float64"),
    "double constant": (lambda net, x: x + np.ones(4), "is float64, not float32"),
    "constant result": (lambda net, x: (x, net.layer.bias), "does not depend on the input"),
    "result of a number": (lambda net, x: (x, 5), "got int"),
    "no result": (lambda net, x: None, "holds no tensor"),
    "cube": (lambda net, x: x**3, "power of 3"),
    "two shapes": (lambda net, x: x * x[:, :1], "different shapes"),
    "filters from the input": (lambda net, x: F.linear(net.layer.weight, x[:, :4]), "depends on the input"),
    "padding with ones": (lambda net, x: F.pad(x, (1, 1), value=1.0), "padding with 1.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_refused_by_name(name: str) -> None:
    function, words = REFUSED[name]
    model = Net(lambda net, x: function(net, net.layer(x)), layer=nn.Linear(4, 4))
    with pytest.raises(CompileError, match=words):
        trace(model, [(4,)])
    # None of these is about the network itself: eager runs it, or fails with an error of its own.


def test_the_module_is_named() -> None:
    inner = nn.Sequential(nn.ReLU(), Net(lambda net, x: x.exp()))
    with pytest.raises(CompileError, match=r"Exp has no compiled form \(in module 1\.1\)"):
        trace(nn.Sequential(nn.Linear(4, 4), inner), [(4,)])
    graph = trace(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU())), [(4,)])
    assert [node.name for node in graph.nodes] == ["0", "1.0"]


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = make("shared")
    model.stem.eval()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    trace(model, [x.shape[1:] for x in inputs])
    for function in (REFUSED["exp"][0], REFUSED["only two images"][0]):
        model.function = function
        with pytest.raises(CompileError):
            trace(model, [x.shape[1:] for x in inputs])
    assert model.training
    assert not model.stem.training
    assert not any(module._hooks or module._pre_hooks for module in model.modules())
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    assert pycnn.is_grad_enabled()
    assert (2 * pycnn.ones(1)).item() == 2.0  # no tracer is left behind


def test_hooks_of_the_caller_are_part_of_the_network() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].register_forward_hook(lambda module, args, result: F.relu(result))
    assert [node.op for node in trace(model, [(4,)]).nodes] == ["linear", "relu"]


def test_errors_of_the_network_are_its_own() -> None:
    with pytest.raises(ValueError, match="channels disagree"):
        trace(nn.Conv2d(3, 4, 3), [(5, 8, 8)])
    with pytest.raises(ValueError, match="takes input of rank 4"):
        trace(nn.BatchNorm2d(3), [(3,)])
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        trace(make("two inputs")[0], [(3, 6, 6)])


def test_what_comes_from_parameters_alone_is_computed_once() -> None:
    def forward(net: Any, x: Any) -> Any:
        weight = net.layer.weight.exp() / net.layer.weight.exp().sum()  # no operation of these has a compiled form
        return F.linear(x, weight, net.layer.bias.detach().clone())

    model = Net(forward, layer=nn.Linear(4, 3))
    (node,) = trace(model, [(4,)]).nodes
    expected = np.exp(model.layer.weight.data)
    np.testing.assert_allclose(node.constants["w"], expected / expected.sum(), rtol=1e-6)
    assert node.constants["b"] is not model.layer.bias.data


def test_a_tensor_kept_from_an_earlier_run_is_refused() -> None:
    kept: list[Any] = []

    def forward(net: Any, x: Any) -> Any:
        kept.append(x)
        return F.relu(kept[0])

    with pytest.raises(CompileError, match="earlier run"):
        trace(Net(forward), [(4,)])
    model = Net(lambda net, x: (kept.append(F.relu(x)), x)[1])
    trace(model, [(4,)])
    with pytest.raises(CompileError, match=r"numpy\(\)"):
        kept[-1].numpy()
    with pytest.raises((TypeError, CompileError)):
        F.relu(kept[-1])  # outside of the tracer too, it never becomes an array


def test_traced_arrays_look_like_arrays_without_values() -> None:
    seen = {}

    def forward(net: Any, x: Any) -> Any:
        array = x.data
        seen.update(shape=x.shape, dtype=x.dtype, ndim=x.ndim, size=x.numel(), device=x.device, cuda=x.is_cuda)
        seen.update(bytes=array.nbytes, repr=repr(array), contiguous=x.contiguous() is x, same=x.to("cpu") is x)
        assert isinstance(array, Traced)
        return F.relu(Tensor(x)) + F.relu(wrap(x.detach().data))

    trace(Net(forward), [(4, 5)])
    assert seen.pop("repr") == "<values of shape (3, 4, 5), which are not computed while the network is compiled>"
    assert seen == {
        **{"shape": (3, 4, 5), "dtype": np.float32, "ndim": 3, "size": 60, "device": "cpu", "cuda": False},
        **{"bytes": 240, "contiguous": True, "same": True},
    }


def test_operations_by_another_name() -> None:
    """Forms that become an operation there is."""
    cases: dict[str, tuple[Callable[..., Any], list[str]]] = {
        "clamp": (lambda net, x: x.clamp(min=0), ["relu"]),
        "clamp on both sides": (lambda net, x: x.clamp(0, 6), ["activation"]),
        "maximum": (lambda net, x: x.maximum(0.0), ["relu"]),
        "mean": (lambda net, x: x.mean((2, 3)), ["mean", "affine", "reshape", "affine"]),
        "nothing": (lambda net, x: x.reshape(x.shape).clone().float().contiguous()[...], []),
        "zeros": (lambda net, x: F.pad(F.pad(x, (0, 0)), (-1, 0)), ["pad", "slice", "pad"]),
    }
    for name, (function, ops) in cases.items():
        graph = trace(Net(lambda net, x, function=function: function(net, x)), [(3, 4, 4)])
        assert [node.op for node in graph.nodes] == ops, name


def test_an_image_is_not_a_batch() -> None:
    with pytest.raises(CompileError, match=r"mixes the images|must have 4 dimensions"):
        trace(nn.Conv2d(3, 4, 3), [(8, 8)])


def test_functions_of_plain_arrays_are_followed_or_refused() -> None:
    """A network may leave Tensors for arrays; what records nothing there is refused, not lost."""
    graph = trace(Net(lambda net, x: F.tanh(F.relu(x.data))), [(4,)])
    assert [node.op for node in graph.nodes] == ["relu", "tanh"]
    for function in (lambda x: F.pad(x, (1, 1)), lambda x: F.cat([x, x], 1)):
        with pytest.raises((CompileError, TypeError), match=r"__dlpack__|must be a Tensor or an array"):
            trace(Net(lambda net, x, function=function: function(x.data)), [(4,)])
