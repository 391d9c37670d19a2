// im2col and col2im: an image's patches laid out as columns, and columns added up to an image again; float32.
//
//     columns[n, (c*R + r)*S + s, p*Q + q] = x[n, c, p*stride_h - pad_top + r*dilation_h,
//                                                    q*stride_w - pad_left + s*dilation_w]        0 in the padding
//     dx[n, c, h, w] = sum of columns[n, (c*R + r)*S + s, p*Q + q] over the (r, s, p, q) that read x[n, c, h, w] there
//
// Between them a convolution is a matrix product: y = w columns, dw = dy columns^T, dcolumns = w^T dy.
//
// Who owns what: in im2col a thread owns output pixel (p, q) of channel c and writes its R*S taps, one below another,
// each beside its neighbours'; in col2im a thread owns pixel (h, w) of channel c and gathers, adding nothing to anyone
// else's sum.
//
//       x, channel c                       columns of channel c
//      +-------------+                     q = 0 1 2 3 ...
//      |  . . .      |      tap (0, 0)     | . . . . . . |
//      |  . o .      |  ->  tap (0, 1)     | . o . . . . |   im2col: a thread writes down a column of this
//      |  . . .      |         ...         | . . . . . . |   col2im: a thread reads a diagonal of it
//      +-------------+
//
// Launch      one thread for each (n, c, p, q), or (n, c, h, w); past 2^31 - 1 blocks the grid goes on along y.
// Shared      none.
// Determinism im2col copies; col2im adds in the order r, s.
// Cost        N*C*R*S*P*Q copies or additions.
// Limit       bandwidth: the columns are R*S times as large as the image (at stride 1), and written or read once.
// Reference   Chellapilla, Puri & Simard, "High performance convolutional neural networks for document processing",
//             2006.
#include "common.cuh"

namespace pycnn {

struct ColumnTile {
    int wide;   // 1: 64-bit coordinates; 0: 32-bit ones
    int warps;  // of a block

    constexpr int threads() const { return warps * 32; }
};

// How a thread's number and a distance fall apart.
struct ColumnGrid {
    Divisor columns, rows;       // of a thread's number: (plane*rows + i)*columns + j
    Divisor stride_w, stride_h;  // of a distance from the first tap (col2im)
};

template <ColumnTile T>
__global__ void __launch_bounds__(T.threads())
    im2col(const Conv2dShape shape, const ColumnGrid grid, const float* __restrict__ x, float* __restrict__ columns) {
    using Index = typename IndexOf<T.wide>::type;
    Index plane = (static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x) * T.threads() + threadIdx.x;
    const Index q = take_digit(plane, grid.columns), p = take_digit(plane, grid.rows);
    if (plane >= shape.N * shape.C) return;

    const Index H = static_cast<Index>(shape.H), W = static_cast<Index>(shape.W);
    const Index dilation_h = static_cast<Index>(shape.dilation_h), dilation_w = static_cast<Index>(shape.dilation_w);
    const Index w0 = q * static_cast<Index>(shape.stride_w) - static_cast<Index>(shape.pad_left);
    Index h = p * static_cast<Index>(shape.stride_h) - static_cast<Index>(shape.pad_top);
    const int64 pixels = shape.P * shape.Q;
    const float* image = x + plane * shape.H * shape.W;
    float* to = columns + plane * shape.R * shape.S * pixels + p * shape.Q + q;
    for (Index r = 0; r < shape.R; ++r, h += dilation_h) {
        Index w = w0;
        for (Index s = 0; s < shape.S; ++s, w += dilation_w) {
            *to = inside(h, H) && inside(w, W) ? image[static_cast<int64>(h) * W + w] : 0.0f;
            to += pixels;
        }
    }
}

template <ColumnTile T>
__global__ void __launch_bounds__(T.threads())
    col2im(const Conv2dShape shape, const ColumnGrid grid, const float* __restrict__ columns, float* __restrict__ dx) {
    using Index = typename IndexOf<T.wide>::type;
    Index plane = (static_cast<Index>(blockIdx.y) * gridDim.x + blockIdx.x) * T.threads() + threadIdx.x;
    const Index w = take_digit(plane, grid.columns), h = take_digit(plane, grid.rows);
    if (plane >= shape.N * shape.C) return;

    const Index P = static_cast<Index>(shape.P), Q = static_cast<Index>(shape.Q);
    const Index dilation_h = static_cast<Index>(shape.dilation_h), dilation_w = static_cast<Index>(shape.dilation_w);
    const int64 pixels = shape.P * shape.Q;
    const float* from = columns + plane * shape.R * shape.S * pixels;
    float sum = 0.0f;
    Index down = h + static_cast<Index>(shape.pad_top);  // p * stride_h
    for (Index r = 0; r < shape.R && down >= 0; ++r, down -= dilation_h) {
        const Index p = quotient(down, grid.stride_h);
        if (p >= P || p * static_cast<Index>(shape.stride_h) != down) continue;
        Index across = w + static_cast<Index>(shape.pad_left);  // q * stride_w
        for (Index s = 0; s < shape.S && across >= 0; ++s, across -= dilation_w) {
            const Index q = quotient(across, grid.stride_w);
            if (q < Q && q * static_cast<Index>(shape.stride_w) == across)
                sum += from[(r * shape.S + s) * pixels + p * shape.Q + q];
        }
    }
    dx[plane * shape.H * shape.W + h * shape.W + w] = sum;
}

}  // namespace pycnn
