// Moving whole elements, and scaling rows of them as they move.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pycnn::cpu {

using std::int64_t;

// One part of a concatenation: `bytes` of each outer row.
struct ConcatPart {
    const std::byte* from;
    int64_t bytes;
};

// y is `outer` rows, each the parts' rows one after another.
void concat(int64_t outer, const std::vector<ConcatPart>& parts, std::byte* y);

// y is x with its axes in another order: axis i of y is axis order[i] of x, which has `sizes`.
void permuted(std::vector<int64_t> sizes, std::vector<int64_t> order, const float* x, float* y);

// y[i][j] = x[i][j] * scale[i], rounded once.
void scaled_rows(int64_t rows, int64_t columns, const float* x, const double* scale, float* y);

// y (planes, top + H + bottom, left + W + right) is x (planes, H, W) with `value` around it.
template <typename T>
struct Pad2d {
    int64_t planes, H, W;
    int64_t top, bottom, left, right;
    T value;
    const T* x;
    T* y;
};

template <typename T>
void pad2d(const Pad2d<T>& problem);

}  // namespace pycnn::cpu
