"""Compiled networks as they are called: equal to eager within the bound, in every kind of array, from many threads."""

from __future__ import annotations

import math
import re
import threading
from typing import Any

import numpy as np
import oracle
import pytest
from graphs import GRAPHS, Net, conv, images, make, varied
from numpy_program import Engine

import pycnn
from pycnn import _cpu, models, nn
from pycnn.compiler import CompiledModel, CompileError
from pycnn.compiler.calls import is_channels_last
from pycnn.compiler.graph import Graph
from pycnn.compiler.lower import lower
from pycnn.compiler.passes import optimized
from pycnn.compiler.plan import Plan
from pycnn.compiler.tracer import trace
from pycnn.tensor import Tensor


def eager(model: nn.Module, *inputs: np.ndarray) -> Any:
    training = model.training
    with pycnn.no_grad():
        result = model.eval()(*map(Tensor, inputs))
    model.train(training)
    return result


def flat(result: Any) -> list[np.ndarray]:
    if isinstance(result, dict):
        return [leaf for part in result.values() for leaf in flat(part)]
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in flat(part)]
    return [] if result is None else [np.asarray(result)]


# Networks that run in the fast tests, with their sizes; --slow has all of the registry at its own sizes.
QUICK = {
    **{"lenet5": (1, 28, 28), "lenet5_1998": (1, 32, 32), "resnet20": (3, 32, 32), "resnet18": (3, 64, 64)},
    **{"googlenet": (3, 64, 64), "resnet50": (3, 64, 64), "googlenet_2014": (3, 224, 224)},
    **{"mobilenet_v2": (3, 64, 64), "shufflenet_v2_x0_5": (3, 64, 64)},
}


def network(name: str) -> nn.Module:
    pycnn.manual_seed(3)
    return varied(models.create(name))


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in models.list_models())])
def test_networks_equal_eager_within_the_bound(name: str) -> None:
    """Layer by layer: each is held to the bound on what it was really given, as the compiled network computes it.

    Errors of earlier layers reach later ones as other inputs, so a bound of the whole network would have to grow with
    every layer; at the end the two are compared with room for that.
    """
    shape = QUICK.get(name, models.info(name).input_shape)
    model, x = network(name), images(1, *shape)
    compiled = pycnn.compile(model, x)
    (result,) = flat(compiled(x))
    (expected,) = flat(eager(model, x))
    assert np.abs(result - expected).max() <= 1e-4 * np.abs(expected).max()
    check_layers(compiled.graph, [x])
    open_graph = Graph(compiled.graph.inputs, compiled.graph.nodes, [*every_value(compiled.graph)], 0)
    found = run(open_graph, [x])
    assert np.array_equal(found[-1], result) or name.startswith("lenet5"), "looking at a value changed the result"


def every_value(graph: Graph) -> list[Any]:
    return [node.output for node in graph.nodes]


def run(graph: Graph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    batch = inputs[0].shape[0]
    outputs = [np.full((batch, *value.shape), np.nan, np.float32) for value in graph.outputs]
    lower(graph, batch, _cpu.lanes()).program(_cpu, {}).run(inputs, outputs)
    return outputs


def check_layers(graph: Graph, inputs: list[np.ndarray]) -> None:
    """Each convolution and full layer within its bound of the exact result for the inputs it was given."""
    opened = Graph(graph.inputs, graph.nodes, every_value(graph), 0)
    found = dict(zip([*graph.inputs, *opened.outputs], [*inputs, *run(opened, inputs)], strict=True))
    plan = lower(opened, inputs[0].shape[0], _cpu.lanes())
    algorithms = {step.name: step.options.get("algo", "direct") for step in plan.steps if step.flops}
    for node in graph.nodes:
        given = [found[value].astype(np.float64) for value in node.inputs]
        exact = oracle.result(node, given)
        error = float(np.abs(found[node.output] - exact).max(initial=0))
        if node.op in ("conv2d", "linear"):
            limit = oracle.bound(node, given, exact, algorithms.get(node.name, "direct"))
        else:  # a few roundings of what goes in and comes out; sums of a whole plane, powers of an LRN
            limit = 64 * 2.0**-24 * max(float(np.abs(one).max(initial=0)) for one in (*given, exact))
        assert error <= limit, f"{node.op} {node.name}: off by {error:.3g}, allowed {limit:.3g}"


@pytest.mark.parametrize("name", GRAPHS)
def test_awkward_networks_keep_the_bound_in_each_layer(name: str) -> None:
    model, inputs = make(name)
    graph = optimized(trace(model, [x.shape[1:] for x in inputs]))
    if graph.nodes:
        check_layers(graph, inputs)


@pytest.mark.parametrize("algo", ["direct", "winograd_f2x2_3x3", "winograd_f4x4_3x3", "winograd_f6x6_3x3"])
@pytest.mark.parametrize("signs", ["both", "positive"])
def test_each_algorithm_keeps_its_bound(algo: str, signs: str) -> None:
    pycnn.manual_seed(9)
    model = nn.Sequential(conv(70, 40, algo=algo), nn.ReLU(), conv(40, 33, algo=algo))
    x = images(2, 70, 19, 23)
    if signs == "positive":
        x = np.abs(x)
        for parameter in model.parameters():
            parameter.data[...] = np.abs(parameter.data)
    compiled = pycnn.compile(model, x)
    assert compiled.summary(2).count(algo) == 2
    check_layers(compiled.graph, [x])


@pytest.mark.parametrize("name", GRAPHS)
def test_the_result_has_the_networks_structure(name: str) -> None:
    model, inputs = make(name, 3)
    compiled = pycnn.compile(model, tuple(inputs))
    result, expected = compiled(*inputs), eager(model, *inputs)
    assert type(result) is np.ndarray or type(result) is type(expected)
    assert len(flat(result)) == len(flat(expected))
    for a, b in zip(flat(result), flat(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.float32
        assert np.abs(a - b).max() <= 1e-4 * max(1.0, np.abs(b).max())
        assert not any(np.shares_memory(a, x) for x in inputs)


def test_any_batch() -> None:
    model, (x,) = make("shared, odd", 7)
    compiled = pycnn.compile(model, x[:2])
    whole = compiled(x)
    assert compiled(x[:0]).shape == (0, *whole.shape[1:])
    for batch in (1, 3, 7):
        np.testing.assert_allclose(compiled(x[:batch]), whole[:batch], rtol=1e-5, atol=1e-5)
    for batch in range(1, 30):  # more sizes than programs are kept
        compiled(images(batch, 3, 7, 9))
    assert len(compiled._programs) == 8
    assert np.array_equal(compiled(x), whole)
    assert len({key: None for filters in compiled._filters.values() for key in filters}) == 3, "filters are shared"


def test_results_repeat_bit_for_bit_whatever_the_number_of_threads() -> None:
    model, inputs = make("concat of concat, odd", 5)
    compiled = pycnn.compile(model, inputs[0])
    first = compiled(*inputs)
    threads = pycnn.get_num_threads()
    try:
        for count in (1, 2, 3, 5):
            pycnn.set_num_threads(count)
            assert np.array_equal(compiled(*inputs), first)
    finally:
        pycnn.set_num_threads(threads)


def test_another_instruction_set_has_programs_of_its_own() -> None:
    model, inputs = make("shared, odd")
    compiled = pycnn.compile(model, inputs[0])
    expected, before = compiled(*inputs), pycnn.get_isa()
    try:
        pycnn.set_isa("baseline")
        np.testing.assert_allclose(compiled(*inputs), expected, rtol=1e-4, atol=1e-5)
    finally:
        pycnn.set_isa(before)
    assert np.array_equal(compiled(*inputs), expected)


def test_weights_are_taken_when_it_is_compiled() -> None:
    model, inputs = make("plain")
    compiled = pycnn.compile(model, inputs[0])
    before = compiled(*inputs)
    for parameter in model.parameters():
        parameter.data[...] = 7.0
    assert np.array_equal(compiled(*inputs), before)
    np.testing.assert_allclose(compiled(inputs[0][:1]), before[:1], rtol=1e-5, atol=1e-5)
    model, (x,) = make("groups")  # whose filters are not packed as a whole, or not at all
    compiled, expected = pycnn.compile(model, x[:1]), flat(eager(model, x))
    for parameter in model.parameters():
        parameter.data[...] = 7.0
    for a, b in zip(flat(compiled(x)), expected, strict=True):  # another batch, so another program
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_arrays_of_every_kind() -> None:
    model, (x,) = make("plain", 3)
    compiled = pycnn.compile(model, Tensor(x))
    expected = compiled(x)
    assert type(expected) is np.ndarray
    strided = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    before = strided.copy()
    assert np.array_equal(compiled(strided), expected)
    assert np.array_equal(strided, before)
    assert np.array_equal(compiled(x.astype(">f4")), expected)
    result = compiled(Tensor(x))
    assert type(result) is Tensor
    assert not result.requires_grad
    assert np.array_equal(result.numpy(), expected)
    half = compiled(x.astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, expected, rtol=0.02, atol=0.02)
    read_only = x.copy()
    read_only.flags.writeable = False
    assert np.array_equal(compiled(read_only), expected)


def test_images_that_lie_channels_last_give_results_that_do() -> None:
    torch = pytest.importorskip("torch")
    for name in ("plain", "shared, odd"):
        model, inputs = make(name)
        assert len(inputs) == 1
        x = torch.from_numpy(inputs[0]).contiguous(memory_format=torch.channels_last)
        compiled = pycnn.compile(model, x)
        assert list(compiled._programs) == [(pycnn.get_isa(), len(x), True)]
        expected = pycnn.compile(model, inputs[0])(inputs[0])
        for found in (compiled(x), compiled(x.numpy())):
            # The same sums, though not always by the same algorithm.
            np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-4)
            assert np.asarray(found).transpose(0, 2, 3, 1).flags.c_contiguous, name
        assert compiled(x).is_contiguous(memory_format=torch.channels_last)


def test_winograd_with_dilation_packs_what_it_takes_apart() -> None:
    x = images(2, 32, 9, 11)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    layer = conv(32, 32, dilation=2, padding=2, algo="winograd_f2x2_3x3").eval()
    with pycnn.no_grad():
        expected = layer(pycnn.Tensor(x)).data
    for given in (x, last):
        # The same algorithm: its sums may only be in another order.
        np.testing.assert_allclose(pycnn.compile(layer, given)(given), expected, rtol=1e-4, atol=1e-4)


def test_an_image_of_one_channel_is_no_obstacle_to_the_others_layout() -> None:
    model = Net(lambda net, x, mask: net.a(x) * mask, a=conv(3, 8))
    x, mask = images(2, 3, 5, 6), images(2, 1, 5, 6)
    mask = np.repeat(mask, 8, axis=1)
    last = [np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for array in (x, mask)]
    assert is_channels_last(last)
    assert not is_channels_last([x, mask])
    assert not is_channels_last([last[0], mask])
    assert is_channels_last([last[0], images(2, 1, 5, 6)])
    np.testing.assert_allclose(pycnn.compile(model, last)(*last), pycnn.compile(model, (x, mask))(x, mask), rtol=1e-5)


def test_an_infinite_pixel_stays_where_it_belongs() -> None:
    """The lanes beyond the last channel hold NaN behind it, which a full layer must not sum up."""
    net = nn.Sequential(conv(3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2, bias=False)).eval()
    for parameter in net.parameters():
        parameter.data[...] = 0.5
    x = np.ones((1, 3, 6, 6), np.float32)
    x[0, 1, 3, 2] = np.inf
    np.testing.assert_array_equal(pycnn.compile(net, x)(x), np.full((1, 2), np.inf, np.float32))


def test_another_thread_may_set_the_instruction_set_while_a_program_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _cpu.isa_supported("avx2"):
        pytest.skip("one instruction set alone")
    model, (x,) = make("plain")
    compiled = pycnn.compile(model, x)
    expected = compiled(x)
    before, made = pycnn.get_isa(), Plan.program

    def set_meanwhile(plan: Plan, engine: Any, filters: Any) -> Any:
        monkeypatch.setattr(Plan, "program", made)
        program = made(plan, engine, filters)
        pycnn.set_isa("avx2")
        return program

    try:
        pycnn.set_isa("baseline")
        monkeypatch.setattr(Plan, "program", set_meanwhile)
        for isa in (None, "baseline", "avx2"):  # None: as the other thread has left it
            pycnn.set_isa(isa or pycnn.get_isa())
            np.testing.assert_allclose(compiled(x), expected, rtol=1e-4, atol=1e-5)
    finally:
        pycnn.set_isa(before)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    model, (x,) = make("intermediate output", 3)
    compiled = pycnn.compile(model, torch.from_numpy(x))
    result = compiled(torch.from_numpy(x))
    assert isinstance(result["logits"], torch.Tensor)
    assert np.array_equal(result["logits"].numpy(), compiled(x)["logits"])
    assert compiled(torch.from_numpy(x).bfloat16())["again"][0].dtype == torch.bfloat16


def test_jax_arrays() -> None:
    jax = pytest.importorskip("jax")
    model, (x,) = make("plain", 3)
    compiled = pycnn.compile(model, jax.numpy.asarray(x))
    result = compiled(jax.numpy.asarray(x))
    assert isinstance(result, jax.Array)
    assert np.array_equal(np.asarray(result), compiled(x))


def test_what_a_call_refuses() -> None:
    model, (x,) = make("plain")
    compiled = pycnn.compile(model, x)
    with pytest.raises(TypeError, match="the network takes 1 inputs, got 2"):
        compiled(x, x)
    with pytest.raises(ValueError, match=r"x must be a batch of 3x9x11, got shape \(2, 3, 9, 10\)"):
        compiled(x[..., :-1])
    with pytest.raises(ValueError, match=r"x must be a batch of 3x9x11, got shape \(3, 9, 11\)"):
        compiled(x[0])
    with pytest.raises(TypeError, match="computes in float32, got float64"):
        compiled(x.astype(np.float64))
    with pytest.raises(TypeError, match="must be float16, bfloat16, float32 or float64"):
        compiled(x.astype(np.int32))
    with pytest.raises(TypeError, match="x must be an array"):
        compiled([1.0])
    with pytest.raises(ValueError, match="x requires a gradient"):
        compiled(Tensor(x, requires_grad=True))
    with pycnn.no_grad():
        assert not compiled(Tensor(x, requires_grad=True)).requires_grad
    two, inputs = make("two inputs")
    compiled = pycnn.compile(two, inputs)
    with pytest.raises(ValueError, match=re.escape("inputs[1] has 1 images, inputs[0] 2")):
        compiled(inputs[0], inputs[1][:1])
    with pytest.raises(ValueError, match=re.escape("inputs[1] must be a batch of 20x6x6")):
        compiled(*reversed(inputs[:1] * 2))


def test_what_compile_refuses() -> None:
    model, (x,) = make("plain")
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function"):
        pycnn.compile(lambda x: x, x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="x must be an array"):
        pycnn.compile(model, "images")
    with pytest.raises(TypeError, match="computes in float32, got float64"):
        pycnn.compile(model, x.astype(np.float64))
    with pytest.raises(CompileError, match=r"0\.0\.weight is float64: model\.float\(\) converts it"):
        pycnn.compile(model.double(), x)
    with pytest.raises(CompileError, match="batch as its first dimension"):
        pycnn.compile(Net(lambda net, x: x), np.zeros((), np.float32))
    with pytest.raises(ValueError, match="accuracy must be one of"):
        pycnn.compile(model.float(), x, accuracy="sloppy")
    with pytest.raises(ValueError, match=r"winograd_f4x4_3x3.*cannot run"):
        pycnn.compile(nn.Conv2d(3, 4, 5, algo="winograd_f4x4_3x3"), x)


def test_strict_accuracy_keeps_to_small_tiles() -> None:
    model, x = nn.Sequential(conv(64, 64), conv(64, 64)), images(1, 64, 28, 28)
    assert "winograd_f4x4_3x3" in pycnn.compile(model, x).summary()
    strict = pycnn.compile(model, x, accuracy="strict")
    assert "winograd_f4x4" not in strict.summary()
    assert "winograd_f2x2" in strict.summary()
    with pycnn.use_accuracy("strict"):
        assert pycnn.compile(model, x).accuracy == "strict"
    with pycnn.use_accuracy("fast"):
        assert "winograd_f4x4" not in strict.summary(2)  # as it was when it was compiled


def test_many_threads_at_once() -> None:
    model, _ = make("shared, odd")
    compiled = pycnn.compile(model, images(1, 3, 7, 9))
    batches = [images(1 + i % 3, 3, 7, 9, seed=i) for i in range(12)]
    expected = [compiled(x) for x in batches]
    fresh = pycnn.compile(model, images(1, 3, 7, 9))
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(60):
            k = (i * 5 + offset) % len(batches)
            if not np.array_equal(fresh(batches[k]), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_profile_and_summary() -> None:
    model, (x,) = make("mixed paddings")
    compiled = pycnn.compile(model, x)
    profile = compiled.profile(x, rounds=3)
    plan = compiled.prepare(2)
    assert len(profile.rows) == len(plan.steps) == len(compiled._program(2)[1])
    assert profile.seconds == pytest.approx(sum(row.seconds for row in profile.rows))
    convolutions = 2 * 2 * 49 * 17 * (3 * 9 + 5 * 9 + 5 * 25 + 5 * 7 + 5 * 25) + 2 * 2 * 833 * 4
    assert sum(row.flops for row in profile.rows) == convolutions
    text = str(profile)
    assert text.startswith("batch 2, ")
    assert "stem.0" in text
    for line in compiled.summary().splitlines()[-2:]:
        assert re.search(r"steps for batches of 1|arena \d+\.\d\d MiB, beside \d+\.\d\d MiB if each value", line)
    rich = pytest.importorskip("rich.console")
    console = rich.Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(profile)
    assert "stem.0" in console.export_text()
    for arguments in ({"rounds": 0}, {"empty": True}):
        with pytest.raises(ValueError, match="a round and an image"):
            compiled.profile(x[:0] if "empty" in arguments else x, rounds=arguments.get("rounds", 1))


def test_concatenations_and_shortcuts_need_no_copies() -> None:
    with nn.init.skip():
        plan = lower(optimized(trace(models.googlenet(), [(3, 224, 224)])), 1, 16)
        residual = lower(optimized(trace(models.resnet50(), [(3, 224, 224)])), 1, 16)
    kinds = {"conv", "max_pool", "mean", "linear"}
    for one in (plan, residual):
        assert {step.method for step in one.steps} <= kinds
        assert all(step.options["kernel"] != (1, 1) for step in one.steps if step.method == "max_pool")
        assert one.floats < one.naive / 3


def test_copies_are_made_where_parts_cannot_lie_in_place() -> None:
    """A move between packed boxes is a maximum over windows of one element."""
    expected = {"shared": 0, "concat of concat": 2, "part used later": 2, "joined along rows and columns": 2}
    for name, count in expected.items():
        model, inputs = make(name)
        plan = lower(optimized(trace(model, [x.shape[1:] for x in inputs])), 1, 16)
        moves = [step for step in plan.steps if step.method == "max_pool" and step.options["kernel"] == (1, 1)]
        assert len(moves) == count, name


def test_a_layers_own_algorithm_is_taken() -> None:
    x = images(1, 3, 12, 12)
    for algo in ("direct", "winograd_f2x2_3x3", "winograd_f6x6_3x3"):
        summary = pycnn.compile(conv(3, 8, algo=algo), x).summary()
        assert (algo in summary) == algo.startswith("winograd"), "the planes of few channels have one kernel"
    assert "direct" in pycnn.compile(conv(40, 8, algo="im2col"), images(1, 40, 12, 12)).summary()
    with pytest.raises(CompileError, match="winograd has no compiled form for 40 groups"):
        pycnn.compile(nn.Sequential(conv(40, 40, groups=40, algo="winograd")), images(1, 40, 12, 12))
    halves = pycnn.compile(conv(64, 64, groups=2, algo="winograd_f4x4_3x3"), images(1, 64, 12, 12))
    assert halves.summary().count("winograd_f4x4_3x3") == 2


def test_the_example_only_gives_shapes() -> None:
    model, (x,) = make("plain")
    compiled = pycnn.compile(model, np.full_like(x, np.nan))
    assert np.isfinite(compiled(x)).all()
    assert repr(compiled) == "<compiled network of 3 operations, 3x9x11 to 17x4x5>"


def test_programs_are_made_when_they_are_needed() -> None:
    model, (x,) = make("plain")
    compiled = pycnn.compile(model, x[:0])
    assert list(compiled._programs) == [(pycnn.get_isa(), 1, False)]  # for the weights' sake
    compiled.prepare(4)
    assert list(compiled._programs) == [(pycnn.get_isa(), 1, False), (pycnn.get_isa(), 4, False)]


def test_the_played_engine_is_a_drop_in() -> None:
    model, (x,) = make("plain")
    graph = optimized(trace(model, [x.shape[1:]]))
    played = CompiledModel(graph, "fast", Engine(8))
    np.testing.assert_allclose(played(x), pycnn.compile(model, x)(x), rtol=1e-4, atol=1e-5)
    assert math.isclose(played.profile(x).seconds, 1e-6 * len(played.prepare(2).steps))
