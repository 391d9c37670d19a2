"""pycnn inside PyTorch: operators that PyTorch's own checks accept, and models that train with swapped layers."""

from __future__ import annotations

import copy
import importlib
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import pycnn

torch = pytest.importorskip("torch")
nn, theirs = torch.nn, torch.nn.functional
ours = importlib.import_module("pycnn.torch")

LAST = torch.channels_last


def values(*shape: int, dtype: Any = torch.float64, last: bool = False, grad: bool = True) -> Any:
    tensor = torch.randn(shape, dtype=dtype)
    return (tensor.to(memory_format=LAST) if last else tensor).requires_grad_(grad)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# A function of torch's and ours, by name, and random arguments for it: tensors, then settings.
def _conv2d(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    groups, r, s = pick.choice([1, 1, 2, 4]), pick.randint(1, 4), pick.randint(1, 3)
    padding = pick.choice([0, 2, (1, 0), "valid", "same"])
    how = {
        "stride": 1 if padding == "same" else pick.choice([1, 2, (2, 1), (3,)]),
        "padding": padding,
        "dilation": pick.choice([1, (1, 2)]),
        "groups": groups,
    }
    x = values(*pick.choice([(2, 4), (1, 4), (4,)]), pick.randint(6, 9), pick.randint(6, 9))
    return [x, values(4, 4 // groups, r, s), pick.choice([None, values(4)])], how


def _conv_transpose2d(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    groups, stride = pick.choice([1, 2]), pick.choice([1, 2, (3, 2)])
    how = {
        "stride": stride,
        "padding": pick.choice([0, 1, (1, 0)]),
        "output_padding": 0 if stride == 1 else 1,
        "groups": groups,
        "dilation": pick.choice([1, 2]),
    }
    x = values(*pick.choice([(2, 4), (4,)]), pick.randint(3, 6), pick.randint(3, 6))
    return [x, values(4, 6 // groups, pick.randint(2, 3), 3), pick.choice([None, values(6)])], how


def _linear(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    x = values(*pick.choice([(3, 5), (2, 3, 5), (5,)]))
    return [x, values(4, 5), pick.choice([None, values(4)])], {}


def _max_pool2d(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    how = {
        "kernel_size": pick.choice([2, 3, (3, 2)]),
        "stride": pick.choice([None, 1, (2, 3)]),
        "padding": pick.choice([0, 1]),
        "dilation": pick.choice([1, (2, 1)]),
        "ceil_mode": pick.choice([True, False]),
    }
    return [values(*pick.choice([(2, 3), (3,)]), pick.randint(6, 9), pick.randint(6, 9))], how


def _avg_pool2d(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    tensors, how = _max_pool2d(pick)
    del how["dilation"]
    how["count_include_pad"] = pick.choice([True, False])
    how["divisor_override"] = pick.choice([None, 5])
    return tensors, how


def _adaptive_avg_pool2d(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    return [values(*pick.choice([(2, 3), (3,)]), 7, 5)], {"output_size": pick.choice([1, 3, (2, None), (9, 2)])}


def _batch_norm(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    stored = [values(3, grad=False), torch.rand(3, dtype=torch.float64) + 0.1]
    affine = [values(3), values(3)] if pick.choice([True, False]) else [None, None]
    how = {"training": pick.choice([True, False]), "momentum": 0.3, "eps": 1e-3}
    return [values(3, 3, 4, 5), *stored, *affine], how


def _relu(pick: random.Random) -> tuple[list[Any], dict[str, Any]]:
    return [values(*pick.choice([(3,), (2, 3, 4, 5), ()]))], {}


MAKERS: dict[str, Callable[[random.Random], tuple[list[Any], dict[str, Any]]]] = {
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "batch_norm": _batch_norm,
    "relu": _relu,
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", MAKERS)
def test_values_and_gradients_are_torchs(name: str, seed: int) -> None:
    tensors, how = MAKERS[name](random.Random(seed))
    given = [copy.deepcopy(tensors) for _ in range(2)]
    results = [getattr(module, name)(*mine, **how) for module, mine in zip((ours, theirs), given, strict=True)]
    dy = torch.randn_like(results[1])
    for y in results:
        y.backward(dy)
    # float64: sums of at most 100 products of values under 5, in another order.
    near = {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(*results, **near)
    for mine, other in zip(*given, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine, other, **near)  # running statistics are written
            torch.testing.assert_close(mine.grad, other.grad, **near)


@pytest.mark.parametrize("name", MAKERS)
def test_gradcheck_and_gradgradcheck(name: str) -> None:
    tensors, how = MAKERS[name](random.Random(3))
    how.pop("momentum", None)
    asked = [one for one in tensors if one is not None and one.requires_grad]

    def call(*given: Any) -> Any:
        rest = iter(given)
        return getattr(ours, name)(*[next(rest) if any(one is a for a in asked) else one for one in tensors], **how)

    assert torch.autograd.gradcheck(call, asked)
    assert torch.autograd.gradgradcheck(call, asked)


def test_gradcheck_sees_a_wrong_gradient() -> None:
    right = pycnn.ops.relu_backward
    broken = torch.library.custom_op(
        "pycnn_tests::relu", lambda x: x.clamp(min=0), mutates_args=(), schema="(Tensor x) -> Tensor"
    )
    broken.register_autograd(
        lambda ctx, dy: right(dy, *ctx.saved_tensors) * 1.01,
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output),
    )
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(broken, (values(4),))


def _schema_cases() -> dict[str, tuple[Any, ...]]:
    single = {"dtype": torch.float32}
    x = values(2, 4, 7, 6, **single)
    last = values(2, 4, 7, 6, last=True, **single)
    thin = values(2, 1, 7, 1, last=True, **single)
    w, b = values(6, 2, 3, 3, **single), values(6, **single)
    how = [1, 2], [1, 2, 0, 1], [1, 1]
    pool = [3, 3], [2, 2], [1, 1]
    return {
        "conv2d": (x, w, b, *how, 2, "auto"),
        "conv2d channels last": (last, w, None, *how, 2, "direct"),
        "conv2d one channel": (thin, values(1, 1, 3, 1, **single), None, *how, 1, "auto"),
        "conv2d_dgrad": (values(2, 6, 8, 3, **single), w, [2, 4, 7, 6], *how, 2, "auto"),
        "conv2d_wgrad": (values(2, 6, 8, 3, **single), x, [6, 2, 3, 3], *how, 2, "auto"),
        "conv_transpose2d": (x, values(4, 3, 3, 3, **single), b, [2, 2], [1] * 4, [1, 0], 2, [1, 1], "auto"),
        "linear": (values(3, 5, **single), values(4, 5, **single), values(4, **single)),
        "max_pool2d": (x, *pool, [1, 1], True),
        "max_pool2d channels last": (last, *pool, [1, 1], False),
        "avg_pool2d": (x, *pool, True, False, None),
        "adaptive_avg_pool2d": (last, [3, 2]),
        "batch_norm": (x, values(4, **single), values(4, **single), 1e-5),
        "channel_affine": (x, values(4, **single), values(4, **single)),
        "relu": (last,),
    }


@pytest.mark.parametrize("case", _schema_cases())
def test_opcheck(case: str) -> None:
    op = getattr(torch.ops.pycnn, case.partition(" ")[0]).default
    found = torch.library.opcheck(op, _schema_cases()[case])
    assert set(found.values()) == {"SUCCESS"}


def network() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding="same", padding_mode="reflect"),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_to_single_nodes_without_a_break(backend: str) -> None:
    eager = ours.swap(network())
    nodes: list[str] = []

    def watched(graph: Any, inputs: Any) -> Any:
        nodes[:] = [str(node.target) for node in graph.graph.nodes]
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    compiled = torch.compile(copy.deepcopy(eager), backend=watched, fullgraph=True, dynamic=True)
    for n, size in ((4, 16), (3, 20)):
        x = torch.randn(n, 3, size, size)
        results = [net(x) for net in (eager, compiled)]
        for y in results:
            y.square().mean().backward()
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)  # the same kernels; torch's own layers are fused
    for mine, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)
    assert sum("pycnn.conv2d" in node for node in nodes) == 2
    assert sum("pycnn.max_pool2d" in node for node in nodes) == 1
    torch._dynamo.reset()


def test_autocast_narrows_convolutions_and_products() -> None:
    pytest.importorskip("ml_dtypes")
    x, w, b = values(2, 3, 6, 6, dtype=torch.float32), values(4, 3, 3, 3, dtype=torch.float32), values(4).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = ours.conv2d(x, w, b)
        assert y.dtype == theirs.conv2d(x, w, b).dtype == torch.bfloat16
        assert ours.max_pool2d(x, 2).dtype == torch.float32
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32
    exact = theirs.conv2d(x.bfloat16().double(), w.bfloat16().double(), b.bfloat16().double())
    assert (y.double() - exact).abs().max() <= exact.abs().max() * 2**-8  # one rounding to 8 bits


VMAPPED: dict[str, dict[str, Any]] = {
    "max_pool2d": {"kernel_size": 3, "stride": 2},
    "avg_pool2d": {"kernel_size": 2},
    "adaptive_avg_pool2d": {"output_size": 2},
    "relu": {},
}


@pytest.mark.parametrize("batched", [(0, None), (1, None), (0, 0), (None, 0)])
def test_vmap(batched: tuple[Any, ...]) -> None:
    x = values(*((5,) if batched[0] == 0 else ()), 2, *((5,) if batched[0] == 1 else ()), 3, 6, 6)
    w = values(*((5,) if batched[1] == 0 else ()), 4, 3, 3, 3)
    found = torch.func.vmap(ours.conv2d, in_dims=batched)(x, w)
    torch.testing.assert_close(found, torch.func.vmap(theirs.conv2d, in_dims=batched)(x, w))
    if batched == (0, None):
        for name, how in VMAPPED.items():
            found, right = (torch.func.vmap(partial(getattr(module, name), **how))(x) for module in (ours, theirs))
            torch.testing.assert_close(found, right)
            mine, other = (torch.autograd.grad(y.square().sum(), x)[0] for y in (found, right))
            torch.testing.assert_close(mine, other)


def test_channels_last_goes_through() -> None:
    net = ours.swap(network()).to(memory_format=LAST)
    x = torch.randn(2, 3, 16, 16).to(memory_format=LAST).requires_grad_()
    y = net[:9](x)
    assert y.is_contiguous(memory_format=LAST)
    y.sum().backward()
    assert x.grad.is_contiguous(memory_format=LAST)


def test_shapes_alone_go_through() -> None:
    x = torch.empty(2, 3, 5, 5, device="meta")
    assert ours.conv2d(x, torch.empty(4, 3, 3, 3, device="meta")).shape == (2, 4, 3, 3)
    assert ours.linear(x, torch.empty(7, 5, device="meta")).shape == (2, 3, 5, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ours.conv2d(x, torch.zeros(4, 3, 3, 3), padding="full"), 'padding must be ints, "same" or "valid"'),
        (lambda x: ours.conv2d(x, torch.zeros(4, 3, 3, 3), stride=2, padding="same"), "needs a stride of 1"),
        (lambda x: ours.conv2d(x, torch.zeros(4, 3, 3, 3), stride=(1, 2, 3)), "stride must be an int or a pair"),
        (lambda x: ours.conv2d(x, torch.zeros(4, 2, 3, 3)), "channels disagree"),
        (lambda x: ours.conv2d(x, torch.zeros(4, 3, 3, 3), algo="fft"), "fft"),
        (lambda x: ours.adaptive_avg_pool2d(x, (1, 2, 3)), "output_size must be"),
        (lambda x: ours.linear(x, torch.zeros(3)), "weight must have 2 dimensions"),
        (lambda x: ours.batch_norm(x, None, None), "needed outside training"),
        (lambda x: ours.batch_norm(x[:1, :, :1, :1], None, None, training=True), "more than 1 value per channel"),
        (lambda x: ours.batch_norm(x[0], None, None, training=True), "4 dimensions"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 3, 5, 5))


# ------------------------------------------------------------------------------------------------------------- swap


def test_swap_keeps_all_but_the_computation() -> None:
    net = network()
    before = copy.deepcopy(net)
    kept = {name: id(one) for name, one in [*net.named_parameters(), *net.named_buffers(), *net.named_modules()]}
    seen: list[Any] = []
    net[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.shape))
    assert ours.swap(net) is net
    assert ours.swapped(net) == {
        "0": "Conv2d",
        "1": "BatchNorm2d",
        "2": "ReLU",  # and not the one in place
        "3": "MaxPool2d",
        "4": "Conv2d",
        "6": "AvgPool2d",
        "7": "ConvTranspose2d",
        "8": "AdaptiveAvgPool2d",
        "10": "Linear",
    }
    assert all(layer.__class__.__module__ == "pycnn.torch.modules" for layer in (net[0], net[10]))
    assert {n: id(one) for n, one in [*net.named_parameters(), *net.named_buffers(), *net.named_modules()]} == kept
    assert list(net.state_dict()) == list(before.state_dict())
    before.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(x), before(x))
    assert seen == [(2, 8, 16, 16)]
    assert ours.swapped(copy.deepcopy(net)) == ours.swapped(net)


def test_one_layer_or_one_kind() -> None:
    net = network()
    net[4] = ours.swap(net[4])
    assert ours.swapped(net) == {"4": "Conv2d"}
    assert set(ours.swapped(ours.swap(network(), only=(nn.Linear, nn.MaxPool2d)))) == {"3", "10"}

    class Special(nn.Conv2d):
        pass

    mixed = nn.Sequential(Special(1, 1, 1), nn.Conv2d(1, 1, 1))
    assert ours.swapped(ours.swap(mixed)) == {"1": "Conv2d"}
    with pytest.raises(ValueError, match="nothing was swapped"):
        ours.swap(nn.Sequential(nn.Tanh()))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        ours.swap([nn.Conv2d(1, 1, 1)])
    with pytest.raises(TypeError, match="only must be layers that pycnn has"):
        ours.swap(mixed, only=nn.Tanh)


def test_there_is_a_way_back() -> None:
    net = network()
    types, x = [type(layer) for layer in net], torch.randn(2, 3, 16, 16)
    right = net.eval()(x)
    assert ours.unswap(ours.swap(net)) is net
    assert [type(layer) for layer in net] == types
    torch.testing.assert_close(net(x), right, rtol=0, atol=0)
    assert type(ours.unswap(ours.Conv2d(1, 1, 1))) is nn.Conv2d
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        ours.unswap([nn.Conv2d(1, 1, 1)])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("track", [True, False])
def test_batch_norm_layers_keep_their_statistics(track: bool, momentum: float | None) -> None:
    layers = [nn.BatchNorm2d(3, momentum=momentum, track_running_stats=track) for _ in range(2)]
    ours.swap(layers[0])
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5) * 3 + 1
        torch.testing.assert_close(layers[0](x), layers[1](x))
    for mine, other in zip(layers[0].buffers(), layers[1].buffers(), strict=True):
        torch.testing.assert_close(mine, other)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(layers[0].eval()(x), layers[1].eval()(x))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_layers_of_an_empty_batch_learn_nothing(affine: bool) -> None:
    layers = [nn.BatchNorm2d(3, affine=affine) for _ in range(2)]
    ours.swap(layers[0])
    for layer in layers:
        x = torch.empty(0, 3, 4, 4, requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == (0, 3, 4, 4)
    for mine, other in zip(layers[0].state_dict().values(), layers[1].state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_a_swapped_network_trains_as_torchs_does() -> None:
    """20 steps of SGD with momentum; an optimiser that was made before the swap goes on with the same parameters."""
    labels = torch.randint(0, 5, (64,))
    x = torch.randn(64, 3, 16, 16)
    for i, label in enumerate(labels):
        x[i, :, 3 * label : 3 * label + 3] += 2  # a bar, and where it is tells the class
    paths = []
    start = network()
    for swapped in (False, True):
        net = copy.deepcopy(start)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        if swapped:
            ours.swap(net)
        path = []
        for step in range(20):
            part = slice(16 * (step % 4), 16 * (step % 4) + 16)
            loss = theirs.cross_entropy(net(x[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            path.append(loss.item())
        paths.append(torch.tensor(path))
    assert paths[0][-4:].mean() < paths[0][:4].mean() - 0.1  # it learns
    # Rounding of float32 (6e-8), in other orders, grows as the steps feed back: 1e-6 after 20 were seen.
    assert (paths[0] - paths[1]).abs().max() < 1e-4


def test_importing_pycnn_does_not_import_torch() -> None:
    program = "import sys, pycnn, pycnn.nn, pycnn.functional; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
