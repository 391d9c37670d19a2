"""Photographs in folders: one subfolder a class, or a tree of train/ and test/ (or val/) with such subfolders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pycnn._extras import extra
from pycnn._files import printable, size_of
from pycnn.data.dataset import Split, held_out_fifth
from pycnn.data.errors import CorruptFile
from pycnn.shape import whole

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FolderDataset", "read_folder", "read_image"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
# Pillow knows others.  One runs a program; that of GIF fills a frame of the size that the file gives when it opens it.

# The markers of a JPEG that have a length behind them, and that of its end; in the pixels' data 00 follows an ff.
_MARKER, _SCAN, _END = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])"), b"\xda", b"\xd9"

# A file of some bytes can say that it holds gigabytes.  Decoders take up to twelve bytes a pixel; that much is granted
# up to 64 MiB, and beyond it to files with a byte for 16 pixels: photographs have several times as much.
_FREE_PIXELS = (64 << 20) // 12
_PIXELS_A_BYTE = 16
_MOST_SCANS = 100  # of a JPEG, each of which takes the time of all its pixels; progressive ones have some ten


def read_image(path: str | Path, size: int | None = None) -> np.ndarray:
    """Read one image file as RGB, turned upright if its EXIF data says so.

    Args:
        path: the file; JPEG, PNG, BMP, WebP, TIFF or PPM, whatever its name says.
        size: if given, the shorter side is scaled to it and the central square is cut out, as AlexNet's training did.

    Returns:
        uint8 of shape (3, H, W); H = W = size if that is given.

    Raises:
        FileNotFoundError, OSError: no such file, no permission, or a folder, a pipe or a device.
        CorruptFile: not an image, a truncated one, or one of more pixels than a file of its size is believed to hold:
            5.6 million, or 16 a byte; a JPEG of more than 100 scans.
        ModuleNotFoundError: Pillow is not installed.

    Reference: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks",
    2012, section 2.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> from PIL import Image
    >>> file = pathlib.Path(folder.name, "red.png")
    >>> Image.new("RGB", (6, 4), "red").save(file)
    >>> read_image(file).shape, read_image(file, size=2)[:, 0, 0]
    ((3, 4, 6), array([255,   0,   0], dtype=uint8))
    """
    with extra("train", "Pillow"):
        from PIL import Image, ImageOps, UnidentifiedImageError
    path = Path(path)
    length = size_of(path)
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if size is not None:
                opened.draft("RGB", (size, size))  # a JPEG decoder can skip what would be scaled away
            pixels, most = opened.width * opened.height, max(_FREE_PIXELS, _PIXELS_A_BYTE * length)
            if pixels > most:
                raise CorruptFile(path, f"{pixels} pixels", f"at most {most} in a file of its size")
            if opened.format in ("JPEG", "MPO") and (scans := _scans(path.read_bytes())) > _MOST_SCANS:
                raise CorruptFile(path, f"a JPEG of {scans} scans", f"at most {_MOST_SCANS}")
            ImageOps.exif_transpose(opened, in_place=True)
            image = _rgb(opened)
    except CorruptFile:
        raise
    except UnidentifiedImageError:
        raise CorruptFile(path, "no image of a format that is read", f"one of {', '.join(_FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise CorruptFile(path, f"too many pixels ({error})", "a photograph") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:  # what Pillow's decoders raise
        raise CorruptFile(path, f"a damaged image ({error})", "a whole image file") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    array = np.empty((3, image.height, image.width), np.uint8)
    for box in _strips(image):
        array[:, box[1] : box[3]] = np.asarray(image.crop(box)).transpose(2, 0, 1)
    return array


def _scans(content: bytes) -> int:
    """How many scans a JPEG has.  Behind its end there may be anything: cameras append other pictures, and films."""
    count, at = 0, 0
    while (marker := _MARKER.search(content, at)) is not None and marker[1] != _END:
        count += marker[1] == _SCAN
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return count


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows, some 2^18 pixels each: a conversion in one step would hold all pixels once more."""
    rows = max(1, (1 << 18) // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(image.height, top + rows)


def _rgb(image: Image.Image) -> Image.Image:
    """`image` as RGB; what is transparent becomes white."""
    from PIL import Image

    image.load()
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    rgb = Image.new("RGB", image.size)
    for box in _strips(image):
        rgb.paste(_strip_as_rgb(image.crop(box)), box)
    return rgb


def _strip_as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it
        grey = np.asarray(image, np.float64) / 257.0
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


class FolderDataset:
    """Image files, decoded when they are asked for.

    Args:
        paths: the files.
        labels: an index into `classes` for each.
        classes: the name of each class.
        size: every image is scaled and cut to size x size pixels.

    Raises:
        ValueError: paths and labels that do not agree in number, or a size below 1; reading raises as `read_image`.
    """

    def __init__(self, paths: Sequence[Path], labels: np.ndarray, classes: Sequence[str], size: int) -> None:
        if len(paths) != len(labels):
            raise ValueError(f"paths and labels must agree in number, got {len(paths)} and {len(labels)}")
        self.paths = list(paths)
        self.labels = np.asarray(labels, np.int64)
        self.classes = tuple(classes)
        self.size = whole("size", size, 1)

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, uint8 (len(indices), 3, size, size).  Raises as `read_image`."""
        batch = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        for row, index in enumerate(indices):
            batch[row] = read_image(self.paths[index], self.size)
        return batch


def read_folder(root: str | Path, size: int) -> Split:
    """A tree of images as a data set in two parts.

    Args:
        root: holds one subfolder a class; or ``train`` and ``test`` (or ``val``), each with one subfolder a class.
            In the first case a fixed stratified fifth is held out.
        size: every image is scaled and cut to size x size pixels.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, fewer than two classes, or a test class that was not trained.

    Returns:
        The two parts; images are decoded when they are asked for.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> from PIL import Image
    >>> for name in ("blue", "red"):
    ...     pathlib.Path(folder.name, name).mkdir()
    ...     for i in range(5):
    ...         Image.new("RGB", (4, 4), name).save(pathlib.Path(folder.name, name, f"{i}.png"))
    >>> split = read_folder(folder.name, size=2)
    >>> split.classes, len(split.train), len(split.test)
    (('blue', 'red'), 8, 2)
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    parts = [next((root / name for name in names if (root / name).is_dir()), None) for names in _PARTS]
    if parts[0] is not None and parts[1] is not None:
        paths, labels, classes = _scan(parts[0])
        test_paths, test_labels, test_classes = _scan(parts[1])
        if not set(test_classes) <= set(classes):
            unknown = ", ".join(sorted(set(test_classes) - set(classes)))
            raise ValueError(f"{parts[1]}: classes that {parts[0]} does not have: {unknown}")
        into = np.array([classes.index(name) for name in test_classes])
        train = FolderDataset(paths, labels, classes, size)
        return Split(root.name, train, FolderDataset(test_paths, into[test_labels], classes, size), str(root))
    paths, labels, classes = _scan(root)
    four, fifth = held_out_fifth(labels)
    train, test = (FolderDataset([paths[i] for i in part], labels[part], classes, size) for part in (four, fifth))
    if len(fifth) == 0:
        raise ValueError(f"{root}: no class has two images, so none can be held out for testing")
    return Split(root.name, train, test, f"{root} (a fifth held out)")


_PARTS = (("train",), ("test", "val"))


def _scan(root: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Files, labels and class names under `root`, in sorted order, so that labels do not depend on the file system."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if files:
            found[printable(folder.name)] = files
    if len(found) < 2:
        raise ValueError(
            f"{root}: expected at least two subfolders with images (one a class, {', '.join(SUFFIXES[:4])} ...), "
            f"found {len(found)}"
        )
    paths = [path for files in found.values() for path in files]
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    return paths, labels, tuple(found)
