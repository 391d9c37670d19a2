// conv2d_dgrad_tensor: the gradient of the input as a matrix product on tensor cores whose columns are never stored;
// float16, bfloat16, tf32, 3xtf32 and 3xfp16, float32 sums.
//
//     dx[n, c, h, w] = sum over k, r, s of dy[n, k, p, q] * w[k, c, r, s]
//         where p*stride_h = h + pad_top - r*dilation_h and q*stride_w = w + pad_left - s*dilation_w
//
// GEMM view   pixels N*H*W, channels C, gemm_k = K*R*S taps; of one group and one parity class (see
//             conv2d_dgrad_direct.cu).  Channels-last (`vectors`), gemm_m are the pixels and gemm_n the channels,
//             otherwise the other way round.
//
// Who owns what: a block owns tile_m x tile_n results of a group and a class, or of one slice of their taps.  dy lies
// along k in shared memory, w across, for its channels are neighbours (or nothing is).
//
//               channels c                           shared memory, tile_k taps (k, r, s) at a time
//            +-----+-----+-----+                     +------------------+   +-----------------+
//     pixels |block|     |     |      <----          | dy[k, p, q]      |   | w[k, r, s][c]   |
//   (n, i, j)+-----+-----+-----+                     | of each pixel    |   | a row for each k|
//            |     |     |     |                     +------------------+   +-----------------+
//
// Launch      one block of `warps` warps for each tile; block index =
//             ((((slice*groups + g)*classes_h + a)*classes_w + b)*tiles_p + tp)*tiles_c + tc; past 2^31 - 1 blocks it
//             goes on along y.
// Shared      FiltersShared: dynamic past 48 KiB.  Neither copies of 16 bytes nor fragments meet a bank twice (see
//             tensor_gemm.cuh); elements of 32 bits that are copied one by one come four to a bank.
// Determinism each pixel of a slice is summed in one order; slices are added in order.
// Cost        N*H*W*(C/groups)*K*R*S / (stride_h*stride_w) multiply-adds, the tiles rounded up to whole ones.
// Limit       as conv2d_fprop_tensor.  At stride 2 and more the stores are a stride apart.
// Reference   see tensor_gemm.cuh and conv2d_dgrad_im2col.cu.
#include "parity.cuh"
#include "tensor_conv.cuh"

namespace pycnn {

template <TensorConvTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_dgrad_tensor(const Conv2dShape shape, const TensorGrid grid, const ElementOf<T>* __restrict__ dy,
                        const ElementOf<T>* __restrict__ w, ElementOf<T>* __restrict__ dx,
                        float* __restrict__ partial) {
    using Index = TensorIndex<T>;
    using Shared = FiltersShared<T, false>;
    using PixelTile = typename Shared::PixelTile;
    PYCNN_SHARED(Shared, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index c0 = take_digit(index, grid.tiles_c) * Shared::others;
    const Index pixel0 = take_digit(index, grid.tiles_p) * Shared::pixels;
    const Index w0 = take_digit(index, grid.classes_w);  // the first column and row of the class
    const Index h0 = take_digit(index, grid.classes_h);
    const Index group = take_digit(index, grid.groups);
    const Index slice = index;
    const Index R = static_cast<Index>(shape.R), S = static_cast<Index>(shape.S);
    const Index P = static_cast<Index>(shape.P), Q = static_cast<Index>(shape.Q);
    const Index stride_h = static_cast<Index>(shape.stride_h), stride_w = static_cast<Index>(shape.stride_w);
    const Index dilation_h = static_cast<Index>(shape.dilation_h), dilation_w = static_cast<Index>(shape.dilation_w);
    const Index h_padded = h0 + static_cast<Index>(shape.pad_top), w_padded = w0 + static_cast<Index>(shape.pad_left);
    const Index step_h = static_cast<Index>(grid.step_h.value), step_w = static_cast<Index>(grid.step_w.value);
    const Index r0 = first_tap(R, step_h, dilation_h, stride_h, h_padded % stride_h);
    const Index s0 = first_tap(S, step_w, dilation_w, stride_w, w_padded % stride_w);
    const Index group_channels = static_cast<Index>(shape.C / shape.groups);
    const Index group_filters = static_cast<Index>(shape.K / shape.groups);
    const Index class_taps = group_filters * static_cast<Index>(grid.taps_h.value * grid.taps_w.value);
    const Index tap0 = slice * static_cast<Index>(grid.k_slice);
    if (tap0 >= class_taps) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index left = class_taps - tap0 < grid.k_slice ? class_taps - tap0 : static_cast<Index>(grid.k_slice);
    const Index taps = r0 == R || s0 == S ? 0 : left;  // none meets this class
    const Index channels = group_channels - c0, first_channel = group * group_channels + c0;

    for (int i = static_cast<int>(threadIdx.x); i < Shared::pixels; i += T.threads()) {
        Index n = pixel0 + i;
        const bool real = n < static_cast<Index>(shape.N * grid.pixels.value);
        Index row = take_digit(n, grid.pixels);
        const Index column = take_digit(row, grid.columns);
        const Index h = h0 + row * stride_h, across = w0 + column * stride_w;
        const bool stored = real && h < static_cast<Index>(shape.H) && across < static_cast<Index>(shape.W);
        shared.pixel[i] = {
            static_cast<Index>(n * grid.image.n + row * grid.image.h + column * grid.image.w),
            real ? row : nowhere<Index>(), column,
            stored ? static_cast<Index>(n * grid.result.n + h * grid.result.h + across * grid.result.w) : -1};
    }

    const auto place_of_tap = [&](Index place) -> Place<Index> {
        const Place<Index> none = {0, nowhere<Index>(), 0, -1};
        const Index tap = place * Shared::step;
        if (tap >= taps) return none;
        Index k = tap0 + tap, r, s;
        if constexpr (T.vectors) {
            const Index filter = take_digit(k, grid.channels);
            s = s0 + take_digit(k, grid.taps_w) * step_w, r = r0 + k * step_h, k = filter;
        } else {
            s = s0 + take_digit(k, grid.taps_w) * step_w, r = r0 + take_digit(k, grid.taps_h) * step_h;
        }
        if (r >= R || s >= S) return none;
        const Index dp = (h_padded - r * dilation_h) / stride_h, dq = (w_padded - s * dilation_w) / stride_w;
        return {static_cast<Index>(k * grid.image.c + dp * grid.image.h + dq * grid.image.w), dp, dq,
                static_cast<Index>(k * grid.filters.n + r * grid.filters.h + s * grid.filters.w)};
    };
    const auto where_dy = [&](Index tile, int row, int column) -> Index {
        const Pixel<Index> pixel = shared.pixel[row];
        const Place<Index> tap = shared.ring.at(tile, column / Shared::step);
        const bool real = inside(pixel.h + tap.h, P) && inside(pixel.w + tap.w, Q);
        return real ? pixel.offset + tap.offset : -1;
    };
    const auto where_w = [&](Index tile, int row, int column) -> Index {
        const Index other = shared.ring.at(tile, row / Shared::step).other;
        const Index filter = row % Shared::step * static_cast<Index>(grid.filters.n);
        return other < 0 || column >= channels ? -1 : other + filter + column * static_cast<Index>(grid.filters.c);
    };

    dy += group * group_filters * grid.image.c;
    w += group * group_filters * grid.filters.n + c0 * grid.filters.c;
    Loader<T.vectors ? kVectors : kElements, PixelTile, 1, T.threads(), Index, decltype(where_dy)> load_dy(dy,
                                                                                                           where_dy);
    const auto prepare = [&](Index tile) { shared.ring.template prepare<T.threads()>(tile, place_of_tap); };
    TensorSums<T.gemm()> sums;
    multiply_filters<T>(sums, shared, (taps + T.tile_k - 1) / T.tile_k, load_dy, w, where_w, grid, prepare);

    const auto pixel_place = [&](int i) { return shared.pixel[i].result; };
    const auto channel_place = [&](int i) -> Index {
        return i < channels ? static_cast<Index>((first_channel + i) * grid.result.c) : -1;
    };
    const auto finish = [](float sum, int, int, Index) { return sum; };
    const TensorResult<ElementOf<T>> result(dx, partial, slice * grid.slice, grid.way);
    if constexpr (T.vectors)
        store_sums<T.gemm()>(sums, &shared.stages, result, pixel_place, channel_place, finish);
    else
        store_sums<T.gemm()>(sums, &shared.stages, result, channel_place, pixel_place, finish);
}

}  // namespace pycnn
