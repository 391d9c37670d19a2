// Sums over the elements of a channel or of a group: in chunks that stay in L1, merged in order in double.
#pragma once

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

constexpr int64_t kStatisticsChunk = 4096;

// One channel's elements: `runs` runs of `length` elements, `stride` apart.  A chunk is a part of it.
struct Runs {
    int64_t runs, length, stride;
};

// body(offset, runs) for the chunks of a channel, in order.
template <typename Body>
PYCNN_INLINE void for_chunks(const Runs& channel, const Body& body) {
    const int64_t together = most(1, kStatisticsChunk / most(channel.length, 1));
    for (int64_t i = 0; i < channel.runs; i += together) {
        const int64_t runs = least(together, channel.runs - i);
        for (int64_t start = 0; start < channel.length; start += kStatisticsChunk) {
            body(i * channel.stride + start,
                 Runs{runs, least(kStatisticsChunk, channel.length - start), channel.stride});
        }
    }
}

// add(j, offset, lanes) for the vectors of a chunk; j, below 4, says which of four independent sums takes it.
template <typename T, typename Add>
PYCNN_INLINE void for_chunk(const Runs& chunk, const Add& add) {
    for (int64_t i = 0; i < chunk.runs; i++) {
        const int64_t at = i * chunk.stride;
        int64_t l = 0;
        for (; l + 4 * kLanes<T> <= chunk.length; l += 4 * kLanes<T>) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) add(j, at + l + j * kLanes<T>, static_cast<int64_t>(kLanes<T>));
        }
        for (; l < chunk.length; l += kLanes<T>) add(0, at + l, least(kLanes<T>, chunk.length - l));
    }
}

template <typename T>
PYCNN_INLINE double sum_of(const Vec<T> (&parts)[4]) {
    return static_cast<double>(sum_of<T>((parts[0] + parts[1]) + (parts[2] + parts[3])));
}

struct Moments {
    double count, mean, squares;  // squares: the sum of squared distances from the mean
};

template <typename T>
static Moments moments(const T* x, const Runs& channel) {
    Moments all = {};
    for_chunks(channel, [&](int64_t offset, const Runs& chunk) {
        const T* from = x + offset;
        const double count = static_cast<double>(chunk.runs * chunk.length);
        Vec<T> sums[4] = {};
        for_chunk<T>(chunk, [&](int j, int64_t at, int64_t lanes)
                                __attribute__((always_inline)) { sums[j] += load_part(from + at, lanes); });
        const T mean = static_cast<T>(sum_of<T>(sums) / count);
        Vec<T> squares[4] = {};
        Vec<T> rests[4] = {};
        for_chunk<T>(chunk, [&](int j, int64_t at, int64_t lanes) __attribute__((always_inline)) {
            const Vec<T> distance = load_part(from + at, lanes, mean) - mean;
            squares[j] += distance * distance;
            rests[j] += distance;
        });
        // `mean` was rounded to T; what the distances add up to says by how much.
        const double rest = sum_of<T>(rests);
        const double chunk_mean = static_cast<double>(mean) + rest / count;
        const double chunk_squares = sum_of<T>(squares) - rest * rest / count;
        const double apart = chunk_mean - all.mean;
        const double total = all.count + count;
        all.mean += apart * count / total;
        all.squares += chunk_squares + apart * apart * all.count * count / total;
        all.count = total;
    });
    return all;
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
