// pool2d: maximum and average pooling, regular and adaptive, forward and backward; float32, or
// 16 bits stored and float32 computed.
//
//     max_pool2d_fwd   y[n, c, p, q]  = max of x[n, c, h, w] over the pixels (h, w) of window (p, q); a NaN wins, the
//                                       last one, else the first maximum in scan order; indices hold its h*W + w
//     max_pool2d_bwd   dx[n, c, h, w] = sum of dy[n, c, p, q] over the windows that reach (h, w), index = h*W + w
//     avg_pool2d_fwd   y[n, c, p, q]  = sum of x[n, c, h, w] over the pixels of window (p, q), over its divisor
//     avg_pool2d_bwd   dx[n, c, h, w] = sum of dy[n, c, p, q] / divisor[p, q] over the windows that hold (h, w)
//     plane_take       y[n, c, p, q]  = x[n, c] at the flat index indices[n, c, p, q]
//
// Pixels of window p, the axes apart (columns alike):
//     regular    p*stride - before + r*dilation for 0 <= r < window, those inside the image
//     adaptive   floor(p*H/P) ... ceil((p + 1)*H/P) - 1; the windows that hold pixel h are then floor(h*P/H) ...
//                ceil((h + 1)*P/H) - 1, the same formula with the sizes exchanged
//
// Layout: `channels` neighbours in memory are neighbouring channels, and pixels are that far apart: all C of arrays that
// lie channels-last, whose planes are their N images; or 1 in NCHW, whose planes are N*C.
//
// Who owns what: a thread owns one element of the output, a warp 32 neighbours in memory.
//
//        forward: a window of x, gathered             backward: the windows that reach a pixel, gathered
//      +--------------------------------+             +----------------------------------+
//      |  +-----+-+-----+               |             |  +-----+-+-----+                 |
//      |  |     | |     |  lane l owns  |             |  |     |#|     |  lane l owns    |
//      |  |  l  | | l+1 |  y[l] and     |             |  +-----+-+-----+  dx[#] and asks |
//      |  |     | |     |  reads its    |             |  +-----+-+-----+  each window     |
//      |  +-----+-+-----+  window       |             |  |     |#|     |  for its share  |
//      |                                |             |  +-----+-+-----+                 |
//      +--------------------------------+             +----------------------------------+
//        windows overlap where stride < window
//
// Launch      blocks of warps*32 threads, one thread an element of the output in the order of memory:
//             ((plane*P + p)*Q + q)*channels + channel.  A grid of more than 2^31 - 1 blocks continues along y.
// Shared      none: what overlapping windows share is in L1.
// Determinism one thread sums each element, row by row in scan order: bit for bit the same in every run.  No atomics.
// Cost        4 bytes an element of x, y, dx and dy, or 2, each read or written once from HBM, and 8 an index; a window's
//             elements are read from L1 window/stride times an axis.
// Limit       memory bandwidth.  Not so for an adaptive window over a large plane, which one thread reads alone.
// Reference   Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 3;
//             PyTorch's torch.nn.functional.max_pool2d, avg_pool2d and adaptive_avg_pool2d for what they leave open.
#include "arch/half.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct PoolTile {
    int type;      // of x, y, dy and dx, as StorageOf has it
    int adaptive;  // 1: windows spread evenly over the image
    int wide;      // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;     // warps in a block; a kernel asks for one block an SM, else some spill to fit more

    constexpr int threads() const { return warps * 32; }
};

template <PoolTile T>
using PoolIndex = typename IndexOf<T.wide>::type;

__device__ __forceinline__ float positive_infinity() {
    return __int_as_float(0x7F800000);
}
__device__ __forceinline__ float quiet_nan() {
    return __int_as_float(0x7FC00000);
}

// begin, begin + step, ... below end.
template <typename Index>
struct Span {
    Index begin, end, step;
};

// Where one element of an output lies.
template <typename Index>
struct PoolPlace {
    Index plane, row, column, channel;
};

// The calling thread's element of an array of `rows` x `columns` planes.  The last block reaches past the last plane.
template <PoolTile T>
__device__ __forceinline__ PoolPlace<PoolIndex<T>> pool_place(const Divisor& rows, const Divisor& columns,
                                                              const Divisor& channels) {
    using Index = PoolIndex<T>;
    const Index block = static_cast<Index>(blockIdx.y) * static_cast<Index>(gridDim.x) + static_cast<Index>(blockIdx.x);
    PoolPlace<Index> place;
    place.plane = block * T.threads() + static_cast<Index>(threadIdx.x);
    place.channel = take_digit(place.plane, channels);
    place.column = take_digit(place.plane, columns);
    place.row = take_digit(place.plane, rows);
    return place;
}

// The offset of an element from the start of its array, whose planes are `rows` x `columns`.
template <typename Index>
__device__ __forceinline__ int64 pool_offset(const PoolPlace<Index>& place, const Divisor& rows, const Divisor& columns,
                                             const Divisor& channels) {
    return ((place.plane * rows.value + place.row) * columns.value + place.column) * channels.value + place.channel;
}

// The offset of the first pixel of a place's plane and channel, in an array whose planes are `rows` x `columns`.
template <typename Index>
__device__ __forceinline__ int64 pool_base(const PoolPlace<Index>& place, const Divisor& rows, const Divisor& columns,
                                           const Divisor& channels) {
    return place.plane * rows.value * columns.value * channels.value + place.channel;
}

// Part i of `count` that share `size` evenly; neighbours overlap by one where they do not come out even.
template <typename Index>
__device__ __forceinline__ Span<Index> share_of(Index i, const Divisor& size, const Divisor& count) {
    const Index begin = i * static_cast<Index>(size.value);
    const Index past = begin + static_cast<Index>(size.value) + static_cast<Index>(count.value) - 1;
    return {quotient(begin, count), quotient(past, count), 1};
}

// The pixels of window i that are inside the image, along one axis.
template <PoolTile T>
__device__ __forceinline__ Span<PoolIndex<T>> pixels_of(PoolIndex<T> i, const PoolAxis& axis) {
    using Index = PoolIndex<T>;
    if constexpr (T.adaptive) {
        return share_of(i, axis.size, axis.out);
    } else {
        const Index size = static_cast<Index>(axis.size.value), step = static_cast<Index>(axis.dilation);
        Index begin = i * static_cast<Index>(axis.stride.value) - static_cast<Index>(axis.before);
        const Index end = begin + (static_cast<Index>(axis.window) - 1) * step + 1;
        while (begin < 0) begin += step;
        return {begin, end < size ? end : size, step};
    }
}

// The windows that reach over pixel i, along one axis; a dilated one may step over it.
template <PoolTile T>
__device__ __forceinline__ Span<PoolIndex<T>> windows_over(PoolIndex<T> i, const PoolAxis& axis) {
    using Index = PoolIndex<T>;
    if constexpr (T.adaptive) {
        return share_of(i, axis.out, axis.size);
    } else {
        const Index out = static_cast<Index>(axis.out.value), stride = static_cast<Index>(axis.stride.value);
        const Index from_corner = i + static_cast<Index>(axis.before);  // of window 0
        const Index beyond = from_corner - (static_cast<Index>(axis.window) - 1) * static_cast<Index>(axis.dilation);
        const Index begin = beyond > 0 ? quotient(beyond + stride - 1, axis.stride) : 0;
        const Index end = quotient(from_corner, axis.stride) + 1;
        return {begin, end < out ? end : out, 1};
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Maximum

template <PoolTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    max_pool2d_fwd(const Pool2dShape shape, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y,
                   int64* __restrict__ indices) {
    using Index = PoolIndex<T>;
    const PoolPlace<Index> place = pool_place<T>(shape.rows.out, shape.columns.out, shape.channels);
    if (place.plane >= shape.planes) return;

    const Span<Index> rows = pixels_of<T>(place.row, shape.rows);
    const Span<Index> columns = pixels_of<T>(place.column, shape.columns);
    const int64 W = shape.columns.size.value, C = shape.channels.value;
    const Stored<T>* image = x + pool_base(place, shape.rows.size, shape.columns.size, shape.channels);
    float best = -positive_infinity();
    int64 index = -1;
    for (Index h = rows.begin; h < rows.end; h += rows.step) {
        for (Index w = columns.begin; w < columns.end; w += columns.step) {
            const int64 pixel = h * W + w;
            const float value = to_float(image[pixel * C]);
            const bool is_nan = value != value;
            if (index < 0 || value > best || is_nan) {
                best = value;
                index = pixel;
            }
        }
    }

    const int64 offset = pool_offset(place, shape.rows.out, shape.columns.out, shape.channels);
    y[offset] = from_float<Stored<T>>(best);
    if (indices != nullptr) indices[offset] = index;
}

template <PoolTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    max_pool2d_bwd(const Pool2dShape shape, const Stored<T>* __restrict__ dy, const int64* __restrict__ indices,
                   Stored<T>* __restrict__ dx) {
    using Index = PoolIndex<T>;
    const PoolPlace<Index> place = pool_place<T>(shape.rows.size, shape.columns.size, shape.channels);
    if (place.plane >= shape.planes) return;

    const Span<Index> rows = windows_over<T>(place.row, shape.rows);
    const Span<Index> columns = windows_over<T>(place.column, shape.columns);
    const int64 pixel = place.row * shape.columns.size.value + place.column;
    const int64 windows = pool_base(place, shape.rows.out, shape.columns.out, shape.channels);
    float sum = 0.0f;
    for (Index p = rows.begin; p < rows.end; ++p) {
#pragma unroll 1
        for (Index q = columns.begin; q < columns.end; ++q) {
            const int64 window = windows + (p * shape.columns.out.value + q) * shape.channels.value;
            if (indices[window] == pixel) sum += to_float(dy[window]);
        }
    }
    dx[pool_offset(place, shape.rows.size, shape.columns.size, shape.channels)] = from_float<Stored<T>>(sum);
}

// 0 where the index is -1; NaN where it is outside the plane.
template <PoolTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    plane_take(const Pool2dShape shape, const Stored<T>* __restrict__ x, const int64* __restrict__ indices,
               Stored<T>* __restrict__ y) {
    const PoolPlace<PoolIndex<T>> place = pool_place<T>(shape.rows.out, shape.columns.out, shape.channels);
    if (place.plane >= shape.planes) return;

    const int64 offset = pool_offset(place, shape.rows.out, shape.columns.out, shape.channels);
    const int64 pixels = shape.rows.size.value * shape.columns.size.value;
    const int64 index = indices[offset];
    float value = index == -1 ? 0.0f : quiet_nan();
    if (inside(index, pixels)) {
        value = to_float(
            x[pool_base(place, shape.rows.size, shape.columns.size, shape.channels) + index * shape.channels.value]);
    }
    y[offset] = from_float<Stored<T>>(value);
}

// ---------------------------------------------------------------------------------------------------------------------
// Average

// What a window's sum is divided by.
struct Averaging {
    int64 divisor;            // this, unless 0
    int64 count_include_pad;  // else its pixels; 1: also those in the padding, but none beyond it
};

// How many pixels of window i count, along one axis.
template <PoolTile T>
__device__ __forceinline__ int64 counted(PoolIndex<T> i, const PoolAxis& axis, const Averaging& averaging) {
    using Index = PoolIndex<T>;
    if (T.adaptive || averaging.count_include_pad == 0) {
        const Span<Index> pixels = pixels_of<T>(i, axis);
        return pixels.end - pixels.begin;
    }
    const int64 begin = i * axis.stride.value - axis.before, end = begin + axis.window;
    const int64 most = axis.size.value + axis.after;
    return (end < most ? end : most) - begin;
}

template <PoolTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    avg_pool2d_fwd(const Pool2dShape shape, const Averaging averaging, const Stored<T>* __restrict__ x,
                   Stored<T>* __restrict__ y) {
    using Index = PoolIndex<T>;
    const PoolPlace<Index> place = pool_place<T>(shape.rows.out, shape.columns.out, shape.channels);
    if (place.plane >= shape.planes) return;

    const Span<Index> rows = pixels_of<T>(place.row, shape.rows);
    const Span<Index> columns = pixels_of<T>(place.column, shape.columns);
    const int64 W = shape.columns.size.value, C = shape.channels.value;
    const Stored<T>* image = x + pool_base(place, shape.rows.size, shape.columns.size, shape.channels);
    float sum = 0.0f;
    for (Index h = rows.begin; h < rows.end; ++h) {
        float row = 0.0f;  // of its own, so that the sum over a large window loses less
        for (Index w = columns.begin; w < columns.end; ++w) row += to_float(image[(h * W + w) * C]);
        sum += row;
    }

    int64 divisor = averaging.divisor;
    if (divisor == 0)
        divisor = counted<T>(place.row, shape.rows, averaging) * counted<T>(place.column, shape.columns, averaging);
    y[pool_offset(place, shape.rows.out, shape.columns.out, shape.channels)] =
        from_float<Stored<T>>(sum / static_cast<float>(divisor));
}

template <PoolTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    avg_pool2d_bwd(const Pool2dShape shape, const Averaging averaging, const Stored<T>* __restrict__ dy,
                   Stored<T>* __restrict__ dx) {
    using Index = PoolIndex<T>;
    const PoolPlace<Index> place = pool_place<T>(shape.rows.size, shape.columns.size, shape.channels);
    if (place.plane >= shape.planes) return;

    const Span<Index> rows = windows_over<T>(place.row, shape.rows);
    const Span<Index> columns = windows_over<T>(place.column, shape.columns);
    const int64 windows = pool_base(place, shape.rows.out, shape.columns.out, shape.channels);
    float sum = 0.0f;
#pragma unroll 1
    for (Index p = rows.begin; p < rows.end; ++p) {
        const int64 row_count = counted<T>(p, shape.rows, averaging);
#pragma unroll 1
        for (Index q = columns.begin; q < columns.end; ++q) {
            int64 divisor = averaging.divisor;
            if (divisor == 0) divisor = row_count * counted<T>(q, shape.columns, averaging);
            const int64 window = windows + (p * shape.columns.out.value + q) * shape.channels.value;
            sum += to_float(dy[window]) / static_cast<float>(divisor);
        }
    }
    dx[pool_offset(place, shape.rows.size, shape.columns.size, shape.channels)] = from_float<Stored<T>>(sum);
}

}  // namespace pycnn
