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

// to[j] = from[first + j * stride], zero where that index is outside [0, size).
template <typename T>
static void copy_row(T* to, int64_t count, const T* from, int64_t first, int64_t stride, int64_t size) {
    const int64_t begin = first >= 0 ? 0 : least(count, ceil_div(-first, stride));
    const int64_t end = first >= size ? begin : most(begin, least(count, ceil_div(size - first, stride)));
    for (int64_t j = 0; j < begin; j++) to[j] = T(0);
    const T* at = from + first;
    if (stride == 1) {
        copy(to + begin, at + begin, end - begin);
    } else {
        copy_strided(to + begin, at + begin * stride, stride, end - begin);
    }
    for (int64_t j = end; j < count; j++) to[j] = T(0);
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
