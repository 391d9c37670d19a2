// conv2d_fprop_direct: the convolution itself, as it is written down; float32.
//
//     y[n, k, p, q] = epilogue of the sum over c, r, s of
//         x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[k, c, r, s]
//
// with the epilogue of epilogue.cuh: relu(scale[k] * sum + b[k] + residual[n, k, p, q]).
//
// GEMM view   gemm_m = N*P*Q pixels, gemm_n = K filters, gemm_k = C*R*S taps; nothing is laid out as a matrix.
//
// Two kernels.  `conv2d_fprop_direct` is compiled for one filter size and stride (DirectTile) without dilation and
// reads the input from a halo tile in shared memory.  `conv2d_fprop_direct_any` takes every valid problem.
//
// Who owns what in conv2d_fprop_direct (tile 8 rows x 32 columns, 8 filters a thread, 8 warps, so 64 filters a block):
//
//        input halo, one channel                    output tile of the block, one of its 64 filters
//        (tile + filter - stride) wide
//      +--------------------------------+              q0                     q0 + 31
//      |  . . . . . . . . . . . . . .   |         p0  +--+--+--+--    --+--+--+
//      |  .  +----------------------+   |             |  |  |  |        |  |  |   lane l of every warp owns column l:
//      |  .  | one filter position  |   |   ---->     |l0|l1|l2|  ....  |  |31|   `rows` pixels, one under another, of
//      |  .  | sees one such window |   |             |  |  |  |        |  |  |   each of its warp's `filters` filters
//      |  .  +----------------------+   |     p0 + 7  +--+--+--+--    --+--+--+
//      +--------------------------------+             warp v owns filters k0 + 8*v ... k0 + 8*v + 7
//
//      A narrower tile (lanes_q = 16 or 8) puts 2 or 4 groups of lanes under one another, `rows` output rows each.
//      A thread keeps rows x filters sums in registers.  For a filter column s it loads the input column that its rows
//      see once ((rows - 1)*stride + R values) and uses it for all R filter rows.
//
// Launch      one block of `warps` warps for each tile; block index =
//             ((((n*groups + g)*tiles_p + tp)*tiles_q + tq)*tiles_k + tk, so blocks that share an input tile are
//             neighbours in time.
// Shared      DirectShared: `channels` input halos and their filter taps; static, at most 48 KiB.  No bank conflicts
//             at stride 1: lanes read neighbouring halo columns, and a tap is one word for the whole warp.
// Determinism one thread sums each output, in the order c, s, r: bit for bit the same in every run.
// Cost        N*K*P*Q*(C/groups)*R*S multiply-adds, the tiles rounded up to whole ones.  x is read K/groups / tile_k
//             times and w N * tiles_p * tiles_q times, mostly from L2.
// Limit       the FP32 pipes: per tap of a 3x3 filter 64 FMAs against 10/3 + 2 shared loads.  Not so where a group has
//             few filters (depthwise: most of a tile idles) or where stride skips what a halo holds (1x1 at stride 2).
// Reference   Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016; register tiling as in
//             Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.
#include "direct.cuh"
#include "epilogue.cuh"

namespace pycnn {

// ---------------------------------------------------------------------------------------------------------------------
// The tiled kernel

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
template <DirectTile T>
__device__ __forceinline__ void stage_taps(DirectShared<T>& shared, const Conv2dShape& shape, const DirectBlock& block,
                                           const float* __restrict__ w, int c0) {
    constexpr int taps = T.channels * T.R * T.S;  // of one filter: consecutive in w
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    const int group_filters = static_cast<int>(shape.K / shape.groups);
    const int64 first_filter = static_cast<int64>(block.group) * group_filters + block.k0;

    stage<T.tile_k() * taps, T.threads()>(
        [&](int i) {
            const int tap = i % taps, k = i / taps;
            const bool real = block.k0 + k < group_filters && c0 * T.R * T.S + tap < group_channels * T.R * T.S;
            return real ? w[((first_filter + k) * group_channels + c0) * (T.R * T.S) + tap] : 0.0f;
        },
        [&](int i, float value) { shared.taps[i % taps][i / taps] = value; });
}

template <DirectTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_fprop_direct(const Conv2dShape shape, const DirectGrid grid, const float* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ scale, const float* __restrict__ b,
                        const float* __restrict__ residual, const int relu, float* __restrict__ y) {
    PYCNN_SHARED(DirectShared<T>, shared);
    const DirectBlock block = direct_block<T>(grid);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int first_row = lane / T.lanes_q * T.rows, column = lane % T.lanes_q;  // within the tile
    const int first_filter = static_cast<int>(threadIdx.x) / kWarp * T.filters;  // within the tile

    float sum[T.rows][T.filters] = {};
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    for (int c0 = 0; c0 < group_channels; c0 += T.channels) {
        stage_halo<T>(shared, shape, block, x, c0);
        stage_taps<T>(shared, shape, block, w, c0);
        __syncthreads();

#pragma unroll 1
        for (int c = 0; c < T.channels; ++c) {
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
    const Epilogue epilogue{scale, b, residual, relu};
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

// ---------------------------------------------------------------------------------------------------------------------
// Any problem: any filter size, stride, dilation and, with wide = 1, tensors and coordinates past 2^31
//
// A block owns 32*pixels consecutive outputs of one image, counted p*Q + q, and warps*filters filters of one group.
// `taps` taps at a time are staged in shared memory together with where they look: no size is too large for it.
// The input is read from global memory (a warp's lanes read neighbouring pixels; the warps of a block share L1).

struct AnyTile {
    int wide;     // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;    // warps in a block, each with filters of its own
    int filters;  // filters a thread owns, a multiple of 4
    int pixels;   // output pixels a thread owns, 32 apart
    int taps;     // taps staged at a time

    constexpr int threads() const { return warps * kWarp; }
    constexpr int tile_pq() const { return kWarp * pixels; }
    constexpr int tile_k() const { return warps * filters; }
};

// Where a tap looks, relative to the input pixel under filter position (0, 0), channel 0.
template <typename Index>
struct TapPlace {
    int64 offset;  // in elements of x
    Index dh, dw;
};

template <AnyTile T>
struct alignas(16) AnyShared {
    float tap[T.taps][T.tile_k() + 4];
    TapPlace<typename IndexOf<T.wide>::type> place[T.taps];
};

struct AnyGrid {
    Divisor tiles_k, tiles_pq, groups;  // of the block index
    Divisor Q;                          // of a pixel: p*Q + q
    Divisor S, R;                       // of a tap: (c*R + r)*S + s
};

template <AnyTile T>
__global__ void __launch_bounds__(T.threads())
    conv2d_fprop_direct_any(const Conv2dShape shape, const AnyGrid grid, const float* __restrict__ x,
                            const float* __restrict__ w, const float* __restrict__ scale, const float* __restrict__ b,
                            const float* __restrict__ residual, const int relu, float* __restrict__ y) {
    using Index = typename IndexOf<T.wide>::type;
    PYCNN_SHARED(AnyShared<T>, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index k0 = take_digit(index, grid.tiles_k) * T.tile_k();
    const Index pixel0 = take_digit(index, grid.tiles_pq) * T.tile_pq();
    const int64 group = take_digit(index, grid.groups);
    const int64 n = index;
    if (n >= shape.N) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged

    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index all_taps = group_channels * static_cast<Index>(shape.R * shape.S);
    const int64 pixels = shape.P * shape.Q;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int first_filter = static_cast<int>(threadIdx.x) / kWarp * T.filters;  // within the tile

    // The input pixel under filter position (0, 0), for each of the thread's outputs.
    Index h0[T.pixels], w0[T.pixels];
    int64 corner[T.pixels];
#pragma unroll
    for (int i = 0; i < T.pixels; ++i) {
        Index p = pixel0 + lane + i * kWarp;
        const Index q = take_digit(p, grid.Q);
        h0[i] = p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
        w0[i] = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
        corner[i] = ((n * shape.C + group * group_channels) * shape.H + h0[i]) * shape.W + w0[i];
    }

    float sum[T.pixels][T.filters] = {};
    for (Index tap0 = 0; tap0 < all_taps; tap0 += T.taps) {
        const int staged = static_cast<int>(all_taps - tap0 < T.taps ? all_taps - tap0 : T.taps);
        for (int t = static_cast<int>(threadIdx.x); t < staged; t += T.threads()) {
            Index c = tap0 + t;
            const Index s = take_digit(c, grid.S), r = take_digit(c, grid.R);
            const Index dh = r * static_cast<Index>(shape.dilation_h), dw = s * static_cast<Index>(shape.dilation_w);
            shared.place[t] = {(c * shape.H + dh) * shape.W + dw, dh, dw};
        }
        stage<T.tile_k() * T.taps, T.threads()>(
            [&](int i) {
                const int t = i % T.taps, k = i / T.taps;
                const bool real = t < staged && k0 + k < group_filters;
                return real ? w[(group * group_filters + k0 + k) * all_taps + tap0 + t] : 0.0f;
            },
            [&](int i, float value) { shared.tap[i % T.taps][i / T.taps] = value; });
        __syncthreads();

        for (int t = 0; t < staged; ++t) {
            const auto place = shared.place[t];
#pragma unroll
            for (int i = 0; i < T.pixels; ++i) {
                // A thread past the last pixel looks at rows past the last, or its sums are dropped.
                const bool real = inside(h0[i] + place.dh, H) && inside(w0[i] + place.dw, W);
                const float in = real ? x[corner[i] + place.offset] : 0.0f;
#pragma unroll
                for (int k = 0; k < T.filters; ++k) sum[i][k] = fmaf(in, shared.tap[t][first_filter + k], sum[i][k]);
            }
        }
        __syncthreads();
    }

    const Epilogue epilogue{scale, b, residual, relu};
#pragma unroll
    for (int k = 0; k < T.filters; ++k) {
        const Index filter = k0 + first_filter + k;
        if (filter >= group_filters) break;
        const int64 channel = group * group_filters + filter;
#pragma unroll
        for (int i = 0; i < T.pixels; ++i) {
            const int64 pixel = static_cast<int64>(pixel0) + lane + i * kWarp;
            if (pixel >= pixels) break;
            const int64 at = (n * shape.K + channel) * pixels + pixel;
            y[at] = epilogue(sum[i][k], channel, at);
        }
    }
}

}  // namespace pycnn
