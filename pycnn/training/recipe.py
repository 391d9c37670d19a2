"""How a network is trained on a data set: one record of numbers, and the preprocessing that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from math import cos, pi

import numpy as np

from pycnn.data import (
    CenterCrop,
    ColorJitter,
    Compose,
    CutOut,
    Grey,
    HorizontalFlip,
    Normalize,
    RandomCrop,
    Resize,
    Rgb,
    Split,
    Transform,
)
from pycnn.shape import whole

__all__ = ["OPTIMIZERS", "SCHEDULES", "Recipe", "pipelines", "recipe_for"]

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "step", "constant")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        lr: learning rate at its highest.
        optimizer: "adamw", or "sgd" with Nesterov momentum 0.9.
        weight_decay: as that optimiser means it: decoupled for adamw, in the gradient for sgd.
        schedule: "cosine" down to 0, "step" (a tenth after half of the steps, a hundredth after three quarters, as the
            ResNet paper did on CIFAR-10) or "constant".
        warmup: share of the steps over which the rate first rises from near 0.
        label_smoothing: share of the target spread over all classes.
        resize: side to which smaller images are scaled before they get a border; 0 leaves them.
        shift: pixels by which an image may be moved in each direction.
        flip: mirror half of the images.
        cutout: side of a square set to zero in each training image; 0 for none.
        color_jitter: AlexNet's, in standard deviations; 0 for none.  RGB data only.

    Raises:
        ValueError: on construction, for a number out of range or an unknown word; TypeError for no whole number.

    >>> Recipe(epochs=5, lr=0.1, optimizer="sgd").schedule
    'cosine'
    """

    epochs: int = 30
    batch: int = 128
    lr: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    resize: int = 0
    shift: int = 0
    flip: bool = False
    cutout: int = 0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("resize", 0), ("shift", 0), ("cutout", 0)):
            whole(name, getattr(self, name), least)
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
        for name in ("weight_decay", "color_jitter"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        for name, words in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of `step` (from 0) of `steps`.

        >>> [Recipe(lr=1.0, schedule="step").rate(step, 4) for step in range(4)]
        [1.0, 1.0, 0.1, 0.01]
        """
        rising = self.warmup * steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        done = (step - rising) / max(steps - rising, 1)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1.0 + cos(pi * done))
        if self.schedule == "step":
            return self.lr * (0.01 if done >= 0.75 else 0.1 if done >= 0.5 else 1.0)
        return self.lr


# The first pair of patterns that a network's and a data set's names fit; numbers chosen by measuring.
_RECIPES: tuple[tuple[str, str, Recipe], ...] = (
    ("lenet5*", "digits", Recipe(epochs=30, batch=32, lr=2e-3, resize=28, shift=2)),
    ("lenet5*", "*", Recipe(epochs=30, batch=64, lr=3e-3, weight_decay=0.1, label_smoothing=0.05)),
    ("resnet*", "digits", Recipe(epochs=30, batch=64, lr=0.05, optimizer="sgd", weight_decay=5e-4, resize=28, shift=2)),
    ("resnet*", "*", Recipe(epochs=30, batch=128, lr=0.1, optimizer="sgd", weight_decay=5e-4, warmup=0.05, shift=2)),
    ("*", "*", Recipe(epochs=30, batch=64, lr=0.01, optimizer="sgd", weight_decay=5e-4, warmup=0.05, shift=2)),
)
_FLIPPED = ("digits", "mnist")  # a mirrored 2 is no 2; everything else is mirrored


def recipe_for(net: str, data: str) -> Recipe:
    """The recipe that `pycnn train` takes for a network on a data set, unless told otherwise.

    Args:
        net: name of a network, as `pycnn.models` has it.
        data: name of a data set.

    >>> recipe_for("resnet20", "digits").flip, recipe_for("resnet20", "cifar10").flip
    (False, True)
    """
    recipe = next(recipe for nets, sets, recipe in _RECIPES if fnmatch(net, nets) and fnmatch(data, sets))
    return replace(recipe, flip=data not in _FLIPPED)


def pipelines(split: Split, input_shape: tuple[int, int, int], recipe: Recipe) -> tuple[Transform, Transform]:
    """What training and what test images go through on their way into a network.

    Images a little smaller than the network's input get a border (28 pixels in 32, as in LeCun 1998), much smaller or
    larger ones are scaled; grey images become three equal channels and RGB ones their luminance as the network asks.

    Args:
        split: the data; the mean and deviation of its training images are used for normalising.
        input_shape: (C, H, W) of the network.
        recipe: its augmentation.

    Returns:
        The transform for training and the one for testing; both give float32 (N, *input_shape).

    >>> from pycnn.data import ArrayDataset
    >>> grey = ArrayDataset(np.zeros((4, 1, 28, 28), np.uint8), np.arange(4), "abcd")
    >>> _, test = pipelines(Split("letters", grey, grey, "made up"), (3, 32, 32), Recipe())
    >>> test(grey.images(np.arange(2)), np.empty((2, 0), np.uint32)).shape
    (2, 3, 32, 32)
    """
    channels, height, width = input_shape
    colours, h, w = split.train.images(np.zeros(1, np.int64)).shape[1:]
    front: list[Transform] = []
    if recipe.resize and max(h, w) < recipe.resize <= min(height, width):
        front.append(Resize(recipe.resize))
        h = w = recipe.resize
    near = height * 3 // 4 <= h <= height * 5 // 4 and width * 3 // 4 <= w <= width * 5 // 4
    if not near:
        front.append(Resize((height, width)))
        h, w = height, width
    border = max(0, (height - h + 1) // 2, (width - w + 1) // 2)
    train: list[Transform] = [*front, RandomCrop((height, width), padding=border + recipe.shift)]
    test: list[Transform] = [*front, CenterCrop((height, width))]
    if recipe.flip:
        train.append(HorizontalFlip())
    if recipe.color_jitter and colours == 3:
        train.append(ColorJitter.fit(split.train, recipe.color_jitter))
    if recipe.cutout:
        train.append(CutOut(recipe.cutout))
    back: list[Transform] = [Normalize.fit(split.train)]
    if colours != channels:
        back.append(Rgb() if channels == 3 else Grey())
    return Compose([*train, *back]), Compose([*test, *back])
