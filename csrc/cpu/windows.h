// Windows of an image side by side, and their sum back into an image.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// Window i of `out` along one axis has its tap t at pixel i * stride - before + t * dilation, of `size`.
struct WindowAxis {
    int64_t size, taps, out, stride, before, dilation;
};

// x (N, C, H, W); y (N, C, R, S, P, Q), or (N, P, C, R, S, Q) where rows come first.
struct Windows {
    int64_t N, C;
    WindowAxis rows, columns;
    bool rows_first;
};

// y[n, c, r, s, p, q] = the pixel of x, 0 outside the image.
template <typename T>
void unfold2d(const Windows& windows, const T* x, T* y);

// dx[n, c, h, w] = the sum of y's elements that lie there, tap by tap; rows do not come first.
template <typename T>
void fold2d(const Windows& windows, const T* y, T* dx);

}  // namespace pycnn::cpu
