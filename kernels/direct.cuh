// What the direct convolution kernels share: staging into shared memory.
#pragma once

#include "common.cuh"

namespace pycnn {

enum : int { kWarp = 32 };

// Fills shared memory, all threads together: store(i, load(i)) for every i below `count`.  A thread has four loads in
// flight before it stores the first.
template <int count, int threads, typename Load, typename Store>
__device__ __forceinline__ void stage(Load load, Store store) {
    constexpr int batch = 4;
#pragma unroll 1
    for (int first = static_cast<int>(threadIdx.x); first < count; first += batch * threads) {
        float value[batch];
#pragma unroll
        for (int j = 0; j < batch; ++j) value[j] = first + j * threads < count ? load(first + j * threads) : 0.0f;
#pragma unroll
        for (int j = 0; j < batch; ++j)
            if (first + j * threads < count) store(first + j * threads, value[j]);
    }
}

}  // namespace pycnn
