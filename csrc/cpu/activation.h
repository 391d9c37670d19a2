// Elementwise functions and softmax: the entries of the operator table.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

enum class Unary { kRelu, kTanh, kSigmoid, kExp, kLog };

// kReluBackward, kTanhBackward and kSigmoidBackward take (dy, y).
enum class Binary { kAdd, kReluBackward, kTanhBackward, kSigmoidBackward };

// The family of functions of one number with up to three settings a, b, c; activation.cpp says what each does.
enum class Activation {
    kElu,
    kErf,
    kGelu,
    kGeluTanh,
    kHardshrink,
    kHardsigmoid,
    kHardswish,
    kHardtanh,
    kHuber,
    kLeakyRelu,
    kLogsigmoid,
    kMish,
    kSilu,
    kSoftplus,
    kSoftshrink,
    kSoftsign,
    kTanhshrink,
    kThreshold,
};

struct ActivationFunction {
    Activation name;
    double a, b, c;
};

// Softmax over the middle axis of (outer, count, inner).
struct SoftmaxShape {
    int64_t outer, count, inner;
    bool log;
};

template <typename T>
struct ActivationOperators {
    void (*unary)(Unary function, int64_t count, const T* x, T* y);
    // y may be a or b.
    void (*binary)(Binary function, int64_t count, const T* a, const T* b, T* y);
    void (*activation_fwd)(const ActivationFunction& function, int64_t count, const T* x, T* y);
    void (*activation_bwd)(const ActivationFunction& function, int64_t count, const T* dy, const T* x, T* dx);
    void (*softmax_fwd)(const SoftmaxShape& shape, const T* x, T* y);
    void (*softmax_bwd)(const SoftmaxShape& shape, const T* dy, const T* y, T* dx);
};

}  // namespace pycnn::cpu
