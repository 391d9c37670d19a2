"""Which algorithm computes a convolution: the ordered lists of implementations, their guards, and the choice.

Every implementation says, in a sentence, when it cannot run a problem, and, where `auto` might take it, why.  (Those of
the CPU are here; a GPU's are plans, see `pycnn.backends.cuda.plan`, ordered by `pycnn.backends.cuda.order`.)  Choosing
is a pure function of the operator, the shape, the dtype and the accuracy in force, so it can be asked without
computing anything:

    >>> from pycnn.shape import Conv2dShape
    >>> choose("fprop", Conv2dShape(1, 64, 56, 56, 64, 1, 1), "float32")[0]
    'direct'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar

from pycnn import winograd
from pycnn._scoped import Scoped
from pycnn.shape import PASSES, Conv2dShape, whole

__all__ = [
    "ACCURACIES",
    "FAMILIES",
    "Implementation",
    "accuracy",
    "accuracy_of_call",
    "candidates",
    "choose",
    "resolve",
    "use_accuracy",
    "use_workspace_limit",
    "workspace_limit",
]

FAMILIES = ("direct", "im2col", "winograd")
ACCURACIES = ("fast", "strict")

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
    return "direct reads the image where it lies, with no columns to build"


# A Winograd tile is taken where its work, transforms included, is under this share of direct's: the model is within a
# fifth of what was measured, and where the gain is smaller than that the exact sum is the better bargain.
_WORTH = 0.8
# The largest tile loses another factor of two or three in accuracy: it has to save this much on the next smaller one.
# In fprop and dgrad its larger M and U leave the cache and eat a fifth saved on paper; wgrad gained 20 to 30 % from it.
_WORTH_MORE = {"fprop": 0.75, "dgrad": 0.75, "wgrad": 0.85}


def _winograd(tile: int, operator: str) -> Implementation:
    name = winograd.variant(operator, tile)

    def refuses(asked: str, shape: Conv2dShape, dtype: str) -> str | None:
        return winograd.refuses(name, asked, shape)

    def wins(asked: str, shape: Conv2dShape, dtype: str) -> str | None:
        if refuses(asked, shape, dtype) is not None or not shape.macs:
            return None
        allowed = [t for t in winograd.TILES if t == 2 or accuracy() == "fast"]
        costs = {t: winograd.cost(asked, shape, t) / shape.macs for t in allowed}
        best = min(costs, key=lambda t: costs[t] / (_WORTH_MORE[asked] if t == 6 else 1))
        if best != tile or costs[tile] > _WORTH:
            return None
        strict = " under strict accuracy" if accuracy() == "strict" else ""
        return f"tiles of {tile}x{tile} do {costs[tile]:.2f} of direct's work, transforms included, the least{strict}"

    return Implementation(name, "winograd", refuses, wins)


# In the order in which `auto` asks them and in which a family prefers its variants.
_CPU: tuple[Implementation, ...] = (
    *(_winograd(tile, operator) for operator in ("fprop", "wgrad") for tile in (4, 2, 6)),
    Implementation("direct", "direct", _never, _direct_wins),
    Implementation("im2col_implicit", "im2col", _never, _never),
    Implementation("im2col_explicit", "im2col", _never, _never),
)


class use_accuracy(Scoped):
    """Say what `auto` may trade: until the end of the ``with`` block, or for good if used without one.

    A call's own ``accuracy=`` goes before it.

    Args:
        name: ``"fast"`` (any algorithm, each within its written error bound) or ``"strict"`` (direct, im2col and the
            smallest Winograd tile, which is as accurate as a plain sum).

    Raises:
        ValueError: an unknown name.

    >>> from pycnn.shape import Conv2dShape
    >>> layer = Conv2dShape(1, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1))
    >>> with use_accuracy("strict"):
    ...     choose("fprop", layer, "float32")[0]
    'winograd_f2x2_3x3'
    """

    first = "fast"
    inside = ContextVar("pycnn_accuracy", default=None)
    lasting: ClassVar[list[Scoped]] = []

    def __init__(self, name: str) -> None:
        super().__init__(_known(name))


class use_workspace_limit(Scoped):
    """Say how much memory a convolution on a GPU may take beside its operands and result.

    Until the end of the ``with`` block, or for good if used without one.  `auto` does not choose an algorithm that
    needs more; one that is asked for by name and needs more is refused, with the limit and the need.

    Args:
        limit: bytes, at least 0; None for no limit.

    Raises:
        TypeError, ValueError: a limit that is no such number.

    >>> with use_workspace_limit(2**26):
    ...     workspace_limit()
    67108864
    """

    first = None
    inside = ContextVar("pycnn_workspace_limit", default=None)
    lasting: ClassVar[list[Scoped]] = []

    def __init__(self, limit: int | None) -> None:
        super().__init__(None if limit is None else whole("limit", limit, 0))


def workspace_limit() -> int | None:
    """Bytes that `use_workspace_limit` allows, or None."""
    limit: int | None = use_workspace_limit.value()
    return limit


_of_call: ContextVar[str | None] = ContextVar("pycnn_accuracy_of_call", default=None)


@contextmanager
def accuracy_of_call(name: str) -> Iterator[None]:
    """`name` for the operator called inside; it goes before `use_accuracy`."""
    token = _of_call.set(_known(name))
    try:
        yield
    finally:
        _of_call.reset(token)


def accuracy() -> str:
    """What the call or else `use_accuracy` asked for: "fast" unless one of them said otherwise."""
    return _of_call.get() or use_accuracy.value() or "fast"


def _known(name: str) -> str:
    if name not in ACCURACIES:
        raise ValueError(f"accuracy must be one of {', '.join(ACCURACIES)}, got {name!r}")
    return name


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
    if not asked and winograd.tile_of(algo):
        raise ValueError(f"algo={algo!r}: the CPU engine has Winograd's tiles for 3x3 filters only")
    if not asked:
        names = ", ".join(dict.fromkeys(("auto", *FAMILIES, *(one.name for one in _CPU))))
        raise ValueError(f"algo must be one of {names}, got {algo!r}")
    reasons = [(one.name, one.refuses(operator, shape, dtype)) for one in asked]
    able = [name for name, reason in reasons if reason is None]
    chosen = choose(operator, shape, dtype)[0]
    if not able:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons)
        raise ValueError(f"algo={algo!r} cannot run {operator} of {shape} ({listed})")
    return chosen if chosen in able else able[0]


def _check_operator(operator: str) -> None:
    if operator not in PASSES:
        raise ValueError(f"operator must be one of {', '.join(PASSES)}, got {operator!r}")
