// conv2d_fprop_direct: the convolution itself, as it is written down; float32, and for any problem also 16 bits stored
// and float32 computed.
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
//             (((n*groups + g)*tiles_p + tp)*tiles_q + tq)*tiles_k + tk, so blocks that share an input tile are
//             neighbours in time.
// Shared      DirectShared: `channels` input halos and their filter taps; static, at most 48 KiB.  No bank conflicts
//             at stride 1: lanes read neighbouring halo columns, and a tap is one word for the whole warp.
// Determinism one thread sums each output, in the order c, s, r: bit for bit the same in every run.
// Cost        N*K*P*Q*(C/groups)*R*S multiply-adds, the tiles rounded up to whole ones.  x is read K/groups / tile_k
//             times and w N * tiles_p * tiles_q times, mostly from L2.
// Limit       the FP32 pipes: per tap of a 3x3 filter 64 FMAs against 10/3 + 2 shared loads.  Not so where a group has
//             few filters: most of a tile idles (for one channel a group see conv2d_depthwise_direct.cu, for 1x1
//             filters conv2d_pointwise_direct.cu).
// Reference   Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016; register tiling as in
//             Volkov & Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.
#include "direct_tile.cuh"

namespace pycnn {

template <DirectTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_fprop_direct(const Conv2dShape shape, const DirectGrid grid, const float* __restrict__ x,
                        const float* __restrict__ w, const float* __restrict__ scale, const float* __restrict__ b,
                        const float* __restrict__ residual, const int relu, float* __restrict__ y) {
    direct_convolution<T, false>(shape, grid, x, w, Epilogue{scale, b, residual, relu}, y);
}

// ---------------------------------------------------------------------------------------------------------------------
// Any problem: any filter size, stride, dilation and, with wide = 1, tensors and coordinates past 2^31
//
// A block owns 32*pixels consecutive outputs of one image, counted p*Q + q, and warps*filters filters of one group.
// `taps` taps at a time are staged in shared memory together with where they look: no size is too large for it.
// The input is read from global memory (a warp's lanes read neighbouring pixels; the warps of a block share L1).

struct AnyTile {
    int type;     // of x, w and y, as StorageOf has it; in shared memory all is float32
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
    conv2d_fprop_direct_any(const Conv2dShape shape, const AnyGrid grid, const Stored<T>* __restrict__ x,
                            const Stored<T>* __restrict__ w, const float* __restrict__ scale,
                            const float* __restrict__ b, const Stored<T>* __restrict__ residual, const int relu,
                            Stored<T>* __restrict__ y) {
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
                return real ? to_float(w[(group * group_filters + k0 + k) * all_taps + tap0 + t]) : 0.0f;
            },
            [&](int i, float value) { shared.tap[i % T.taps][i / T.taps] = value; });
        __syncthreads();

        for (int t = 0; t < staged; ++t) {
            const auto place = shared.place[t];
#pragma unroll
            for (int i = 0; i < T.pixels; ++i) {
                // A thread past the last pixel looks at rows past the last, or its sums are dropped.
                const bool real = inside(h0[i] + place.dh, H) && inside(w0[i] + place.dw, W);
                const float in = real ? to_float(x[corner[i] + place.offset]) : 0.0f;
#pragma unroll
                for (int k = 0; k < T.filters; ++k) sum[i][k] = fmaf(in, shared.tap[t][first_filter + k], sum[i][k]);
            }
        }
        __syncthreads();
    }

    const EpilogueOf<Stored<T>> epilogue{scale, b, residual, relu};
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
            y[at] = from_float<Stored<T>>(epilogue(sum[i][k], channel, at));
        }
    }
}

}  // namespace pycnn
