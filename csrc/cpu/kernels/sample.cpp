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

constexpr int64_t kChannels = 64;  // of one task of the forward pass

}  // namespace

// Points of one task: fewer where they have many taps, so that those stay in cache.
PYCNN_INLINE int64_t stretch_of(const Samples& s) {
    return most(32, least(512, 8192 / most(1, s.taps)));
}

// The taps of a stretch of points, in the narrowest integers: twice as many of them are gathered by one instruction.
template <typename Index>
static void narrowed(const Samples& s, int64_t row, int64_t begin, int64_t count, Index* __restrict to) {
    for (int64_t k = 0; k < s.taps; k++) {
        const int64_t* __restrict from = s.index + (row * s.taps + k) * s.points + begin;
        for (int64_t p = 0; p < count; p++) to[k * count + p] = static_cast<Index>(from[p]);
    }
}

// factor * x[at], or 0 where at is -1.  One load at a time, which the empty instruction keeps the compiler to: on many CPUs
// (AMD's Zen, Intel's with the guard against "gather data sampling") a gather of a whole vector takes twice as long.
template <typename T, typename Index>
PYCNN_INLINE T product_at(T factor, const T* x, Index at) {
    __asm__("" : "+r"(at));
    return at < 0 ? T(0) : factor * x[at];
}

// y, or y + what is there, of one channel: TAPS taps, whose weights are `step` apart.
template <int TAPS, typename T, typename Index>
PYCNN_INLINE void add_taps(bool first, int64_t count, const Index* __restrict at, int64_t step,
                           const T* __restrict weight, const T* __restrict x, T* __restrict y) {
    for (int64_t p = 0; p < count; p++) {
        T sum = first ? T(0) : y[p];
#pragma GCC unroll 4
        for (int k = 0; k < TAPS; k++) sum += product_at(weight[k * step + p], x, at[k * count + p]);
        y[p] = sum;
    }
}

template <typename T, typename Index>
static void forward(const Samples& s, const T* x, const T* weight, T* y) {
    const int64_t stretch = stretch_of(s), stretches = ceil_div(s.points, stretch);
    const int64_t parts = ceil_div(s.channels, kChannels);
    parallel(s.rows * parts * stretches, s.rows * s.channels * s.points * (s.taps + 1), [&](int64_t task) {
        const int64_t r = task / (parts * stretches), begin = task % stretches * stretch;
        const int64_t first = task / stretches % parts * kChannels, count = least(stretch, s.points - begin);
        Scratch<Index> room(static_cast<std::size_t>(s.taps * count));
        const Index* at = room.get();
        narrowed(s, r, begin, count, room.get());
        const T* w = weight + r * s.taps * s.points + begin;
        for (int64_t c = first; c < least(s.channels, first + kChannels); c++) {
            const T* plane = x + (s.image[r] * s.channels + c) * s.image_size;
            T* to = y + (r * s.channels + c) * s.points + begin;
            if (s.taps == 0) fill(to, T(0), count);
            int64_t k = 0;
            for (; k + 4 <= s.taps; k += 4) {
                add_taps<4>(k == 0, count, at + k * count, s.points, w + k * s.points, plane, to);
            }
            for (; k < s.taps; k++) add_taps<1>(k == 0, count, at + k * count, s.points, w + k * s.points, plane, to);
        }
    });
}

template <typename T, typename Index>
static void weights(const Samples& s, const T* dy, const T* x, T* dw) {
    const int64_t stretch = stretch_of(s), stretches = ceil_div(s.points, stretch);
    parallel(s.rows * stretches, s.rows * s.channels * s.points * s.taps, [&](int64_t task) {
        const int64_t r = task / stretches, begin = task % stretches * stretch;
        const int64_t count = least(stretch, s.points - begin);
        Scratch<Index> room(static_cast<std::size_t>(s.taps * count));
        const Index* at = room.get();
        narrowed(s, r, begin, count, room.get());
        T* to = dw + r * s.taps * s.points + begin;
        for (int64_t k = 0; k < s.taps; k++) fill(to + k * s.points, T(0), count);
        for (int64_t c = 0; c < s.channels; c++) {
            const T* __restrict plane = x + (s.image[r] * s.channels + c) * s.image_size;
            const T* __restrict from = dy + (r * s.channels + c) * s.points + begin;
            for (int64_t k = 0; k < s.taps; k++) {
                T* __restrict sum = to + k * s.points;
                for (int64_t p = 0; p < count; p++) sum[p] += product_at(from[p], plane, at[k * count + p]);
            }
        }
    });
}

// What `forward` and `weights` read where there is no tap has to be there.
template <typename T>
PYCNN_INLINE bool nowhere(const Samples& s, int64_t size, T* result) {
    if (s.image_size > 0) return false;
    fill(result, T(0), size);
    return true;
}

template <typename T>
void sample_fwd(const Samples& s, const T* x, const T* weight, T* y) {
    if (nowhere(s, s.rows * s.channels * s.points, y)) return;
    if (s.image_size < (int64_t{1} << 31)) return forward<T, std::int32_t>(s, x, weight, y);
    forward<T, int64_t>(s, x, weight, y);
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
    if (nowhere(s, s.rows * s.taps * s.points, dw)) return;
    if (s.image_size < (int64_t{1} << 31)) return weights<T, std::int32_t>(s, dy, x, dw);
    weights<T, int64_t>(s, dy, x, dw);
}

template void sample_fwd(const Samples&, const float*, const float*, float*);
template void sample_fwd(const Samples&, const double*, const double*, double*);
template void sample_dx(const Samples&, const float*, const float*, float*);
template void sample_dx(const Samples&, const double*, const double*, double*);
template void sample_dw(const Samples&, const float*, const float*, float*);
template void sample_dw(const Samples&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
