"""The data sets that have a name: where each is looked for, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pycnn._extras import extra
from pycnn.data.cifar import CIFAR10_CLASSES, find_cifar10, read_cifar10
from pycnn.data.dataset import ArrayDataset, Split, held_out_fifth
from pycnn.data.download import Progress, fetch
from pycnn.data.folder import read_folder
from pycnn.data.idx import find_idx, read_mnist

__all__ = ["NAMES", "digits", "load"]

NAMES = ("digits", "fashion-mnist", "mnist", "cifar10")
SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset-* packages put theirs

_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class _Remote:
    """Files of a data set on the network: (name, checksum) under any of the base addresses."""

    bases: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


_REMOTE = {
    # The checksums are those of each data set's own page (of the compressed files, as they are served).
    "fashion-mnist": _Remote(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
        (
            ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    ),
    "mnist": _Remote(
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        (
            ("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    "cifar10": _Remote(
        ("https://www.cs.toronto.edu/~kriz",),
        (("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),),
    ),
}


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    image_size: int = 224,
    progress: Progress | None = None,
) -> Split:
    """A data set by name, or any folder.

    Args:
        name: "digits" (scikit-learn's scans, no download), "fashion-mnist", "mnist", "cifar10", or the path of a
            folder with IDX files, CIFAR-10's binary files, or images in one subfolder a class.
        folder: where the files of a named data set are.  Without it they are looked for where Debian's packages put
            them (/usr/share/datasets/<name>) and in pycnn's cache ($PYCNN_DATA, or ~/.cache/pycnn), and downloaded
            to the latter otherwise.
        image_size: to which images in subfolders are scaled and cut.
        progress: told of a download's progress.

    Raises:
        ValueError: an unknown name that is no folder either, or a folder with nothing to read.
        FileNotFoundError: `folder` lacks the files.
        CorruptFile: a damaged file.
        ConnectionError: the files are nowhere here and could not be downloaded.

    Returns:
        The data set in two parts, `train` and `test`.

    >>> load("digits").source
    "scikit-learn's digits (a fifth held out)"
    """
    if name == "digits":
        return digits()
    if name in NAMES:
        place = _place(name, folder, progress)
        return _cifar10(name, place) if name == "cifar10" else _mnist(name, place)
    path = Path(name)
    if not path.is_dir():
        raise ValueError(f"data must be one of {', '.join(NAMES)} or an existing folder, got {name!r}")
    if find_idx(path, "train", "images") is not None:
        return _mnist(path.name, path)
    if (cifar := find_cifar10(path)) is not None:
        return _cifar10(path.name, cifar)
    return read_folder(path, image_size)


def digits() -> Split:
    """The 1,797 hand-written digits that come with scikit-learn, 8 x 8 pixels, a fixed stratified fifth held out.

    Raises ModuleNotFoundError if scikit-learn is not installed.

    Reference: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998.

    >>> split = digits()
    >>> len(split.train), len(split.test), split.test.images(np.arange(3)).shape
    (1438, 359, (3, 1, 8, 8))
    """
    with extra("train", "scikit-learn"):
        from sklearn.datasets import load_digits

    scans = load_digits()
    images = (scans.images * (255.0 / 16.0)).round().astype(np.uint8)[:, None]
    labels = np.asarray(scans.target, np.int64)
    train, test = (ArrayDataset(images[part], labels[part], _DIGITS) for part in held_out_fifth(labels))
    return Split("digits", train, test, "scikit-learn's digits (a fifth held out)")


def cache_folder() -> Path:
    """Where downloads are kept: $PYCNN_DATA, or pycnn under $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("PYCNN_DATA")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pycnn"


def _present(name: str, folder: Path) -> Path | None:
    """`folder`, or the one in it, that holds the files of `name`."""
    if name == "cifar10":
        return find_cifar10(folder)
    return folder if find_idx(folder, "train", "images") is not None else None


def _place(name: str, folder: str | Path | None, progress: Progress | None) -> Path:
    if folder is not None:
        if (place := _present(name, Path(folder))) is None:
            wanted = "test_batch.bin" if name == "cifar10" else "train-images-idx3-ubyte (or .gz)"
            raise FileNotFoundError(f"{folder}: no {wanted} here, so no {name}")
        return place
    cache = cache_folder() / name
    for candidate in (SYSTEM_FOLDER / name, cache):
        if (place := _present(name, candidate)) is not None and _complete(name, candidate):
            return place
    remote = _REMOTE[name]
    for file, checksum in remote.files:
        fetch(
            [f"{base}/{file}" for base in remote.bases],
            cache,
            checksum,
            progress=progress,
            unpack=file.endswith(".tar.gz"),
        )
    place = _present(name, cache)
    assert place is not None, "a checked download holds its files"
    return place


def _complete(name: str, folder: Path) -> bool:
    """Whether all of a data set's files are in `folder`; a download may have been broken off between two of them."""
    if name == "cifar10":
        return True
    return all(find_idx(folder, part, kind) for part in ("train", "t10k") for kind in ("images", "labels"))


def _mnist(name: str, folder: Path) -> Split:
    classes = _FASHION if "fashion" in name else _DIGITS
    train, test = (ArrayDataset(*read_mnist(folder, part), classes) for part in ("train", "t10k"))
    return Split(name, train, test, str(folder))


def _cifar10(name: str, folder: Path) -> Split:
    train, test = (ArrayDataset(*read_cifar10(folder, part), CIFAR10_CLASSES) for part in ("train", "test"))
    return Split(name, train, test, str(folder))
