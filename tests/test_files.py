"""Files that are files, and files written whole or not at all."""

import errno
import os
import zipfile

import pytest

import pycnn
from pycnn import checkpoint, data, tuning, weights
from pycnn._files import replacing, size_of
from pycnn.data.cifar import read_cifar10_file
from pycnn.data.folder import read_image
from pycnn.data.imagenet import class_names
from pycnn.jit.bundle import Bundle


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder") as caught, replacing(tmp_path / "none" / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "none")


def interrupted(path, durable):
    with replacing(path, durable=durable) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt


@pytest.mark.parametrize("durable", [False, True])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, durable):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, durable)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), replacing(tmp_path / "file", durable=True) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == []


def test_anyone_allowed_may_read_it(tmp_path):
    usual, written = tmp_path / "usual", tmp_path / "written"
    usual.touch()
    with replacing(written) as temporary:
        temporary.touch()
    assert written.stat().st_mode == usual.stat().st_mode


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "file") as temporary:
        temporary.write_text("new")


def read_onnx(path):
    pytest.importorskip("onnx")
    import pycnn.onnx

    return pycnn.onnx.load(path)


READERS = [
    *(weights.load, data.read_idx, read_image, read_cifar10_file, class_names, read_onnx),
    *(tuning.load, checkpoint.load, pycnn.load_compiled, Bundle),
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_refused_at_once(read, tmp_path):
    """A pipe that nobody writes to would be waited for, and a device read without end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "file").write_bytes(b"")
    inside_a_file = tmp_path / "file" / "x"
    for path in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "round", inside_a_file, "/dev/zero"):
        with pytest.raises((OSError, ValueError)) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_the_size_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(bytes(7))
    (tmp_path / "link").symlink_to("file")
    assert size_of(tmp_path / "link") == 7
    with pytest.raises(IsADirectoryError):
        size_of(tmp_path)
    with pytest.raises(FileNotFoundError):
        size_of(tmp_path / "none")


@pytest.mark.parametrize("read", [tuning.load, Bundle, weights.load, checkpoint.load])
def test_json_nested_deeper_than_python_can_follow_is_refused(read, tmp_path):
    path = tmp_path / "file"
    nested = b"[" * 100_000
    if read is Bundle:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("manifest.json", nested)
    elif read is checkpoint.load:
        metadata = b'{"__metadata__":{"pycnn":"' + nested + b'","crc32":"0"}}'
        path.write_bytes(len(metadata).to_bytes(8, "little") + metadata)
    else:
        path.write_bytes(nested)
    with pytest.raises(ValueError, match=str(path)):
        read(path)
