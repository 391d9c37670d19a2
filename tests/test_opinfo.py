"""PyTorch's own samples (OpInfo) of the operators that pycnn has: values, gradients, and what must be refused."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch's OpInfo imports it")

opinfo = importlib.import_module("opinfo")

A_FEW = 8  # samples of each operator and dtype in the fast run


@functools.cache
def _few(name: str) -> Any:
    return opinfo.run(name, A_FEW)


@pytest.mark.parametrize("name", opinfo.OPERATORS)
def test_a_few_samples(name: str) -> None:
    assert _few(name).failed == []


@pytest.mark.slow
@pytest.mark.parametrize("name", opinfo.OPERATORS)
def test_every_sample(name: str) -> None:
    assert opinfo.run(name).failed == []


def test_hardly_anything_is_skipped() -> None:
    counts = [_few(name) for name in opinfo.OPERATORS]
    assert sum(count.total for count in counts) > 1000
    skipped = sum(count.skipped.total() + count.taken.total() for count in counts)
    assert skipped < 0.02 * sum(count.total for count in counts)


def test_what_is_listed_is_there() -> None:
    """Nothing was lost by another name, and what is taken on purpose still is."""
    for name in ("add", "softmax", "nn.functional.conv2d", "nn.functional.max_pool3d", "nn.functional.cross_entropy"):
        assert name in opinfo.OPERATORS
    for name, _ in opinfo.TAKEN:
        assert opinfo.run(name, 1).taken.total() == 1


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("nn.functional.relu", lambda x: x.clamp(min=-1e-3), "result 0"),
        ("nn.functional.relu", lambda x: x.detach().clamp(min=0) + 0 * x, "gradient of argument 0"),
        ("sum", lambda x, *args, **options: x.double().sum(*args, **options), "dtype float64, not float32"),
        ("nn.functional.gelu", lambda x, **options: x, "torch refuses"),
    ],
)
def test_seeded_bugs_are_caught(monkeypatch: pytest.MonkeyPatch, name: str, broken: Any, message: str) -> None:
    monkeypatch.setitem(opinfo.OPERATORS, name, broken)
    failed = opinfo.run(name, 4).failed
    assert any(message in line for line in failed)


def test_the_command_prints_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert opinfo.main(["exp", "mean"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\| 2 \| \d+ \| \d+ \| \d+ \| 1 \| 0 \|$", printed, re.MULTILINE)
    assert "- 1 not refused: mean: integers have a floating mean." in printed
