"""The IDX reader: what it reads, and one clear refusal for every way a file can be wrong."""

import contextlib
import gzip
import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycnn.data import CorruptFile, read_idx, read_mnist

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array):
    """An array as the bytes of an IDX file."""
    code = CODES[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(folder, content, name="some-file", compress=False):
    path = folder / name
    path.write_bytes(gzip.compress(content) if compress else content)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", CODES)
def test_every_type_comes_back(tmp_path, dtype, compress):
    array = (np.arange(-12, 12).reshape(2, 3, 4) % 100).astype(dtype)
    got = read_idx(write(tmp_path, idx(array), compress=compress))
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, array)


def test_result_is_writable(tmp_path):
    got = read_idx(write(tmp_path, idx(np.arange(3, dtype=np.uint8))))
    got[0] = 9
    assert got.tolist() == [9, 1, 2]


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
WRONG = {
    "empty": (b"", "found 0 "),
    "half a magic": (GOOD[:3], "found 3 "),
    "magic": (b"\x00\x01" + GOOD[2:], "magic number 0x00010803"),
    "html": (b"<html>not found</html>", "magic number 0x3c68746d"),
    "type": (b"\0\0\x0a\x03" + GOOD[4:], "magic number 0x00000a03"),
    "rank 0": (b"\0\0\x08\x00" + GOOD[4:], "rank 0"),
    "rank 200": (b"\0\0\x08\xc8" + GOOD[4:], "rank 200"),
    "sizes cut off": (GOOD[:10], "10 "),
    "one byte short": (GOOD[:-1], "23"),
    "trailing byte": (GOOD + b"\0", "trailing"),
    "size zero": (b"\0\0\x08\x02" + struct.pack(">II", 0, 28), "0 x 28"),
    "absurd sizes": (b"\0\0\x08\x03" + b"\xff" * 12, "which is 79228162458924105385300197375 bytes"),
    "absurd and short": (b"\0\0\x0e\x01" + struct.pack(">I", 2**31) + b"x" * 100, "which is 17179869184"),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_corruption_is_named(tmp_path, case, compress):
    content, found = WRONG[case]
    path = write(tmp_path, content, compress=compress)
    with pytest.raises(CorruptFile) as caught:
        read_idx(path)
    message = str(caught.value)
    assert str(path) in message
    assert found in message
    assert "expected" in message


@pytest.mark.parametrize("compress", [False, True])
def test_header_allocates_nothing(tmp_path, compress):
    """A header that promises 3 GiB (within what deflate could hold) costs no more memory than the file has bytes."""
    body = bytes(4_000_000) if compress else bytes(100)
    content = b"\0\0\x08\x01" + struct.pack(">I", 3 * 2**30) + body
    path = write(tmp_path, content)
    if compress:
        noise = np.random.default_rng(0).bytes(4_000_000)
        path.write_bytes(gzip.compress(content[:8] + noise, 1))
    tracemalloc.start()
    with pytest.raises(CorruptFile):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_gzip(tmp_path, keep):
    content = gzip.compress(idx(np.random.default_rng(1).integers(0, 255, 5000, np.uint8)))
    path = write(tmp_path, content[: int(len(content) * keep)])
    with pytest.raises(CorruptFile, match="stops short"):
        read_idx(path)


def test_damaged_gzip(tmp_path):
    content = bytearray(gzip.compress(idx(np.random.default_rng(1).integers(0, 255, 5000, np.uint8))))
    content[-6] ^= 0xFF  # in the checksum: all the elements are there and wrong, and only the trailer knows
    with pytest.raises(CorruptFile, match="damaged compression"):
        read_idx(write(tmp_path, bytes(content)))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(tmp_path_factory, data):
    """Cut or flip bytes anywhere: the reader gives a whole array or CorruptFile, nothing else."""
    content = bytearray(GOOD if data.draw(st.booleans()) else gzip.compress(GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = write(tmp_path_factory.getbasetemp(), bytes(content), "fuzzed")
    with contextlib.suppress(CorruptFile):
        assert read_idx(path).size > 0


def mnist(folder, images, labels, part="train"):
    write(folder, idx(images), f"{part}-images-idx3-ubyte.gz", compress=True)
    write(folder, idx(labels), f"{part}-labels-idx1-ubyte")


def test_mnist_layout(tmp_path):
    images = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
    mnist(tmp_path, images, np.array([3, 9], np.uint8))
    got, labels = read_mnist(tmp_path, "train")
    assert got.shape == (2, 1, 4, 5)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(got[:, 0], images)
    np.testing.assert_array_equal(labels, [3, 9])


def test_mnist_names_what_is_wrong(tmp_path):
    images, labels = np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte"):
        read_mnist(tmp_path, "train")
    mnist(tmp_path, images, labels[:2])
    with pytest.raises(CorruptFile, match=r"train-labels.*2 labels.*expected 3"):
        read_mnist(tmp_path, "train")
    mnist(tmp_path, images, labels + np.uint8(10))
    with pytest.raises(CorruptFile, match="label 10"):
        read_mnist(tmp_path, "train")
    mnist(tmp_path, images[0], labels)
    with pytest.raises(CorruptFile, match="rank 2 of uint8"):
        read_mnist(tmp_path, "train")
    mnist(tmp_path, images.astype(np.int16), labels)
    with pytest.raises(CorruptFile, match="int16"):
        read_mnist(tmp_path, "train")


def test_reads_what_gzip_members_hold(tmp_path):
    """A gzip file of two members, as `cat a.gz b.gz` makes it, is one stream."""
    buffer = io.BytesIO()
    for half in (GOOD[:7], GOOD[7:]):
        buffer.write(gzip.compress(half))
    np.testing.assert_array_equal(read_idx(write(tmp_path, buffer.getvalue())).ravel(), np.arange(24))
