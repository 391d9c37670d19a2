"""The native engine against the oracle on every operator's cases; the cases themselves; what a check lets pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pycnn.backends import reference
from pycnn.testing import check_operator, operators

ELSEWHERE = ("conv2d_", "max_pool2d", "avg_pool2d", "adaptive_", "plane_take")  # have checks of their own


@pytest.mark.parametrize("case", operators(), ids=lambda case: case.name)
def test_native_engine_agrees_with_the_oracle(case: Any) -> None:
    check_operator("cpu", case)


def test_every_function_of_the_protocol_has_a_case() -> None:
    named = {case.function for case in operators()}
    assert named == {name for name in reference.__all__ if not name.startswith(ELSEWHERE)}
    assert len({case.name for case in operators()}) == len(operators())


@pytest.mark.parametrize(
    ("function", "wrong", "words"),
    [
        ("relu_fwd", lambda y: y + 1, "differ"),
        ("tanh_fwd", lambda y: y * np.float32(1.00001), "exceeds the bound"),
        ("tanh_fwd", lambda y: np.where(y > 0.9, np.nan, y).astype(np.float32), "exceeds the bound"),
        ("relu_fwd", lambda y: y.astype(np.float64), "float64"),
        ("relu_fwd", lambda y: y.T, "shape|not"),
    ],
)
def test_a_wrong_result_is_caught(function: str, wrong: Any, words: str) -> None:
    right = getattr(reference, function)
    broken = SimpleNamespace(__name__="broken", **{function: lambda *given: wrong(right(*given))})
    with pytest.raises(AssertionError, match=words):
        check_operator(broken, operators(function)[0])


def test_a_changed_input_and_a_changing_result_are_caught() -> None:
    def greedy(x: np.ndarray) -> np.ndarray:
        x[...] = 0
        return x.copy()

    count = iter(range(9))

    def fickle(x: np.ndarray) -> np.ndarray:
        return x + np.float32(next(count))

    case = operators("relu_fwd")[0]
    with pytest.raises(AssertionError, match="an input was modified"):
        check_operator(SimpleNamespace(__name__="greedy", relu_fwd=greedy), case)
    with pytest.raises(AssertionError, match="two runs differ"):
        check_operator(SimpleNamespace(__name__="fickle", relu_fwd=fickle), case)
