// Moving elements by index within a plane: the backward pass of max pooling, and that pass's own.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// `planes` planes of `image` elements, `count` indices for each; -1 stands for no element.
struct PlaneIndex {
    int64_t planes, image, count;
    const int64_t* indices;
};

// Each plane of dx is zero but for dy[i] added at indices[i], i ascending: one task owns a plane, so the sums are the
// same in every run.  False, with dx unfinished, if an index lies outside the plane.
template <typename T>
bool plane_add(const PlaneIndex& index, const T* dy, T* dx);

// y[i] = x[indices[i]] plane by plane, 0 for -1.  False, with y unfinished, if an index lies outside the plane.
template <typename T>
bool plane_take(const PlaneIndex& index, const T* x, T* y);

}  // namespace pycnn::cpu
