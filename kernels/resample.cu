// resample: interpolation along rows and columns by tables of taps; float32, or 16 bits stored and float32 computed.
//
//     y[plane, p, q, c] = sum over t < rows.count[p], u < columns.count[q] of
//         rows.weight[t, p] * columns.weight[u, q] * x[plane, rows.start[p] + t, columns.start[q] + u, c]
//
// Every mode is a table (pycnn/resampling.py); the gradient is the same with the tables transposed.  An axis without a
// table (a null `start`) stays as it is.
//
// Layout: `inner` neighbours in memory share a pixel: all C of arrays that lie channels-last, whose planes are their N
// images; or 1 in NCHW, whose planes are N*C.
//
// Who owns what: a thread owns one element of y, a warp 32 neighbours in memory, and gathers.
//
//      y  | . | l | . | . |              row p of y, lane l
//            / | \                       its taps of a row of x: neighbours' overlap, so they are in L1
//      x  | . | . | . | . | . |          for each of the rows of x that p is made of
//
// Launch      blocks of warps*32 threads, one thread an element of y in the order of memory; on along y past 2^31 - 1.
// Shared      none.
// Determinism one thread sums each element, row by row: bit for bit the same in every run.  No atomics.
// Cost        x and y once each from HBM, taps times that from L1.  The host launches twice, an axis each, where rows
//             times columns are many taps.
// Limit       memory bandwidth while taps are few; the addresses of the gather beyond.
// Reference   torch.nn.functional.interpolate.
#include "arch/half.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct ResampleTile {
    int type;   // of x and y, as StorageOf has it
    int wide;   // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;  // in a block

    constexpr int threads() const { return warps * 32; }
};

// Passed by value; pycnn/backends/cuda/resample.py packs the same fields in the same order.
struct ResampleShape {
    int64 planes;
    int64 H, W;                    // of x
    Divisor rows, columns, inner;  // of y
};

template <typename Index>
struct Taps {
    Index start, count;
};

// What element i of an axis is made of.
template <typename Index>
__device__ __forceinline__ Taps<Index> taps_of(Index i, const int64* __restrict__ start,
                                               const int64* __restrict__ count) {
    if (start == nullptr) return {i, 1};
    return {static_cast<Index>(start[i]), static_cast<Index>(count[i])};
}

template <ResampleTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    resample(const ResampleShape s, const int64* __restrict__ row_start, const int64* __restrict__ row_count,
             const float* __restrict__ row_weight, const int64* __restrict__ column_start,
             const int64* __restrict__ column_count, const float* __restrict__ column_weight,
             const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    using Index = typename IndexOf<T.wide>::type;
    const Index block = static_cast<Index>(blockIdx.y) * static_cast<Index>(gridDim.x) + static_cast<Index>(blockIdx.x);
    const Index element = block * T.threads() + static_cast<Index>(threadIdx.x);
    Index plane = element;
    const Index inner = take_digit(plane, s.inner);
    const Index q = take_digit(plane, s.columns);
    const Index p = take_digit(plane, s.rows);
    if (plane >= static_cast<Index>(s.planes)) return;

    const Taps<Index> rows = taps_of(p, row_start, row_count), columns = taps_of(q, column_start, column_count);
    const int64 C = s.inner.value, row_step = s.W * C;
    const Stored<T>* from = x + (plane * s.H + rows.start) * row_step + columns.start * C + inner;
    float sum = 0.0f;
    for (Index t = 0; t < rows.count; ++t) {
        float row = 0.0f;
        for (Index u = 0; u < columns.count; ++u) {
            const float weight = column_start == nullptr ? 1.0f : column_weight[u * s.columns.value + q];
            row += weight * to_float(from[u * C]);
        }
        sum += (row_start == nullptr ? 1.0f : row_weight[t * s.rows.value + p]) * row;
        from += row_step;
    }
    y[element] = from_float<Stored<T>>(sum);
}

}  // namespace pycnn
