"""Settings of one, two or three axes (length; height and width; depth, height and width), and 3-D convolutions.

    P_a = (size_a + before_a + after_a - dilation_a*(window_a - 1) - 1) // stride_a + 1        for each axis a

Everything here is plain integers; no array library is imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pycnn.shape import check_channels, check_elements, whole

__all__ = ["Conv3dShape", "each", "sides_of"]

Ints = tuple[int, ...]

_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_COUNTS = {1: "one int", 2: "a pair of ints", 3: "three ints"}


def each(name: str, value: int | Sequence[int], least: int, count: int) -> Ints:
    """`value` (an int, or one for each of `count` axes) as `count` ints of at least `least`.

    Raises TypeError if it is neither, ValueError if it has another length or is too small.

    >>> each("stride", 2, 1, 3), each("stride", (1, 2, 3), 1, 3)
    ((2, 2, 2), (1, 2, 3))
    """
    if not isinstance(value, (tuple, list)):
        return (whole(name, value, least),) * count
    if len(value) != count:
        raise ValueError(f"{name} must be an int or {_COUNTS[count]}, got {value!r}")
    return tuple([whole(f"{name}[{i}]", one, least) for i, one in enumerate(value)])


def sides_of(
    padding: int | str | Sequence[int] | Sequence[Sequence[int]], window: Ints, stride: Ints, dilation: Ints
) -> Ints:
    """Any accepted form of padding as (before, after) of each axis, one pair after another.

    Args:
        padding: an int (every side), one for each axis, a pair (before, after) for each axis, these pairs in one flat
            list, "valid" (none) or "same" (stride 1 only; the output has the input's size, the odd element goes
            behind, as in PyTorch).
        window, stride, dilation: of each axis.

    Raises:
        ValueError: negative padding, an unknown word, a wrong length, or "same" with a stride other than 1.
        TypeError: something that is not a number.

    >>> sides_of("same", (4, 3, 1), (1, 1, 1), (1, 2, 1)), sides_of((1, 2), (3,), (1,), (1,))
    ((1, 2, 2, 2, 0, 0), (1, 2))
    """
    count = len(window)
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * (2 * count)
        if padding != "same":
            raise ValueError(f"padding must be 'same', 'valid' or numbers, got {padding!r}")
        if any(step != 1 for step in stride):
            raise ValueError(f"padding='same' needs stride 1, got stride {stride}")
        totals = [reach * (taps - 1) for reach, taps in zip(dilation, window, strict=True)]
        return tuple([side for total in totals for side in (total // 2, total - total // 2)])
    if not isinstance(padding, (tuple, list)):
        return (whole("padding", padding, 0),) * (2 * count)
    if len(padding) == 2 * count:
        return tuple([whole(f"padding[{i}]", side, 0) for i, side in enumerate(padding)])
    if len(padding) != count:
        raise ValueError(
            f"padding must be an int, {_COUNTS[count]}, a pair (before, after) for each of {', '.join(_AXES[count])}, "
            f"or {2 * count} ints, got {padding!r}"
        )
    return tuple([side for i, one in enumerate(padding) for side in each(f"padding[{i}]", one, 0, 2)])


@dataclass(frozen=True)
class Conv3dShape:
    """A 3-D convolution problem: (N, C, *size) in, filters (K, C/groups, *window), (N, K, *out) out.

    Attributes:
        N, C, K, groups: images, channels, filters, groups of channels.
        size, window, stride, dilation, out: three ints each: depth, height, width.
        padding: six: (front, back, top, bottom, left, right).

    Raises:
        ValueError: on construction, for a size out of range, an output smaller than 1, or channels that the groups
            do not divide.

    >>> Conv3dShape(1, 2, (5, 6, 7), 4, (3, 3, 1), (2, 1, 1), (1, 1, 0, 0, 0, 0), (1, 1, 1)).out
    (3, 4, 7)
    """

    N: int
    C: int
    size: Ints
    K: int
    window: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int = 1
    out: Ints = field(init=False)

    def __post_init__(self) -> None:
        for name, least in (("N", 0), ("C", 1), ("K", 1), ("groups", 1)):
            whole(name, getattr(self, name), least)
        if self.C % self.groups or self.K % self.groups:
            raise ValueError(
                f"groups must divide both channel counts, got groups={self.groups}, C={self.C}, K={self.K}"
            )
        out = []
        for i, name in enumerate(_AXES[3]):
            size, taps = whole(f"x's {name}", self.size[i], 1), whole(f"w's {name}", self.window[i], 1)
            before, after = self.padding[2 * i : 2 * i + 2]
            span = self.dilation[i] * (taps - 1) + 1
            if size + before + after < span:
                raise ValueError(
                    f"the output would be smaller than 1: {name} {size} with padding {before}+{after} is less than "
                    f"the filter's reach of {span} (filter size {taps}, dilation {self.dilation[i]})"
                )
            out.append((size + before + after - span) // self.stride[i] + 1)
        check_elements("the output", (self.N, self.K, *out))
        object.__setattr__(self, "out", tuple(out))

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(x_shape: Ints, w_shape: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int) -> Conv3dShape:
        """The problem of convolving an array of `x_shape` with filters of `w_shape`; remembered.

        Raises ValueError if either is not 5-D or their channels do not agree.
        """
        if len(x_shape) != 5:
            raise ValueError(f"x must have 5 dimensions (N, C, D, H, W), got shape {x_shape}")
        if len(w_shape) != 5:
            raise ValueError(f"w must have 5 dimensions (K, C/groups, T, R, S), got shape {w_shape}")
        check_channels(x_shape, w_shape, groups)
        n, c, *size = x_shape
        return Conv3dShape(n, c, tuple(size), w_shape[0], tuple(w_shape[2:]), stride, padding, dilation, groups)

    @property
    def x_shape(self) -> Ints:
        """Shape of the input, (N, C, D, H, W)."""
        return (self.N, self.C, *self.size)

    @property
    def w_shape(self) -> Ints:
        """Shape of the filters, (K, C/groups, T, R, S)."""
        return (self.K, self.C // self.groups, *self.window)

    @property
    def y_shape(self) -> Ints:
        """Shape of the output, (N, K, *out)."""
        return (self.N, self.K, *self.out)

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass: two for each multiply-add, padding counted as if it were data."""
        return 2 * math.prod(self.y_shape) * math.prod(self.w_shape[1:])
