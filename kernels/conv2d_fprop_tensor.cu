// conv2d_fprop_tensor: the convolution as a matrix product on tensor cores whose columns are never stored; float16,
// bfloat16, tf32, 3xtf32 and 3xfp16, float32 sums.
//
//     y[n, k, p, q] = relu(scale[k] * sum + b[k] + residual[n, k, p, q])        each part where it is wanted, and
//     sum = sum over c, r, s of
//         x[n, c, p*stride_h - pad_top + r*dilation_h, q*stride_w - pad_left + s*dilation_w] * w[k, c, r, s]
//
// GEMM view   pixels N*P*Q, filters K, gemm_k = C*R*S taps; of one group.  Channels-last (`vectors`), gemm_m are the
//             pixels and gemm_n the filters, otherwise the other way round: what lies side by side in y runs along
//             gemm_n.
//
// Who owns what: a block owns tile_m x tile_n results of a group, or of one slice of their taps (see tensor_gemm.cuh for
// its warps).  Both operands lie along k in shared memory.
//
//               filters k                            shared memory, tile_k taps at a time
//            +-----+-----+-----+                     +------------------+   +----------------+
//     pixels |block|     |     |      <----          | x[c, h+r, w+s]   |   | w[k][c, r, s]  |   a tap's offset and
//   (n, p, q)+-----+-----+-----+                     | of each pixel    |   | of each filter |   bounds come from the
//            |     |     |     |                     +------------------+   +----------------+   ring, worked out once
//
// Launch      one block of `warps` warps for each tile; block index = ((slice*groups + g)*tiles_p + tp)*tiles_c + tc,
//             so that neighbours in time share their pixels; past 2^31 - 1 blocks it goes on along y.
// Shared      FiltersShared: dynamic past 48 KiB.  Neither copies of 16 bytes nor fragments meet a bank twice (see
//             tensor_gemm.cuh); elements of 32 bits that are copied one by one come four to a bank.
// Determinism each output of a slice is summed in one order; slices are added in order.
// Cost        N*K*P*Q*(C/groups)*R*S multiply-adds, the tiles rounded up to whole ones.
// Limit       the tensor cores with `vectors`: a chunk of eight channels costs one copy, two bounds and an address.
//             Without, every element costs those: bound by instructions.
// Reference   see tensor_gemm.cuh and conv2d_fprop_im2col.cu.
#include "tensor_conv.cuh"

namespace pycnn {

template <TensorConvTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_fprop_tensor(const Conv2dShape shape, const TensorGrid grid, const ElementOf<T>* __restrict__ x,
                        const ElementOf<T>* __restrict__ w, const float* __restrict__ scale,
                        const float* __restrict__ b, const ElementOf<T>* __restrict__ residual, const int relu,
                        ElementOf<T>* __restrict__ y, float* __restrict__ partial) {
    using Index = TensorIndex<T>;
    using Shared = FiltersShared<T, true>;
    using PixelTile = typename Shared::PixelTile;
    PYCNN_SHARED(Shared, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index k0 = take_digit(index, grid.tiles_c) * Shared::others;
    const Index pixel0 = take_digit(index, grid.tiles_p) * Shared::pixels;
    const Index group = take_digit(index, grid.groups);
    const Index slice = index;
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index all_taps = group_channels * static_cast<Index>(shape.R * shape.S);
    const Index tap0 = slice * static_cast<Index>(grid.k_slice);
    if (tap0 >= all_taps) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index taps = all_taps - tap0 < grid.k_slice ? all_taps - tap0 : static_cast<Index>(grid.k_slice);
    const Index filters = group_filters - k0, first_filter = group * group_filters + k0;
    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index filter_stride = static_cast<Index>(grid.filters.n);

    for (int i = static_cast<int>(threadIdx.x); i < Shared::pixels; i += T.threads()) {
        Index n = pixel0 + i;
        const bool real = n < static_cast<Index>(shape.N * grid.pixels.value);
        Index p = take_digit(n, grid.pixels);
        const Index q = take_digit(p, grid.columns);
        const Index h = p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
        const Index column = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
        shared.pixel[i] = {static_cast<Index>(n * grid.image.n + h * grid.image.h + column * grid.image.w),
                           real ? h : nowhere<Index>(), column,
                           real ? static_cast<Index>(n * grid.result.n + p * grid.result.h + q * grid.result.w) : -1};
    }

    const auto place_of_tap = [&](Index place) -> Place<Index> {
        const Index tap = place * Shared::step;
        if (tap >= taps) return {0, nowhere<Index>(), 0, -1};
        Index rest = tap0 + tap, c, r, s;
        if constexpr (T.vectors) {
            c = take_digit(rest, grid.channels), s = take_digit(rest, grid.taps_w), r = rest;
        } else {
            s = take_digit(rest, grid.taps_w), r = take_digit(rest, grid.taps_h), c = rest;
        }
        const Index dh = r * static_cast<Index>(shape.dilation_h), dw = s * static_cast<Index>(shape.dilation_w);
        return {static_cast<Index>(c * grid.image.c + dh * grid.image.h + dw * grid.image.w), dh, dw,
                static_cast<Index>(c * grid.filters.c + r * grid.filters.h + s * grid.filters.w)};
    };
    const auto where_x = [&](Index tile, int row, int column) -> Index {
        const Pixel<Index> pixel = shared.pixel[row];
        const Place<Index> tap = shared.ring.at(tile, column / Shared::step);
        const bool real = inside(pixel.h + tap.h, H) && inside(pixel.w + tap.w, W);
        return real ? pixel.offset + tap.offset : -1;
    };
    const auto where_w = [&](Index tile, int row, int column) -> Index {
        const Index other = shared.ring.at(tile, column / Shared::step).other;
        const Index inner = column % Shared::step * static_cast<Index>(grid.filters.c);
        return other < 0 || row >= filters ? -1 : row * filter_stride + other + inner;
    };

    x += group * group_channels * grid.image.c;
    w += first_filter * grid.filters.n;
    Loader<T.vectors ? kVectors : kElements, PixelTile, 1, T.threads(), Index, decltype(where_x)> load_x(x, where_x);
    const auto prepare = [&](Index tile) { shared.ring.template prepare<T.threads()>(tile, place_of_tap); };
    TensorSums<T.gemm()> sums;
    multiply_filters<T>(sums, shared, (taps + T.tile_k - 1) / T.tile_k, load_x, w, where_w, grid, prepare);

    const bool first = slice == 0;
    const EpilogueOf<ElementOf<T>> epilogue{scale, first ? b : nullptr, first ? residual : nullptr, relu};
    const auto pixel_place = [&](int i) { return shared.pixel[i].result; };
    const auto filter_place = [&](int i) -> Index {
        return i < filters ? static_cast<Index>((first_filter + i) * grid.result.c) : -1;
    };
    const auto finish = [&](float sum, int m, int n, Index place) {
        return epilogue(sum, first_filter + (T.vectors ? n : m), place);
    };
    const TensorResult<ElementOf<T>> result(y, partial, slice * grid.slice, grid.way);
    if constexpr (T.vectors)
        store_sums<T.gemm()>(sums, &shared.stages, result, pixel_place, filter_place, finish);
    else
        store_sums<T.gemm()>(sums, &shared.stages, result, filter_place, pixel_place, finish);
}

}  // namespace pycnn
