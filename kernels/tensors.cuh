// Many arrays in one launch: lists of pointers passed by value, and which array a block works on.
//
//      array 0          array 1     array 2
//     |#####|#####|##| |###|       |#####|#####|...       # a chunk, one block
//      block 0     1  2     3            4     5
//
// An array takes as many blocks as it has chunks, so a small one costs one block and a large one fills the GPU.  The
// arguments of a launch, at most 4 KiB, hold up to `capacity` arrays; longer lists take several launches.
//
// Reference: NVIDIA Apex, csrc/multi_tensor_apply.cuh, for the idea of (array, chunk) pairs.
#pragma once

#include "stream.cuh"

namespace pycnn {

// `Pointers` of pycnn/backends/cuda/device.py.
template <typename Type, int capacity>
struct Pointers {
    Type* pointer[capacity];
};

// Passed by value; pycnn/backends/cuda/layout.py packs the same fields in the same order.
template <int capacity>
struct Arrays {
    int64 size[capacity];  // elements
    int first[capacity];   // first block; that of places beyond the list is 2^31 - 1
};

// The array that a block belongs to: the last whose first block is not after it.  `capacity` is a power of two.
template <int capacity>
__device__ __forceinline__ int array_of(const Arrays<capacity>& arrays, int block) {
    int array = 0;
#pragma unroll
    for (int step = capacity / 2; step > 0; step /= 2) {
        if (arrays.first[array + step] <= block) array += step;
    }
    return array;
}

}  // namespace pycnn
