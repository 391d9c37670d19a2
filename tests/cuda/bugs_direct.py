"""Seeded bugs of the direct convolution kernels and of what launches them."""

from __future__ import annotations

import dataclasses

from seeded import Bug, Convolution, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn.backends.cuda import direct, layout
from pycnn.backends.cuda.device import Extent, Reads
from pycnn.shape import Conv2dShape

FPROP, DGRAD_KERNEL, DIRECT = "conv2d_fprop_direct.cu", "conv2d_dgrad_direct.cu", "direct.cuh"
TILE, EPILOGUE, HEADER = "direct_tile.cuh", "epilogue.cuh", "common.cuh"

# Two channel stages, three tiles of filters and two by two of pixels, tails everywhere; groups; strides that differ.
TILED = Convolution("direct_r3s3_st1_8x8", "n2c9h9w10_k130r3s3_pd1", FPROP)
GROUPS = Convolution("direct_r3s3_st1_8x8", "n1c18h9w9_k140r3s3_pd1g2", FPROP)
ANY = Convolution("direct_any_narrow", "n2c12h9w30_k66r2s3_st2x1pd0.1.2.3dl1x2g2", FPROP)
TURNED = Convolution("direct_r3s3_st1_8x8", "n2c70h9w10_k10r3s3_pd0.1.4.1_dgrad", DGRAD_KERNEL)
TURNED_GROUPS = Convolution("direct_r3s3_st1_8x8", "n1c12h7w7_k8r3s3_pd1g2_dgrad", DGRAD_KERNEL)
DGRAD = Convolution("direct_any_narrow", "n2c35h9w14_k19r3s4_st2x3pd1.0.2.1dl1x2_dgrad", DGRAD_KERNEL)
DGRAD_GROUPS = Convolution("direct_any_narrow", "n1c6h7w7_k8r3s3_st2pd1g2_dgrad", DGRAD_KERNEL)
# bfloat16 has 8 bits, less than these sums take.
HALF = Convolution("direct_any_narrow", "n1c40h5w7_k9r3s3_pd1_bf16", FPROP)
HALF_DGRAD = Convolution("direct_any_narrow", "n1c9h5w7_k40r3s3_pd1_bf16_dgrad", DGRAD_KERNEL)
CASES = {
    "tiled": TILED,
    "groups": GROUPS,
    "any": ANY,
    "turned": TURNED,
    "turned groups": TURNED_GROUPS,
    "dgrad": DGRAD,
    "dgrad groups": DGRAD_GROUPS,
    "16 bits": HALF,
    "dgrad of 16 bits": HALF_DGRAD,
}


def missing_argument(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return grid, block, shared, [argument for argument in arguments if getattr(argument, "name", "") != "b"]


def output_taken_for_an_input(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    return grid, block, shared, [*arguments[:-1], Reads("y", arguments[-1].array)]


def swap_divisors(plan: direct.DirectPlan) -> direct.DirectPlan:
    return dataclasses.replace(plan, geometry=plan.geometry[16:32] + plan.geometry[:16] + plan.geometry[32:])


def wrong_pad(shape: Conv2dShape) -> bytes:
    top, bottom, left, right = shape.padding
    return layout.pack_conv2d_shape(dataclasses.replace(shape, padding=(top, bottom, right, left)))


BUGS: dict[str, Bug] = {
    "no barrier after staging": InKernel(TILE, "block, w, c0);\n        __syncthreads();", "block, w, c0);", TILED),
    "no barrier before the next stage": InKernel(
        TILE,
        "            }\n        }\n        __syncthreads();\n    }\n\n    // Store",
        "            }\n        }\n    }\n\n    // Store",
        TILED,
    ),
    "barrier that some threads skip": InKernel(
        TILE,
        "block, w, c0);\n        __syncthreads();",
        "block, w, c0);\n        if (threadIdx.x < 96) __syncthreads();",
        TILED,
    ),
    "halo one row too low": InKernel(TILE, "const int h = h0 + row", "const int h = h0 + row + 1", TILED),
    "halo one column short": InKernel(
        TILE,
        "(tile_q() - 1) * stride_w + S; }",
        "(tile_q() - 1) * stride_w + S - 1; }",
        TILED,
    ),
    "no guard on the right edge": InKernel(TILE, "if (q >= Q) return;", "", TILED),
    "no guard on the bottom edge": InKernel(TILE, "if (p + i < P) {", "{", TILED),
    "no guard on the last filter": InKernel(TILE, "if (filter + k >= group_filters) break;", "", TILED),
    "no guard on the last channel": InKernel(TILE, "c0 + c < group_channels && ", "", TILED),
    "padding left unwritten": InKernel(
        DIRECT, "if (first + j * threads < count) store", "if (value[j] != 0) store", TILED
    ),
    "groups forgotten in w": InKernel(
        TILE, "block.group) * group_filters + block.k0;\n\n", "0) + block.k0;\n\n", GROUPS
    ),
    "bias of the first group": InKernel(TILE, "channel + k, at", "filter + k, at", GROUPS),
    "bias forgotten": InKernel(EPILOGUE, "b != nullptr", "b == scale", TILED),
    "swapped strides": InKernel(
        FPROP,
        "p * static_cast<Index>(shape.stride_h)",
        "p * static_cast<Index>(shape.stride_w)",
        ANY,
    ),
    "dilation forgotten": InKernel(FPROP, "s * static_cast<Index>(shape.dilation_w)", "s", ANY),
    "one tap too few": InKernel(
        FPROP, "for (int t = 0; t < staged; ++t) {", "for (int t = 0; t + 1 < staged; ++t) {", ANY
    ),
    "no guard on the last pixel": InKernel(FPROP, "if (pixel >= pixels) break;", "", ANY),
    "loop that never ends": InKernel(
        FPROP, "tap0 < all_taps; tap0 += T.taps", "tap0 < all_taps; tap0 += 0 * T.taps", ANY
    ),
    "dgrad: taps of the wrong class": InKernel(
        DGRAD_KERNEL,
        "h_padded % stride_h)",
        "h0 % stride_h)",
        DGRAD,
    ),
    "dgrad: taps of a class next to each other": InKernel(
        DGRAD_KERNEL,
        "take_digit(k, grid.taps_w) * step_w",
        "take_digit(k, grid.taps_w)",
        DGRAD,
    ),
    "dgrad: no guard on the last tap": InKernel(
        DGRAD_KERNEL,
        "k < group_filters && r < R && s < S",
        "k < group_filters",
        DGRAD,
    ),
    "dgrad: no barrier before the weights are staged": InKernel(
        DGRAD_KERNEL,
        "dp, dq};\n        }\n        __syncthreads();",
        "dp, dq};\n        }",
        DGRAD,
    ),
    "dgrad: no barrier before the next stage": InKernel(
        DGRAD_KERNEL,
        "            }\n        }\n        __syncthreads();\n    }\n\n#pragma unroll\n    for (int c = 0",
        "            }\n        }\n    }\n\n#pragma unroll\n    for (int c = 0",
        DGRAD,
    ),
    "dgrad: groups forgotten in dy": InKernel(
        DGRAD_KERNEL,
        "n * shape.K + group * group_filters)",
        "n * shape.K)",
        DGRAD_GROUPS,
    ),
    "dgrad: row of a class taken for the image's": InKernel(
        DGRAD_KERNEL,
        "static_cast<int64>(row[i]) * stride_h",
        "static_cast<int64>(row[i])",
        DGRAD,
    ),
    "dgrad: no guard on the last column": InKernel(
        DGRAD_KERNEL,
        "h < shape.H && column_w < shape.W",
        "h < shape.H",
        DGRAD,
    ),
    "turned: taps not turned": InKernel(TILE, "c * area + area - 1 - position", "c * area + position", TURNED),
    "turned: no guard on the last channel": InKernel(
        TILE, "group_filters && c0 + c < group_channels", "group_filters", TURNED
    ),
    "turned: filters and channels swapped": InKernel(
        TILE, "(filter * group_filters + block", "(filter * group_channels + block", TURNED
    ),
    "turned: groups forgotten in w": InKernel(
        TILE, "block.group) * group_channels + c0 + c;", "0) * group_channels + c0 + c;", TURNED_GROUPS
    ),
    "turned: padding of the convolution": InHost(
        "pycnn.backends.cuda.direct.turned",
        lambda call: lambda shape: dataclasses.replace(call(shape), padding=shape.padding),
        TURNED,
    ),
    "unsigned test forgotten": InKernel(HEADER, "static_cast<uint32>(i) < static_cast<uint32>(n)", "i < n", ANY),
    "16 bits: a sum rounded before its bias": InKernel(
        FPROP, "epilogue(sum[i][k], ", "epilogue(to_float(from_float<Stored<T>>(sum[i][k])), ", HALF
    ),
    "16 bits: weights beside each other": InKernel(
        FPROP, "all_taps + tap0 + t])", "all_taps + (tap0 + t) / 2 * 2])", HALF
    ),
    "dgrad of 16 bits: a sum rounded at every tap": InKernel(
        DGRAD_KERNEL,
        "sum[i][c] = fmaf(in, weight[c], sum[i][c]);",
        "sum[i][c] = to_float(from_float<Stored<T>>(fmaf(in, weight[c], sum[i][c])));",
        HALF_DGRAD,
    ),
    "argument order": InLaunch(swapped(2, 3), TILED),
    "grid too small": InLaunch(grid_too_small, TILED),
    "block too small": InLaunch(block_too_small, TILED),
    "missing argument": InLaunch(missing_argument, TILED),
    "output passed as an input": InLaunch(output_taken_for_an_input, TILED),
    "divisors in the wrong order": InHost(
        "pycnn.backends.cuda.direct._tiled", lambda call: lambda *given: swap_divisors(call(*given)), TILED
    ),
    "right padding for the left": InHost("pycnn.backends.cuda.direct.pack_conv2d_shape", lambda call: wrong_pad, ANY),
}

# In the run that takes no --slow.
FAST = ("no barrier after staging", "halo one row too low", "no guard on the right edge", "argument order")
