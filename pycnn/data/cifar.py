"""CIFAR-10's binary files: records of one label byte and 3 x 32 x 32 colour bytes, no header.

Reference: Krizhevsky, "Learning multiple layers of features from tiny images", 2009; cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pycnn._files import size_of
from pycnn.data.errors import CorruptFile

__all__ = ["CIFAR10_CLASSES", "find_cifar10", "read_cifar10", "read_cifar10_file"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORD = 1 + 3 * 32 * 32
_RECORDS = 10_000  # in each of the six files
_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}


def read_cifar10_file(path: str | Path, records: int = _RECORDS) -> tuple[np.ndarray, np.ndarray]:
    """Read one file of CIFAR-10's binary version.

    Args:
        path: the file.
        records: how many images it must hold.

    Returns:
        Images, uint8 of shape (records, 3, 32, 32), and labels, int64 of shape (records,).

    Raises:
        FileNotFoundError, OSError: no such file, no permission, or a folder, a pipe or a device.
        CorruptFile: another size than `records` x 3073 bytes, or a label above 9.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = pathlib.Path(folder.name, "one.bin")
    >>> _ = file.write_bytes(bytes([3]) + bytes(3072))
    >>> images, labels = read_cifar10_file(file, records=1)
    >>> images.shape, CIFAR10_CLASSES[labels[0]]
    ((1, 3, 32, 32), 'cat')
    """
    path = Path(path)
    size, wanted = size_of(path), records * _RECORD
    if size != wanted:
        raise CorruptFile(path, f"{size} bytes", f"{wanted} ({records} images of {_RECORD} bytes)")
    table = np.fromfile(path, np.uint8).reshape(records, _RECORD)
    labels = table[:, 0].astype(np.int64)
    if labels.max() > 9:
        where = int(labels.argmax())
        raise CorruptFile(path, f"label {labels[where]} in record {where}", "labels between 0 and 9")
    return table[:, 1:].reshape(records, 3, 32, 32).copy(), labels


def find_cifar10(folder: str | Path) -> Path | None:
    """`folder`, or ``cifar-10-batches-bin`` in it, whichever holds the binary files; None if neither does."""
    for place in (Path(folder), Path(folder) / "cifar-10-batches-bin"):
        if (place / _FILES["test"][0]).is_file():
            return place
    return None


def read_cifar10(folder: str | Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of CIFAR-10's `part`, "train" (50,000) or "test" (10,000).

    Raises FileNotFoundError for a missing file and CorruptFile for a damaged one.
    """
    parts = [read_cifar10_file(Path(folder) / name) for name in _FILES[part]]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)
