// Interpolation and sampling: the entries of the operator table.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// Neighbours of an output axis, begin to end, that are made of equally many elements.
struct TapRun {
    int64_t begin, end, count;
};

// What the elements of an output axis are made of:
//     y[i] = sum over t < count[i] of weight[t * out + i] * x[start[i] + t]
// An axis that stays as it is has no `start`, and out = size.
template <typename T>
struct TapTable {
    int64_t size, out;
    int64_t most;  // the largest count
    const int64_t *start, *count;
    const T* weight;  // most x out
    const TapRun* runs;
    int64_t run_count;
};

template <typename T>
struct Resample {
    int64_t planes;
    TapTable<T> rows, columns;
    const T* x;  // planes x rows.size x columns.size
    T* y;        // planes x rows.out x columns.out
};

// Points that are weighted sums of an image's elements, the same ones in each of its channels:
//     y[r, c, p] = sum over k of weight[r, k, p] * x[image[r], c, index[r, k, p]], where an index is not -1
struct Samples {
    int64_t rows, taps, points;  // of index and weight
    int64_t images, channels, image_size;
    const int64_t* image;  // rows
    const int64_t* index;
};

template <typename T>
struct SamplingOperators {
    void (*resample)(const Resample<T>& problem);
    void (*sample_fwd)(const Samples& s, const T* x, const T* weight, T* y);
    void (*sample_dx)(const Samples& s, const T* dy, const T* weight, T* dx);
    void (*sample_dw)(const Samples& s, const T* dy, const T* x, T* dw);
};

}  // namespace pycnn::cpu
