"""Which function computes which operator.

A function takes the operator's inputs in the standard's order (None for one that was left out) and those of its
attributes that it names as keywords.  What it is given:

    floating inputs   Tensors, on the device that the model runs on, so that one function serves every backend and
                      records gradients where somebody asked for them
    all others        NumPy arrays in main memory: integers and booleans are shapes, indices and masks
    `host` inputs     NumPy arrays, whatever they hold: those that must be known to find out a shape

It returns a Tensor or an array, or a tuple of them.  Attributes of the standard that it does not name change nothing.
Besides attributes it can ask for `outputs`, the number of outputs that are wanted, and `version`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Operator", "find", "names", "operator"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operator:
    """A function for one operator from one opset on.

    Attributes:
        since: the opset in which the operator took the form that the function computes.
        host: the inputs, by position, that it gets in main memory.
        keywords: the attributes, and `outputs` and `version`, that it asks for.
    """

    name: str
    since: int
    function: Callable[..., Any]
    host: frozenset[int]
    keywords: frozenset[str]


_OPERATORS: dict[str, list[Operator]] = {}


def operator(*names: str, since: int = 1, host: tuple[int, ...] = ()) -> Callable[[F], F]:
    """Decorator: the function computes these operators, in the form that they have since an opset."""

    def register(function: F) -> F:
        keywords = frozenset(
            name
            for name, one in inspect.signature(function).parameters.items()
            if one.kind is inspect.Parameter.KEYWORD_ONLY
        )
        for name in names:
            forms = _OPERATORS.setdefault(name, [])
            forms.append(Operator(name, since, function, frozenset(host), keywords))
            forms.sort(key=lambda form: -form.since)
        return function

    return register


def find(name: str, version: int) -> Operator | None:
    """The function for an operator in the form of `version`; None if there is none."""
    return next((form for form in _OPERATORS.get(name, ()) if form.since <= version), None)


def names() -> list[str]:
    """The operators that there are, in alphabetical order."""
    return sorted(_OPERATORS)
