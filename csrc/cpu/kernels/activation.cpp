// Elementwise functions: one pass over memory, cut into chunks that do not depend on the number of threads.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vecmath.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T, typename Function>
static void map(int64_t count, const T* x, T* y, const Function& function) {
    parallel(ceil_div(count, kChunk), 2 * count, [&](int64_t task) {
        const int64_t start = task * kChunk;
        for_vectors<T>(least(kChunk, count - start), [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            store_part(y + start + i, function(load_part(x + start + i, lanes)), lanes);
        });
    });
}

template <typename T, typename Function>
static void map(int64_t count, const T* a, const T* b, T* y, const Function& function) {
    parallel(ceil_div(count, kChunk), 2 * count, [&](int64_t task) {
        const int64_t start = task * kChunk;
        for_vectors<T>(least(kChunk, count - start), [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            const Vec<T> y_i = function(load_part(a + start + i, lanes), load_part(b + start + i, lanes));
            store_part(y + start + i, y_i, lanes);
        });
    });
}

template <typename T>
void unary(Unary function, int64_t count, const T* x, T* y) {
    switch (function) {
        case Unary::kRelu:
            return map(count, x, y, [](Vec<T> v) { return v < T(0) ? Vec<T>{} : v; });  // NaN stays
        case Unary::kTanh:
            return map(count, x, y, [](Vec<T> v) { return vtanh<T>(v); });
        case Unary::kSigmoid:
            return map(count, x, y, [](Vec<T> v) { return vsigmoid<T>(v); });
        case Unary::kExp:
            return map(count, x, y, [](Vec<T> v) { return vexp<T>(v); });
        case Unary::kLog:
            return map(count, x, y, [](Vec<T> v) { return vlog<T>(v); });
    }
}

template <typename T>
void binary(Binary function, int64_t count, const T* a, const T* b, T* y) {
    switch (function) {
        case Binary::kAdd:
            return map(count, a, b, y, [](Vec<T> u, Vec<T> v) { return u + v; });
        case Binary::kReluBackward:  // where y is NaN the gradient passes
            return map(count, a, b, y, [](Vec<T> dy, Vec<T> v) { return v <= T(0) ? Vec<T>{} : dy; });
        case Binary::kTanhBackward:
            return map(count, a, b, y, [](Vec<T> dy, Vec<T> v) { return dy * (T(1) - v * v); });
        case Binary::kSigmoidBackward:
            return map(count, a, b, y, [](Vec<T> dy, Vec<T> v) { return dy * ((T(1) - v) * v); });
    }
}

template void unary(Unary, int64_t, const float*, float*);
template void unary(Unary, int64_t, const double*, double*);
template void binary(Binary, int64_t, const float*, const float*, float*);
template void binary(Binary, int64_t, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
