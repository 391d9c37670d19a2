// Numbers of 16 bits and tf32, and the warp's matrix instructions, as kernels/arch/{half,ldmatrix,mma}.cuh want them.
// Included by cuda.h.
#pragma once

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace sim {

// By the bits: what the processor converts by itself is slow where a number is subnormal.
inline float widen_float16(std::uint16_t bits) {
    constexpr std::uint32_t kRebias = (127 - 15) << 23;
    const std::uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7FFFu, moved = (magnitude << 13) + kRebias;
    std::uint32_t wide = moved;
    if (magnitude >= 0x7C00u) wide = moved + kRebias;  // infinite or NaN
    if (magnitude < 0x0400u)                           // subnormal: 2^-14 * (1 + m / 1024) - 2^-14
        wide = std::bit_cast<std::uint32_t>(std::bit_cast<float>(moved + (1u << 23)) - 0x1p-14f);
    return std::bit_cast<float>(wide | sign);
}
// NaN becomes the GPU's own, in each of these.
inline std::uint16_t narrow_float16(float value) {
    return std::isnan(value) ? 0x7FFF : std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
}
inline float widen_bfloat16(std::uint16_t bits) {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
}
// To nearest, ties away from zero.
inline std::uint32_t round_tf32(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return 0x7FFFFFFFu;
    return std::isinf(value) ? bits : (bits + 0x1000u) & ~0x1FFFu;
}

// ---------------------------------------------------------------------------------------------------------------------
// ldmatrix

struct MatrixLoad {
    const unsigned char* row;
    std::uint32_t registers[4];
};

template <bool transposed>
void load_matrices(void** arguments, std::uint32_t) {
    const auto of = [arguments](int lane) { return static_cast<MatrixLoad*>(arguments[lane]); };
    for (int matrix = 0; matrix < 4; ++matrix) {
        std::uint16_t element[8][8];
        for (int i = 0; i < 8; ++i) std::memcpy(element[i], of(8 * matrix + i)->row, 16);
        for (int lane = 0; lane < 32; ++lane) {
            const int g = lane / 4, t = lane % 4;
            const std::uint32_t low = transposed ? element[2 * t][g] : element[g][2 * t];
            const std::uint32_t high = transposed ? element[2 * t + 1][g] : element[g][2 * t + 1];
            of(lane)->registers[matrix] = low | high << 16;
        }
    }
}

template <bool transposed>
void ldmatrix(std::uint32_t (&r)[4], const void* row, Where where = Where::current()) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
        engine().fail("ldmatrix reads a row at an address that is no multiple of 16 bytes");
    if (!engine().is_shared(row, 16)) engine().fail("ldmatrix reads a row outside shared memory");
    MatrixLoad mine{static_cast<const unsigned char*>(row), {}};
    engine().collective(~0u, &mine, load_matrices<transposed>, transposed ? "ldmatrix.trans" : "ldmatrix", where);
    std::memcpy(r, mine.registers, sizeof mine.registers);
}

// ---------------------------------------------------------------------------------------------------------------------
// mma

enum Number { kFloat16, kBfloat16, kTf32 };

struct MatrixProduct {
    float* d;
    const std::uint32_t *a, *b;
};

// The `i`th element of what a register holds.
template <Number number>
double element(std::uint32_t bits, int i) {
    if constexpr (number == kTf32)
        return std::bit_cast<float>(bits & ~0x1FFFu);  // the hardware does not look at the others
    const auto half = static_cast<std::uint16_t>(bits >> 16 * i);
    return number == kFloat16 ? widen_float16(half) : widen_bfloat16(half);
}

// What is too large for a float32 is infinite.
inline float toward_zero(double exact) {
    const auto nearest = static_cast<float>(exact);
    if (std::isinf(nearest) || !(std::fabs(nearest) > std::fabs(exact))) return nearest;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(nearest) - 1);
}

// d += a * b for a warp: the products and their sum exact, as far as a float64 is, then rounded toward zero.
template <Number number>
void multiply(void** arguments, std::uint32_t) {
    using Row = double __attribute__((vector_size(8 * sizeof(double))));  // of b and d
    constexpr int each = number == kTf32 ? 1 : 2, half = 4 * each;        // elements of a register, and of four lanes'
    const auto of = [arguments](int lane) { return static_cast<MatrixProduct*>(arguments[lane]); };
    double a[16][2 * half];
    Row b[2 * half], sums[16] = {};
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < each; ++i) {
            const int k = each * t + i;
            for (int j = 0; j < 4; ++j) a[g + j % 2 * 8][k + j / 2 * half] = element<number>(of(lane)->a[j], i);
            for (int j = 0; j < 2; ++j) b[k + j * half][g] = element<number>(of(lane)->b[j], i);
        }
    }
    for (int m = 0; m < 16; ++m)
        for (int k = 0; k < 2 * half; ++k) sums[m] += a[m][k] * b[k];
    for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        float* d = of(lane)->d;
        for (int i = 0; i < 4; ++i) d[i] = toward_zero(d[i] + sums[g + i / 2 * 8][2 * t + i % 2]);
    }
}

template <Number number>
void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], Where where = Where::current()) {
    MatrixProduct mine{d, a, b};
    engine().collective(~0u, &mine, multiply<number>, "mma", where);
}

}  // namespace sim
