// Philox4x32-10: a counter is encrypted in ten rounds of multiply and exclusive or, independently of all others.
//
// A vector holds one 32-bit word of several counters, each in the low half of a 64-bit lane: the 32 x 32 -> 64 bit
// product reads only the low halves, so the upper ones may hold anything.
//
// Reference: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>  // its functions are always inlined: none of them is left for the linker to choose among
#endif

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

typedef uint64_t Words __attribute__((vector_size(PYCNN_VECTOR_BYTES)));

constexpr int kCounters = PYCNN_VECTOR_BYTES / 8;  // in a vector
constexpr int kVectors = 4;                        // independent chains, to hide the multiplier's latency
constexpr int64_t kBlocks = kCounters * kVectors;  // encrypted together
constexpr int64_t kWordsAtOnce = 4 * kBlocks;

// The products of the lanes' low halves.
PYCNN_INLINE Words multiply_low(Words a, uint64_t b) {
    const Words factor = Words{} + b;
#if PYCNN_VECTOR_BYTES == 64
    return (Words)_mm512_maskz_mul_epu32(0xff, (__m512i)a,
                                         (__m512i)factor);  // unmasked, GCC 12 warns of its own header
#elif PYCNN_VECTOR_BYTES == 32
    return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)factor);
#elif defined(__x86_64__)
    return (Words)_mm_mul_epu32((__m128i)a, (__m128i)factor);
#else
    return (a & 0xffffffffu) * factor;
#endif
}

// Blocks [first, first + kBlocks) of the stream, 4 words each.
static void philox(const PhiloxStream& stream, int64_t first, uint32_t* words) {
    Words c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
    for (int v = 0; v < kVectors; v++) {
        Words low;
        for (int i = 0; i < kCounters; i++) low[i] = stream.low + static_cast<uint64_t>(first + v * kCounters + i);
        const Words high = stream.high + ((Words)(low < stream.low) & 1);
        c0[v] = low;
        c1[v] = low >> 32;
        c2[v] = high;
        c3[v] = high >> 32;
    }
    uint32_t key0 = static_cast<uint32_t>(stream.seed);
    uint32_t key1 = static_cast<uint32_t>(stream.seed >> 32);
    for (int round = 0; round < 10; round++) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
            const Words a = multiply_low(c0[v], 0xD2511F53u);
            const Words b = multiply_low(c2[v], 0xCD9E8D57u);
            c0[v] = (b >> 32) ^ c1[v] ^ key0;
            c2[v] = (a >> 32) ^ c3[v] ^ key1;
            c1[v] = b;
            c3[v] = a;
        }
        key0 += 0x9E3779B9u;  // the golden ratio
        key1 += 0xBB67AE85u;  // sqrt(3) - 1
    }
    for (int v = 0; v < kVectors; v++) {
        const Words front = (c0[v] & 0xffffffffu) | (c1[v] << 32);
        const Words back = (c2[v] & 0xffffffffu) | (c3[v] << 32);
        for (int i = 0; i < kCounters; i++) {
            uint32_t* to = words + 4 * (v * kCounters + i);
            to[0] = static_cast<uint32_t>(front[i]);
            to[1] = static_cast<uint32_t>(front[i] >> 32);
            to[2] = static_cast<uint32_t>(back[i]);
            to[3] = static_cast<uint32_t>(back[i] >> 32);
        }
    }
}

constexpr int64_t kTask = kChunk / kWordsAtOnce * kWordsAtOnce;

// body(words, start, n) for every piece of the stream's first `count` words.
template <typename Body>
static void for_words(const PhiloxStream& stream, int64_t count, const Body& body) {
    parallel(ceil_div(count, kTask), [&](int64_t task) {
        const int64_t end = least(count, (task + 1) * kTask);
        for (int64_t start = task * kTask; start < end; start += kWordsAtOnce) {
            uint32_t words[kWordsAtOnce];
            philox(stream, start / 4, words);
            body(words, start, least(kWordsAtOnce, end - start));
        }
    });
}

void philox_uint32(const PhiloxStream& stream, int64_t count, uint32_t* to) {
    for_words(stream, count, [&](const uint32_t* words, int64_t start, int64_t n) {
        __builtin_memcpy(to + start, words, static_cast<std::size_t>(n) * 4);
    });
}

template <typename T>
void dropout(const PhiloxStream& stream, uint32_t threshold, T scale, int64_t count, const T* x, T* y) {
    for_words(stream, count, [&](const uint32_t* words, int64_t start, int64_t n) {
        const T* __restrict from = x + start;
        T* __restrict to = y + start;
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            const T kept = from[i] * scale;  // computed always: a choice of two values needs no branch
            to[i] = words[i] >= threshold ? kept : T(0);
        }
    });
}

template void dropout(const PhiloxStream&, uint32_t, float, int64_t, const float*, float*);
template void dropout(const PhiloxStream&, uint32_t, double, int64_t, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
