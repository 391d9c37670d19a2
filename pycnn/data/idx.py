"""IDX files, the format of MNIST and Fashion-MNIST: two zero bytes, an element code, a rank, the sizes, the elements.

Nothing a header says is believed before it is checked against the file: memory grows with the bytes that are really
there, never with a number that was read.

Reference: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", the section on file formats.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pycnn._files import size_of
from pycnn.data.errors import CorruptFile

__all__ = ["find_idx", "read_idx", "read_mnist"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_MAX_RANK = 8
_CHUNK = 1 << 20
# A compressed file may say that it holds a thousand times its size, which deflate could (RFC 1951).  It is believed
# three and a half times its size, and 48 MiB beside: the images of MNIST, 47 MB, come in a file of 10 MB.
_MOST_EXPANSION = 3.5
_MOST_BESIDE = 48 << 20


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzip-compressed or not (the content decides, not the name).

    Args:
        path: the file.

    Returns:
        The array, in this machine's byte order and the shape that the header gives.

    Raises:
        FileNotFoundError, OSError: no such file, no permission, or a folder, a pipe or a device.
        CorruptFile: anything that is not one complete IDX array and nothing more: a wrong magic number, an unknown
            element code, an absurd rank or size, missing or trailing bytes, damaged compression, or elements of more
            than 3.5 times a compressed file's size plus 48 MiB.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "labels-idx1-ubyte")
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(file)
    array([7, 8, 9], dtype=uint8)
    """
    path = Path(path)
    size = size_of(path)
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
        raw.seek(0)
        if not compressed:
            return _read(path, raw, size, "")
        try:
            with gzip.open(raw) as stream:
                return _read(path, stream, int(size * _MOST_EXPANSION) + _MOST_BESIDE, "decompressed ")
        except EOFError:
            raise CorruptFile(path, "compressed data that stops short", "a complete gzip stream") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise CorruptFile(path, f"damaged compression ({error})", "a gzip stream") from None


def _read(path: Path, stream: BinaryIO | gzip.GzipFile, most: int, kind: str) -> np.ndarray:
    """The array in `stream`, which is not believed to hold more than `most` bytes."""
    head = stream.read(4)
    if len(head) < 4:
        raise CorruptFile(path, f"{len(head)} {kind}bytes", "an IDX header of at least 8")
    if head[:2] != b"\0\0" or head[2] not in _TYPES:
        raise CorruptFile(
            path,
            f"magic number 0x{head.hex()}",
            "0x0000TTRR with an element code TT of 08 (bytes, as in MNIST), 09, 0b, 0c, 0d or 0e and a rank RR",
        )
    rank = head[3]
    if not 1 <= rank <= _MAX_RANK:
        raise CorruptFile(path, f"rank {rank}", f"a rank between 1 and {_MAX_RANK}")
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise CorruptFile(path, f"{4 + len(sizes)} {kind}bytes", f"a header of {4 + 4 * rank} for rank {rank}")
    shape = struct.unpack(f">{rank}I", sizes)
    dtype = np.dtype(_TYPES[head[2]])
    wanted = prod(shape) * dtype.itemsize
    header = 4 + 4 * rank
    if wanted == 0:
        raise CorruptFile(path, f"sizes {_times(shape)}", "sizes of at least 1")
    if header + wanted > most:
        raise CorruptFile(
            path,
            f"sizes {_times(shape)}, which is {wanted} bytes of elements",
            f"at most {most - header} {kind}bytes after the header of a file of its size",
        )
    payload = bytearray()
    while len(payload) < wanted and (chunk := stream.read(min(_CHUNK, wanted - len(payload)))):
        payload += chunk
    if len(payload) < wanted:
        raise CorruptFile(
            path, f"{len(payload)} {kind}bytes of elements", f"{wanted} for sizes {_times(shape)} (truncated file?)"
        )
    if stream.read(1):  # at the end of a gzip stream this also checks its checksum
        raise CorruptFile(path, "trailing bytes", f"the end after {wanted} bytes of elements ({_times(shape)})")
    array = np.frombuffer(payload, dtype).reshape(shape)
    native = dtype.newbyteorder("=")
    return array if dtype == native else array.byteswap(inplace=True).view(native)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def find_idx(folder: str | Path, part: str, kind: str) -> Path | None:
    """The file of `part` ("train" or "t10k") and `kind` ("images" or "labels") in `folder`, or None.

    Both spellings in circulation are known (``train-images-idx3-ubyte`` and ``train-images.idx3-ubyte``), with and
    without ``.gz``; an uncompressed file is preferred.
    """
    rank = {"images": 3, "labels": 1}[kind]
    for ending in ("", ".gz"):
        for dash in "-.":
            path = Path(folder) / f"{part}-{kind}{dash}idx{rank}-ubyte{ending}"
            if path.is_file():
                return path
    return None


def read_mnist(folder: str | Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one part of a data set laid out as MNIST is.

    Args:
        folder: the folder with the IDX files.
        part: "train" or "t10k".

    Returns:
        Images, uint8 of shape (N, 1, H, W), and labels, int64 of shape (N,).

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        CorruptFile: a damaged file, images and labels that do not agree in number, or a label above 9.

    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = pathlib.Path(folder.name, "train-images-idx3-ubyte")
    >>> _ = file.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 10, 20, 30, 40]))
    >>> file = pathlib.Path(folder.name, "train-labels-idx1-ubyte")
    >>> _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    >>> images, labels = read_mnist(folder.name, "train")
    >>> images.shape, labels
    ((1, 1, 2, 2), array([7]))
    """
    images_path, labels_path = _required(folder, part, "images"), _required(folder, part, "labels")
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, rank in ((images_path, images, 3), (labels_path, labels, 1)):
        if array.dtype != np.uint8 or array.ndim != rank:
            raise CorruptFile(path, f"rank {array.ndim} of {array.dtype}", f"rank {rank} of uint8")
    if len(images) != len(labels):
        raise CorruptFile(labels_path, f"{len(labels)} labels", f"{len(images)}, one for each image of {images_path}")
    if labels.max() > 9:
        raise CorruptFile(labels_path, f"a label {labels.max()}", "labels between 0 and 9")
    return images[:, None], labels.astype(np.int64)


def _required(folder: str | Path, part: str, kind: str) -> Path:
    path = find_idx(folder, part, kind)
    if path is None:
        rank = {"images": 3, "labels": 1}[kind]
        raise FileNotFoundError(f"{folder}: no {part}-{kind}-idx{rank}-ubyte or {part}-{kind}-idx{rank}-ubyte.gz here")
    return path
