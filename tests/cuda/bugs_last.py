"""Seeded bugs of what reads and writes channels-last arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from bugs_ops import Operator, integers
from seeded import Bug, InHost, InKernel

from pycnn.memory_format import new_array

SOURCE = "channels_last.cu"


def last(x: np.ndarray) -> np.ndarray:
    placed = new_array(np.empty, x.shape, x.dtype, True)
    placed[...] = x
    return placed


# Two tiles of channels, the second with idle lanes; several slices, the last of them short; rows beyond the last.
MATRIX = last(integers(3, 136, 17, 11))
ODD = last(integers(2, 5, 9, 7))
COEFFICIENTS = np.arange(1, 137).astype(np.float32) % 7 - 3
SPREAD = COEFFICIENTS**2 + 1
OVER = ((3, 2), (2, 1), (1, 0, 0, 1))

CASES: dict[str, Any] = {
    "sum": Operator(lambda b: b.channel_sum(MATRIX), SOURCE),
    "statistics": Operator(lambda b: b.batch_norm_fwd(MATRIX, None, None, 1e-3)[1:], SOURCE, digits=3),
    "far from zero": Operator(lambda b: b.batch_norm_fwd(MATRIX + 2**20, None, None, 1e-3)[2], SOURCE, digits=3),
    "map": Operator(lambda b: b.channel_affine(MATRIX, COEFFICIENTS, SPREAD), SOURCE),
    "slopes": Operator(
        lambda b: b.batch_norm_bwd(MATRIX, MATRIX[::-1].copy(order="K"), None, COEFFICIENTS, SPREAD, 0.0)[1:],
        SOURCE,
        digits=1,
    ),
    "dropout": Operator(lambda b: b.dropout(ODD, 0.5, 7, 2**64 - 9), "random.cu"),
    "max": Operator(lambda b: b.max_pool2d_fwd(ODD, *OVER, (1, 1), False), "pool2d.cu"),
    "average backward": Operator(
        lambda b: b.avg_pool2d_bwd(ODD, (2, 5, 9, 7), (1, 1), (1, 1), (0,) * 4, *(False, False, 1)), "pool2d.cu"
    ),
    "pad": Operator(lambda b: b.pad2d(ODD, (1, 0, 2, 3), -5.0), "shaping.cu"),
    "concat": Operator(lambda b: b.concat([ODD, ODD[:, :3].copy(order="K")], 1), "shaping.cu"),
    "concat of both": Operator(lambda b: b.concat([ODD, np.ascontiguousarray(ODD)], 1), "shaping.cu"),
    "softmax": Operator(lambda b: b.softmax_fwd(ODD / 4, 1), "softmax.cu", digits=4),
}


BUGS: dict[str, Bug] = {
    "channels past the last": InKernel(SOURCE, "if (channel >= s.channels) end = first;", "", CASES["map"]),
    "rows past the last": InKernel(SOURCE, "if (end > s.rows) end = s.rows;", "", CASES["sum"]),
    "rows of the next slice": InKernel(
        SOURCE, "const bool exists = n + i * place.step < place.end;", "const bool exists = true;", CASES["sum"]
    ),
    "vectors meet without a barrier": InKernel(SOURCE, "if (v > 0) __syncthreads();", "", CASES["sum"]),
    "idle lanes write": InKernel(
        SOURCE,
        "return threadIdx.x < s.lanes && place.channel < s.channels;",
        "return threadIdx.x < s.lanes;",
        CASES["statistics"],
    ),
    "one channel's results for all": InKernel(SOURCE, "to[v] = sums[v].value;", "to[v] = sums[0].value;", CASES["sum"]),
    "origin of another channel": InKernel(
        SOURCE,
        "if (i < rows.count) sum += rows.value[0][i][v] - origin[v];",
        "if (i < rows.count) sum += rows.value[0][i][v] - origin[0];",
        CASES["statistics"],
    ),
    "statistics far from zero": InKernel(
        SOURCE, "read_vector(x + place.channel, origin);", "(void)0;", CASES["far from zero"]
    ),
    "slopes where sums belong": InKernel(
        SOURCE,
        "to[v] = sums[v].first;\n        to[slices.channels + v] = sums[v].second;",
        "to[v] = sums[v].second;\n        to[slices.channels + v] = sums[v].first;",
        CASES["slopes"],
    ),
    "lanes taken for rows": InKernel(
        SOURCE, "{lanes, T.threads() / lanes}", "{T.threads() / lanes, lanes}", CASES["statistics"]
    ),
    "coefficients of the first vector": InKernel(
        SOURCE, "line[v] = ChannelLine(given, place.channel + v);", "line[v] = ChannelLine(given, v);", CASES["map"]
    ),
    "random words in the order of memory": InKernel(
        "random.cu",
        "const int64 place = (image * s.channels + channel) * s.pixels + pixel;",
        "const int64 place = stretch.place(i) + v;",
        CASES["dropout"],
    ),
    "pixel not advanced": InKernel(
        "random.cu", "if (++pixel == s.pixels) {", "if (pixel == s.pixels) {", CASES["dropout"]
    ),
    "pixels side by side": InKernel("pool2d.cu", "to_float(image[pixel * C])", "to_float(image[pixel])", CASES["max"]),
    "windows of the first channel": InKernel(
        "pool2d.cu",
        "* columns.value * channels.value + place.channel;",
        "* columns.value * channels.value;",
        CASES["average backward"],
    ),
    "columns padded as if they were single": InHost(
        "pycnn.backends.cuda.shaping.pack_int64",
        lambda pack: lambda *values: pack(*values[:-1], values[-1] // 5) if len(values) == 4 else pack(*values),
        CASES["pad"],
    ),
    "whatever lies as it may": InHost(
        "pycnn.backends.cuda.host.lies_as", lambda lies: lambda array, last: True, CASES["concat of both"]
    ),
    "axes in the order of their names": InHost(
        "pycnn.backends.cuda.activation._rows",
        lambda rows: lambda array, axis, last, threads: rows(array, axis, False, threads),
        CASES["softmax"],
    ),
}

FAST = ("vectors meet without a barrier", "random words in the order of memory")
