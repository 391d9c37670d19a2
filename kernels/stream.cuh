// How the kernels that stream arrays read and write them: four neighbours a thread, by 128-bit accesses where they may.
//
// A block owns a stretch of threads * 4 * vectors elements, thread t its vectors t, t + threads, t + 2*threads ...
//
//      vector  | 0 | 1 | 2 | ...           | threads - 1 | threads | ...
//      thread    0   1   2                   threads - 1   0
//
// All loads of a thread are independent and go out before the first value is used, which is what keeps the memory busy:
// with every thread of an SM resident, 2048 * vectors * 16 bytes of each array are on their way.  By its data sheet an
// H100 needs 20 to 30 KiB an SM (3.35 TB/s over 132 SMs) if a loaded memory takes 0.8 to 1.2 us to answer: assumed, not
// measured.
//
// Accesses are of 128 bits where the whole stretch is inside the array and every array starts at a multiple of 16
// bytes: decided here, in the kernel, for the addresses it was given.  The last stretch, and arrays that are views into
// others, go element by element through the same cache lines.
#pragma once

#include "common.cuh"

namespace pycnn {

// The block's number, in a grid that may go on along y.
__device__ __forceinline__ int64 block_number() {
    return static_cast<int64>(blockIdx.y) * gridDim.x + blockIdx.x;
}

// The calling thread's part of arrays of `size` elements.
template <int threads, int vectors>
struct Stretch {
    static constexpr int elements = threads * 4 * vectors;  // of a block

    int64 begin;  // of the thread's first vector
    int64 size;
    bool whole;

    __device__ __forceinline__ Stretch(int64 block, int64 array_size, bool aligned)
        : begin(block * elements + 4 * static_cast<int64>(threadIdx.x)),
          size(array_size),
          whole(aligned && (block + 1) * elements <= array_size) {}

    __device__ __forceinline__ int64 place(int vector) const { return begin + vector * (4 * threads); }

    __device__ __forceinline__ void read(const float* from, float (&to)[vectors][4]) const {
        if (whole) {
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
                const float4 four = *reinterpret_cast<const float4*>(from + place(i));
                to[i][0] = four.x;
                to[i][1] = four.y;
                to[i][2] = four.z;
                to[i][3] = four.w;
            }
        } else {
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
#pragma unroll
                for (int v = 0; v < 4; ++v) to[i][v] = place(i) + v < size ? from[place(i) + v] : 0.0f;
            }
        }
    }

    __device__ __forceinline__ void write(float* to, const float (&from)[vectors][4]) const {
        if (whole) {
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
                *reinterpret_cast<float4*>(to + place(i)) = make_float4(from[i][0], from[i][1], from[i][2], from[i][3]);
            }
        } else {
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
#pragma unroll
                for (int v = 0; v < 4; ++v) {
                    if (place(i) + v < size) to[place(i) + v] = from[i][v];
                }
            }
        }
    }
};

}  // namespace pycnn
