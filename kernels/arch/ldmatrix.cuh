// ldmatrix: a warp reads 8 x 8 matrices of 16-bit elements from shared memory, each thread a part of every one; sm_75
// and later.
//
//     uint32 r[4];
//     ldmatrix(r, row);          // four matrices; thread 8*j + i brings the address of row i of matrix j: 16 bytes
//     ldmatrix_trans(r, row);    // each of them transposed on the way
//
// Who gets what of matrix j, in r[j] (lane = 4*g + t; the lower half of a register first):
//
//     ldmatrix         row g, elements 2*t and 2*t + 1; of 32-bit elements that is element t of a row of four
//     ldmatrix_trans   column g, rows 2*t and 2*t + 1
//
// Rows must begin at multiples of 16 bytes.  Free of bank conflicts where the eight rows of a matrix lie in different
// banks.
//
// Reference   NVIDIA, "Parallel Thread Execution ISA" 9.0, section 9.7.14.5.15, "Warp-level matrix load instruction:
//             ldmatrix", with the figure of the fragment layout for m8n8 of b16.
#pragma once

#include "common.cuh"

namespace pycnn {

__device__ __forceinline__ void ldmatrix(uint32 (&r)[4], const void* row) {
#if defined(PYCNN_SIMULATOR)
    sim::ldmatrix<false>(r, row);
#else
    const uint32 place = static_cast<uint32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(place));
#endif
}

__device__ __forceinline__ void ldmatrix_trans(uint32 (&r)[4], const void* row) {
#if defined(PYCNN_SIMULATOR)
    sim::ldmatrix<true>(r, row);
#else
    const uint32 place = static_cast<uint32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(place));
#endif
}

}  // namespace pycnn
