// Convolution of NCHW arrays by way of the packed layout.
//
// The kernels read and write planes as they lie, so all that is packed are the filters; but where dgrad's stride or
// Winograd's dilation takes the pixels of a row apart, an image or a few are packed and unpacked around them while they
// are in cache.
// float32 and one group only; the layout and its kernels are described in packed.h.
#pragma once

#include <vector>

#include "cpu/operators.h"
#include "cpu/packed.h"

namespace pycnn::cpu {

// Where the taps of a filter lie along one axis, seen from the first pixel of their window's stride.
std::vector<int64_t> tap_offsets(int64_t taps, int64_t padding, int64_t dilation);

// Winograd's algorithm with dilation (of rows, of columns): the pixels with one residue of it are an image of their own.
void winograd_packed(const PackedOperators& run, const PackedWinograd& problem, const int64_t* dilation);

void conv_fprop_packed(const ConvShape& s, const float* x, const float* w, const float* bias, float* y);
void conv_dgrad_packed(const ConvShape& s, const float* dy, const float* w, float* dx);

// The same by F(tile x tile, R x R); stride 1, R = S.
void winograd_fprop_packed(const ConvShape& s, int64_t tile, const float* x, const float* w, const float* bias,
                           float* y);
void winograd_dgrad_packed(const ConvShape& s, int64_t tile, const float* dy, const float* w, float* dx);

}  // namespace pycnn::cpu
