// conv2d_dgrad_im2col: the gradient of the input as a matrix product whose columns are never stored; float32.
//
//     dx[n, c, h, w] = sum over k, r, s of dy[n, k, p, q] * w[k, c, r, s]
//         where p*stride_h = h + pad_top - r*dilation_h and q*stride_w = w + pad_left - s*dilation_w
//
// GEMM view   gemm_m = C channels, gemm_n = N*H*W pixels, gemm_k = K*R*S taps; of one group and one parity class.
//
// Pixels that share (h + pad_top) mod stride_h and (w + pad_left) mod stride_w meet the same taps: a parity class, with
// a product of its own in which only those taps occur (drawn in conv2d_dgrad_direct.cu).
//
// Who owns what: a block owns tile_m channels of a group and tile_n pixels of a class, counted through the images
// (n*rows + i)*columns + j, or of one slice of their taps (see gemm.cuh for its threads).
//
//              pixels (n, i, j) of a class           shared memory, tile_k taps (k, r, s) at a time
//            +-----+-----+-----+                     +----------------+   +----------------+
//   channels |block|     |     |      <----          | w[k][c][r, s]  |   |  dy[k, p, q]   |  both gathered by the
//         c  +-----+-----+-----+                     +----------------+   +----------------+  places in the ring
//
// Vectors     a 1x1 filter at stride 1 without padding reads dy, and one of any stride w, by 16 bytes where their rows
//             begin at multiples of them: the kernel looks at the pointers.
//
// Launch      one block of `warps` warps for each tile; block index =
//             ((((slice*groups + g)*classes_h + a)*classes_w + b)*tiles_n + tn)*tiles_m + tm; past 2^31 - 1 blocks it
//             goes on along y.
// Shared      DgradShared: static, at most 48 KiB.  No bank conflicts, see gemm.cuh.
// Determinism one thread sums each pixel of a slice, in the order k, r, s; slices are added in order.
// Cost        N*H*W*(C/groups)*K*R*S / (stride_h*stride_w) multiply-adds, the tiles rounded up to whole ones.
// Limit       the FP32 pipes, as conv2d_fprop_im2col.  At stride 2 and more the stores are a stride apart.
// Reference   see conv2d_fprop_im2col.cu and conv2d_dgrad_direct.cu.
#include "im2col.cuh"
#include "parity.cuh"

namespace pycnn {

template <Im2colTile T>
struct alignas(16) DgradShared {
    GemmShared<T.gemm()> tiles;
    PlaceRing<T.tile_k, typename IndexOf<T.wide>::type> ring;
    Im2colBlock<typename IndexOf<T.wide>::type> block;
};

// How a block index, a pixel and a tap fall apart.  Taps of a class are step_h and step_w apart in the filter, so there
// are at most taps_h * taps_w of them.
struct DgradGrid {
    int64 k_slice;                                           // taps of a slice: a multiple of tile_k
    Divisor tiles_m, tiles_n, classes_w, classes_h, groups;  // of the block index
    Divisor pixels, columns;                                 // of a pixel: n*pixels + i*columns + j
    Divisor taps_w, taps_h;                                  // of a tap: (k*taps_h + i)*taps_w + j
    Divisor step_w, step_h;
};

template <Im2colTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_dgrad_im2col(const Conv2dShape shape, const DgradGrid grid, const float* __restrict__ dy,
                        const float* __restrict__ w, float* __restrict__ dx) {
    using Index = typename IndexOf<T.wide>::type;
    constexpr GemmTile G = T.gemm();
    PYCNN_SHARED(DgradShared<T>, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index c0 = take_digit(index, grid.tiles_m) * T.tile_m;
    const Index pixel0 = take_digit(index, grid.tiles_n) * T.tile_n;
    const Index w0 = take_digit(index, grid.classes_w);  // the first column and row of the class
    const Index h0 = take_digit(index, grid.classes_h);
    const int64 group = take_digit(index, grid.groups);
    const Index slice = index;

    const Index R = static_cast<Index>(shape.R), S = static_cast<Index>(shape.S);
    const Index P = static_cast<Index>(shape.P), Q = static_cast<Index>(shape.Q);
    const Index stride_h = static_cast<Index>(shape.stride_h), stride_w = static_cast<Index>(shape.stride_w);
    const Index dilation_h = static_cast<Index>(shape.dilation_h), dilation_w = static_cast<Index>(shape.dilation_w);
    const Index h_padded = h0 + static_cast<Index>(shape.pad_top), w_padded = w0 + static_cast<Index>(shape.pad_left);
    const Index step_h = static_cast<Index>(grid.step_h.value), step_w = static_cast<Index>(grid.step_w.value);
    const Index r0 = first_tap(R, step_h, dilation_h, stride_h, h_padded % stride_h);
    const Index s0 = first_tap(S, step_w, dilation_w, stride_w, w_padded % stride_w);
    if (threadIdx.x == 0) shared.block = {c0, pixel0, static_cast<Index>(group), slice, h0, w0, r0, s0};
    __syncthreads();
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index class_taps = group_filters * static_cast<Index>(grid.taps_h.value * grid.taps_w.value);
    const Index tap0 = slice * static_cast<Index>(grid.k_slice);
    if (tap0 >= class_taps) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index left = class_taps - tap0 < grid.k_slice ? class_taps - tap0 : static_cast<Index>(grid.k_slice);
    const Index taps = r0 == R || s0 == S ? 0 : left;  // none meets this class

    const auto place_of_tap = [&](Index tap) -> Place<Index> {
        const Place<Index> none = {0, nowhere<Index>(), 0, -1};
        if (tap >= taps) return none;
        const Im2colBlock<Index>& block = shared.block;  // rather than registers, for this runs seldom
        Index k = block.slice * static_cast<Index>(grid.k_slice) + tap;
        const Index s = block.s0 + take_digit(k, grid.taps_w) * static_cast<Index>(grid.step_w.value);
        const Index r = block.r0 + take_digit(k, grid.taps_h) * static_cast<Index>(grid.step_h.value);
        if (r >= R || s >= S) return none;
        const Index dp = (block.h0 + static_cast<Index>(shape.pad_top) - r * dilation_h) / stride_h;
        const Index dq = (block.w0 + static_cast<Index>(shape.pad_left) - s * dilation_w) / stride_w;
        return {(k * P + dp) * Q + dq, dp, dq, (k * group_channels * R + r) * S + s};
    };

    using Pixels = GatherPixels<T.tile_n, T.tile_k, T.threads(), Index, decltype(place_of_tap)>;
    const Index pixels = static_cast<Index>(shape.N * grid.pixels.value);
    const bool vectors = is_pointwise(shape) && takes_vectors(dy, static_cast<int64>(P) * Q);
    Index n = pixel0 + Pixels::column(vectors);
    const bool real = n < pixels;
    Index i = take_digit(n, grid.pixels);
    const Index j = take_digit(i, grid.columns);
    const int64 corner = real ? ((n * shape.K + group * group_filters) * P + i) * Q + j : 0;
    Pixels load_dy(shared.ring, place_of_tap, vectors, dy, corner, real ? i : nowhere<Index>(), j, P, Q);

    const Index filter = static_cast<Index>(shape.R * shape.S);  // of one channel
    const float* filters = w + (group * group_filters * group_channels + c0) * filter;
    const int rows = tile_left(group_channels, c0);
    GatherRows<T.tile_m, T.tile_k, T.threads(), Index, Index, true> load_w(
        shared.ring, filter == 1 && takes_vectors(filters, group_channels), filters, filter, rows);

    float sum[T.thread_m][T.thread_n] = {};
    gemm_mainloop<G>(shared.tiles, (taps + T.tile_k - 1) / T.tile_k, load_w, load_dy, sum, NoWatch{});

    const Im2colBlock<Index> block = shared.block;
    const int64 plane = shape.H * shape.W, channel0 = block.group * static_cast<int64>(group_channels) + block.m0;
    dx += block.slice * shape.N * shape.C * plane;
    const auto place_of_pixel = [&](int column) {
        Index image = block.n0 + column;
        if (image >= pixels) return nowhere<int64>();
        Index row = take_digit(image, grid.pixels);
        const int64 across = block.w0 + static_cast<int64>(take_digit(row, grid.columns)) * stride_w;
        const int64 down = block.h0 + static_cast<int64>(row) * stride_h;
        if (down >= shape.H || across >= shape.W) return nowhere<int64>();
        return (image * shape.C + channel0) * plane + down * shape.W + across;
    };
    const auto finish = [](float value, int, int64) { return value; };
    const bool together = stride_h == 1 && stride_w == 1 && takes_vectors(dx, plane);
    store_pixels<G>(dx, sum, tile_left(group_channels, block.m0), plane, together, place_of_pixel, finish);
}

}  // namespace pycnn
