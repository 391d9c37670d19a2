// What happens to a finished sum of a convolution or a matrix product before it is stored:
//
//     y = relu(scale[channel] * sum + b[channel] + residual[index])
//
// Each step is left out where its pointer is null, ReLU where `relu` is 0.  A kernel that has an epilogue takes these
// four, in this order, as its arguments before the output; the branches are the same for every thread of a launch.
// Batch norm in inference is folded into scale and b:  scale = weight / sqrt(var + eps),  b = bias - mean * scale.
#pragma once

#include "arch/half.cuh"
#include "common.cuh"

namespace pycnn {

// Element is what the output is stored in.
template <typename Element>
struct EpilogueOf {
    const float* scale;       // (K,)
    const float* b;           // (K,)
    const Element* residual;  // of the output's shape
    int relu;

    // The output at `index` of channel `channel`.
    __device__ __forceinline__ float operator()(float sum, int64 channel, int64 index) const {
        if (scale != nullptr) sum *= scale[channel];
        if (b != nullptr) sum += b[channel];
        if (residual != nullptr) sum += to_float(residual[index]);
        return relu != 0 && sum < 0.0f ? 0.0f : sum;
    }
};
using Epilogue = EpilogueOf<float>;

// The same for a thread whose results are all of one channel: what depends on the channel alone is read once, and a
// step that is left out multiplies by 1 or adds 0.
struct ChannelEpilogue {
    float scale, b;
    const float* residual;
    int relu;

    __device__ __forceinline__ ChannelEpilogue(const Epilogue& epilogue, int64 channel)
        : scale(epilogue.scale == nullptr ? 1.0f : epilogue.scale[channel]),
          b(epilogue.b == nullptr ? 0.0f : epilogue.b[channel]),
          residual(epilogue.residual),
          relu(epilogue.relu) {}

    __device__ __forceinline__ float operator()(float sum, int64 index) const {
        sum = fmaf(sum, scale, b);
        if (residual != nullptr) sum += residual[index];
        return relu != 0 && sum < 0.0f ? 0.0f : sum;
    }
};

}  // namespace pycnn
