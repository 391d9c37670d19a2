"""`pycnn.cuda.capture`: replays are eager steps, bit for bit, and what cannot be captured is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from played import Gpu, playing

import pycnn
from pycnn import Tensor, nn, optim
from pycnn.cuda import CaptureError, capture
from pycnn.optim import _device

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with playing() as played:
        yield played


def images(step: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(step).standard_normal((count, 1, 8, 8), np.float32)


class Pair(NamedTuple):
    first: Any
    second: Any


class Net(nn.Module):
    """Convolution, batch norm with its running statistics, pooling, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(64, 3)

    def forward(self, x: Any) -> Any:
        x = pycnn.max_pool2d(pycnn.relu(self.bn(self.conv(x))), 2)
        return self.fc(self.drop(x.flatten(1)))


SGD: Callable[[Any], optim.Optimizer] = lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)  # noqa: E731
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "plain": lambda p: optim.SGD(p, lr=0.1),
    "momentum": SGD,
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def training(make: Callable[[Any], optim.Optimizer]) -> tuple[Net, optim.Optimizer, Callable[..., Any]]:
    pycnn.manual_seed(7)
    net = Net().cuda()
    optimizer = make(net.parameters())

    def step(x: Any, t: Any) -> Any:
        loss = pycnn.cross_entropy(net(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return net, optimizer, step


def run(make: Callable[[Any], optim.Optimizer], steps: int, captured: bool, counts: tuple[int, ...] = (4,)) -> Any:
    """Losses and the final state of so many steps, at a learning rate that changes."""
    net, optimizer, step = training(make)
    call = capture(step) if captured else step
    losses = []
    for number in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + number)
        count = counts[number % len(counts)]
        x, t = Tensor(images(number, count)), Tensor(np.arange(count) % 3)
        if not captured:
            x, t = x.cuda(), t.cuda()
        losses.append(call(x, t).detach().numpy().copy())
    graphs = call.graphs if captured else 0  # type: ignore[attr-defined]
    return losses, {name: tensor.numpy() for name, tensor in net.state_dict().items()}, graphs, pycnn.random.get_state()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replays_are_eager_steps(gpu: Gpu, name: str) -> None:
    losses, state, graphs, drawn = run(OPTIMIZERS[name], 13, captured=True)
    expected_losses, expected_state, _, expected_drawn = run(OPTIMIZERS[name], 13, captured=False)
    assert graphs == 1
    assert [loss.tobytes() for loss in losses] == [loss.tobytes() for loss in expected_losses]
    assert {key: value.tobytes() for key, value in state.items()} == {
        key: value.tobytes() for key, value in expected_state.items()
    }
    assert drawn == expected_drawn  # dropout goes on where it would have


def scaling(make: Callable[[Any], optim.Optimizer], captured: bool, clip: bool) -> tuple[Any, ...]:
    """Twenty steps with a scaled loss, of which some overflow: losses, scales, and the final state."""
    pycnn.manual_seed(7)
    net = Net().cuda()
    optimizer = make(net.parameters())
    scaler = pycnn.amp.GradScaler(init_scale=2.0**10, growth_interval=3)

    def step(x: Any, t: Any) -> Any:
        loss = pycnn.cross_entropy(net(x), t)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(optimizer)
            optim.clip_grad_norm_(net.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        return loss

    call = capture(step) if captured else step
    losses, scales = [], []
    for number in range(20):
        x = images(number)
        if number in (1, 7, 8, 15):
            x[0, 0, 0, 0] = np.inf
        x, t = Tensor(x), Tensor(np.arange(4) % 3)
        if not captured:
            x, t = x.cuda(), t.cuda()
        losses.append(call(x, t).detach().numpy().tobytes())
        scales.append(scaler.get_scale())
        net.bn.running_mean.fill_(0)  # type: ignore[union-attr]
        net.bn.running_var.fill_(1)  # type: ignore[union-attr]
    if captured:
        assert call.graphs == 1  # type: ignore[attr-defined]
    state = {name: tensor.numpy().tobytes() for name, tensor in net.state_dict().items()}
    moments = [
        {name: np.asarray(value.get() if hasattr(value, "get") else value).tobytes() for name, value in one.items()}
        for one in optimizer.state_dict()["state"].values()
    ]
    return (
        losses,
        scales,
        state,
        moments,
        [one["step"] for one in map(dict, optimizer.state_dict()["state"].values()) if "step" in one],
    )


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", ["plain", "momentum", "adamw"])
def test_replays_scale_and_leave_steps_out_as_eager_ones_do(gpu: Gpu, name: str, clip: bool) -> None:
    captured, eager = (scaling(OPTIMIZERS[name], captured, clip) for captured in (True, False))
    assert captured == eager
    scale, expected = 2.0**10, []
    steady = 0
    for number in range(20):
        bad = number in (1, 7, 8, 15)
        steady = 0 if bad else steady + 1
        scale *= 0.5 if bad else 2.0 if steady == 3 else 1.0
        steady %= 3
        expected.append(scale)
    assert captured[1] == expected
    assert set(captured[4]) <= {16}  # steps that were left out are not counted
    assert all(np.isfinite(np.frombuffer(captured[2]["conv.weight"], np.float32)))


def test_a_replay_that_scales_waits_for_nothing(gpu: Gpu) -> None:
    net, optimizer, _ = training(OPTIMIZERS["adam"])
    scaler = pycnn.amp.GradScaler()

    @capture
    def step(x: Any, t: Any) -> Any:
        loss = pycnn.cross_entropy(net(x), t)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    x, t = Tensor(images(0)).cuda(), Tensor(np.arange(4) % 3).cuda()
    while not step.graphs:
        step(x, t)
    before = gpu.allocations, len(gpu.loaded), len(gpu.transfers), gpu.uploads
    step(x, t)
    assert (gpu.allocations, len(gpu.loaded), len(gpu.transfers), gpu.uploads) == before


@pytest.mark.parametrize(("name", "outside"), [("float16", False), ("float16", True), ("bfloat16", False)])
def test_mixed_precision_is_replayed(gpu: Gpu, name: str, outside: bool) -> None:
    """A block around the captured step holds for its replays too: they round the parameters as they are by then."""
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    results = []
    for captured in (False, True):
        pycnn.manual_seed(7)
        net, scaler = Net().cuda(), pycnn.amp.GradScaler(init_scale=2.0**10, growth_interval=3)
        optimizer = SGD(net.parameters())

        def step(
            x: Any, t: Any, net: Any = net, scaler: Any = scaler, optimizer: optim.Optimizer = optimizer
        ) -> tuple[Any, Any]:
            with pycnn.amp.autocast(name):
                y = net(x)
                loss = pycnn.cross_entropy(y, t)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss, y

        call = capture(step) if captured else step
        losses = []
        with pycnn.amp.autocast(name, enabled=outside):
            for number in range(9):
                x, t = Tensor(images(number)), Tensor(np.arange(4) % 3)
                loss, y = call(x, t) if captured else call(x.cuda(), t.cuda())
                assert (y.dtype, loss.dtype) == (np.dtype(name), np.float32)
                losses.append(loss.detach().numpy().tobytes())
        assert not captured or call.graphs == 1  # type: ignore[attr-defined]
        state = {key: tensor.numpy().tobytes() for key, tensor in net.state_dict().items()}
        results.append((losses, state, scaler.state_dict()))
        assert all(p.dtype == np.float32 for p in net.parameters())
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_mixed_precision_on_a_gpu_is_what_the_cpu_engine_makes_of_it(gpu: Gpu, name: str) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    found = []
    for device in ("cpu", "cuda"):
        pycnn.manual_seed(7)
        net, scaler = Net().to(device), pycnn.amp.GradScaler(init_scale=2.0**10)
        optimizer, losses = SGD(net.parameters()), []
        for number in range(5):
            with pycnn.amp.autocast(name):
                loss = pycnn.cross_entropy(net(Tensor(images(number)).to(device)), Tensor(np.arange(4) % 3).to(device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(loss.item()))
        found.append(losses)
    # The same roundings to 16 bits, of sums that were added up in another order: now and then one goes the other way,
    # which the steps then carry on.
    slack = 2.0 ** (-7 if name == "bfloat16" else -10)
    assert found[1][0] == pytest.approx(found[0][0], rel=slack)
    assert found[1] == pytest.approx(found[0], rel=16 * slack)
    assert len({round(loss, 3) for loss in found[0]}) == 5


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sums_and_conversions_of_16_bits_are_those_of_the_host(gpu: Gpu, name: str) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rng, found, exact = np.random.default_rng(0), [], []
    a, b, dy = (rng.standard_normal((3, 50)).astype(name) for _ in range(3))
    whole_numbers = rng.integers(-3, 4, (20, 30))  # whose sums of products are exact in float32, and rounded once
    for device in ("cpu", "cuda"):
        x, y = (Tensor(one).to(device).requires_grad_() for one in (a, b))
        total = (x + y) + x + y.to(np.float32).to(name)  # x and y have two gradients each, added in 16 bits
        total.backward(Tensor(dy).to(device))
        whole = Tensor(whole_numbers.astype(name)).to(device)
        exact.append((whole @ whole.transpose(0, 1)).numpy().astype(np.float32))
        found.append([one.detach().numpy().astype(np.float32) for one in (total, x.grad, y.grad)])  # type: ignore[union-attr]
        assert str(total.dtype) == name
    for host, there in zip(*found, strict=True):
        np.testing.assert_array_equal(host, there)
    np.testing.assert_array_equal(*exact)
    np.testing.assert_array_equal(exact[0], (whole_numbers @ whole_numbers.T).astype(name).astype(np.float32))


def test_a_block_around_a_captured_forward_pass_may_end(gpu: Gpu) -> None:
    """What was rounded for the block is no part of the graph, whose memory would else go with the block."""
    net = nn.Linear(4, 3).cuda()
    seen = []

    @capture
    def forward(x: Any) -> Any:
        with pycnn.no_grad():
            return net(x) + net(x)

    for number in range(8):
        with pycnn.amp.autocast("float16"):
            x = np.random.default_rng(number).standard_normal((2, 4), np.float32)
            with pycnn.no_grad():
                net.weight.add_(1.0)
                expected = (net(Tensor(x).cuda()) + net(Tensor(x).cuda())).numpy()
            seen.append(np.array_equal(forward(Tensor(x)).numpy(), expected))
    assert forward.graphs == 1
    assert all(seen)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_gpu_steps_as_the_host_does_where_a_step_is_left_out_first(gpu: Gpu, name: str, early: bool) -> None:
    """Of two parameters with gradients of the host's making; the first step overflows."""
    results = []
    for device in ("cpu", "cuda"):
        params = [pycnn.ones(3).to(device).requires_grad_(), pycnn.ones(2, 2).to(device).requires_grad_()]
        optimizer, scaler = OPTIMIZERS[name](params), pycnn.amp.GradScaler(64.0, growth_interval=None)
        for number in range(4):
            scaler.scale((params[0] * (np.inf if number == 0 else 2.0)).sum() + (params[1] * 0.5).sum()).backward()
            if early:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        results.append([p.detach().numpy() for p in params])
        assert all(int(one.get("step", 3)) == 3 for one in optimizer.state_dict()["state"].values())
    for host, found in zip(*results, strict=True):
        # SGD to the bit; Adam's step sizes come from other logarithms, see test_optim_cuda.py.
        np.testing.assert_allclose(found, host, rtol=0 if name == "momentum" else 2.0**-20)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_parameters_of_16_bits_are_stepped_by_their_master_copies(gpu: Gpu, name: str) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    results = []
    for captured in (False, True):
        params = [Tensor(np.ones((2, 3), np.dtype(name))).cuda().requires_grad_()]
        optimizer, scaler = optim.AdamW(params, lr=1e-4), pycnn.amp.GradScaler(8.0, growth_interval=2)

        def step(g: Any, params: Any = params, optimizer: Any = optimizer, scaler: Any = scaler) -> None:
            params[0].grad = g
            scaler.step(optimizer)
            scaler.update()

        call = capture(step) if captured else step
        for number in range(9):
            g = np.random.default_rng(number).random((2, 3)).astype(name)
            if number in (0, 5):
                g[1, 1] = np.inf
            call(Tensor(g) if captured else Tensor(g).cuda())
        state = optimizer.state_dict()["state"][0]
        results.append([params[0].detach().numpy(), state["master"].get(), state["exp_avg"].get(), state["step"]])
        assert results[-1][0].dtype == np.dtype(name)
        assert results[-1][1].dtype == np.float32
        assert np.array_equal(results[-1][0], results[-1][1].astype(name))
        assert state["step"] == 7
        assert scaler.get_scale() == 8.0 * 2**3 * 0.5**2
    for eager, replayed in zip(*results, strict=True):
        np.testing.assert_array_equal(eager, replayed)


def test_gradients_without_a_kernel_make_the_host_wait(gpu: Gpu) -> None:
    p = pycnn.ones(3).to("cuda", "float64").detach().requires_grad_()
    optimizer, scaler = optim.SGD([p], lr=0.5), pycnn.amp.GradScaler(4.0)
    for factor in (np.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((p * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert p.detach().numpy().tolist() == [0.5] * 3
    assert scaler.get_scale() == 2.0


@pytest.mark.parametrize("early", [False, True])
def test_gradients_with_gaps_are_divided_once(gpu: Gpu, early: bool) -> None:
    """By arithmetic, where no kernel looks at them; one that overflows is not forgotten over the next."""
    params = [pycnn.ones(2, 3).cuda().requires_grad_() for _ in range(2)]
    optimizer, scaler = optim.SGD(params, lr=0.5), pycnn.amp.GradScaler(4.0)
    for factor in (np.inf, 1.0):
        for p, value in zip(params, (8.0 * factor, 8.0), strict=True):
            p.grad = Tensor(np.full((2, 6), value, np.float32)).cuda()[:, ::2]
        scale = scaler.get_scale()
        given = [p.grad.numpy() for p in params]
        assert not any(p.grad.data.flags.c_contiguous for p in params)
        if early:
            scaler.scale(pycnn.ones(1).cuda())  # so that it is where they are
            scaler.unscale_(optimizer)
            given = [g / scale for g in given]
        scaler.step(optimizer)
        scaler.update()
        assert all(np.array_equal(p.grad.numpy(), g) for p, g in zip(params, given, strict=True))
    assert scaler.get_scale() == 2.0
    assert all(np.array_equal(p.detach().numpy(), np.full((2, 3), 1 - 0.5 * 8 / 2)) for p in params)


def test_a_scaler_goes_where_the_network_goes(gpu: Gpu) -> None:
    net = nn.Linear(2, 1, bias=False)
    net.weight.data[...] = 1
    optimizer, scaler = optim.SGD(net.parameters(), lr=0.5), pycnn.amp.GradScaler(8.0, growth_interval=2)
    for device in ("cpu", "cuda", "cpu"):
        net.to(device)
        optimizer.zero_grad()
        scaler.scale(net(pycnn.ones(1, 2).to(device)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert net.weight.detach().numpy().tolist() == [[-0.5, -0.5]]
    assert scaler.state_dict() | {"scale": 16.0, "_growth_tracker": 1} == scaler.state_dict()


def test_a_scaler_does_not_go_while_it_remembers_gradients(gpu: Gpu) -> None:
    here, there = (nn.Linear(2, 1, bias=False).to(device) for device in ("cpu", "cuda"))
    scaler = pycnn.amp.GradScaler(8.0)
    first = optim.SGD(here.parameters(), lr=0.5)
    scaler.scale(here(pycnn.ones(1, 2)).sum()).backward()
    scaler.unscale_(first)
    with pytest.raises(ValueError, match="must be on one device, got cuda:0 after cpu"):
        scaler.scale(there(pycnn.ones(1, 2).cuda()).sum())
    scaler.step(first)  # what it knows is still there
    scaler.update()
    scaler.scale(there(pycnn.ones(1, 2).cuda()).sum())


def test_each_shape_has_a_graph_of_its_own(gpu: Gpu) -> None:
    losses, state, graphs, _ = run(SGD, 12, True, counts=(4, 2))
    expected_losses, expected_state, _, _ = run(SGD, 12, False, counts=(4, 2))
    assert graphs == 2
    assert [loss.tobytes() for loss in losses] == [loss.tobytes() for loss in expected_losses]
    assert all(value.tobytes() == expected_state[key].tobytes() for key, value in state.items())


def test_a_replay_takes_no_memory_and_waits_for_nothing(gpu: Gpu) -> None:
    _, _, step = training(SGD)
    call = capture(step)
    x, t = Tensor(images(0)).cuda(), Tensor(np.arange(4) % 3).cuda()
    while not call.graphs:
        call(x, t)
    call(x, t)
    before = gpu.allocations, len(gpu.loaded), len(gpu.transfers), gpu.uploads
    launches = len(gpu.launches)
    call(x, t)
    assert (gpu.allocations, len(gpu.loaded), len(gpu.transfers), gpu.uploads) == before
    assert len(gpu.launches) > launches


def test_a_forward_pass(gpu: Gpu) -> None:
    net = Net().cuda().eval()

    @capture
    def forward(x: Any, scale: float = 1.0) -> Any:
        with pycnn.no_grad():
            return {"logits": net(x) * scale}

    for number in range(6):
        x = images(number)
        with pycnn.no_grad():
            expected = net(Tensor(x).cuda()).numpy()
        assert forward(Tensor(x))["logits"].numpy().tobytes() == expected.tobytes()
    assert forward.graphs == 1
    assert np.array_equal(forward(Tensor(x), scale=2.0)["logits"].numpy(), 2 * expected)  # another graph to come
    assert forward.__name__ == "forward"


def test_named_tuples_go_in_and_come_out(gpu: Gpu) -> None:
    call = capture(lambda pair: Pair(pair.first + pair.second, pair.first))
    for value in range(5):
        given = Pair(Tensor(np.full(3, value, np.float32)), Tensor(np.ones(3, np.float32)))
        assert call(given).first.numpy().tolist() == [value + 1.0] * 3
    assert call.graphs == 1


def test_kinds_of_input(gpu: Gpu) -> None:
    @capture
    def step(a: Any, pair: Any) -> Any:
        return a * 2.0 + pair["b"][0]

    for number in range(5):
        result = step(np.full(3, number, np.float32), {"b": [gpu.module.ones(3, np.float32)]})
        assert type(result) is gpu.module.ndarray
        assert result.get().tolist() == [2.0 * number + 1.0] * 3
    with pytest.raises(ValueError, match="an input of a captured step cannot require a gradient"):
        step(pycnn.ones(3, requires_grad=True), None)


def test_each_dtype_has_a_graph_of_its_own(gpu: Gpu) -> None:
    call = capture(lambda x: x + x)
    for dtype in (np.float32, np.int32, np.float64):
        for number in range(4):
            result = call(np.full(3, number, dtype))
            assert result.dtype == dtype
            assert result.get().tolist() == [2 * number] * 3
    assert call.graphs == 3


def test_two_runs_come_first_even_of_a_step_that_takes_no_memory(gpu: Gpu) -> None:
    seen = []

    @capture
    def step(x: Any) -> Any:
        seen.append(step.graphs)
        x *= 2
        return x

    assert [step(np.ones(3, np.float32)).get().tolist() for _ in range(5)] == [[2, 2, 2]] * 5
    assert seen == [0, 0, 0]  # two runs and the capture
    assert step.graphs == 1


def test_a_float64_parameter_cannot_be_stepped_within(gpu: Gpu) -> None:
    p = pycnn.ones(3, requires_grad=True).to("cuda", "float64").detach().requires_grad_()
    optimizer = optim.SGD([p], lr=0.1)

    @capture
    def step(x: Any) -> Any:
        (p * x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    def steps(count: int) -> None:
        for _ in range(count):
            step(Tensor(np.ones(3)))

    with pytest.raises(CaptureError, match="the step of a float64 parameter cannot be captured"):
        steps(4)


def test_kernels_step_what_is_dense_and_float32(gpu: Gpu) -> None:
    def fused(data: Any, gradient: Any) -> bool:
        given: Any = SimpleNamespace(_data=data, _grad=None if gradient is None else SimpleNamespace(_data=gradient))
        return _device.is_fused(given)

    dense, doubles = gpu.module.ones((4, 6), np.float32), gpu.module.ones((4, 6), np.float64)
    assert fused(dense, dense)
    assert fused(dense, dense[:, ::2])  # made dense on the way
    assert not fused(dense[:, ::2], dense[:, ::2])
    assert not fused(doubles, dense)
    assert not fused(dense, doubles)
    assert not fused(dense, None)
    assert fused(np.ones(3, np.float32), np.ones(3, np.float32))  # by the CPU engine
    assert not fused(dense, np.ones((4, 6), np.float32))


def test_a_seed_set_anew_is_followed(gpu: Gpu) -> None:
    @capture
    def step(x: Any) -> Any:
        return pycnn.functional.dropout(x, 0.5)

    x = np.ones(64, np.float32)
    for seed in (1, 2, 1):
        pycnn.manual_seed(seed)
        for _ in range(4):
            state = pycnn.random.get_state()
            result = step(x).get()
            assert np.array_equal(result, pycnn.ops.dropout(x, 0.5, *state))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda x: x * x.sum().item(), r"the step cannot be captured: item.* belongs behind the step"),
        (lambda x: x * float(x.sum()), "belongs behind the step"),
        (lambda x: x + Tensor(np.ones(3, np.float32)).cuda(), "an array of the host would be copied"),
    ],
)
def test_what_cannot_be_captured_is_said(gpu: Gpu, step: Callable[[Any], Any], message: str) -> None:
    call = capture(step)
    x = pycnn.ones(3)
    for _ in range(2):
        call(x)
    with pytest.raises(CaptureError, match=message):
        call(x)


def test_a_step_that_keeps_what_it_computes_is_refused(gpu: Gpu) -> None:
    kept = []

    @capture
    def step(x: Any) -> Any:
        kept.append(x * 2.0)
        return kept[-1]

    for _ in range(8):
        step(pycnn.ones(3))
    with pytest.raises(CaptureError, match=r"step took more memory in each of 8 runs"):
        step(pycnn.ones(3))


def test_no_gpu_is_said() -> None:
    if pycnn.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(pycnn.jit.MissingToolError, match="the cuda backend needs"):
        capture(lambda x: x)(pycnn.ones(1))
    assert pycnn.cuda.device_count() == 0


def test_what_is_no_step_no_gpu_or_no_input_is_refused(gpu: Gpu) -> None:
    with pytest.raises(TypeError, match="step must be a function, got int"):
        capture(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='device must be a GPU, "cuda" or "cuda:N", got \'cpu\''):
        capture(pycnn.relu, device="cpu")(pycnn.ones(3))
    with pytest.raises(TypeError, match="an array or hashable, got set"):
        capture(pycnn.relu)({1, 2})
