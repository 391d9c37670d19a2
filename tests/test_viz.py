"""The pictures: that each is drawn whole, from what it should be, and refuses what it cannot draw."""

import os
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from pycnn import viz  # noqa: E402

NAMES = ("cat", "dog", "a very long name")


def epoch(number, error=0.1):
    return {
        "train_loss": 1 / number,
        "test_loss": 1.2 / number,
        "train_accuracy": 1 - error / number,
        "test_accuracy": 1 - 1.5 * error / number,
        "lr": 0.1 / number,
    }


def drawn(path):
    """The picture at `path` as an array, after checking that nothing else was left beside it."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.std() > 1  # something is on it
    return pixels


@pytest.mark.parametrize("history", [1, 2, 40])
@pytest.mark.parametrize("error", [0.0, 0.1])
def test_curves(tmp_path, history, error):
    path = viz.curves([epoch(i, error) for i in range(1, history + 1)], tmp_path / "curves.png", "a run")
    drawn(path)


def test_curves_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="at least one epoch"):
        viz.curves([], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [2, 3, 60])
def test_confusion_matrix(tmp_path, classes):
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes))
    counts[0] = 0  # a class of which there was nothing to test
    names = [f"class {i}" for i in range(classes)]
    drawn(viz.confusion_matrix(counts, names, tmp_path / "confusion.png", "a run"))
    with pytest.raises(ValueError, match=r"counts must be \(1, 1\)"):
        viz.confusion_matrix(counts, names[:1], tmp_path / "other.png")


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_misclassified(tmp_path, count, channels):
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 9, 7), np.uint8)
    scores = np.random.default_rng(1).dirichlet(np.ones(3), count).astype(np.float32)
    path = tmp_path / "mistakes.png"
    drawn(viz.misclassified(images, np.arange(count) % 3, scores, NAMES, path, "mistakes"))


def test_sample_grid_checks(tmp_path):
    with pytest.raises(ValueError, match="one for each of the 2 images, got 1"):
        viz.sample_grid(np.zeros((2, 1, 3, 3), np.uint8), ["a"], tmp_path / "x.png")
    with pytest.raises(ValueError, match="images to draw must be"):
        viz.sample_grid(np.zeros((1, 2, 3, 3), np.uint8), ["a"], tmp_path / "x.png")


@pytest.mark.parametrize("shape", [(6, 1, 5, 5), (64, 3, 7, 7), (8, 4, 3, 3), (300, 1, 3, 3), (1, 1, 1, 1)])
def test_filters(tmp_path, shape):
    drawn(viz.filters(np.random.default_rng(0).standard_normal(shape), tmp_path / "filters.png", "filters"))


def test_filters_of_zeros_and_wrong_rank(tmp_path):
    viz.filters(np.zeros((4, 3, 3, 3)), tmp_path / "zeros.png")
    with pytest.raises(ValueError, match="4 dimensions"):
        viz.filters(np.zeros((4, 3, 3)), tmp_path / "x.png")


def test_activation_maps(tmp_path):
    image = np.zeros((1, 8, 8), np.uint8)
    maps = {"conv1": np.random.default_rng(0).random((6, 8, 8)), "conv2": np.random.default_rng(1).random((40, 4, 4))}
    drawn(viz.activation_maps(image, maps, tmp_path / "maps.png", "maps"))
    with pytest.raises(ValueError, match="output of fc must have 3 dimensions"):
        viz.activation_maps(image, {"fc": np.zeros(10)}, tmp_path / "x.png")


def test_drawing_touches_no_global_state(tmp_path):
    viz.filters(np.ones((1, 1, 3, 3)), tmp_path / "f.png")
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "f.png"
    path.write_bytes(b"the old picture")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        viz.filters(np.ones((1, 1, 3, 3)), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.png"]
    assert path.read_bytes() == b"the old picture"


def test_missing_matplotlib_is_said(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"Matplotlib is not installed: pip install 'pycnn\[viz\]'"):
        viz.filters(np.ones((1, 1, 3, 3)), tmp_path / "f.png")
