"""Seeded bugs of the Winograd kernels, of their generated transforms and of what launches them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from seeded import Bug, Convolution, InHost, InKernel, InLaunch, grid_too_small

from pycnn.backends.cuda import winograd
from pycnn.backends.cuda.device import Extent
from pycnn.shape import Conv2dShape

FUSED, STAGED = "conv2d_winograd_fused.cu", "conv2d_winograd_staged.cu"
TRANSFORMS, HEADER = "winograd_transforms.cuh", "winograd.cuh"


class Rounded(Convolution):
    """A tile that is not exact: on small integers its results are within a half of the true ones."""

    def results(self, backend: Any) -> list[np.ndarray]:
        """The nearest integers."""
        return [np.rint(each) for each in super().results(backend)]


# Three stages of channels, two blocks of filters, two of tiles, tails everywhere; groups; paddings that differ.
SMALL = Convolution("winograd_f2x2_3x3", "n2c9h8w10_k70r3s3_pd1.0.2.1", FUSED)
SMALL_DGRAD = Convolution("winograd_f2x2_3x3", "n1c6h8w7_k10r3s3_pd1.0.2.3g2_dgrad", FUSED)
MIDDLE = Rounded("winograd_f4x4_3x3", "n2c3h10w12_k5r3s3_pd1.0.2.1", STAGED)
LARGE_DGRAD = Rounded("winograd_f6x6_3x3", "n1c4h8w13_k6r3s3_pd1.0.2.1g2_dgrad", STAGED)
# Filters of 5x5: two blocks of columns, two of rows, tails everywhere; groups.
FIVE = Rounded("winograd_f2x2_5x5", "n2c10h7w8_k34r5s5_pd1.0.2.3", STAGED)
FIVE_DGRAD = Rounded("winograd_f4x4_5x5", "n1c6h9w10_k20r5s5_pd2.1.0.3g2_dgrad", STAGED)
# Filters of one line: tails along both axes of the image, groups, paddings that differ.
ROW = Rounded("winograd_f1x4_1x3", "n2c5h6w11_k7r1s3_pd1.0.2.1", STAGED)
COLUMN = Rounded("winograd_f4x1_3x1", "n2c5h11w6_k7r3s1_pd1.2.0.1", STAGED)
ROW_DGRAD = Rounded("winograd_f1x4_1x5", "n1c6h5w10_k8r1s5_pd0.1.2.3g2_dgrad", STAGED)
COLUMN_DGRAD = Rounded("winograd_f4x1_5x1", "n1c6h10w5_k8r5s1_pd3.1.0.1g2_dgrad", STAGED)
WGRAD = Convolution("winograd_f3x3_2x2", "n2c4h7w8_k6r3s3_pd1.0.2.1g2_wgrad", STAGED)
CASES = {
    "fused": SMALL,
    "fused dgrad": SMALL_DGRAD,
    "staged": MIDDLE,
    "staged dgrad": LARGE_DGRAD,
    "five": FIVE,
    "five dgrad": FIVE_DGRAD,
    "row": ROW,
    "column": COLUMN,
    "row dgrad": ROW_DGRAD,
    "column dgrad": COLUMN_DGRAD,
    "wgrad": WGRAD,
}


def chunk_and_image_exchanged(grid: Extent, block: Extent, shared: int, arguments: list) -> tuple:
    """The two structs of winograd_windows, which takes four arguments."""
    if len(arguments) == 4:
        arguments[:2] = arguments[1::-1]
    return grid, block, shared, arguments


def padded_as_fprop(original: type[winograd.Convolution]) -> type[winograd.Convolution]:
    """A dgrad that pads dy as fprop pads x."""

    class Wrong(original):  # type: ignore[misc, valid-type]
        @staticmethod
        def of(operator: str, shape: Conv2dShape, m: int, r: int, axis: int | None = None) -> winograd.Convolution:
            found = original.of(operator, shape, m, r, axis)
            top, _, left, _ = shape.padding
            return dataclasses.replace(found, source=dataclasses.replace(found.source, corner=(-top, -left)))

    return Wrong


def padded_as_3x3(original: type[winograd.Convolution]) -> type[winograd.Convolution]:
    """A dgrad that pads dy as if filters were 3x3."""

    class Wrong(original):  # type: ignore[misc, valid-type]
        @staticmethod
        def of(operator: str, shape: Conv2dShape, m: int, r: int, axis: int | None = None) -> winograd.Convolution:
            found = original.of(operator, shape, m, r, axis)
            top, _, left, _ = shape.padding
            return dataclasses.replace(found, source=dataclasses.replace(found.source, corner=(top - 2, left - 2)))

    return Wrong


def padded_as_square(original: type[winograd.Convolution]) -> type[winograd.Convolution]:
    """A dgrad that pads dy along both axes as along the filters' one."""

    class Wrong(original):  # type: ignore[misc, valid-type]
        @staticmethod
        def of(operator: str, shape: Conv2dShape, m: int, r: int, axis: int | None = None) -> winograd.Convolution:
            found = original.of(operator, shape, m, r, axis)
            corner = (shape.padding[0] - (r - 1), shape.padding[2] - (r - 1))
            return dataclasses.replace(found, source=dataclasses.replace(found.source, corner=corner))

    return Wrong


def rows_of_3x3(original: dict[int, int]) -> dict[int, int]:
    """As if a block transformed as many rows of 5x5 filters as of 3x3: three quarters of U are never written."""
    return {**original, 25: original[9]}


def without_the_first_tiles(original: type[winograd.Tiling]) -> type[winograd.Tiling]:
    """Chunks that begin at the fifth tile."""

    class Wrong(original):  # type: ignore[misc, valid-type]
        def chunks(self, channels: int) -> Iterator[tuple[int, int]]:
            yield 4, self.chunk_sizes(channels)[1] - 4

    return Wrong


BUGS: dict[str, Bug] = {
    "fused: no barrier after the first stage": InKernel(
        FUSED,
        "loader.store(shared.stages, 0);\n    __syncthreads();",
        "loader.store(shared.stages, 0);",
        SMALL,
    ),
    "fused: no barrier between stages": InKernel(
        FUSED,
        "(stage + 1) % 2);\n        __syncthreads();",
        "(stage + 1) % 2);",
        SMALL,
    ),
    "fused: the stage that is multiplied is overwritten": InKernel(
        FUSED, "loader.store(shared.stages, (stage + 1) % 2)", "loader.store(shared.stages, stage % 2)", SMALL
    ),
    "fused: filters copied over those that are multiplied": InKernel(
        FUSED, "loader.load(shared.stages, (stage + 1) % 2,", "loader.load(shared.stages, stage % 2,", SMALL
    ),
    "fused: copies that nobody waits for": InKernel(FUSED, "cp_async_wait<0>();", "", SMALL),
    "fused: stale half in the last stage": InKernel(
        FUSED, "shared.stages, (stages - 1) % 2, warp", "shared.stages, stages % 2, warp", SMALL
    ),
    "fused: products change hands over the last stage": InKernel(
        FUSED,
        "(stages - 1) % 2, warp, lane_k, lane_t);\n    __syncthreads();",
        "(stages - 1) % 2, warp, lane_k, lane_t);",
        SMALL,
    ),
    "fused: no barrier before products are collected": InKernel(
        FUSED,
        "products[6], products[7]);\n        }\n        __syncthreads();",
        "products[6], products[7]);\n        }",
        SMALL,
    ),
    "fused: no barrier before the next round": InKernel(
        FUSED,
        "(load, store);\n        }\n        __syncthreads();",
        "(load, store);\n        }",
        SMALL,
    ),
    "fused: row from the wrong partner": InKernel(FUSED, "r == 0 || r == 1 ? 2 : 1", "r == 0 ? 2 : 1", SMALL),
    "fused: sign of the third row": InKernel(FUSED, "r == 1 ? 1.0f : -1.0f", "r == 2 ? 1.0f : -1.0f", SMALL),
    "fused: swizzle forgotten where tiles are read": InKernel(
        FUSED, "const int swizzle = point / 4 * 8;", "const int swizzle = 0;", SMALL
    ),
    "fused: filters of the other half": InKernel(
        FUSED, "round / 2 * (T.filters / 2)", "(1 - round / 2) * (T.filters / 2)", SMALL
    ),
    "fused: no guard on the last channel": InKernel(FUSED, " && window_channel() < left", "", SMALL),
    "fused: no guard on the last filter": InKernel(FUSED, "if (real && k < result.channels)", "if (real)", SMALL),
    "fused: no guard on the last tile": InKernel(
        FUSED, "if (real && k < result.channels)", "if (k < result.channels)", SMALL
    ),
    "fused: no guard on the bottom edge": InKernel(FUSED, "if (corner.h + r >= H) return;", "", SMALL),
    "fused: no guard on the right edge": InKernel(FUSED, "corner.w + 1 < W;", "true;", SMALL_DGRAD),
    "fused: groups forgotten in x": InKernel(
        FUSED, "* image.groups.value + group)", "* image.groups.value)", SMALL_DGRAD
    ),
    "fused: groups forgotten in U": InKernel(FUSED, "group * grid.blocks_k.value + k0", "k0", SMALL_DGRAD),
    "fused: bias of another filter": InKernel(FUSED, "relu}, channel);", "relu}, k - k0);", SMALL),
    "wrong coefficient": InKernel(
        TRANSFORMS, "fmaf(-5.0f, in2, fmaf(4.0f, in0, in4))", "fmaf(-5.0f, in2, in0 + in4)", MIDDLE
    ),
    "swapped points": InKernel(
        TRANSFORMS,
        "const float out3 = fmaf(-2.0f, odd3, even3);",
        "const float out3 = fmaf(2.0f, odd3, even3);",
        MIDDLE,
    ),
    "wrong point of the largest tile": InKernel(
        TRANSFORMS, "fmaf(0.03125f, difference5", "fmaf(0.0625f, difference5", LARGE_DGRAD
    ),
    "windows: rows and columns exchanged": InKernel(
        STAGED, "window[r * image.W + s]", "window[s * image.W + r]", MIDDLE
    ),
    "columns counted before rows": InKernel(
        HEADER,
        "corner.w = take_digit(tile, image.tiles_w) * step",
        "corner.w = take_digit(tile, image.tiles_h) * step",
        MIDDLE,
    ),
    "windows: no guard on the top edge": InKernel(STAGED, "inside(corner.h + r, H)", "corner.h + r < H", MIDDLE),
    "windows: tiles past the last are not zero": InKernel(
        STAGED, "const bool real = mine.tile < image.tiles;", "const bool real = true;", WGRAD
    ),
    "windows: next channel's plane": InKernel(
        STAGED, "image.channels + mine.channel) * image.H", "image.channels + mine.channel + 1) * image.H", MIDDLE
    ),
    "windows: the last threads are missing": InKernel(
        STAGED, "if (i >= chunk.threads) return;", "if (i + 1 >= chunk.threads) return;", MIDDLE
    ),
    "filters: no barrier after staging": InKernel(
        STAGED, "0.0f;\n    }\n    __syncthreads();\n\n    const int lane", "0.0f;\n    }\n\n    const int lane", MIDDLE
    ),
    "filters: not turned": InKernel(STAGED, "tap[turned ? taps - 1 - at : at]", "tap[at]", LARGE_DGRAD),
    "filters: exchanged, and should not be": InKernel(STAGED, "[turned ? r * pitch", "[!turned ? r * pitch", MIDDLE),
    "filters: runs of 5x5 overlap by a word": InKernel(STAGED, "pitch = run + 1;", "pitch = run - 1;", FIVE),
    "filters: runs of 5x5 as if they were not turned": InKernel(
        STAGED, "turned ? i / (kColumns * taps) : i / (rows * taps)", "i / (rows * taps)", FIVE_DGRAD
    ),
    "filters: too few rows of 5x5": InKernel(STAGED, "T.taps() <= 9 ? 32 : 8", "T.taps() <= 9 ? 32 : 4", FIVE),
    "filters: 5x5 turned as 3x3": InKernel(STAGED, "turned ? taps - 1 - at", "turned ? 8 - at", FIVE_DGRAD),
    "filters: taps of 5x5 in rows of three": InKernel(STAGED, "i * T.r + j", "i * 3 + j", FIVE),
    "wrong coefficient of 5x5": InKernel(
        TRANSFORMS, "fmaf(2.0f, difference3, difference1 + in5)", "fmaf(2.0f, difference3, difference1)", FIVE
    ),
    "lines: tiles turned": InKernel(
        STAGED, "tile_corner<T.rows(T.m), T.columns(T.m)>", "tile_corner<T.columns(T.m), T.rows(T.m)>", ROW
    ),
    "lines: a column's window read along a row": InKernel(HEADER, "in[i] = load(i, 0)", "in[i] = load(0, i)", COLUMN),
    "lines: a column's results as if of a row": InKernel(HEADER, "store(i, rows[i]);", "store(0, rows[i]);", COLUMN),
    "lines: points of a column counted as of a square": InKernel(
        STAGED, "(r * T.columns(T.side()) + s)", "(r * T.side() + s)", COLUMN
    ),
    "lines: not turned in dgrad": InKernel(STAGED, "tap[turned ? taps - 1 - at : at]", "tap[at]", ROW_DGRAD),
    "lines: no guard on the right edge of x": InKernel(STAGED, "&& inside(corner.w + s, W)", "", ROW),
    "lines: no guard below the last row": InKernel(STAGED, "if (corner.h + r >= H) return;", "", COLUMN_DGRAD),
    "lines: dgrad padded as a square": InHost("pycnn.backends.cuda.winograd.Convolution", padded_as_square, ROW_DGRAD),
    "dgrad of 5x5 padded as 3x3": InHost("pycnn.backends.cuda.winograd.Convolution", padded_as_3x3, FIVE_DGRAD),
    "blocks of 5x5 filters counted as 3x3": InHost("pycnn.backends.cuda.winograd._ROWS", rows_of_3x3, FIVE),
    "filters: groups forgotten": InKernel(STAGED, "((group * grid.filters + k0)", "((k0)", LARGE_DGRAD),
    "results: bottom edge": InKernel(STAGED, "if (corner.h + r >= H) return;", "", MIDDLE),
    "results: vectors where rows are not aligned": InKernel(STAGED, "W % width == 0 && ", "", MIDDLE),
    "results: bias of another filter": InKernel(
        STAGED, "relu}, mine.group * image.channels + mine.channel);", "relu}, 1 - mine.channel % 2);", MIDDLE
    ),
    "taps: no barrier before they are stored": InKernel(
        STAGED, "        });\n    }\n    __syncthreads();", "        });\n    }", WGRAD
    ),
    "taps: last pair": InKernel(STAGED, "if (first + thread < count) {", "if (first + thread + 1 < count) {", WGRAD),
    "argument order": InLaunch(chunk_and_image_exchanged, MIDDLE),
    "grid too small": InLaunch(grid_too_small, SMALL),
    "dgrad padded as fprop": InHost("pycnn.backends.cuda.winograd.Convolution", padded_as_fprop, LARGE_DGRAD),
    "the first tiles are left out": InHost("pycnn.backends.cuda.winograd.Tiling", without_the_first_tiles, WGRAD),
}

# In the run that takes no --slow.
FAST = ("fused: no barrier between stages", "wrong coefficient")
