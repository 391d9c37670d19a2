// Convolution of NCHW arrays by way of the packed layout.
//
// An image or a few are packed, convolved and unpacked while they are in cache.  It costs one pass over x and one over
// y more than reading them where they lie, and wins where those reads are broken up: strides, dilations, small planes.
// float32 and one group only; the layout and its kernels are described in packed.h.
#pragma once

#include "cpu/operators.h"
#include "cpu/packed.h"

namespace pycnn::cpu {

// Winograd's algorithm with dilation (of rows, of columns): the pixels with one residue of it are an image of their own.
void winograd_packed(const PackedOperators& run, const PackedWinograd& problem, const int64_t* dilation);

void conv_fprop_packed(const ConvShape& s, const float* x, const float* w, const float* bias, float* y);
void conv_dgrad_packed(const ConvShape& s, const float* dy, const float* w, float* dx);

// The same by F(tile x tile, R x R); stride 1, R = S.
void winograd_fprop_packed(const ConvShape& s, int64_t tile, const float* x, const float* w, const float* bias,
                           float* y);
void winograd_dgrad_packed(const ConvShape& s, int64_t tile, const float* dy, const float* w, float* dx);

}  // namespace pycnn::cpu
