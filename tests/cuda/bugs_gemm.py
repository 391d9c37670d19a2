"""Seeded bugs of the matrix product, its mainloop and loaders, and of what launches it."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn.backends import reference
from pycnn.backends.cuda.device import Reads
from pycnn.backends.cuda.gemm import GemmPlan, sgemm
from pycnn.backends.cuda.plan import Epilogue

SGEMM, CORE, COPY = "sgemm.cu", "gemm.cuh", "arch/cp_async.cuh"


class Product(NamedTuple):
    """A product of integer matrices by one tile; op(a) is M x K and op(b) K x N."""

    form: str
    tile: str
    M: int
    N: int
    K: int
    batch: int = 1
    gap: int = 0  # elements between the rows of a, b and the result
    source: str = f"{SGEMM} slices.cu"

    def results(self, backend: Any) -> list[np.ndarray]:
        """scale * op(a) op(b) + bias + residual, for each product of the batch."""
        rng = np.random.default_rng(0)
        trans_a, trans_b = self.form[0] == "t", self.form[1] == "t"
        shapes = (
            (self.batch, self.K, self.M) if trans_a else (self.batch, self.M, self.K),
            (self.batch, self.N, self.K) if trans_b else (self.batch, self.K, self.N),
            (self.batch * self.M,),
            (self.batch * self.M,),
            (self.batch, self.M, self.N),
        )
        given = [rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes]
        if backend is reference:
            products = [reference.gemm(x, y, trans_a, trans_b) for x, y in zip(*given[:2], strict=True)]
            scale, bias = (channels.reshape(self.batch, self.M, 1) for channels in given[2:4])
            return [scale * np.stack(products) + bias + given[4]]
        device = backend.host.device
        placed = [self._alloc(device, array.shape, self.gap if len(array.shape) == 3 else 0) for array in given]
        for place, array in zip(placed, given, strict=True):
            device.fill(place, array)
        out = self._alloc(device, (self.batch, self.M, self.N), self.gap)
        epilogue = Epilogue(*placed[2:])
        sgemm(backend.host, *placed[:2], out, trans_a=trans_a, trans_b=trans_b, epilogue=epilogue, tile=self.tile)
        return [np.array(out)]

    @staticmethod
    def _alloc(device: Any, shape: tuple[int, ...], gap: int) -> Any:
        """Rows `gap` elements apart; the memory ends with the last of them."""
        if not gap:
            return device.alloc(shape, np.float32)
        _, rows, columns = shape
        room = device.alloc((rows * (columns + gap) - gap,), np.float32)
        return np.lib.stride_tricks.as_strided(room, (1, rows, columns), (4, 4 * (columns + gap), 4), subok=True)


# Tails everywhere, more tiles of k than stages; rows of 4 floats' multiple and not; slices; a batch.
ALONG = Product("nt", "64x64", 70, 66, 75)
ACROSS = Product("tn", "64x64", 72, 68, 75)
MISALIGNED = Product("tn", "64x64", 71, 67, 75)
GAPS = Product("tn", "64x64", 70, 66, 20, gap=2)  # vectors, and a tail that is not one
SLICES = Product("nn", "32x128", 5, 33, 700)
BATCH = Product("nn", "64x64", 6, 9, 20, batch=3)
LARGE = Product("nn", "128x128", 130, 132, 45)
CASES = {
    "along k": ALONG,
    "across k": ACROSS,
    "misaligned": MISALIGNED,
    "gaps": GAPS,
    "slices": SLICES,
    "batch": BATCH,
    "large": LARGE,
}


def fewer_slices(plan: GemmPlan) -> GemmPlan:
    return dataclasses.replace(plan, k_slice=plan.k_slice - 16)


def k_one_less(grid: tuple, block: tuple, shared: int, arguments: list) -> tuple:
    if not isinstance(arguments[1], Reads) or arguments[1].name != "a":
        return grid, block, shared, arguments
    M, N, K = struct.unpack_from("<3q", arguments[0])
    return grid, block, shared, [struct.pack("<3q", M, N, K - 1) + arguments[0][24:], *arguments[1:]]


BUGS: dict[str, Bug] = {
    "wait for all groups but one too many": InKernel(
        CORE, "cp_async_wait<T.stages - 2>", "cp_async_wait<T.stages - 1>", ALONG
    ),
    "no wait at all": InKernel(CORE, "cp_async_wait<T.stages - 2>();", "", LARGE),
    "group closed only where a tile is copied": InKernel(
        CORE,
        "        }\n        cp_async_commit();\n        a.prepare(tile",
        "            cp_async_commit();\n        }\n        a.prepare(tile",
        ALONG,
    ),
    "no barrier after the wait": InKernel(CORE, "        __syncthreads();  // everyone's copies", "  // ", ALONG),
    "copied into the stage in use": InKernel(
        CORE, "int used = 0, filled = T.stages - 1", "int used = 0, filled = 0", ALONG
    ),
    "stage forgotten in the ring": InKernel(CORE, "used + 1 == T.stages ? 0", "used + 2 == T.stages ? 0", LARGE),
    "one tile of k too few": InKernel(
        CORE, "for (Index tile = 0; tile < tiles", "for (Index tile = 1; tile < tiles", ACROSS
    ),
    "one k of a tile too few": InKernel(
        CORE, "k < T.tile_k; ++k) {\n            float", "k + 1 < T.tile_k; ++k) {\n            float", LARGE
    ),
    "quarters of a thread side by side": InKernel(CORE, "j / 4 * 4 * T.lanes_n()", "j / 4 * 4", LARGE),
    "no guard on the last k, along": InKernel(CORE, " && k < ks_left_ ? 4", " ? 4", ALONG),
    "no guard on the last row, along": InKernel(CORE, "i < rows_left_ && ", "", ALONG),
    "no guard on the last k, across": InKernel(CORE, "i < ks_left_ ? bytes_ : 0", "bytes_", ACROSS),
    "whole vectors past the last column": InKernel(
        CORE, "columns_left > 0 ? 4 * columns_left : 0", "columns_left > 0 ? 16 : 0", GAPS
    ),
    "vectors whatever the alignment": InKernel(CORE, "% 16 == 0;", "% 4 == 0;", MISALIGNED),
    "copies along k not transposed": InKernel(CORE, "&to[k_ + k][row_ + i]", "&to[k_ + k][row_]", ALONG),
    "k advances by a row too few": InKernel(
        CORE, "tile_step_ = tile_k * pitch", "tile_step_ = (tile_k - 1) * pitch", ACROSS
    ),
    "copies of zeros left out": InKernel(
        COPY,
        "sim::cp_async(to, from, bytes, static_cast<unsigned>(real));",
        "if (real > 0) sim::cp_async(to, from, bytes, static_cast<unsigned>(real));",
        ALONG,
    ),
    "real bytes ignored by the instruction": InKernel(
        COPY, '"cp.async.ca.shared.global [%0], [%1], %2, %3;"', '"cp.async.ca.shared.global [%0], [%1], %2;"', ALONG
    ),
    "no guard on the last row of the result": InKernel(SGEMM, "if (row >= rows) break;", "", ALONG),
    "no guard on the last column of the result": InKernel(CORE, "if (i < real) out[i]", "out[i]", MISALIGNED),
    "vector stores past the last column": InKernel(CORE, "vectors && real >= 4", "vectors && real > 0", GAPS),
    "bias in every slice": InKernel(SGEMM, "first_slice ? bias : nullptr", "bias", SLICES),
    "k of the first slice in every slice": InKernel(SGEMM, "k0 = block.slice * problem.k_slice", "k0 = 0", SLICES),
    "slices over one another": InKernel(SGEMM, "out += block.slice * problem.slice;", "", SLICES),
    "channel of the first product": InKernel(SGEMM, "block.inner * problem.M + m0", "m0", BATCH),
    "batch of a forgotten": InKernel(SGEMM, "block.inner * problem.a.inner", "0", BATCH),
    "rows for columns": InKernel(
        SGEMM,
        "block.m0 * T.tile_m, n0 = block.n0 * T.tile_n",
        "block.n0 * T.tile_m, n0 = block.m0 * T.tile_n",
        Product("nn", "64x64", 130, 20, 20),
    ),
    "a for b": InLaunch(swapped(1, 2), LARGE),
    "scale for bias": InLaunch(swapped(3, 4), LARGE),
    "last tile of a product not launched": InLaunch(grid_too_small, ALONG),
    "half of every block of a product": InLaunch(block_too_small, ALONG),
    "last k forgotten by the host": InLaunch(k_one_less, SLICES),
    "slices that do not reach the end of k": InHost(
        "pycnn.backends.cuda.gemm.gemm_plan",
        lambda call: lambda *given, **named: fewer_slices(call(*given, **named)),
        SLICES,
    ),
    "slices not added up": InHost(
        "pycnn.backends.cuda.gemm.sum_slices",
        lambda call: lambda host, slices, out: host.device.fill(out, slices[0]),
        SLICES,
    ),
}

FAST = ("wait for all groups but one too many", "no barrier after the wait", "whole vectors past the last column")
