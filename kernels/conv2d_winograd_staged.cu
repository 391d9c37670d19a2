// The four transforms around a batched matrix product that make a Winograd convolution; float32.
//
//   fprop   y  = AT [ (G w GT) . (BT x B)  ] A         sums over channels
//   dgrad   dx = AT [ (G w' GT) . (BT dy B) ] A        w': filters turned by 180 degrees; sums over filters
//   wgrad   dw = AT [ (G dy GT) . (BT x B)  ] A        of F(3x3, m x m); sums over tiles
//
// fprop and dgrad are F(m x m, r x r) for filters of r = 3 (m = 4, 6) and r = 5 (m = 2, 4); wgrad has r = 3.
// For filters of one line, 1 x r and r x 1 with r = 3 and 5, fprop and dgrad are F(4, r) along that line alone:
// y = AT [ (G w) . (BT x) ], in tiles of 1 x 4 or 4 x 1 and with m + r - 1 points.
//
// GEMM view   one product for each group and each of the (m + r - 1)^2 points; fprop: gemm_m = K, gemm_n = tiles and
//             gemm_k = C (dgrad: C and K change places); wgrad: gemm_m = K, gemm_n = C, gemm_k = tiles.  The products
//             are sgemm's; here are the ways into Winograd's domain and out of it:
//
//    fprop, dgrad
//      x or dy -winograd_windows-> V [group][point][channel][tile]   -+
//                                                                     +- sgemm -> M [group][point][filter][tile]
//      w       -winograd_filters-> U [group][point][channel][filter] -+           |
//                                                                  winograd_results, epilogue -> y or dx
//    wgrad
//      x       -winograd_windows-> V [group][point][channel][tile]   -+
//                                                                     +- sgemm -> M [group][point][filter][channel]
//      dy      -winograd_windows-> D [group][point][filter][tile]    -+           |
//                  gradient = 1                                            winograd_taps -> dw
//
// Who owns what: a thread owns one tile of one channel (windows, results), or one filter's taps for one channel
// (filters, taps), with all its points in registers.  Neighbouring threads own neighbouring tiles, channels or filters,
// in the order in which V, U and M lie, so each of a warp's accesses to them, one a point, is a line of 128 bytes:
//
//                    lane 0    1    2    3          31
//          point 0  |  t0 | t1 | t2 | t3 | .... | t31 |        V, M: 128 bytes
//          point 1  |  t0 | t1 | ...
//
// The windows of a warp lie m pixels apart: its m + r - 1 accesses to a row of x touch the same lines, which L1 keeps.
// Those of r x 1 are neighbouring columns: each of the warp's accesses is a line of x, and each of its stores one of y.
// filters and taps stage the taps of a pair in shared memory, so that w and dw move in whole lines too.
//
// Launch      blocks of `warps` warps, one thread for each tile and channel (or pair); the last block is ragged.
// Shared      filters: 32 columns x 32 rows of pairs of up to 9 taps, or 32 x 8 of 25, what lanes read an odd number of
//             words apart; taps: 9 words a thread.  Both are static, under 48 KiB and free of bank conflicts.
// Determinism each result is computed by one thread, in one order.
// Cost        windows write (m + r - 1)^2 / m^2 floats for each one they read (2.25 at m = 4 and 1.78 at m = 6; with
//             5x5 filters 9 at m = 2 and 4 at m = 4; with those of one line 1.5 for 3 taps and 2 for 5), results read
//             as many for each one they write; 3 to 7 additions and multiplications for each float moved.
// Limit       bandwidth, all four: an H100 does 80 operations in the time that it moves one float.
// Reference   Lavin & Gray, "Fast algorithms for convolutional neural networks", 2015.
#include "epilogue.cuh"
#include "winograd.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct WinogradTile {
    int m;         // side of a tile: of results in fprop and dgrad, of dy in wgrad
    int r;         // side of a filter
    int axes;      // of the transforms: kAlongRows for filters of 1 x r, kAlongColumns for r x 1
    int gradient;  // windows: 1 for the tiles of dy in wgrad, which have no border
    int warps;     // of a block
    int blocks;    // blocks an SM should hold: caps the registers of a thread

    constexpr int threads() const { return warps * 32; }
    constexpr int side() const { return m + r - 1; }  // of a window, and of its points
    // What is n x n for square filters has so many rows and columns.
    constexpr int rows(int n) const { return axes == kAlongRows ? 1 : n; }
    constexpr int columns(int n) const { return axes == kAlongColumns ? 1 : n; }
    constexpr int points() const { return rows(side()) * columns(side()); }
    constexpr int taps() const { return rows(r) * columns(r); }
};

// The tiles and channels of one launch: thread i = (group*channels + c)*tiles + t owns tile first + t of channel c.
struct TileChunk {
    int64 first, threads;
    Divisor tiles;
    Divisor plane;  // channels * tiles: one point of V or M
};

// Where a thread's points lie: `plane` floats apart from `offset` on; and what they belong to.
struct ThreadTile {
    int64 offset;
    int tile, channel, group;
};

template <WinogradTile T>
__device__ __forceinline__ ThreadTile thread_tile(const TileChunk& chunk, int i) {
    ThreadTile mine;
    mine.group = i;
    mine.channel = take_digit(mine.group, chunk.plane);
    mine.offset = mine.group * T.points() * chunk.plane.value + mine.channel;
    mine.tile = static_cast<int>(chunk.first) + take_digit(mine.channel, chunk.tiles);
    return mine;
}

// The first pixel of the thread's channel.
__device__ __forceinline__ int64 image_plane(const TiledImage& image, const ThreadTile& mine, int n) {
    return ((n * image.groups.value + mine.group) * image.channels + mine.channel) * image.H * image.W;
}

// ---------------------------------------------------------------------------------------------------------------------
// Windows: V = BT x B, or D = G dy GT; zero outside of the image, and for tiles past the last

template <WinogradTile T>
struct WindowTransform : InputTransform<T.side()> {};
template <WinogradTile T>
    requires(T.gradient == 1)
struct WindowTransform<T> : FilterTransform<T.r, T.m> {};

template <WinogradTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    winograd_windows(const TileChunk chunk, const TiledImage image, const float* __restrict__ x,
                     float* __restrict__ v) {
    const int i = static_cast<int>(blockIdx.x) * T.threads() + static_cast<int>(threadIdx.x);
    if (i >= chunk.threads) return;
    const ThreadTile mine = thread_tile<T>(chunk, i);
    const TileCorner corner = tile_corner<T.rows(T.m), T.columns(T.m)>(image, mine.tile);
    const bool real = mine.tile < image.tiles;
    const int H = static_cast<int>(image.H), W = static_cast<int>(image.W);
    const float* window = x + image_plane(image, mine, corner.n) + corner.h * image.W + corner.w;
    float* point = v + mine.offset;
    transform<WindowTransform<T>, T.axes>(
        [&](int r, int s) {
            const bool inner = real && inside(corner.h + r, H) && inside(corner.w + s, W);
            return inner ? window[r * image.W + s] : 0.0f;
        },
        [&](int, const float (&row)[T.columns(T.side())]) {
#pragma unroll
            for (int s = 0; s < T.columns(T.side()); ++s) {
                *point = row[s];
                point += chunk.plane.value;
            }
        });
}

// ---------------------------------------------------------------------------------------------------------------------
// Filters: U = G w GT with channels for rows and filters for columns; in dgrad the other way round, the filters turned.
// U is cut into blocks of rows and columns, [group][column block][row block][point][row][column], and has zeros where
// the last blocks reach over the edge.  sgemm takes each group's U as one block; the fused kernel reads what a stage of
// a block needs in one run.

struct FilterGrid {
    int64 filters, channels;            // of one group
    int64 turned;                       // 1 in dgrad
    int64 row_blocks, column_blocks;    // of U
    Divisor block_rows, block_columns;  // the sizes of a block of U
    Divisor tiles_c, tiles_r;           // of a block index: (group*tiles_r + r)*tiles_c + c
};

// What a block makes of U: so many columns, a lane each, and rows, as shared memory allows.
enum : int { kColumns = 32 };

template <WinogradTile T>
inline constexpr int kRows = T.taps() <= 9 ? 32 : 8;

template <WinogradTile T>
struct FilterShared {
    // [filter][channel and tap], a word of padding behind each filter; of filters and channels, one are columns.
    float taps[kColumns * (kRows<T> * T.taps() + 1)];
};

template <WinogradTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    winograd_filters(const FilterGrid grid, const float* __restrict__ w, float* __restrict__ u) {
    constexpr int taps = T.taps(), rows = kRows<T>;
    static_assert(rows <= kColumns && taps % 2 == 1 && rows % 2 == 0, "shared memory is large enough, its pitch odd");
    PYCNN_SHARED(FilterShared<T>, shared);
    int index = static_cast<int>(blockIdx.x);
    const int column0 = take_digit(index, grid.tiles_c) * kColumns;
    const int row0 = take_digit(index, grid.tiles_r) * rows;
    const int64 group = index;
    const bool turned = grid.turned != 0;
    const int k0 = turned ? row0 : column0, c0 = turned ? column0 : row0;
    const int filters = static_cast<int>(grid.filters) - k0, channels = static_cast<int>(grid.channels) - c0;

    const float* from = w + ((group * grid.filters + k0) * grid.channels + c0) * taps;
    const int run = (turned ? kColumns : rows) * taps, pitch = run + 1;  // of a filter
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < kColumns * rows * taps; i += T.threads()) {
        const int k = turned ? i / (kColumns * taps) : i / (rows * taps), tap = i - k * run;
        const bool real = k < filters && tap < channels * taps;
        shared.taps[k * pitch + tap] = real ? from[k * grid.channels * taps + tap] : 0.0f;
    }
    __syncthreads();

    const int lane = static_cast<int>(threadIdx.x) % 32;
    int block_c = column0 + lane;
    const int column = take_digit(block_c, grid.block_columns);
    if (block_c >= grid.column_blocks) return;
    const int64 plane = grid.block_rows.value * grid.block_columns.value;
#pragma unroll 1
    for (int r = static_cast<int>(threadIdx.x) / 32; r < rows; r += T.warps) {
        int block_r = row0 + r;
        const int row = take_digit(block_r, grid.block_rows);
        if (block_r >= grid.row_blocks) break;
        const float* tap = &shared.taps[turned ? r * pitch + lane * taps : lane * pitch + r * taps];
        const int64 block = (group * grid.column_blocks + block_c) * grid.row_blocks + block_r;
        float* point = u + block * T.points() * plane + row * grid.block_columns.value + column;
        transform<FilterTransform<T.m, T.r>, T.axes>(
            [&](int i, int j) {
                const int at = i * T.r + j;
                return tap[turned ? taps - 1 - at : at];
            },
            [&](int, const float (&points)[T.columns(T.side())]) {
#pragma unroll
                for (int s = 0; s < T.columns(T.side()); ++s) {
                    *point = points[s];
                    point += plane;
                }
            });
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Results: y = AT M A and the epilogue.  A row of a tile is stored in vectors where y and its rows are aligned to them.

template <int width>
struct VectorOf {
    using type = float;
};
template <>
struct VectorOf<2> {
    using type = float2;
};
template <>
struct VectorOf<4> {
    using type = float4;
};

template <WinogradTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    winograd_results(const TileChunk chunk, const TiledImage image, const float* __restrict__ m,
                     const float* __restrict__ scale, const float* __restrict__ b, const float* __restrict__ residual,
                     const int relu, float* __restrict__ y) {
    constexpr int columns = T.columns(T.m), width = columns % 4 == 0 ? 4 : columns % 2 == 0 ? 2 : 1;
    using Vector = typename VectorOf<width>::type;
    const int i = static_cast<int>(blockIdx.x) * T.threads() + static_cast<int>(threadIdx.x);
    if (i >= chunk.threads) return;
    const ThreadTile mine = thread_tile<T>(chunk, i);
    if (mine.tile >= image.tiles) return;
    const TileCorner corner = tile_corner<T.rows(T.m), T.columns(T.m)>(image, mine.tile);
    const int H = static_cast<int>(image.H), W = static_cast<int>(image.W);
    const ChannelEpilogue epilogue(Epilogue{scale, b, residual, relu}, mine.group * image.channels + mine.channel);
    const int64 first = image_plane(image, mine, corner.n) + corner.h * image.W + corner.w;
    const bool aligned = W % width == 0 && reinterpret_cast<unsigned long long>(y) % sizeof(Vector) == 0;
    const float* point = m + mine.offset;
    const auto load = [&](int r, int s) { return point[(r * T.columns(T.side()) + s) * chunk.plane.value]; };
    transform<OutputTransform<T.m, T.r>, T.axes>(load, [&](int r, const float (&row)[columns]) {
        if (corner.h + r >= H) return;
        const int64 at = first + r * image.W;
        float done[columns];
#pragma unroll
        for (int s = 0; s < columns; ++s) done[s] = corner.w + s < W ? epilogue(row[s], at + s) : 0.0f;
#pragma unroll
        for (int s = 0; s < columns; s += width) {
            if (aligned) {
                if (corner.w + s >= W) continue;  // then none of the vector is inside
                if constexpr (width == 4)
                    *reinterpret_cast<Vector*>(y + at + s) =
                        make_float4(done[s], done[s + 1], done[s + 2], done[s + 3]);
                else if constexpr (width == 2)
                    *reinterpret_cast<Vector*>(y + at + s) = make_float2(done[s], done[s + 1]);
                else
                    y[at + s] = done[s];
            } else {
#pragma unroll
                for (int j = s; j < s + width; ++j)
                    if (corner.w + j < W) y[at + j] = done[j];
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------------
// Taps: dw (+)= AT M A, M as [group][point][filter][channel].  Chunks of tiles add to dw one after another.

template <WinogradTile T>
struct TapsShared {
    float taps[T.threads() * T.taps()];
};

template <WinogradTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    winograd_taps(const int64 count, const Divisor pairs, const int more, const float* __restrict__ m,
                  float* __restrict__ dw) {
    constexpr int taps = T.taps();
    PYCNN_SHARED(TapsShared<T>, shared);
    const int first = static_cast<int>(blockIdx.x) * T.threads(), thread = static_cast<int>(threadIdx.x);
    if (first + thread < count) {
        int group = first + thread;
        const int pair = take_digit(group, pairs);
        const float* point = m + static_cast<int64>(group) * T.points() * pairs.value + pair;
        const auto load = [&](int r, int s) { return point[(r * T.side() + s) * pairs.value]; };
        transform<OutputTransform<T.r, T.m>>(load, [&](int r, const float (&row)[T.r]) {
#pragma unroll
            for (int s = 0; s < T.r; ++s) shared.taps[thread * taps + r * T.r + s] = row[s];
        });
    }
    __syncthreads();
    float* out = dw + static_cast<int64>(first) * taps;
    const int staged = static_cast<int>(count - first < T.threads() ? count - first : T.threads()) * taps;
#pragma unroll
    for (int i = thread; i < T.threads() * taps; i += T.threads())
        if (i < staged) out[i] = more != 0 ? out[i] + shared.taps[i] : shared.taps[i];
}

}  // namespace pycnn
