"""A direct convolution of your own in CUDA C++: all three passes, any problem, float32.

One thread computes one element of the result; the sums are those of `pycnn.examples.numba_direct`.  NVRTC compiles the
texts for a GPU, g++ for the simulator, which checks every access to memory on the way:

    $ pycnn bench --kernel pycnn.examples.cuda_direct --problem n1c64h56_k64r3_pd1
    $ pycnn bench --kernel pycnn.examples.cuda_direct --backend sim --most-macs 20000 --problem n1c8h8_k8r3_pd1

What limits it: as there, memory.  pycnn's own direct kernel computes the same sums from tiles in shared memory and in
registers: kernels/conv2d_fprop_direct.cu.
"""

from __future__ import annotations

import math

import pycnn
from pycnn.custom.registry import result_shape
from pycnn.shape import Conv2dShape

THREADS = 128  # of a block

# common.cuh brings pycnn::Conv2dShape, the problem: `shape.H`, `shape.stride_h`, `shape.pad_top`, `shape.groups`, ...
# `i` counts the elements of the result; its digits are the element's place, the last axis first.

FPROP = """
#include "common.cuh"
using pycnn::int64;

__global__ void fprop(const pycnn::Conv2dShape shape, const float* x, const float* w, float* y) {
    int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= shape.N * shape.K * shape.P * shape.Q) return;
    const int64 place = i;
    const int64 q = i % shape.Q, p = (i /= shape.Q) % shape.P, k = (i /= shape.P) % shape.K, n = i / shape.K;

    const int64 channels = shape.C / shape.groups;                  // that filter k sees
    const int64 first = k / (shape.K / shape.groups) * channels;    // the one it begins with
    float sum = 0.0f;
    for (int64 c = 0; c < channels; ++c)
        for (int64 r = 0; r < shape.R; ++r) {
            const int64 h = p * shape.stride_h - shape.pad_top + r * shape.dilation_h;
            if (h < 0 || h >= shape.H) continue;  // what lies in the padding is zero
            for (int64 s = 0; s < shape.S; ++s) {
                const int64 v = q * shape.stride_w - shape.pad_left + s * shape.dilation_w;
                if (v < 0 || v >= shape.W) continue;
                const float pixel = x[((n * shape.C + first + c) * shape.H + h) * shape.W + v];
                sum = fmaf(pixel, w[((k * channels + c) * shape.R + r) * shape.S + s], sum);
            }
        }
    y[place] = sum;
}
"""

DGRAD = """
#include "common.cuh"
using pycnn::int64;

__global__ void dgrad(const pycnn::Conv2dShape shape, const float* dy, const float* w, float* dx) {
    int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= shape.N * shape.C * shape.H * shape.W) return;
    const int64 place = i;
    const int64 v = i % shape.W, h = (i /= shape.W) % shape.H, c = (i /= shape.H) % shape.C, n = i / shape.C;

    const int64 channels = shape.C / shape.groups, filters = shape.K / shape.groups;
    const int64 first = c / channels * filters;  // of the filters that see channel c
    float sum = 0.0f;
    for (int64 k = first; k < first + filters; ++k)
        for (int64 r = 0; r < shape.R; ++r) {
            const int64 p = h + shape.pad_top - r * shape.dilation_h;  // stride_h times the row of y that a tap serves
            if (p < 0 || p % shape.stride_h != 0 || p / shape.stride_h >= shape.P) continue;
            for (int64 s = 0; s < shape.S; ++s) {
                const int64 q = v + shape.pad_left - s * shape.dilation_w;
                if (q < 0 || q % shape.stride_w != 0 || q / shape.stride_w >= shape.Q) continue;
                const int64 row = (n * shape.K + k) * shape.P + p / shape.stride_h;
                const int64 tap = ((k * channels + c % channels) * shape.R + r) * shape.S + s;
                sum = fmaf(dy[row * shape.Q + q / shape.stride_w], w[tap], sum);
            }
        }
    dx[place] = sum;
}
"""

WGRAD = """
#include "common.cuh"
using pycnn::int64;

__global__ void wgrad(const pycnn::Conv2dShape shape, const float* dy, const float* x, float* dw) {
    const int64 channels = shape.C / shape.groups;  // of a filter
    int64 i = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= shape.K * channels * shape.R * shape.S) return;
    const int64 place = i;
    const int64 s = i % shape.S, r = (i /= shape.S) % shape.R, c = (i /= shape.R) % channels, k = i / channels;

    const int64 channel = k / (shape.K / shape.groups) * channels + c;  // of x
    float sum = 0.0f;
    for (int64 n = 0; n < shape.N; ++n)
        for (int64 p = 0; p < shape.P; ++p) {
            const int64 h = p * shape.stride_h - shape.pad_top + r * shape.dilation_h;
            if (h < 0 || h >= shape.H) continue;
            for (int64 q = 0; q < shape.Q; ++q) {
                const int64 v = q * shape.stride_w - shape.pad_left + s * shape.dilation_w;
                if (v < 0 || v >= shape.W) continue;
                const float pixel = x[((n * shape.C + channel) * shape.H + h) * shape.W + v];
                sum = fmaf(pixel, dy[((n * shape.K + k) * shape.P + p) * shape.Q + q], sum);
            }
        }
    dw[place] = sum;
}
"""


def kernel(text: str, operator: str) -> pycnn.CudaKernel:
    """A pass: its function is called as the operator, and has a thread for each element of the result."""

    def blocks(shape: Conv2dShape) -> int:
        return -(-math.prod(result_shape(operator, shape)) // THREADS)

    return pycnn.CudaKernel(text, operator, blocks=blocks, threads=THREADS)


pycnn.register_conv2d(
    "cuda_direct", fprop=kernel(FPROP, "fprop"), dgrad=kernel(DGRAD, "dgrad"), wgrad=kernel(WGRAD, "wgrad")
)
