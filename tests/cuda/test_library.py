"""The whole library on arrays of a played CuPy: tensors, layers, optimisers, training, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from played import Gpu, playing

import pycnn
from pycnn import Tensor, checkpoint, nn, optim
from pycnn import functional as F
from pycnn.autograd import no_grad
from pycnn.cli import main
from pycnn.data import ArrayDataset, Split
from pycnn.models.resnet import BasicBlock, Bottleneck
from pycnn.testing import half_dtypes
from pycnn.testing.halves import rounded
from pycnn.training import Recipe, Trainer, evaluate

pytestmark = [pytest.mark.simulator, pytest.mark.nvrtc]


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with playing(2) as played:
        yield played


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# ------------------------------------------------------------------------------------------------------------ tensors


def test_tensors_move(gpu: Gpu) -> None:
    x = Tensor(values(2, 3), requires_grad=True)
    y = x.to("cuda")
    assert (x.device, y.device, y.is_cuda, x.is_cuda) == ("cpu", "cuda:0", True, False)
    assert y.to("cuda:0") is y
    assert y.cuda() is y
    assert x.cpu() is x
    assert y.to("cuda:1").device == "cuda:1" == y.cuda(1).device
    assert y.to("cpu", np.float64).dtype == np.float64
    assert x.to(y).device == "cuda:0"
    assert pycnn.zeros(2, device="cuda").device == "cuda:0"
    assert pycnn.tensor([1, 2], device="cuda:1").device == "cuda:1"
    (y * y).sum().backward()  # the gradient comes back to where x is
    assert x.grad is not None
    assert x.grad.device == "cpu"
    assert np.array_equal(x.grad.numpy(), 2 * x.detach().numpy())
    assert np.array_equal(y.detach().numpy(), x.detach().numpy())


def test_a_tensor_on_a_gpu_becomes_no_numpy_array_unasked(gpu: Gpu) -> None:
    with pytest.raises(TypeError, match=r"this tensor is on cuda:0; NumPy gets a copy of it by .numpy\(\) or .cpu\(\)"):
        np.asarray(pycnn.ones(2, device="cuda"))
    assert repr(pycnn.ones(2, device="cuda")) == "tensor([1., 1.], device='cuda:0')"
    assert pycnn.ones(2, device="cuda").numpy().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "cpu:1"])
def test_other_names_of_devices_are_refused(gpu: Gpu, device: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        pycnn.ones(1).to(device)


def test_arrays_of_two_places_are_refused(gpu: Gpu) -> None:
    x, w = pycnn.ones(1, 1, 4, 4), pycnn.ones(1, 1, 3, 3, device="cuda")
    with pytest.raises(TypeError, match="all arrays must come from one library, got x: numpy, w: cupy"):
        pycnn.conv2d(x, w)
    with pytest.raises(TypeError, match="all arrays must be on one device, got x: cuda:1, w: cuda:0"):
        pycnn.conv2d(x.cuda(1), w)


def test_operators_run_where_their_arrays_are(gpu: Gpu) -> None:
    x, w = pycnn.ones(1, 2, 4, 4, device="cuda:1"), pycnn.ones(3, 2, 3, 3, device="cuda:1")
    for y in (pycnn.relu(x), pycnn.conv2d(x, w), pycnn.max_pool2d(x, 2), pycnn.ops.concat([x.data, x.data])):
        assert y.device in ("cuda:1", gpu.module.cuda.Device(1))  # the current one is cuda:0 all the time
    assert {number for number, _ in gpu.loaded} == {1}


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
def test_arrays_of_16_bits_reach_the_kernels_as_they_are(gpu: Gpu, dtype: np.dtype) -> None:
    """Layers with float32 and 16-bit parameters; what has one value a channel is rounded on the GPU where asked."""
    xs, scale, shift = rounded(values(2, 3, 6, 8), dtype), values(3, seed=1), rounded(values(3, seed=2), dtype)
    results = []
    for device in ("cpu", "cuda"):
        x, weight, bias = (Tensor(array).to(device).requires_grad_() for array in (xs, scale, shift))
        y = F.max_pool2d(pycnn.relu(F.batch_norm(F.bias(x, bias), weight=weight, training=True)), 2)
        y.backward(Tensor(rounded(values(*y.shape, seed=3), dtype)).to(device))
        assert [one.dtype for one in (y, x.grad, weight.grad, bias.grad)] == [dtype, dtype, np.float32, dtype]
        total = pycnn.ops.channel_sum(x.detach().data)
        assert total.dtype == dtype
        results.append([one.detach().numpy() for one in (y, x.grad, weight.grad, bias.grad, Tensor(total))])
    kind = "f16" if dtype == np.float16 else "bf16"
    names = {f"{instance}" for instance in gpu.simulator.launches}
    assert {f"channel_map[narrow_{kind}]", f"binary[relu_bwd_{kind}]", f"convert[f32_{kind}]"} <= names
    unit = 2.0**-10 if dtype == np.float16 else 2.0**-7
    for cpu, cuda in zip(*results, strict=True):
        # Where sums differ in the last bit of float32, one may be rounded up and the other down.
        cpu, cuda = cpu.astype(np.float32), cuda.astype(np.float32)
        np.testing.assert_allclose(cuda, cpu, rtol=unit, atol=1e-5 * abs(cpu).max())


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "arithmetic": lambda a, b: ((a + b) * a - b / (b * b + 2.0) + 3 - 2 * a) ** 2 + (-a).abs() + 1.0 / (2.0 + a * a),
    "broadcast": lambda a, b: a * b[0] + b[:, :1] - a.sum(0),
    "functions": lambda a, b: a.exp() + (b * b + 0.5).log() + (a * a + 1.0).sqrt() + a.clamp(-0.5, 0.5),
    "powers": lambda a, b: (a * a + 0.5) ** b + 2.0**a,
    "extremes": lambda a, b: a.maximum(b) + a.minimum(0.25) + a.amax(1, keepdim=True) + b.max(0)[0] + a.min(),
    "reductions": lambda a, b: a.mean(1) + b.sum(1) + a.var(1) + a.std(),
    "matmul": lambda a, b: a @ b.T,
    "shapes": lambda a, b: a.reshape(-1, 2).T.flatten() + b.unsqueeze(0).squeeze().permute(1, 0).contiguous().view(-1),
    "slices": lambda a, b: a[1:, ::2] * b[:-1, 1::2] + a[0, 0],
    "gather": lambda a, b: a[Tensor(np.array([2, 0, 2])).to(a.device)] + b[[0, 1, 1]],
    "expand": lambda a, b: a[:1].expand(3, 4) * b,
    "where": lambda a, b: pycnn.where(a > 0, a, b) + pycnn.where(b < 0.5, 0.0, b),
    "cat": lambda a, b: pycnn.cat([a, b, a], 1) * pycnn.stack([a, b, b], 2).reshape(3, 12),
    "pad": lambda a, b: pycnn.pad(a, (1, 2), value=2.0) + pycnn.pad(b, (2, 1), "reflect"),
    "casts": lambda a, b: (a.double() + b.to(np.float64)).float() * a.type_as(b),
    "mse": lambda a, b: F.mse_loss(a, b) + F.mse_loss(a, b, "sum"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_their_gradients_are_those_of_the_cpu(gpu: Gpu, name: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        a, b = (Tensor(values(3, 4, seed=seed)).to(device).requires_grad_() for seed in (1, 2))
        y = OPERATIONS[name](a, b)
        (y * y).sum().backward()
        assert y.device.startswith(device)
        results.append([one.detach().numpy() for one in (y, a.grad, b.grad)])  # type: ignore[union-attr]
    for cpu, cuda in zip(*results, strict=True):
        np.testing.assert_allclose(cuda, cpu, rtol=1e-5, atol=1e-6)  # the same float32 steps; sums in another order


def test_changes_in_place(gpu: Gpu) -> None:
    results = []
    for device in ("cpu", "cuda"):
        x, v = (Tensor(values(3, 4, seed=seed)).to(device).requires_grad_() for seed in (1, 2))
        y = x * 1.0
        y[1] += v[0]
        y[:, 0] = 7.0
        y *= 2.0
        z = pycnn.zeros(3, 4, device=device).copy_(y)
        z[0] = np.ones(4, np.float32) if device == "cpu" else pycnn.ones(4)
        (z * z).sum().backward()
        results.append([one.numpy() for one in (z.detach(), x.grad, v.grad)])  # type: ignore[union-attr]
    for cpu, cuda in zip(*results, strict=True):
        assert np.array_equal(cpu, cuda)


def test_gradients_of_gradients(gpu: Gpu) -> None:
    results = []
    for device in ("cpu", "cuda"):
        x = Tensor(values(2, 3)).to(device).requires_grad_()
        (dx,) = pycnn.grad((x**3).sum(), x, create_graph=True)
        (ddx,) = pycnn.grad((dx * dx).sum(), x)
        assert ddx is not None
        results.append(ddx.numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)  # powers are computed alike but for their rounding


# ------------------------------------------------------------------------------------------------- layers, optimisers


class Small(nn.Module):
    """Each kind of layer that the classifiers are made of, on 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2)
        self.fc = nn.Linear(8, 10)
        self.drop = nn.Dropout(0.25)

    def forward(self, x: Any) -> Any:
        x = pycnn.max_pool2d(pycnn.relu(self.bn(self.conv1(x))), 2)
        x = pycnn.adaptive_avg_pool2d(pycnn.tanh(self.conv2(pycnn.pad(x, (1, 1, 1, 1)))), 1)
        return self.fc(self.drop(x.flatten(1)))


def trained(device: str, optimizer: Callable[..., optim.Optimizer], steps: int = 3, **options: Any) -> Small:
    pycnn.manual_seed(3)
    net = Small().to(device)
    opt = optimizer(net.parameters(), **options)
    for step in range(steps):
        x, t = Tensor(values(6, 1, 8, 8, seed=step)), Tensor(np.arange(6) % 10)
        loss = F.cross_entropy(net(x.to(device)), t.to(device), label_smoothing=0.1 * (step % 2))
        opt.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
    return net


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (optim.SGD, {"lr": 0.1}),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
        (optim.Adam, {"lr": 0.01, "weight_decay": 1e-2}),
        (optim.AdamW, {"lr": 0.01}),
    ],
)
def test_training_steps_are_those_of_the_cpu(
    gpu: Gpu, optimizer: Callable[..., optim.Optimizer], options: dict[str, Any]
) -> None:
    on_gpu, on_cpu = trained("cuda", optimizer, **options), trained("cpu", optimizer, **options)
    state = on_cpu.state_dict()
    for name, tensor in on_gpu.state_dict().items():
        assert tensor.device == "cuda:0"
        # Three steps of float32 in another order of summing; Adam divides by roots of small squares.
        np.testing.assert_allclose(tensor.numpy(), state[name].numpy(), rtol=2e-3, atol=2e-4, err_msg=name)


def test_modules_move_with_gradients_and_keep_their_parameters(gpu: Gpu) -> None:
    net = trained("cpu", optim.SGD, 1, lr=0.1)
    parameters = list(net.parameters())
    net.cuda()
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert {t.device for t in (*net.parameters(), *net.buffers())} == {"cuda:0"}
    assert {p.grad.device for p in net.parameters() if p.grad is not None} == {"cuda:0"}
    assert net.to("cuda", "float64").fc.weight.dtype == np.float64
    assert net.cpu().fc.weight.device == "cpu"


def test_an_optimiser_follows_its_parameters(gpu: Gpu) -> None:
    results = []
    for optimizer, options in ((optim.SGD, {"lr": 0.1, "momentum": 0.9}), (optim.Adam, {"lr": 0.01})):
        for device in ("cpu", "cuda"):
            p = nn.Parameter(values(5))
            opt = optimizer([p], **options)
            for step in range(3):
                p.grad = Tensor(values(5, seed=step)).to(p.device)
                opt.step()
                if step == 0:
                    p.data = p.detach().to(device).data
            results.append(p.detach().numpy())
    for cpu, cuda in (results[:2], results[2:]):
        np.testing.assert_allclose(cuda, cpu, rtol=1e-5)  # Adam's corrections are computed in another way


def test_states_cross_devices(gpu: Gpu, tmp_path: Path) -> None:
    net = trained("cuda", optim.Adam, lr=0.01)
    opt = optim.Adam(net.parameters(), lr=0.01)
    sum((p * p).sum() for p in net.parameters()).backward()
    opt.step()
    checkpoint.save(tmp_path / "run.safetensors", {"model": net, "optimizer": opt})
    for device in ("cpu", "cuda:1"):
        other = Small().to(device)
        again = optim.Adam(other.parameters(), lr=0.5)
        with pycnn.cuda.device(1 if device == "cuda:1" else 0):
            checkpoint.restore(tmp_path / "run.safetensors", {"model": other, "optimizer": again})
        state = other.state_dict()
        for name, tensor in net.state_dict().items():
            assert state[name].device == device if ":" in device else "cpu"
            assert np.array_equal(state[name].numpy(), tensor.numpy())
        first = next(iter(other.parameters()))
        kept = again.state[first]["exp_avg"]
        assert pycnn.Tensor(kept).device.startswith(device[:4])
    plain = Small()
    plain.load_state_dict(net.state_dict())
    assert np.array_equal(plain.state_dict()["fc.weight"].numpy(), net.state_dict()["fc.weight"].numpy())


# ------------------------------------------------------------------------------------------------------------ training


def digits(count: int) -> Split:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    parts = images[: count - 8], images[count - 8 :]
    sets = [ArrayDataset(part, rng.integers(0, 3, len(part)), list("abc")) for part in parts]
    return Split("noise", *sets, "made up")


def run(device: str) -> Trainer:
    pycnn.manual_seed(1)
    recipe = Recipe(epochs=2, batch=8, lr=0.02, label_smoothing=0.1)
    trainer = Trainer(Small().to(device), digits(32), (1, 8, 8), recipe)
    trainer.fit()
    return trainer


def test_the_trainer_waits_once_a_step(gpu: Gpu) -> None:
    cpu = run("cpu")
    waits: list[int] = []
    step = Trainer._step

    def counted(self: Trainer, *given: Any) -> Any:
        before = len(gpu.transfers)
        result = step(self, *given)
        waits.append(len(gpu.transfers) - before)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", counted)
        trainer = run("cuda")
    assert waits == [1] * 6
    for ours, theirs in zip(trainer.history, cpu.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-4)  # six steps of float32, summed otherwise
        assert ours.test_loss == pytest.approx(theirs.test_loss, rel=1e-3)


def test_evaluation_answers_in_numpy(gpu: Gpu) -> None:
    net = Small()
    batches = [(values(4, 1, 8, 8), np.arange(4))]
    cpu = evaluate(net, batches)
    cuda = evaluate(net.cuda(), batches)
    np.testing.assert_allclose(cuda.probabilities, cpu.probabilities, rtol=1e-4)  # float32 sums in another order
    with no_grad():
        assert net(pycnn.zeros(1, 1, 8, 8, device="cuda")).device == "cuda:0"


def test_the_train_command(gpu: Gpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    for part, count in (("train", 12), ("t10k", 4)):
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        for name, array, kind in ((f"{part}-images-idx3-ubyte", images, 3), (f"{part}-labels-idx1-ubyte", labels, 1)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / name).write_bytes(bytes((0, 0, 8, kind)) + sizes + array.tobytes())
    losses = []
    for backend in ("cuda", "cpu"):
        out = tmp_path / backend
        given = ["--data", str(tmp_path), "--out", str(out), "--epochs", "1", "--batch", "6", "--no-plots"]
        assert main(["train", "lenet5", *given, "--backend", backend]) == 0
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["backend"] == backend
        losses.append([metrics["history"][0]["train_loss"], metrics["test_loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # two steps of float32, summed in another order
    assert any(name.startswith("conv2d_") for name in gpu.launches)
    assert any(name.startswith("adam_step") or name.startswith("sgd_step") for name in gpu.launches)


@pytest.mark.parametrize("command", [["train", "lenet5", "--backend", "cuda"], ["bench", "--backend", "cuda"]])
def test_without_a_gpu_one_sentence_says_what_is_missing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if pycnn.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "the cuda backend needs an NVIDIA GPU and its driver" in message or "pip install 'pycnn[cuda13]'" in message


def test_the_bench_command(gpu: Gpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = ["n1c8h6_k8r3_pd1_fprop", "n1c8h6_k8r3_pd1_wgrad"]
    given = [word for problem in problems for word in ("--problem", problem)]
    assert main(["bench", "--backend", "cuda", "--algo", "direct,winograd", *given, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("played, sm_90a: 66908 GFLOP/s")
    assert "n1c8h6w6_k8r3s3" in text
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert "winograd_f2x2_3x3" in json.dumps(rows)


# --------------------------------------------------------------------------------------------- blocks of the networks


def residual() -> nn.Module:
    """The first blocks of a ResNet, narrow: a strided shortcut, both kinds of block."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(8, 8),
        Bottleneck(8, 4, 2, nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def inception() -> nn.Module:
    """AlexNet's and GoogLeNet's ways: LRN, an inception module, concatenation, dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Branches(),
        nn.ReLU(),
        nn.AvgPool2d(3, 1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(108, 5),
    )


class Branches(nn.Module):
    """1x1, 3x3, 5x5 and pooling, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 3, padding=1)
        self.five, self.pool = nn.Conv2d(8, 4, 5, padding=2), nn.Conv2d(8, 4, 1)

    def forward(self, x: Any) -> Any:
        pooled = pycnn.max_pool2d(x, 3, 1, 1)
        return pycnn.cat([self.one(x), self.three(x), self.five(x), self.pool(pooled)], 1)


@pytest.mark.parametrize("make", [residual, inception])
def test_blocks_forward_and_backward_are_those_of_the_cpu(gpu: Gpu, make: Callable[[], nn.Module]) -> None:
    results = []
    for device in ("cpu", "cuda"):
        pycnn.manual_seed(9)
        net = make().to(device)
        x = Tensor(values(2, 3, 19, 17)).to(device).requires_grad_()
        loss = F.cross_entropy(net(x), Tensor(np.array([1, 4])).to(device))
        loss.backward()
        gradients = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
        results.append({"loss": loss.detach().numpy(), "x": x.grad.numpy(), **gradients})  # type: ignore[union-attr]
    assert results[0].keys() == results[1].keys()
    for name, cpu in results[0].items():
        scale = float(np.abs(cpu).max()) or 1.0
        # Some ten layers deep, each a float32 sum in another order, batch norm over few pixels among them.
        assert np.abs(results[1][name] - cpu).max() <= 2e-4 * scale, name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_target_that_is_no_class_makes_the_loss_nan(gpu: Gpu, smoothing: float) -> None:
    x = Tensor(values(3, 4)).cuda()

    def loss(*target: int) -> float:
        return F.cross_entropy(x, Tensor(np.array(target)).cuda(), label_smoothing=smoothing).item()

    assert np.isfinite(loss(0, 3, -100))
    assert np.isnan(loss(0, 4, 1))
    assert np.isnan(loss(0, -1, 1))
    assert gpu.transfers == ["item"] * 3  # nobody looked before


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:x"])
def test_a_device_of_another_name_is_refused(name: str) -> None:
    for move in (pycnn.ones(2).to, nn.Linear(2, 2).to):
        with pytest.raises(ValueError, match=f"a device is .*got '{name}'"):
            move(name)
