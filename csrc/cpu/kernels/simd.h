// Vectors of the instruction set being compiled, and a parallel loop over lambdas.  Included only by the units of
// csrc/cpu/kernels, which are compiled once for each instruction set: everything here lands in its namespace.  GCC and
// Clang vector extensions, so the arithmetic is written once: a vector is used like a number.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>
#include <new>

#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/threads.h"

#define PYCNN_INLINE static inline __attribute__((always_inline))

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float Type __attribute__((vector_size(PYCNN_VECTOR_BYTES)));
    typedef float Unaligned __attribute__((vector_size(PYCNN_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
    typedef double Type __attribute__((vector_size(PYCNN_VECTOR_BYTES)));
    typedef double Unaligned __attribute__((vector_size(PYCNN_VECTOR_BYTES), aligned(8), may_alias));
};

template <typename T>
using Vec = typename VectorOf<T>::Type;

// Elements of T in a vector.
template <typename T>
constexpr int kLanes = PYCNN_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <typename T>
PYCNN_INLINE Vec<T> load(const T* from) {
    return *reinterpret_cast<const typename VectorOf<T>::Unaligned*>(from);
}

template <typename T>
PYCNN_INLINE void store(T* to, Vec<T> value) {
    *reinterpret_cast<typename VectorOf<T>::Unaligned*>(to) = value;
}

template <typename T>
PYCNN_INLINE Vec<T> broadcast(T value) {
    return value - Vec<T>{};
}

PYCNN_INLINE int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
PYCNN_INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
PYCNN_INLINE int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

// Whether a part of a vector is loaded and stored by one masked instruction.
#if defined(__AVX512F__)
constexpr bool kMasks = true;
#else
constexpr bool kMasks = false;
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
// All bits set in the first `count` lanes.
template <typename T>
PYCNN_INLINE __m256i first_lanes(int64_t count) {
    if constexpr (sizeof(T) == 4) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
    } else {
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
    }
}
#endif

// The first `count` (0 to lanes) elements, `fill` after them; nothing beyond them is touched.  Here and below a count
// that the compiler knows to be all lanes, as in most of a `for_vectors`, costs no mask.
template <typename T>
PYCNN_INLINE Vec<T> load_part(const T* from, int64_t count, T fill) {
    if (__builtin_constant_p(count) && count == kLanes<T>) return load(from);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        return (Vec<T>)_mm512_mask_loadu_ps((__m512)broadcast(fill), static_cast<__mmask16>((1u << count) - 1), from);
    } else {
        return (Vec<T>)_mm512_mask_loadu_pd((__m512d)broadcast(fill), static_cast<__mmask8>((1u << count) - 1), from);
    }
#elif defined(__AVX2__)
    const __m256i mask = first_lanes<T>(count);
    if constexpr (sizeof(T) == 4) {
        const __m256 part = _mm256_maskload_ps(from, mask);
        return (Vec<T>)_mm256_blendv_ps((__m256)broadcast(fill), part, (__m256)mask);
    } else {
        const __m256d part = _mm256_maskload_pd(from, mask);
        return (Vec<T>)_mm256_blendv_pd((__m256d)broadcast(fill), part, (__m256d)mask);
    }
#else
    Vec<T> value = broadcast(fill);
    for (int i = 0; i < kLanes<T>; i++) {
        if (i < count) value[i] = from[i];
    }
    return value;
#endif
}

// The same with zeros after them.
template <typename T>
PYCNN_INLINE Vec<T> load_part(const T* from, int64_t count) {
    if (__builtin_constant_p(count) && count == kLanes<T>) return load(from);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        return (Vec<T>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
    } else {
        return (Vec<T>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
        return (Vec<T>)_mm256_maskload_ps(from, first_lanes<T>(count));
    } else {
        return (Vec<T>)_mm256_maskload_pd(from, first_lanes<T>(count));
    }
#else
    return load_part(from, count, T(0));
#endif
}

// Only the first `count` elements to memory.
template <typename T>
PYCNN_INLINE void store_part(T* to, Vec<T> value, int64_t count) {
    if (__builtin_constant_p(count) && count == kLanes<T>) return store(to, value);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)value);
    } else {
        _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), (__m512d)value);
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
        _mm256_maskstore_ps(to, first_lanes<T>(count), (__m256)value);
    } else {
        _mm256_maskstore_pd(to, first_lanes<T>(count), (__m256d)value);
    }
#else
    for (int i = 0; i < kLanes<T>; i++) {
        if (i < count) to[i] = value[i];
    }
#endif
}

// to[i] = from[i]: vectors, the last one overlapping the one before it.
template <typename T>
PYCNN_INLINE void copy(T* to, const T* from, int64_t count) {
    if (count < kLanes<T>) {
        store_part(to, load_part(from, count), count);
        return;
    }
    for (int64_t i = 0; i + kLanes<T> <= count; i += kLanes<T>) store(to + i, load(from + i));
    store(to + count - kLanes<T>, load(from + count - kLanes<T>));
}

template <typename T>
PYCNN_INLINE void fill(T* to, T value, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) store(to + i, broadcast(value));
    store_part(to + i, broadcast(value), count - i);
}

namespace detail {

// Every second lane, from `FIRST` on, of two vectors one after the other.
template <typename T, int FIRST, int N = kLanes<T>, int... LANES>
struct Alternate : Alternate<T, FIRST, N - 1, FIRST + 2 * (N - 1), LANES...> {};
template <typename T, int FIRST, int... LANES>
struct Alternate<T, FIRST, 0, LANES...> {
    PYCNN_INLINE Vec<T> of(Vec<T> a, Vec<T> b) { return __builtin_shufflevector(a, b, LANES...); }
};

}  // namespace detail

// to[i] = from[i * step].  Nothing beyond from[(count - 1) * step] is read.
template <typename T>
PYCNN_INLINE void copy_strided(T* to, const T* from, int64_t step, int64_t count) {
    constexpr int kL = kLanes<T>;
    using Even = detail::Alternate<T, 0>;
    int64_t i = 0;
    if (step == 1) return copy(to, from, count);
    if (step == 2) {
        for (; i + kL < count; i += kL) store(to + i, Even::of(load(from + 2 * i), load(from + 2 * i + kL)));
    } else if (step == 4) {
        for (; i + kL < count; i += kL) {
            const T* at = from + 4 * i;
            const Vec<T> low = Even::of(load(at), load(at + kL));
            store(to + i, Even::of(low, Even::of(load(at + 2 * kL), load(at + 3 * kL))));
        }
    }
    if (kMasks && step == 2 && i < count) {
        const int64_t span = 2 * (count - i) - 1;
        const Vec<T> low = load_part(from + 2 * i, least(span, kL));
        const Vec<T> high = load_part(from + 2 * i + kL, most(span - kL, 0));
        store_part(to + i, Even::of(low, high), count - i);
        return;
    }
    for (; i < count; i++) to[i] = from[i * step];
}

namespace detail {

// Half of the lanes of two vectors in turn: the lower half of each, or the upper.
template <typename T, int FIRST, int N = kLanes<T>, int... LANES>
struct Zip : Zip<T, FIRST, N - 1, FIRST + (N - 1) / 2 + ((N - 1) % 2 ? kLanes<T> : 0), LANES...> {};
template <typename T, int FIRST, int... LANES>
struct Zip<T, FIRST, 0, LANES...> {
    PYCNN_INLINE Vec<T> of(Vec<T> a, Vec<T> b) { return __builtin_shufflevector(a, b, LANES...); }
};

// join(join(0 + 8, 4 + 12), ...): the upper half of the lanes onto the lower, until one is left.
template <typename T, typename Join>
PYCNN_INLINE T fold(Vec<T> value, const Join& join) {
    typedef T Quarter __attribute__((vector_size(16)));
    Quarter parts[PYCNN_VECTOR_BYTES / 16];
    __builtin_memcpy(parts, &value, sizeof value);
#pragma GCC unroll 2
    for (int half = PYCNN_VECTOR_BYTES / 32; half > 0; half /= 2) {
#pragma GCC unroll 2
        for (int i = 0; i < half; i++) parts[i] = join(parts[i], parts[i + half]);
    }
    if constexpr (sizeof(T) == 4) {
        parts[0] = join(parts[0], __builtin_shufflevector(parts[0], parts[0], 2, 3, 2, 3));
    }
    Quarter second = parts[0];
    second[0] = parts[0][1];
    return join(parts[0], second)[0];
}

}  // namespace detail

// The sum of the lanes, always in the same order.
template <typename T>
PYCNN_INLINE T sum_of(Vec<T> value) {
    return detail::fold<T>(value, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}

// The largest lane; a NaN may be passed over.
template <typename T>
PYCNN_INLINE T max_of(Vec<T> value) {
    return detail::fold<T>(value, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; });
}

// parallel_for over a lambda; `elements` as there.  The lambda may run out of memory; that is thrown here, after the
// loop.
template <typename Body>
static void parallel(int64_t count, int64_t elements, const Body& body) {
    struct Context {
        const Body& body;
        bool failed;
    } context = {body, false};
    parallel_for(
        count,
        [](void* raw, int64_t i) {
            Context& c = *static_cast<Context*>(raw);
            try {
                c.body(i);
            } catch (const std::bad_alloc&) {
                __atomic_store_n(&c.failed, true, __ATOMIC_RELAXED);
            }
        },
        &context, elements);
    if (context.failed) throw std::bad_alloc();
}

template <typename Body>
static void parallel(int64_t count, const Body& body) {
    parallel(count, kMuch, body);
}

template <typename V>
PYCNN_INLINE V rectified(V value) {
    return value < 0 ? V{} : value;  // keeps a NaN
}

template <typename T>
PYCNN_INLINE Vec<T> clamped(Vec<T> value, T low, T high) {
    value = value < low ? broadcast(low) : value;  // keeps a NaN, as max and min instructions do in this order
    return value > high ? broadcast(high) : value;
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
