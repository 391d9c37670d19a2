"""Readers of files on damaged ones: a short run, the same every time.  `python -m tests.fuzz` runs for longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from fuzz.mutate import mutations
from fuzz.targets import TARGETS, Target
from fuzz.watch import Finding, Watch

PACKAGES = {"onnx": "onnx", "hdf5": "h5py"}
COUNTS = {"hdf5": 40}  # a process each


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    target = TARGETS[name]
    watch = Watch(target)
    taken = [watch(content) for content in islice(mutations(target.seeds(), seed=1), COUNTS.get(name, 150))]
    assert all(taken[: len(target.seeds())])
    assert not all(taken)


def _stray(path: Path) -> object:
    return {b"sound": 1}[path.read_bytes()]


def _slow(path: Path) -> object:
    end = time.process_time() + 0.2
    while path.read_bytes() == b"odd" and time.process_time() < end:
        pass
    return None


def _large(path: Path) -> object:
    return b"x" * (100 << 20) if path.read_bytes() == b"odd" else None


@pytest.mark.parametrize(
    ("read", "seconds", "message"),
    [(_stray, 5, "KeyError"), (_slow, 0.1, r"0\.\d s for 3 bytes"), (_large, 5, r"\d+ MiB for 3 bytes")],
)
def test_what_a_reader_must_not_do_is_found(read: Callable[[Path], object], seconds: float, message: str) -> None:
    watch = Watch(Target(read, ("OSError",), lambda: [b"sound"], "", (), seconds))
    assert watch(b"sound")
    with pytest.raises(Finding, match=message):
        watch(b"odd")


def test_names_of_a_model_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Protobuf hands out what is no UTF-8 as bytes."""
    pytest.importorskip("onnx")
    import pycnn.onnx

    seed = TARGETS["onnx"].seeds()[0]
    path = tmp_path / "network.onnx"
    path.write_bytes(seed.replace(b"Flatten", b"Fla\xfften"))
    with pytest.raises(ValueError, match="is no name: the file is damaged"):
        pycnn.onnx.load(path)
