"""Seeded bugs of the direct weight gradient and of what launches it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, Convolution, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn.backends import reference
from pycnn.shape import Problem
from pycnn.testing import exact_operands, run
from pycnn.testing.regimes import dtype_of

WGRAD, DIRECT, SLICES = "conv2d_wgrad_direct.cu", "direct.cuh", "slices.cu"


class BiasGradient(NamedTuple):
    """dw and db together, by one algorithm, on integers."""

    algo: str
    problem: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """The two."""
        problem = Problem.parse(self.problem)
        operands, s = exact_operands(problem, self.algo), problem.shape
        rest = (s.w_shape, s.stride, s.padding, s.dilation, s.groups)
        if backend is reference:
            exact = reference.conv2d_wgrad(
                *(one.astype("f8") for one in (operands.left, operands.right)), *rest, bias=True
            )
            return [one.astype(dtype_of(problem)) for one in exact]  # rounded once
        return list(backend.conv2d_wgrad(operands.left, operands.right, *rest, algo=self.algo, bias=True))


class NotANumber(NamedTuple):
    """As Convolution, with a NaN in the last pixel of x, which not every tap meets."""

    algo: str
    problem: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """dw."""
        problem = Problem.parse(self.problem)
        operands = exact_operands(problem, self.algo)
        operands.right[-1, -1, -1, -1] = np.nan
        return [run(backend, problem, operands, "auto" if backend is reference else self.algo)]


# Two slices, the second shorter, two tiles of channels and filters, tiles of pixels cut off at both edges.
TILED = BiasGradient("direct_r3s3_st1_8x8", "n5c35h9w7_k67r3s3_pd1.0.0.2_wgrad", WGRAD)
GROUPS = BiasGradient("direct_r3s3_st1_8x8", "n3c6h9w9_k10r3s3_pd1g2_wgrad", WGRAD)
STRIDED = Convolution("direct_r1s1_st2_4x16", "n2c5h19w41_k9r1s1_st2_wgrad", WGRAD)
# Warps that go through different rows; units that are rows of a channel.
WARPS = Convolution("direct_r3s3_st1_4x32_c4", "n2c3h11w37_k9r3s3_pd1_wgrad", WGRAD)
ROWS = Convolution("direct_r7s7_st2_2x16_c3", "n1c4h11w37_k9r7s7_st2pd3_wgrad", WGRAD)
ANY = BiasGradient("direct_any_narrow", "n2c14h9w11_k70r3s2_st2x1pd1.0.2.1dl2x1g2_wgrad", WGRAD)
NOT_A_NUMBER = NotANumber("direct_r3s3_st1_8x8", "n1c2h9w9_k3r3s3_pd1_wgrad", WGRAD)
# Three slices, whose sums bfloat16 does not hold.
HALF = BiasGradient("direct_any_narrow", "n5c14h9w11_k70r3s2_st2x1pd1.0.2.1dl2x1g2_bf16_wgrad", WGRAD)
CASES = {
    "NaN": NOT_A_NUMBER,
    "16 bits": HALF,
    "tiled": TILED,
    "groups": GROUPS,
    "strided": STRIDED,
    "warps": WARPS,
    "rows": ROWS,
    "any": ANY,
}


def one_slice_less(call: Any) -> Any:
    def change(*given: Any) -> tuple[int, int]:
        slices, length = call(*given)
        return max(1, slices - 1), length

    return change


def shorter_slices(call: Any) -> Any:
    def change(*given: Any) -> tuple[int, int]:
        slices, length = call(*given)
        return slices, max(1, length - 1)

    return change


BUGS: dict[str, Bug] = {
    "16 bits: slices rounded": InKernel(
        WGRAD, "out[t] = sum[k][t];", "out[t] = to_float(from_float<Stored<T>>(sum[k][t]));", HALF
    ),
    "no barrier after staging": InKernel(WGRAD, "block, x);\n        __syncthreads();", "block, x);", TILED),
    "no barrier before the next stage": InKernel(
        WGRAD,
        "        }\n        __syncthreads();\n    }\n\n    const int group_filters",
        "        }\n    }\n\n    const int group_filters",
        TILED,
    ),
    "no guard on the last row of pixels": InKernel(
        WGRAD, "P - block.p0 < T.rows ? P - block.p0 : T.rows", "T.rows", NOT_A_NUMBER
    ),
    "pixels past the edge counted in db": InKernel(
        WGRAD, "const bool real = p < P && q < Q;", "const bool real = p < P;", TILED
    ),
    "no guard on the last filter": InKernel(WGRAD, "if (block.k0 + filter >= group_filters) continue;", "", TILED),
    "no guard on the last channel": InKernel(
        WGRAD, "c >= T.channels || block.c0 + c >= group_channels", "c >= T.channels", TILED
    ),
    "pixels of the last quad left out": InKernel(
        WGRAD, "for (; column < columns; ++column)", "for (; false; ++column)", TILED
    ),
    "fours of filters side by side": InKernel(WGRAD, "first_filter + k / 4 * apart", "first_filter + k", TILED),
    "halo from the far side": InKernel(
        WGRAD, "shape.pad_left);\n    const int64 first_plane", "shape.pad_top);\n    const int64 first_plane", TILED
    ),
    "groups forgotten in x": InKernel(
        WGRAD, "static_cast<int64>(block.group) * group_channels + block.c0", "block.c0", GROUPS
    ),
    "groups forgotten in dw": InKernel(
        WGRAD,
        "const int64 first_channel = static_cast<int64>(block.group) * group_filters + block.k0;",
        "const int64 first_channel = block.k0;",
        GROUPS,
    ),
    "bias of the first filters only": InKernel(WGRAD, "&& block.c0 == 0 &&", "&& block.k0 == 0 &&", TILED),
    "bias of the first slice": InKernel(WGRAD, "db[block.slice * shape.K +", "db[0 * shape.K +", TILED),
    "slice written over the first": InKernel(WGRAD, "dw + (block.slice * shape.K +", "dw + (0 * shape.K +", TILED),
    "last slice runs into nothing": InKernel(
        WGRAD, "past_last < grid.tiles ? past_last : grid.tiles", "past_last", TILED
    ),
    "strided rows not skipped": InKernel(WGRAD, "h0 + row * T.skip_h()", "h0 + row", STRIDED),
    "warps added without a barrier": InKernel(
        WGRAD,
        "shared.sums[i][place] = all[i];\n        }\n        __syncthreads();",
        "shared.sums[i][place] = all[i];\n        }",
        WARPS,
    ),
    "one warp not added": InKernel(
        WGRAD, "for (int from = 1; from < T.warps_p", "for (int from = 2; from < T.warps_p", WARPS
    ),
    "row of a channel's taps forgotten": InKernel(
        WGRAD, "unit % T.units_of_channel() * T.tap_rows * T.halo_pitch()", "0", ROWS
    ),
    "any: taps staged without a barrier": InKernel(
        WGRAD, "h, w};\n        }\n        __syncthreads();", "h, w};\n        }", ANY
    ),
    "any: dilation forgotten": InKernel(WGRAD, "r * static_cast<Index>(shape.dilation_h)", "r", ANY),
    "any: no guard on the last tap": InKernel(WGRAD, "if (tap0 + first_tap + t < all_taps) out", "out", ANY),
    "any: pixels of the next image": InKernel(WGRAD, "take_digit(n, grid.P)", "n % 2", ANY),
    "slices added twice over the first": InKernel(SLICES, "slices[slice * size + i]", "slices[i]", TILED),
    "argument order": InLaunch(swapped(2, 3), STRIDED),
    "grid too small": InLaunch(grid_too_small, TILED),
    "block too small": InLaunch(block_too_small, TILED),
    "a slice that nobody sums": InHost("pycnn.backends.cuda.direct_wgrad.slices_of", one_slice_less, TILED),
    "slices that leave pixels out": InHost("pycnn.backends.cuda.direct_wgrad.slices_of", shorter_slices, ANY),
}

# In the run that takes no --slow.
FAST = ("no barrier after staging", "slice written over the first")
