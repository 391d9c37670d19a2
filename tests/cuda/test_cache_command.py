"""``pycnn cache``."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycnn.cli import main
from pycnn.jit import cache


def test_cache_lists_sizes_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYCNN_CACHE_DIR", str(tmp_path / "cache"))
    assert main(["cache", "size"]) == 0
    assert "0 files" in capsys.readouterr().out
    cache.publish("abc", ".cubin", bytes(2**20))
    assert main(["cache", "list"]) == 0
    assert "abc.cubin\n1 files, 1.0 MiB" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "removed 1 files, 1.0 MiB" in capsys.readouterr().out
    assert list(cache.entries()) == []
