// conv2d_wgrad_direct: the gradient of the filters, and of the bias, as they are written down; float32, and for any
// problem also 16 bits stored and float32 computed.
//
//     dw[k, c, r, s] = sum over n, p, q of
//         dy[n, k, p, q] * x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w]
//     db[k] = sum over n, p, q of dy[n, k, p, q]
//
// GEMM view   gemm_m = K filters, gemm_n = C*R*S taps, gemm_k = N*P*Q pixels; nothing is laid out as a matrix.
//
// gemm_k is long and the result small, so the pixels are cut into slices, as many as fill a GPU; a block sums one slice
// for its part of dw, and sum_slices (slices.cu) adds the slices up.
//
// Two kernels.  `conv2d_wgrad_direct` is compiled for one filter size and stride (WgradTile) without dilation.
// `conv2d_wgrad_direct_any` takes every valid problem, as a matrix product whose right side is gathered.
//
// Who owns what in conv2d_wgrad_direct (3x3, 8 lanes along channels, 8 warps of which 2 along filters):
//
//      dy, rows x columns pixels          x, the halo of those pixels          dw, the part of one thread
//      of 64 filters                      in 32 channels                       8 filters x 1 channel x 3x3 taps
//        k0 ........... k0 + 63             +----------------------+             +---+---+---+
//   px 0 |===|===|         |                |  +---+ what 4 pixels |             | . | . | . |  each a sum
//   px 1 |===|===|         |                |  |   | of a row see  |   ---->     | . | . | . |  in a register
//        ...                                |  +---+ of the filter |             | . | . | . |
//      lane l / 8 owns 2 x 4 filters        +----------------------+             +---+---+---+
//                                           lane l % 8 owns a channel
//
//      What a thread owns of x is a unit: `tap_rows` rows of the taps of a channel; all of them for small filters, one
//      where R*S sums would not fit its registers.  It goes through the pixels four at a time, the last of a row one at
//      a time: a pixel past the edge must not be multiplied, since x may hold a NaN there.
//      warps_p warps go through different rows of the pixels; their sums are added at the end, in the order of the
//      warps.
//
// Launch      one block of `warps` warps for each tile and slice; block index =
//             ((slice*groups + g)*tiles_k + tk)*tiles_c + tc, so that blocks which share pixels are neighbours in time.
// Shared      WgradShared: static, at most 48 KiB.  No bank conflicts: the lanes of a warp read at most 8 different
//             float4 of dy and of x at a time, which lie in different banks (halo_pitch, channel_pitch).
// Determinism the slices depend on the shape alone, a thread adds its pixels in order, sum_slices the slices: bit for
//             bit the same in every run.
// Cost        N*P*Q*K*(C/groups)*R*S multiply-adds, the tiles of filters and channels rounded up to whole ones.  dy is
//             read C/groups / channels times, x (its halo) K/groups / tile_k times, mostly from L2; a slice of dw is
//             written and read again for each slice but where there is only one.
// Limit       the FP32 pipes: for 4 pixels of a 3x3 filter 288 FMAs against 14 LDS.128.
// Reference   the register tiling is that of Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.
#include "arch/half.cuh"
#include "direct.cuh"

namespace pycnn {

// ---------------------------------------------------------------------------------------------------------------------
// The tiled kernel

// The constants of one instance of the tiled kernel; instances.toml lists those that exist.
struct WgradTile {
    int R, S, stride_h, stride_w;  // the problem it is for; dilation is 1
    int rows, columns;             // output pixels staged at a time; columns is a multiple of 4
    int tap_rows;                  // rows of taps in a unit; divides R
    int units;                     // units a thread owns
    int lanes_c;                   // lanes of a warp along units; the other 32 / lanes_c lie along filters
    int filters;                   // filters a thread owns, a multiple of 4
    int channels;                  // channels of a block
    int warps, warps_k, warps_p;   // warps in a block; of them along filters and along pixels, the rest along units
    int blocks;                    // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * kWarp; }
    constexpr int warps_c() const { return warps / warps_k / warps_p; }
    constexpr int lanes_k() const { return kWarp / lanes_c; }
    constexpr int tile_k() const { return warps_k * lanes_k() * filters; }
    constexpr int units_of_channel() const { return R / tap_rows; }
    constexpr int pixels() const { return rows * columns; }
    constexpr int sums() const { return units * tap_rows * S * filters; }
    // Input rows and columns that no tap meets are not staged: at 1x1, all but each stride-th.
    constexpr int skip_h() const { return R == 1 ? stride_h : 1; }
    constexpr int skip_w() const { return S == 1 ? stride_w : 1; }
    constexpr int step_h() const { return stride_h / skip_h(); }  // the stride, in staged rows and columns
    constexpr int step_w() const { return stride_w / skip_w(); }
    constexpr int halo_h() const { return (rows - 1) * step_h() + R; }
    constexpr int halo_w() const { return (columns - 1) * step_w() + S; }
    constexpr int window(int count) const { return (count - 1) * step_w() + S; }  // columns that `count` pixels see

    // Distance between two halo rows, with room for the last float4 of a window; in float4 it is odd, and so is the one
    // between two channels: 8 lanes that read a float4 each, in neighbouring rows or channels, hit different banks.
    constexpr int halo_pitch() const { return odd_float4((columns - 4) * step_w() + (window(4) + 3) / 4 * 4); }
    constexpr int channel_pitch() const { return odd_float4(halo_h() * halo_pitch()); }
    static constexpr int odd_float4(int floats) { return ((floats + 3) / 4 | 1) * 4; }
    // Distance between two pixels of dy: storing a float4 of filters for 8 neighbouring pixels hits different banks.
    constexpr int filter_pitch() const { return tile_k() + 4; }
};

template <WgradTile T>
struct WgradStage {
    float dy[T.pixels()][T.filter_pitch()];
    float x[T.channels][T.channel_pitch()];
};

template <WgradTile T>
union alignas(16) WgradShared {
    WgradStage<T> stage;
    float sums[T.warps_p > 1 ? T.sums() : 1][T.threads() / T.warps_p];  // of warps on their way to the first
};

// How a block index and a tile of pixels fall apart.
struct WgradGrid {
    Divisor tiles_c, tiles_k, groups;  // of the block index
    Divisor tiles_q, tiles_p;          // of a tile of pixels: (n*tiles_p + tp)*tiles_q + tq
    int64 tiles, tiles_of_slice;       // tiles of pixels: all, and those of a slice
};

// What the block works on: a slice, a group, the first filter and channel in it; then the tile of pixels at hand.
struct WgradBlock {
    int slice, group, k0, c0;  // k0 and c0 count within the group
    int n, p0, q0;
};

// All threads together: dy at the tile's pixels, four filters side by side at a time; zero past the edges.
template <WgradTile T>
__device__ __forceinline__ void stage_gradient(WgradStage<T>& stage, const Conv2dShape& shape, const WgradBlock& block,
                                               const float* __restrict__ dy) {
    const int group_filters = static_cast<int>(shape.K / shape.groups);
    const int P = static_cast<int>(shape.P), Q = static_cast<int>(shape.Q), plane = P * Q;
    const int64 first_plane = block.n * shape.K + static_cast<int64>(block.group) * group_filters + block.k0;
    const float* first = dy + first_plane * plane;
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < T.pixels() * (T.tile_k() / 4); i += T.threads()) {
        const int pixel = i % T.pixels(), k = i / T.pixels() * 4;
        const int p = block.p0 + pixel / T.columns, q = block.q0 + pixel % T.columns;
        const bool real = p < P && q < Q;
        float value[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
            value[j] = real && block.k0 + k + j < group_filters ? first[(k + j) * plane + p * Q + q] : 0.0f;
        *reinterpret_cast<float4*>(&stage.dy[pixel][k]) = make_float4(value[0], value[1], value[2], value[3]);
    }
}

// All threads together: the halo of the tile's pixels; zero in the padding and past the last channel.
template <WgradTile T>
__device__ __forceinline__ void stage_input(WgradStage<T>& stage, const Conv2dShape& shape, const WgradBlock& block,
                                            const float* __restrict__ x) {
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    const int H = static_cast<int>(shape.H), W = static_cast<int>(shape.W);
    const int h0 = block.p0 * T.stride_h - static_cast<int>(shape.pad_top);
    const int w0 = block.q0 * T.stride_w - static_cast<int>(shape.pad_left);
    const int64 first_plane = block.n * shape.C + static_cast<int64>(block.group) * group_channels + block.c0;
    const float* first = x + first_plane * H * W;
    pycnn::stage<T.channels * T.halo_h() * T.halo_w(), T.threads()>(
        [&](int i) {
            const int column = i % T.halo_w(), row = i / T.halo_w() % T.halo_h(), c = i / (T.halo_w() * T.halo_h());
            const int h = h0 + row * T.skip_h(), w = w0 + column * T.skip_w();
            const bool real = block.c0 + c < group_channels && inside(h, H) && inside(w, W);
            return real ? first[(c * H + h) * W + w] : 0.0f;
        },
        [&](int i, float value) {
            const int column = i % T.halo_w(), row = i / T.halo_w() % T.halo_h(), c = i / (T.halo_w() * T.halo_h());
            stage.x[c][row * T.halo_pitch() + column] = value;
        });
}

// Adds what `count` pixels of a row (4, from a column that is a multiple of 4; or 1) give to the thread's sums.
template <WgradTile T, int count>
__device__ __forceinline__ void add_pixels(float (&sum)[T.units][T.tap_rows][T.S][T.filters],
                                           const WgradStage<T>& stage, int pixel, int first_filter,
                                           const float* const (&corner)[T.units], int offset) {
    constexpr int window = T.window(count);
    float gradient[count][T.filters];
#pragma unroll
    for (int i = 0; i < count; ++i)
#pragma unroll
        for (int k = 0; k < T.filters; k += 4) {
            constexpr int apart = T.tile_k() / (T.filters / 4);  // of a thread's fours of filters
            const float4 four = *reinterpret_cast<const float4*>(&stage.dy[pixel + i][first_filter + k / 4 * apart]);
            gradient[i][k] = four.x, gradient[i][k + 1] = four.y;
            gradient[i][k + 2] = four.z, gradient[i][k + 3] = four.w;
        }
#pragma unroll
    for (int u = 0; u < T.units; ++u)
#pragma unroll
        for (int r = 0; r < T.tap_rows; ++r) {
            const float* row = corner[u] + offset + r * T.halo_pitch();
            float in[(window + 3) / 4 * 4];
            if (count == 4) {
#pragma unroll
                for (int i = 0; i < window; i += 4) {
                    const float4 four = *reinterpret_cast<const float4*>(row + i);
                    in[i] = four.x, in[i + 1] = four.y, in[i + 2] = four.z, in[i + 3] = four.w;
                }
            } else {
#pragma unroll
                for (int i = 0; i < window; ++i) in[i] = row[i];
            }
#pragma unroll
            for (int i = 0; i < count; ++i)
#pragma unroll
                for (int s = 0; s < T.S; ++s)
#pragma unroll
                    for (int k = 0; k < T.filters; ++k)
                        sum[u][r][s][k] = fmaf(in[i * T.step_w() + s], gradient[i][k], sum[u][r][s][k]);
        }
}

// Adds up the sums of the warps that went through different rows, in the order of the warps; the first ones have them.
template <WgradTile T>
__device__ __forceinline__ void add_warps(WgradShared<T>& shared, float (&sum)[T.units][T.tap_rows][T.S][T.filters],
                                          int warp_p) {
    constexpr int threads = T.threads() / T.warps_p;
    const int place = static_cast<int>(threadIdx.x) % threads;
    float* all = &sum[0][0][0][0];
#pragma unroll 1
    for (int from = 1; from < T.warps_p; ++from) {
        if (warp_p == from) {
#pragma unroll
            for (int i = 0; i < T.sums(); ++i) shared.sums[i][place] = all[i];
        }
        __syncthreads();
        if (warp_p == 0) {
#pragma unroll
            for (int i = 0; i < T.sums(); ++i) all[i] += shared.sums[i][place];
        }
        __syncthreads();
    }
}

// dw and db have one slice after another.  db may be null.
template <WgradTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_wgrad_direct(const Conv2dShape shape, const WgradGrid grid, const float* __restrict__ dy,
                        const float* __restrict__ x, float* __restrict__ dw, float* __restrict__ db) {
    PYCNN_SHARED(WgradShared<T>, shared);
    int index = static_cast<int>(blockIdx.x);
    WgradBlock block;
    block.c0 = take_digit(index, grid.tiles_c) * T.channels;
    block.k0 = take_digit(index, grid.tiles_k) * T.tile_k();
    block.group = take_digit(index, grid.groups);
    block.slice = index;

    const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
    const int warp_k = thread / kWarp % T.warps_k, warp_c = thread / kWarp / T.warps_k % T.warps_c();
    const int warp_p = thread / kWarp / (T.warps_k * T.warps_c());
    const int first_filter = (warp_k * T.lanes_k() + lane / T.lanes_c) * 4;  // of the first four; within the tile
    const int first_unit = warp_c * T.lanes_c + lane % T.lanes_c;            // the next is warps_c * lanes_c further
    const float* corner[T.units];  // where the unit's first row of taps finds its input for the tile's first pixel
#pragma unroll
    for (int u = 0; u < T.units; ++u) {
        const int unit = first_unit + u * T.warps_c() * T.lanes_c, c = unit / T.units_of_channel();
        const int row = unit % T.units_of_channel() * T.tap_rows * T.halo_pitch();
        corner[u] = &shared.stage.x[c < T.channels ? c : T.channels - 1][row];
    }

    const int P = static_cast<int>(shape.P), Q = static_cast<int>(shape.Q);
    const bool owns_bias = db != nullptr && block.c0 == 0 && thread < T.tile_k();
    float bias = 0.0f;
    float sum[T.units][T.tap_rows][T.S][T.filters] = {};
    const int64 first_tile = block.slice * grid.tiles_of_slice;
    const int64 past_last = first_tile + grid.tiles_of_slice;
    const int end = static_cast<int>(past_last < grid.tiles ? past_last : grid.tiles);
    for (int tile = static_cast<int>(first_tile); tile < end; ++tile) {
        int place = tile;
        block.q0 = take_digit(place, grid.tiles_q) * T.columns;
        block.p0 = take_digit(place, grid.tiles_p) * T.rows;
        block.n = place;
        stage_gradient<T>(shared.stage, shape, block, dy);
        stage_input<T>(shared.stage, shape, block, x);
        __syncthreads();

        if (owns_bias) {
#pragma unroll 8
            for (int i = 0; i < T.pixels(); ++i) bias += shared.stage.dy[i][thread];
        }
        const int rows = P - block.p0 < T.rows ? P - block.p0 : T.rows;
        const int columns = Q - block.q0 < T.columns ? Q - block.q0 : T.columns;
#pragma unroll 1
        for (int row = warp_p; row < rows; row += T.warps_p) {
            const int pixel = row * T.columns, offset = row * T.step_h() * T.halo_pitch();
            int column = 0;
#pragma unroll 1
            for (; column + 4 <= columns; column += 4)
                add_pixels<T, 4>(sum, shared.stage, pixel + column, first_filter, corner, offset + column * T.step_w());
#pragma unroll 1
            for (; column < columns; ++column)
                add_pixels<T, 1>(sum, shared.stage, pixel + column, first_filter, corner, offset + column * T.step_w());
        }
        __syncthreads();
    }

    const int group_filters = static_cast<int>(shape.K / shape.groups);
    const int group_channels = static_cast<int>(shape.C / shape.groups);
    const int64 first_channel = static_cast<int64>(block.group) * group_filters + block.k0;
    if (owns_bias && block.k0 + thread < group_filters) db[block.slice * shape.K + first_channel + thread] = bias;
    add_warps<T>(shared, sum, warp_p);
    if (warp_p != 0) return;
    float* out = dw + (block.slice * shape.K + first_channel) * group_channels * (T.R * T.S);
#pragma unroll
    for (int u = 0; u < T.units; ++u) {
        const int unit = first_unit + u * T.warps_c() * T.lanes_c, c = unit / T.units_of_channel();
        if (c >= T.channels || block.c0 + c >= group_channels) continue;
        const int row = unit % T.units_of_channel() * T.tap_rows;
#pragma unroll
        for (int k = 0; k < T.filters; ++k) {
            const int filter = first_filter + k / 4 * (T.tile_k() / (T.filters / 4)) + k % 4;
            if (block.k0 + filter >= group_filters) continue;
            const int64 channel = static_cast<int64>(filter) * group_channels + block.c0 + c;
#pragma unroll
            for (int r = 0; r < T.tap_rows; ++r)
#pragma unroll
                for (int s = 0; s < T.S; ++s) out[(channel * T.R + row + r) * T.S + s] = sum[u][r][s][k];
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Any problem: any filter size, stride, dilation and, with wide = 1, tensors and coordinates past 2^31
//
// A block owns 8*filters filters of a group and warps*4*taps taps, counted (c*R + r)*S + s.  A chunk of `pixels`
// pixels, counted (n*P + p)*Q + q, is staged at a time: dy as it is, x gathered for each tap.  Lane l owns filters of
// four at 4*(l % 8), 32 apart, and warp v taps of four at 4*(4*v + l / 8): a tile of a matrix product in registers.

struct WgradAnyTile {
    int type;     // of dy and x, as StorageOf has it; in shared memory and in dw all is float32
    int wide;     // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;    // warps in a block, each with taps of its own
    int filters;  // filters a thread owns, a multiple of 4
    int taps;     // taps a thread owns: 4
    int pixels;   // pixels staged at a time

    constexpr int threads() const { return warps * kWarp; }
    constexpr int tile_k() const { return 8 * filters; }
    constexpr int tile_taps() const { return warps * 4 * taps; }
};

// A pixel's place: in dy for the group's first filter, and in x under filter position (0, 0) of its first channel.
template <typename Index>
struct WgradPixel {
    int64 dy, x;
    Index h, w;
};

// Where a tap looks, relative to that; not real past the last tap.
template <typename Index>
struct WgradTap {
    int64 offset;
    Index dh, dw;
    bool real;
};

template <WgradAnyTile T>
struct alignas(16) WgradAnyShared {
    float dy[T.pixels][T.tile_k() + 4];
    float x[T.pixels][T.tile_taps() + 4];
    WgradPixel<typename IndexOf<T.wide>::type> pixel[T.pixels];
    WgradTap<typename IndexOf<T.wide>::type> tap[T.tile_taps()];
};

struct WgradAnyGrid {
    Divisor tiles_taps, tiles_k, groups;  // of the block index
    Divisor Q, P;                         // of a pixel: (n*P + p)*Q + q
    Divisor S, R;                         // of a tap: (c*R + r)*S + s
    int64 pixels, pixels_of_slice;
};

template <WgradAnyTile T>
__global__ void __launch_bounds__(T.threads())
    conv2d_wgrad_direct_any(const Conv2dShape shape, const WgradAnyGrid grid, const Stored<T>* __restrict__ dy,
                            const Stored<T>* __restrict__ x, float* __restrict__ dw, float* __restrict__ db) {
    using Index = typename IndexOf<T.wide>::type;
    PYCNN_SHARED(WgradAnyShared<T>, shared);
    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index tap0 = take_digit(index, grid.tiles_taps) * T.tile_taps();
    const Index k0 = take_digit(index, grid.tiles_k) * T.tile_k();
    const int64 group = take_digit(index, grid.groups);
    const int64 slice = index;
    const int64 first_pixel = slice * grid.pixels_of_slice;
    if (first_pixel >= grid.pixels) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const int64 past_last = first_pixel + grid.pixels_of_slice;
    const Index end = static_cast<Index>(past_last < grid.pixels ? past_last : grid.pixels);

    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index all_taps = group_channels * static_cast<Index>(shape.R * shape.S);
    const int64 plane = shape.P * shape.Q;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
    const int first_filter = lane % 8 * 4, first_tap = (thread / kWarp * 4 + lane / 8) * 4;  // within the tile

    for (int t = thread; t < T.tile_taps(); t += T.threads()) {
        Index c = tap0 + t;
        const bool real = c < all_taps;
        const Index s = take_digit(c, grid.S), r = take_digit(c, grid.R);
        const Index dh = r * static_cast<Index>(shape.dilation_h), dw_ = s * static_cast<Index>(shape.dilation_w);
        shared.tap[t] = {(c * shape.H + dh) * shape.W + dw_, dh, dw_, real};
    }

    const bool owns_bias = db != nullptr && tap0 == 0 && thread < T.tile_k();
    float bias = 0.0f;
    float sum[T.filters][T.taps] = {};
    for (Index pixel0 = static_cast<Index>(first_pixel); pixel0 < end; pixel0 += T.pixels) {
        const int staged = static_cast<int>(end - pixel0 < T.pixels ? end - pixel0 : T.pixels);
        for (int i = thread; i < staged; i += T.threads()) {
            Index n = pixel0 + i;
            const Index q = take_digit(n, grid.Q), p = take_digit(n, grid.P);
            const Index h = p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
            const Index w = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
            shared.pixel[i] = {((n * shape.K + group * group_filters) * shape.P + p) * shape.Q + q,
                               ((n * shape.C + group * group_channels) * shape.H + h) * shape.W + w, h, w};
        }
        __syncthreads();
        for (int i = thread; i < T.pixels * (T.tile_k() / 4); i += T.threads()) {
            const int pixel = i % T.pixels, k = i / T.pixels * 4;
            float value[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const bool real = pixel < staged && k0 + k + j < group_filters;
                value[j] = real ? to_float(dy[shared.pixel[pixel].dy + (k0 + k + j) * plane]) : 0.0f;
            }
            *reinterpret_cast<float4*>(&shared.dy[pixel][k]) = make_float4(value[0], value[1], value[2], value[3]);
        }
        for (int i = thread; i < T.pixels * (T.tile_taps() / 4); i += T.threads()) {
            const int pixel = i % T.pixels, t = i / T.pixels * 4;
            float value[4] = {};
            if (pixel < staged) {
                const auto at = shared.pixel[pixel];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const auto tap = shared.tap[t + j];
                    const bool real = tap.real && inside(at.h + tap.dh, H) && inside(at.w + tap.dw, W);
                    value[j] = real ? to_float(x[at.x + tap.offset]) : 0.0f;
                }
            }
            *reinterpret_cast<float4*>(&shared.x[pixel][t]) = make_float4(value[0], value[1], value[2], value[3]);
        }
        __syncthreads();

        if (owns_bias) {
#pragma unroll 8
            for (int i = 0; i < T.pixels; ++i) bias += shared.dy[i][thread];
        }
#pragma unroll 4
        for (int i = 0; i < T.pixels; ++i) {  // past the last pixel both are zero
            const float4 in = *reinterpret_cast<const float4*>(&shared.x[i][first_tap]);
#pragma unroll
            for (int k = 0; k < T.filters; ++k) {
                const float gradient = shared.dy[i][first_filter + k / 4 * 32 + k % 4];
                sum[k][0] = fmaf(gradient, in.x, sum[k][0]);
                sum[k][1] = fmaf(gradient, in.y, sum[k][1]);
                sum[k][2] = fmaf(gradient, in.z, sum[k][2]);
                sum[k][3] = fmaf(gradient, in.w, sum[k][3]);
            }
        }
        // No barrier: the next pixels' places lie where nobody reads now, and there is one before the next copies.
    }

    const int64 first_channel = slice * shape.K + group * group_filters;
    if (owns_bias && k0 + thread < group_filters) db[first_channel + k0 + thread] = bias;
#pragma unroll
    for (int k = 0; k < T.filters; ++k) {
        const Index filter = k0 + first_filter + k / 4 * 32 + k % 4;
        if (filter >= group_filters) continue;
        float* out = dw + (first_channel + filter) * all_taps + tap0 + first_tap;
#pragma unroll
        for (int t = 0; t < T.taps; ++t)
            if (tap0 + first_tap + t < all_taps) out[t] = sum[k][t];
    }
}

}  // namespace pycnn
