"""Seeded bugs of the kernels that lay windows side by side and add them up, and of what launches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

WINDOWS = "windows.cu"
HOST = "pycnn.backends.cuda.windows"


class Windows(NamedTuple):
    """A call on integers."""

    call: Callable[[Any], np.ndarray]
    source: str = WINDOWS

    def results(self, backend: Any) -> list[np.ndarray]:
        """Its one result."""
        return [np.array(self.call(backend))]


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 10, shape).astype(np.float32)  # no zeros, as around the image


X = integers(2, 3, 9, 14)
UNEVEN = ((2, 4), (3, 2), (2, 1), (2, 3))  # window, stride, before, dilation
OUT = (4, 5)
LONG = integers(1, 2, 40, 50)

CASES = {
    "unfold": Windows(lambda b: b.unfold2d(X, *UNEVEN, OUT, False)),
    "rows first": Windows(lambda b: b.unfold2d(X, *UNEVEN, OUT, True)),
    "unfold long": Windows(lambda b: b.unfold2d(LONG, (2, 3), (1, 1), (0, 1), (1, 1), (39, 50), False)),
    "fold": Windows(lambda b: b.fold2d(integers(2, 24, *OUT), (9, 14), *UNEVEN)),
}


def stride_for_dilation(pack: Callable[..., bytes]) -> Callable[..., bytes]:
    """Two settings change places on the way to the kernel."""

    def changed(elements: int, x_shape: Any, kernel: Any, stride: Any, before: Any, dilation: Any, *rest: Any) -> bytes:
        return pack(elements, x_shape, kernel, dilation, before, stride, *rest)

    return changed


BUGS: dict[str, Bug] = {
    "far edge not looked at": InKernel(WINDOWS, " && inside(place.w, W)", " && place.w >= 0", CASES["unfold"]),
    "rows above the image": InKernel(WINDOWS, "inside(place.h, H)", "place.h < H", CASES["unfold"]),
    "taps change places": InKernel(
        WINDOWS,
        "tap_s = take_digit(index, s.S), tap_r = take_digit(index, s.R)",
        "tap_r = take_digit(index, s.R), tap_s = take_digit(index, s.S)",
        CASES["unfold"],
    ),
    "next window without its stride": InKernel(
        WINDOWS, "place.w += static_cast<Index>(s.stride_w.value)", "++place.w", CASES["unfold"]
    ),
    "a row of windows that does not end": InKernel(
        WINDOWS,
        "++place.q == static_cast<Index>(s.Q.value)",
        "++place.q > static_cast<Index>(s.Q.value)",
        CASES["unfold"],
    ),
    "channels before rows": InKernel(WINDOWS, "if (s.rows_first) {", "if (false) {", CASES["rows first"]),
    "windows between the strides": InKernel(
        WINDOWS, "window * static_cast<Index>(stride.value) == offset && ", "", CASES["fold"]
    ),
    "windows behind the last": InKernel(WINDOWS, " && window < static_cast<Index>(count.value)", "", CASES["fold"]),
    "a tap that is left out": InKernel(WINDOWS, "for (Index r = 0;", "for (Index r = 1;", CASES["fold"]),
    "no tail": InKernel(WINDOWS, "if (element >= s.size) return;", "", CASES["fold"]),
    "half the threads": InLaunch(block_too_small, CASES["unfold long"]),
    "a block too few": InLaunch(grid_too_small, CASES["unfold long"]),
    "from and to": InLaunch(swapped(1, 2), CASES["fold"]),
    "stride and dilation": InHost(f"{HOST}._pack", stride_for_dilation, CASES["fold"]),
}

FAST = ("taps change places", "windows behind the last")
