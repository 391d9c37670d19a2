// What the convolution units of this folder share.
#pragma once

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// A 1x1 filter at every pixel: a matrix product on the images as they lie.
PYCNN_INLINE bool is_pointwise(const ConvShape& s) {
    return s.R * s.S == 1 && s.pad_top == 0 && s.pad_left == 0 && s.P == s.H && s.Q == s.W &&
           (s.stride_h == 1 || s.P == 1) && (s.stride_w == 1 || s.Q == 1);
}

// One filter for each channel: nothing to share between filters, so the register tile does not apply.
PYCNN_INLINE bool is_depthwise(const ConvShape& s) {
    return s.C == s.groups && s.K == s.groups && s.groups > 1;
}

template <typename T>
struct TapSum;

// conv_depthwise.cpp: a TapSum with one channel and one output a group, and wgrad of the same.
template <typename T>
void depthwise_sum(const TapSum<T>& p);
template <typename T>
void depthwise_wgrad(const ConvShape& s, const T* dy, const T* x, T* dw);

// conv_direct_wgrad_few.cpp: wgrad with vectors along the filters, and whether it is quicker than a way that takes
// `other` multiply-adds of a vector for each pixel.
template <typename T>
bool few_channels_pay(const ConvShape& s, int64_t other);
template <typename T>
void few_channels_wgrad(const ConvShape& s, const T* dy, const T* x, T* dw);

template <typename T>
static bool all_finite(const T* values, int64_t count) {
    Vec<T> sum = {};  // x * 0 is 0, or NaN where x is not finite
    int64_t i = 0;
    for (; i + 4 * kLanes<T> <= count; i += 4 * kLanes<T>) {
        const Vec<T> a = load(values + i) * T(0) + load(values + i + kLanes<T>) * T(0);
        sum += a + (load(values + i + 2 * kLanes<T>) * T(0) + load(values + i + 3 * kLanes<T>) * T(0));
    }
    T rest = sum_of<T>(sum);
    for (; i < count; i++) rest += values[i] * T(0);
    return rest == T(0);
}

// The j in [0, count) for which first + j * stride lies in [0, size): from `begin` to before `end`.
struct Inside {
    int64_t begin, end;
    Inside(int64_t first, int64_t stride, int64_t size, int64_t count)
        : begin(first >= 0 ? 0 : least(count, ceil_div(-first, stride))),
          end(first >= size ? begin : most(begin, least(count, ceil_div(size - first, stride)))) {}
};

// to[j] = from[first + j * stride], zero where that index is outside [0, size).
template <typename T>
static void copy_row(T* to, int64_t count, const T* from, int64_t first, int64_t stride, int64_t size) {
    const Inside inside(first, stride, size, count);
    fill(to, T(0), inside.begin);
    copy_strided(to + inside.begin, from + first + inside.begin * stride, stride, inside.end - inside.begin);
    fill(to + inside.end, T(0), count - inside.end);
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
