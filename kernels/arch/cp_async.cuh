// cp.async: copies from global to shared memory that go on while the thread does something else; sm_80 and later.
//
// A thread starts copies, closes them into a group, and waits until all but its latest groups have landed:
//
//     cp_async<4>(&shared.value[i], x + i, 4);     // 4, 8 or 16 bytes, both addresses multiples of that
//     cp_async<16>(&shared.row[i], x + i, 12);     // fewer real bytes: the rest of the 16 becomes zero
//     cp_async_commit();
//     ...
//     cp_async_wait<0>();   // its own copies are there; a barrier makes them those of the whole block
//
// Between the two the destination holds nothing that may be read.  sm_75 copies through registers, at once.
//
// Reference   NVIDIA, "Parallel Thread Execution ISA" 9.0, section 9.7.9.25.3, "Data Movement and Conversion
//             Instructions: Non-bulk copy": cp.async (with its operand src-size), cp.async.commit_group and
//             cp.async.wait_group.
#pragma once

#include "common.cuh"

namespace pycnn {

// Starts a copy of `bytes` bytes, of which the first `real` are read and the others are zero.  Nothing is read where
// `real` is 0, so `from` may then point to any multiple of `bytes`; the instruction is undefined at others even so.
template <int bytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, int real) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(PYCNN_SIMULATOR)
    sim::cp_async(to, from, bytes, static_cast<unsigned>(real));
#elif __CUDA_ARCH__ >= 800
    const uint32 place = static_cast<uint32>(__cvta_generic_to_shared(to));
    const auto source = __cvta_generic_to_global(from);
    if constexpr (bytes == 16)  // .cg, past L1, exists for 16 bytes only
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(source), "r"(real));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(place), "l"(source), "n"(bytes), "r"(real));
#else
    float value[bytes / 4] = {};
    if (real == bytes) {
        if constexpr (bytes == 16)
            *reinterpret_cast<float4*>(value) = *reinterpret_cast<const float4*>(from);
        else if constexpr (bytes == 8)
            *reinterpret_cast<float2*>(value) = *reinterpret_cast<const float2*>(from);
        else
            value[0] = *static_cast<const float*>(from);
    } else {
#pragma unroll
        for (int i = 0; i < bytes / 4; ++i)
            if (4 * i < real) value[i] = static_cast<const float*>(from)[i];
    }
#pragma unroll
    for (int i = 0; i < bytes / 4; ++i) static_cast<float*>(to)[i] = value[i];
#endif
}

// Closes the copies started since the last call into a group, which may be empty.
__device__ __forceinline__ void cp_async_commit() {
#if defined(PYCNN_SIMULATOR)
    sim::cp_async_commit();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all of the thread's groups have landed but the latest `pending`.
template <int pending>
__device__ __forceinline__ void cp_async_wait() {
#if defined(PYCNN_SIMULATOR)
    sim::cp_async_wait(pending);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

}  // namespace pycnn
