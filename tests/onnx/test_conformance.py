"""The suites that the package onnx ships, written by nobody here."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from benchmarks.conformance import rewrite
from pycnn.onnx import conformance, registry
from pycnn.onnx.__main__ import main
from pycnn.onnx.conformance import SKIPPED, SUITES, Case, failure

_OPERATORS = registry.names()


@functools.cache
def _cases(suite: str) -> tuple[Case, ...]:
    return tuple(conformance.cases(suite))


def _claimed(suite: str) -> list[Case]:
    had = set(_OPERATORS)
    return [case for case in _cases(suite) if case.operators <= had]


def _failures(cases: list[Case]) -> list[str]:
    run = [case for case in cases if case.name not in SKIPPED]
    return [f"{case.name}: {wrong}" for case in run if (wrong := failure(case)) is not None]


@pytest.mark.parametrize("operator", _OPERATORS)
def test_cases_of_one_node(operator: str) -> None:
    assert _failures([case for case in _claimed("node") if case.subject == operator]) == []


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "node"])
def test_suite(suite: str) -> None:
    """What onnx writes as several nodes, and what PyTorch once exported."""
    cases = _claimed(suite)
    assert len(cases) > 0
    assert _failures(cases) == []


def test_all_of_what_pytorch_exported_is_claimed() -> None:
    for suite in ("pytorch-converted", "pytorch-operator"):
        assert len(_claimed(suite)) == len(_cases(suite)) > 30


def test_less_than_two_in_a_hundred_are_skipped() -> None:
    claimed = [case for suite in SUITES for case in _claimed(suite)]
    skipped = [case for case in claimed if case.name in SKIPPED]
    assert {case.name for case in skipped} == set(SKIPPED)  # no reason for what is not there
    assert 0 < len(skipped) < 0.02 * len(claimed)


def test_a_wrong_operator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = [case for case in _cases("node") if case.name == "test_add"]
    assert failure(case) is None
    right = registry.find("Add", 14)
    assert right is not None
    for wrong in (lambda a, b: a - b, lambda a, b: a, lambda a, b: (a + b).to(np.float64), lambda a, b: (a + b)[None]):
        form = registry.Operator("Add", 7, wrong, frozenset(), frozenset())
        monkeypatch.setitem(registry._OPERATORS, "Add", [form])
        assert failure(case) is not None


_ALONE = """
import importlib.abc, sys, warnings

from pycnn.onnx import conformance

OTHERS = ("onnxruntime", "torch", "onnx.reference")

def is_other(name):
    return any(name == other or name.startswith(other + ".") for other in OTHERS)

assert not any(map(is_other, sys.modules)), "pycnn.onnx imports another runtime"
claimed = {suite: conformance.cases(suite) for suite in conformance.SUITES}  # onnx makes some of them by onnx.reference
for name in [name for name in sys.modules if is_other(name)]:
    del sys.modules[name]

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if is_other(name):
            raise ImportError(f"{name} is asked for")

sys.meta_path.insert(0, Refuse())
conformance.cases = claimed.__getitem__
ran = 0
for suite in conformance.SUITES:
    result = conformance.tally(suite)
    ran += len(result.passed)
assert not any(map(is_other, sys.modules))
print(ran)
"""


def test_no_operator_is_computed_by_another_runtime() -> None:
    """Neither onnxruntime nor torch nor onnx's own evaluator can be imported while the suites run."""
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1500


def test_the_section_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "--suite", "pytorch-operator"]) == 0
    printed = capsys.readouterr().out
    assert "| pytorch-operator | 35 | 35 | 35 | 0 |" in printed
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- onnx conformance: begin -->\nold\n<!-- onnx conformance: end -->\nafter\n")
    rewrite(readme, [conformance.tally("pytorch-operator")])
    begin, end = "<!-- onnx conformance: begin -->", "<!-- onnx conformance: end -->"
    assert readme.read_text() == f"before\n{begin}\n{printed}{end}\nafter\n"
