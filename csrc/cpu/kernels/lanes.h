// Parts of vectors and reductions across one: what the ends of rows need.
#pragma once

#include "cpu/kernels/simd.h"

#if PYCNN_VECTOR_BYTES == 64
#include <immintrin.h>  // its functions are always inlined: none of them is left for the linker to choose among
#endif

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// The first `count` (< lanes) elements from memory, `fill` in the rest; nothing beyond them is touched.
template <typename T>
PYCNN_INLINE Vec<T> load_first(const T* from, int64_t count, T fill) {
#if PYCNN_VECTOR_BYTES == 64
    const unsigned mask = (1u << count) - 1;
    if constexpr (sizeof(T) == 4) {
        return (Vec<T>)_mm512_mask_loadu_ps((__m512)broadcast(fill), static_cast<__mmask16>(mask), from);
    } else {
        return (Vec<T>)_mm512_mask_loadu_pd((__m512d)broadcast(fill), static_cast<__mmask8>(mask), from);
    }
#else
    T lanes[kLanes<T>];
    store(lanes, broadcast(fill));
    for (int64_t i = 0; i < count; i++) lanes[i] = from[i];
    return load(lanes);
#endif
}

// Only the first `count` (< lanes) elements to memory.
template <typename T>
PYCNN_INLINE void store_first(T* to, Vec<T> value, int64_t count) {
#if PYCNN_VECTOR_BYTES == 64
    const unsigned mask = (1u << count) - 1;
    if constexpr (sizeof(T) == 4) {
        _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), (__m512)value);
    } else {
        _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), (__m512d)value);
    }
#else
    T lanes[kLanes<T>];
    store(lanes, value);
    for (int64_t i = 0; i < count; i++) to[i] = lanes[i];
#endif
}

// Sum of all lanes, always in the same order: upper half onto lower half.
template <typename T>
PYCNN_INLINE T sum_lanes(Vec<T> value) {
    typedef T Quarter __attribute__((vector_size(16)));
    Quarter parts[PYCNN_VECTOR_BYTES / 16];
    __builtin_memcpy(parts, &value, sizeof value);
#pragma GCC unroll 2
    for (int half = PYCNN_VECTOR_BYTES / 32; half > 0; half /= 2) {
#pragma GCC unroll 2
        for (int i = 0; i < half; i++) parts[i] += parts[i + half];
    }
    if constexpr (sizeof(T) == 4) return (parts[0][0] + parts[0][2]) + (parts[0][1] + parts[0][3]);
    return parts[0][0] + parts[0][1];
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
