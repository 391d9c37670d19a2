// conv2d_wgrad_tensor: the gradient of the filters as a matrix product on tensor cores whose columns are never stored;
// float16, bfloat16, tf32, 3xtf32 and 3xfp16, float32 sums.
//
//     dw[k, c, r, s] = sum over n, p, q of dy[n, k, p, q]
//         * x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w]
//
// GEMM view   gemm_m = K filters, gemm_n = C*R*S taps, gemm_k = N*P*Q pixels; of one group.
//
// Who owns what: a block owns tile_m filters and tile_n taps of a group, for one slice of the pixels (see tensor_gemm.cuh
// for its warps).  Both operands lie across in shared memory, a row for each pixel.
//
//               taps (r, s, c) or (c, r, s)          shared memory, tile_k pixels (n, p, q) at a time
//            +-----+-----+-----+                     +----------------+   +--------------------+
//    filters |block|     |     |      <----          | dy[n, p, q][k] |   | x[n, h+r, w+s][c]  |  both by the places
//         k  +-----+-----+-----+                     | a row a pixel  |   |    a row a pixel   |  in the ring
//            |     |     |     |                     +----------------+   +--------------------+
//
//     Where tiles are fewer than a GPU keeps busy, the pixels are cut into slices, as many as the shape says; each
//     leaves partial results in float32, which sum_slices adds up in order.
//
// Launch      one block of `warps` warps for each tile; block index = ((slice*groups + g)*tiles_p + tp)*tiles_c + tc,
//             tp counting tiles of taps; past 2^31 - 1 blocks it goes on along y.
// Shared      WgradTensorShared: dynamic past 48 KiB.  Neither copies of 16 bytes nor fragments meet a bank twice (see
//             tensor_gemm.cuh); elements of 32 bits that are copied one by one come four to a bank.
// Determinism each result of a slice is summed in one order; slices are added in order.
// Cost        N*P*Q*K*(C/groups)*R*S multiply-adds, the tiles rounded up to whole ones.
// Limit       as conv2d_fprop_tensor.
// Reference   see tensor_gemm.cuh and conv2d_wgrad_im2col.cu.
#include "tensor_conv.cuh"

namespace pycnn {

template <TensorConvTile T>
struct alignas(128) WgradTensorShared {
    using FilterTile = OperandTile<ElementOf<T>, T.tile_m, T.tile_k, false>;
    using TapTile = OperandTile<ElementOf<T>, T.tile_n, T.tile_k, false>;
    static constexpr int step = T.vectors ? TapTile::chunk : 1;  // taps of a place in `tap`

    TensorStages<T.gemm(), FilterTile, 1, TapTile, 1> stages;
    PlaceRing<T.tile_k, TensorIndex<T>> ring;  // pixels
    Place<TensorIndex<T>> tap[T.tile_n / step];
    TensorIndex<T> result[T.tile_n];  // where a tap's results go
};

template <TensorConvTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_wgrad_tensor(const Conv2dShape shape, const TensorGrid grid, const ElementOf<T>* __restrict__ dy,
                        const ElementOf<T>* __restrict__ x, ElementOf<T>* __restrict__ dw,
                        float* __restrict__ partial) {
    using Index = TensorIndex<T>;
    using Shared = WgradTensorShared<T>;
    constexpr Access access = T.vectors ? kVectors : kElements;
    PYCNN_SHARED(Shared, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index k0 = take_digit(index, grid.tiles_c) * T.tile_m;
    const Index tap0 = take_digit(index, grid.tiles_p) * T.tile_n;
    const Index group = take_digit(index, grid.groups);
    const Index slice = index;
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index all_taps = group_channels * static_cast<Index>(shape.R * shape.S);
    const Index all_pixels = static_cast<Index>(shape.N * grid.pixels.value);
    const Index pixel0 = slice * static_cast<Index>(grid.k_slice);
    if (pixel0 >= all_pixels) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index left = all_pixels - pixel0;
    const Index pixels = left < grid.k_slice ? left : static_cast<Index>(grid.k_slice);
    const Index filters = group_filters - k0, first_filter = group * group_filters + k0;
    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);

    for (int i = static_cast<int>(threadIdx.x); i < T.tile_n; i += T.threads()) {
        Index rest = tap0 + i, c, r, s;
        const bool real = rest < all_taps;
        if constexpr (T.vectors) {
            c = take_digit(rest, grid.channels), s = take_digit(rest, grid.taps_w), r = rest;
        } else {
            s = take_digit(rest, grid.taps_w), r = take_digit(rest, grid.taps_h), c = rest;
        }
        const Index dh = r * static_cast<Index>(shape.dilation_h), dw_ = s * static_cast<Index>(shape.dilation_w);
        shared.result[i] = real ? static_cast<Index>(c * grid.result.c + r * grid.result.h + s * grid.result.w) : -1;
        if (i % Shared::step == 0)
            shared.tap[i / Shared::step] = {
                static_cast<Index>(c * grid.image.c + dh * grid.image.h + dw_ * grid.image.w),
                real ? dh : nowhere<Index>(), dw_, 0};
    }

    const auto place_of_pixel = [&](Index pixel) -> Place<Index> {
        if (pixel >= pixels) return {0, nowhere<Index>(), 0, -1};
        Index n = pixel0 + pixel;
        Index p = take_digit(n, grid.pixels);
        const Index q = take_digit(p, grid.columns);
        const Index h = p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
        const Index column = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
        return {static_cast<Index>(n * grid.image.n + h * grid.image.h + column * grid.image.w), h, column,
                static_cast<Index>(n * grid.gradient.n + p * grid.gradient.h + q * grid.gradient.w)};
    };
    const auto where_dy = [&](Index tile, int row, int column) -> Index {
        const Index pixel = shared.ring.at(tile, row).other;
        return pixel < 0 || column >= filters ? -1 : pixel + column * static_cast<Index>(grid.gradient.c);
    };
    const auto where_x = [&](Index tile, int row, int column) -> Index {
        const Place<Index> pixel = shared.ring.at(tile, row), tap = shared.tap[column / Shared::step];
        const bool real = inside(pixel.h + tap.h, H) && inside(pixel.w + tap.w, W);
        return real ? pixel.offset + tap.offset : -1;
    };

    Loader<access, typename Shared::FilterTile, 1, T.threads(), Index, decltype(where_dy)> load_dy(
        dy + first_filter * grid.gradient.c, where_dy);
    Loader<access, typename Shared::TapTile, 1, T.threads(), Index, decltype(where_x)> load_x(
        x + group * group_channels * grid.image.c, where_x);
    const auto prepare = [&](Index tile) { shared.ring.template prepare<T.threads()>(tile, place_of_pixel); };
    TensorSums<T.gemm()> sums;
    tensor_mainloop<T.gemm()>(sums, shared.stages, (pixels + T.tile_k - 1) / T.tile_k, load_dy, load_x, prepare);

    const auto filter_place = [&](int i) -> Index {
        return i < filters ? static_cast<Index>((first_filter + i) * grid.result.n) : -1;
    };
    const auto tap_place = [&](int i) { return shared.result[i]; };
    const auto finish = [](float sum, int, int, Index) { return sum; };
    const TensorResult<ElementOf<T>> result(dw, partial, slice * grid.slice, grid.way);
    store_sums<T.gemm()>(sums, &shared.stages, result, filter_place, tap_place, finish);
}

}  // namespace pycnn
