"""Seeded bugs of the kernels that interpolate, sample, and take care of boxes, and of what launches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, grid_too_small

from pycnn.testing import operators

RESAMPLE, SAMPLE, FIXED, BOXES = "resample.cu", "sample.cu", "fixed.cuh", "boxes.cu"


class Operator(NamedTuple):
    """One of the operators' cases, an exact one."""

    name: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns."""
        function = self.name.partition(":")[0]
        (case,) = (case for case in operators(function) if case.name == self.name)
        assert case.factor == 0, "backends agree bit for bit on exact cases alone"
        result = getattr(backend, function)(*case.arguments())
        return list(result) if isinstance(result, tuple) else [result]


CASES = {
    "grown": Operator("resample: nearest, grown", RESAMPLE),
    "doubled": Operator("resample: doubled", RESAMPLE),
    "channels-last": Operator("resample: doubled, channels-last", RESAMPLE),
    "points": Operator("sample_fwd: tails", SAMPLE),
    "scatter": Operator("sample_dx: tails", SAMPLE),
    "scatter of infinities": Operator("sample_dx: NaN and infinities", SAMPLE),
    "dot": Operator("sample_dw: tails", SAMPLE),
    "regions": Operator("roi_max: windows of all sizes", BOXES),
    "suppression": Operator("nms: groups", BOXES),
    "threshold": Operator("nms: a threshold met exactly", BOXES),
}


def smaller(function: Callable[..., Any]) -> Callable[..., Any]:
    """A threshold that is the next float32 below."""
    return lambda threshold: float(np.nextafter(np.float32(function(threshold)), np.float32(-1)))


BUGS: dict[str, Bug] = {
    "weights of the other axis": InKernel(
        RESAMPLE,
        "column_weight[u * s.columns.value + q]",
        "column_weight[u * s.rows.value + p]",
        CASES["doubled"],
    ),
    "first tap of a row forgotten": InKernel(RESAMPLE, "Index u = 0;", "Index u = 1;", CASES["grown"]),
    "next row of another width": InKernel(
        RESAMPLE, "from += row_step", "from += s.columns.value * C", CASES["doubled"]
    ),
    "channels of a pixel mixed up": InKernel(RESAMPLE, "from[u * C]", "from[u]", CASES["channels-last"]),
    "no guard on the last plane of an image": InKernel(
        RESAMPLE, "if (plane >= static_cast<Index>(s.planes)) return;", "", CASES["grown"]
    ),
    "one block of an image too few": InLaunch(grid_too_small, CASES["grown"]),
    "a tap of -1 is read": InKernel(SAMPLE, "if (!inside(at, s.size)) continue;", "", CASES["points"]),
    "channels beyond the last": InKernel(
        SAMPLE, "if (first + c < s.channels) sum[c]", "if (true) sum[c]", CASES["points"]
    ),
    "image of a row taken for its number": InKernel(
        SAMPLE, "(image[place.row] * s.channels + first)", "(place.row * s.channels + first)", CASES["points"]
    ),
    "a sum without its atomic": InKernel(
        FIXED,
        "atomicAdd(sums + i, static_cast<uint64>(__double2ll_rn(term * scale)));",
        "sums[i] = static_cast<uint64>(__double2ll_rn(term * scale));",
        CASES["scatter"],
    ),
    "infinity minus infinity": InKernel(
        FIXED, "if (flag == kPlusInfinity) return", "if (flag & kPlusInfinity) return", CASES["scatter of infinities"]
    ),
    "bits of the neighbour": InKernel(
        FIXED, "flag << 4 * (i % kFlagsOfAWord)", "flag << 3 * (i % kFlagsOfAWord)", CASES["scatter of infinities"]
    ),
    "no room for the sum": InKernel(FIXED, "return 62 - log2_count", "return 92 - log2_count", CASES["scatter"]),
    "gradient of the weights stops a channel early": InKernel(
        SAMPLE, "c < s.channels; ++c) sum +=", "c + 1 < s.channels; ++c) sum +=", CASES["dot"]
    ),
    "windows one pixel too wide": InKernel(BOXES, "end = of_columns[1];", "end = of_columns[1] + 1;", CASES["regions"]),
    "boxes of all groups": InKernel(BOXES, "groups[i] != groups[j]", "false", CASES["suppression"]),
    "the dead suppress": InKernel(BOXES, "if (!stays) continue;", "", CASES["suppression"]),
    "words that are not all there yet": InKernel(
        BOXES,
        "overlaps[i * words + word];\n        }\n        __syncthreads();",
        "overlaps[i * words + word];\n        }",
        CASES["suppression"],
    ),
    "a threshold met is passed": InHost("pycnn.backends.cuda.boxes._float_below", smaller, CASES["threshold"]),
}

FAST = ("weights of the other axis", "a sum without its atomic", "the dead suppress")
