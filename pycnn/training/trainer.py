"""The training loop, and the checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pycnn import checkpoint, optim
from pycnn import functional as F
from pycnn.amp import GradScaler, autocast
from pycnn.arrays import place
from pycnn.data import DataLoader, Split
from pycnn.tensor import Tensor
from pycnn.training.evaluate import Evaluation, device_of_network, evaluate, first_output
from pycnn.training.recipe import Recipe, pipelines

if TYPE_CHECKING:
    from pycnn.nn import Module

__all__ = ["BatchReport", "Diverged", "EpochReport", "Trainer"]

EVALUATION_BATCH = 256
_AUXILIARY = 0.3  # weight of an auxiliary head's loss (Szegedy et al. 2015, section 5)


class Diverged(ValueError):
    """The loss is not a finite number any more; the message says where and at what learning rate."""


@dataclass(frozen=True)
class BatchReport:
    """Where a running epoch stands: mean loss and accuracy of its batches so far, and images a second."""

    epoch: int
    batch: int
    batches: int
    loss: float
    accuracy: float
    images_per_second: float


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch, counted from 1.

    `lr` is the rate of its first step.  `train_loss` and `train_accuracy` are means over the epoch's own (augmented)
    batches as they were trained on.  `seconds` is the time of training (not of testing) in the process that finished
    the epoch, `waited` the part of it that the engine spent waiting for data.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    images_per_second: float
    seconds: float
    waited: float


class _Sums:
    """Running sums of an epoch; saved with a checkpoint so that a resumed epoch reports what an unbroken one does."""

    def __init__(self) -> None:
        self.loss, self.images = 0.0, 0
        self._right: Any = 0

    @property
    def right(self) -> int:
        """Counted where the network is; asking waits for it."""
        return int(self._right)

    def add(self, loss: float, right: Any, images: int) -> None:
        self.loss += loss * images
        self._right = self._right + right
        self.images += images

    def state_dict(self) -> dict[str, float]:
        return {"loss": self.loss, "right": self.right, "images": self.images}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loss, self._right, self.images = float(state["loss"]), int(state["right"]), int(state["images"])


class Trainer:
    """Train a classifier by a recipe.

    The run is a function of (network's first weights, data, recipe, seed) and of the engine's instruction set: not of
    timing, threads, or how often it was killed and resumed.  Batches go to where the network is when a step begins; a
    step waits for its loss alone.

    Args:
        net: the network; its parameters are trained in place.
        split: the data.
        input_shape: (C, H, W) that the network takes.
        recipe: how.
        seed: of the order of the images and of the augmentation.
        workers: threads that prepare batches.
        amp: train and evaluate in mixed precision, "float16" (with a scaled loss) or "bfloat16"; see `pycnn.amp`.
        settings: what else makes the run what it is (names, seed, instruction set ...); saved with every checkpoint,
            and a checkpoint with other settings is refused.

    Raises:
        ValueError: no training images, or another `amp`.

    >>> import pycnn
    >>> from pycnn.data import ArrayDataset, Split
    >>> images = np.repeat(np.array([0, 255], np.uint8), 64)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    >>> squares = ArrayDataset(images, np.repeat([0, 1], 64), ["black", "white"])
    >>> net = pycnn.nn.Sequential(pycnn.nn.Flatten(), pycnn.nn.Linear(4, 2))
    >>> recipe = Recipe(epochs=5, batch=16, lr=0.1)
    >>> trainer = Trainer(net, Split("squares", squares, squares, "made up"), (1, 2, 2), recipe)
    >>> trainer.fit()
    >>> trainer.evaluate().accuracy
    1.0
    """

    def __init__(
        self,
        net: Module,
        split: Split,
        input_shape: tuple[int, int, int],
        recipe: Recipe,
        *,
        seed: int = 0,
        workers: int = 1,
        amp: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if len(split.train) == 0:
            raise ValueError("there are no images to train on")
        self.net = net
        self.split = split
        self.recipe = recipe
        self.settings = {
            **(settings or {}),
            **asdict(recipe),
            "amp": amp,
            "train_images": len(split.train),
            "train_labels": zlib.crc32(split.train.labels.tobytes()),
        }
        self.train_transform, self.test_transform = pipelines(split, input_shape, recipe)
        self.loader = DataLoader(
            split.train,
            recipe.batch,
            transform=self.train_transform,
            shuffle=True,
            seed=seed,
            drop_last=len(split.train) > recipe.batch and len(split.train) % recipe.batch == 1,  # no variance in one
            workers=workers,
        )
        self.tester = DataLoader(split.test, EVALUATION_BATCH, transform=self.test_transform, workers=workers)
        self.optimizer = _optimizer(net, recipe)
        self.autocast = autocast(amp or "float16", enabled=amp is not None)
        self.scaler = GradScaler(enabled=amp == "float16")
        self.history: list[EpochReport] = []
        self.step = 0
        self._sums = _Sums()

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe is done."""
        return len(self.history) >= self.recipe.epochs

    def fit(
        self,
        path: Path | None = None,
        *,
        every: int = 0,
        on_batch: Callable[[BatchReport], None] | None = None,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> None:
        """Train to the recipe's last epoch.

        Args:
            path: a checkpoint is written there after each epoch; None writes none.
            every: and after each so many steps; 0 for epochs only.
            on_batch, on_epoch: told of progress.

        Raises:
            Diverged: the loss is NaN or infinite; the last checkpoint is from before.
            CheckpointError: a checkpoint could not be written; the one before is whole.
        """
        while not self.finished:
            self._epoch(path, every, on_batch, on_epoch)

    def evaluate(self) -> Evaluation:
        """The network's answers on the test images."""
        with self.autocast:
            return evaluate(self.net, self.tester)

    def _epoch(
        self,
        path: Path | None,
        every: int,
        on_batch: Callable[[BatchReport], None] | None,
        on_epoch: Callable[[EpochReport], None] | None,
    ) -> None:
        number, batches = len(self.history) + 1, len(self.loader)
        sums, seen_before = self._sums, self._sums.images
        waited, start = 0.0, time.perf_counter()
        self.net.train()
        asked = start
        with closing(iter(self.loader)) as upcoming:  # whatever is raised here, its threads end
            for images, labels in upcoming:
                waited += time.perf_counter() - asked
                loss, right = self._step(images, labels, number)
                sums.add(loss, right, len(labels))
                if every and self.step % every == 0 and self.loader.position < batches and path is not None:
                    self.save(path)
                asked = time.perf_counter()
                if on_batch is not None:
                    rate = (sums.images - seen_before) / (asked - start)
                    mean, share = sums.loss / sums.images, sums.right / sums.images
                    on_batch(BatchReport(number, self.loader.position, batches, mean, share, rate))
        seconds = time.perf_counter() - start
        tested = self.evaluate()
        report = EpochReport(
            number,
            self.recipe.rate((number - 1) * batches, self.recipe.epochs * batches),
            sums.loss / sums.images,
            sums.right / sums.images,
            tested.loss,
            tested.accuracy,
            (sums.images - seen_before) / seconds,
            seconds,
            waited,
        )
        self.history.append(report)
        self._sums = _Sums()
        if path is not None:
            self.save(path)
        if on_epoch is not None:
            on_epoch(report)

    def _step(self, images: np.ndarray, labels: np.ndarray, epoch: int) -> tuple[float, Any]:
        """One step of the optimiser; the batch's mean loss and how many it had right, counted where the network is."""
        rate = self.recipe.rate(self.step, self.recipe.epochs * len(self.loader))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = device_of_network(self.net)
        with self.autocast:
            output, target = self.net(Tensor(place(images, device))), Tensor(place(labels, device))
            logits = first_output(output)
            loss = F.cross_entropy(logits, target, label_smoothing=self.recipe.label_smoothing)
            total = loss
            for head in output[1:] if isinstance(output, (tuple, list)) else ():
                if head is not None:
                    total = total + F.cross_entropy(head, target) * _AUXILIARY
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        right = (logits.data.argmax(1) == target.data).sum()
        value = float(loss.item())  # the one number that the step waits for, when all of it has been started
        if not math.isfinite(value):
            raise Diverged(
                f"training diverged: the loss is {value} in epoch {epoch}, batch {self.loader.position}, "
                f"at a learning rate of {rate:.3g}; try a smaller --lr"
            )
        self.step += 1
        return value, right

    def save(self, path: Path) -> None:
        """Write all that the rest of the run depends on, whole or not at all.  Raises CheckpointError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        extra = {"step": self.step, "history": [asdict(report) for report in self.history], "settings": self.settings}
        checkpoint.save(path, self._parts(), extra)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: no whole checkpoint there.
            ValueError: it was written by a run with other settings; the message names the first that differs.
        """
        extra = checkpoint.load(path).extra
        if not {"settings", "step", "history"} <= extra.keys():
            raise ValueError(f"{path} is a checkpoint, but not one of a training run")
        saved = extra["settings"]
        for name in sorted({*saved, *self.settings}):
            if saved.get(name) != self.settings.get(name):
                raise ValueError(
                    f"{path} was written with {name} = {saved.get(name)!r}, this run has {self.settings.get(name)!r}"
                )
        checkpoint.restore(path, self._parts())
        self.step = extra["step"]
        self.history = [EpochReport(**report) for report in extra["history"]]

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.net, "optimizer": self.optimizer, "loader": self.loader, "sums": self._sums}
        return {**parts, "scaler": self.scaler} if self.scaler.is_enabled() else parts


def _optimizer(net: Module, recipe: Recipe) -> optim.Optimizer:
    """The recipe's optimiser; weights are decayed, biases and normalisation are not."""
    parameters = list(net.parameters())
    groups = [
        {"params": [p for p in parameters if p.data.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.data.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return optim.AdamW(groups, lr=recipe.lr)
    return optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
