// How the kernels that stream arrays read and write them: a vector of neighbours a thread, by 128-bit accesses where they
// may.  A vector is as wide as one access: four of float32, eight of 16 bits; in the registers all of it is float32.
//
// A block owns a stretch of threads * width * vectors elements, thread t its vectors t, t + threads, t + 2*threads ...
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

#include "arch/half.cuh"

namespace pycnn {

// The block's number, in a grid that may go on along y.
__device__ __forceinline__ int64 block_number() {
    return static_cast<int64>(blockIdx.y) * gridDim.x + blockIdx.x;
}

// Elements of one 128-bit access.
template <typename Type>
__device__ constexpr int vector_width() {
    return 16 / static_cast<int>(sizeof(Type));
}

// `width` neighbours from and to an address of a multiple of 16 bytes, or of all their bytes if those are fewer.  Eight
// of float32 take two accesses.
template <typename Type, int width>
__device__ __forceinline__ void read_vector(const Type* from, float (&to)[width]) {
    if constexpr (width == 1) {
        to[0] = to_float(*from);
    } else if constexpr (sizeof(Type) == 4) {
#pragma unroll
        for (int v = 0; v < width; v += 4) {
            const float4 four = *reinterpret_cast<const float4*>(from + v);
            to[v] = four.x;
            to[v + 1] = four.y;
            to[v + 2] = four.z;
            to[v + 3] = four.w;
        }
    } else if constexpr (width == 4) {
        const int2 four = *reinterpret_cast<const int2*>(from);
        unpack<Type>(static_cast<uint32>(four.x), to[0], to[1]);
        unpack<Type>(static_cast<uint32>(four.y), to[2], to[3]);
    } else {
        const int4 eight = *reinterpret_cast<const int4*>(from);
        unpack<Type>(static_cast<uint32>(eight.x), to[0], to[1]);
        unpack<Type>(static_cast<uint32>(eight.y), to[2], to[3]);
        unpack<Type>(static_cast<uint32>(eight.z), to[4], to[5]);
        unpack<Type>(static_cast<uint32>(eight.w), to[6], to[7]);
    }
}
template <typename Type, int width>
__device__ __forceinline__ void write_vector(Type* to, const float (&from)[width]) {
    if constexpr (sizeof(Type) == 4) {
#pragma unroll
        for (int v = 0; v < width; v += 4) {
            *reinterpret_cast<float4*>(to + v) = make_float4(from[v], from[v + 1], from[v + 2], from[v + 3]);
        }
    } else {
        *reinterpret_cast<int4*>(to) =
            make_int4(static_cast<int>(pack<Type>(from[0], from[1])), static_cast<int>(pack<Type>(from[2], from[3])),
                      static_cast<int>(pack<Type>(from[4], from[5])), static_cast<int>(pack<Type>(from[6], from[7])));
    }
}

// The calling thread's part of arrays of `size` elements.
template <int threads, int vectors, int width = 4>
struct Stretch {
    static constexpr int elements = threads * width * vectors;  // of a block

    int64 begin;  // of the thread's first vector
    int64 size;
    bool whole;

    __device__ __forceinline__ Stretch(int64 block, int64 array_size, bool aligned)
        : begin(block * elements + width * static_cast<int64>(threadIdx.x)),
          size(array_size),
          whole(aligned && (block + 1) * elements <= array_size) {}

    __device__ __forceinline__ int64 place(int vector) const { return begin + vector * (width * threads); }

    template <typename Type>
    __device__ __forceinline__ void read(const Type* from, float (&to)[vectors][width]) const {
        if (whole) {
#pragma unroll
            for (int i = 0; i < vectors; ++i) read_vector(from + place(i), to[i]);
        } else {
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
#pragma unroll
                for (int v = 0; v < width; ++v) {
                    to[i][v] = place(i) + v < size ? to_float(from[place(i) + v]) : 0.0f;
                }
            }
        }
    }

    template <typename Type>
    __device__ __forceinline__ void write(Type* to, const float (&from)[vectors][width]) const {
        if (whole) {
#pragma unroll
            for (int i = 0; i < vectors; ++i) write_vector(to + place(i), from[i]);
        } else {
#pragma unroll
            for (int i = 0; i < vectors; ++i) {
#pragma unroll
                for (int v = 0; v < width; ++v) {
                    if (place(i) + v < size) to[place(i) + v] = from_float<Type>(from[i][v]);
                }
            }
        }
    }
};

}  // namespace pycnn
