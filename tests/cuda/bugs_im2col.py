"""Seeded bugs of the im2col kernels, implicit and explicit, and of what launches them."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, Convolution, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn.backends import reference
from pycnn.backends.cuda import im2col, layout
from pycnn.backends.cuda.plan import Epilogue, Operands
from pycnn.shape import Conv2dShape, Problem
from pycnn.testing import exact_operands, run

FPROP, DGRAD, WGRAD = "conv2d_fprop_im2col.cu", "conv2d_dgrad_im2col.cu", "conv2d_wgrad_im2col.cu"
SHARED, CORE, COLUMNS, PARITY = "im2col.cuh", "gemm.cuh", "im2col.cu", "parity.cuh"
PLACES = "places.cuh"


class Fused(NamedTuple):
    """A pass with all that its kernel does besides: the epilogue of fprop, the bias gradient of wgrad."""

    algo: str
    problem: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """y, or dw and db."""
        problem = Problem.parse(self.problem)
        s, given = problem.shape, exact_operands(problem, bias=False)
        rng = np.random.default_rng(0)
        scale, b = (rng.integers(1, 4, s.K).astype(np.float32) for _ in range(2))
        residual = rng.integers(-9, 10, s.y_shape).astype(np.float32)
        if backend is reference:
            result = run(backend, problem, given, "auto")
            if problem.operator == "wgrad":
                return [result, given.left.sum(axis=(0, 2, 3))]
            return [result * scale[:, None, None] + b[:, None, None] + residual]
        device = backend.host.device

        def on(array: np.ndarray) -> Any:
            place = device.alloc(array.shape, np.float32)
            device.fill(place, array)
            return place

        left, right = on(given.left), on(given.right)
        if problem.operator == "wgrad":
            results = [device.alloc(shape, np.float32) for shape in (s.w_shape, (s.K,))]
            operands = Operands(dy=left, x=right, dw=results[0], db=results[1])
        else:
            results = [device.alloc(s.y_shape, np.float32)]
            operands = Operands(x=left, w=right, y=results[0], epilogue=Epilogue(on(scale), on(b), on(residual)))
        plans = {plan.name: plan for plan in im2col.plans(problem.operator, s, backend.host.sources)}
        plans[self.algo].run(backend.host, operands)
        return [np.array(result) for result in results]


# Tails everywhere, more tiles of gemm_k than stages, strides and padding that differ; groups.
FORWARD = Convolution("im2col_implicit_64x64", "n2c9h9w8_k66r2s3_st2x1pd0.1.2.3dl1x2", FPROP)
GROUPS = Convolution("im2col_implicit_64x64", "n1c6h7w7_k8r3s3_pd1g2", FPROP)
BACKWARD = Convolution("im2col_implicit_64x64", "n2c66h9w14_k7r3s4_st2x3pd1.0.2.1dl1x2_dgrad", f"{DGRAD} slices.cu")
BACKWARD_GROUPS = Convolution("im2col_implicit_64x64", "n2c6h7w7_k8r3s3_pd1g2_dgrad", f"{DGRAD} slices.cu")
BACKWARD_1X1 = Convolution("im2col_implicit_64x64", "n2c8h5w5_k37r1s1_dgrad", f"{DGRAD} slices.cu")
FILTERS = Convolution("im2col_implicit_64x64", "n2c8h9w8_k66r2s3_st2x1pd0.1.2.3dl1x2_wgrad", f"{WGRAD} slices.cu")
FILTERS_GROUPS = Convolution("im2col_implicit_64x64", "n3c4h14_k6r3_pd1g2_wgrad", f"{WGRAD} slices.cu")
FUSED = Fused("im2col_implicit_64x64", "n2c90h3_k6r3_pd1", f"{FPROP} slices.cu")
BIAS = Fused("im2col_implicit_64x64", "n3c8h14_k6r3_pd1_wgrad", f"{WGRAD} slices.cu")
EXPLICIT = "im2col_explicit"
TO_COLUMNS = Convolution(EXPLICIT, "n2c4h9w8_k6r2s3_st2x1pd0.1.2.3dl1x2g2", f"{COLUMNS} sgemm.cu slices.cu")
FROM_COLUMNS = Convolution(EXPLICIT, "n2c4h9w8_k6r2s3_st2x1pd0.1.2.3dl1x2g2_dgrad", f"{COLUMNS} sgemm.cu slices.cu")
SUMMED = Convolution(EXPLICIT, "n3c4h9w8_k6r2s3_st2x1pd1g2_wgrad", f"{COLUMNS} sgemm.cu slices.cu")
CASES = {
    "fprop": FORWARD,
    "groups": GROUPS,
    "dgrad": BACKWARD,
    "dgrad groups": BACKWARD_GROUPS,
    "dgrad 1x1": BACKWARD_1X1,
    "wgrad": FILTERS,
    "wgrad groups": FILTERS_GROUPS,
    "epilogue": FUSED,
    "bias gradient": BIAS,
    "explicit": TO_COLUMNS,
    "explicit dgrad": FROM_COLUMNS,
    "explicit wgrad": SUMMED,
}


def swapped_strides(shape: Conv2dShape) -> bytes:
    return layout.pack_conv2d_shape(dataclasses.replace(shape, stride=shape.stride[::-1], padding=shape.padding))


def shorter_slices(grid: tuple, block: tuple, shared: int, arguments: list) -> tuple:
    """Every slice ends a tile of gemm_k early."""
    if len(arguments) > 4:
        (k_slice,) = struct.unpack_from("<q", arguments[1])
        arguments[1] = struct.pack("<q", k_slice - 16) + arguments[1][8:]
    return grid, block, shared, arguments


def without_db(grid: tuple, block: tuple, shared: int, arguments: list) -> tuple:
    return grid, block, shared, [*arguments[:-1], dataclasses.replace(arguments[-1], array=None)]


BUGS: dict[str, Bug] = {
    "place of a tap one tile late": InKernel(
        SHARED, "prepare<threads>(tile, place_of_)", "prepare<threads>(tile - 1, place_of_)", FORWARD
    ),
    "ring of two tiles": InKernel(PLACES, "(tile) & 3][k];", "(tile) & 1][k];", FORWARD),
    "places prepared by too few threads": InKernel(
        PLACES, "if (k < tile_k) place", "if (k < tile_k - 1) place", FORWARD
    ),
    "tap past the last one": InKernel(FPROP, "if (tap >= taps) return", "if (tap > taps) return", FORWARD),
    "rows not tested": InKernel(SHARED, "inside(h_ + tap.h, H_) && ", "", FORWARD),
    "columns tested against the rows' bound": InKernel(
        SHARED, "inside(w_ + tap.w, W_)", "inside(w_ + tap.w, H_)", FORWARD
    ),
    "pixels past the last one": InKernel(FPROP, "if (image >= pixels) return nowhere<int64>();", "", FORWARD),
    "strides of each other's axis": InKernel(
        FPROP, "p * static_cast<Index>(shape.stride_h)", "p * static_cast<Index>(shape.stride_w)", FORWARD
    ),
    "dilation left out": InKernel(FPROP, "s * static_cast<Index>(shape.dilation_w)", "s", FORWARD),
    "filters of the first group": InKernel(FPROP, "w + (group * group_filters + k0)", "w + k0", GROUPS),
    "channels of the first group": InKernel(FPROP, "n * shape.C + group * group_channels", "n * shape.C", GROUPS),
    "filters past the last one stored": InKernel(SHARED, "if (row >= rows) break;", "", GROUPS),
    "bias of every slice": InKernel(FPROP, "first_slice ? b : nullptr", "b", FUSED),
    "residual left out": InKernel(FPROP, "first_slice ? residual : nullptr", "nullptr", FUSED),
    "scale of the first channel": InKernel(
        FPROP, "epilogue(value, channel0 + row, place)", "epilogue(value, channel0, place)", FUSED
    ),
    "four pixels across two images": InKernel(FPROP, "takes_vectors(y, plane)", "takes_vectors(y, 4)", FORWARD),
    "vectors of planes that hold no whole ones": InKernel(
        FPROP,
        "is_pointwise(shape) && takes_vectors(x, static_cast<int64>(H) * W)",
        "is_pointwise(shape)",
        Convolution("im2col_implicit_64x64", "n2c6h5w5_k9r1s1", FPROP),
    ),
    "vectors of a padded image": InKernel(
        SHARED,
        " && shape.P == shape.H && shape.Q == shape.W",
        "",
        Convolution("im2col_implicit_64x64", "n1c3h4w4_k4r1s1_pd2", FPROP),
    ),
    "class of the wrong parity": InKernel(DGRAD, "h_padded % stride_h", "h0 % stride_h", BACKWARD),
    "classes not told apart in columns": InKernel(
        DGRAD, "block.w0 + static_cast<int64>(take_digit", "static_cast<int64>(take_digit", BACKWARD
    ),
    "taps of a class not a step apart": InKernel(
        DGRAD,
        "take_digit(k, grid.taps_w) * static_cast<Index>(grid.step_w.value)",
        "take_digit(k, grid.taps_w)",
        BACKWARD,
    ),
    "residues that do not wrap": InKernel(PARITY, "if (remainder >= stride) remainder -= stride;", "", BACKWARD),
    "tap outside of the filter": InKernel(DGRAD, "if (r >= R || s >= S) return none;", "", BACKWARD),
    "pixel outside of the image": InKernel(DGRAD, "down >= shape.H || across >= shape.W", "down >= shape.H", BACKWARD),
    "vectors across a stride": InKernel(
        DGRAD,
        "stride_h == 1 && stride_w == 1 && ",
        "",
        Convolution("im2col_implicit_64x64", "n1c3h8w8_k4r3_st2pd1_dgrad", DGRAD),
    ),
    "weights of the first group": InKernel(DGRAD, "group * group_filters * group_channels + c0", "c0", BACKWARD_GROUPS),
    "rows of weights past the last": InKernel(SHARED, "other >= 0 && i < rows_left_", "other >= 0", BACKWARD_GROUPS),
    "neighbouring rows of every k": InKernel(
        SHARED, "ring_.at(tile, k_ + k).other;\n", "ring_.at(tile, k_).other;\n", BACKWARD_1X1
    ),
    "pixel past the last one": InKernel(WGRAD, "if (pixel >= pixels) return", "if (pixel > pixels) return", FILTERS),
    "first slice again and again": InKernel(WGRAD, "Index n = pixel0 + pixel", "Index n = pixel", FILTERS_GROUPS),
    "taps past the last not marked": InKernel(WGRAD, "real ? dh : nowhere<Index>()", "dh", FILTERS),
    "image of the first group": InKernel(WGRAD, "x + group * group_channels * H * W", "x", FILTERS_GROUPS),
    "dw of the first slice only": InKernel(WGRAD, "row0 = block.slice * shape.K + ", "row0 = ", FILTERS_GROUPS),
    "bias gradient of a tile on its way": InKernel(CORE, "watch(&shared.a[used]", "watch(&shared.a[filled]", BIAS),
    "bias gradient of most pixels": InKernel(WGRAD, "k < T.tile_k; ++k) sum_dy", "k < T.tile_k - 1; ++k) sum_dy", BIAS),
    "bias gradient past the last filter": InKernel(
        WGRAD, "adds_dy && static_cast<int>(threadIdx.x) < filters_left", "adds_dy", BIAS
    ),
    "bias gradient over that of another slice": InKernel(WGRAD, "db[row0", "db[row0 - block.slice * shape.K", BIAS),
    "column of the pixel beside": InKernel(COLUMNS, "p * shape.Q + q;", "p * shape.Q;", TO_COLUMNS),
    "padding not zero": InKernel(COLUMNS, "inside(h, H) && inside(w, W) ?", "inside(h, H) ?", TO_COLUMNS),
    "columns of one tap too few": InKernel(COLUMNS, "s < shape.S; ++s, w +=", "s + 1 < shape.S; ++s, w +=", TO_COLUMNS),
    "planes past the last one": InKernel(COLUMNS, "if (plane >= shape.N * shape.C) return;", "", TO_COLUMNS),
    "pixels between strides": InKernel(
        COLUMNS,
        "if (p >= P || p * static_cast<Index>(shape.stride_h) != down) continue;",
        "if (p >= P) continue;",
        FROM_COLUMNS,
    ),
    "gather past the last column": InKernel(COLUMNS, "if (q < Q && ", "if (", FROM_COLUMNS),
    "filters taken for pixels": InLaunch(swapped(2, 3), FORWARD),
    "last block not launched": InLaunch(grid_too_small, BACKWARD),
    "half of the threads": InLaunch(block_too_small, FILTERS),
    "slices that do not reach the last pixel": InLaunch(shorter_slices, FILTERS_GROUPS),
    "no place for the bias gradient": InLaunch(without_db, BIAS),
    "strides packed in the wrong order": InHost(
        "pycnn.backends.cuda.im2col.pack_conv2d_shape", lambda call: swapped_strides, FORWARD
    ),
    "slices not summed": InHost(
        "pycnn.backends.cuda.im2col.sum_slices",
        lambda call: lambda host, part, out: host.device.fill(out, part[0]),
        FILTERS_GROUPS,
    ),
    "image left out of dw": InHost(
        "pycnn.backends.cuda.columns.sum_slices",
        lambda call: lambda host, part, out: call(host, part[:-1], out),
        SUMMED,
    ),
}

FAST = ("place of a tap one tile late", "rows not tested", "bias gradient of most pixels")
