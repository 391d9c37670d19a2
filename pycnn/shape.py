"""Shapes of convolution and pooling problems: output sizes, arithmetic, and one string that says it all.

A convolution is ``N C H W`` in, filters ``K C/groups R S``, ``N K P Q`` out:

    y[n, k, p, q] = b[k] + sum over c, r, s of
        x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[k, c, r, s]

    P = (H + pad_top + pad_bottom - dilation_h*(R - 1) - 1) // stride_h + 1          (Q likewise)

Everything here is plain integers; no array library is imported.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

__all__ = [
    "Conv2dShape",
    "Pool2dShape",
    "Problem",
    "check_channels",
    "check_elements",
    "normalize_padding",
    "pair",
    "taps_inside",
    "whole",
]

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right

# One element offset must fit a signed 64-bit integer with room to spare; anything larger is a typing error.
_LARGEST = 2**40


def whole(name: str, value: object, least: int) -> int:
    """`value` as an int of at least `least`, or an exception that names the argument."""
    if type(value) is int and least <= value <= _LARGEST:
        return value
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got the bool {value!r}")
    if not least <= number <= _LARGEST:
        raise ValueError(f"{name} must be between {least} and 2**40, got {number}")
    return number


def all_whole(values: Sequence[object], least: int) -> bool:
    """Whether every one of `values` is a plain int that `whole` accepts: the quick answer, for nearly every call."""
    for value in values:  # noqa: SIM110 - all() over a generator takes twice as long
        if type(value) is not int or not least <= value <= _LARGEST:
            return False
    return True


def pair(name: str, value: int | Sequence[int], least: int) -> Pair:
    """`value` (an int or two of them, height first) as a pair of ints of at least `least`.

    Raises TypeError if it is neither, ValueError if it has another length or is too small.

    >>> pair("stride", 2, 1)
    (2, 2)
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an int or a pair of ints, got {value!r}")
        if all_whole(value, least):
            return value[0], value[1]
        return whole(f"{name}[0]", value[0], least), whole(f"{name}[1]", value[1], least)
    number = whole(name, value, least)
    return number, number


def normalize_padding(
    padding: int | str | Sequence[int] | Sequence[Sequence[int]],
    kernel: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Padding:
    """Any accepted form of padding as ``(top, bottom, left, right)``.

    Args:
        padding: an int (all four sides), a pair ``(height, width)``, ``((top, bottom), (left, right))``, a flat
            ``(top, bottom, left, right)``, ``"valid"`` (none) or ``"same"`` (stride 1 only; the output has the
            input's size and, as in PyTorch, the odd element goes to the bottom and the right).
        kernel, stride, dilation: pairs, height first.

    Raises:
        ValueError: negative padding, an unknown word, a wrong length, or "same" with a stride other than 1.
        TypeError: something that is not a number.

    >>> normalize_padding("same", (4, 3))
    (1, 2, 1, 1)
    """
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding != "same":
            raise ValueError(f"padding must be 'same', 'valid' or numbers, got {padding!r}")
        if stride != (1, 1):
            raise ValueError(f"padding='same' needs stride 1, got stride {stride}")
        total_h, total_w = dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)
        return total_h // 2, total_h - total_h // 2, total_w // 2, total_w - total_w // 2
    if isinstance(padding, (tuple, list)):
        if len(padding) == 4:
            if all_whole(padding, 0):
                return padding[0], padding[1], padding[2], padding[3]  # type: ignore[return-value]
            sides = [whole(f"padding[{i}]", side, 0) for i, side in enumerate(padding)]
            return sides[0], sides[1], sides[2], sides[3]
        if len(padding) != 2:
            raise ValueError(
                f"padding must be an int, (h, w), ((top, bottom), (left, right)) or (top, bottom, left, right), "
                f"got {padding!r}"
            )
        top, bottom = pair("padding[0]", padding[0], 0)
        left, right = pair("padding[1]", padding[1], 0)
        return top, bottom, left, right
    side = whole("padding", padding, 0)
    return side, side, side, side


def _out_size(name: str, size: int, before: int, after: int, window: int, stride: int, dilation: int) -> int:
    span = dilation * (window - 1) + 1
    if size + before + after < span:
        raise ValueError(
            f"the output would be smaller than 1: {name} {size} with padding {before}+{after} is less than the "
            f"filter's reach of {span} (filter size {window}, dilation {dilation})"
        )
    return (size + before + after - span) // stride + 1


def taps_inside(size: int, out: int, window: int, stride: int, before: int, dilation: int) -> list[tuple[int, int]]:
    """How many neighbouring outputs along an axis meet the input with the same taps, and with how many.

    >>> taps_inside(7, 7, 3, stride=1, before=1, dilation=1)
    [(1, 2), (5, 3), (1, 2)]
    """

    def met(i: int) -> tuple[int, int]:
        first = i * stride - before
        begin = min(window, max(0, -(first // dilation)))
        end = min(window, -((first - size) // dilation))
        return (begin, end) if begin < end else (0, 0)

    # Between the outputs of either edge all meet the input with all taps.
    inner = min(out, max(0, -(-before // stride)))
    outer = max(inner, min(out, (size - 1 - (window - 1) * dilation + before) // stride + 1))
    groups = [(len(list(same)), end - begin) for (begin, end), same in groupby(map(met, range(inner)))]
    groups += [(outer - inner, window)] if outer > inner else []
    return groups + [(len(list(same)), end - begin) for (begin, end), same in groupby(map(met, range(outer, out)))]


def check_elements(name: str, shape: tuple[int, ...]) -> None:
    """ValueError if an array of this shape would have more elements than any machine can hold."""
    if math.prod(shape) > _LARGEST:
        raise ValueError(f"{name} would have more than 2**40 elements: shape {shape}")


def check_channels(x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int) -> None:
    """ValueError if filters of `w_shape`, (K, C/groups, ...), do not go with images of `x_shape`, (N, C, ...)."""
    if x_shape[1] != w_shape[1] * groups:
        raise ValueError(
            f"channels disagree: x has C={x_shape[1]}, w expects {w_shape[1]} x groups {groups} = "
            f"{w_shape[1] * groups} (x {x_shape}, w {w_shape})"
        )


@dataclass(frozen=True)
class Conv2dShape:
    """A 2-D convolution problem in plain integers.

    Attributes:
        N, C, H, W: input batch, channels, height, width.
        K, R, S: filters, filter height, filter width.
        stride, dilation: pairs, height first.  Dilation 1 means none.
        padding: ``(top, bottom, left, right)``.
        groups: C and K are divisible by it; a filter sees ``C // groups`` channels.

    Raises:
        ValueError: on construction, for a size out of range, an output smaller than 1, or channels that the groups
            do not divide.

    >>> Conv2dShape(1, 3, 7, 7, 8, 3, 3).P, Conv2dShape(1, 3, 7, 7, 8, 3, 3, stride=(2, 2)).P
    (5, 3)
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    P: int = field(init=False)
    Q: int = field(init=False)

    def __post_init__(self) -> None:
        for name, least in (("N", 0), ("C", 1), ("H", 1), ("W", 1), ("K", 1), ("R", 1), ("S", 1), ("groups", 1)):
            whole(name, getattr(self, name), least)
        if self.C % self.groups or self.K % self.groups:
            raise ValueError(
                f"groups must divide both channel counts, got groups={self.groups}, C={self.C}, K={self.K}"
            )
        top, bottom, left, right = self.padding
        p = _out_size("height", self.H, top, bottom, self.R, self.stride[0], self.dilation[0])
        q = _out_size("width", self.W, left, right, self.S, self.stride[1], self.dilation[1])
        check_elements("the output", (self.N, self.K, p, q))
        object.__setattr__(self, "P", p)
        object.__setattr__(self, "Q", q)

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(
        x_shape: tuple[int, ...],
        w_shape: tuple[int, ...],
        stride: Pair,
        padding: Padding,
        dilation: Pair,
        groups: int,
    ) -> Conv2dShape:
        """The problem of convolving an array of `x_shape` with filters of `w_shape`; remembered, so cheap to repeat.

        Raises ValueError if either is not 4-D or their channels do not agree.
        """
        if len(x_shape) != 4:
            raise ValueError(f"x must have 4 dimensions (N, C, H, W), got shape {x_shape}")
        if len(w_shape) != 4:
            raise ValueError(f"w must have 4 dimensions (K, C/groups, R, S), got shape {w_shape}")
        check_channels(x_shape, w_shape, groups)
        n, c, h, width = x_shape
        k, _, r, s = w_shape
        return Conv2dShape(n, c, h, width, k, r, s, stride, padding, dilation, groups)

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input, (N, C, H, W)."""
        return self.N, self.C, self.H, self.W

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        """Shape of the filters, (K, C/groups, R, S)."""
        return self.K, self.C // self.groups, self.R, self.S

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output, (N, K, P, Q)."""
        return self.N, self.K, self.P, self.Q

    @property
    def macs(self) -> int:
        """Multiply-adds of any one of the three passes, padding counted as if it were data."""
        return self.N * self.K * self.P * self.Q * (self.C // self.groups) * self.R * self.S

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass: two for each multiply-add."""
        return 2 * self.macs

    def bytes(self, itemsize: int = 4) -> int:
        """Fewest bytes one pass must move: each of x, w, y once."""
        x = self.N * self.C * self.H * self.W
        w = self.K * (self.C // self.groups) * self.R * self.S
        y = self.N * self.K * self.P * self.Q
        return itemsize * (x + w + y)

    def __str__(self) -> str:
        stride, dilation = _pair_text(self.stride), _pair_text(self.dilation)
        return (
            f"n{self.N}c{self.C}h{self.H}w{self.W}_k{self.K}r{self.R}s{self.S}"
            f"_st{stride}pd{_padding_text(self.padding)}dl{dilation}g{self.groups}"
        )


@dataclass(frozen=True)
class Pool2dShape:
    """A 2-D pooling problem: ``N C H W`` in, a window of ``R S``, ``N C P Q`` out.

    P = (H + top + bottom - dilation*(R - 1) - 1) // stride + 1.  With `ceil_mode` the division rounds up, and, as in
    PyTorch, a last window that would start in the bottom or right padding is left out.

    >>> Pool2dShape(1, 1, 6, 6, (3, 3), (2, 2), ceil_mode=True).P
    3
    >>> print(Pool2dShape(1, 64, 55, 55, (3, 3), (2, 2)))
    n1c64h55w55_r3s3_st2pd0dl1
    """

    N: int
    C: int
    H: int
    W: int
    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    P: int = field(init=False)
    Q: int = field(init=False)

    def __post_init__(self) -> None:
        for name, least in (("N", 0), ("C", 1), ("H", 1), ("W", 1)):
            whole(name, getattr(self, name), least)
        top, bottom, left, right = self.padding
        for side, before, after, window in (
            ("height", top, bottom, self.kernel[0]),
            ("width", left, right, self.kernel[1]),
        ):
            if 2 * max(before, after) > window:
                raise ValueError(
                    f"padding must be at most half the window, got {before}+{after} for a window {side} of {window}"
                )
        p = self._out("height", self.H, top, bottom, 0)
        q = self._out("width", self.W, left, right, 1)
        check_elements("the output", (self.N, self.C, p, q))
        object.__setattr__(self, "P", p)
        object.__setattr__(self, "Q", q)

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(
        x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool
    ) -> Pool2dShape:
        """The problem of pooling an array of `x_shape`; remembered, so cheap to repeat."""
        n, c, h, w = x_shape
        return Pool2dShape(n, c, h, w, kernel, stride, padding, dilation, ceil_mode)

    def _out(self, name: str, size: int, before: int, after: int, axis: int) -> int:
        window, stride, dilation = self.kernel[axis], self.stride[axis], self.dilation[axis]
        if not self.ceil_mode:
            return _out_size(name, size, before, after, window, stride, dilation)
        span = dilation * (window - 1) + 1
        out = -((size + before + after - span) // -stride) + 1
        if (out - 1) * stride >= size + before:
            out -= 1
        if out < 1:
            raise ValueError(
                f"the output would be smaller than 1: {name} {size} with padding {before}+{after} is less than the "
                f"window's reach of {span}"
            )
        return out

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the output, (N, C, P, Q)."""
        return self.N, self.C, self.P, self.Q

    def bytes(self, itemsize: int = 4) -> int:
        """Fewest bytes one pass must move: each of x and y once."""
        return itemsize * self.N * self.C * (self.H * self.W + self.P * self.Q)

    def __str__(self) -> str:
        return (
            f"n{self.N}c{self.C}h{self.H}w{self.W}_r{self.kernel[0]}s{self.kernel[1]}_st{_pair_text(self.stride)}"
            f"pd{_padding_text(self.padding)}dl{_pair_text(self.dilation)}{'_ceil' if self.ceil_mode else ''}"
        )


PASSES = ("fprop", "dgrad", "wgrad")
DTYPES = {"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16"}
LAYOUTS = ("nchw", "nhwc")

_PROBLEM = re.compile(
    r"n(?P<N>\d+)c(?P<C>\d+)h(?P<H>\d+)(w(?P<W>\d+))?"
    r"_k(?P<K>\d+)r(?P<R>\d+)(s(?P<S>\d+))?"
    r"(_(st(?P<st>\d+(x\d+)?))?(pd(?P<pd>\d+(\.\d+\.\d+\.\d+|x\d+)?))?(dl(?P<dl>\d+(x\d+)?))?(g(?P<g>\d+))?)?"
    r"(?P<words>(_[A-Za-z0-9\-\.]+)*)"
)
_FIELD = re.compile(r"(st|pd|dl|g)[0-9x.\-]*")


@dataclass(frozen=True)
class Problem:
    """A convolution problem with its pass, element type, layout and name, and its one-string form.

    ``n2c3h32w32_k16r3s3_st1pd1dl1g1`` is float32 NCHW fprop; what differs is appended as words:
    ``n2c3h32w32_k16r3s3_st2x1pd0.1.2.3dl1g1_f16_nhwc_wgrad_conv1``.  ``w`` and ``s`` may be left out where they equal
    ``h`` and ``r``, as may each of ``st pd dl g``.  `pd` is one number, ``height x width`` or
    ``top.bottom.left.right``.

    >>> str(Problem.parse("n1c64h56_k64r3_pd1_wgrad"))
    'n1c64h56w56_k64r3s3_st1pd1dl1g1_wgrad'
    """

    shape: Conv2dShape
    operator: str = "fprop"
    dtype: str = "float32"
    layout: str = "nchw"
    name: str = ""

    @staticmethod
    def parse(text: str) -> Problem:
        """The problem that `text` describes.  Raises ValueError naming the text if it is none."""
        match = _PROBLEM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"not a problem string: {text!r} (expected the form n2c3h32w32_k16r3s3_st1pd1dl1g1)")
        size = {key: int(value) for key, value in match.groupdict().items() if key in "NCHWKRSg" and value}
        shape = Conv2dShape(
            size["N"],
            size["C"],
            size["H"],
            size.get("W", size["H"]),
            size["K"],
            size["R"],
            size.get("S", size["R"]),
            pair("st", _numbers(match["st"] or "1"), 1),
            normalize_padding(_numbers(match["pd"] or "0"), (size["R"], size.get("S", size["R"]))),
            pair("dl", _numbers(match["dl"] or "1"), 1),
            size.get("g", 1),
        )
        said: dict[str, str] = {}
        for word in match["words"].split("_")[1:]:
            kind = (
                "operator" if word in PASSES else "dtype" if word in DTYPES else "layout" if word in LAYOUTS else "name"
            )
            if kind == "name" and _FIELD.fullmatch(word):
                raise ValueError(
                    f"problem string {text!r} has {word!r} where a name could stand: misplaced or malformed"
                )
            if kind in said:
                raise ValueError(f"problem string {text!r} says its {kind} twice: {said[kind]!r} and {word!r}")
            said[kind] = DTYPES.get(word, word)
        return Problem(shape, **said)

    def __str__(self) -> str:
        words = [str(self.shape)]
        if self.dtype != "float32":
            words.append(next(short for short, full in DTYPES.items() if full == self.dtype))
        if self.layout != "nchw":
            words.append(self.layout)
        if self.operator != "fprop":
            words.append(self.operator)
        if self.name:
            words.append(self.name)
        return "_".join(words)


def _numbers(text: str) -> int | tuple[int, ...]:
    numbers = tuple(int(part) for part in re.split(r"[x.]", text))
    return numbers[0] if len(numbers) == 1 else numbers


def _pair_text(values: Pair) -> str:
    return str(values[0]) if values[0] == values[1] else f"{values[0]}x{values[1]}"


def _padding_text(padding: Padding) -> str:
    top, bottom, left, right = padding
    if top == bottom == left == right:
        return str(top)
    if top == bottom and left == right:
        return f"{top}x{left}"
    return f"{top}.{bottom}.{left}.{right}"
