// The tiled convolution that conv2d_fprop_direct and, turned, conv2d_dgrad_direct_tiled are: a halo of the input in
// shared memory, the sums of some pixels and filters in a thread's registers.  conv2d_fprop_direct.cu has the drawing.
#pragma once

#include "direct.cuh"
#include "epilogue.cuh"

namespace pycnn {

// The constants of one instance of the tiled kernel; instances.toml lists those that exist.
struct DirectTile {
    int R, S, stride_h, stride_w;  // the problem it is for; dilation is 1
    int lanes_q;                   // lanes of a warp along q; the other 32 / lanes_q groups lie under one another
    int rows;                      // output rows a thread owns
    int warps;                     // warps in a block, each with filters of its own
    int filters;                   // filters a thread owns, a multiple of 4
    int channels;                  // input channels staged at a time
    int blocks;                    // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * kWarp; }
    constexpr int tile_p() const { return kWarp / lanes_q * rows; }
    constexpr int tile_q() const { return lanes_q; }
    constexpr int tile_k() const { return warps * filters; }
    constexpr int halo_h() const { return (tile_p() - 1) * stride_h + R; }
    constexpr int halo_w() const { return (tile_q() - 1) * stride_w + S; }
    constexpr int column() const { return (rows - 1) * stride_h + R; }  // input rows that a thread's pixels see

    // Distance between two halo rows: a group of lanes should start in the bank after the group above it.
    constexpr int halo_pitch() const {
        for (int pitch = halo_w(); pitch < halo_w() + kWarp; ++pitch)
            if (rows * stride_h * pitch % kWarp == lanes_q % kWarp) return pitch;
        return halo_w();
    }
    // Distance between the taps of two filter positions: whole float4, and transposing stores hit 8 banks instead of 1.
    constexpr int tap_pitch() const { return tile_k() + 4; }
};

template <DirectTile T>
struct alignas(16) DirectShared {
    float taps[T.channels * T.R * T.S][T.tap_pitch()];
    float halo[T.channels][T.halo_h()][T.halo_pitch()];
};

// How a block index falls apart into tiles.
struct DirectGrid {
    Divisor tiles_k, tiles_q, tiles_p, groups;
};

// What the block of a tile works on: an image and a group, and the first output row, column and filter.
struct DirectBlock {
    int n, group, p0, q0, k0;  // k0 counts within the group
};

template <DirectTile T>
__device__ __forceinline__ DirectBlock direct_block(const DirectGrid& grid) {
    int index = static_cast<int>(blockIdx.x);
    DirectBlock block;
    block.k0 = take_digit(index, grid.tiles_k) * T.tile_k();
    block.q0 = take_digit(index, grid.tiles_q) * T.tile_q();
    block.p0 = take_digit(index, grid.tiles_p) * T.tile_p();
    block.group = take_digit(index, grid.groups);
    block.n = index;
    return block;
}

// All threads together: the halo of channels c0 ... c0 + channels - 1; zero in the padding and past the last channel.
template <DirectTile T>
__device__ __forceinline__ void stage_halo(DirectShared<T>& shared, const Conv2dShape& shape, const DirectBlock& block,
                                           const float* __restrict__ x, int c0) {
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    const int H = static_cast<int>(shape.H), W = static_cast<int>(shape.W);
    const int h0 = block.p0 * T.stride_h - static_cast<int>(shape.pad_top);
    const int w0 = block.q0 * T.stride_w - static_cast<int>(shape.pad_left);
    const int64 first_plane = block.n * shape.C + static_cast<int64>(block.group) * group_channels + c0;

    stage<T.channels * T.halo_h() * T.halo_w(), T.threads()>(
        [&](int i) {
            const int column = i % T.halo_w(), row = i / T.halo_w() % T.halo_h(), c = i / (T.halo_w() * T.halo_h());
            const int h = h0 + row, w = w0 + column;
            const bool real = c0 + c < group_channels && inside(h, H) && inside(w, W);
            return real ? x[((first_plane + c) * H + h) * W + w] : 0.0f;
        },
        [&](int i, float value) {
            shared.halo[i / (T.halo_w() * T.halo_h())][i / T.halo_w() % T.halo_h()][i % T.halo_w()] = value;
        });
}

// All threads together: the taps of tile_k filters for those channels, transposed so that filters lie side by side.
// `turned`: w belongs to the convolution whose data gradient this is; its filters are this one's channels, and the
// other way round, and its taps are in reverse.
template <DirectTile T, bool turned>
__device__ __forceinline__ void stage_taps(DirectShared<T>& shared, const Conv2dShape& shape, const DirectBlock& block,
                                           const float* __restrict__ w, int c0) {
    constexpr int area = T.R * T.S, taps = T.channels * area;  // of one filter: consecutive in w
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    const int group_filters = static_cast<int>(shape.K / shape.groups);
    const int64 first_filter = static_cast<int64>(block.group) * group_filters + block.k0;

    stage<T.tile_k() * taps, T.threads()>(
        [&](int i) {
            if (!turned) {
                const int tap = i % taps, k = i / taps;
                const bool real = block.k0 + k < group_filters && c0 * area + tap < group_channels * area;
                return real ? w[((first_filter + k) * group_channels + c0) * area + tap] : 0.0f;
            }
            const int position = i % area, k = i / area % T.tile_k(), c = i / (area * T.tile_k());
            const bool real = block.k0 + k < group_filters && c0 + c < group_channels;
            const int64 filter = static_cast<int64>(block.group) * group_channels + c0 + c;
            return real ? w[(filter * group_filters + block.k0 + k) * area + position] : 0.0f;
        },
        [&](int i, float value) {
            if (!turned) {
                shared.taps[i % taps][i / taps] = value;
                return;
            }
            const int position = i % area, k = i / area % T.tile_k(), c = i / (area * T.tile_k());
            shared.taps[c * area + area - 1 - position][k] = value;
        });
}

// The kernel: y = epilogue of x convolved with w, or with w turned.
template <DirectTile T, bool turned>
__device__ __forceinline__ void direct_convolution(const Conv2dShape& shape, const DirectGrid& grid,
                                                   const float* __restrict__ x, const float* __restrict__ w,
                                                   const Epilogue& epilogue, float* __restrict__ y) {
    PYCNN_SHARED(DirectShared<T>, shared);
    const DirectBlock block = direct_block<T>(grid);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int first_row = lane / T.lanes_q * T.rows, column = lane % T.lanes_q;  // within the tile
    const int first_filter = static_cast<int>(threadIdx.x) / kWarp * T.filters;  // within the tile

    float sum[T.rows][T.filters] = {};
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    for (int c0 = 0; c0 < group_channels; c0 += T.channels) {
        stage_halo<T>(shared, shape, block, x, c0);
        stage_taps<T, turned>(shared, shape, block, w, c0);
        __syncthreads();

        const int staged = group_channels - c0 < T.channels ? group_channels - c0 : T.channels;
#pragma unroll 1
        for (int c = 0; c < staged; ++c) {
#pragma unroll(T.S <= 5 ? T.S : 1)
            for (int s = 0; s < T.S; ++s) {
                float in[T.column()];
#pragma unroll
                for (int i = 0; i < T.column(); ++i)
                    in[i] = shared.halo[c][first_row * T.stride_h + i][column * T.stride_w + s];
#pragma unroll
                for (int r = 0; r < T.R; ++r) {
                    const float* tap = &shared.taps[(c * T.R + r) * T.S + s][first_filter];
#pragma unroll
                    for (int k = 0; k < T.filters; ++k)
#pragma unroll
                        for (int i = 0; i < T.rows; ++i) sum[i][k] = fmaf(in[i * T.stride_h + r], tap[k], sum[i][k]);
                }
            }
        }
        __syncthreads();
    }

    // Store: a warp writes lanes_q neighbouring floats of each of its rows.
    const int group_filters = static_cast<int>(shape.K / shape.groups);
    const int P = static_cast<int>(shape.P), Q = static_cast<int>(shape.Q);
    const int p = block.p0 + first_row, q = block.q0 + column;
    const int filter = block.k0 + first_filter;
    if (q >= Q) return;
    const int64 channel = static_cast<int64>(block.group) * group_filters + filter;
    int64 index = ((block.n * shape.K + channel) * P + p) * Q + q;
#pragma unroll
    for (int k = 0; k < T.filters; ++k) {
        if (filter + k >= group_filters) break;
#pragma unroll
        for (int i = 0; i < T.rows; ++i)
            if (p + i < P) {
                const int64 at = index + i * static_cast<int64>(Q);
                y[at] = epilogue(sum[i][k], channel + k, at);
            }
        index += static_cast<int64>(P) * Q;
    }
}

}  // namespace pycnn
