// Vectors of the instruction set being compiled, and a parallel loop over lambdas.  Included only by the units of
// csrc/cpu/kernels, which are compiled once for each instruction set: everything here lands in its namespace.  GCC and
// Clang vector extensions, so the arithmetic is written once: a vector is used like a number.
#pragma once

#include <cstddef>
#include <cstdint>

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

// parallel_for over a lambda.
template <typename Body>
static void parallel(int64_t count, const Body& body) {
    parallel_for(
        count, [](void* context, int64_t i) { (*static_cast<const Body*>(context))(i); },
        const_cast<void*>(static_cast<const void*>(&body)));
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

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
