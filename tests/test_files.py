"""Files written whole or not at all."""

import errno
import os

import pytest

from pycnn._files import replacing


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
