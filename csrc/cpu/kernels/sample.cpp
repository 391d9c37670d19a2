// Points that are weighted sums of an image's elements: grid_sample, RoIAlign, the columns of deformable convolution; and
// both of their gradients.
//
// The index and the weights of a stretch of points stay in cache while all channels go by.  The gradient of x is a
// scatter: one task owns a plane of it and adds in the order of rows, taps and points, so sums are the same in every
// run.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kPoints = 512;   // of one task
constexpr int64_t kChannels = 64;  // of one task of the forward pass

}  // namespace

template <typename T>
void sample_fwd(const Samples& s, const T* x, const T* weight, T* y) {
    const int64_t stretches = ceil_div(s.points, kPoints), parts = ceil_div(s.channels, kChannels);
    parallel(s.rows * parts * stretches, s.rows * s.channels * s.points * (s.taps + 1), [&](int64_t task) {
        const int64_t r = task / (parts * stretches), begin = task % stretches * kPoints;
        const int64_t first = task / stretches % parts * kChannels;
        const int64_t count = least(kPoints, s.points - begin);
        for (int64_t c = first; c < least(s.channels, first + kChannels); c++) {
            const T* __restrict plane = x + (s.image[r] * s.channels + c) * s.image_size;
            T* __restrict to = y + (r * s.channels + c) * s.points + begin;
            for (int64_t p = 0; p < count; p++) to[p] = T(0);
            for (int64_t k = 0; k < s.taps; k++) {
                const int64_t* __restrict at = s.index + (r * s.taps + k) * s.points + begin;
                const T* __restrict w = weight + (r * s.taps + k) * s.points + begin;
                for (int64_t p = 0; p < count; p++) to[p] += at[p] < 0 ? T(0) : w[p] * plane[at[p]];
            }
        }
    });
}

template <typename T>
void sample_dx(const Samples& s, const T* dy, const T* weight, T* dx) {
    parallel(s.images * s.channels, s.images * s.channels * s.image_size + s.rows * s.channels * s.points * s.taps,
             [&](int64_t task) {
                 const int64_t n = task / s.channels, c = task % s.channels;
                 T* __restrict plane = dx + task * s.image_size;
                 fill(plane, T(0), s.image_size);
                 for (int64_t r = 0; r < s.rows; r++) {
                     if (s.image[r] != n) continue;
                     const T* __restrict from = dy + (r * s.channels + c) * s.points;
                     for (int64_t k = 0; k < s.taps; k++) {
                         const int64_t* __restrict at = s.index + (r * s.taps + k) * s.points;
                         const T* __restrict w = weight + (r * s.taps + k) * s.points;
                         for (int64_t p = 0; p < s.points; p++) {
                             if (at[p] >= 0) plane[at[p]] += w[p] * from[p];
                         }
                     }
                 }
             });
}

template <typename T>
void sample_dw(const Samples& s, const T* dy, const T* x, T* dw) {
    const int64_t stretches = ceil_div(s.points, kPoints);
    parallel(s.rows * s.taps * stretches, s.rows * s.channels * s.points * s.taps, [&](int64_t task) {
        const int64_t r = task / (s.taps * stretches), k = task / stretches % s.taps;
        const int64_t begin = task % stretches * kPoints, count = least(kPoints, s.points - begin);
        const int64_t* __restrict at = s.index + (r * s.taps + k) * s.points + begin;
        T* __restrict to = dw + (r * s.taps + k) * s.points + begin;
        for (int64_t p = 0; p < count; p++) to[p] = T(0);
        for (int64_t c = 0; c < s.channels; c++) {
            const T* __restrict plane = x + (s.image[r] * s.channels + c) * s.image_size;
            const T* __restrict from = dy + (r * s.channels + c) * s.points + begin;
            for (int64_t p = 0; p < count; p++) to[p] += at[p] < 0 ? T(0) : from[p] * plane[at[p]];
        }
    });
}

template void sample_fwd(const Samples&, const float*, const float*, float*);
template void sample_fwd(const Samples&, const double*, const double*, double*);
template void sample_dx(const Samples&, const float*, const float*, float*);
template void sample_dx(const Samples&, const double*, const double*, double*);
template void sample_dw(const Samples&, const float*, const float*, float*);
template void sample_dw(const Samples&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
