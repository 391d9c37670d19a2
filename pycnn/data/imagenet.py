"""Photographs as networks for ImageNet (ILSVRC 2012) take them, and the names of its 1000 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pycnn._extras import extra
from pycnn._files import size_of
from pycnn.data.folder import read_image
from pycnn.data.transforms import Normalize
from pycnn.shape import whole

__all__ = ["MEAN", "STD", "class_names", "read_photograph", "to_input"]

# Of the training set's pixels, by channel; torchvision's networks were trained with them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NAMES = Path(__file__).with_name("imagenet_classes.txt")


def read_photograph(path: str | Path, size: int = 224) -> np.ndarray:
    """The middle of an image file: its shorter side scaled to 256/224 of `size` (rounded), a square of `size` cut out.

    Scaled with antialiasing by Pillow, to the pixel what torchvision's ``ImageClassification`` transform does before it
    normalises.

    Args:
        path: any image that Pillow reads.
        size: of the square.

    Returns:
        uint8, (3, size, size).

    Raises:
        FileNotFoundError, CorruptFile, ModuleNotFoundError: as `read_image`.
    """
    whole("size", size, 1)
    image = read_image(path)
    with extra("train", "Pillow"):
        from PIL import Image
    shorter = round(size * 256 / 224)
    height, width = image.shape[1:]
    least = min(height, width)
    scaled = (int(shorter * width / least), int(shorter * height / least))
    picture = Image.fromarray(image.transpose(1, 2, 0)).resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in scaled)
    cut = picture.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(cut).transpose(2, 0, 1))


def to_input(images: np.ndarray) -> np.ndarray:
    """Pixels (N, 3, H, W), uint8, as a network's input: to [0, 1], less the mean, over the deviation; float32.

    >>> to_input(np.full((1, 3, 1, 1), 255, np.uint8))[0, :, 0, 0].round(2)
    array([2.25, 2.43, 2.64], dtype=float32)
    """
    return Normalize(MEAN, STD)(images, np.empty((len(images), 0), np.uint32))


def class_names(path: str | Path | None = None) -> tuple[str, ...]:
    """The names of the classes, in the order of a network's outputs.

    Args:
        path: a text file with a name a line; by default ImageNet's 1000, in the words that torchvision uses.

    Raises:
        FileNotFoundError, OSError: no such file, no permission, or a folder, a pipe or a device.
        ValueError: a file that is no text or has no names.

    >>> class_names()[281]
    'tabby'
    """
    file = Path(_NAMES if path is None else path)
    size_of(file)
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise ValueError(f"{file}: class names must be a text file with a name a line") from None
    while names and not names[-1]:
        names = names[:-1]
    if not names:
        raise ValueError(f"{file}: there are no class names in it")
    return names
