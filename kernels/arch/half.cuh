// 16-bit floating-point numbers as memory holds them.  Nothing is computed in them: they are widened to float32 when
// they are read, which is exact, and rounded once, to nearest even, when they are stored.
//
//     float16     1 sign, 5 exponent, 10 fraction bits: IEEE binary16, largest 65504, smallest normal 2^-14
//     bfloat16    1 sign, 8 exponent, 7 fraction bits: the upper half of a float32
//
//     float v = to_float(x[i]);       y[i] = from_float<float16>(v);
//     pack<float16>(low, high) -> 32 bits, unpack<float16>(32 bits, low, high)
//
// The types are our own, so that no kernel includes a header of the toolkit and the simulator sees the same source.
//
// Reference   NVIDIA, "Parallel Thread Execution ISA" 9.0, section 9.7.9.21, "Data Movement and Conversion
//             Instructions: cvt"; IEEE 754-2019, section 3.6, table 3.5 (binary16).
#pragma once

#include "common.cuh"

namespace pycnn {

struct float16 {
    unsigned short bits;
};
struct bfloat16 {
    unsigned short bits;
};

// What a kernel stores, by the member `type` of its tile.
template <int type>
struct StorageOf;
template <>
struct StorageOf<0> {
    using type = float;
};
template <>
struct StorageOf<1> {
    using type = float16;
};
template <>
struct StorageOf<2> {
    using type = bfloat16;
};
template <auto tile>
using Stored = typename StorageOf<tile.type>::type;

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(float16 x) {
#if defined(PYCNN_SIMULATOR)
    return sim::widen_float16(x.bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
#endif
}
__device__ __forceinline__ float to_float(bfloat16 x) {
    return __int_as_float(static_cast<int>(static_cast<uint32>(x.bits) << 16));
}

// A float32 rounded to nearest even; NaN stays NaN, what is too large becomes infinite.
__device__ __forceinline__ unsigned short bfloat16_bits(float value) {
#if !defined(PYCNN_SIMULATOR) && __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#else
    const uint32 bits = static_cast<uint32>(__float_as_int(value));
    const uint32 rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return static_cast<unsigned short>(value != value ? 0x7FFFu : rounded);
#endif
}
__device__ __forceinline__ unsigned short float16_bits(float value) {
#if defined(PYCNN_SIMULATOR)
    return sim::narrow_float16(value);
#else
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#endif
}

template <typename Type>
__device__ __forceinline__ Type from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
    return value;
}
template <>
__device__ __forceinline__ float16 from_float<float16>(float value) {
    return {float16_bits(value)};
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float value) {
    return {bfloat16_bits(value)};
}

// Two neighbours in memory, `low` the first of them, as one register.
template <typename Type>
__device__ __forceinline__ uint32 pack(float low, float high) {
    return static_cast<uint32>(from_float<Type>(low).bits) | static_cast<uint32>(from_float<Type>(high).bits) << 16;
}
#if !defined(PYCNN_SIMULATOR) && __CUDA_ARCH__ >= 800
template <>
__device__ __forceinline__ uint32 pack<float16>(float low, float high) {
    uint32 bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
template <>
__device__ __forceinline__ uint32 pack<bfloat16>(float low, float high) {
    uint32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
#endif
template <typename Type>
__device__ __forceinline__ void unpack(uint32 pair, float& low, float& high) {
    low = to_float(Type{static_cast<unsigned short>(pair & 0xFFFFu)});
    high = to_float(Type{static_cast<unsigned short>(pair >> 16)});
}

}  // namespace pycnn
