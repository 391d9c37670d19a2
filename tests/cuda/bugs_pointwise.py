"""Seeded bugs of the 1x1 kernels and of what launches them."""

from __future__ import annotations

import dataclasses

from seeded import Bug, Convolution, InHost, InKernel, InLaunch, grid_too_small, swapped

POINTWISE = "conv2d_pointwise_direct.cu"

# Several tiles and stages with tails; images that begin within a tile; fours of pixels that are whole, and not.
ODD = Convolution("direct_1x1_64x64", "n3c37h7w7_k70r1s1", POINTWISE)
WHOLE = Convolution("direct_1x1_64x64", "n3c21h6w6_k5r1s1", POINTWISE)
STRIDED = Convolution("direct_1x1_64x64", "n2c21h8w8_k5r1s1_st1x2", POINTWISE)
GROUPS = Convolution("direct_1x1_128x64", "n2c6h5w6_k10r1s1_st2x1pd1.0.2.3g2", POINTWISE)
DGRAD = Convolution("direct_1x1_64x64", "n2c9h9w11_k21r1s1_st3x2pd2.0.1.3_dgrad", POINTWISE)
CASES = {"odd": ODD, "whole": WHOLE, "strided": STRIDED, "groups": GROUPS, "dgrad": DGRAD}

BUGS: dict[str, Bug] = {
    "no barrier after the first stage": InKernel(POINTWISE, "store(0);\n    __syncthreads();", "store(0);", ODD),
    "no barrier between stages": InKernel(
        POINTWISE, "store(buffer ^ 1);\n        __syncthreads();", "store(buffer ^ 1);", ODD
    ),
    "stage stored over the one in use": InKernel(POINTWISE, "store(buffer ^ 1)", "store(buffer)", ODD),
    "buffers not exchanged": InKernel(POINTWISE, "buffer ^= 1)", "buffer ^= 0)", ODD),
    "last channels not zero": InKernel(POINTWISE, "if (c >= channels) continue;", "", ODD),
    "four at a time across a stride": InKernel(
        POINTWISE, "quad.whole && quad.place[j] == quad.place[0] + j", "quad.whole", STRIDED
    ),
    "four at a time though planes are odd": InKernel(
        POINTWISE, "quad.place[0] >= 0 && plane % 4 == 0 &&", "quad.place[0] >= 0 &&", ODD
    ),
    "stored four at a time past the end": InKernel(POINTWISE, "pixel + 3 < grid.pixels &&", "", WHOLE),
    "no guard on the last pixel": InKernel(POINTWISE, "if (pixel >= grid.pixels) return -1;", "", ODD),
    "no guard on the last filter": InKernel(POINTWISE, "if (filter >= filters) continue;", "", ODD),
    "groups forgotten in w": InKernel(POINTWISE, "w + static_cast<int64>(group) * channels * filters", "w", GROUPS),
    "far padding for the near": InKernel(
        POINTWISE, "static_cast<int>(shape.stride_w) - pad_left", "static_cast<int>(shape.stride_w) - pad_top", GROUPS
    ),
    "fours of filters side by side": InKernel(
        POINTWISE, "k0 + first_filter + f * 16 + k", "k0 + first_filter + f * 4 + k", ODD
    ),
    "turned: pixels between the strides": InKernel(
        POINTWISE, "p * static_cast<int>(shape.stride_h) == row + pad_top &&", "", DGRAD
    ),
    "turned: filters as in fprop": InKernel(POINTWISE, "turned ? (c0 + c) * filters + k0 + k :", "", DGRAD),
    "argument order": InLaunch(swapped(2, 3), ODD),
    "grid too small": InLaunch(grid_too_small, ODD),
    "divisors in the wrong order": InHost(
        "pycnn.backends.cuda.direct_pointwise._plan",
        lambda call: (
            lambda *given: (
                lambda plan: dataclasses.replace(
                    plan, geometry=plan.geometry[16:32] + plan.geometry[:16] + plan.geometry[32:]
                )
            )(call(*given))
        ),
        GROUPS,
    ),
}

# In the run that takes no --slow.
FAST = ("no barrier between stages",)
