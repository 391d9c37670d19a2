"""Training: recipes, the loop, its checkpoints, and what it leaves behind."""

import errno
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

import pycnn
from pycnn import checkpoint, data, models, nn, random
from pycnn import functional as F
from pycnn.cli import _train_outputs, main
from pycnn.data import ArrayDataset, Split
from pycnn.training import Diverged, Evaluation, Recipe, Trainer, evaluate, pipelines, recipe_for

pytest.importorskip("safetensors")

BACKEND = "cpu" if importlib.util.find_spec("pycnn._cpu") else "reference"


@pytest.fixture(autouse=True)
def backend():
    with pycnn.use_backend(BACKEND):
        yield


class Net(nn.Module):
    """Small, and with everything that has a state: batch norm's averages, dropout's random numbers."""

    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(4 * 4 * 4, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.fc(self.drop(F.flatten(x, 1)))


def stripes(n, seed=0):
    """Images of three kinds that a network can tell apart: bright above, below, or on the left."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 120, (n, 1, 8, 8), np.uint8)
    images[labels == 0, :, :4] += 100
    images[labels == 1, :, 4:] += 100
    images[labels == 2, :, :, :4] += 100
    return ArrayDataset(images, labels, ("above", "below", "left"))


def split(n=60):
    return Split("stripes", stripes(n), stripes(21, 1), "made up")


RECIPE = Recipe(epochs=3, batch=8, lr=0.01, shift=1)


def trainer(recipe=RECIPE, seed=0, **settings):
    random.manual_seed(seed)
    return Trainer(Net(), split(), (1, 8, 8), recipe, seed=seed, **settings)


def weights(net):
    return {name: value.data.tobytes() for name, value in net.state_dict().items()}


# -- recipes -----------------------------------------------------------------------------------------------------


def test_schedules():
    cosine = [Recipe(lr=2.0, schedule="cosine").rate(step, 4) for step in range(4)]
    np.testing.assert_allclose(cosine, [2.0, 1 + np.sqrt(0.5), 1.0, 1 - np.sqrt(0.5)])
    assert Recipe(lr=2.0, schedule="constant").rate(99, 100) == 2.0
    warm = [Recipe(lr=1.0, warmup=0.5, schedule="constant").rate(step, 8) for step in range(6)]
    np.testing.assert_allclose(warm, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch", -1),
        ("epochs", 1.5),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("weight_decay", -1e-4),
        ("warmup", 1.0),
        ("label_smoothing", 1.5),
        ("optimizer", "adagrad"),
        ("schedule", "linear"),
        ("shift", -1),
    ],
)
def test_recipe_is_checked(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        Recipe(**{name: value})


def test_every_network_has_a_recipe():
    assert not recipe_for("lenet5", "digits").flip
    assert recipe_for("lenet5", "fashion-mnist").flip
    assert recipe_for("resnet20", "cifar10").optimizer == "sgd"
    assert recipe_for("vgg16", "my photos").epochs > 0


@pytest.mark.parametrize(
    ("size", "channels"), [((28, 28), 1), ((8, 8), 1), ((40, 50), 3), ((32, 32), 3), ((200, 90), 3)]
)
@pytest.mark.parametrize("wanted", [(1, 32, 32), (3, 32, 32)])
def test_pipelines_give_what_the_network_takes(size, channels, wanted):
    images = np.random.default_rng(0).integers(0, 256, (3, channels, *size), np.uint8)
    part = ArrayDataset(images, np.zeros(3, int), "a")
    recipe = Recipe(resize=28, shift=2, flip=True, cutout=5, color_jitter=0.1)
    for transform in pipelines(Split("x", part, part, ""), wanted, recipe):
        got = transform(images, np.zeros((3, transform.draws), np.uint32))
        assert got.shape == (3, *wanted)
        assert got.dtype == np.float32


def test_small_images_get_a_border_not_a_blur():
    images = np.random.default_rng(0).integers(1, 256, (3, 1, 28, 28), np.uint8)
    part = ArrayDataset(images, np.zeros(3, int), "a")
    _, test = pipelines(Split("x", part, part, ""), (1, 32, 32), Recipe(shift=2))
    got = test(images, np.zeros((3, 0), np.uint32))
    assert np.unique(got[:, :, :2]).size == 1
    # The inside is the image itself, up to the rounding of one multiplication and one addition in float32.
    np.testing.assert_allclose(np.corrcoef(got[:, :, 2:30, 2:30].ravel(), images.ravel())[0, 1], 1, rtol=1e-6)


# -- evaluation --------------------------------------------------------------------------------------------------


def test_evaluation_counts():
    labels = np.array([0, 0, 1, 2, 2])
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.6, 0.1], [0.96, 0, 0.04], [0, 0, 1]], np.float32)
    result = Evaluation(labels, scores, 0.5)
    assert result.accuracy == 0.6
    assert result.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert result.mistakes(5).tolist() == [3, 1]
    assert result.mistakes(1).tolist() == [3]


def test_evaluate_uses_and_restores_the_mode():
    class Modal(nn.Module):
        def forward(self, x):
            assert not self.training
            return F.flatten(x, 1)

    net = Modal()
    x = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    result = evaluate(net, [(x, np.arange(3)), (x[:1], np.array([2]))])
    assert net.training
    assert result.accuracy == 0.75
    softmax = np.exp([1, 0, 0]) / np.exp([1, 0, 0]).sum()
    assert result.loss == pytest.approx(-(3 * np.log(softmax[0]) + np.log(softmax[1])) / 4, rel=1e-6)
    with pytest.raises(ValueError, match="no images"):
        evaluate(net, [])


# -- the loop ----------------------------------------------------------------------------------------------------


def test_it_learns():
    run = trainer(Recipe(epochs=6, batch=8, lr=0.01))
    reports = []
    run.fit(on_epoch=reports.append)
    assert run.finished
    assert [report.epoch for report in reports] == [1, 2, 3, 4, 5, 6]
    assert reports == run.history
    assert run.evaluate().accuracy == reports[-1].test_accuracy > 0.9
    assert reports[-1].train_loss < reports[0].train_loss / 2
    assert 0 <= reports[0].waited <= reports[0].seconds


def test_batches_are_reported():
    seen = []
    trainer(Recipe(epochs=2, batch=25)).fit(on_batch=seen.append)
    assert [(report.epoch, report.batch, report.batches) for report in seen] == [
        (epoch, batch, 3) for epoch in (1, 2) for batch in (1, 2, 3)
    ]
    assert all(report.images_per_second > 0 and np.isfinite(report.loss) for report in seen)


def test_biases_and_norms_are_not_decayed():
    groups = trainer().optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert {p.data.ndim for p in groups[0]["params"]} == {2, 4}
    assert {p.data.ndim for p in groups[1]["params"]} == {1}


@pytest.mark.parametrize(("batch", "batches"), [(59, 1), (20, 3), (58, 2), (60, 1), (1, 60)])
def test_no_batch_of_one(batch, batches):
    """60 images in batches of 59 would leave one alone, for which batch norm has no variance."""
    assert len(trainer(Recipe(batch=batch)).loader) == batches


def test_auxiliary_heads_count_a_third():
    class Heads(Net):
        def forward(self, x):
            y = super().forward(x)
            return (y, y * 2.0, None) if self.training else y

    run = Trainer(Heads(), split(), (1, 8, 8), Recipe(epochs=1, batch=60, lr=1e-3))
    run.fit()
    assert run.finished


def test_divergence_is_said_and_saves_nothing_bad(tmp_path):
    run = trainer(Recipe(epochs=3, batch=8, lr=1e30, optimizer="sgd", schedule="constant"))
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"diverged.*epoch 1, batch \d.*1e\+30.*smaller --lr"):
        run.fit(tmp_path / "last")
    assert list(tmp_path.iterdir()) == []


# -- checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(BACKEND != "cpu", reason="the native engine is not built")
def test_threads_do_not_change_the_run():
    before, runs = pycnn.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            pycnn.set_num_threads(threads)
            run = trainer()
            run.fit()
            runs.append(weights(run.net))
    finally:
        pycnn.set_num_threads(before)
    assert runs[0] == runs[1] == runs[2]


class Stop(Exception):
    """Ends a run from within, as Ctrl-C would."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("killed_after", [1, 5, 8, 13, 23])
def test_resumed_run_is_the_same_run(tmp_path, killed_after, workers):
    """8 steps an epoch, a checkpoint every 3: killed within, at the end of, and just after epochs."""
    whole = trainer()
    whole.fit()

    path, steps = tmp_path / "last", 0

    def stop(_):
        nonlocal steps
        steps += 1
        if steps == killed_after:
            raise Stop

    broken = trainer(workers=workers)
    with pytest.raises(Stop):
        broken.fit(path, every=3, on_batch=stop)

    resumed = trainer(workers=workers)
    random.manual_seed(99)  # whatever happened before: the checkpoint brings its own random state
    if path.exists():
        resumed.resume(path)
    else:
        assert killed_after < 3
        random.manual_seed(0)
        resumed = trainer(workers=workers)
    resumed.fit(path, every=3)
    assert weights(resumed.net) == weights(whole.net)
    assert resumed.step == whole.step == 24
    for mine, other in zip(resumed.history, whole.history, strict=True):
        assert (mine.train_loss, mine.train_accuracy, mine.test_loss, mine.lr) == (
            other.train_loss,
            other.train_accuracy,
            other.test_loss,
            other.lr,
        )


@pytest.mark.parametrize("amp", ["float16", "bfloat16"])
def test_mixed_precision_learns_and_resumes(tmp_path, amp):
    if amp == "bfloat16":
        pytest.importorskip("ml_dtypes")
    whole = trainer(Recipe(epochs=6, batch=8, lr=0.01), amp=amp)
    whole.scaler.load_state_dict({**whole.scaler.state_dict(), "scale": 2.0**24, "growth_interval": 9})
    seen = []
    whole.net.fc.register_forward_hook(lambda module, args, y: seen.append((args[0].dtype.name, y.dtype.name)))
    whole.fit()
    assert set(seen) == {(amp, amp)}  # in training and in evaluation
    assert whole.history[-1].test_accuracy > 0.9
    assert whole.history[-1].train_loss < whole.history[0].train_loss / 2
    assert all(value.dtype.name in ("float32", "int64") for value in whole.net.state_dict().values())

    path, steps = tmp_path / "last", 0

    def stop(_):
        nonlocal steps
        steps += 1
        if steps == 21:
            raise Stop

    broken = trainer(Recipe(epochs=6, batch=8, lr=0.01), amp=amp)
    broken.scaler.load_state_dict({**broken.scaler.state_dict(), "scale": 2.0**24, "growth_interval": 9})
    with pytest.raises(Stop):
        broken.fit(path, every=5, on_batch=stop)
    resumed = trainer(Recipe(epochs=6, batch=8, lr=0.01), amp=amp)
    resumed.resume(path)
    resumed.fit()
    assert weights(resumed.net) == weights(whole.net)
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    if amp == "float16":
        assert whole.scaler.get_scale() != 2.0**24  # it has moved, from where there is no state of it in a new run
    with pytest.raises(ValueError, match=f"was written with amp = '{amp}', this run has None"):
        trainer(Recipe(epochs=6, batch=8, lr=0.01)).resume(path)


def test_float32_is_what_it_was_without_a_word_of_precision(tmp_path):
    """A checkpoint from before there was mixed precision goes on."""
    run = trainer()
    run.fit(tmp_path / "last")
    found = checkpoint.load(tmp_path / "last")
    assert "scaler" not in found.parts
    found.extra["settings"].pop("amp")
    checkpoint.save(tmp_path / "older", run._parts(), found.extra)
    trainer().resume(tmp_path / "older")
    with pytest.raises(ValueError, match="dtype must be float16 or bfloat16, got 'float8'"):
        trainer(amp="float8")


def test_another_runs_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last"
    run = trainer(Recipe(epochs=1, batch=30), settings={"net": "this"})
    run.fit(path)
    before = weights(run.net)
    for recipe, net, named in (
        (Recipe(epochs=1, batch=20), "this", "batch = 30, this run has 20"),
        (Recipe(epochs=1, batch=30), "that", "net = 'this', this run has 'that'"),
    ):
        with pytest.raises(ValueError, match=named):
            trainer(recipe, settings={"net": net}).resume(path)
    checkpoint.save(tmp_path / "other", {"model": run.net})
    with pytest.raises(ValueError, match="other is a checkpoint, but not one of a training run"):
        run.resume(tmp_path / "other")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(checkpoint.CheckpointError, match="last"):
        run.resume(path)
    assert weights(run.net) == before


def test_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last"
    run = trainer()

    def fill(_):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(checkpoint.CheckpointError, match="No space left"):
        run.fit(path, on_epoch=fill)
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]
    resumed = trainer()
    resumed.resume(path)
    assert len(resumed.history) == 1


# -- the command -------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """A data set of MNIST's layout with 40 + 20 noisy images."""
    place = tmp_path / "data"
    place.mkdir()
    for part, n in (("train", 40), ("t10k", 20)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = np.random.default_rng(n).integers(0, 100, (n, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 6] += 150
        (place / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (place / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return place


def command(folder, out, *more):
    return ["train", "lenet5", "--data", str(folder), "--out", str(out), "--backend", BACKEND, "--batch", "10", *more]


def test_train_writes_everything(folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    assert main(command(folder, out, "--epochs", "2")) == 0
    said = capsys.readouterr().out
    assert "40 images to train on, 20 to test" in said
    assert "epoch 2/2" in said
    names = {path.name for path in out.iterdir()}
    pictures = {"curves.png", "confusion.png", "mistakes.png", "filters.png", "activations.png"}
    assert names == {"checkpoint.safetensors", "metrics.json", *pictures}
    for name in pictures:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["net"] == "lenet5"
    assert metrics["parameters"] == 61706
    assert [epoch["epoch"] for epoch in metrics["history"]] == [1, 2]
    assert np.sum(metrics["confusion"]) == 20
    assert metrics["test_accuracy"] == np.trace(metrics["confusion"]) / 20


def test_the_command_trains_in_mixed_precision(folder, tmp_path):
    losses = {}
    for amp in (None, "float16"):
        out = tmp_path / str(amp)
        more = [] if amp is None else ["--amp", amp]
        assert main(command(folder, out, "--epochs", "1", "--no-plots", *more)) == 0
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["amp"] == amp
        losses[amp] = metrics["history"][0]["train_loss"]
    assert losses[None] != losses["float16"]
    assert losses[None] == pytest.approx(losses["float16"], rel=0.02)  # four steps from the same weights


@pytest.mark.slow
def test_lenet5_in_mixed_precision_reaches_the_score_of_float32():
    pytest.importorskip("sklearn")
    pytest.importorskip("ml_dtypes")
    digits = data.load("digits")
    recipe = recipe_for("lenet5", "digits")
    scores = {}
    for amp in (None, "bfloat16", "float16"):
        for seed in range(3):
            random.manual_seed(seed)
            run = Trainer(models.create("lenet5"), digits, (1, 32, 32), recipe, seed=seed, amp=amp)
            run.fit()
            scores.setdefault(amp, []).append(run.history[-1].test_accuracy)
    # 359 images are tested, so an image is 0.28 %; seeds in float32 differ by one or two of them.
    for amp in ("bfloat16", "float16"):
        assert np.mean(scores[amp]) > np.mean(scores[None]) - 0.005, scores
        assert min(scores[amp]) > 0.985, scores


def test_seeds(folder, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(command(folder, out, "--epochs", "1", "--seeds", "2", "--seed", "5", "--no-plots")) == 0
    assert sorted(path.name for path in out.iterdir()) == ["seed5", "seed6"]
    assert "worst" in capsys.readouterr().out
    metrics = [json.loads((out / f"seed{seed}" / "metrics.json").read_text()) for seed in (5, 6)]
    assert metrics[0]["history"][0]["train_loss"] != metrics[1]["history"][0]["train_loss"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--epochs", "0"], "epochs must be between 1"),
        (["--lr", "nan"], "lr must be positive"),
        (["--seeds", "0"], "--seeds must be between 1"),
        (["--schedule", "zigzag"], "schedule must be one of cosine, step, constant, got 'zigzag'"),
        (["--data", "nowhere"], "data must be one of digits"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, capsys, more, said):
    assert main([*command(folder, tmp_path / "run", "--epochs", "1"), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pycnn train: ")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_damaged_data_and_checkpoints_are_one_line(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(folder, out, "--epochs", "1", "--no-plots")) == 0
    saved = out / "checkpoint.safetensors"
    saved.write_bytes(saved.read_bytes()[:1000])
    capsys.readouterr()
    assert main(command(folder, out, "--epochs", "1", "--resume")) == 2
    assert "checkpoint.safetensors" in capsys.readouterr().err
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    assert main(command(folder, out, "--epochs", "1")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_unwritable_output_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(command(folder, tmp_path / "file" / "run", "--epochs", "1")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def start(arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-m", "pycnn", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop_after_checkpoint(process, saved, number):
    """Send a signal as soon as there is a checkpoint; the process's return code and stderr."""
    deadline = time.monotonic() + 60
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def test_killed_run_resumes_bit_for_bit(folder, tmp_path):
    arguments = ["--epochs", "8", "--checkpoint-every", "1", "--no-plots"]
    assert main(command(folder, tmp_path / "whole", *arguments)) == 0
    out = tmp_path / "killed"
    process = start(command(folder, out, *arguments))
    code, _ = stop_after_checkpoint(process, out / "checkpoint.safetensors", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert checkpoint.load(out / "checkpoint.safetensors").extra["step"] < 32
    assert main(command(folder, out, *arguments, "--resume")) == 0
    mine, other = (checkpoint.load(tmp_path / run / "checkpoint.safetensors") for run in ("killed", "whole"))
    for name, value in other.parts["model"].items():
        np.testing.assert_array_equal(mine.parts["model"][name], value)
    assert mine.random_state == other.random_state
    assert mine.extra["step"] == other.extra["step"] == 32
    losses = [[epoch["train_loss"] for epoch in run.extra["history"]] for run in (mine, other)]
    assert losses[0] == losses[1]


def test_ctrl_c_ends_cleanly(folder, tmp_path):
    out = tmp_path / "run"
    process = start(command(folder, out, "--epochs", "500", "--no-plots"))
    code, error = stop_after_checkpoint(process, out / "checkpoint.safetensors", signal.SIGINT)
    assert code == 130
    assert "Traceback" not in error
    assert "--resume" in error
    assert checkpoint.load(out / "checkpoint.safetensors").extra["step"] % 4 == 0
    assert [path.name for path in out.iterdir()] == ["checkpoint.safetensors"]


def test_activation_maps_are_the_layers_outputs():
    run = trainer()
    image = run.split.test.images(np.arange(1))
    maps = _train_outputs.activations(run, image)
    assert list(maps) == ["conv"]
    x = run.test_transform(image, np.empty((1, 0), np.uint32))
    expected = F.conv2d(x, run.net.conv.weight.data, run.net.conv.bias.data, padding=1)
    np.testing.assert_array_equal(maps["conv"], expected[0])
    assert run.net.training
