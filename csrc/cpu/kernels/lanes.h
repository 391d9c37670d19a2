// Parts of vectors and reductions across one: what the ends of rows need.
#pragma once

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// The first `count` (< lanes) elements from memory, `fill` in the rest.
template <typename T>
PYCNN_INLINE Vec<T> load_first(const T* from, int64_t count, T fill) {
    T lanes[kLanes<T>];
    for (int i = 0; i < kLanes<T>; i++) lanes[i] = fill;
    __builtin_memcpy(lanes, from, static_cast<std::size_t>(count) * sizeof(T));
    return load(lanes);
}

// Only the first `count` (< lanes) elements to memory.
template <typename T>
PYCNN_INLINE void store_first(T* to, Vec<T> value, int64_t count) {
    T lanes[kLanes<T>];
    store(lanes, value);
    __builtin_memcpy(to, lanes, static_cast<std::size_t>(count) * sizeof(T));
}

// Sum of all lanes, always in the same order: halves onto halves.
template <typename T>
PYCNN_INLINE T sum_lanes(Vec<T> value) {
    T lanes[kLanes<T>];
    store(lanes, value);
    for (int half = kLanes<T> / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

// Largest lane; a NaN may be passed over.
template <typename T>
PYCNN_INLINE T max_lanes(Vec<T> value) {
    T lanes[kLanes<T>];
    store(lanes, value);
    for (int i = 1; i < kLanes<T>; i++) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
}

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

// load / store of `count` lanes, whole or not; after inlining into for_vectors the whole case has no test left.
template <typename T>
PYCNN_INLINE Vec<T> load_lanes(const T* from, int64_t count, T fill = T(0)) {
    return count == kLanes<T> ? load(from) : load_first(from, count, fill);
}
template <typename T>
PYCNN_INLINE void store_lanes(T* to, Vec<T> value, int64_t count) {
    if (count == kLanes<T>) {
        store(to, value);
    } else {
        store_first(to, value, count);
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
