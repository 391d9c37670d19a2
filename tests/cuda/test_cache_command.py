"""``pycnn cache``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pycnn.cli import main
from pycnn.jit import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def key(number: int) -> str:
    return f"{number:032x}"


def aged(path: Path, seconds: float) -> None:
    written = time.time() - seconds
    os.utime(path, (written, written))


def test_an_empty_cache(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"0 files, 0.0 MiB, in {folder}\n"
    assert not folder.exists()


def test_every_kind_is_listed_with_number_size_and_age(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, kind in enumerate(cache.KINDS, 1):
        for copy in range(number):
            aged(cache.publish(key(10 * number + copy), kind, bytes(number * 2**18)), 7200 + copy * 86400)
    assert main(["cache"]) == 0
    header, *lines, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["kind", "files", "size", "age"]
    assert [line.split()[:4] for line in lines] == [
        [kind, str(number), f"{number**2 / 4:.1f}", "MiB"] for number, kind in enumerate(cache.KINDS, 1)
    ]
    assert "  2 h old " in lines[0]
    assert "  2 h to 1 d old " in lines[1]
    assert total == f"15 files, 13.8 MiB, in {folder}"


def test_path_prints_the_folder_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--path"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_clear_leaves_what_is_not_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.publish(key(1), ".cubin", bytes(2**20))
    killed, writing = folder / f".{key(2)}.cubin.1.2.part", folder / f".{key(3)}.cubin.1.2.part"
    for file in (killed, writing):
        file.write_bytes(b"half")
    aged(killed, 3600)
    foreign = [folder / "notes.txt", folder / "thesis.log", folder / f"{key(4)}.txt", folder / f"{key(5)}.cubin.part"]
    for file in foreign:
        file.write_text("mine")
    assert main(["cache"]) == 0
    listed = capsys.readouterr().out
    assert "3 files, 1.0 MiB" in listed
    assert "left behind unfinished" in listed
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"removed 2 files, 1.0 MiB, from {folder}\n"
    assert sorted(folder.iterdir()) == sorted([*foreign, writing])


@pytest.mark.parametrize("arguments", [["list"], ["--clear", "--path"], ["--kind"]])
def test_unknown_words_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["cache", *arguments])
    assert raised.value.code == 2
    assert "usage: pycnn" in capsys.readouterr().err


def test_a_kind_that_nobody_lists_cannot_be_kept(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"the cache keeps \.cubin, .*, not '\.bin'"):
        cache.publish(key(1), ".bin", b"")
    assert not folder.exists()
