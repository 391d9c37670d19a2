// Normalisation: the entries of the operator table.  Arrays are (N, C, L), L being all trailing axes together.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

struct ChannelShape {
    int64_t N, C, L;
};

template <typename T>
struct BatchNormFwd {
    ChannelShape shape;
    double eps;
    const T *x, *weight, *bias;  // weight, bias: C values or null
    const T* residual;           // added to the result, or null
    bool relu;                   // at the end
    T *y, *mean, *var;
};

template <typename T>
struct BatchNormBwd {
    ChannelShape shape;
    double eps;
    const T *dy, *x, *weight, *mean, *var;  // weight may be null
    const T* y;                             // of a forward pass with a ReLU, whose gradient is taken first; or null
    T *dx, *dweight, *dbias;
};

// Groups of K channels of L elements: x is (N, G, K, L).  Weights are one a channel, G * K of them.
struct GroupShape {
    int64_t N, G, K, L;
};

template <typename T>
struct GroupNormFwd {
    GroupShape shape;
    double eps;
    bool centred;                // else the mean counts as 0, and the variance is the mean of the squares
    const T *x, *weight, *bias;  // weight, bias: one a channel, or null
    T *y, *mean, *var;           // mean, var: one a group of each sample
};

template <typename T>
struct GroupNormBwd {
    GroupShape shape;
    double eps;
    bool centred;
    const T *dy, *x, *weight, *mean, *var;  // weight may be null
    T *dx, *dweight, *dbias;                // dweight and dbias: one a channel, or both null
};

// y[c] = x[c] / (k + alpha / size * sum of x^2 over channels c - size/2 .. c + (size - 1)/2) ^ beta
struct LrnShape {
    ChannelShape shape;
    int64_t size;
    double alpha, beta, k;
};

template <typename T>
struct NormOperators {
    void (*batch_norm_fwd)(const BatchNormFwd<T>& problem);
    void (*batch_norm_bwd)(const BatchNormBwd<T>& problem);
    void (*group_norm_fwd)(const GroupNormFwd<T>& problem);
    void (*group_norm_bwd)(const GroupNormBwd<T>& problem);
    // y = x * scale[c] + shift[c]; a scale of null is 1.
    void (*channel_affine)(const ChannelShape& shape, const T* x, const T* scale, const T* shift, T* y);
    void (*lrn_fwd)(const LrnShape& shape, const T* x, T* y);
    void (*lrn_bwd)(const LrnShape& shape, const T* dy, const T* x, T* dx);
};

}  // namespace pycnn::cpu
