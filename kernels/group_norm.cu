// group_norm: normalisation of each group of neighbouring channels of each sample, and its gradients.
//
//     group_norm_fwd   y = (x - mean) / sqrt(var + eps) * weight[c] + bias[c], and each group's mean and variance (biased)
//     group_norm_bwd   dx = (dy * weight[c] - mean of that - u * mean of dy * weight * u) / sqrt(var + eps)
//                      product = dy * u, whose sum by channel is the gradient of weight
//     with u = (x - mean) / sqrt(var + eps).  Not `centred`, the mean counts as 0, its term in dx is left out, and the
//     variance is the mean of the squares.
//
// x is (N, G, K, L): G groups of K channels of L elements.  Instance norm has K = 1, layer norm G = L = 1.  x, y, dy and dx
// are float32, float16 or bfloat16; all else is float32, and so are all sums.
//
// Statistics in one pass.  A thread takes the mean and the squared distances of up to 8 elements while they are in its
// registers, then merges them into what it has (Chan et al.), all of it on x less the group's first element: where a
// group lies far from zero beside its spread, that difference is exact and small.
//
// Who owns what: rows.cuh, a row being a group: as many threads as it is worth, at most a block.
//
// Launch      ceil(N * G / groups) blocks of warps * 32 threads, with groups = threads / rows; past 2^31 - 1 the grid goes
//             on along y.
// Shared      16 bytes a warp and lane forward, 8 backward.
// Determinism a thread takes its elements in ascending order, rows meet in a fixed tree (reduce.cuh).
// Cost        forward 8 bytes an element, backward 12 and 4 for the product; of 16 bits half, but for the product.  The
//             elements are read twice, the second time from L1 or L2 where a group fits.
// Limit       bandwidth, and for short groups the latency of a reduction; few large groups leave SMs idle.
// Reference   Wu & He, "Group normalization", 2018; Ba, Kiros & Hinton, "Layer normalization", 2016; Zhang & Sennrich,
//             "Root mean square layer normalization", 2019; Chan, Golub & LeVeque, 1979 (reduce.cuh).
#include "rows.cuh"

namespace pycnn {

// Which channel an element of a group is.  Passed by value; pycnn/backends/cuda/group_norm.py packs the same fields in the
// same order.
struct GroupChannels {
    int64 G, K;
    Divisor L;

    __device__ __forceinline__ int64 first(int64 group) const { return group % G * K; }
    __device__ __forceinline__ int64 inside(int64 element) const {
        return element < (int64{1} << 31) ? quotient(static_cast<int>(element), L) : quotient(element, L);
    }
};

// The same bits for every thread of a row: the butterfly within a warp leaves each lane a sum in an order of its own.
__device__ __forceinline__ Moments of_first_thread(const Moments& moments, int64 rows) {
    const int width = rows < 32 ? static_cast<int>(rows) : 32;
    return {moments.count, __shfl_sync(kWholeWarp, moments.mean, 0, width),
            __shfl_sync(kWholeWarp, moments.squares, 0, width)};
}

// Elements that a thread looks at together.
__device__ constexpr int kTogether = 8;

template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    group_norm_fwd(const RowsShape s, const GroupChannels channels, const float eps, const int64 centred,
                   const Stored<T>* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                   Stored<T>* __restrict__ y, float* __restrict__ mean, float* __restrict__ var) {
    using Meeting = RowMeeting<Moments, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const RowsPlace place = rows_place<T>(s);
    const int64 channel = channels.first(place.outer);
    const float origin = place.length > 0 ? to_float(x[place.base]) : 0.0f;
    Moments moments{0, 0.0f, 0.0f};
    for (int64 k = place.row; k < place.length; k += kTogether * s.rows) {
        float value[kTogether];
        int count = 0;
        float sum = 0.0f, squares = 0.0f;
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
            const bool there = k + i * s.rows < place.length;
            value[i] = there ? to_float(x[place.base + k + i * s.rows]) - origin : 0.0f;
            count += there;
            sum += value[i];
        }
        const float centre = sum / static_cast<float>(count);
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
            const float distance = value[i] - centre;
            if (i < count) squares = fmaf(distance, distance, squares);
        }
        moments.merge({count, centre, squares});
    }
    moments = of_first_thread(over_rows<T.warps>(moments, s.layout(), meeting), s.rows);

    const float rounded = origin + moments.mean;
    float variance = moments.squares / static_cast<float>(moments.count);
    if (!centred) variance = fmaf(rounded, rounded, variance);
    const float inverse = rsqrtf(variance + eps);
    if (place.row == 0 && place.length > 0) {
        mean[place.outer] = centred ? rounded : 0.0f;
        var[place.outer] = variance;
    }
    const float first = centred ? origin : 0.0f, second = centred ? moments.mean : 0.0f;
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        const int64 at = place.base + k, c = channel + channels.inside(k);
        const float scale = weight == nullptr ? inverse : inverse * weight[c];
        const float shift = bias == nullptr ? 0.0f : bias[c];
        y[at] = from_float<Stored<T>>(fmaf((to_float(x[at]) - first) - second, scale, shift));
    }
}

template <RowsTile T>
__global__ void __launch_bounds__(T.threads(), T.blocks)
    group_norm_bwd(const RowsShape s, const GroupChannels channels, const float eps, const int64 centred,
                   const Stored<T>* __restrict__ dy, const Stored<T>* __restrict__ x, const float* __restrict__ weight,
                   const float* __restrict__ mean, const float* __restrict__ var, Stored<T>* __restrict__ dx,
                   float* __restrict__ product) {
    using Meeting = RowMeeting<TwoSums, T.warps>;
    PYCNN_SHARED(Meeting, meeting);
    const RowsPlace place = rows_place<T>(s);
    const int64 channel = channels.first(place.outer);
    const float centre = place.length > 0 ? mean[place.outer] : 0.0f;
    const float inverse = place.length > 0 ? rsqrtf(var[place.outer] + eps) : 0.0f;
    TwoSums sums{0.0f, 0.0f};
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        const int64 at = place.base + k;
        const float factor = weight == nullptr ? 1.0f : weight[channel + channels.inside(k)];
        const float slope = to_float(dy[at]) * factor;
        sums.first += slope;
        sums.second = fmaf(slope, to_float(x[at]) - centre, sums.second);
    }
    sums = over_rows<T.warps>(sums, s.layout(), meeting);

    const float share = 1.0f / static_cast<float>(s.length);
    const float level = centred ? sums.first * share : 0.0f;
    const float tilt = sums.second * inverse * inverse * share;
#pragma unroll 4
    for (int64 k = place.row; k < place.length; k += s.rows) {
        const int64 at = place.base + k;
        const float factor = weight == nullptr ? 1.0f : weight[channel + channels.inside(k)];
        const float slope = to_float(dy[at]), distance = to_float(x[at]) - centre;
        dx[at] = from_float<Stored<T>>(fmaf(-distance, tilt, fmaf(slope, factor, -level)) * inverse);
        if (product != nullptr) product[at] = slope * (distance * inverse);
    }
}

}  // namespace pycnn
