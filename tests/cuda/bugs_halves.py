"""Seeded bugs of what is particular to 16 bits: conversions, vectors of eight, one rounding, float32 beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from seeded import Bug, InHost, InKernel
from simulated import view_off_by_one

from pycnn.backends import reference
from pycnn.testing.halves import half_dtypes, in_dtype, rounded, widened

FLOAT16, WIDE = half_dtypes()[0], half_dtypes()[-1]  # the latter is bfloat16, where ml_dtypes is installed


class Half(NamedTuple):
    """A call in 16 bits whose sums are exact in float32, so that every right backend has the same bits."""

    function: str
    arguments: tuple[Any, ...]
    source: str
    dtype: np.dtype = FLOAT16
    shifted: bool = False  # arrays begin two bytes past a multiple of 16

    def results(self, backend: Any) -> list[np.ndarray]:
        """What it returns, as float32."""
        given = in_dtype(self.arguments, self.dtype)
        if backend is reference:
            found = getattr(reference, self.function)(*map(widened, given))
            found = found if isinstance(found, tuple) else (found,)
            # Vectors are sums and statistics, which stay float32.
            found = tuple(y if y.ndim == 1 else rounded(y, self.dtype) for y in found)
        elif self.shifted:
            device = backend.host.device
            placed = [view_off_by_one(device, one) if isinstance(one, np.ndarray) else one for one in given]
            found = getattr(backend.host, self.function)(*placed)
        else:
            found = getattr(backend, self.function)(*given)
        found = found if isinstance(found, tuple) else (found,)
        return [np.array(y).astype(np.float32) for y in found]


def integers(*shape: int, most: int = 9) -> np.ndarray:
    return np.random.default_rng(1).integers(-most, most + 1, shape).astype(np.float32)


X = integers(3, 5, 7, 11)
LONG = integers(1, 2 * 2048 + 13)  # whole stretches and a tail
PARTS = [integers(2, n, 1024) for n in (1, 3, 2)]
FOURS = [integers(2, n, 1020) for n in (1, 3, 2)]  # rows that are whole fours and no eights
CHANNELS = np.arange(1, 6).astype(np.float32)

# Of mean 0 and variance 1, so that y is a third of x; a third in float16 takes all of that away but what float32 has
# beyond it.
SIGNS = np.where(np.arange(4 * 5 * 32).reshape(4, 5, 32) // 160 % 2, -1, 1).astype(np.float32)
THIRDS = np.full(5, 1 / 3, np.float32)
RESIDUAL = np.where(np.arange(32) % 2, integers(4, 5, 32) / 8, -SIGNS / 3).astype(np.float32)

CASES: dict[str, Any] = {
    "relu": Half("relu_fwd", (LONG,), "elementwise.cu"),
    "relu of a view": Half("relu_fwd", (LONG,), "elementwise.cu", shifted=True),
    "add": Half("add", (LONG / 8, 100 * LONG[:, ::-1]), "elementwise.cu"),
    "add in bfloat16": Half("add", (LONG / 8, 100 * LONG[:, ::-1]), "elementwise.cu", WIDE),
    "dropout": Half("dropout", (LONG, 0.5, 7, 3), "random.cu"),
    "channel sum": Half("channel_sum", (100 + integers(9, 3, 24, 24),), "channel_sum.cu"),
    "channel sum of fours": Half("channel_sum", (integers(3, 4, 14, 14),), "channel_sum.cu"),
    "affine": Half("channel_affine", (X, CHANNELS, CHANNELS[::-1].copy()), "batchnorm.cu"),
    "affine by 16 bits": Half("channel_affine", (X[:1, :, 0, 0], *rounded(X[:2, :, 0, 0], FLOAT16)), "batchnorm.cu"),
    "batch norm, residual and relu": Half("batch_norm_fwd", (SIGNS, THIRDS, None, 0.0, RESIDUAL, True), "batchnorm.cu"),
    "pad": Half("pad2d", (X, (1, 2, 3, 0), -5.0), "shaping.cu", WIDE),
    "concat": Half("concat", (PARTS, 1), "shaping.cu"),
    "concat of fours": Half("concat", (FOURS, 1), "shaping.cu"),
    "max": Half("max_pool2d_fwd", (X, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False), "pool2d.cu"),
    "average": Half("avg_pool2d_fwd", (201 * X, (3, 3), (2, 2), (1, 1, 1, 1), False, True, 4), "pool2d.cu"),
}


def _exchanged(short_name: Any) -> Any:
    others = {"f16": "bf16", "bf16": "f16"}
    return lambda dtype: others.get(found := short_name(dtype), found)


BUGS: dict[str, Bug] = {
    "float16 read as bfloat16": InHost("pycnn.backends.cuda.host.short_name", _exchanged, CASES["add"]),
    "bfloat16 cut off": InKernel(
        "arch/half.cuh", "(bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16", "bits >> 16", CASES["add in bfloat16"]
    ),
    "float16 rounded toward zero": InKernel("arch/half.cuh", "cvt.rn.f16.f32", "cvt.rz.f16.f32", CASES["add"]),
    "neighbours exchanged in a word": InKernel("arch/half.cuh", "high).bits) << 16", "low).bits) << 16", CASES["relu"]),
    "upper neighbour is the lower": InKernel(
        "arch/half.cuh", "static_cast<unsigned short>(pair >> 16)", "static_cast<unsigned short>(pair)", CASES["relu"]
    ),
    "fourth word of a vector": InKernel(
        "stream.cuh", "static_cast<uint32>(eight.w)", "static_cast<uint32>(eight.z)", CASES["relu"]
    ),
    "tail of four": InKernel(
        "stream.cuh",
        "for (int v = 0; v < width; ++v) {\n                    if (place(i) + v < size) to",
        "for (int v = 0; v < 4; ++v) {\n                    if (place(i) + v < size) to",
        CASES["relu"],
    ),
    "stretches of four": InKernel("stream.cuh", "block * elements + width *", "block * elements + 4 *", CASES["relu"]),
    "128 bits at any address": InKernel("common.cuh", "& 15) == 0", "& 1) == 0", CASES["relu of a view"]),
    "words of the first four": InKernel(
        "random.cu", "(stretch.place(i) + first) / 4", "stretch.place(i) / 4", CASES["dropout"]
    ),
    "sum kept in 16 bits": InKernel(
        "channel_sum.cu",
        "sum.value += part;",
        "sum.value = to_float(from_float<Stored<T>>(sum.value + part));",
        CASES["channel sum"],
    ),
    "window summed in 16 bits": InKernel(
        "pool2d.cu",
        "row += to_float(image[(h * W + w) * C]);",
        "row = to_float(from_float<Stored<T>>(row + to_float(image[(h * W + w) * C])));",
        CASES["average"],
    ),
    "planes of fours by eights": InKernel(
        "channels.cuh", "if (vectors && s.L % width == 0)", "if (vectors)", CASES["channel sum of fours"]
    ),
    "rows of fours by eights": InKernel(
        "shaping.cu",
        "(part | offset | s.length) % width == 0",
        "(part | offset | s.length) % 4 == 0",
        CASES["concat of fours"],
    ),
    "residual added to what was rounded": InKernel(
        "batchnorm.cu",
        "each += added[i][v];",
        "each = to_float(from_float<Stored<T>>(each)) + added[i][v];",
        CASES["batch norm, residual and relu"],
    ),
    "relu before the residual": InKernel(
        "batchnorm.cu",
        "if (T.finish && residual != nullptr) each += added[i][v];",
        "if (T.finish && residual != nullptr) each = fmaxf(each, 0.0f) + added[i][v];",
        CASES["batch norm, residual and relu"],
    ),
    "coefficients of 16 bits read as float32": InHost(
        "pycnn.backends.cuda.convert.convert",
        lambda convert: lambda host, array, dtype: array,
        CASES["affine by 16 bits"],
    ),
    "padding's value as float32": InHost(
        "pycnn.backends.cuda.shaping._word", lambda word: lambda value, dtype: np.float32(value).tobytes(), CASES["pad"]
    ),
    "maximum of the bits": InKernel(
        "pool2d.cu",
        "const float value = to_float(image[pixel * C]);",
        "const float value = __int_as_float(static_cast<int>(image[pixel * C].bits));",
        CASES["max"],
    ),
}

FAST = ("tail of four", "residual added to what was rounded")
