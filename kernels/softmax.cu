// softmax: softmax and log-softmax along any axis, forward and backward; float32, or
// 16 bits stored and float32 computed.
//
//     softmax        y = exp(x - max) / sum of exp(x - max)       dx = y * (dy - sum of dy * y)
//     log-softmax    y = x - max - log(sum of exp(x - max))       dx = dy - exp(y) * sum of dy
//
// The array is (outer, length, inner), `length` the axis.  Who owns what: rows.cuh.
//
// Launch      ceil(outer * ceil(inner / lanes) / groups) blocks of warps * 32 threads, with groups =
//             threads / (rows * lanes); past 2^31 - 1 the grid goes on along y.
// Shared      4 bytes a warp and lane, for rows that span warps.
// Determinism a thread takes its elements in ascending order, rows meet in a fixed tree (reduce.cuh).
// Cost        forward 8 bytes an element, backward 12, in 16 bits half of that.  The elements are read three times (two times
//             backward), the later ones from L1 or L2: a block's share of a classifier's scores is some KiB.
// Limit       bandwidth, and for short axes the latency of two reductions: `blocks` * 256 threads on an SM at least,
//             each with up to four loads in flight.  A row longer than L2 is read from memory each time.
// Reference   the usual form with the maximum taken off; Goodfellow, Bengio & Courville, "Deep Learning", section 4.1.
#include "rows.cuh"

namespace pycnn {

__device__ __forceinline__ float minus_infinity() {
    return __int_as_float(static_cast<int>(0xFF800000u));
}

// A NaN is passed over by the maximum and brought back by the sum.
template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    softmax_fwd(const RowsShape s, const int64 logarithm, const Stored<T>* __restrict__ x, Stored<T>* __restrict__ y) {
    struct Shared {
        RowMeeting<Largest, T.warps> largest;
        RowMeeting<Sum, T.warps> sum;
    };
    PYCNN_SHARED(Shared, shared);
    const RowsPlace place = rows_place<T>(s);
    Largest largest{minus_infinity()};
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        largest.merge({to_float(x[place.base + k * s.inner])});
    }
    largest = over_rows<T.warps>(largest, s.layout(), shared.largest);

    Sum sum{0.0f};
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        sum.value += expf(to_float(x[place.base + k * s.inner]) - largest.value);
    }
    sum = over_rows<T.warps>(sum, s.layout(), shared.sum);

    const float log_sum = logf(sum.value), inverse = 1.0f / sum.value;
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        const int64 at = place.base + k * s.inner;
        const float below = to_float(x[at]) - largest.value;
        y[at] = from_float<Stored<T>>(logarithm ? below - log_sum : expf(below) * inverse);
    }
}

template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    softmax_bwd(const RowsShape s, const int64 logarithm, const Stored<T>* __restrict__ dy,
                const Stored<T>* __restrict__ y, Stored<T>* __restrict__ dx) {
    using Meeting = RowMeeting<Sum, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const RowsPlace place = rows_place<T>(s);
    Sum sum{0.0f};
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        const int64 at = place.base + k * s.inner;
        const float slope = to_float(dy[at]);
        sum.value = logarithm ? sum.value + slope : fmaf(slope, to_float(y[at]), sum.value);
    }
    sum = over_rows<T.warps>(sum, s.layout(), meeting);
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        const int64 at = place.base + k * s.inner;
        const float slope = to_float(dy[at]), value = to_float(y[at]);
        dx[at] = from_float<Stored<T>>(logarithm ? slope - expf(value) * sum.value : value * (slope - sum.value));
    }
}

}  // namespace pycnn
