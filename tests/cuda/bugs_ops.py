"""Seeded bugs of the kernels that are neither products nor pooling, and of what launches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel, InLaunch, block_too_small, grid_too_small, swapped

from pycnn.backends import reference
from pycnn.backends.cuda.device import Extent


def integers(*shape: int, most: int = 9) -> np.ndarray:
    return np.random.default_rng(1).integers(-most, most + 1, shape).astype(np.float32)


class Operator(NamedTuple):
    """A call that is exact, or whose result is rounded so far that every right backend has the same."""

    call: Callable[[Any], Any]
    source: str
    digits: int | None = None  # decimals that are kept of a result that is not exact

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns."""
        found = self.call(backend)
        arrays = list(found) if isinstance(found, tuple) else [found]
        if self.digits is None:
            return arrays
        return [np.round(array.astype(np.float64), self.digits) + 0.0 for array in arrays]


X = integers(3, 5, 7, 11)
TABLE = np.where(integers(6, 5, most=1) > 0, 2.0, 1.0).astype(np.float32)  # rows of softmax with few distinct sums
ROWS = integers(3, 300, most=3)
BATCH = integers(70, 40)
PLANES = integers(9, 3, 24, 24)
TARGET = np.random.default_rng(2).integers(-1, 5, (3, 7, 11))
WEIGHT = np.arange(1, 6).astype(np.float32)
PARTS = [integers(2, n, 1024) for n in (1, 3, 2)]


class Optimiser:
    """A backend's device as the optimisers take it; the oracle does in NumPy what the steps come to."""

    @staticmethod
    def momentum(backend: Any) -> list[np.ndarray]:
        """Two steps of SGD, momentum and dampening 1/2, on arrays of several sizes, one of them empty."""
        params = [integers(n) for n in (3, 0, 5000, 2048)]
        slopes = [4 * integers(n)[::-1].copy() for n in (3, 0, 5000, 2048)]
        if backend is reference:
            return [p - g for p, g in zip(params, slopes, strict=True)]
        host = backend.host
        device = host.device
        held, grads = ([_onto(device, one) for one in each] for each in (params, slopes))
        buffers = [device.alloc(p.shape, np.float32) for p in params]
        settings = _onto(device, np.array([0.5, 0.5, 0.5, 0.0], np.float32))
        for first in (True, False):
            host.sgd_step(held, grads, buffers, settings, False, first)
        return [np.array(p) for p in held]

    @staticmethod
    def norm(backend: Any) -> list[np.ndarray]:
        """The norm of gradients whose squares are integers."""
        slopes = [integers(n) for n in (3, 5000, 4096)]
        if backend is reference:
            return [np.sqrt(np.float32(sum((g.astype(int) ** 2).sum() for g in slopes)))]
        device = backend.host.device
        return [np.array(backend.host.gradient_norm([_onto(device, g) for g in slopes]))]

    @staticmethod
    def scaled(backend: Any) -> list[np.ndarray]:
        """A scaled step that is taken, one that overflows in its last element, and another; the scale, the counts."""
        sizes = (3, 5000, 2051)
        params, slopes = [integers(n) for n in sizes], [2 * integers(n)[::-1].copy() for n in sizes]
        if backend is reference:
            after = [p - g for p, g in zip(params, slopes, strict=True)]
            return [*after, *(4 * g for g in slopes), *map(np.float32, (8, 0)), *map(np.int64, (1, 2))]
        host = backend.host
        device = host.device
        held = [_onto(device, p) for p in params]
        settings = _onto(device, np.array([0.5, 0.0, 1.0, 0.0], np.float32))
        scale, found = _onto(device, np.array(4, np.float32)), _onto(device, np.array(0, np.float32))
        steady, count = _onto(device, np.array(1, np.int64)), _onto(device, np.array(0, np.int64))
        factor = 4  # as the scale should be: 4, grown to 16, backed off to 8
        for bad in (False, True, False):
            scaled = [g * np.float32(factor) for g in slopes]
            if bad:
                scaled[-1][-1] = np.inf
            grads = [_onto(device, g) for g in scaled]
            host.unscale_gradients(grads, scale, found, False)
            host.sgd_step(held, grads, None, settings, False, False, scale, found)
            host.count_step(count, found)
            host.next_scale([found], scale, steady, 4.0, 0.5, 2)
            factor = 16 if factor == 4 else 8
        divided = [_onto(device, 32 * g) for g in slopes]
        host.unscale_gradients(divided, scale, found, True)
        return [np.array(one) for one in (*held, *divided, scale, found, steady, count)]

    @staticmethod
    def masters(backend: Any) -> list[np.ndarray]:
        """Copies of 16-bit parameters of which some were written to: taken over, widened, and rounded again."""
        kept = [integers(n) + np.float32(2.0**-13) for n in (3, 4100, 2050)]
        params = [array.astype(np.float16) for array in kept]
        for param in params:
            param[-1] = np.nan
            param[1::5] = 17
        if backend is reference:
            wides = [param.astype(np.float32) for param in params]
            known = [p.astype(np.float16) == k.astype(np.float16) for p, k in zip(params, kept, strict=True)]
            after = [np.where(same, k, w) for same, k, w in zip(known, kept, wides, strict=True)]
            return [*after, *wides, *((one * np.float32(1.125)).astype(np.float16) for one in after)]
        host = backend.host
        device = host.device
        held, copies, wides = ([_onto(device, one) for one in each] for each in (params, kept, kept))
        host.take_over(copies, held)
        host.widen_all(wides, held)
        host.round_all(held, [_onto(device, np.array(one) * np.float32(1.125)) for one in copies])
        return [np.array(one) for one in (*copies, *wides, *held)]


def _onto(device: Any, values: np.ndarray) -> Any:
    array = device.alloc(values.shape, values.dtype)
    device.fill(array, values)
    return array


class Steps(NamedTuple):
    """An optimiser's call, which the reference backend does not have."""

    call: Callable[[Any], list[np.ndarray]]
    source: str = "optimizer.cu"

    def results(self, backend: Any) -> list[np.ndarray]:
        """The arrays afterwards."""
        return self.call(backend)


NORM = "batchnorm.cu"

CASES: dict[str, Any] = {
    "relu": Operator(lambda b: b.relu_fwd(np.where(X == 3, np.nan, X)), "elementwise.cu"),
    "relu backward": Operator(lambda b: b.relu_bwd(X, np.where(X == 3, np.nan, X)), "elementwise.cu"),
    "add": Operator(lambda b: b.add(PLANES, 1 - PLANES), "elementwise.cu"),
    "pad": Operator(lambda b: b.pad2d(X, (1, 2, 3, 0), -5.0), "shaping.cu"),
    "pad below": Operator(lambda b: b.pad2d(X, (0, 2, 2, 0), -5.0), "shaping.cu"),
    "concat": Operator(lambda b: b.concat(PARTS, 1), "shaping.cu"),
    "channel sum": Operator(lambda b: b.channel_sum(PLANES), "channel_sum.cu"),
    "channel sum of odd planes": Operator(lambda b: b.channel_sum(X), "channel_sum.cu"),
    "channel sum of columns": Operator(lambda b: b.channel_sum(BATCH), "channel_sum.cu"),
    "affine": Operator(lambda b: b.channel_affine(X, WEIGHT, WEIGHT[::-1].copy()), NORM),
    "batch norm": Operator(lambda b: b.batch_norm_fwd(PLANES, None, None, 1e-3), NORM, digits=3),
    "batch norm of columns": Operator(lambda b: b.batch_norm_fwd(BATCH, None, None, 1e-3), NORM, digits=3),
    "batch norm far from zero": Operator(lambda b: b.batch_norm_fwd(PLANES + 2**20, None, None, 1e-3), NORM, digits=3),
    "batch norm backward": Operator(
        lambda b: b.batch_norm_bwd(PLANES, PLANES[::-1].copy(), None, WEIGHT[:3], WEIGHT[:3] ** 2, 0.0), NORM, digits=1
    ),
    "lrn": Operator(lambda b: b.lrn_fwd(integers(2, 40, 5), 5, 0.5, 0.75, 1.0), "lrn.cu", digits=3),
    "lrn backward": Operator(
        lambda b: b.lrn_bwd(integers(2, 40, 5), integers(2, 40, 5) / 4, 5, 0.5, 0.75, 1.0), "lrn.cu", digits=2
    ),
    "lrn of any size": Operator(lambda b: b.lrn_fwd(integers(2, 40, 5), 4, 0.5, 0.75, 1.0), "lrn.cu", digits=3),
    "softmax of rows": Operator(lambda b: b.softmax_fwd(ROWS, 1), "softmax.cu", digits=5),
    "softmax of channels": Operator(lambda b: b.softmax_fwd(X / 4, 1), "softmax.cu", digits=4),
    "softmax backward": Operator(lambda b: b.softmax_bwd(ROWS, ROWS[::-1].copy(), 1), "softmax.cu"),
    "huge scores": Operator(lambda b: b.softmax_fwd(1e30 * TABLE, 1), "softmax.cu", digits=5),
    "nll": Operator(lambda b: b.nll_fwd(X, TARGET, WEIGHT, -1, "sum"), "nll.cu"),
    "nll each": Operator(lambda b: b.nll_fwd(X, TARGET, WEIGHT, -1, "none"), "nll.cu"),
    "nll backward": Operator(lambda b: b.nll_bwd(integers(3, 7, 11), TARGET, WEIGHT, X.shape, -1, "none"), "nll.cu"),
    "words": Operator(lambda b: b.philox_uint32(3001, 0x0123456789ABCDEF, 2**64 - 300), "random.cu"),
    "dropout": Operator(lambda b: b.dropout(np.where(X == 0, np.nan, X), 0.5, 7, 2**64 - 9), "random.cu"),
    "momentum": Steps(Optimiser.momentum),
    "norm": Steps(Optimiser.norm),
    "scaled": Steps(Optimiser.scaled),
    "masters": Steps(Optimiser.masters, "master.cu"),
}


def _mean_for_variance(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    """In the map alone, the one launch with so many arguments."""
    return swapped(3, 5)(grid, block, shared, arguments) if len(arguments) == 11 else (grid, block, shared, arguments)


def _found_for_scale(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    """In the step alone, the one launch with so many arguments."""
    return swapped(6, 7)(grid, block, shared, arguments) if len(arguments) == 8 else (grid, block, shared, arguments)


def _chunk_too_long(pack: Any) -> Any:
    return lambda sizes, chunk, capacity: pack(sizes, 2 * chunk, capacity)


BUGS: dict[str, Bug] = {
    "NaN is not above zero": InKernel("elementwise.cu", "x <= 0.0f ? 0.0f : x", "x > 0.0f ? x : 0.0f", CASES["relu"]),
    "gradient stopped by NaN": InKernel(
        "elementwise.cu", "b <= 0.0f ? 0.0f : a", "b > 0.0f ? a : 0.0f", CASES["relu backward"]
    ),
    "last stretch taken for a whole one": InKernel(
        "stream.cuh", "aligned && (block + 1) * elements <= array_size", "aligned", CASES["relu"]
    ),
    "tail guarded by its first element": InKernel(
        "stream.cuh", "if (place(i) + v < size) to[", "if (place(i) < size) to[", CASES["relu"]
    ),
    "vectors of a thread side by side": InKernel(
        "stream.cuh", "vector * (width * threads)", "vector * width", CASES["add"]
    ),
    "padding of the wrong side": InKernel("shaping.cu", "row - static_cast<Index>(s.top)", "row", CASES["pad"]),
    "plane not advanced": InKernel("shaping.cu", "++plane;", "", CASES["pad below"]),
    "block of the next array": InKernel(
        "tensors.cuh", "arrays.first[array + step] <= block", "arrays.first[array + step] < block", CASES["concat"]
    ),
    "offset of a part forgotten": InKernel(
        "shaping.cu", "(row * s.length + offset + column) / width", "(row * s.length + column) / width", CASES["concat"]
    ),
    "chunks longer than a block's": InHost("pycnn.backends.cuda.optim.pack_arrays", _chunk_too_long, CASES["momentum"]),
    "no barrier before the warps meet": InKernel(
        "reduce.cuh",
        "meeting.value[warp][lane] = mine;\n        __syncthreads();",
        "meeting.value[warp][lane] = mine;",
        CASES["channel sum"],
    ),
    "butterfly one step short": InKernel(
        "reduce.cuh",
        "distance < together && distance < 32",
        "distance < together && distance < 16",
        CASES["channel sum"],
    ),
    "first warp of another group": InKernel(
        "reduce.cuh", "warp / warps_together * warps_together", "0", CASES["softmax of channels"]
    ),
    "rows beyond the slice": InKernel(
        "channels.cuh",
        "const bool exists = n < slice.n_end;",
        "const bool exists = true;",
        CASES["channel sum of odd planes"],
    ),
    "partial results overwrite each other": InKernel(
        "channel_sum.cu", "partial[blockIdx.y * slices.C + channel]", "partial[channel]", CASES["channel sum"]
    ),
    "channels past the last": InKernel(
        "channel_sum.cu",
        "writes_partial<T>() && channel < slices.C",
        "writes_partial<T>()",
        CASES["channel sum of columns"],
    ),
    "slices that go on to the last sample": InKernel(
        "channels.cuh", "n + s.samples < s.N ? n + s.samples : s.N", "s.N", CASES["channel sum"]
    ),
    "channels and columns exchanged": InHost(
        "pycnn.backends.cuda.norm.pack_divisors", lambda pack: lambda divisors: pack(divisors[::-1]), CASES["affine"]
    ),
    "channel kept across planes": InKernel(
        "channels.cuh",
        "if (++column < static_cast<Index>(grid.L.value)) return false;",
        "return false;",
        CASES["affine"],
    ),
    "channels do not begin again": InKernel(
        "channels.cuh",
        "if (++channel == static_cast<Index>(grid.C.value)) channel = 0;",
        "++channel;",
        CASES["affine"],
    ),
    "moments merged without the distance": InKernel(
        "reduce.cuh",
        "squares += other.squares + distance * distance",
        "squares += other.squares + 0.0f * distance",
        CASES["batch norm"],
    ),
    "absent elements counted": InKernel(
        "batchnorm.cu", "if (i < visited.count) sum +=", "sum +=", CASES["batch norm of columns"]
    ),
    "statistics far from zero": InKernel(
        "batchnorm.cu",
        "return to_float(x[channel * slices.L]);",
        "return 0.0f * to_float(x[channel * slices.L]);",
        CASES["batch norm far from zero"],
    ),
    "slopes and sums exchanged": InKernel(
        "batchnorm.cu",
        "to[0] = sums.first;\n        to[slices.C] = sums.second;",
        "to[0] = sums.second;\n        to[slices.C] = sums.first;",
        CASES["batch norm backward"],
    ),
    "mean taken for variance": InLaunch(_mean_for_variance, CASES["batch norm"]),
    "window one channel late": InKernel(
        "lrn.cu",
        "for (int i = -before; i < after; ++i) window.take(at_channel(x, s, place.pixel, place.begin + i));",
        "for (int i = -before; i < after; ++i) window.take(at_channel(x, s, place.pixel, place.begin + i + 1));",
        CASES["lrn"],
    ),
    "gradient of channels that are not there": InKernel(
        "lrn.cu",
        "if (c >= place.begin && c < place.end) {\n                    const",
        "if (c < place.end) {\n                    const",
        CASES["lrn backward"],
    ),
    "even window centred wrongly": InKernel(
        "lrn.cu", "last = c + (s.size - 1) / 2", "last = c + s.size / 2", CASES["lrn of any size"]
    ),
    "scores not taken below their maximum": InKernel(
        "softmax.cu", "Largest largest{minus_infinity()}", "Largest largest{3e38f}", CASES["huge scores"]
    ),
    "half of a row": InKernel(
        "rows.cuh",
        "s.outer && place.inner < s.inner ? s.length : 0",
        "s.outer ? s.length : 0",
        CASES["softmax of channels"],
    ),
    "half of every block of rows": InLaunch(block_too_small, CASES["softmax of rows"]),
    "row sum of one warp": InKernel(
        "reduce.cuh",
        "for (int i = 1; i < warps_together; ++i)",
        "for (int i = 1; i < 1; ++i)",
        CASES["softmax backward"],
    ),
    "ignored targets counted": InKernel("nll.cu", "if (t != s.ignored) {", "if (true) {", CASES["nll each"]),
    "class of another sample": InKernel(
        "nll.cu", "x[(n * s.C + t) * s.L + (i - n * s.L)]", "x[t * s.L + (i - n * s.L)]", CASES["nll"]
    ),
    "gradient at every class": InKernel("nll.cu", "k == t ? share : elsewhere", "share", CASES["nll backward"]),
    "weights taken for targets' gradients": InLaunch(swapped(3, 5), CASES["nll backward"]),
    "last block of targets forgotten": InLaunch(grid_too_small, CASES["add"]),
    "carry of the counter lost": InKernel("philox.cuh", " + (low < start ? 1 : 0)", "", CASES["words"]),
    "nine rounds": InKernel("philox.cuh", "round < 10", "round < 9", CASES["words"]),
    "key not stirred": InKernel("philox.cuh", "key1 += 0xBB67AE85u;", "", CASES["words"]),
    "dropped elements multiplied by zero": InKernel(
        "random.cu",
        "each * scale : 0.0f",
        "each * scale : 0.0f * each",
        CASES["dropout"],
    ),
    "words of the block's first counter": InKernel(
        "random.cu",
        "philox(stream, drawn, (stretch.place(i) + first) / 4)",
        "philox(stream, drawn, (stretch.place(0) + first) / 4)",
        CASES["dropout"],
    ),
    "stale buffer at the first step": InKernel(
        "optimizer.cu", "buffer[i][e] = mode.first ? d : kept;", "buffer[i][e] = kept;", CASES["momentum"]
    ),
    "buffer not written": InKernel(
        "optimizer.cu", "if (mode.momentum) stretch.write(v, buffer);", "", CASES["momentum"]
    ),
    "gradients taken for parameters": InLaunch(swapped(1, 2), CASES["momentum"]),
    "blocks of the second array counted anew": InKernel(
        "optimizer.cu",
        "partial[base + block] = sum.value",
        "partial[base + block - arrays.first[array]] = sum.value",
        CASES["norm"],
    ),
    "an overflowing step is taken": InKernel(
        "optimizer.cu",
        "if (found != nullptr && *found != 0.0f) return;\n    const int block = static_cast<int>(blockIdx.x), "
        "array = array_of(arrays, block);\n    float *p = params.pointer[array], *v",
        "const int block = static_cast<int>(blockIdx.x), "
        "array = array_of(arrays, block);\n    float *p = params.pointer[array], *v",
        CASES["scaled"],
    ),
    "an overflowing step is counted": InKernel(
        "optimizer.cu",
        "if (threadIdx.x == 0 && *found == 0.0f) *step += 1",
        "if (threadIdx.x == 0) *step += 1",
        CASES["scaled"],
    ),
    "infinity passes for a number": InKernel(
        "optimizer.cu",
        "fabsf(slope[i][e]) <= kLargest;  // not",
        "slope[i][e] == slope[i][e];  // not",
        CASES["scaled"],
    ),
    "gradients multiplied by the scale": InKernel("optimizer.cu", "__fdiv_rn(1.0f, *scale)", "*scale", CASES["scaled"]),
    "what was found stays found": InKernel("optimizer.cu", "*founds.pointer[i] = 0.0f;", "", CASES["scaled"]),
    "the scale grows a step late": InKernel(
        "optimizer.cu",
        "const bool grows = count == rule.interval",
        "const bool grows = count > rule.interval",
        CASES["scaled"],
    ),
    "copies that are not written": InKernel("master.cu", "if (!same) stretch.write(m, copy)", "", CASES["masters"]),
    "copies of what was stepped, too": InKernel(
        "master.cu", "to_float(from_float<Stored<T>>(copy[i][e]))", "copy[i][e]", CASES["masters"]
    ),
    "NaN passes for its copy": InKernel(
        "master.cu",
        "== param[i][e]) continue",
        "== param[i][e] || param[i][e] != param[i][e]) continue",
        CASES["masters"],
    ),
    "scale and found swapped": InLaunch(_found_for_scale, CASES["scaled"]),
}

FAST = ("no barrier before the warps meet", "block of the next array")
