// conv2d_*_depthwise: the three passes of a convolution whose groups have one channel each; float32, or
// 16 bits stored and float32 computed.
//
//     y[n, k, p, q]   = epilogue of the sum over r, s of x[n, c, h, w] * w[k, 0, r, s]        c = k / multiplier
//     dx[n, c, h, w]  = sum over the `multiplier` filters k of c, and r, s, of dy[n, k, p, q] * w[k, 0, r, s]
//     dw[k, 0, r, s]  = sum over n, p, q of dy[n, k, p, q] * x[n, c, h, w]
//         with h = p*stride_h - pad_top + r*dilation_h, w = q*stride_w - pad_left + s*dilation_w, multiplier = K / C
//
// GEMM view   none: C/groups is 1, so a product of matrices would have one column.  Each result takes R*S products of
//             values that few others need, and memory sets the pace.
//
// Each kernel exists for some filter sizes and strides (DepthwiseTile with R > 0, dilation 1) and for any (R = 0).
//
// Who owns what: a thread owns `rows` results under one another; the lanes of a warp own neighbouring columns, and
// where a plane is narrower than a warp those of the next `rows` rows, channel or image: no lane idles.
//
//      fprop, dgrad: a column of results            fprop at stride 1, 3x3, rows = 4: what one of the S columns of taps
//         lane 0 1 2 ...                            needs of x is one column of 6 values, each read once and used for
//          p0  | | | | | | |                        up to 3 taps:   x0 x1 x2 x3 x4 x5
//              | | | | | | |   rows                                  \__|__/ y0
//              | | | | | | |                                            \__|__/ y1   ...
//              | | | | | | |
//      Reads of x go to L1, which has what the neighbouring lanes and columns of taps read.  Of 16 bits they are single
//      elements too: where a window begins an element further, so does every pair in it.  Images of 16 bits are read and
//      written as they lie; in channels-last ones the lanes of a warp own neighbouring channels instead of columns.
//
//      dgrad: the rows of a thread begin where h + pad_top is a multiple of the stride, so which taps meet which row is
//      known when the kernel is compiled; which columns of taps meet its column is not: half of them idle at stride 2.
//
//      wgrad: a block owns one filter and a slice of the columns of pixels, a thread R*S sums; they are added by halves
//      in shared memory, and the slices by sum_slices (slices.cu).
//
// Launch      fprop, dgrad: a thread for each column of `rows` results, blocks of `warps` warps.  wgrad: block index =
//             slice*K + k.  Past 2^31 - 1 blocks the grid goes on along y.
// Shared      wgrad: DepthwiseSums; the others none.
// Determinism one thread sums each result of fprop (order s, r) and dgrad (order k, s, r); wgrad adds in an order that
//             depends on the shape alone: bit for bit the same in every run.  A result of 16 bits is rounded once;
//             slices are float32.
// Cost        N*K*P*Q*R*S multiply-adds.
// Limit       bandwidth: x (or dy) and y (or dx) once each through DRAM, about S times through L1.  wgrad of channels-last
//             images: L2, of whose 32 bytes a block uses a channel's two; the blocks of the others follow at once.
// Reference   Howard et al., "MobileNets", 2017, section 3.1, for what it is used for.
#include "direct.cuh"
#include "epilogue.cuh"

namespace pycnn {

struct DepthwiseTile {
    int type;                      // of x, w, y and their gradients, as StorageOf has it
    int wide;                      // 1: 64-bit coordinates; 0: 32-bit ones
    int R, S, stride_h, stride_w;  // the problem it is for, at dilation 1; all 0: any problem
    int rows;                      // results a thread owns, or (wgrad) pixels at a time; in dgrad a multiple of
                                   // stride_h, and 1 for any problem; in wgrad 1 for any problem
    int warps;                     // warps in a block
    int blocks;                    // dgrad, wgrad: blocks an SM should hold: what a thread may have of its registers;
                                   // 0 leaves it to the compiler

    constexpr int threads() const { return warps * kWarp; }
    constexpr bool any() const { return R == 0; }
};

// How a column of results falls apart: ((n*channels + c)*tiles_rows + t)*columns + column, or where they are channels-last
// ((n*tiles_rows + t)*columns + column)*channels + c.
struct DepthwiseGrid {
    Divisor columns, tiles_rows, channels, multiplier;
    Divisor stride_h, stride_w;
    int64 threads;  // columns of results in all, or of a plane's pixels times N for wgrad
    int64 threads_of_slice;
    int64 above;           // dgrad: rows by which the first tile begins above the image
    int64 step_h, step_w;  // dgrad: whole strides in a dilation
};

// Distances in elements between neighbours in n, c, h and w.
struct DepthwiseSteps {
    int64 n, c, h, w;
};

// Arrays of float32 are dense NCHW.  Images of 16 bits are read and written as they lie: x or dx, y or dy; `last`: they
// are channels-last, so that lanes own neighbouring channels.
template <int type>
struct DepthwiseGridOf : DepthwiseGrid {
    DepthwiseSteps x, y;
    int64 last;
};
template <>
struct DepthwiseGridOf<0> : DepthwiseGrid {};

// The pixels of one channel of an image.
template <typename Element, typename Index>
struct DepthwisePlane {
    Element* first;
    Index row, column;  // distances

    __device__ __forceinline__ Element& operator()(Index h, Index w) const { return first[h * row + w * column]; }

    // Element (h, w) where it is `real`, else zero.  The first one is always there: a branch around each load, which the
    // longer way to its address would take, keeps the next one waiting.
    __device__ __forceinline__ float or_zero(Index h, Index w, bool real) const {
        const float value = to_float(first[real ? h * row + w * column : 0]);
        return real ? value : 0.0f;
    }
};

template <DepthwiseTile T>
using DepthwiseIndex = typename IndexOf<T.wide>::type;

template <DepthwiseTile T>
__device__ __forceinline__ DepthwisePlane<const Stored<T>, DepthwiseIndex<T>> x_plane(
    const Stored<T>* x, const Conv2dShape& shape, const DepthwiseGridOf<T.type>& grid, int64 n, int64 c) {
    using Index = DepthwiseIndex<T>;
    if constexpr (T.type == 0) {
        return {x + (n * shape.C + c) * shape.H * shape.W, static_cast<Index>(shape.W), 1};
    } else {
        return {x + n * grid.x.n + c * grid.x.c, static_cast<Index>(grid.x.h), static_cast<Index>(grid.x.w)};
    }
}
template <DepthwiseTile T>
__device__ __forceinline__ DepthwisePlane<const Stored<T>, DepthwiseIndex<T>> y_plane(
    const Stored<T>* y, const Conv2dShape& shape, const DepthwiseGridOf<T.type>& grid, int64 n, int64 k) {
    using Index = DepthwiseIndex<T>;
    if constexpr (T.type == 0) {
        return {y + (n * shape.K + k) * shape.P * shape.Q, static_cast<Index>(shape.Q), 1};
    } else {
        return {y + n * grid.y.n + k * grid.y.c, static_cast<Index>(grid.y.h), static_cast<Index>(grid.y.w)};
    }
}

// The thread's column: the image, the channel (of the result), the tile of rows and the column.
template <typename Index>
struct DepthwiseColumn {
    Index n, channel, tile, column;
};

template <DepthwiseTile T>
__device__ __forceinline__ DepthwiseColumn<DepthwiseIndex<T>> depthwise_column(DepthwiseIndex<T> index,
                                                                               const DepthwiseGridOf<T.type>& grid) {
    DepthwiseColumn<DepthwiseIndex<T>> place;
    if constexpr (T.type != 0) {
        if (grid.last != 0) {
            place.channel = take_digit(index, grid.channels);
            place.column = take_digit(index, grid.columns);
            place.tile = take_digit(index, grid.tiles_rows);
            place.n = index;
            return place;
        }
    }
    place.column = take_digit(index, grid.columns);
    place.tile = take_digit(index, grid.tiles_rows);
    place.channel = take_digit(index, grid.channels);
    place.n = index;
    return place;
}

template <DepthwiseTile T>
__global__ void __launch_bounds__(T.threads())
    conv2d_fprop_depthwise(const Conv2dShape shape, const DepthwiseGridOf<T.type> grid, const Stored<T>* __restrict__ x,
                           const Stored<T>* __restrict__ w, const float* __restrict__ scale,
                           const float* __restrict__ b, const Stored<T>* __restrict__ residual, const int relu,
                           Stored<T>* __restrict__ y) {
    using Index = typename IndexOf<T.wide>::type;
    const Index index = (static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x) * T.threads() + threadIdx.x;
    if (index >= grid.threads) return;
    const auto place = depthwise_column<T>(index, grid);
    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index h0 = place.tile * T.rows * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
    const Index w0 = place.column * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
    const int64 channel = quotient(place.channel, grid.multiplier);
    const auto plane = x_plane<T>(x, shape, grid, place.n, channel);
    const Stored<T>* taps = w + place.channel * shape.R * shape.S;

    float sum[T.rows] = {};
    if (T.any()) {
        for (Index s = 0; s < static_cast<Index>(shape.S); ++s) {
            const Index column = w0 + s * static_cast<Index>(shape.dilation_w);
            const bool real = inside(column, W);
            for (Index r = 0; r < static_cast<Index>(shape.R); ++r) {
                const float tap = to_float(taps[r * static_cast<Index>(shape.S) + s]);
#pragma unroll
                for (int i = 0; i < T.rows; ++i) {
                    const Index h =
                        h0 + i * static_cast<Index>(shape.stride_h) + r * static_cast<Index>(shape.dilation_h);
                    const float in = real && inside(h, H) ? to_float(plane(h, column)) : 0.0f;
                    sum[i] = fmaf(in, tap, sum[i]);
                }
            }
        }
    } else {
        constexpr int reach = T.any() ? 1 : (T.rows - 1) * T.stride_h + T.R;
#pragma unroll
        for (int s = 0; s < T.S; ++s) {
            const bool real = inside(w0 + s, W);
            float in[reach];
#pragma unroll
            for (int i = 0; i < reach; ++i) {
                if constexpr (T.type == 0) {
                    in[i] = real && inside(h0 + i, H) ? plane(h0 + i, w0 + s) : 0.0f;
                } else {
                    in[i] = plane.or_zero(h0 + i, w0 + s, real && inside(h0 + i, H));
                }
            }
#pragma unroll
            for (int r = 0; r < T.R; ++r) {
                const float tap = to_float(taps[r * T.S + s]);
#pragma unroll
                for (int i = 0; i < T.rows; ++i) sum[i] = fmaf(in[i * T.stride_h + r], tap, sum[i]);
            }
        }
    }

    const EpilogueOf<Stored<T>> epilogue{scale, b, residual, relu};
    const int64 first = (place.n * shape.K + place.channel) * shape.P + static_cast<int64>(place.tile) * T.rows;
#pragma unroll
    for (int i = 0; i < T.rows; ++i) {
        if (place.tile * T.rows + i >= shape.P) break;
        int64 at;
        if constexpr (T.type == 0) {
            at = (first + i) * shape.Q + place.column;
        } else {
            at = place.n * grid.y.n + place.channel * grid.y.c + (place.tile * T.rows + i) * grid.y.h +
                 place.column * grid.y.w;
        }
        y[at] = from_float<Stored<T>>(epilogue(sum[i], place.channel, at));
    }
}

// From a pixel that is `rest` past what output `out` looks at to one that is a dilation nearer to the image's corner;
// the dilation is `step` strides and `part`.
template <typename Index>
__device__ __forceinline__ void back_up(Index& out, Index& rest, Index step, Index part, Index stride) {
    out -= step;
    rest -= part;
    if (rest < 0) {
        rest += stride;
        --out;
    }
}

template <DepthwiseTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_dgrad_depthwise(const Conv2dShape shape, const DepthwiseGridOf<T.type> grid,
                           const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ w,
                           Stored<T>* __restrict__ dx) {
    using Index = typename IndexOf<T.wide>::type;
    const Index index = (static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x) * T.threads() + threadIdx.x;
    if (index >= grid.threads) return;
    const auto place = depthwise_column<T>(index, grid);
    const Index P = static_cast<Index>(shape.P), Q = static_cast<Index>(shape.Q);
    const Index pad_top = static_cast<Index>(shape.pad_top), pad_left = static_cast<Index>(shape.pad_left);
    // The first row of the first tile is above the image where pad_top is no multiple of the stride.
    const Index h0 = place.tile * T.rows - static_cast<Index>(grid.above), column = place.column + pad_left;
    const Index multiplier = static_cast<Index>(grid.multiplier.value);
    // For any problem, which has one row: a dilation in whole strides and what is left; what row 0 and tap 0 meet.
    const Index stride_h = static_cast<Index>(shape.stride_h), stride_w = static_cast<Index>(shape.stride_w);
    const Index step_h = static_cast<Index>(grid.step_h), step_w = static_cast<Index>(grid.step_w);
    const Index part_h = static_cast<Index>(shape.dilation_h) - step_h * stride_h;
    const Index part_w = static_cast<Index>(shape.dilation_w) - step_w * stride_w;
    const Index p0 = T.any() ? quotient(h0 + pad_top, grid.stride_h) : 0;
    const Index q0 = T.any() ? quotient(column, grid.stride_w) : 0;

    float sum[T.rows] = {};
    for (Index j = 0; j < multiplier; ++j) {
        const int64 k = static_cast<int64>(place.channel) * multiplier + j;
        const auto plane = y_plane<T>(dy, shape, grid, place.n, k);
        const Stored<T>* taps = w + k * shape.R * shape.S;
        if (T.any()) {
            Index q = q0, rest_w = column - q0 * stride_w;  // the column is rest_w past what output column q looks at
#pragma unroll 1
            for (Index s = 0; s < static_cast<Index>(shape.S); ++s) {
                if (rest_w == 0 && inside(q, Q)) {
                    Index p = p0, rest_h = h0 + pad_top - p0 * stride_h;
#pragma unroll 1
                    for (Index r = 0; r < static_cast<Index>(shape.R); ++r) {
                        const bool met = rest_h == 0 && inside(p, P);
                        const float in = met ? to_float(plane(p, q)) : 0.0f;
                        const float tap = met ? to_float(taps[r * static_cast<Index>(shape.S) + s]) : 0.0f;
                        sum[0] = fmaf(in, tap, sum[0]);
                        back_up(p, rest_h, step_h, part_h, stride_h);
                    }
                }
                back_up(q, rest_w, step_w, part_w, stride_w);
            }
        } else {
            // Row i of the thread and row r of the taps meet where i - r is a multiple of the stride, at the row
            // (i - r) / stride from the one that row 0 and tap 0 meet.
            constexpr int down = T.any() ? 1 : T.stride_h, across = T.any() ? 1 : T.stride_w;
            constexpr int back = (T.R - 1) / down, reach = T.any() ? 1 : back + (T.rows - 1) / down + 1;
            const Index first = (h0 + pad_top) / down - back;
#pragma unroll
            for (int s = 0; s < T.S; ++s) {
                const Index ahead = column - s, q = ahead / across;
                const bool real = ahead >= 0 && q * across == ahead && q < Q;
                bool met[reach];
                float in[reach];
#pragma unroll
                for (int i = 0; i < reach; ++i) {
                    met[i] = real && inside(first + i, P);
                    in[i] = met[i] ? to_float(plane(first + i, q)) : 0.0f;
                }
#pragma unroll
                for (int r = 0; r < T.R; ++r) {
                    const float tap = to_float(taps[r * T.S + s]);
#pragma unroll
                    for (int i = 0; i < T.rows; ++i) {
                        if ((i - r) % down != 0) continue;
                        const int from = (i - r) / down + back;
                        if (met[from]) sum[i] = fmaf(in[from], tap, sum[i]);  // 0 times an infinite tap is not 0
                    }
                }
            }
        }
    }

    const int64 first = (place.n * shape.C + place.channel) * shape.H;
#pragma unroll
    for (int i = 0; i < T.rows; ++i)
        if (inside(h0 + i, static_cast<Index>(shape.H))) {
            if constexpr (T.type == 0) {
                dx[(first + h0 + i) * shape.W + place.column] = sum[i];
            } else {
                dx[place.n * grid.x.n + place.channel * grid.x.c + (h0 + i) * grid.x.h + place.column * grid.x.w] =
                    from_float<Stored<T>>(sum[i]);
            }
        }
}

enum : int { kTapsAtOnce = 8 };  // where the filter's size is not known

template <DepthwiseTile T>
struct DepthwiseSums {
    float part[(T.any() ? kTapsAtOnce : T.R * T.S) + 1][T.threads()];  // of a tap, last the bias, and a thread
};

// All threads together: adds the threads' parts of `count` sums by halves; they end up as part[i][0].
template <DepthwiseTile T>
__device__ __forceinline__ void add_halves(DepthwiseSums<T>& shared, int count) {
#pragma unroll 1
    for (int half = T.threads() / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < count * half; i += T.threads())
            shared.part[i / half][i % half] += shared.part[i / half][i % half + half];
    }
    __syncthreads();
}

// dw and db have one slice after another, float32 whatever is stored.  db may be null.
template <DepthwiseTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    conv2d_wgrad_depthwise(const Conv2dShape shape, const DepthwiseGridOf<T.type> grid,
                           const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x, float* __restrict__ dw,
                           float* __restrict__ db) {
    using Index = typename IndexOf<T.wide>::type;
    PYCNN_SHARED(DepthwiseSums<T>, shared);
    Index slice = static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x;
    const Index k = take_digit(slice, grid.channels);
    const int64 first = slice * grid.threads_of_slice, past_last = first + grid.threads_of_slice;
    if (first >= grid.threads) return;  // the last row of a grid with more than 2^31 - 1 blocks is ragged
    const Index end = static_cast<Index>(past_last < grid.threads ? past_last : grid.threads);
    const int thread = static_cast<int>(threadIdx.x);
    const int64 channel = quotient(k, grid.multiplier);
    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index P = static_cast<Index>(shape.P);
    const Index stride_h = static_cast<Index>(shape.stride_h), stride_w = static_cast<Index>(shape.stride_w);

    if (T.any()) {
        const int64 taps = shape.R * shape.S;
        for (int64 tap0 = 0; tap0 < taps; tap0 += kTapsAtOnce) {
            Index dh[kTapsAtOnce], dw_[kTapsAtOnce];  // where the taps look; past the last nobody asks
            float sum[kTapsAtOnce + 1] = {};          // the last is the bias
#pragma unroll
            for (int j = 0; j < kTapsAtOnce; ++j) {
                const Index r = static_cast<Index>((tap0 + j) / shape.S), s = static_cast<Index>((tap0 + j) % shape.S);
                dh[j] = r * static_cast<Index>(shape.dilation_h) - static_cast<Index>(shape.pad_top);
                dw_[j] = s * static_cast<Index>(shape.dilation_w) - static_cast<Index>(shape.pad_left);
            }
            for (Index i = static_cast<Index>(first) + thread; i < end; i += T.threads()) {
                Index n = i;
                const Index q = take_digit(n, grid.columns), p = take_digit(n, grid.tiles_rows);
                float gradient;
                if constexpr (T.type == 0) {
                    gradient = dy[((n * shape.K + k) * shape.P + p) * shape.Q + q];
                } else {
                    gradient = to_float(y_plane<T>(dy, shape, grid, n, k)(p, q));
                }
                const auto plane = x_plane<T>(x, shape, grid, n, channel);
#pragma unroll
                for (int j = 0; j < kTapsAtOnce; ++j) {
                    const Index h = p * stride_h + dh[j], column = q * stride_w + dw_[j];
                    const float in = inside(h, H) && inside(column, W) ? to_float(plane(h, column)) : 0.0f;
                    sum[j] = fmaf(gradient, in, sum[j]);
                }
                sum[kTapsAtOnce] += gradient;
            }
#pragma unroll
            for (int j = 0; j <= kTapsAtOnce; ++j) shared.part[j][thread] = sum[j];
            add_halves(shared, kTapsAtOnce + 1);
            if (thread < kTapsAtOnce && tap0 + thread < taps)
                dw[(slice * shape.K + k) * taps + tap0 + thread] = shared.part[thread][0];
            if (db != nullptr && thread == 0 && tap0 == 0) db[slice * shape.K + k] = shared.part[kTapsAtOnce][0];
            __syncthreads();
        }
        return;
    }

    constexpr int taps = T.R * T.S, reach = T.any() ? 1 : (T.rows - 1) * T.stride_h + T.R;
    float sum[taps + 1] = {};  // the last is the bias
    for (Index i = static_cast<Index>(first) + thread; i < end; i += T.threads()) {
        Index n = i;
        const Index q = take_digit(n, grid.columns), p = take_digit(n, grid.tiles_rows) * T.rows;
        const Index h0 = p * stride_h - static_cast<Index>(shape.pad_top);
        const Index w0 = q * stride_w - static_cast<Index>(shape.pad_left);
        const auto output = y_plane<T>(dy, shape, grid, n, k);
        const auto input = x_plane<T>(x, shape, grid, n, channel);
        float gradient[T.rows];
#pragma unroll
        for (int j = 0; j < T.rows; ++j) {
            gradient[j] = p + j < P ? to_float(output(p + j, q)) : 0.0f;
            sum[taps] += gradient[j];
        }
        const int rows = P - p < T.rows ? static_cast<int>(P - p) : T.rows;
#pragma unroll
        for (int s = 0; s < T.S; ++s) {
            const bool real = inside(w0 + s, W);
            float in[reach];
#pragma unroll
            for (int j = 0; j < reach; ++j) {
                if constexpr (T.type == 0) {
                    in[j] = real && inside(h0 + j, H) ? input(h0 + j, w0 + s) : 0.0f;
                } else {
                    in[j] = input.or_zero(h0 + j, w0 + s, real && inside(h0 + j, H));
                }
            }
#pragma unroll
            for (int r = 0; r < T.R; ++r)
#pragma unroll
                for (int j = 0; j < T.rows; ++j)
                    if (j < rows) sum[r * T.S + s] = fmaf(gradient[j], in[j * T.stride_h + r], sum[r * T.S + s]);
        }
    }
#pragma unroll
    for (int tap = 0; tap <= taps; ++tap) shared.part[tap][thread] = sum[tap];
    add_halves(shared, taps + 1);
    for (int tap = thread; tap < taps; tap += T.threads()) dw[(slice * shape.K + k) * taps + tap] = shared.part[tap][0];
    if (db != nullptr && thread == 0) db[slice * shape.K + k] = shared.part[taps][0];
}

}  // namespace pycnn
