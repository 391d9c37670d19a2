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

// The distribution function of the normal distribution at v, from bell = e^(-v^2/2).
template <typename T>
PYCNN_INLINE Vec<T> normal_cdf(Vec<T> v, Vec<T> bell) {
    const Vec<T> tail = vupper_tail<T>(magnitude<T>(v), bell);
    return v < T(0) ? tail : T(1) - tail;
}

// log(1 + e^v), without overflow.
template <typename T>
PYCNN_INLINE Vec<T> softplus_of(Vec<T> v) {
    return (v < T(0) ? Vec<T>{} : v) + vlog1p<T>(vexp<T>(-magnitude<T>(v)));
}

// tanh(log(1 + e^v)) = w / (w + 2) with n = e^v and w = n (n + 2); past kMishIsOne it is 1 to the last bit.
template <typename T>
struct Mish {
    static constexpr T kMishIsOne = sizeof(T) == 4 ? T(20) : T(40);
    Vec<T> v, n, w;  // v: limited

    PYCNN_INLINE Mish of(Vec<T> v) {
        v = v > kMishIsOne ? broadcast(kMishIsOne) : v;
        const Vec<T> n = vexp<T>(v);
        return {v, n, n * (n + T(2))};
    }
};

// The argument of gelu's approximation by tanh, doubled: 0.5 (1 + tanh(u)) is sigmoid(2u).
constexpr double kGeluScale = 1.5957691216057307117;  // 2 sqrt(2 / pi)
constexpr double kGeluCube = 0.044715;

template <typename T>
void activation_fwd(const ActivationFunction& function, int64_t count, const T* x, T* y) {
    const T a = static_cast<T>(function.a), b = static_cast<T>(function.b), c = static_cast<T>(function.c);
    switch (function.name) {
        case Activation::kElu:
            return map(count, x, y, [=](Vec<T> v) { return v <= T(0) ? a * vexpm1<T>(v * c) : b * v; });
        case Activation::kErf:
            return map(count, x, y, [](Vec<T> v) { return verf<T>(v); });
        case Activation::kGelu:
            return map(count, x, y, [](Vec<T> v) { return v * normal_cdf<T>(v, vbell<T>(v, T(0.5))); });
        case Activation::kGeluTanh:
            return map(count, x, y,
                       [](Vec<T> v) { return v * vsigmoid<T>(T(kGeluScale) * (v + T(kGeluCube) * (v * v * v))); });
        case Activation::kHardshrink:
            return map(count, x, y, [=](Vec<T> v) { return magnitude<T>(v) <= a ? Vec<T>{} : v; });
        case Activation::kHardsigmoid:
            return map(count, x, y, [](Vec<T> v) { return clamped<T>(v + T(3), 0, 6) / T(6); });
        case Activation::kHardswish:
            return map(count, x, y, [](Vec<T> v) { return v * clamped<T>(v + T(3), 0, 6) / T(6); });
        case Activation::kHardtanh:
            return map(count, x, y, [=](Vec<T> v) { return clamped<T>(v, a, b); });
        case Activation::kHuber:
            return map(count, x, y, [=](Vec<T> v) {
                const Vec<T> size = magnitude<T>(v);
                return b * (size <= a ? T(0.5) * v * v : a * (size - T(0.5) * a));
            });
        case Activation::kLeakyRelu:
            return map(count, x, y, [=](Vec<T> v) { return v > T(0) ? v : v * a; });
        case Activation::kLogsigmoid:
            return map(count, x, y, [](Vec<T> v) { return -softplus_of<T>(-v); });
        case Activation::kMish:
            return map(count, x, y, [](Vec<T> v) {
                const Vec<T> w = Mish<T>::of(v).w;
                return v * (w / (w + T(2)));
            });
        case Activation::kSilu:
            return map(count, x, y, [](Vec<T> v) { return v * vsigmoid<T>(v); });
        case Activation::kSoftplus:
            return map(count, x, y, [=](Vec<T> v) { return v * a > b ? v : softplus_of<T>(v * a) / a; });
        case Activation::kSoftshrink:
            return map(count, x, y, [=](Vec<T> v) { return v - clamped<T>(v, -a, a); });
        case Activation::kSoftsign:
            return map(count, x, y, [](Vec<T> v) { return v / (magnitude<T>(v) + T(1)); });
        case Activation::kTanhshrink:
            return map(count, x, y, [](Vec<T> v) { return v - vtanh<T>(v); });
        case Activation::kThreshold:
            return map(count, x, y, [=](Vec<T> v) { return v <= a ? broadcast(b) : v; });
    }
}

template <typename T>
void activation_bwd(const ActivationFunction& function, int64_t count, const T* dy, const T* x, T* dx) {
    const T a = static_cast<T>(function.a), b = static_cast<T>(function.b), c = static_cast<T>(function.c);
    switch (function.name) {
        case Activation::kElu:
            return map(count, dy, x, dx,
                       [=](Vec<T> g, Vec<T> v) { return g * (v <= T(0) ? a * c * vexp<T>(v * c) : broadcast(b)); });
        case Activation::kErf:
            return map(count, dy, x, dx,
                       [](Vec<T> g, Vec<T> v) { return g * (T(1.12837916709551257390) * vbell<T>(v, T(1))); });
        case Activation::kGelu:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) {
                const Vec<T> bell = vbell<T>(v, T(0.5));
                return g * (normal_cdf<T>(v, bell) + v * bell * T(0.39894228040143267794));
            });
        case Activation::kGeluTanh:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) {
                const Vec<T> square = v * v;
                const Vec<T> u = T(kGeluScale) * (v + T(kGeluCube) * (square * v));
                const Vec<T> rise = T(kGeluScale) * (T(3 * kGeluCube) * square + T(1));
                const Vec<T> s = vsigmoid<T>(u);
                return g * (s + v * (s * vsigmoid<T>(-u)) * rise);
            });
        case Activation::kHardshrink:
        case Activation::kSoftshrink:
            return map(count, dy, x, dx, [=](Vec<T> g, Vec<T> v) { return magnitude<T>(v) <= a ? Vec<T>{} : g; });
        case Activation::kHardsigmoid:
            return map(count, dy, x, dx,
                       [](Vec<T> g, Vec<T> v) { return magnitude<T>(v) < T(3) ? g / T(6) : Vec<T>{}; });
        case Activation::kHardswish:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) {
                const Vec<T> rising = g * (v / T(3) + T(0.5));
                return v <= T(-3) ? Vec<T>{} : v < T(3) ? rising : g;
            });
        case Activation::kHardtanh:
            return map(count, dy, x, dx, [=](Vec<T> g, Vec<T> v) {
                const Vec<T> above = v <= a ? Vec<T>{} : g;
                return v >= b ? Vec<T>{} : above;
            });
        case Activation::kHuber:
            return map(count, dy, x, dx, [=](Vec<T> g, Vec<T> v) { return g * (b * clamped<T>(v, -a, a)); });
        case Activation::kLeakyRelu:
            return map(count, dy, x, dx, [=](Vec<T> g, Vec<T> v) { return v > T(0) ? g : g * a; });
        case Activation::kLogsigmoid:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) { return g * vsigmoid<T>(-v); });
        case Activation::kMish:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) {
                const Mish<T> m = Mish<T>::of(v);
                const Vec<T> below = m.w + T(2);
                return g * (m.w / below + m.v * (T(4) * m.n * (m.n + T(1)) / (below * below)));
            });
        case Activation::kSilu:
            return map(count, dy, x, dx,
                       [](Vec<T> g, Vec<T> v) { return g * (vsigmoid<T>(v) * (v * vsigmoid<T>(-v) + T(1))); });
        case Activation::kSoftplus:
            return map(count, dy, x, dx, [=](Vec<T> g, Vec<T> v) { return v * a > b ? g : g * vsigmoid<T>(v * a); });
        case Activation::kSoftsign:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) {
                const Vec<T> below = magnitude<T>(v) + T(1);
                return g / (below * below);
            });
        case Activation::kTanhshrink:
            return map(count, dy, x, dx, [](Vec<T> g, Vec<T> v) {
                const Vec<T> t = vtanh<T>(v);
                return g * (t * t);
            });
        case Activation::kThreshold:
            return map(count, dy, x, dx, [=](Vec<T> g, Vec<T> v) { return v <= a ? Vec<T>{} : g; });
    }
}

template void unary(Unary, int64_t, const float*, float*);
template void unary(Unary, int64_t, const double*, double*);
template void binary(Binary, int64_t, const float*, const float*, float*);
template void binary(Binary, int64_t, const double*, const double*, double*);
template void activation_fwd(const ActivationFunction&, int64_t, const float*, float*);
template void activation_fwd(const ActivationFunction&, int64_t, const double*, double*);
template void activation_bwd(const ActivationFunction&, int64_t, const float*, const float*, float*);
template void activation_bwd(const ActivationFunction&, int64_t, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
