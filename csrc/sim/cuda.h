// CUDA C++ for g++: what a kernel source finds when the simulator compiles it.  Included before the kernel by the
// compiler's command line (-include), so the kernels themselves know nothing of the simulator.
#pragma once

#define PYCNN_SIMULATOR 1

#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "engine.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ use_PYCNN_SHARED_of_common_cuh
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace sim {

// The block's object of this type: the first thread to ask makes it, full of NaN.
template <typename Type>
Type& block_shared(bool dynamic) {
    static const char key = 0;
    return *static_cast<Type*>(engine().shared_object(&key, sizeof(Type), dynamic));
}

using Where = std::source_location;

}  // namespace sim

inline void __syncthreads(sim::Where where = sim::Where::current()) {
    sim::engine().barrier(where);
}

// ---------------------------------------------------------------------------------------------------------------------
// Warp collectives: every lane brings an argument, the last one computes the answers of all

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, sim::Where where = sim::Where::current()) {
    sim::engine().collective(mask, nullptr, [](void**, std::uint32_t) {}, "__syncwarp", where);
}

namespace sim {

template <typename Type>
struct Shuffle {
    Type value;
    int source;  // lane whose value to take
};

template <typename Type>
Type shuffle(unsigned mask, Type value, int source, const char* name, Where where) {
    if ((mask >> source & 1) == 0) engine().fail("%s reads lane %d, which is not in mask %08x", name, source, mask);
    Shuffle<Type> mine{value, source};
    const auto combine = [](void** arguments, std::uint32_t lanes) {
        Type before[32];
        const auto of = [arguments](int lane) { return static_cast<Shuffle<Type>*>(arguments[lane]); };
        for (int lane = 0; lane < 32; ++lane)
            if (lanes >> lane & 1) before[lane] = of(lane)->value;
        for (int lane = 0; lane < 32; ++lane)
            if (lanes >> lane & 1) of(lane)->value = before[of(lane)->source];
    };
    engine().collective(mask, &mine, combine, name, where);
    return mine.value;
}

inline int lane() {
    return static_cast<int>(engine().current().lane());
}

}  // namespace sim

template <typename Type>
Type __shfl_sync(unsigned mask, Type value, int source, int width = 32, sim::Where where = sim::Where::current()) {
    const int first = sim::lane() & ~(width - 1);
    return sim::shuffle(mask, value, first + (source & (width - 1)), "__shfl_sync", where);
}

template <typename Type>
Type __shfl_xor_sync(unsigned mask, Type value, int bits, int width = 32, sim::Where where = sim::Where::current()) {
    const int end = (sim::lane() & ~(width - 1)) + width, source = sim::lane() ^ bits;
    return sim::shuffle(mask, value, source < end ? source : sim::lane(), "__shfl_xor_sync", where);
}

template <typename Type>
Type __shfl_down_sync(unsigned mask, Type value, int step, int width = 32, sim::Where where = sim::Where::current()) {
    const int end = (sim::lane() & ~(width - 1)) + width, source = sim::lane() + step;
    return sim::shuffle(mask, value, source < end ? source : sim::lane(), "__shfl_down_sync", where);
}

template <typename Type>
Type __shfl_up_sync(unsigned mask, Type value, int step, int width = 32, sim::Where where = sim::Where::current()) {
    const int first = sim::lane() & ~(width - 1), source = sim::lane() - step;
    return sim::shuffle(mask, value, source >= first ? source : sim::lane(), "__shfl_up_sync", where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, sim::Where where = sim::Where::current()) {
    unsigned mine = predicate != 0;
    const auto combine = [](void** arguments, std::uint32_t lanes) {
        unsigned ballot = 0;
        for (int lane = 0; lane < 32; ++lane)
            if (lanes >> lane & 1) ballot |= *static_cast<unsigned*>(arguments[lane]) << lane;
        for (int lane = 0; lane < 32; ++lane)
            if (lanes >> lane & 1) *static_cast<unsigned*>(arguments[lane]) = ballot;
    };
    sim::engine().collective(mask, &mine, combine, "__ballot_sync", where);
    return mine;
}

inline int __any_sync(unsigned mask, int predicate, sim::Where where = sim::Where::current()) {
    return __ballot_sync(mask, predicate, where) != 0;
}

inline int __all_sync(unsigned mask, int predicate, sim::Where where = sim::Where::current()) {
    return __ballot_sync(mask, predicate, where) == mask;
}

// ---------------------------------------------------------------------------------------------------------------------
// Atomics, of integers: one thread runs at a time, so nothing comes in between

template <typename Type, typename Join>
Type atomic_update(Type* address, const Join& join) {
    const Type before = *address;
    *address = join(before);
    return before;
}
inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
    return atomic_update(address, [value](unsigned long long before) { return before + value; });
}
inline unsigned atomicMax(unsigned* address, unsigned value) {
    return atomic_update(address, [value](unsigned before) { return before < value ? value : before; });
}
inline unsigned atomicOr(unsigned* address, unsigned value) {
    return atomic_update(address, [value](unsigned before) { return before | value; });
}

// ---------------------------------------------------------------------------------------------------------------------
// Copies that go on by themselves (cp.async)
//
// A copy takes its bytes when it is started and lands when its thread waits for it.  In between its destination is NaN:
// whoever reads it too early, or still needs what was there before, finds out.

namespace sim {

inline void cp_async(void* to, const void* from, unsigned bytes, unsigned real) {
    Thread& thread = engine().current();
    const auto misses = [bytes](const void* address) { return reinterpret_cast<std::uintptr_t>(address) % bytes != 0; };
    if (real > bytes) engine().fail("copies %u real bytes of %u", real, bytes);
    if (misses(to)) engine().fail("copies %u bytes to shared memory at an address that is no multiple of it", bytes);
    if (misses(from)) engine().fail("copies %u bytes from an address that is no multiple of it", bytes);
    if (!engine().is_shared(to, bytes)) engine().fail("copies %u bytes to an address outside shared memory", bytes);
    AsyncCopy& copy = thread.copies.emplace_back();
    copy.to = static_cast<unsigned char*>(to);
    copy.group = thread.groups;
    copy.bytes = bytes;
    std::memset(copy.value, 0, sizeof copy.value);
    if (real > 0) std::memcpy(copy.value, from, real);
    std::memset(to, 0xFF, bytes);
}

inline void cp_async_commit() {
    ++engine().current().groups;
}

inline void cp_async_wait(unsigned pending) {
    Thread& thread = engine().current();
    std::size_t landed = 0;
    for (; landed < thread.copies.size() && thread.copies[landed].group + pending < thread.groups; ++landed)
        std::memcpy(thread.copies[landed].to, thread.copies[landed].value, thread.copies[landed].bytes);
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(landed));
}

}  // namespace sim

// ---------------------------------------------------------------------------------------------------------------------
// Arithmetic

inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline int __float_as_int(float value) {
    int bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}
inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
// To nearest, ties to even.
inline long long __double2ll_rn(double value) {
    return std::llrint(value);
}
template <typename Type>
Type __ldg(const Type* address) {
    return *address;
}
// Each rounded by itself, never fused with a neighbour; the simulator fuses nothing anyway.
inline float __fadd_rn(float a, float b) {
    return a + b;
}
inline float __fsub_rn(float a, float b) {
    return a - b;
}
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __fsqrt_rn(float a) {
    return std::sqrt(a);
}
// Within 2 ulp on a GPU; here a little better.
inline float rsqrtf(float a) {
    return 1.0f / std::sqrt(a);
}
// The normal distribution function; a GPU's is within 5 ulp.
inline float normcdff(float a) {
    return static_cast<float>(0.5 * std::erfc(-static_cast<double>(a) / std::sqrt(2.0)));
}
inline float __fdividef(float a, float b) {
    return a / b;
}

#include "tensor.h"
