// What the Winograd kernels share: images cut into tiles, and the transforms along both axes or one.
//
// An image is cut into tiles of m x m results, each read from a window of (m + r - 1) x (m + r - 1) pixels, r - 1 of
// which overlap the next tile's.  All tiles of a batch are counted in one row, (n*tiles_h + i)*tiles_w + j, so that
// neighbouring threads take neighbouring tiles whatever the size of an image:
//
//        image 0                        image 1
//      +-----+-----+---+              +-----+-----+---+
//      |  0  |  1  | 2 |   2 and 5    |  6  |  7  | 8 |        V[point][channel][tile]   transformed windows
//      +-----+-----+---+   reach over +-----+-----+---+        U[point][channel][filter] transformed filters
//      |  3  |  4  | 5 |   the edge   |  9  | 10  | 11|        M[point][filter][tile] = U^T V, one product a point
//      +-----+-----+---+              +-----+-----+---+
//
// Filters of one line have tiles of one line, 1 x m for 1 x r and m x 1 for r x 1, transformed along that line alone.
//
// One NaN or infinity in a window spreads over all points of its tile, and so over all its results: Winograd keeps it
// within the tiles whose windows hold it, not within the pixels whose taps meet it.
//
// Reference: Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015.
#pragma once

#include "common.cuh"
#include "winograd_transforms.cuh"

namespace pycnn {

// A tensor that is cut into tiles.  pycnn/backends/cuda/winograd.py packs these structs.
struct TiledImage {
    int64 channels;  // of one group
    int64 H, W;
    int64 top, left;           // the pixel at the corner of the first tile's window: minus the padding
    int64 tiles;               // of the whole batch
    Divisor tiles_w, tiles_h;  // of a tile: (n*tiles_h + i)*tiles_w + j
    Divisor groups;
};

// Where a tile's window begins.
struct TileCorner {
    int n, h, w;
};

template <int step_h, int step_w = step_h>
__device__ __forceinline__ TileCorner tile_corner(const TiledImage& image, int tile) {
    TileCorner corner;
    corner.w = take_digit(tile, image.tiles_w) * step_w + static_cast<int>(image.left);
    corner.h = take_digit(tile, image.tiles_h) * step_h + static_cast<int>(image.top);
    corner.n = tile;
    return corner;
}

// The axes that are transformed: both, or that of filters of one line.
enum : int { kBothAxes = 0, kAlongRows = 1, kAlongColumns = 2 };

// Applies T along both axes: out = T in T', with in(i, j) = load(i, j), and row i of `out` given to store(i, row).
// Along rows alone `in` and `out` are one row, along columns alone one column, whose rows have one entry.
template <typename T, int axes = kBothAxes, typename Load, typename Store>
    requires(axes == kBothAxes)
__device__ __forceinline__ void transform(Load load, Store store) {
    float half[T::outs][T::ins];  // T in
#pragma unroll
    for (int j = 0; j < T::ins; ++j) {
        float column[T::ins];
#pragma unroll
        for (int i = 0; i < T::ins; ++i) column[i] = load(i, j);
        T::template line<1, T::ins>(column, &half[0][j]);
    }
#pragma unroll
    for (int i = 0; i < T::outs; ++i) {
        float row[T::outs];
        T::template line<1, 1>(half[i], row);
        store(i, row);
    }
}
template <typename T, int axes, typename Load, typename Store>
    requires(axes == kAlongRows)
__device__ __forceinline__ void transform(Load load, Store store) {
    float in[T::ins], row[T::outs];
#pragma unroll
    for (int j = 0; j < T::ins; ++j) in[j] = load(0, j);
    T::template line<1, 1>(in, row);
    store(0, row);
}
template <typename T, int axes, typename Load, typename Store>
    requires(axes == kAlongColumns)
__device__ __forceinline__ void transform(Load load, Store store) {
    float in[T::ins], rows[T::outs][1];
#pragma unroll
    for (int i = 0; i < T::ins; ++i) in[i] = load(i, 0);
    T::template line<1, 1>(in, rows[0]);
#pragma unroll
    for (int i = 0; i < T::outs; ++i) store(i, rows[i]);
}

}  // namespace pycnn
