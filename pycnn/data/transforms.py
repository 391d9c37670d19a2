"""Preprocessing and augmentation of whole batches, every random choice taken from words that are passed in.

A transform takes images (N, C, H, W), uint8 or float32 with values from 0 to 255, and `draws` random 32-bit words an
image, and gives images.  `Normalize` comes last and leaves the 0..255 scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pycnn.shape import pair, whole

if TYPE_CHECKING:
    from pycnn.data.dataset import Dataset

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "CutOut",
    "Grey",
    "HorizontalFlip",
    "Normalize",
    "RandomCrop",
    "Resize",
    "Rgb",
    "Transform",
]


class Transform(Protocol):
    """A function of a batch of images and of its random words.

    Attributes:
        draws: how many uint32 words it takes for each image.
    """

    draws: int

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray: ...


class Compose:
    """One transform after another.

    >>> import numpy as np
    >>> both = Compose([CenterCrop(2), Normalize(0.5, 0.5)])
    >>> both(np.full((1, 1, 4, 4), 255, np.uint8), np.empty((1, 0), np.uint32))
    array([[[[1., 1.],
             [1., 1.]]]], dtype=float32)
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = tuple(transforms)
        self.draws = sum(transform.draws for transform in self.transforms)

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` through every transform, each with its own share of the words."""
        if words.shape != (len(images), self.draws):
            raise ValueError(f"words must have shape {(len(images), self.draws)}, got {words.shape}")
        start = 0
        for transform in self.transforms:
            images = transform(images, words[:, start : start + transform.draws])
            start += transform.draws
        return images


class Resize:
    """Scale images to `size` (an int for a square, or height and width), bilinear with antialiasing, as Pillow does.

    Each axis is one small matrix, its rows triangle filters as wide as the scaling down asks for.  Gives float32.

    Args:
        size: an int or a pair (height, width), at least 1.

    >>> import numpy as np
    >>> Resize(1)(np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2), np.empty((1, 0), np.uint32)).item()
    1.5
    """

    draws = 0

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair("size", size, 1)

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` scaled; float32."""
        if images.shape[2:] == self.size:
            return images
        rows, columns = _weights(images.shape[2], self.size[0]), _weights(images.shape[3], self.size[1])
        return np.matmul(np.matmul(rows, images.astype(np.float32)), columns.T)


@lru_cache(maxsize=64)
def _weights(size: int, out: int) -> np.ndarray:
    """The (out, size) matrix of triangle filters that scales an axis from `size` to `out`."""
    scale = size / out
    reach = max(scale, 1.0)
    centres = (np.arange(out) + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


class CenterCrop:
    """The central part of `size`; an image that is smaller gets a border of zeros instead.

    Args:
        size: an int or a pair (height, width), at least 1.

    >>> import numpy as np
    >>> CenterCrop(1)(np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3), np.empty((1, 0), np.uint32)).item()
    4
    """

    draws = 0

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair("size", size, 1)

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` cut or bordered to the size."""
        n, c, h, w = images.shape
        out = np.zeros((n, c, *self.size), images.dtype)
        (to_h, from_h), (to_w, from_w) = _centred(self.size[0], h), _centred(self.size[1], w)
        out[:, :, to_h, to_w] = images[:, :, from_h, from_w]
        return out


def _centred(out: int, size: int) -> tuple[slice, slice]:
    """Where an axis of `size` lands in one of `out`, and which part of it does."""
    shared = min(out, size)
    to, start = (out - shared) // 2, (size - shared) // 2
    return slice(to, to + shared), slice(start, start + shared)


class RandomCrop:
    """A part of `size` at a random place, after `padding` zeros were put on every side.

    Raises:
        ValueError: when called, if even the padded image is smaller than `size`.

    >>> import numpy as np
    >>> RandomCrop(2)(np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3), np.zeros((1, 2), np.uint32)).tolist()
    [[[[0, 1], [3, 4]]]]
    """

    draws = 2

    def __init__(self, size: int | Sequence[int], padding: int = 0) -> None:
        self.size = pair("size", size, 1)
        self.padding = whole("padding", padding, 0)

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images`, each cut at its own place."""
        n, c, h, w = images.shape
        border = self.padding
        spare_h, spare_w = h + 2 * border - self.size[0], w + 2 * border - self.size[1]
        if spare_h < 0 or spare_w < 0:
            raise ValueError(
                f"a crop of {self.size[0]} x {self.size[1]} does not fit images of {h} x {w} with padding {border}"
            )
        padded = np.pad(images, ((0, 0), (0, 0), (border, border), (border, border))) if border else images
        tops, lefts = _below(words[:, 0], spare_h + 1), _below(words[:, 1], spare_w + 1)
        out = np.empty((n, c, *self.size), images.dtype)
        for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            out[i] = padded[i, :, top : top + self.size[0], left : left + self.size[1]]
        return out


def _below(words: np.ndarray, bound: int) -> np.ndarray:
    """Whole numbers below `bound` from 32-bit words; the bias is under bound / 2**32."""
    return (words.astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)


class HorizontalFlip:
    """Mirror left and right with probability `p`.

    Raises:
        ValueError: a `p` that is no probability.

    >>> import numpy as np
    >>> HorizontalFlip(1.0)(np.array([[[[1, 2]]]], np.uint8), np.zeros((1, 1), np.uint32)).tolist()
    [[[[2, 1]]]]
    """

    draws = 1

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be between 0 and 1, got {p}")
        self.p = p

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images`, some of them mirrored."""
        mirrored = words[:, 0] < self.p * 2.0**32
        out = images.copy()
        out[mirrored] = images[mirrored, :, :, ::-1]
        return out


class CutOut:
    """Set a square of side `size` to zero, its centre anywhere in the image.

    Reference: DeVries & Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.

    >>> import numpy as np
    >>> CutOut(1)(np.ones((1, 1, 2, 2), np.uint8), np.zeros((1, 2), np.uint32)).tolist()
    [[[[0, 1], [1, 1]]]]
    """

    draws = 2

    def __init__(self, size: int) -> None:
        self.size = whole("size", size, 1)

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images`, each with a hole in it."""
        out = images.copy()
        h, w = images.shape[2:]
        tops, lefts = _below(words[:, 0], h), _below(words[:, 1], w)
        before = self.size // 2
        for i, (y, x) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            top, left = y - before, x - before
            out[i, :, max(top, 0) : top + self.size, max(left, 0) : left + self.size] = 0
        return out


class Rgb:
    """Three equal channels from one.

    >>> import numpy as np
    >>> Rgb()(np.zeros((1, 1, 2, 2), np.uint8), np.empty((1, 0), np.uint32)).shape
    (1, 3, 2, 2)
    """

    draws = 0

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` (N, 1, H, W) as (N, 3, H, W).  Raises ValueError for another number of channels."""
        if images.shape[1] != 1:
            raise ValueError(f"images must have 1 channel to become RGB, got {images.shape[1]}")
        return np.repeat(images, 3, axis=1)


class Grey:
    """One channel from RGB: the luminance 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as in Pillow); float32.

    >>> import numpy as np
    >>> Grey()(np.full((1, 3, 1, 1), 100, np.uint8), np.empty((1, 0), np.uint32)).round(3).item()
    100.0
    """

    draws = 0

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` (N, 3, H, W) as (N, 1, H, W).  Raises ValueError for another number of channels."""
        if images.shape[1] != 3:
            raise ValueError(f"images must have 3 channels to become grey, got {images.shape[1]}")
        shares = np.array([0.299, 0.587, 0.114], np.float32)
        return np.einsum("nchw,c->nhw", images.astype(np.float32, copy=False), shares)[:, None]


class ColorJitter:
    """AlexNet's colour augmentation: every image is moved along the principal axes of the training set's colours.

        x + E (a * l),  a ~ Normal(0, sigma) once an image, E the eigenvectors (columns), l the eigenvalues

    Args:
        eigenvalues: (3,) of the colour covariance, for values from 0 to 255; `fit` finds them.
        eigenvectors: (3, 3), one a column.
        sigma: 0.1 in the paper.

    As in the paper's formula the shift is along the eigenvalues themselves.  Those of pixel values from 0 to 255 are
    in the thousands, so the covariance is taken of values from 0 to 1, as every implementation does, and the shift
    scaled back.

    Raises:
        ValueError: eigenvalues or eigenvectors of another shape.

    Reference: Krizhevsky, Sutskever, Hinton, 2012, section 4.1.

    >>> import numpy as np
    >>> jitter = ColorJitter(np.ones(3), np.eye(3), sigma=0.0)
    >>> jitter(np.full((1, 3, 1, 1), 7, np.uint8), np.zeros((1, 4), np.uint32)).ravel().tolist()
    [7.0, 7.0, 7.0]
    """

    draws = 4

    def __init__(self, eigenvalues: np.ndarray, eigenvectors: np.ndarray, sigma: float = 0.1) -> None:
        values, vectors = np.asarray(eigenvalues, np.float32), np.asarray(eigenvectors, np.float32)
        if values.shape != (3,) or vectors.shape != (3, 3):
            raise ValueError(
                f"eigenvalues must be (3,) and eigenvectors (3, 3), got {values.shape} and {vectors.shape}"
            )
        self.axes = vectors * values  # columns, each as long as its eigenvalue
        self.sigma = sigma

    @staticmethod
    def fit(dataset: Dataset, sigma: float = 0.1, images: int = 2000) -> ColorJitter:
        """The jitter along the colour axes of (at most `images` evenly spaced examples of) a data set.

        Raises ValueError if its images are not RGB.
        """
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(images, len(dataset))).round().astype(np.int64))
        pixels = dataset.images(chosen).astype(np.float64) / 255.0
        if pixels.shape[1] != 3:
            raise ValueError(f"colour jitter needs RGB images, got {pixels.shape[1]} channels")
        values, vectors = np.linalg.eigh(np.cov(pixels.transpose(1, 0, 2, 3).reshape(3, -1)))
        return ColorJitter(values, vectors, sigma)

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` shifted in colour, cut off at 0 and 255; float32."""
        shift = 255.0 * self.sigma * _normal(words)[:, :3] @ self.axes.T
        return np.clip(images + shift[:, :, None, None].astype(np.float32), 0.0, 255.0)


def _normal(words: np.ndarray) -> np.ndarray:
    """Standard normal numbers from pairs of words, by Box and Muller; as many as there are words."""
    half = words.shape[1] // 2
    radius = np.sqrt(-2.0 * np.log((words[:, :half] + 0.5) * 2.0**-32))
    angle = words[:, half:] * (2.0 * np.pi * 2.0**-32)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


class Normalize:
    """(x / 255 - mean) / std, by channel; gives float32.

    Args:
        mean, std: one number for all channels or one each, on the scale from 0 to 1.

    Raises:
        ValueError: a std that is not positive.

    >>> import numpy as np
    >>> Normalize(0.5, 0.5)(np.array([[[[0, 255]]]], np.uint8), np.empty((1, 0), np.uint32)).tolist()
    [[[[-1.0, 1.0]]]]
    """

    draws = 0

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = np.atleast_1d(np.asarray(mean, float)), np.atleast_1d(np.asarray(std, float))
        if not (self.std > 0).all():
            raise ValueError(f"std must be positive, got {std}")
        self._scale = (1.0 / (255.0 * self.std)).astype(np.float32)[:, None, None]
        self._shift = (-self.mean / self.std).astype(np.float32)[:, None, None]

    @staticmethod
    def fit(dataset: Dataset, images: int = 5000) -> Normalize:
        """With the mean and deviation by channel of (at most `images` evenly spaced examples of) a data set."""
        chosen = np.unique(np.linspace(0, len(dataset) - 1, min(images, len(dataset))).round().astype(np.int64))
        pixels = dataset.images(chosen).astype(np.float64) / 255.0
        std = pixels.std((0, 2, 3))
        return Normalize(pixels.mean((0, 2, 3)).tolist(), np.where(std > 0, std, 1.0).tolist())

    def __call__(self, images: np.ndarray, words: np.ndarray) -> np.ndarray:
        """`images` normalised; float32, contiguous."""
        out = np.multiply(images, self._scale, dtype=np.float32)
        out += self._shift
        return out
