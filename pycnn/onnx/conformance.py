"""The suites that the package onnx ships, run against `pycnn.onnx`.

A case counts if pycnn has every operator in its model.  Of these, the ones in `SKIPPED` are not run, each for a reason
that is written there; all others have to pass.

    python -m pycnn.onnx conformance
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pycnn._extras import extra
from pycnn.onnx import registry
from pycnn.onnx.backend import PycnnBackend
from pycnn.onnx.errors import ModelError, UnsupportedModelError

with extra("onnx", "onnx"):
    import onnx
    from onnx import numpy_helper

__all__ = ["SKIPPED", "SUITES", "Case", "Tally", "cases", "failure", "markdown", "tally"]

SUITES = ("node", "expanded", "pytorch-converted", "pytorch-operator")

_DRAWS = "what a dropout draws is not in the standard; the case has one library's numbers"

SKIPPED = {
    "test_training_dropout": _DRAWS,
    "test_training_dropout_default": _DRAWS,
    "test_training_dropout_default_mask": _DRAWS,
    "test_training_dropout_mask": _DRAWS,
    "test_attention_4d_causal_fp16_expanded": "two elements differ by one unit in the last place of float16, which is "
    "more than the case allows: products here are summed in float32 and rounded once",
}


@dataclass(frozen=True)
class Case:
    """A model with inputs and the outputs that it must have."""

    suite: str
    name: str
    model: onnx.ModelProto = field(repr=False)
    data: tuple[tuple[Sequence[Any], Sequence[Any]], ...] = field(repr=False)
    rtol: float
    atol: float

    @property
    def operators(self) -> frozenset[str]:
        """Those in the model, branches and bodies included."""
        return frozenset(_operators(self.model.graph))

    @property
    def subject(self) -> str:
        """The operator that the case is about, where it is one node."""
        return self.model.graph.node[0].op_type if self.model.graph.node else "Identity"


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _operators(attribute.g)


def cases(suite: str) -> list[Case]:
    """The cases of a suite: "node" and "expanded" are onnx's cases of single nodes, as they are and written out."""
    if suite not in SUITES:
        raise ValueError(f"suite must be one of {', '.join(SUITES)}, got {suite!r}")
    if suite in ("node", "expanded"):
        return [one for one in _nodes() if (one.suite == suite)]
    from onnx.backend.test.loader import load_model_tests

    found = []
    for one in load_model_tests(kind=suite):
        folder = Path(one.model_dir or "")
        model = onnx.load(folder / "model.onnx")
        found.append(Case(suite, one.name, model, _files(folder), one.rtol, one.atol))
    return found


def _nodes() -> Iterator[Case]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases are made of NaN and infinities
        collected = collect_testcases(None)
    for one in collected:
        suite = "expanded" if "_expanded" in one.name else "node"
        sets = one.data_sets or ()
        data = tuple(([_plain(x) for x in inputs], [_plain(y) for y in outputs]) for inputs, outputs in sets)
        assert one.model is not None  # it is the model-file suites that have a folder in its place
        yield Case(suite, one.name, one.model, data, one.rtol, one.atol)


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return [_plain(one) for one in numpy_helper.to_list(value)]
    if isinstance(value, onnx.OptionalProto):
        return _plain(numpy_helper.to_optional(value))
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _files(folder: Path) -> tuple[tuple[list[Any], list[Any]], ...]:
    return tuple((_tensors(each, "input"), _tensors(each, "output")) for each in sorted(folder.glob("test_data_set_*")))


def _tensors(folder: Path, kind: str) -> list[Any]:
    paths = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.partition("_")[2]))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]


def failure(case: Case, device: str = "CPU") -> str | None:
    """What is wrong with the outputs for a case, or None."""
    try:
        prepared = PycnnBackend.prepare(case.model, device)
        for inputs, outputs in case.data:
            _compare(prepared.run(inputs), outputs, case)
    except (AssertionError, ModelError) as error:
        return " ".join(str(error).split())
    return None


def _compare(got: Sequence[Any], expected: Sequence[Any], case: Case) -> None:
    """As onnx's own runner compares: shapes and dtypes exactly, values within the case's tolerances."""
    assert len(got) == len(expected), f"{len(got)} outputs, {len(expected)} expected"
    for one, wanted in zip(got, expected, strict=True):
        if isinstance(wanted, list):
            assert isinstance(one, list), f"{type(one).__name__}, a sequence expected"
            _compare(one, wanted, case)
            continue
        assert one.shape == wanted.shape, f"shape {one.shape}, {wanted.shape} expected"
        if wanted.dtype.kind in "OUT":
            np.testing.assert_array_equal(one, wanted)
            continue
        assert one.dtype == wanted.dtype, f"dtype {one.dtype}, {wanted.dtype} expected"
        rtol = case.rtol
        if wanted.dtype.name == "bfloat16":
            rtol = max(rtol, 2**-6)  # two units in the last place, as onnx's runner has it
            one, wanted = one.astype(np.float32), wanted.astype(np.float32)
        np.testing.assert_allclose(one, wanted, rtol=rtol, atol=case.atol)


@dataclass
class Tally:
    """How the cases of a suite fared."""

    suite: str
    without: list[Case] = field(default_factory=list)
    skipped: list[Case] = field(default_factory=list)
    passed: list[Case] = field(default_factory=list)
    failed: list[tuple[Case, str]] = field(default_factory=list)

    @property
    def claimed(self) -> int:
        """The cases of which pycnn has every operator."""
        return len(self.skipped) + len(self.passed) + len(self.failed)


def tally(suite: str, device: str = "CPU") -> Tally:
    """Run a suite."""
    result = Tally(suite)
    had = frozenset(registry.names())
    for case in cases(suite):
        if not case.operators <= had:
            result.without.append(case)
        elif case.name in SKIPPED:
            result.skipped.append(case)
        else:
            try:
                wrong = failure(case, device)
            except UnsupportedModelError as error:
                wrong = str(error)
            if wrong is None:
                result.passed.append(case)
            else:
                result.failed.append((case, wrong))
    return result


def markdown(tallies: Sequence[Tally]) -> str:
    """A table, and the skipped cases with their reasons."""
    lines = ["| suite of onnx | cases | of our operators | pass | skipped |", "|---|---:|---:|---:|---:|"]
    for one in tallies:
        total = one.claimed + len(one.without)
        lines.append(f"| {one.suite} | {total} | {one.claimed} | {len(one.passed)} | {len(one.skipped)} |")
    lines += ["", f"{len(registry.names())} operators of onnx {onnx.__version__}.", ""]
    for case in (case for one in tallies for case in one.skipped):
        lines.append(f"- `{case.name}`: {SKIPPED[case.name]}.")
    return "\n".join(lines) + "\n"
