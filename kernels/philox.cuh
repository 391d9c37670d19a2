// Philox4x32-10: a 128-bit counter is encrypted, by itself, in ten rounds of multiply and exclusive or.
//
// Reference: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3; the
// known answers are those of Random123, tests/kat_vectors.
#pragma once

#include "common.cuh"

namespace pycnn {

using uint64 = unsigned long long;

// A place in the stream.  Passed by value; pycnn/backends/cuda/random.py packs the same fields in the same order.
struct PhiloxStream {
    uint64 seed;
    uint64 low, high;  // the counter of the first block
};

// Four words of the stream: those of one counter.
struct PhiloxWords {
    uint32 word[4];
};

// Block `number` of the stream; `drawn` more are to be passed over.
__device__ __forceinline__ PhiloxWords philox(const PhiloxStream& stream, uint64 drawn, uint64 number) {
    const uint64 start = stream.low + drawn, low = start + number;
    const uint64 high = stream.high + (start < stream.low ? 1 : 0) + (low < start ? 1 : 0);
    uint32 c0 = static_cast<uint32>(low), c1 = static_cast<uint32>(low >> 32);
    uint32 c2 = static_cast<uint32>(high), c3 = static_cast<uint32>(high >> 32);
    uint32 key0 = static_cast<uint32>(stream.seed), key1 = static_cast<uint32>(stream.seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64 a = static_cast<uint64>(c0) * 0xD2511F53u, b = static_cast<uint64>(c2) * 0xCD9E8D57u;
        c0 = static_cast<uint32>(b >> 32) ^ c1 ^ key0;
        c2 = static_cast<uint32>(a >> 32) ^ c3 ^ key1;
        c1 = static_cast<uint32>(b);
        c3 = static_cast<uint32>(a);
        key0 += 0x9E3779B9u;  // the golden ratio
        key1 += 0xBB67AE85u;  // sqrt(3) - 1
    }
    return {{c0, c1, c2, c3}};
}

}  // namespace pycnn
