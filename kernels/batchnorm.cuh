// What batch normalisation does to one element, with the coefficients of its channel: shared by the kernels for planes
// (batchnorm.cu) and for arrays that lie channels-last (channels_last.cu), so that both give the same bits.
#pragma once

#include "channels.cuh"

namespace pycnn {

// Coefficients of a channel: y = ((x - mean) - low) * scale + shift.
struct ChannelCoefficients {
    const float* mean;
    const float* low;
    const float* var;
    const float* scale;
    const float* shift;
    float eps;
};

struct ChannelLine {
    float mean, low, scale, shift;

    ChannelLine() = default;
    __device__ __forceinline__ ChannelLine(const ChannelCoefficients& given, int64 channel) {
        mean = given.mean == nullptr ? 0.0f : given.mean[channel];
        low = given.low == nullptr ? 0.0f : given.low[channel];
        scale = given.scale == nullptr ? 1.0f : given.scale[channel];
        if (given.var != nullptr) scale *= rsqrtf(given.var[channel] + given.eps);
        shift = given.shift == nullptr ? 0.0f : given.shift[channel];
    }

    __device__ __forceinline__ float at(float x) const { return fmaf((x - mean) - low, scale, shift); }
};

// The gradients of a channel's coefficients, and what they come to for dx.
struct ChannelSlopes {
    const float* weight;
    const float* mean;
    const float* var;
    const float* dweight;
    const float* dbias;
    float eps, per_element;
};

// dx = ((dy - level) - (x - mean) * tilt) * scale, with what the channel's sums come to.
struct ChannelTangent {
    float mean, level, tilt, scale;

    ChannelTangent() = default;
    __device__ __forceinline__ ChannelTangent(const ChannelSlopes& given, int64 channel) {
        const float inverse = rsqrtf(given.var[channel] + given.eps);
        const float factor = given.weight == nullptr ? 1.0f : given.weight[channel];
        mean = given.mean[channel];
        level = given.dbias[channel] * given.per_element;
        tilt = given.dweight[channel] * inverse * given.per_element;
        scale = factor * inverse;
    }

    __device__ __forceinline__ float at(float dy, float x) const { return fmaf(-(x - mean), tilt, dy - level) * scale; }
};

}  // namespace pycnn
