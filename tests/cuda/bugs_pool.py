"""Seeded bugs of the pooling kernels and of what launches them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InKernel, InLaunch, block_too_small, swapped

from pycnn.backends import reference

POOL = "pool2d.cu"


class Pooling(NamedTuple):
    """A pooling operator with uneven windows, tails everywhere, NaN and equal maxima."""

    operator: str
    source: str = POOL

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns, on integers that every divisor divides."""
        rng = np.random.default_rng(0)
        x = 36 * rng.integers(-1, 2, (2, 3, 9, 10)).astype(np.float32)
        x[0, 0, 2:4, 3], x[1, 2] = np.nan, -np.inf
        over = ((2, 2), (1, 1), (1, 1, 1, 1), (10, 4))  # some of its windows step over the whole image
        window = ((3, 2), (2, 1), (1, 0, 0, 1))
        _, indices = reference.max_pool2d_fwd(x, *window, (1, 2), False)
        finite = np.nan_to_num(x, neginf=-72)
        dy = 36 * rng.integers(-9, 10, indices.shape).astype(np.float32)
        even = 36 * rng.integers(-9, 10, (2, 3, 4, 3)).astype(np.float32)
        padded = self.operator.endswith("padded")
        averaging = (padded, padded, None)
        result = {
            "max": lambda: backend.max_pool2d_fwd(x, *window, (1, 2), False),
            "max backward": lambda: backend.max_pool2d_bwd(dy, indices, x.shape, *window, (1, 2)),
            "max of nothing": lambda: backend.max_pool2d_fwd(x, *over, False),
            "take": lambda: backend.plane_take(x, np.where(indices == 0, -1, indices)),
            "average": lambda: backend.avg_pool2d_fwd(finite, *window, *averaging),
            "average padded": lambda: backend.avg_pool2d_fwd(finite, *window, *averaging),
            "average backward": lambda: backend.avg_pool2d_bwd(dy[..., :9], (2, 3, 9, 9), *window, *averaging),
            "adaptive backward": lambda: backend.adaptive_avg_pool2d_bwd(even, x.shape),
        }[self.operator]()
        return list(result) if isinstance(result, tuple) else [result]


CASES = {
    name: Pooling(name)
    for name in (
        *("max", "max of nothing", "max backward", "take"),
        *("average", "average padded", "average backward", "adaptive backward"),
    )
}

BUGS: dict[str, Bug] = {
    "last of equal maxima": InKernel(POOL, "value > best", "value >= best", CASES["max"]),
    "NaN loses": InKernel(POOL, " || is_nan", "", CASES["max"]),
    "maximum that starts from zero": InKernel(POOL, "-positive_infinity()", "0", CASES["max of nothing"]),
    "minus infinity is no maximum": InKernel(POOL, "index < 0 || value > best", "value > best", CASES["max"]),
    "window not clipped at the far edge": InKernel(POOL, "end < size ? end : size", "end", CASES["max"]),
    "padding forgotten before the image": InKernel(POOL, "while (begin < 0) begin += step;", "", CASES["average"]),
    "no guard on the last plane": InKernel(POOL, "if (place.plane >= shape.planes) return;", "", CASES["max"]),
    "first window one too late": InKernel(POOL, "beyond + stride - 1", "beyond + stride", CASES["max backward"]),
    "last window forgotten": InKernel(POOL, "axis.stride) + 1;", "axis.stride);", CASES["average backward"]),
    "gradient to every pixel of its window": InKernel(
        POOL, "if (indices[window] == pixel) sum", "sum", CASES["max backward"]
    ),
    "dilation forgotten in the gather": InKernel(
        POOL,
        "- 1) * static_cast<Index>(axis.dilation)",
        "- 1)",
        CASES["max backward"],
    ),
    "index -1 is read": InKernel(POOL, "if (inside(index, pixels)) {", "{", CASES["take"]),
    "plane of the output in the input": InKernel(
        POOL, "+ index * shape.channels.value]", "* 0 + index * shape.channels.value]", CASES["take"]
    ),
    "divisor beyond the padding": InKernel(
        POOL,
        "(end < most ? end : most) - begin",
        "end - begin - 1",
        CASES["average padded"],
    ),
    "padding counted": InKernel(POOL, "averaging.count_include_pad == 0", "false", CASES["average"]),
    "adaptive windows do not overlap": InKernel(
        POOL,
        " + static_cast<Index>(count.value) - 1;",
        ";",
        CASES["adaptive backward"],
    ),
    "gradient taken for indices": InLaunch(swapped(1, 2), CASES["max backward"]),
    "half of every block of a pooling": InLaunch(block_too_small, CASES["max"]),
}

FAST = ("window not clipped at the far edge", "gradient to every pixel of its window")
