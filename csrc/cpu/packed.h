// The packed layout: channels in blocks of one vector, as a compiled network keeps them between its layers.
//
//   element (n, c, h, w) at  data[n * image + (c / lanes) * block + h * row + w * pixel + c % lanes * lane]
//
// Packed tensors have pixel = lanes and lane = 1.  The channels beyond the last one fill its vector up and hold zeros,
// or NaN behind something infinite: every operator here may read them, and no result depends on them.  What lies
// between the rows, blocks and images of one tensor may belong to nobody, or to the other parts of a concatenation.
//
// Convolutions also read and write arrays as they lie: NCHW with pixel = 1 and lane = the size of a plane, and
// channels-last with pixel = the number of channels and lane = 1.  Such arrays end with their last channel.
//
// Filters of a convolution: w[k / lanes][c / lanes][r][s][c % lanes][k % lanes], zeros where there is no such filter or
// channel; where one block has room for all channels, it is only as deep as they are many.  A step of the reduction is
// one vector of filters, and the steps of one output vector lie in order.
#pragma once

#include <cstdint>

#include "cpu/pool.h"

namespace pycnn::cpu {

using std::int64_t;

// The end of an operator: min(max(y, low), high), element by element, where a NaN stays.  ReLU is [0, inf]; the default
// changes nothing.
struct Clamp {
    float low = -__builtin_inff();
    float high = __builtin_inff();
};

struct PackedView {
    float* data;
    int64_t channels, height, width;
    int64_t image, block, row, pixel, lane;
};

// The taps of a filter along one axis: output i of it sums inputs stride * i + offset[t], those that are inside.  The
// offsets rise or fall.
struct TapAxis {
    const int64_t* offset;
    int64_t count, stride;
};

// y = clamp(sum over taps of x there times w + bias + residual), without the parts that are null: a convolution, or one of
// the sums into which the gradient of a strided one falls apart.
struct PackedConv {
    int64_t images;
    PackedView x;  // packed or an array
    TapAxis rows, columns;
    const float* filters;
    const float* bias;           // whole vectors of it, or null
    const PackedView* residual;  // packed, or null
    Clamp clamp;
    PackedView y;  // packed, of every pixel or every second or third; or an array
};

// A convolution with stride 1 by Winograd's F(tile x tile, taps x taps): 2, 4 or 6 outputs of 3 taps, 2 or 4 of 5.
struct PackedWinograd {
    int64_t tile, taps;
    int64_t images;
    // Each packed, of every pixel or every second or third; or an array, channels-last only in whole vectors.
    PackedView x, y;
    const PackedView* residual;  // packed, or null
    const float* filters;        // as above, or
    const float* transformed;    // [k / lanes][point][c][k % lanes], whole vectors of c
    const float* bias;           // whole vectors of it, or null
    int64_t pad_top, pad_left;   // may be negative
    Clamp clamp;
};

// y (rows, outputs) = x (rows, inputs) times w[output / lanes][input][output % lanes] + bias.
struct PackedLinear {
    int64_t rows, inputs, outputs;
    const float* x;
    const float* filters;
    const float* bias;
    float* y;
    Clamp clamp;
};

// One filter for every channel: w[c / lanes][r][s][c % lanes].
struct PackedDepthwise {
    int64_t images;
    PackedView x, y;  // both packed, or channels-last in whole vectors
    const float* filters;
    const float* bias;
    int64_t R, S;
    int64_t stride_h, stride_w;
    int64_t pad_top, pad_left;
    int64_t dilation_h, dilation_w;
    Clamp clamp;
};

struct PackedPool {
    int64_t images;
    PackedView x, y;
    const Span *rows, *columns;  // the windows of y's rows and columns, clipped to the image
    int64_t row_step, column_step;
    const double *row_counts, *column_counts;  // an average is its sum / (row_counts[p] * column_counts[q])
};

struct PackedOperators {
    // Between arrays and the packed layout.
    void (*pack)(int64_t images, const PackedView& from, const PackedView& to);
    void (*unpack)(int64_t images, const PackedView& from, const PackedView& to);
    // Zeros everywhere.
    void (*clear)(int64_t images, const PackedView& x);
    // to[i / lanes][j][i % lanes] = from[i][j], zeros beyond the last row.
    void (*rows)(int64_t rows, int64_t columns, const float* from, float* to);
    // Filters (K, C, taps) into the order described above.
    void (*filters)(int64_t K, int64_t C, int64_t taps, const float* from, float* to);
    // The same filters with K and C exchanged, for the gradient: tap t goes to place[t] + [c / lanes] * output[t] +
    // [k / lanes] * input[t] + [k % lanes][c % lanes].
    void (*turned_filters)(int64_t K, int64_t C, int64_t taps, const float* from, const int64_t* place,
                           const int64_t* output, const int64_t* input, float* to);
    void (*conv)(const PackedConv& problem);
    void (*winograd)(const PackedWinograd& problem);
    void (*winograd_filters)(int64_t tile, int64_t taps, int64_t K, int64_t C, const float* filters,
                             float* transformed);
    void (*linear)(const PackedLinear& problem);
    void (*depthwise)(const PackedDepthwise& problem);
    void (*max_pool)(const PackedPool& problem);
    void (*avg_pool)(const PackedPool& problem);
    // y (images, channels) = the mean of every plane.
    void (*mean)(int64_t images, const PackedView& x, float* y);
    // y = clamp(a + b); y = clamp(a * b); y = clamp(x * scale + shift), whole vectors of scale and shift.  y may be a or b.
    void (*add)(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp);
    void (*mul)(int64_t images, const PackedView& a, const PackedView& b, const PackedView& y, const Clamp& clamp);
    void (*affine)(int64_t images, const PackedView& x, const float* scale, const float* shift, const PackedView& y,
                   const Clamp& clamp);
    // y = clamp(x * scale) with a scale of one pixel for each image and channel.  y may be x.
    void (*scale)(int64_t images, const PackedView& x, const PackedView& scale, const PackedView& y,
                  const Clamp& clamp);
};

}  // namespace pycnn::cpu
