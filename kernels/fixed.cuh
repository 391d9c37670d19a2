// Sums whose order does not matter: added in integers.  A scatter by floating-point atomics has other bits in every run;
// one by 64-bit integer atomics has the same, because integers add exactly.
//
//     sum_i a_i * b_i  ~=  2^-e * sum_i round(2^e * a_i * b_i)
//
// with the largest e for which `count` such terms cannot overflow, given the largest |a| and |b|:
// e = 62 - ceil(log2 count) - exponent(max |a|) - exponent(max |b|), where |v| < 2^exponent(v).  A term is rounded by
// 2^-(e + 1), at most 2^-(63 - ceil(log2 count)) of the largest possible one: 2^-33 where a million-fold sum may be.
//
// Infinities and NaN have no such integer: each element has four bits beside it, for those that were added to it.
#pragma once

#include "common.cuh"

namespace pycnn {

using uint64 = unsigned long long;

enum : uint32 { kPlusInfinity = 1, kMinusInfinity = 2, kNotANumber = 4 };  // of an element's four bits
enum { kFlagsOfAWord = 8 };

// The bits of |v|, which order as its values do; 0 for infinities and NaN.
__device__ __forceinline__ uint32 magnitude_bits(float v) {
    const uint32 bits = static_cast<uint32>(__float_as_int(v)) & 0x7FFFFFFFu;
    return bits < 0x7F800000u ? bits : 0;
}

// |v| < 2^exponent for every |v| up to the one that has these bits.
__device__ __forceinline__ int exponent_of(uint32 bits) {
    const int exponent = static_cast<int>(bits >> 23);
    return (exponent == 0 ? 1 : exponent) - 126;
}

// 2^exponent, for exponents of normal numbers of 64 bits.
__device__ __forceinline__ double power_of_two(int exponent) {
    return __longlong_as_double(static_cast<int64>(exponent + 1023) << 52);
}

// e, for `log2_count` = ceil(log2 count) and the magnitudes of all a and of all b.
__device__ __forceinline__ int fixed_exponent(int log2_count, const uint32* magnitudes) {
    return 62 - log2_count - exponent_of(magnitudes[0]) - exponent_of(magnitudes[1]);
}

// Adds a * b to element i.
__device__ __forceinline__ void add_fixed(uint64* sums, uint32* flags, int64 i, float a, float b, double scale) {
    const double term = static_cast<double>(a) * static_cast<double>(b);  // exact
    const uint32 bits_a = static_cast<uint32>(__float_as_int(a)) & 0x7FFFFFFFu;
    const uint32 bits_b = static_cast<uint32>(__float_as_int(b)) & 0x7FFFFFFFu;
    if (bits_a < 0x7F800000u && bits_b < 0x7F800000u) {
        atomicAdd(sums + i, static_cast<uint64>(__double2ll_rn(term * scale)));
        return;
    }
    const uint32 flag = term != term ? kNotANumber : term > 0 ? kPlusInfinity : kMinusInfinity;
    atomicOr(flags + i / kFlagsOfAWord, flag << 4 * (i % kFlagsOfAWord));
}

// The float32 that an element's sum comes to.
__device__ __forceinline__ float settled(uint64 sum, uint32 flag, double unscale) {
    if (flag == 0) return static_cast<float>(static_cast<double>(static_cast<int64>(sum)) * unscale);
    if (flag == kPlusInfinity) return __int_as_float(0x7F800000);
    if (flag == kMinusInfinity) return -__int_as_float(0x7F800000);
    return __int_as_float(0x7FC00000);
}

}  // namespace pycnn
