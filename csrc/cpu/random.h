// Philox4x32-10 and dropout on it: the entries of the operator table.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// Block i of the stream encrypts the 128-bit counter (high, low) + i under the key `seed`: four words, lowest first.
struct PhiloxStream {
    std::uint64_t seed;
    std::uint64_t low, high;
};

template <typename T>
struct RandomOperators {
    // Element i of y is x[i] * scale where word i of the stream is at least `threshold`, else 0.
    void (*dropout)(const PhiloxStream& stream, std::uint32_t threshold, T scale, int64_t count, const T* x, T* y);
};

}  // namespace pycnn::cpu
