// 16-bit floats to float32 and back, in integer arithmetic that the compiler turns into vectors on any instruction set.
#include "cpu/half.h"

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

constexpr std::uint32_t kInfinity = 0x7f800000;

PYCNN_INLINE std::uint32_t bits_of(float value) {
    return __builtin_bit_cast(std::uint32_t, value);
}
PYCNN_INLINE float float_of(std::uint32_t bits) {
    return __builtin_bit_cast(float, bits);
}

// The exponent moves from a bias of 15 to one of 127 by a multiplication, which takes subnormal numbers along.
PYCNN_INLINE float widen_float16(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000u) << 16;
    const std::uint32_t shifted = (half & 0x7fffu) << 13;
    const std::uint32_t finite = bits_of(float_of(shifted) * 0x1p112f);
    return float_of(sign | (shifted >= 0x7c00u << 13 ? shifted | kInfinity : finite));
}

PYCNN_INLINE float widen_bfloat16(std::uint16_t half) {
    return float_of(static_cast<std::uint32_t>(half) << 16);
}

PYCNN_INLINE std::uint16_t narrow_float16(float value) {
    const std::uint32_t sign = bits_of(value) >> 16 & 0x8000u;
    const std::uint32_t size = bits_of(value) & 0x7fffffffu;
    // Adding 0.5 leaves the multiples of 2^-24, float16's smallest number, in the low bits, rounded by the addition.
    const std::uint32_t tiny = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
    const std::uint32_t normal = (size + (15u - 127u) * (1u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
    const std::uint32_t nan = 0x7e00u | (size >> 13 & 0x3ffu);
    const std::uint32_t large = size > kInfinity ? nan : 0x7c00u;
    constexpr std::uint32_t kOverflows = 0x477ff000;  // 65520: half way from the largest number to the next
    constexpr std::uint32_t kNormal = 0x38800000;     // 2^-14
    const std::uint32_t finite = size < kNormal ? tiny : normal;
    return static_cast<std::uint16_t>(sign | (size >= kOverflows ? large : finite));
}

PYCNN_INLINE std::uint16_t narrow_bfloat16(float value) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return static_cast<std::uint16_t>((bits & 0x7fffffffu) > kInfinity ? bits >> 16 | 0x40u : rounded >> 16);
}

template <typename From, typename To, typename Function>
static void convert(int64_t count, const From* x, To* y, const Function& function) {
    parallel(ceil_div(count, kChunk), 2 * count, [&](int64_t task) {
        const From* __restrict from = x + task * kChunk;
        To* __restrict to = y + task * kChunk;
        const int64_t here = least(kChunk, count - task * kChunk);
        for (int64_t i = 0; i < here; i++) to[i] = function(from[i]);
    });
}

void widen(Half kind, int64_t count, const std::uint16_t* x, float* y) {
    if (kind == Half::kFloat16) {
        convert(count, x, y, [](std::uint16_t half) __attribute__((always_inline)) { return widen_float16(half); });
    } else {
        convert(count, x, y, [](std::uint16_t half) __attribute__((always_inline)) { return widen_bfloat16(half); });
    }
}

#if defined(__AVX512F__)
// One instruction does what `narrow_float16` says.
static void narrow_float16s(int64_t count, const float* x, std::uint16_t* y) {
    parallel(ceil_div(count, kChunk), 2 * count, [&](int64_t task) {
        const int64_t start = task * kChunk;
        const int64_t here = least(kChunk, count - start);
        int64_t i = start;
        for (; i + 16 <= start + here; i += 16) {
            const __m256i halves = _mm512_maskz_cvtps_ph(0xffff, (__m512)load(x + i), _MM_FROUND_TO_NEAREST_INT);
            __builtin_memcpy(y + i, &halves, sizeof halves);
        }
        for (; i < start + here; i++) y[i] = narrow_float16(x[i]);
    });
}
#else
static void narrow_float16s(int64_t count, const float* x, std::uint16_t* y) {
    convert(count, x, y, [](float value) __attribute__((always_inline)) { return narrow_float16(value); });
}
#endif

void narrow(Half kind, int64_t count, const float* x, std::uint16_t* y) {
    if (kind == Half::kFloat16) {
        narrow_float16s(count, x, y);
    } else {
        convert(count, x, y, [](float value) __attribute__((always_inline)) { return narrow_bfloat16(value); });
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
