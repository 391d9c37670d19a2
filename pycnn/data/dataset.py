"""What a data set is to a loader: labelled images of one size, fetched by index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["ArrayDataset", "Dataset", "Split", "held_out_fifth"]


class Dataset(Protocol):
    """Labelled images of one size.

    Attributes:
        labels: int64, (N,); a label is an index into `classes`.
        classes: the name of each class.
    """

    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def images(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, uint8 of shape (len(indices), C, H, W); called from the loader's threads."""
        ...


class ArrayDataset:
    """Images that are in memory.

    Args:
        images: uint8, (N, C, H, W).
        labels: whole numbers, (N,), each an index into `classes`.
        classes: the name of each class.

    Raises:
        TypeError: images that are not uint8, or labels that are not integers.
        ValueError: a wrong rank, images and labels that do not agree in number, or a label that names no class.

    >>> import numpy as np
    >>> pair = ArrayDataset(np.zeros((2, 1, 8, 8), np.uint8), np.array([1, 0]), ["cat", "dog"])
    >>> len(pair), pair.images(np.array([1])).shape
    (2, (1, 1, 8, 8))
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
        if images.dtype != np.uint8 or labels.dtype.kind not in "iu":
            raise TypeError(f"images must be uint8 and labels integers, got {images.dtype} and {labels.dtype}")
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(f"images must be (N, C, H, W) and labels (N,), got {images.shape} and {labels.shape}")
        if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
            raise ValueError(
                f"labels must be between 0 and {len(classes) - 1}, got {labels.min()} to {labels.max()} "
                f"for {len(classes)} classes"
            )
        self._images = images
        self.labels = labels.astype(np.int64)
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, uint8."""
        return self._images[indices]


@dataclass(frozen=True)
class Split:
    """A data set in two parts that share nothing.

    Attributes:
        name: what it is called.
        train, test: the parts.
        source: where it was read from, in words.
    """

    name: str
    train: Dataset
    test: Dataset
    source: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.train.classes


def held_out_fifth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a fixed four fifths to train on and of the stratified fifth held out.

    The same labels give the same parts on every machine and for every training seed.  Of each class of n examples
    round(n / 5), and at least one if there are two, are held out: those that come first in a random order
    (Philox4x32-10, key 0).

    >>> import numpy as np
    >>> train, test = held_out_fifth(np.repeat([0, 1], [10, 5]))
    >>> len(train), len(test)
    (12, 3)
    """
    from pycnn.data.draws import permutation

    order = permutation(len(labels), seed=0)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        count = max((len(members) + 2) // 5, min(1, len(members) - 1))
        held[members[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
