// The operators of the engine, as one instruction set offers them: plain pointers and plain sizes.
//
// Pointers are to dense C-ordered arrays that the caller has checked; nothing here validates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/activation.h"
#include "cpu/norm.h"
#include "cpu/pool.h"
#include "cpu/random.h"
#include "cpu/sampling.h"

namespace pycnn::cpu {

using std::int64_t;

// C[m, n] = A[m, k] * B[k, n] (+ bias[n]), row-major; A element (i, t) is at a[i * a_row + t * a_col], B likewise, so
// that transposed operands need no copy.
template <typename T>
struct Gemm {
    int64_t m, n, k;
    const T* a;
    int64_t a_row, a_col;
    const T* b;
    int64_t b_row, b_col;
    const T* bias;  // n values added to every row, or null
    T* c;
    int64_t c_row;                // elements from one row of C to the next
    bool accumulate = false;      // add to C instead of overwriting it
    const T* row_bias = nullptr;  // m values added to every column, or null
};

// A 2-D convolution in plain sizes: x (N, C, H, W), w (K, C / groups, R, S), y (N, K, P, Q), all dense.
struct ConvShape {
    int64_t N, C, H, W;
    int64_t K, R, S;
    int64_t P, Q;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left;  // bottom and right padding follow from P and Q
    int64_t dilation_h, dilation_w;
    int64_t groups;
};

// A 3x3 convolution with stride 1 by Winograd's F(tile x tile, 3x3): y (N, groups * K, P, Q) from x (N, groups * C, H,
// W). fprop as it stands; dgrad is the same with dy for x, the filters turned by 180 degrees and their axes exchanged.
template <typename T>
struct Winograd {
    int64_t tile;  // outputs along a side of a tile: 2, 4 or 6
    int64_t N, groups, C, H, W, K, P, Q;
    int64_t pad_top, pad_left;  // may be negative
    const T* x;
    const T* w;
    int64_t w_group, w_k, w_c;  // elements from one group, output channel and input channel of w to the next
    bool turned;
    const T* bias;  // groups * K values, or null
    T* y;
};

// The filter gradient of a convolution with stride 1 by F(taps x taps, tile x tile): dw (groups * K, C, taps, taps).
template <typename T>
struct WinogradWgrad {
    int64_t tile, taps;  // elements of dy along a side of a tile: 2, 4 or 6 for 3 taps, 2 or 4 for 5
    int64_t N, groups, C, H, W, K, P, Q;
    int64_t pad_top, pad_left;
    int64_t dilation_h, dilation_w;
    const T* x;
    const T* dy;
    T* dw;
};

// One algorithm for the three passes of a convolution.  `bias` (K values) may be null.  Results are written whole.
template <typename T>
struct ConvAlgorithm {
    void (*fprop)(const ConvShape& s, const T* x, const T* w, const T* bias, T* y);
    void (*dgrad)(const ConvShape& s, const T* dy, const T* w, T* dx);
    void (*wgrad)(const ConvShape& s, const T* dy, const T* x, T* dw);
};

template <typename T>
struct Operators {
    // Multiply-adds in registers for `rounds` rounds on every thread; returns the floating-point operations done.
    double (*fma_probe)(int64_t rounds);
    void (*gemm)(const Gemm<T>& problem);
    ActivationOperators<T> activation;
    NormOperators<T> norm;
    PoolOperators<T> pool;
    RandomOperators<T> random;
    SamplingOperators<T> sampling;
    // Both return the multiply-adds of their matrix products, counted as they run.  The workspaces are in bytes, the
    // most that a call holds at one time with `threads` threads.
    int64_t (*winograd)(const Winograd<T>& problem);
    int64_t (*winograd_wgrad)(const WinogradWgrad<T>& problem);
    int64_t (*winograd_workspace)(const Winograd<T>& problem, int64_t threads);
    int64_t (*winograd_wgrad_workspace)(const WinogradWgrad<T>& problem, int64_t threads);
    // sum[c] over n and the inner elements of dy (n, channels, inner).
    void (*channel_sum)(int64_t n, int64_t channels, int64_t inner, const T* dy, T* sum);
    ConvAlgorithm<T> direct;
    ConvAlgorithm<T> im2col_explicit;
    ConvAlgorithm<T> im2col_implicit;
};

}  // namespace pycnn::cpu
