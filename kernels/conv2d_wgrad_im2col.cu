// conv2d_wgrad_im2col: the gradients of the filters and of the bias as one matrix product whose columns are never
// stored; float32.
//
//     dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q]
//         * x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w]
//     db[k]          = sum over n, p, q of dy[n, k, p, q]
//
// GEMM view   gemm_m = K filters, gemm_n = C*R*S taps, gemm_k = N*P*Q pixels; of one group.
//
// Who owns what: a block owns tile_m filters and tile_n taps of a group, for one slice of the pixels (see gemm.cuh for
// its threads).  The blocks of the first taps have every dy of their filters in hand, and add them up for db besides.
//
//               taps (c, r, s)                       shared memory, tile_k pixels (n, p, q) at a time
//            +-----+-----+-----+                     +----------------+   +-----------------+
//    filters |block|     |     |      <----          | dy[k][n, p, q] |   |x[n, c, h+r, w+s]|  both gathered by the
//         k  +-----+-----+-----+                     |   transposed   |   |   transposed    |  places in the ring
//              | db                                  +----------------+   +-----------------+
//
//     Where tiles are fewer than a GPU keeps busy, the pixels are cut into slices, as many as the shape says; each
//     leaves partial results, which sum_slices adds up in order.
//
// Launch      one block of `warps` warps for each tile; block index = ((slice*groups + g)*tiles_n + tn)*tiles_m + tm;
//             past 2^31 - 1 blocks it goes on along y.
// Shared      WgradShared: static, at most 48 KiB.  No bank conflicts, see gemm.cuh.
// Determinism one thread sums each result of a slice, in the order n, p, q; slices are added in order.
// Cost        N*P*Q*K*(C/groups)*R*S multiply-adds, the tiles rounded up to whole ones.
// Limit       the FP32 pipes, which share their issue slots with the gathering (see conv2d_fprop_im2col.cu).  Both
//             operands are transposed on the way, so that neighbouring lanes read runs of eight pixels.
// Reference   see conv2d_fprop_im2col.cu.
#include "im2col.cuh"

namespace pycnn {

template <Im2colTile T>
struct alignas(16) WgradShared {
    GemmShared<T.gemm()> tiles;
    PlaceRing<T.tile_k, typename IndexOf<T.wide>::type> ring;  // pixels
    Place<typename IndexOf<T.wide>::type> tap[T.tile_n];       // of the block
    Im2colBlock<typename IndexOf<T.wide>::type> block;
};

// How a block index, a pixel and a tap fall apart.
struct WgradGrid {
    int64 k_slice;                     // pixels of a slice: a multiple of tile_k
    Divisor tiles_m, tiles_n, groups;  // of the block index
    Divisor PQ, Q;                     // of a pixel: (n*P + p)*Q + q
    Divisor S, R;                      // of a tap: (c*R + r)*S + s
};

// Gathers the taps of pixels along k: a thread serves the same taps all along, an eighth of the pixels.
template <int extent, int tile_k, int threads, typename Index, typename PlaceOf>
class GatherTaps {
  public:
    __device__ __forceinline__ GatherTaps(PlaceRing<tile_k, Index>& ring, const Place<Index> (&tap)[extent],
                                          const PlaceOf& place_of, const float* image, Index H, Index W)
        : ring_(ring), tap_(tap), place_of_(place_of), image_(image), H_(H), W_(W) {}

    __device__ __forceinline__ void prepare(Index tile) { ring_.template prepare<threads>(tile, place_of_); }

    __device__ __forceinline__ void copy(Index tile, float (*to)[extent + 4]) {
        const int first = static_cast<int>(threadIdx.x) / 8, k0 = static_cast<int>(threadIdx.x) % 8;
#pragma unroll
        for (int k = k0; k < k0 + tile_k; k += 8) {
            const Place<Index> pixel = ring_.at(tile, k);
            Index offset[extent / pass];
            int bytes[extent / pass];
#pragma unroll
            for (int i = 0; i < extent / pass; ++i) {  // all of them first, as in GatherPixels
                const Place<Index> tap = tap_[first + i * pass];
                offset[i] = pixel.offset + tap.offset;
                bytes[i] = inside(pixel.h + tap.h, H_) && inside(pixel.w + tap.w, W_) ? 4 : 0;
            }
#pragma unroll
            for (int i = 0; i < extent / pass; ++i) cp_async<4>(&to[k][first + i * pass], image_ + offset[i], bytes[i]);
        }
    }

  private:
    static constexpr int pass = threads / 8;  // taps that all threads copy at once
    static_assert(extent % pass == 0, "whole passes");

    PlaceRing<tile_k, Index>& ring_;
    const Place<Index> (&tap_)[extent];
    const PlaceOf& place_of_;
    const float* image_;
    const Index H_, W_;
};

template <Im2colTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_wgrad_im2col(const Conv2dShape shape, const WgradGrid grid, const float* __restrict__ dy,
                        const float* __restrict__ x, float* __restrict__ dw, float* __restrict__ db) {
    using Index = typename IndexOf<T.wide>::type;
    constexpr GemmTile G = T.gemm();
    PYCNN_SHARED(WgradShared<T>, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index k0 = take_digit(index, grid.tiles_m) * T.tile_m;
    const Index tap0 = take_digit(index, grid.tiles_n) * T.tile_n;
    const int64 group = take_digit(index, grid.groups);
    const Index slice = index;
    if (threadIdx.x == 0) shared.block = {k0, tap0, static_cast<Index>(group), slice, 0, 0, 0, 0};
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index all_taps = group_channels * static_cast<Index>(shape.R * shape.S);
    const Index all_pixels = static_cast<Index>(shape.N * shape.P * shape.Q);
    const Index pixel0 = slice * static_cast<Index>(grid.k_slice);
    if (pixel0 >= all_pixels) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index left = all_pixels - pixel0;
    const Index pixels = left < grid.k_slice ? left : static_cast<Index>(grid.k_slice);
    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index plane = static_cast<Index>(shape.P * shape.Q);

    for (int i = static_cast<int>(threadIdx.x); i < T.tile_n; i += T.threads()) {
        Index c = tap0 + i;
        const bool real = c < all_taps;
        const Index s = take_digit(c, grid.S), r = take_digit(c, grid.R);
        const Index dh = r * static_cast<Index>(shape.dilation_h), dw_ = s * static_cast<Index>(shape.dilation_w);
        shared.tap[i] = {(c * H + dh) * W + dw_, real ? dh : nowhere<Index>(), dw_, 0};
    }

    const auto place_of_pixel = [&](Index pixel) -> Place<Index> {
        if (pixel >= pixels) return {0, nowhere<Index>(), 0, -1};
        Index n = pixel0 + pixel;
        const Index pq = take_digit(n, grid.PQ);
        Index p = pq;
        const Index q = take_digit(p, grid.Q);
        const Index h = p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
        const Index column = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
        return {(n * static_cast<Index>(shape.C) * H + h) * W + column, h, column,
                n * static_cast<Index>(shape.K) * plane + pq};
    };

    const int rows = tile_left(group_filters, k0);
    const float* filters = dy + (group * group_filters + k0) * plane;
    GatherRows<T.tile_m, T.tile_k, T.threads(), Index, int64, false> load_dy(shared.ring, false, filters, plane, rows);
    GatherTaps<T.tile_n, T.tile_k, T.threads(), Index, decltype(place_of_pixel)> load_x(
        shared.ring, shared.tap, place_of_pixel, x + group * group_channels * H * W, H, W);

    float sum[T.thread_m][T.thread_n] = {};
    float sum_dy = 0.0f;  // of filter k0 + threadIdx.x
    const bool adds_dy = db != nullptr && tap0 == 0 && static_cast<int>(threadIdx.x) < T.tile_m;
    const auto add_dy = [&](const float* tile) {
        if (!adds_dy) return;
#pragma unroll
        for (int k = 0; k < T.tile_k; ++k) sum_dy += tile[k * G.pitch_m() + static_cast<int>(threadIdx.x)];
    };
    gemm_mainloop<G>(shared.tiles, (pixels + T.tile_k - 1) / T.tile_k, load_dy, load_x, sum, add_dy);

    const Im2colBlock<Index> block = shared.block;
    const int filters_left = tile_left(group_filters, block.m0), columns = tile_left(all_taps, block.n0);
    const int64 row0 = block.slice * shape.K + block.group * static_cast<int64>(group_filters) + block.m0;
    if (adds_dy && static_cast<int>(threadIdx.x) < filters_left) db[row0 + threadIdx.x] = sum_dy;
    const GemmThread<G> thread;
    dw += row0 * all_taps + block.n0;
    const bool vectors = takes_vectors(dw, all_taps);
#pragma unroll
    for (int i = 0; i < T.thread_m; ++i) {
        const int row = thread.row + thread.row_of(i);
        if (row >= filters_left) break;
#pragma unroll
        for (int j = 0; j < T.thread_n; j += 4) {
            const int column = thread.column + thread.column_of(j);
            const float value[4] = {sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]};
            store_neighbours(dw + row * static_cast<int64>(all_taps) + column, value, columns - column, vectors);
        }
    }
}

}  // namespace pycnn
