"""Seeded bugs of the depthwise kernels and of what launches them."""

from __future__ import annotations

from typing import Any

from bugs_wgrad import BiasGradient, NotANumber
from seeded import Bug, Convolution, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn.jit.sources import Instance, Sources

DEPTHWISE = "conv2d_depthwise_direct.cu"

# Blocks that are cut off, several images, rows that are no multiple of a thread's, two filters a channel.
FPROP = Convolution("direct_depthwise_r3s3_st2", "n3c5h15w14_k10r3s3_st2pd1.0.2.1g5", DEPTHWISE)
DGRAD = Convolution("direct_depthwise_r3s3_st2", "n3c5h15w14_k10r3s3_st2pd1.0.2.1g5_dgrad", DEPTHWISE)
WGRAD = BiasGradient("direct_depthwise_r3s3_st1", "n9c5h14w33_k10r3s3_pd1.0.2.1g5_wgrad", DEPTHWISE)
ANY = Convolution("direct_depthwise_any_narrow", "n2c3h14w13_k6r3s4_st3x2pd2.1.4.2dl2x1g3", DEPTHWISE)
ANY_DGRAD = Convolution("direct_depthwise_any_narrow", "n2c3h14w13_k6r3s4_st3x2pd2.1.4.2dl2x1g3_dgrad", DEPTHWISE)
ANY_WGRAD = BiasGradient("direct_depthwise_any_narrow", "n9c3h14w33_k6r3s4_st3x2pd2.1.4.2dl2x1g3_wgrad", DEPTHWISE)
NOT_A_NUMBER = NotANumber("direct_depthwise_r3s3_st1", "n1c2h9w9_k2r3s3_pd1g2_wgrad", DEPTHWISE)
# bfloat16 has 8 bits, less than these sums of 25 products take, or those of a slice.
HALF_FPROP = Convolution("direct_depthwise_r5s5_st1", "n2c3h9w9_k6r5s5_pd2g3_bf16", DEPTHWISE)
HALF_DGRAD = Convolution("direct_depthwise_any_narrow", "n2c3h9w9_k6r5s5_pd2g3_bf16_dgrad", DEPTHWISE)
HALF_WGRAD = BiasGradient("direct_depthwise_r3s3_st1", "n9c5h14w33_k10r3s3_pd1.0.2.1g5_bf16_wgrad", DEPTHWISE)
LAST = Convolution("direct_depthwise_r3s3_st2", "n2c3h9w8_k6r3s3_st2pd1g3_f16_nhwc", DEPTHWISE)
LAST_DGRAD = Convolution("direct_depthwise_r3s3_st2", "n2c3h9w8_k3r3s3_st2pd1g3_f16_dgrad_nhwc", DEPTHWISE)
ONE_SLICE = BiasGradient("direct_depthwise_r3s3_st1", "n1c2h5w5_k2r3s3_pd1g2_f16_wgrad", DEPTHWISE)
CASES = {
    "fprop": FPROP,
    "dgrad": DGRAD,
    "wgrad": WGRAD,
    "any": ANY,
    "any dgrad": ANY_DGRAD,
    "any wgrad": ANY_WGRAD,
    "NaN": NOT_A_NUMBER,
    "fprop of 16 bits": HALF_FPROP,
    "dgrad of 16 bits": HALF_DGRAD,
    "wgrad of 16 bits": HALF_WGRAD,
    "one slice of 16 bits": ONE_SLICE,
    "channels-last": LAST,
    "dgrad of channels-last": LAST_DGRAD,
}


def longer_slices(call: Any) -> Any:
    def change(*given: Any) -> tuple[int, int]:
        slices, length = call(*given)
        return slices, length + 1

    return change


def another_type(call: Any) -> Any:
    def change(sources: Sources, kernel: str, ending: str) -> dict[str, Instance]:
        return call(sources, kernel, {"_f16": "_bf16", "_bf16": "_f16"}.get(ending, ending))

    return change


BUGS: dict[str, Bug] = {
    "filter taken for its channel": InKernel(
        DEPTHWISE, "quotient(place.channel, grid.multiplier)", "place.channel", FPROP
    ),
    "no guard on the last row": InKernel(DEPTHWISE, "if (place.tile * T.rows + i >= shape.P) break;", "", FPROP),
    "no guard on the last thread": InKernel(DEPTHWISE, "if (index >= grid.threads) return;", "", FPROP),
    "stride forgotten in the window": InKernel(DEPTHWISE, "in[i * T.stride_h + r]", "in[i + r]", FPROP),
    "swapped taps": InKernel(DEPTHWISE, "to_float(taps[r * T.S + s])", "to_float(taps[s * T.S + r])", FPROP),
    "one column of taps too few": InKernel(
        DEPTHWISE, "for (int s = 0; s < T.S; ++s) {", "for (int s = 1; s < T.S; ++s) {", FPROP
    ),
    "any: dilation forgotten": InKernel(DEPTHWISE, "r * static_cast<Index>(shape.dilation_h)", "r", ANY),
    "dgrad: tiles that begin at the image": InHost(
        "pycnn.backends.cuda.direct_depthwise.rows_above", lambda call: lambda *given: 0, DGRAD
    ),
    "dgrad: columns between the strides": InKernel(
        DEPTHWISE, "ahead >= 0 && q * across == ahead && q < Q", "ahead >= 0 && q < Q", DGRAD
    ),
    "dgrad: the first filter of a channel only": InKernel(DEPTHWISE, "multiplier + j;", "multiplier;", DGRAD),
    "dgrad: remainder not carried": InKernel(
        DEPTHWISE, "        rest += stride;\n        --out;", "        rest += stride;", ANY_DGRAD
    ),
    "wgrad: no barrier before halves are added": InKernel(
        DEPTHWISE, "half > 0; half /= 2) {\n        __syncthreads();", "half > 0; half /= 2) {", WGRAD
    ),
    "wgrad: no barrier after": InKernel(DEPTHWISE, "+ half];\n    }\n    __syncthreads();", "+ half];\n    }", WGRAD),
    "wgrad: the threads of one half": InKernel(DEPTHWISE, "half = T.threads() / 2", "half = T.threads() / 4", WGRAD),
    "wgrad: pixels past the last row": InKernel(DEPTHWISE, "if (j < rows) sum", "sum", NOT_A_NUMBER),
    "wgrad: slice of another filter": InKernel(
        DEPTHWISE, "(slice * shape.K + k) * taps + tap]", "(slice + k) * taps + tap]", WGRAD
    ),
    "wgrad: overlapping slices": InHost("pycnn.backends.cuda.direct_depthwise.slices_of", longer_slices, WGRAD),
    "wgrad any: no barrier before the next taps": InKernel(
        DEPTHWISE,
        "shared.part[kTapsAtOnce][0];\n            __syncthreads();",
        "shared.part[kTapsAtOnce][0];",
        ANY_WGRAD,
    ),
    "16 bits: a sum rounded at every tap": InKernel(
        DEPTHWISE,
        "sum[i] = fmaf(in[i * T.stride_h + r], tap, sum[i]);",
        "sum[i] = to_float(from_float<Stored<T>>(fmaf(in[i * T.stride_h + r], tap, sum[i])));",
        HALF_FPROP,
    ),
    "16 bits: a sum rounded at every filter": InKernel(
        DEPTHWISE,
        "const int64 k = static_cast<int64>(place.channel) * multiplier + j;",
        "const int64 k = static_cast<int64>(place.channel) * multiplier + j; "
        "sum[0] = to_float(from_float<Stored<T>>(sum[0]));",
        HALF_DGRAD,
    ),
    "16 bits: slices rounded": InKernel(
        DEPTHWISE,
        "dw[(slice * shape.K + k) * taps + tap] = shared.part[tap][0];",
        "dw[(slice * shape.K + k) * taps + tap] = to_float(from_float<Stored<T>>(shared.part[tap][0]));",
        HALF_WGRAD,
    ),
    "16 bits: one slice is not rounded": InHost(
        "pycnn.backends.cuda.direct_wgrad._adds", lambda call: lambda slices, sums: slices > 1, ONE_SLICE
    ),
    "16 bits: the kernel of the other type": InHost(
        "pycnn.backends.cuda.direct_depthwise.instances_of", another_type, HALF_FPROP
    ),
    "channels-last: rows a plane apart": InKernel(
        DEPTHWISE, "static_cast<Index>(grid.x.h), static_cast<Index>(grid.x.w)", "static_cast<Index>(shape.W), 1", LAST
    ),
    "channels-last: y stored as NCHW": InKernel(
        DEPTHWISE, "place.channel * grid.y.c +", "place.channel * shape.P * shape.Q +", LAST
    ),
    "channels-last: channels and columns swapped": InKernel(
        DEPTHWISE,
        "place.column = take_digit(index, grid.columns);\n            place.tile",
        "place.column = place.channel;\n            place.tile",
        LAST,
    ),
    "channels-last: dx with the distances of dy": InKernel(
        DEPTHWISE, "(h0 + i) * grid.x.h", "(h0 + i) * grid.y.h", LAST_DGRAD
    ),
    "channels-last: distances of the other image": InHost(
        "pycnn.backends.cuda.direct_depthwise.steps_of", lambda call: lambda array: (*call(array)[:2], 1, 1), LAST
    ),
    "argument order": InLaunch(swapped(2, 3), WGRAD),
    "grid too small": InLaunch(grid_too_small, DGRAD),
    "block too small": InLaunch(block_too_small, FPROP),
}

# In the run that takes no --slow.
FAST = ("stride forgotten in the window",)
