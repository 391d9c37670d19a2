"""Training channels-last on a played GPU: a step changes no layout anywhere, and learns what it learns in NCHW."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import played_arrays
import pytest
from played import Gpu, playing

import pycnn
from pycnn import amp, nn, optim
from pycnn.backends.cuda import device_cupy
from pycnn.backends.cuda.device import pointers_of
from pycnn.cuda import capture
from pycnn.memory_format import is_channels_last
from pycnn.models.resnet import BasicBlock, Bottleneck

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with playing() as machine:
        yield machine


class Net(nn.Module):
    """All that a residual network has: both blocks, a projection, the poolings; and dropout of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        down = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
        self.basic, self.deep = BasicBlock(16, 16), Bottleneck(16, 8, 2, down)
        self.last, self.fc = nn.Conv2d(32, 24, 1), nn.Linear(24, 5)

    def forward(self, x: Any) -> Any:
        x = pycnn.max_pool2d(pycnn.relu(self.bn(self.conv(x))), 3, 2, 1)
        x = pycnn.dropout(self.deep(self.basic(x)), 0.25, self.training)
        x = pycnn.relu(self.last(x))
        return self.fc(pycnn.adaptive_avg_pool2d(pycnn.avg_pool2d(x + x, 2, 1), 1).flatten(1))


POLICIES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float16": lambda: amp.autocast("float16"),
    "bfloat16": lambda: amp.autocast("bfloat16"),
    "3xtf32": lambda: pycnn.use_precision("3xtf32"),
}

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
}


def images(step: int = 0) -> np.ndarray:
    return np.random.default_rng(step).standard_normal((2, 3, 15, 14), np.float32)


class Training:
    """A network on the played GPU, its optimiser and scaler, and one step."""

    def __init__(self, policy: str = "float16", kind: str = "momentum", last: bool = True) -> None:
        pycnn.manual_seed(3)
        self.net = Net().cuda()
        if last:
            self.net.to(memory_format=pycnn.channels_last)
        self.policy, self.scaler = policy, amp.GradScaler(init_scale=8.0)
        self.optimizer = OPTIMIZERS[kind](self.net.parameters())
        self.format = pycnn.channels_last if last else pycnn.contiguous_format

    def step(self, x: Any, t: Any) -> Any:
        self.optimizer.zero_grad()
        with POLICIES[self.policy]():
            loss = pycnn.cross_entropy(self.net(x), t)
            self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        optim.clip_grad_norm_(self.net.parameters(), 5.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def run(self, steps: int, captured: bool = False) -> list[float]:
        call = capture(self.step) if captured else self.step
        pycnn.manual_seed(steps)  # of dropout
        t, losses = pycnn.tensor([1, 2], device="cuda"), []
        for number in range(steps):
            x = pycnn.tensor(images(number), device="cuda").contiguous(memory_format=self.format)
            losses.append(float(call(x, t).item()))
        return losses


class Layouts:
    """What a run does with arrays of four axes: those that kernels see in C order, and copies of any kind."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.dense: set[str] = set()
        self.copies: list[str] = []
        self.launches: list[str] = []
        device_kind = device_cupy.CupyDevice
        load, launch, fill, compute = device_kind.load, device_kind.launch, device_kind.fill, played_arrays._compute
        loaded: dict[int, Any] = {}

        def known(device: Any, instance: Any) -> Any:
            kernel = load(device, instance)
            loaded[id(kernel)] = instance
            return kernel

        def launched(device: Any, kernel: Any, grid: Any, block: Any, shared: int, arguments: Any) -> None:
            instance = loaded[id(kernel)]
            self.launches.append(instance.kernel)
            for one in pointers_of(arguments):
                if getattr(one.array, "ndim", 0) == 4 and not is_channels_last(one.array):
                    self.dense.add(f"{one.name} of {instance}")
            launch(device, kernel, grid, block, shared, arguments)

        def filled(device: Any, array: Any, value: Any) -> None:
            if getattr(value, "ndim", 0) == 4:
                self.copies.append(f"fill of {array.shape}")
            fill(device, array, value)

        def computed(function: Any, order: str = "C") -> Any:
            result = compute(function, order)
            if result.ndim == 4:
                self.copies.append(f"{result.shape} computed by CuPy")
            return result

        patch.setattr(device_kind, "load", known)
        patch.setattr(device_kind, "launch", launched)
        patch.setattr(device_kind, "fill", filled)
        patch.setattr(played_arrays, "_compute", computed)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_changes_no_layout(policy: str, kind: str, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(policy, kind)
    x = pycnn.tensor(images(), device="cuda").contiguous(memory_format=pycnn.channels_last)
    t = pycnn.tensor([1, 2], device="cuda")
    seen = Layouts(monkeypatch)
    for _ in range(2):
        training.step(x, t)
    assert seen.dense == set()
    assert seen.copies == []
    maps = {name for name in seen.launches if name.startswith(("batch_norm", "channel_", "max_", "avg_", "dropout"))}
    vectors = {"batch_norm_moments_last", "channel_map_last", "batch_norm_slopes_last", "batch_norm_dx_last"}
    merging = {"batch_norm_statistics", "batch_norm_gradients", "channel_sum_last", "channel_sum"}  # of fc, the last
    pooling = {f"{name}_pool2d_{way}" for name in ("max", "avg") for way in ("fwd", "bwd")}
    assert maps == vectors | merging | pooling | {"dropout_last"}
    for parameter in training.net.parameters():
        if parameter.ndim == 4:
            assert parameter.is_contiguous(pycnn.channels_last)
            assert parameter.grad.is_contiguous(pycnn.channels_last)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_learns_what_it_learns_in_nchw(policy: str, gpu: Gpu) -> None:
    trainings = [Training(policy, last=last) for last in (True, False)]
    losses = [training.run(3) for training in trainings]
    # Sums in another order, whose last bits steps amplify; of 8 and 11 bits in the roundings of 16.
    tolerance = {"bfloat16": 0.05, "float16": 0.01, "3xtf32": 1e-4}[policy]
    np.testing.assert_allclose(losses[0], losses[1], rtol=tolerance)
    assert losses[0][0] != losses[0][1]


class Branches(nn.Module):
    """What joins, pads, cuts, scales and spreads maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.point, self.pool = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.up, self.fc = nn.ConvTranspose2d(24, 8, 2, stride=2, output_padding=1), nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = pycnn.relu(self.stem(x))
        maps = [self.point(x), pycnn.relu(self.wide(x)), self.pool(pycnn.max_pool2d(x, 3, 1, 1))]
        x = pycnn.functional.pad(pycnn.cat(maps, 1), (1, 0, 0, 1))[:, :, 1:]
        return self.fc(pycnn.adaptive_avg_pool2d(pycnn.sigmoid(self.up(x)) * 0.5, 1).flatten(1))


def test_branches_keep_the_layout(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slice of a gradient has between its channels is left out by a copy; that lies as the whole."""
    pycnn.manual_seed(1)
    net = Branches().cuda().to(memory_format=pycnn.channels_last)
    x = pycnn.tensor(images(), device="cuda").contiguous(memory_format=pycnn.channels_last)
    seen = Layouts(monkeypatch)
    with amp.autocast("float16"):
        loss = pycnn.cross_entropy(net(x), pycnn.tensor([1, 2], device="cuda"))
    loss.backward()
    assert seen.dense == set()


def test_images_may_come_in_nchw(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where filters lie channels-last, the first convolution reads its image as it lies, and no other sees one so."""
    training = Training()
    x, t = pycnn.tensor(images(), device="cuda").half(), pycnn.tensor([1, 2], device="cuda")
    seen = Layouts(monkeypatch)
    training.step(x, t)
    assert seen.copies == []
    assert {each.split("[")[0] for each in seen.dense} == {"x of conv2d_fprop_tensor", "x of conv2d_wgrad_tensor"}


def test_a_captured_step_is_the_eager_one(gpu: Gpu) -> None:
    eager, captured = (Training().run(5, captured) for captured in (False, True))
    assert eager == captured


def test_a_graph_keeps_the_layout_of_its_inputs(gpu: Gpu) -> None:
    lay: list[bool] = []

    def step(x: Any) -> Any:
        lay.append(x.is_contiguous(pycnn.channels_last))
        return pycnn.relu(x)

    call, x = capture(step), pycnn.tensor(images(), device="cuda")
    for memory_format in (pycnn.channels_last, pycnn.contiguous_format):
        lay.clear()
        for _ in range(4):
            y = call(x.contiguous(memory_format=memory_format))
            assert y.is_contiguous(memory_format)
            np.testing.assert_array_equal(y.cpu().numpy(), np.maximum(images(), 0))
        assert set(lay) == {memory_format is pycnn.channels_last}
    assert call.graphs == 2


def test_what_is_remembered_follows_the_parameters(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout that changes between two steps takes momentum, moments and gradients along."""
    for kind in OPTIMIZERS:
        changing, staying = Training("3xtf32", kind, last=False), Training("3xtf32", kind, last=False)
        for training in (changing, staying):
            training.run(2)
        changing.net.to(memory_format=pycnn.channels_last)
        for parameter in changing.net.parameters():
            assert parameter.grad is None or parameter.ndim != 4 or parameter.grad.is_contiguous(pycnn.channels_last)
        np.testing.assert_allclose(changing.run(1), staying.run(1), rtol=1e-4)  # sums in another order
        for state in changing.optimizer.state.values():
            assert all(is_channels_last(each) for each in state.values() if getattr(each, "ndim", 0) == 4)


def test_what_is_saved_is_the_same(gpu: Gpu) -> None:
    first = Training()
    first.run(2)
    saved, remembered = first.net.state_dict(), first.optimizer.state_dict()
    second = Training(last=False)
    second.net.load_state_dict(saved)
    second.optimizer.load_state_dict(remembered)
    again = Training()
    again.net.load_state_dict(second.net.state_dict())
    again.optimizer.load_state_dict(second.optimizer.state_dict())
    for name, value in again.net.state_dict().items():
        np.testing.assert_array_equal(value.cpu().numpy(), saved[name].cpu().numpy())
        assert value.ndim != 4 or value.is_contiguous(pycnn.channels_last)
    assert again.run(2) == first.run(2)


def test_parameters_of_16_bits(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Master copies lie as their parameters."""
    pycnn.manual_seed(3)
    net = Net().cuda().to("float16", memory_format=pycnn.channels_last)
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x = pycnn.tensor(images(), device="cuda").half().contiguous(memory_format=pycnn.channels_last)
    seen = Layouts(monkeypatch)
    for _ in range(2):
        optimizer.zero_grad()
        pycnn.cross_entropy(net(x).float(), pycnn.tensor([1, 2], device="cuda")).backward()
        optimizer.step()
    assert (seen.dense, seen.copies) == (set(), [])


def test_layouts_move_with_tensors(gpu: Gpu) -> None:
    x = pycnn.tensor(images()).contiguous(memory_format=pycnn.channels_last)
    there = x.cuda()
    assert there.is_contiguous(pycnn.channels_last)
    assert there.cpu().is_contiguous(pycnn.channels_last)
    np.testing.assert_array_equal(there.cpu().numpy(), images())
    assert (there + there).is_contiguous(pycnn.channels_last)
    gate = pycnn.tensor(images()[:, :, :1, :1].copy(), device="cuda")
    for y, expected in (
        (there * gate, images() * images()[:, :, :1, :1]),
        (2.0 - there, 2 - images()),
        (-there / gate, -images() / images()[:, :, :1, :1]),
        ((there + gate) ** 2, (images() + images()[:, :, :1, :1]) ** 2),
        (there.exp().sqrt(), np.sqrt(np.exp(images()))),
    ):
        assert y.is_contiguous(pycnn.channels_last)
        np.testing.assert_array_equal(y.cpu().numpy(), expected)
    assert not (there * pycnn.tensor(images()[0, 0], device="cuda")).is_contiguous(pycnn.channels_last)
    assert pycnn.cat([there, there], 1).is_contiguous(pycnn.channels_last)
    assert there.clone().is_contiguous(pycnn.channels_last)
    assert there.half().is_contiguous(pycnn.channels_last)
    assert there.contiguous().is_contiguous()
