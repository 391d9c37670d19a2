// sample: points that are weighted sums of an image's elements (grid_sample, RoIAlign, the columns of deformable
// convolution), and both gradients of them, in float32.
//
//     sample_fwd   y[r, c, p]  = sum over k of w[r, k, p] * x[n, c, i]        n = image[r], i = index[r, k, p]
//     sample_dx    dx[n, c, i] = sum of w[r, k, p] * dy[r, c, p] over the r, k, p that look there
//     sample_dw    dw[r, k, p] = sum over c of dy[r, c, p] * x[n, c, i]
//
// A tap whose index is -1, or anything else outside the image, takes no part; nor does a row of an image that is not there.
// sample_dx adds in integers (fixed.cuh): sample_magnitude finds the largest |dy|
// and |w| first, sample_settle turns the sums into float32 afterwards.
//
// Who owns what: in sample_fwd and sample_dx a thread owns a point in `channels` channels, whose taps it reads once; in
// sample_dw a tap of a point in all channels; lanes are neighbouring points.  In the other two a thread owns an element.
//
//      index, w  (R, K, P)   | p p+1 ... p+31 |  read in lines
//      y, dy     (R, C, P)   | p p+1 ... p+31 |  in lines
//      x, dx     (N, C, S)   |  .  ..   . ... |  wherever the taps look: neighbours look at neighbours, mostly
//
// Launch      sample_fwd, sample_dx: ceil(P / threads) * ceil(C / channels) * R blocks; sample_dw: ceil(P / threads) *
//             K * R; the others one thread an element; on along y past 2^31 - 1.
// Shared      none.
// Determinism one thread sums each element of y and dw; dx is a sum of integers: bit for bit the same in every run.
// Cost        12 bytes a tap for every `channels` channels, and 4 for each element that it looks at, through L1; of dx 8
//             bytes by way of an atomic in L2.
// Limit       latency of the gather; sample_dx: the atomics.
// Reference   Jaderberg et al., "Spatial transformer networks", 2015, equations 3 to 7.
#include "fixed.cuh"
#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct SampleTile {
    int channels;  // of a thread
    int warps;     // in a block

    constexpr int threads() const { return warps * 32; }
};

// Passed by value; pycnn/backends/cuda/sampling.py packs the same fields in the same order.
struct SampleShape {
    int64 rows, taps, points;
    int64 images, channels, size;  // of x
};

// Numbers of images come from boxes, which may say anything.
__device__ __forceinline__ int64 taps_of(const SampleShape& s, int64 image) {
    return inside(image, s.images) ? s.taps : 0;
}

// A thread's point, and which of `parts` of the channels or taps it is there for.
struct SamplePlace {
    int64 row, part, point;
};

template <SampleTile T>
__device__ __forceinline__ SamplePlace sample_place(const SampleShape& s, int64 parts) {
    const int64 block = block_number(), tiles = (s.points + T.threads() - 1) / T.threads();
    const int64 outer = block / tiles;
    return {outer / parts, outer % parts, (block - outer * tiles) * T.threads() + static_cast<int64>(threadIdx.x)};
}

template <SampleTile T>
__device__ __forceinline__ int64 channel_parts(const SampleShape& s) {
    return (s.channels + T.channels - 1) / T.channels;
}

template <SampleTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    sample_fwd(const SampleShape s, const float* __restrict__ x, const int64* __restrict__ image,
               const int64* __restrict__ index, const float* __restrict__ w, float* __restrict__ y) {
    const SamplePlace place = sample_place<T>(s, channel_parts<T>(s));
    if (place.row >= s.rows || place.point >= s.points) return;
    const int64 first = place.part * T.channels;
    const float* planes = x + (image[place.row] * s.channels + first) * s.size;
    const int64 taps = taps_of(s, image[place.row]);
    float sum[T.channels] = {};
    for (int64 k = 0; k < taps; ++k) {
        const int64 tap = (place.row * s.taps + k) * s.points + place.point, at = index[tap];
        if (!inside(at, s.size)) continue;
        const float weight = w[tap];
#pragma unroll
        for (int c = 0; c < T.channels; ++c) {
            if (first + c < s.channels) sum[c] += weight * planes[c * s.size + at];
        }
    }
#pragma unroll
    for (int c = 0; c < T.channels; ++c) {
        if (first + c < s.channels) y[(place.row * s.channels + first + c) * s.points + place.point] = sum[c];
    }
}

template <SampleTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    sample_dx(const SampleShape s, const int64 log2_count, const float* __restrict__ dy,
              const int64* __restrict__ image, const int64* __restrict__ index, const float* __restrict__ w,
              const uint32* __restrict__ magnitudes, uint64* __restrict__ sums, uint32* __restrict__ flags) {
    const SamplePlace place = sample_place<T>(s, channel_parts<T>(s));
    if (place.row >= s.rows || place.point >= s.points) return;
    const double scale = power_of_two(fixed_exponent(static_cast<int>(log2_count), magnitudes));
    const int64 first = place.part * T.channels;
    const int64 planes = (image[place.row] * s.channels + first) * s.size;
    const int64 taps = taps_of(s, image[place.row]);
    float gradient[T.channels];
#pragma unroll
    for (int c = 0; c < T.channels; ++c) {
        const int64 from = (place.row * s.channels + first + c) * s.points + place.point;
        gradient[c] = first + c < s.channels ? dy[from] : 0.0f;
    }
    for (int64 k = 0; k < taps; ++k) {
        const int64 tap = (place.row * s.taps + k) * s.points + place.point, at = index[tap];
        if (!inside(at, s.size)) continue;
        const float weight = w[tap];
#pragma unroll
        for (int c = 0; c < T.channels; ++c) {
            if (first + c < s.channels) add_fixed(sums, flags, planes + c * s.size + at, weight, gradient[c], scale);
        }
    }
}

template <SampleTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    sample_dw(const SampleShape s, const float* __restrict__ dy, const float* __restrict__ x,
              const int64* __restrict__ image, const int64* __restrict__ index, float* __restrict__ dw) {
    const SamplePlace place = sample_place<T>(s, s.taps);
    if (place.row >= s.rows || place.point >= s.points) return;
    const int64 tap = (place.row * s.taps + place.part) * s.points + place.point, at = index[tap];
    float sum = 0.0f;
    if (inside(at, s.size) && inside(image[place.row], s.images)) {
        const float* plane = x + image[place.row] * s.channels * s.size + at;
        const float* from = dy + place.row * s.channels * s.points + place.point;
        for (int64 c = 0; c < s.channels; ++c) sum += from[c * s.points] * plane[c * s.size];
    }
    dw[tap] = sum;
}

// The largest magnitude of an array's finite elements, as bits, into `magnitude`, which was 0.
template <SampleTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    sample_magnitude(const int64 size, const float* __restrict__ values, uint32* __restrict__ magnitude) {
    const int64 threads = static_cast<int64>(gridDim.x) * T.threads();
    uint32 most = 0;
    for (int64 i = static_cast<int64>(blockIdx.x) * T.threads() + threadIdx.x; i < size; i += threads) {
        const uint32 bits = magnitude_bits(values[i]);
        most = bits > most ? bits : most;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const uint32 other = __shfl_xor_sync(0xFFFFFFFFu, most, step);
        most = other > most ? other : most;
    }
    if (threadIdx.x % 32 == 0) atomicMax(magnitude, most);
}

template <SampleTile T>
__global__ void __launch_bounds__(T.threads(), 1)
    sample_settle(const int64 size, const int64 log2_count, const uint32* __restrict__ magnitudes,
                  const uint64* __restrict__ sums, const uint32* __restrict__ flags, float* __restrict__ dx) {
    const int64 i = block_number() * T.threads() + static_cast<int64>(threadIdx.x);
    if (i >= size) return;
    const double unscale = power_of_two(-fixed_exponent(static_cast<int>(log2_count), magnitudes));
    const uint32 flag = flags[i / kFlagsOfAWord] >> 4 * (i % kFlagsOfAWord) & 15;
    dx[i] = settled(sums[i], flag, unscale);
}

}  // namespace pycnn
