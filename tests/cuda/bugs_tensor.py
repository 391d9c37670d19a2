"""Seeded bugs of the convolutions on tensor cores, and of what plans and launches them."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn import use_precision
from pycnn.backends import reference
from pycnn.backends.cuda import tensor
from pycnn.shape import Problem
from pycnn.testing import error_bound, exact_operands, float_operands, magnitudes, oracle, run
from pycnn.testing.check import channels_last
from pycnn.testing.regimes import Operands, split_operands

FPROP, DGRAD, WGRAD = "conv2d_fprop_tensor.cu", "conv2d_dgrad_tensor.cu", "conv2d_wgrad_tensor.cu"
CORE, SHARED, PLACES, PARITY, SPLITTER = (
    "tensor_gemm.cuh",
    "tensor_conv.cuh",
    "places.cuh",
    "parity.cuh",
    "split_filters.cu",
)


def laid(problem: Problem, operands: Operands) -> Operands:
    if problem.layout == "nchw":
        return operands
    return Operands(channels_last(operands.left), channels_last(operands.right), operands.b)


class Product(NamedTuple):
    """A convolution on integers that its arithmetic multiplies exactly, rounded once."""

    algo: str
    problem: str
    source: str
    precision: str = "float32"

    def results(self, backend: Any) -> list[np.ndarray]:
        """One result; of split products two, either operand having low parts."""
        problem = Problem.parse(self.problem)
        if self.precision.startswith("3x"):
            given = [split_operands(problem, side) for side in ("left", "right")]
        else:
            given = [exact_operands(problem, self.algo, bias=False)]
        if backend is reference:
            return [oracle(problem, each).astype(each.left.dtype) for each in given]
        with use_precision(self.precision):
            return [run(backend, problem, laid(problem, each), self.algo) for each in given]


class Fused(NamedTuple):
    """fprop with all that it does to its sums."""

    algo: str
    problem: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """y."""
        problem = Problem.parse(self.problem)
        s, rng = problem.shape, np.random.default_rng(0)
        operands = exact_operands(problem, self.algo, bias=False)
        scale, b = (rng.integers(1, 4, s.K).astype(np.float32) for _ in range(2))
        residual = rng.integers(-9, 10, s.y_shape).astype(operands.left.dtype)
        if backend is reference:
            y = oracle(problem, operands) * scale[:, None, None] + b[:, None, None] + residual
            return [y.astype(operands.left.dtype)]
        given, how = laid(problem, operands), (s.stride, s.padding, s.dilation, s.groups)
        return [backend.conv2d_fprop(given.left, given.right, b, *how, algo=self.algo, scale=scale, residual=residual)]


class Skewed(NamedTuple):
    """fprop of channels-last arrays that begin 2 bytes past a multiple of 16."""

    problem: str
    source: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """y."""
        problem = Problem.parse(self.problem)
        s, operands = problem.shape, exact_operands(problem, "im2col", bias=False)
        if backend is reference:
            return [oracle(problem, operands).astype(operands.left.dtype)]
        device, given = backend.host.device, []
        for array in (operands.left, operands.right):
            n, c, h, w = array.shape
            place = device.alloc((array.size + 1,), array.dtype)[1:].reshape(n, h, w, c).transpose(0, 3, 1, 2)
            place[...] = array
            given.append(place)
        how = (s.stride, s.padding, s.dilation, s.groups)
        return [np.array(backend.host.conv2d_fprop(*given, None, *how, algo="im2col_tensor"))]


class LongSum(NamedTuple):
    """fprop of one sign, not cut into slices for it is rectified: whether its error keeps to the bound."""

    algo: str
    problem: str
    source: str
    precision: str

    def results(self, backend: Any) -> list[np.ndarray]:
        """One truth."""
        if backend is reference:
            return [np.array(True)]
        problem = Problem.parse(self.problem)
        s, operands = problem.shape, magnitudes(float_operands(problem, bias=False))
        given, y64 = laid(problem, operands), oracle(problem, operands)
        how = (s.stride, s.padding, s.dilation, s.groups)
        with use_precision(self.precision):
            y = backend.conv2d_fprop(given.left, given.right, None, *how, algo=self.algo, relu=True)
        return [np.array(np.abs(y - y64).max() <= error_bound(problem, operands, y64, self.algo, y64))]


VECTORS, STRIDED, PRECISE = "im2col_tensor_64x64", "im2col_tensor_strided_64x64", "im2col_tensor_3xtf32"
SUMS = f"{SPLITTER} slices.cu"

# Tails everywhere, more tiles of gemm_k than stages (one more in FORWARD: its last tile is where the results pass),
# strides and padding that differ; groups; slices.
FORWARD = Product(VECTORS, "n2c24h8w9_k67r2s3_st1x2pd1.0.0.2_f16_nhwc", FPROP)
GROUPS = Product(VECTORS, "n1c32h5w6_k24r3s3_pd1g2_f16_nhwc", FPROP)
FORWARD_STRIDED = Product(STRIDED, "n2c19h8w9_k67r2s3_st1x2pd1.0.0.2_f16", FPROP)
BACKWARD = Product(VECTORS, "n2c67h6w11_k48r3s4_st2x3pd1.0.2.1dl1x2_f16_nhwc_dgrad", DGRAD)
BACKWARD_GROUPS = Product(VECTORS, "n1c12h5w6_k32r3s3_pd1g2_f16_nhwc_dgrad", DGRAD)
BACKWARD_STRIDED = Product(STRIDED, "n2c67h6w11_k35r3s4_st2x3pd1.0.2.1dl1x2_f16_dgrad", DGRAD)
FILTERS = Product(VECTORS, "n2c24h9w9_k72r2s3_st1pd0.1.2.0_f16_nhwc_wgrad", WGRAD)
SLICES = Product(STRIDED, "n3c4h14_k6r3_pd1g2_f16_wgrad", f"{WGRAD} slices.cu")
SPLIT = Product(f"{PRECISE}_64x64", "n2c16h6w7_k67r2s3_pd1.0.0.2_nhwc", f"{FPROP} {SPLITTER}", "3xtf32")
SPLIT_ACROSS = Product(f"{PRECISE}_strided_64x64", "n2c35h6w7_k20r3s2_pd1_dgrad", f"{DGRAD} {SPLITTER}", "3xtf32")
HALVES = Product("im2col_tensor_3xfp16_64x64", "n2c16h6w7_k67r2s3_pd1.0.0.2_nhwc", f"{FPROP} {SPLITTER}", "3xfp16")
LONG = LongSum(f"{PRECISE}_64x64", "n1c1024h1_k8r1s1_nhwc", f"{FPROP} {SPLITTER}", "3xtf32")
FUSED = Fused(STRIDED, "n1c90h3_k6r3_pd1_bf16", f"{FPROP} slices.cu")
SKEWED = Skewed("n2c16h5w6_k8r3s3_pd1_f16", FPROP)
ODD_PLANES = Product(STRIDED, "n3c8h5w5_k9r3s3_pd1_f16", FPROP)
LARGE_TILE = Product("im2col_tensor_128x128", "n1c16h5w5_k9r3s3_pd1_f16_nhwc", FPROP)
CASES = {
    "fprop": FORWARD,
    "fprop groups": GROUPS,
    "fprop strided": FORWARD_STRIDED,
    "dgrad": BACKWARD,
    "dgrad groups": BACKWARD_GROUPS,
    "dgrad strided": BACKWARD_STRIDED,
    "wgrad": FILTERS,
    "wgrad slices": SLICES,
    "split": SPLIT,
    "split across": SPLIT_ACROSS,
    "split in halves": HALVES,
    "long sum": LONG,
    "epilogue": FUSED,
    "skewed": SKEWED,
    "odd planes": ODD_PLANES,
    "large tile": LARGE_TILE,
}


def shorter_slices(grid: tuple, block: tuple, shared: int, arguments: list) -> tuple:
    """Every slice ends a tile of gemm_k early."""
    if len(arguments) > 4:
        (k_slice,) = struct.unpack_from("<q", arguments[1])
        arguments[1] = struct.pack("<q", k_slice - 32) + arguments[1][8:]
    return grid, block, shared, arguments


def less_shared(grid: tuple, block: tuple, shared: int, arguments: list) -> tuple:
    return grid, block, max(shared - 16, 0), arguments


BUGS: dict[str, Bug] = {
    # The product
    "low part of the left dropped": InKernel(
        CORE, "mma<Number>(small.value[i][j], left.low[i], right.high[j]);", "", SPLIT
    ),
    "low part of the right dropped": InKernel(
        CORE, "mma<Number>(small.value[i][j], left.high[i], right.low[j]);", "", SPLIT
    ),
    "low parts that are the high ones": InKernel(SHARED, "at + part * part_", "at", SPLIT),
    "low parts not written": InKernel(
        SPLITTER,
        "= __int_as_float(static_cast<int>(low))",
        "= 0.0f + 0.0f * __int_as_float(static_cast<int>(low))",
        SPLIT,
    ),
    "sums left in the tensor cores": InKernel(
        CORE,
        "TensorSums<T> main, corrections;",
        "TensorSums<T> main = sums, corrections;\n    if constexpr (A::split) sums = TensorSums<T>{};",
        LONG,
    ),
    "scaled parts of float16 not scaled back": InKernel(CORE, "1.0f / 2048.0f", "1.0f", HALVES),
    "low parts of float16 from another word": InKernel(
        CORE, "low = first >> 16 | (second & 0xFFFF0000u);", "low = first >> 16 | second << 16;", HALVES
    ),
    "corrections of float16 among the others": InKernel(CORE, "T.arithmetic == 5 ? corrections : main", "main", HALVES),
    "left registers 1 and 2 swapped": InKernel(
        CORE,
        "ldmatrix(a, tile.at(m0 + lane % 16, 2 * step + lane / 16))",
        "ldmatrix(a, tile.at(m0 + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2))",
        FORWARD,
    ),
    "row of a matrix misaligned": InKernel(CORE, "2 * step + lane / 16));", "2 * step + lane / 16) + 1);", FORWARD),
    "matrix not transposed": InKernel(CORE, "ldmatrix_trans(r, ", "ldmatrix(r, ", BACKWARD),
    "left transposed by the wrong half": InKernel(
        CORE,
        "lane / 16 * 8 + lane % 8, m0 / 8 + lane / 8 % 2",
        "lane / 8 % 2 * 8 + lane % 8, m0 / 8 + lane / 16",
        FILTERS,
    ),
    "rows of 32 bits two by two": InKernel(
        CORE, "8 * step + lane % 4 + i / 2 * 4", "8 * step + lane % 4 * 2 + i / 2", SPLIT_ACROSS
    ),
    "chunks permuted when written alone": InKernel(
        CORE, "return &value[row][place(row, column) * chunk]; }", "return &value[row][column * chunk]; }", FORWARD
    ),
    "columns of the first warp": InKernel(
        CORE, "n0 = warp / T.warps_m * T.warp_n();\n    TensorSums", "n0 = 0;\n    TensorSums", FORWARD
    ),
    # The pipeline
    "no barrier after the last tile": InKernel(
        CORE, "__syncthreads();  // the memory may be used for something else", "", FORWARD
    ),
    "no barrier before a tile": InKernel(
        CORE, "__syncthreads();  // everyone's copies", "// everyone's copies", FORWARD
    ),
    "copies not waited for": InKernel(CORE, "cp_async_wait<T.stages - 2>()", "cp_async_wait<T.stages - 1>()", FORWARD),
    "held elements over the tile in use": InKernel(
        CORE, "b.deposit(shared.b[filled]);", "b.deposit(shared.b[used]);", FORWARD_STRIDED
    ),
    "held elements before the tile is free": InKernel(
        CORE,
        "            b.fetch(tile + T.stages - 1, shared.b[filled]);\n",
        "            b.fetch(tile + T.stages - 1, shared.b[filled]);\n            b.deposit(shared.b[used]);\n",
        BACKWARD_STRIDED,
    ),
    "right tile of another stage": InKernel(
        CORE, "shared.a[used], shared.b[used]", "shared.a[used], shared.b[filled]", FORWARD
    ),
    "tile in use copied over": InKernel(
        CORE, "filled = filled + 1 == T.stages ? 0 : filled + 1;", "filled = used;", FORWARD
    ),
    "places one tile late": InKernel(CORE, "prepare(tile + T.stages);", "prepare(tile + T.stages - 1);", FORWARD),
    "ring of two tiles": InKernel(PLACES, "(tile) & 3][k];", "(tile) & 1][k];", FORWARD),
    "places prepared by too few threads": InKernel(
        PLACES, "if (k < tile_k) place", "if (k < tile_k - 1) place", FORWARD_STRIDED
    ),
    # Operands
    "padding read": InKernel(SHARED, "at < 0 ? 0 : 16);", "16);", FORWARD),
    "first held chunk for all": InKernel(
        SHARED, "i * columns_at_once), held_[i]);", "i * columns_at_once), held_[0]);", FORWARD_STRIDED
    ),
    "digits of a tap by the wrong divisors": InKernel(
        FPROP, "s = take_digit(rest, grid.taps_w), r = rest;", "r = take_digit(rest, grid.taps_w), s = rest;", FORWARD
    ),
    "tap past the last one": InKernel(FPROP, "if (tap >= taps) return", "if (tap > taps) return", FORWARD_STRIDED),
    "rows not tested": InKernel(FPROP, "inside(pixel.h + tap.h, H) && ", "", FORWARD),
    "filters of the first group": InKernel(
        FPROP, "w += first_filter * grid.filters.n", "w += k0 * grid.filters.n", GROUPS
    ),
    "channels of the first group": InKernel(FPROP, "x += group * group_channels * grid.image.c;", "", GROUPS),
    "pixels past the last one": InKernel(
        FPROP, "real ? static_cast<Index>(n * grid.result.n", "true ? static_cast<Index>(n * grid.result.n", FORWARD
    ),
    "class of the wrong parity": InKernel(DGRAD, "h_padded % stride_h", "h0 % stride_h", BACKWARD),
    "taps of a class not a step apart": InKernel(
        DGRAD, "take_digit(k, grid.taps_w) * step_w", "take_digit(k, grid.taps_w)", BACKWARD
    ),
    "tap outside of the filter": InKernel(DGRAD, "if (r >= R || s >= S) return none;", "", BACKWARD),
    "filters of a chunk all the first": InKernel(
        DGRAD, "row % Shared::step * static_cast<Index>(grid.filters.n)", "0", BACKWARD
    ),
    "weights of the first group": InKernel(
        DGRAD, "w += group * group_filters * grid.filters.n + c0", "w += c0", BACKWARD_GROUPS
    ),
    "taps past the last not marked": InKernel(WGRAD, "shared.result[i] = real ?", "shared.result[i] = true ?", SLICES),
    "first slice again and again": InKernel(WGRAD, "Index n = pixel0 + pixel", "Index n = pixel", SLICES),
    # Results
    "part over that of another slice": InKernel(SHARED, "nullptr : partial + slice", "nullptr : partial", SLICES),
    "one strip for all warps": InKernel(
        SHARED, "static_cast<Strip*>(memory)[warp]", "static_cast<Strip*>(memory)[0]", FORWARD
    ),
    "strip read before it is whole": InKernel(
        SHARED, "        __syncwarp();\n        if (result.way", "        if (result.way", FORWARD
    ),
    "bias of every slice": InKernel(FPROP, "first ? b : nullptr", "b", FUSED),
    "residual left out": InKernel(FPROP, "first ? residual : nullptr", "nullptr", FUSED),
    "scale of the other axis": InKernel(FPROP, "T.vectors ? n : m", "T.vectors ? m : n", FUSED),
    # Launches and plans
    "image taken for filters": InLaunch(swapped(2, 3), FORWARD),
    "last block not launched": InLaunch(grid_too_small, BACKWARD),
    "half of the threads": InLaunch(block_too_small, FILTERS),
    "slices that do not reach the last pixel": InLaunch(shorter_slices, SLICES),
    "less shared memory": InLaunch(less_shared, LARGE_TILE),
    "eights of odd planes": InHost("pycnn.backends.cuda.tensor._BY_COLUMNS", lambda way: tensor._BY_CHUNKS, ODD_PLANES),
    "filters always in chunks": InHost(
        "pycnn.backends.cuda.tensor._in_chunks", lambda call: lambda *given: True, FORWARD_STRIDED
    ),
    "alignment not looked at": InHost(
        "pycnn.backends.cuda.tensor.reads_chunks", lambda call: tensor.is_channels_last, SKEWED
    ),
    "slices not summed": InHost(
        "pycnn.backends.cuda.tensor.sum_slices",
        lambda call: lambda host, part, out: host.device.fill(out, part[0]),
        SLICES,
    ),
}

FAST = ("low part of the right dropped", "left registers 1 and 2 swapped")
