// conv2d_dgrad_direct: the gradient of the input, gathered from that of the output; float32, and for any problem
// also 16 bits stored and float32 computed.
//
//     dx[n, c, h, w] = sum over k, r, s of dy[n, k, p, q] * w[k, c, r, s]
//         where p*stride_h = h + pad_top - r*dilation_h and q*stride_w = w + pad_left - s*dilation_w
//
// GEMM view   gemm_m = N*H*W pixels, gemm_n = C channels, gemm_k = K*R*S taps, of which a pixel meets one in
//             stride_h*stride_w: those for which p and q come out whole.
//
// Pixels that share (h + pad_top) mod stride_h and (w + pad_left) mod stride_w meet the same taps: a parity class.  The
// pixels of a class lie a stride apart, and for them the gradient is a convolution of dy at stride 1 with the taps of
// the class, a step apart in the filter.  So no tap is tried in vain:
//
//     stride 2, filter 3x3, pad 1          class (0, 0): h = 1, 3, ...  taps r = 0, 2     class (0, 1): 2 x 1 taps
//       dx  b a b a                        class (1, 1): h = 0, 2, ...  taps r = 1        class (1, 0): 1 x 2 taps
//           d c d c      each letter a     (h + pad_top = 0 mod 2 where r*dilation_h is)
//           b a b a      class of its own
//
// Two kernels.  `conv2d_dgrad_direct_tiled` is compiled for one filter size at stride 1 without dilation, where there
// is one class: it is the tiled convolution of direct_tile.cuh, of dy with the filters turned by half a turn and padded
// by R - 1 - pad_top and S - 1 - pad_left (which may be negative: then the first rows of dy are left out).  The filters
// are read where they lie.  `conv2d_dgrad_direct` takes every valid problem; the rest of this is about it.
//
// Who owns what: a block owns 32*pixels consecutive pixels of one class of one image, counted i*columns + j, and
// warps*channels channels of one group.  A thread owns `pixels` pixels, 32 apart, of `channels` channels.  `taps` taps
// at a time are staged in shared memory together with where they look.
//
// Launch      one block of `warps` warps for each tile; block index = (((((n*groups + g)*classes_h + a)*classes_w + b)
//             *tiles_pixels + tp)*tiles_c + tc; past 2^31 - 1 blocks the grid goes on along y.
// Shared      DgradShared: static, at most 48 KiB; a weight is one word for the whole warp.
// Determinism one thread sums each pixel, in the order k, r, s: bit for bit the same in every run.
// Cost        N*H*W*(C/groups)*K*R*S / (stride_h*stride_w) multiply-adds, the tiles rounded up to whole ones.  dy is
//             read C/groups / tile_c times by the warps of a block together, w once for each tile of pixels.
// Limit       the loads of dy through L1: one for `channels` FMAs.
// Reference   Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.
#include "direct_tile.cuh"
#include "parity.cuh"

namespace pycnn {

// `turned` is the shape of the convolution of dy: its C and K are the problem's K and C, its H and W are P and Q.
template <DirectTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_dgrad_direct_tiled(const Conv2dShape turned, const DirectGrid grid, const float* __restrict__ dy,
                              const float* __restrict__ w, float* __restrict__ dx) {
    direct_convolution<T, true>(turned, grid, dy, w, Epilogue{}, dx);
}

struct DgradTile {
    int type;      // of dy, w and dx, as StorageOf has it; in shared memory all is float32
    int wide;      // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;     // warps in a block, each with channels of its own
    int channels;  // channels a thread owns, a multiple of 4
    int pixels;    // pixels a thread owns, 32 apart
    int taps;      // taps staged at a time

    constexpr int threads() const { return warps * kWarp; }
    constexpr int tile_pixels() const { return kWarp * pixels; }
    constexpr int tile_c() const { return warps * channels; }
};

// Where a tap looks: its weight for channel 0 of the group, and dy's element relative to pixel (0, 0) of the class.
template <typename Index>
struct DgradPlace {
    int64 weight;  // in elements of w; negative past the last tap
    int64 offset;  // in elements of dy
    Index dp, dq;
};

template <DgradTile T>
struct alignas(16) DgradShared {
    float weight[T.taps][T.tile_c() + 4];
    DgradPlace<typename IndexOf<T.wide>::type> place[T.taps];
};

// How a block index, a pixel and a tap fall apart.  Taps of a class are step_h and step_w apart in the filter, so there
// are at most taps_h * taps_w of them.
struct DgradGrid {
    Divisor tiles_c, tiles_pixels, classes_w, classes_h, groups;  // of the block index
    Divisor columns;                                              // of a pixel: i*columns + j
    Divisor taps_w, taps_h;                                       // of a tap: (k*taps_h + i)*taps_w + j
    Divisor step_w, step_h;
};

template <DgradTile T>
__global__ void __launch_bounds__(T.threads())
    conv2d_dgrad_direct(const Conv2dShape shape, const DgradGrid grid, const Stored<T>* __restrict__ dy,
                        const Stored<T>* __restrict__ w, Stored<T>* __restrict__ dx) {
    using Index = typename IndexOf<T.wide>::type;
    PYCNN_SHARED(DgradShared<T>, shared);

    Index index = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index c0 = take_digit(index, grid.tiles_c) * T.tile_c();
    const Index pixel0 = take_digit(index, grid.tiles_pixels) * T.tile_pixels();
    const Index w0 = take_digit(index, grid.classes_w);  // the first column and row of the class
    const Index h0 = take_digit(index, grid.classes_h);
    const int64 group = take_digit(index, grid.groups);
    const int64 n = index;
    if (n >= shape.N) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged

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
    const bool none = r0 == R || s0 == S;  // no tap meets this class
    const Index all_taps = none ? 0 : group_filters * static_cast<Index>(grid.taps_h.value * grid.taps_w.value);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int first_channel = static_cast<int>(threadIdx.x) / kWarp * T.channels;  // within the tile

    Index row[T.pixels], column[T.pixels];  // within the class
    int64 corner[T.pixels];                 // what a tap with dp = dq = 0 of filter 0 meets
#pragma unroll
    for (int i = 0; i < T.pixels; ++i) {
        row[i] = pixel0 + lane + i * kWarp;
        column[i] = take_digit(row[i], grid.columns);
        corner[i] = ((n * shape.K + group * group_filters) * shape.P + row[i]) * shape.Q + column[i];
    }

    float sum[T.pixels][T.channels] = {};
    for (Index tap0 = 0; tap0 < all_taps; tap0 += T.taps) {
        for (int t = static_cast<int>(threadIdx.x); t < T.taps; t += T.threads()) {
            Index k = tap0 + t;
            const Index s = s0 + take_digit(k, grid.taps_w) * step_w, r = r0 + take_digit(k, grid.taps_h) * step_h;
            const bool real = k < group_filters && r < R && s < S;
            const Index dp = (h_padded - r * dilation_h) / stride_h, dq = (w_padded - s * dilation_w) / stride_w;
            const int64 filter = group * group_filters + k;
            shared.place[t] = {real ? (filter * group_channels * R + r) * S + s : -1, (k * shape.P + dp) * shape.Q + dq,
                               dp, dq};
        }
        __syncthreads();
        stage<T.tile_c() * T.taps, T.threads()>(
            [&](int i) {
                const int t = i % T.taps, c = i / T.taps;
                const int64 weight = shared.place[t].weight;
                const bool real = weight >= 0 && c0 + c < group_channels;
                return real ? to_float(w[weight + (c0 + c) * shape.R * shape.S]) : 0.0f;
            },
            [&](int i, float value) { shared.weight[i % T.taps][i / T.taps] = value; });
        __syncthreads();

        for (int t = 0; t < T.taps; ++t) {
            const auto place = shared.place[t];
            if (place.weight < 0) continue;
#pragma unroll
            for (int i = 0; i < T.pixels; ++i) {
                const bool real = inside(row[i] + place.dp, P) && inside(column[i] + place.dq, Q);
                const float in = real ? to_float(dy[corner[i] + place.offset]) : 0.0f;
                const float* weight = &shared.weight[t][first_channel];
#pragma unroll
                for (int c = 0; c < T.channels; ++c) sum[i][c] = fmaf(in, weight[c], sum[i][c]);
            }
        }
        __syncthreads();
    }

#pragma unroll
    for (int c = 0; c < T.channels; ++c) {
        const Index channel = c0 + first_channel + c;
        if (channel >= group_channels) break;
        const int64 plane = n * shape.C + group * group_channels + channel;
#pragma unroll
        for (int i = 0; i < T.pixels; ++i) {
            const int64 h = h0 + static_cast<int64>(row[i]) * stride_h;
            const int64 column_w = w0 + static_cast<int64>(column[i]) * stride_w;
            if (h < shape.H && column_w < shape.W)
                dx[(plane * shape.H + h) * shape.W + column_w] = from_float<Stored<T>>(sum[i][c]);
        }
    }
}

}  // namespace pycnn
