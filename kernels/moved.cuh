// What the kernels share that move elements as they are, whatever number they stand for.
#pragma once

#include "stream.cuh"

namespace pycnn {

// The constants of one instance; instances.toml lists those that exist.
struct ShapingTile {
    int bytes;    // of an element, 4 or 2
    int wide;     // 1: 64-bit coordinates; 0: 32-bit ones
    int vectors;  // of 128 bits, a thread
    int warps;    // in a block
    int blocks;   // on an SM

    constexpr int threads() const { return warps * 32; }
};

// Two bytes that are moved as they are, whatever number they stand for: in registers the low half of a word.
struct Bytes2 {
    unsigned short bits;
};
__device__ __forceinline__ float to_float(Bytes2 x) {
    return __int_as_float(x.bits);
}
template <>
__device__ __forceinline__ Bytes2 from_float<Bytes2>(float word) {
    return {static_cast<unsigned short>(__float_as_int(word))};
}

template <int bytes>
struct MovedOf {
    using type = float;
};
template <>
struct MovedOf<2> {
    using type = Bytes2;
};
template <ShapingTile T>
using Moved = typename MovedOf<T.bytes>::type;

}  // namespace pycnn
