// mma: a warp multiplies two small matrices on the tensor cores, d += a * b; float32 sums.
//
//     Number     a (16 x k, rows)   b (k x 8, columns)    k    from      elements of a register
//     float16    4 registers        2 registers          16    sm_75     two, k ascending, the lower half first
//     bfloat16   4                  2                    16    sm_80     two
//     tf32       4                  2                     8    sm_80     one: a float32 of which 10 fraction bits count
//
// Who holds what (lane = 4*g + t; e = 2*t, 2*t + 1 for the 16-bit types with h = 8, e = t for tf32 with h = 4):
//
//     a[0] = a(g, e)   a[1] = a(g + 8, e)   a[2] = a(g, e + h)   a[3] = a(g + 8, e + h)
//     b[0] = b(e, g)   b[1] = b(e + h, g)
//     d[0] = d(g, 2t)  d[1] = d(g, 2t + 1)  d[2] = d(g + 8, 2t)  d[3] = d(g + 8, 2t + 1)
//
// Products are exact; the tensor cores add them up with a few bits beyond float32 and round the result TOWARD ZERO, so
// long sums of one sign drift.  Who needs float32's accuracy starts d at zero often and adds it up in registers.
// sm_75 has float16 with k = 8 only: two of those.
//
// Reference   NVIDIA, "Parallel Thread Execution ISA" 9.2, section 9.7.14.5.7, "Matrix Fragments for mma.m16n8k8",
//             figures "MMA .m16n8k8 fragment layout for matrix A with .f16 / .bf16 type" and "... with .tf32 type" and
//             those of B, C and D; section 9.7.14.5.8, "Matrix Fragments for mma.m16n8k16 with floating point type",
//             likewise; Fasi, Higham, Mikaitis & Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer
//             Science 7:e330, 2021.  pycnn/testing/fragments.py holds the wrappers against those figures.
#pragma once

#include "arch/half.cuh"

namespace pycnn {

struct tf32 {};

// The length of a product's sum.
template <typename Number>
struct MmaShape {
    static constexpr int k = 16;
};
template <>
struct MmaShape<tf32> {
    static constexpr int k = 8;
};

// A float32 rounded to tf32, to nearest, ties away from zero: 32 bits of which the last 13 are zero.
__device__ __forceinline__ uint32 tf32_bits(float value) {
#if defined(PYCNN_SIMULATOR)
    return sim::round_tf32(value);
#elif __CUDA_ARCH__ >= 800
    uint32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#else
    return 0;  // no instance for sm_75 asks
#endif
}

template <typename Number>
__device__ __forceinline__ void mma(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]);

template <>
__device__ __forceinline__ void mma<float16>(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
#if defined(PYCNN_SIMULATOR)
    sim::mma<sim::kFloat16>(d, a, b);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
    for (int half = 0; half < 2; ++half)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

template <>
__device__ __forceinline__ void mma<bfloat16>(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
#if defined(PYCNN_SIMULATOR)
    sim::mma<sim::kBfloat16>(d, a, b);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

template <>
__device__ __forceinline__ void mma<tf32>(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
#if defined(PYCNN_SIMULATOR)
    sim::mma<sim::kTf32>(d, a, b);
#elif __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace pycnn
