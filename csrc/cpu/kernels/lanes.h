// Loops over rows of vectors.
#pragma once

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
PYCNN_INLINE Vec<T> greater(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}

// Elements in one task of an elementwise loop: large enough to be worth handing to a thread, small enough to share out.
constexpr int64_t kChunk = 16384;

// body(i, count) for every vector of [0, n): count is the number of lanes where it is whole, and fewer at the end.
template <typename T, typename Body>
PYCNN_INLINE void for_vectors(int64_t n, const Body& body) {
    int64_t i = 0;
    for (; i + kLanes<T> <= n; i += kLanes<T>) body(i, static_cast<int64_t>(kLanes<T>));
    if (i < n) body(i, n - i);
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
