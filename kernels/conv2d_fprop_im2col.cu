// conv2d_fprop_im2col: the convolution as a matrix product whose columns are never stored; float32.
//
//     y[n, k, p, q] = relu(scale[k] * sum + b[k] + residual[n, k, p, q])        each part where it is wanted, and
//     sum = sum over c, r, s of
//         x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[k, c, r, s]
//
// GEMM view   gemm_m = K filters, gemm_n = N*P*Q pixels, gemm_k = C*R*S taps; of one group.  (Pixels along gemm_n,
//             because y's pixels lie side by side.)
//
// Who owns what: a block owns tile_m filters of a group and tile_n pixels, counted through the images, or of one slice
// of their taps (see gemm.cuh for its threads).  A thread gathers the same pixel's column all along:
//
//              pixels (n, p, q)                      shared memory, tile_k taps at a time
//            +-----+-----+-----+                     +----------------+   +----------------+
//    filters |block|     |     |      <----          | w[k][c, r, s]  |   | x[c, h+r, w+s] |  gathered: a tap's offset
//         k  +-----+-----+-----+                     |   transposed   |   |  of each pixel |  and bounds come from the
//            |     |     |     |                     +----------------+   +----------------+  ring, worked out once
//
// Vectors     a 1x1 filter at stride 1 without padding reads x by 16 bytes where x and its planes begin at multiples of
//             them: the kernel looks at the pointer.  y is stored by 16 bytes on the same condition.  Else by 4, which
//             costs a copy more for tile_m FMAs of each of three elements.
//
// Launch      one block of `warps` warps for each tile; block index = ((slice*groups + g)*tiles_n + tn)*tiles_m + tm,
//             so that neighbours in time share their pixels; past 2^31 - 1 blocks it goes on along y.
// Shared      FpropShared: static, at most 48 KiB.  No bank conflicts, see gemm.cuh.
// Determinism one thread sums each output of a slice, in the order c, r, s; slices are added in order.
// Cost        N*K*P*Q*(C/groups)*R*S multiply-adds, the tiles rounded up to whole ones.  x is read R*S * K/groups /
//             tile_m times, mostly from L1, and w N*P*Q / tile_n times, from L2.
// Limit       the FP32 pipes, which share their issue slots with the gathering: of each element, one copy, two bounds
//             and an address for tile_m FMAs.  Groups of few filters leave most of a tile idle.
// Reference   Chellapilla, Puri & Simard, "High performance convolutional neural networks for document processing",
//             2006; Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014 (columns never stored).
#include "im2col.cuh"

namespace pycnn {

template <Im2colTile T>
struct alignas(16) FpropShared {
    GemmShared<T.gemm()> tiles;
    PlaceRing<T.tile_k, typename IndexOf<T.wide>::type> ring;
    Im2colBlock<typename IndexOf<T.wide>::type> block;
};

// How a block index, a pixel and a tap fall apart.
struct FpropGrid {
    int64 k_slice;                     // taps of a slice: a multiple of tile_k
    Divisor tiles_m, tiles_n, groups;  // of the block index
    Divisor PQ, Q;                     // of a pixel: (n*P + p)*Q + q
    Divisor S, R;                      // of a tap: (c*R + r)*S + s
};

template <Im2colTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_fprop_im2col(const Conv2dShape shape, const FpropGrid grid, const float* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ scale, const float* __restrict__ b,
                        const float* __restrict__ residual, const int relu, float* __restrict__ y) {
    using Index = typename IndexOf<T.wide>::type;
    constexpr GemmTile G = T.gemm();
    PYCNN_SHARED(FpropShared<T>, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index k0 = take_digit(index, grid.tiles_m) * T.tile_m;
    const Index pixel0 = take_digit(index, grid.tiles_n) * T.tile_n;
    const int64 group = take_digit(index, grid.groups);
    const Index slice = index;
    if (threadIdx.x == 0) shared.block = {k0, pixel0, static_cast<Index>(group), slice, 0, 0, 0, 0};
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index all_taps = group_channels * static_cast<Index>(shape.R * shape.S);
    const Index tap0 = slice * static_cast<Index>(grid.k_slice);
    if (tap0 >= all_taps) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index taps = all_taps - tap0 < grid.k_slice ? all_taps - tap0 : static_cast<Index>(grid.k_slice);
    const Index pixels = static_cast<Index>(shape.N * shape.P * shape.Q);
    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);

    const auto place_of_tap = [&](Index tap) -> Place<Index> {
        if (tap >= taps) return {0, nowhere<Index>(), 0, -1};
        Index c = tap0 + tap;
        const Index s = take_digit(c, grid.S), r = take_digit(c, grid.R);
        const Index dh = r * static_cast<Index>(shape.dilation_h), dw = s * static_cast<Index>(shape.dilation_w);
        return {(c * H + dh) * W + dw, dh, dw, tap};
    };

    using Pixels = GatherPixels<T.tile_n, T.tile_k, T.threads(), Index, decltype(place_of_tap)>;
    const bool vectors = is_pointwise(shape) && takes_vectors(x, static_cast<int64>(H) * W);
    Index n = pixel0 + Pixels::column(vectors);
    const bool real = n < pixels;
    Index p = take_digit(n, grid.PQ);
    const Index q = take_digit(p, grid.Q);
    const Index h =
        real ? p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top) : nowhere<Index>();
    const Index column = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
    const int64 corner = real ? ((n * shape.C + group * group_channels) * H + h) * W + column : 0;
    Pixels load_x(shared.ring, place_of_tap, vectors, x, corner, h, column, H, W);

    const float* filters = w + (group * group_filters + k0) * all_taps + tap0;
    const int rows = tile_left(group_filters, k0);
    AlongK<T.tile_m, T.tile_k, T.threads(), Index> load_w(filters, all_taps, rows, taps);

    float sum[T.thread_m][T.thread_n] = {};
    gemm_mainloop<G>(shared.tiles, (taps + T.tile_k - 1) / T.tile_k, load_w, load_x, sum, NoWatch{});

    const Im2colBlock<Index> block = shared.block;
    const bool first_slice = block.slice == 0;
    const Epilogue epilogue{scale, first_slice ? b : nullptr, first_slice ? residual : nullptr, relu};
    const int64 plane = shape.P * shape.Q, channel0 = block.group * static_cast<int64>(group_filters) + block.m0;
    y += block.slice * shape.N * shape.K * plane;
    const auto place_of_pixel = [&](int i) {
        Index image = block.n0 + i;
        if (image >= pixels) return nowhere<int64>();
        const Index pixel = take_digit(image, grid.PQ);
        return (image * shape.K + channel0) * plane + pixel;
    };
    const auto finish = [&](float value, int row, int64 place) { return epilogue(value, channel0 + row, place); };
    store_pixels<G>(y, sum, tile_left(group_filters, block.m0), plane, takes_vectors(y, plane), place_of_pixel, finish);
}

}  // namespace pycnn
