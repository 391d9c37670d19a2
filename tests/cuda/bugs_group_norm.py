"""Seeded bugs of normalisation by groups: statistics, the bits they have in every thread, channels, launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

SOURCE = "group_norm.cu"


class Normalised(NamedTuple):
    """A call whose results are rounded so far that every right backend has the same."""

    call: Callable[[Any], Any]
    source: str = SOURCE

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns."""
        found = self.call(backend)
        return [np.round(one.astype(np.float64), 2) + 0.0 for one in found if one is not None]


def signs(*shape: int) -> np.ndarray:
    """Halves and their negatives, as many of each in any four neighbours; of mean 0 and variance 1/4."""
    signs = np.random.default_rng(1).permuted(np.tile([1, 1, -1, -1], (int(np.prod(shape)) // 4, 1)), axis=1)
    return (signs / 2).reshape(shape).astype(np.float32)


# Groups of deviations 1/2 about 3, and rows of deviations 1/2 about 2000, beyond what squares would keep.
SHORT = 3 + signs(5, 4, 6)
LONG = 2000 + signs(3, 4, 550)
LONG[:, 3, 400:] += 1  # what comes last is unlike the rest
SLOPES = np.random.default_rng(2).integers(-4, 5, (5, 4, 6)).astype(np.float32)
WEIGHT, BIAS = np.array([1, 2, -1, 4], np.float32), np.array([8, -8, 16, 0], np.float32)
MEAN, VAR = np.full((5, 2), 3, np.float32), np.full((5, 2), 0.25, np.float32)
SQUARE = np.full((5, 2), 9.25, np.float32)

CASES: dict[str, Any] = {
    "short": Normalised(lambda b: b.group_norm_fwd(SHORT, 2, WEIGHT, BIAS, 0.0)),
    "long": Normalised(lambda b: b.group_norm_fwd(LONG, 1, WEIGHT, BIAS, 0.0)),
    "not centred": Normalised(lambda b: b.group_norm_fwd(SHORT, 2, WEIGHT, None, 0.0, False)),
    "backward": Normalised(lambda b: b.group_norm_bwd(SLOPES, SHORT, 2, WEIGHT, MEAN, VAR, 0.0)),
    "backward, not centred": Normalised(
        lambda b: b.group_norm_bwd(SLOPES, SHORT, 2, WEIGHT, np.zeros_like(MEAN), SQUARE, 0.0, False)
    ),
}


def _channels_of_groups(pack: Any) -> Any:
    """Groups and channels of each change places."""
    return lambda *values: pack(*values[::-1]) if len(values) == 2 else pack(*values)


BUGS: dict[str, Bug] = {
    "squares far from zero": InKernel(SOURCE, "i * s.rows]) - origin", "i * s.rows])", CASES["long"]),
    "the last elements count too": InKernel(SOURCE, "if (i < count) squares", "squares", CASES["short"]),
    "a thread passes elements over": InKernel(
        SOURCE, "k += kTogether * s.rows", "k += (kTogether + 1) * s.rows", CASES["long"]
    ),
    "the mean's square is left out": InKernel(
        SOURCE, "fmaf(rounded, rounded, variance)", "variance", CASES["not centred"]
    ),
    "every group has the first one's channels": InKernel(SOURCE, "group % G * K", "group % 1 * K", CASES["short"]),
    "the level stays without a centre": InKernel(
        SOURCE, "centred ? sums.first * share : 0.0f", "sums.first * share", CASES["backward, not centred"]
    ),
    "the sums have no weight": InKernel(SOURCE, "to_float(dy[at]) * factor;", "to_float(dy[at]);", CASES["backward"]),
    "the product has the weight": InKernel(
        SOURCE, "product[at] = slope *", "product[at] = slope * factor *", CASES["backward"]
    ),
    "warps do not wait": InKernel("reduce.cuh", "        __syncthreads();\n", "", CASES["long"]),
    "groups and their channels packed the other way round": InHost(
        "pycnn.backends.cuda.group_norm.pack_int64", _channels_of_groups, CASES["long"]
    ),
    "weight and bias change places": InLaunch(swapped(5, 6), CASES["short"]),
    "a block is missing": InLaunch(grid_too_small, CASES["long"]),
    "half of the threads": InLaunch(block_too_small, CASES["long"]),
}

FAST = ("every group has the first one's channels",)
