"""Which algorithm computes a convolution: the ordered lists of implementations, their guards, and the choice.

Every implementation says, in a sentence, when it cannot run a problem, and, where `auto` might take it, why.  Choosing
is a pure function of the operator, the shape and the dtype, so it can be asked without computing anything:

    >>> from pycnn.shape import Conv2dShape
    >>> choose("fprop", Conv2dShape(1, 64, 56, 56, 64, 1, 1), "float32")[0]
    'direct'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pycnn.shape import Conv2dShape

__all__ = ["FAMILIES", "Implementation", "candidates", "choose", "resolve"]

FAMILIES = ("direct", "im2col", "winograd")
_OPERATORS = ("fprop", "dgrad", "wgrad")

# A rule about a problem: (operator, shape, dtype name) -> a sentence, or None where it has nothing to say.
Rule = Callable[[str, Conv2dShape, str], str | None]


@dataclass(frozen=True)
class Implementation:
    """One way to compute one or more of the three operators.

    Attributes:
        name: of the variant, as `algo` takes it.
        family: one of `FAMILIES`.
        refuses: why it cannot run a problem, or None where it can.
        wins: why `auto` takes it for a problem, or None where it should look further down the list.
    """

    name: str
    family: str
    refuses: Rule
    wins: Rule


def _never(operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    return None


def _direct_wins(operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    return "direct reads the image where it lies, with no columns to build, and is the fastest that runs everything"


# In the order in which `auto` asks them and in which a family prefers its variants.
_CPU: tuple[Implementation, ...] = (
    Implementation("direct", "direct", _never, _direct_wins),
    Implementation("im2col_implicit", "im2col", _never, _never),
    Implementation("im2col_explicit", "im2col", _never, _never),
)


def candidates(operator: str, shape: Conv2dShape, dtype: str) -> list[tuple[str, str | None]]:
    """Every implementation of `operator` on the CPU, with the reason why it cannot run this problem, or None.

    Args:
        operator: "fprop", "dgrad" or "wgrad".
        shape: the problem.
        dtype: "float32" or "float64".
    """
    _check_operator(operator)
    return [(one.name, one.refuses(operator, shape, dtype)) for one in _CPU]


def choose(operator: str, shape: Conv2dShape, dtype: str) -> tuple[str, str]:
    """The implementation that `auto` takes on the CPU, and the sentence saying why."""
    _check_operator(operator)
    for one in _CPU:
        why = one.wins(operator, shape, dtype)
        if why is not None and one.refuses(operator, shape, dtype) is None:
            return one.name, why
    raise AssertionError("direct runs everything")


def resolve(algo: str, operator: str, shape: Conv2dShape, dtype: str) -> str:
    """The implementation that `algo` ("auto", a family or a variant) stands for on this problem.

    Raises:
        ValueError: an unknown name, or one that cannot run the problem; the message names the condition.

    >>> resolve("im2col", "wgrad", Conv2dShape(1, 3, 8, 8, 4, 3, 3), "float32")
    'im2col_implicit'
    """
    if algo == "auto":
        return choose(operator, shape, dtype)[0]
    _check_operator(operator)
    asked = [one for one in _CPU if algo in (one.name, one.family)]
    if not asked:
        names = ", ".join(dict.fromkeys(("auto", *FAMILIES, *(one.name for one in _CPU))))
        raise ValueError(f"algo must be one of {names}, got {algo!r}")
    reasons = [(one.name, one.refuses(operator, shape, dtype)) for one in asked]
    able = [name for name, reason in reasons if reason is None]
    if not able:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons)
        raise ValueError(f"algo={algo!r} cannot run {operator} of {shape} ({listed})")
    return able[0]


def _check_operator(operator: str) -> None:
    if operator not in _OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(_OPERATORS)}, got {operator!r}")
