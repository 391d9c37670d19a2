"""Which algorithm computes a convolution: the lists of implementations, their guards, and the choice.

Every implementation says, in a sentence, when it cannot run a problem.  (Those of the CPU are here; a GPU's are plans,
see `pycnn.backends.cuda.plan`.)  Among those that can, `auto` takes the one whose time is predicted to be the least:
their work is counted by `pycnn.costs` and multiplied by the coefficients of the table in force, see `pycnn.tuning`.
Choosing is a pure function of the operator, the shape, the dtype, the accuracy in force and that table, so it can be
asked without computing anything:

    >>> from pycnn.shape import Conv2dShape
    >>> choose("fprop", Conv2dShape(1, 64, 56, 56, 64, 3, 3, groups=64), "float32")[0]
    'direct'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pycnn import costs, tuning, winograd, workspace
from pycnn._scoped import Scoped
from pycnn.shape import PASSES, Conv2dShape, Problem, whole

__all__ = [
    "ACCURACIES",
    "FAMILIES",
    "HANDICAPS",
    "PRECISIONS",
    "Implementation",
    "accuracy",
    "accuracy_of_call",
    "candidates",
    "choose",
    "eligible",
    "of_call",
    "precision",
    "precision_of_call",
    "predicted",
    "resolve",
    "spared",
    "use_accuracy",
    "use_precision",
    "use_workspace_limit",
    "workspace_limit",
]

FAMILIES = ("direct", "im2col", "winograd")
ACCURACIES = ("fast", "strict")
PRECISIONS = ("float32", "3xtf32", "3xfp16", "tf32")

# A rule about a problem: (operator, shape, dtype name) -> a sentence, or None where it has nothing to say.
Rule = Callable[[str, Conv2dShape, str], str | None]


@dataclass(frozen=True)
class Implementation:
    """One way to compute one or more of the three operators.

    Attributes:
        name: of the variant, as `algo` takes it.
        family: one of `FAMILIES`.
        refuses: why it cannot run a problem, or None where it can.
        spared: why `auto` leaves it out although it can, or None.
        handicap: what its predicted time is multiplied by before it is compared.
    """

    name: str
    family: str
    refuses: Rule
    spared: Rule
    handicap: float = 1.0


def _never(operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    return None


# F(4x4, 3x3) has 4 times the error of a plain sum, F(6x6, 3x3) 7 to 10 times.
HANDICAPS = {4: 1.0, 6: 1.03, 8: 1.06}
"""How much faster than what has a smaller error `auto` asks a Winograd tile to be, by its points along an axis."""

_MOST_COLUMNS = 32 << 20  # bytes that `auto` lets explicit columns take


_MOST_PAIRS = 4096  # of residues of the stride


def _unpacked(operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    """Why a problem cannot be computed by way of the packed layout."""
    if operator == "wgrad":
        return "the packed layout computes fprop and dgrad only"
    if operator == "dgrad" and shape.stride[0] * shape.stride[1] > _MOST_PAIRS:
        pairs = f"{shape.stride[0]}x{shape.stride[1]}"
        return f"the packed layout takes the residues of a stride one by one, and {pairs} has too many"
    if dtype != "float32":
        return f"the packed layout holds float32 only, this is {dtype}"
    return f"the packed layout takes one group, this has {shape.groups}" if shape.groups > 1 else None


def _winograd(tile: int, operator: str, taps: int = 3) -> Implementation:
    name = winograd.variant(operator, tile, taps)

    def refuses(asked: str, shape: Conv2dShape, dtype: str) -> str | None:
        reason = winograd.refuses(name, asked, replace(shape, dilation=(1, 1)))
        if reason or asked == "wgrad" or (taps == 3 and shape.dilation == (1, 1)):
            return reason
        reason = _unpacked(asked, shape, dtype)  # where 5x5 and dilated filters run
        return reason and (f"with dilation {shape.dilation[0]}x{shape.dilation[1]} " if taps == 3 else "") + reason

    def spared(asked: str, shape: Conv2dShape, dtype: str) -> str | None:
        strict = accuracy() == "strict" and (tile > 2 or taps > 3)
        return "strict accuracy allows the smallest tile alone" if strict else None

    return Implementation(name, "winograd", refuses, spared, HANDICAPS[tile + taps - 1])


def _columns(operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    needed = shape.C * shape.R * shape.S * shape.P * shape.Q * np.dtype(dtype).itemsize
    if needed <= _MOST_COLUMNS:
        return None
    return f"its columns would take {needed >> 20} MiB, and auto stops at {_MOST_COLUMNS >> 20}"


# Of equals `auto` takes the first.
_CPU: tuple[Implementation, ...] = (
    Implementation("direct", "direct", _never, _never),
    Implementation("direct_packed", "direct", _unpacked, _never),
    Implementation("im2col_implicit", "im2col", _never, _never),
    Implementation("im2col_explicit", "im2col", _never, _columns),
    *(_winograd(tile, operator) for operator in ("fprop", "wgrad") for tile in winograd.TILES),
    *(_winograd(tile, operator, 5) for operator in ("fprop", "wgrad") for tile in winograd.TILES_5X5),
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
    >>> layer = Conv2dShape(1, 256, 56, 56, 256, 3, 3, padding=(1, 1, 1, 1))
    >>> with use_accuracy("strict"):
    ...     choose("fprop", layer, "float32")[0]
    'winograd_f2x2_3x3'
    """

    first = "fast"
    inside = ContextVar("pycnn_accuracy", default=None)
    lasting: ClassVar[list[Scoped]] = []

    def __init__(self, name: str) -> None:
        super().__init__(_known("accuracy", name, ACCURACIES))


class use_precision(Scoped):
    """Say in what arithmetic float32 may be multiplied: until the end of the ``with`` block, or for good without one.

    The name is that of the least exact arithmetic that a convolution or a matrix product of float32 arrays may use.
    Nothing but "float32" is ever used without having been asked for, and what is allowed need not be used: the CPU
    engine and the reference compute in float32 (or float64) whatever is allowed.  A call's own ``precision=`` goes
    before it.

    Args:
        name: ``"float32"``; ``"3xtf32"`` (a GPU's tensor cores, where each operand is split in two, so that the result
            is as accurate as in float32); ``"3xfp16"`` (the same in parts of float16, of which tensor cores multiply
            twice as many: for operands up to 65504, beyond which results are infinite or NaN; of those below 2^-14
            what is under 2^-36 is lost); or
            ``"tf32"`` (tensor cores, operands rounded to 10 bits of mantissa, sums in float32).

    Raises:
        ValueError: an unknown name.

    >>> with use_precision("tf32"):
    ...     precision()
    'tf32'
    >>> precision()
    'float32'
    """

    first = "float32"
    inside = ContextVar("pycnn_precision", default=None)
    lasting: ClassVar[list[Scoped]] = []

    def __init__(self, name: str) -> None:
        super().__init__(_known("precision", name, PRECISIONS))


class use_workspace_limit(Scoped):
    """Say how much memory a convolution may take beside its operands and result.

    Until the end of the ``with`` block, or for good if used without one.  `auto` does not choose an algorithm that
    needs more; one that is asked for by name and needs more is refused, with the limit and the need.  On the CPU the
    need is a bound from above, without the few hundred kilobytes that every thread takes: see `pycnn.workspace`.

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


_accuracy_of_call: ContextVar[str | None] = ContextVar("pycnn_accuracy_of_call", default=None)
_precision_of_call: ContextVar[str | None] = ContextVar("pycnn_precision_of_call", default=None)


@contextmanager
def accuracy_of_call(name: str) -> Iterator[None]:
    """`name` for the operator called inside; it goes before `use_accuracy`."""
    token = _accuracy_of_call.set(_known("accuracy", name, ACCURACIES))
    try:
        yield
    finally:
        _accuracy_of_call.reset(token)


@contextmanager
def precision_of_call(name: str) -> Iterator[None]:
    """`name` for the operator called inside; it goes before `use_precision`."""
    token = _precision_of_call.set(_known("precision", name, PRECISIONS))
    try:
        yield
    finally:
        _precision_of_call.reset(token)


@contextmanager
def of_call(accuracy: str | None, precision: str | None) -> Iterator[None]:
    """`accuracy_of_call` and `precision_of_call`, those of the two that are not None."""
    with ExitStack() as both:
        if accuracy is not None:
            both.enter_context(accuracy_of_call(accuracy))
        if precision is not None:
            both.enter_context(precision_of_call(precision))
        yield


def accuracy() -> str:
    """What the call or else `use_accuracy` asked for: "fast" unless one of them said otherwise."""
    return _accuracy_of_call.get() or use_accuracy.value() or "fast"


def precision() -> str:
    """What the call or else `use_precision` allows: "float32" unless one of them said otherwise."""
    return _precision_of_call.get() or use_precision.value() or "float32"


def _known(what: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ValueError(f"{what} must be one of {', '.join(names)}, got {name!r}")
    return name


def candidates(operator: str, shape: Conv2dShape, dtype: str) -> list[tuple[str, str | None]]:
    """Every implementation of `operator` on the CPU, with the reason why it cannot run this problem, or None.

    Args:
        operator: "fprop", "dgrad" or "wgrad".
        shape: the problem.
        dtype: "float32" or "float64".
    """
    _check_operator(operator)
    return [(one.name, _refused(one, operator, shape, dtype)) for one in _CPU]


def _refused(one: Implementation, operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    """Why an implementation cannot run a problem, with the workspace limit in force, or None."""
    reason, limit = one.refuses(operator, shape, dtype), workspace_limit()
    if reason is not None or limit is None or not shape.macs:
        return reason
    needed = workspace.at_most(one.name, operator, shape, dtype)
    if needed <= limit:
        return None
    return f"it needs up to {needed} bytes of workspace, and the limit is {limit}"


def choose(operator: str, shape: Conv2dShape, dtype: str) -> tuple[str, str]:
    """The implementation that `auto` takes on the CPU, and the sentence saying why."""
    _check_operator(operator)
    return _least(_CPU, operator, shape, dtype)


def eligible(operator: str, shape: Conv2dShape, dtype: str) -> list[str]:
    """The implementations among which `auto` chooses on the CPU, with the accuracy in force."""
    _check_operator(operator)
    rules = (operator, shape, dtype)
    return [one.name for one in _CPU if _refused(one, *rules) is None and one.spared(*rules) is None]


def spared(name: str, operator: str, shape: Conv2dShape, dtype: str) -> str | None:
    """Why `auto` leaves an implementation out that can run the problem, or None."""
    return next(one.spared(operator, shape, dtype) for one in _CPU if one.name == name)


def predicted(operator: str, shape: Conv2dShape, dtype: str) -> dict[str, float]:
    """The seconds that each implementation which can run the problem is predicted to take on the CPU."""
    _check_operator(operator)
    able = [one for one in _CPU if _refused(one, operator, shape, dtype) is None]
    if not shape.macs:
        return {}
    table = tuning.in_force(tuning.of_cpu())
    return {one.name: table.seconds(operator, _candidate(one, operator, shape, dtype, table)) for one in able}


def resolve(algo: str, operator: str, shape: Conv2dShape, dtype: str) -> str:
    """The implementation that `algo` ("auto", a variant or else a family) stands for on this problem.

    Of a family it is what `auto` would take if there were no other; "direct" is a variant's name.

    Raises:
        ValueError: an unknown name, or one that cannot run the problem; the message names the condition.

    >>> resolve("direct", "wgrad", Conv2dShape(1, 3, 8, 8, 4, 3, 3), "float32")
    'direct'
    """
    if algo == "auto":
        return choose(operator, shape, dtype)[0]
    _check_operator(operator)
    asked = [one for one in _CPU if one.name == algo] or [one for one in _CPU if one.family == algo]
    if not asked and winograd.tile_of(algo):
        raise ValueError(f"algo={algo!r}: the CPU engine has Winograd's tiles for 3x3 and 5x5 filters only")
    if not asked:
        names = ", ".join(dict.fromkeys(("auto", *FAMILIES, *(one.name for one in _CPU))))
        raise ValueError(f"algo must be one of {names}, got {algo!r}")
    reasons = [(one.name, _refused(one, operator, shape, dtype)) for one in asked]
    if all(reason is not None for _, reason in reasons):
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons)
        raise ValueError(f"algo={algo!r} cannot run {operator} of {shape} ({listed})")
    return _least(asked, operator, shape, dtype)[0]


def _least(among: Sequence[Implementation], operator: str, shape: Conv2dShape, dtype: str) -> tuple[str, str]:
    """The one of `among` that `auto` prefers, and why.  Raises ValueError where the workspace limit allows none."""
    refused = {one.name: _refused(one, operator, shape, dtype) for one in among}
    able = [one for one in among if refused[one.name] is None]
    if not able:
        rules = (operator, shape, dtype)
        needs = {one.name: workspace.at_most(one.name, *rules) for one in among if one.refuses(*rules) is None}
        least = min(needs, key=lambda name: needs[name])
        raise ValueError(
            f"no algorithm for {operator} of {shape} keeps to the workspace limit of {workspace_limit()} bytes; "
            f"{least} needs the least, up to {needs[least]}"
        )
    if len(able) == 1:
        return able[0].name, "the only one that can run it"
    if not shape.macs:
        return able[0].name, "an empty batch: there is nothing to do"
    left_out = {one.name: one.spared(operator, shape, dtype) for one in able}
    free = [one for one in able if left_out[one.name] is None] or able
    table = tuning.in_force(tuning.of_cpu())
    return tuning.choose(
        table,
        operator,
        str(Problem(shape, operator, dtype)),
        [_candidate(one, operator, shape, dtype, table) for one in free],
        {name: reason for name, reason in (refused | left_out).items() if reason is not None},
    )


def _candidate(
    one: Implementation, operator: str, shape: Conv2dShape, dtype: str, table: tuning.Table
) -> tuning.Candidate:
    """`one` with its work on the problem, cut as for the table's instruction set and number of threads."""
    size = np.dtype(dtype).itemsize
    counted = costs.work(one.name, operator, shape, size=size, isa=table.identity.kind, threads=table.threads)
    return tuning.Candidate(one.name, *counted, one.handicap)


def _check_operator(operator: str) -> None:
    if operator not in PASSES:
        raise ValueError(f"operator must be one of {', '.join(PASSES)}, got {operator!r}")
