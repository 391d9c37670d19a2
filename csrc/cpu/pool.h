// Pooling: the entries of the operator table.  A plane is the H x W image of one channel of one sample.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// The pixels of one axis that an output position sees: begin, begin + step, ... below end; none if begin >= end.
struct Span {
    int64_t begin, end;
};

// One axis of a pooling problem: `out` windows over `size` pixels.
struct PoolAxis {
    int64_t size, out;
    const Span* windows;  // clipped to the image, `out` of them
    int64_t step;         // from one pixel of a window to the next: the dilation
    // Where every window has the same form, as in all but adaptive pooling: window i is `taps` pixels `step` apart from
    // i * stride - pad on, some of them outside the image.  taps is 0 for windows of different sizes.
    int64_t taps, stride, pad;
};

template <typename T>
struct MaxPool {
    int64_t planes;
    PoolAxis rows, columns;
    const T* x;
    T* y;
    int64_t* indices;  // row * columns.size + column of the maximum, -1 where a window holds no pixel; or null
};

template <typename T>
struct AvgPool {
    int64_t planes;
    PoolAxis rows, columns;
    const double *row_counts, *column_counts;  // an output is its sum / (row_counts[p] * column_counts[q])
    const T* in;                               // x of the forward pass, dy of the backward
    T* out;                                    // y, dx
};

template <typename T>
struct PoolOperators {
    void (*max_pool_fwd)(const MaxPool<T>& problem);
    void (*avg_pool_fwd)(const AvgPool<T>& problem);
    void (*avg_pool_bwd)(const AvgPool<T>& problem);
};

}  // namespace pycnn::cpu
