// Vectors across memory: part of a vector loaded or stored, and a square of vectors turned on its side.
#pragma once

#if PYCNN_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Lanes [first, last) of a vector; memory under the others is never touched.
template <typename T>
struct Lanes;

#if PYCNN_VECTOR_BYTES == 64

template <typename T>
struct Lanes {
    unsigned mask;
    Lanes(int64_t first, int64_t last)
        : mask(last > first ? ((1u << last) - 1u) & ~((1u << most(first, 0)) - 1u) : 0u) {}
};

PYCNN_INLINE Vec<float> load_lanes(const float* from, const Lanes<float>& lanes) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes.mask), from);
}
PYCNN_INLINE Vec<double> load_lanes(const double* from, const Lanes<double>& lanes) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes.mask), from);
}
PYCNN_INLINE void store_lanes(float* to, Vec<float> value, const Lanes<float>& lanes) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(lanes.mask), value);
}
PYCNN_INLINE void store_lanes(double* to, Vec<double> value, const Lanes<double>& lanes) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(lanes.mask), value);
}

#elif PYCNN_VECTOR_BYTES == 32

template <typename T>
struct Lanes {
    __m256i mask;
    Lanes(int64_t first, int64_t last) {
        if constexpr (sizeof(T) == 4) {
            const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            const __m256i from = _mm256_set1_epi32(static_cast<int>(most(first, 0)) - 1);
            const __m256i to = _mm256_set1_epi32(static_cast<int>(last));
            mask = _mm256_and_si256(_mm256_cmpgt_epi32(lane, from), _mm256_cmpgt_epi32(to, lane));
        } else {
            const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
            const __m256i from = _mm256_set1_epi64x(most(first, 0) - 1);
            const __m256i to = _mm256_set1_epi64x(last);
            mask = _mm256_and_si256(_mm256_cmpgt_epi64(lane, from), _mm256_cmpgt_epi64(to, lane));
        }
    }
};

PYCNN_INLINE Vec<float> load_lanes(const float* from, const Lanes<float>& lanes) {
    return _mm256_maskload_ps(from, lanes.mask);
}
PYCNN_INLINE Vec<double> load_lanes(const double* from, const Lanes<double>& lanes) {
    return _mm256_maskload_pd(from, lanes.mask);
}
PYCNN_INLINE void store_lanes(float* to, Vec<float> value, const Lanes<float>& lanes) {
    _mm256_maskstore_ps(to, lanes.mask, value);
}
PYCNN_INLINE void store_lanes(double* to, Vec<double> value, const Lanes<double>& lanes) {
    _mm256_maskstore_pd(to, lanes.mask, value);
}

#else

template <typename T>
struct Lanes {
    int64_t first, last;
    Lanes(int64_t first, int64_t last) : first(most(first, 0)), last(last) {}
};

template <typename T>
PYCNN_INLINE Vec<T> load_lanes(const T* from, const Lanes<T>& lanes) {
    if (lanes.first == 0 && lanes.last == kLanes<T>) return load(from);
    Vec<T> value{};
    for (int64_t l = lanes.first; l < lanes.last; l++) value[l] = from[l];
    return value;
}
template <typename T>
PYCNN_INLINE void store_lanes(T* to, Vec<T> value, const Lanes<T>& lanes) {
    for (int64_t l = lanes.first; l < lanes.last; l++) to[l] = value[l];
}

#endif

// The part of [at, at + lanes) that lies within [0, size).
template <typename T>
PYCNN_INLINE Lanes<T> lanes_within(int64_t at, int64_t size) {
    return Lanes<T>(-at, most(0, least(kLanes<T>, size - at)));
}

// Transposition by halving: `even` and `odd` take every second element (then every second 16-byte chunk) of two
// vectors, each one instruction; log2(lanes) rounds of them turn a square of vectors.
template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    using Type = Indices<I...>;
};

// Source of lane `i` when elements (of `unit` lanes) numbered odd or even are taken inside each span of `span` lanes:
// the first half of a span from the first vector, the second from the other one.
constexpr int taken(int i, int lanes, int span, int unit, int odd) {
    const int base = i / span * span;
    const int element = i % span / unit;
    const int half = span / unit / 2;
    const int from_second = element >= half;
    return from_second * lanes + base + (2 * (element - from_second * half) + odd) * unit + i % unit;
}

template <int SPAN, int UNIT, int ODD, typename V, int... I>
PYCNN_INLINE V take(V a, V b, Indices<I...>) {
    return __builtin_shufflevector(a, b, taken(I, sizeof...(I), SPAN, UNIT, ODD)...);
}

// One round over `COUNT` vectors at v[0], v[STEP], ...
template <int LANES, int COUNT, int STEP, int SPAN, int UNIT, typename V>
PYCNN_INLINE void take_round(V* v) {
    using Every = typename Count<LANES>::Type;
    V next[COUNT];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT / 2; i++) {
        next[i] = take<SPAN, UNIT, 0>(v[2 * i * STEP], v[(2 * i + 1) * STEP], Every{});
        next[i + COUNT / 2] = take<SPAN, UNIT, 1>(v[2 * i * STEP], v[(2 * i + 1) * STEP], Every{});
    }
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; i++) v[i * STEP] = next[i];
}

// v[i][j] <-> v[j][i]
template <typename T>
PYCNN_INLINE void transpose(Vec<T>* v) {
    constexpr int kAll = kLanes<T>;
    constexpr int kChunk = 16 / static_cast<int>(sizeof(T));  // lanes of a 16-byte chunk
    constexpr int kChunks = kAll / kChunk;
#pragma GCC unroll 16
    for (int q = 0; q < kChunks; q++) {  // within chunks: v[q * kChunk + r], chunk j = rows of group q, column 4j + r
        take_round<kAll, kChunk, 1, kChunk, 1>(v + q * kChunk);
        if constexpr (kChunk == 4) take_round<kAll, kChunk, 1, kChunk, 1>(v + q * kChunk);
    }
    if constexpr (kChunks > 1) {
#pragma GCC unroll 16
        for (int r = 0; r < kChunk; r++) {
            take_round<kAll, kChunks, kChunk, kAll, kChunk>(v + r);
            if constexpr (kChunks == 4) take_round<kAll, kChunks, kChunk, kAll, kChunk>(v + r);
        }
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
