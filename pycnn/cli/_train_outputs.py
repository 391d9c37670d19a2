"""What ``pycnn train`` leaves behind beside its checkpoint: metrics.json and five pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import __version__, nn
from pycnn._files import replacing
from pycnn.autograd import no_grad
from pycnn.tensor import Tensor

if TYPE_CHECKING:
    from pycnn.training import Evaluation, Trainer

__all__ = ["activations", "draw", "write_metrics"]

_MISTAKES = 40
_LAYERS = 6  # at most so many rows of activation maps


def write_metrics(folder: Path, trainer: Trainer, evaluation: Evaluation, about: Mapping[str, Any]) -> Path:
    """Write metrics.json, whole or not at all: settings, history, test accuracy by class, confusion counts."""
    confusion = evaluation.confusion
    content = {
        "pycnn": __version__,
        **about,
        "recipe": asdict(trainer.recipe),
        "parameters": sum(parameter.data.size for parameter in trainer.net.parameters()),
        "classes": list(trainer.split.classes),
        "test_accuracy": evaluation.accuracy,
        "test_loss": evaluation.loss,
        "accuracy_by_class": [
            round(float(row[i] / row.sum()), 6) if row.sum() else None for i, row in enumerate(confusion)
        ],
        "confusion": confusion.tolist(),
        "history": [asdict(report) for report in trainer.history],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def draw(folder: Path, trainer: Trainer, evaluation: Evaluation, title: str) -> None:
    """Draw curves.png, confusion.png, mistakes.png, filters.png and activations.png."""
    from pycnn import viz

    test, classes = trainer.split.test, trainer.split.classes
    viz.curves([asdict(report) for report in trainer.history], folder / "curves.png", title)
    viz.confusion_matrix(evaluation.confusion, classes, folder / "confusion.png", title)
    wrong = evaluation.mistakes(_MISTAKES)
    total = int((evaluation.predicted != evaluation.labels).sum())
    shown = f"{total} mistakes in {len(test)}" if total <= _MISTAKES else f"{len(wrong)} surest of {total} mistakes"
    viz.misclassified(
        test.images(wrong),
        evaluation.labels[wrong],
        evaluation.probabilities[wrong],
        classes,
        folder / "mistakes.png",
        f"{title}: {shown}",
    )
    first = next((layer for layer in trainer.net.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is not None:
        k, _, r, s = first.weight.shape
        viz.filters(first.weight.data, folder / "filters.png", f"{title}: {k} filters of {r} x {s}")
    image = test.images(np.zeros(1, np.int64))
    maps = activations(trainer, image)
    name = classes[int(test.labels[0])]
    viz.activation_maps(image[0], maps, folder / "activations.png", f"{title}: what becomes of one {name}")


def activations(trainer: Trainer, image: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of (at most six, evenly chosen) convolution layers for one image (1, C, H, W), by layer name."""
    found = [(name, layer) for name, layer in trainer.net.named_modules() if isinstance(layer, nn.Conv2d)]
    chosen = np.unique(np.linspace(0, len(found) - 1, min(len(found), _LAYERS)).round().astype(int))
    maps: dict[str, np.ndarray] = {}
    handles = [
        layer.register_forward_hook(lambda _layer, _args, y, name=name: maps.__setitem__(name, y.data[0].copy()))
        for name, layer in (found[i] for i in chosen)
    ]
    was_training = trainer.net.training
    trainer.net.eval()
    try:
        with no_grad():
            trainer.net(Tensor(trainer.test_transform(image, np.empty((1, 0), np.uint32))))
    finally:
        trainer.net.train(was_training)
        for handle in handles:
            handle.remove()
    return maps
