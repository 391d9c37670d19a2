// The inner loop of the packed layout: a register tile of ROWS pixels x (VECTORS vectors of filters).
//
//                 filters: one vector of every block a step, in the order of memory
//                 +--------------+--------------+
//                 | w[t] block 0 | w[t] block 1 |
//                 +--------------+--------------+
//   x of pixel 0  | acc[0][0]    | acc[0][1]    |   each x is broadcast, acc[i][j] += x[i][t] * w[t][j]
//   x of pixel 1  | acc[1][0]    | acc[1][1]    |
//     ...         +--------------+--------------+
//
// The steps of the reduction come in runs: within one, x moves through the channels of a block and w through its
// vectors of filters; `run[i]` says where the i-th begins.  A run for each (channel block, r, s) makes a convolution; a
// run for each channel block makes a product of matrices.
//
// ROWS * VECTORS multiply-adds a step need ROWS + VECTORS loads: with two of each a cycle the multiply-adds are the
// limit.  28 sums, 2 vectors of filters and one broadcast are all that fits into 32 registers.
#pragma once

#include "cpu/kernels/simd.h"
#include "cpu/packed.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

constexpr int kPackedVectors = 2;
#if PYCNN_VECTOR_BYTES == 64
constexpr int kPackedRows = 14;
#elif PYCNN_VECTOR_BYTES == 32
constexpr int kPackedRows = 6;
#else
constexpr int kPackedRows = 5;
#endif

constexpr int kBlock = kLanes<float>;  // channels of a block

// Whether whole vectors of channels may be read and written.
PYCNN_INLINE bool is_packed(const PackedView& view) {
    return view.lane == 1 && view.pixel % kBlock == 0;
}

struct Run {
    int64_t x, w;  // floats from the pixel's own place, and from the first filter
};

struct PackedTile {
    const float* x;
    int64_t x_step, x_lane;  // from one pixel, and from one channel of a block, to the next
    const Run* run;
    int64_t runs, full;  // the first `full` runs are `depth` steps deep, the others `tail`
    int64_t depth, tail;
    const float* w;
    int64_t w_vector;       // from one block of filters to the next
    const float* bias;      // where the sums start; null for zero
    bool accumulate;        // they start from y
    const float* residual;  // added at the end, or null
    int64_t residual_step, residual_vector;
    Clamp clamp;
    float* y;
    int64_t y_step, y_vector;
};

template <int ROWS, int VECTORS>
__attribute__((noinline)) static void packed_tile(const PackedTile& o) {
    constexpr int kBases = (ROWS + 2) / 3;  // pointers into x: three pixels of each are within one address mode's reach
    constexpr int64_t kAhead = 48;          // steps: filters stream through, and a core follows only so many streams
    const int64_t step = o.x_step;
    const int64_t lane = o.x_lane;
    const int64_t w_vector = o.w_vector;
    const int64_t next_line = lane == 1 ? step : lane;  // from one line of the next run's pixels to another
    Vec<float> sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS; j++) {
            sum[i][j] = o.accumulate        ? load(o.y + i * o.y_step + j * o.y_vector)
                        : o.bias != nullptr ? load(o.bias + j * kBlock)
                                            : Vec<float>{};
        }
    }
    for (int64_t run = 0; run < o.runs; run++) {
        const int64_t depth = run < o.full ? o.depth : o.tail;
        const float* w = o.w + o.run[run].w;
        const float* x[kBases];
        for (int i = 0; i < kBases; i++) x[i] = o.x + o.run[run].x + 3 * i * step;
        if (run + 1 < o.full) {  // the pixels of the next run, which lie elsewhere
            const float* next = o.x + o.run[run + 1].x;
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) __builtin_prefetch(next + i * next_line);
        }
        for (int64_t t = 0; t < depth; t++) {
            Vec<float> filters[VECTORS];
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS; j++) {
                filters[j] = load(w + j * w_vector);
                __builtin_prefetch(w + j * w_vector + kAhead * kBlock);
            }
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) {
                const Vec<float> pixel = broadcast(x[i / 3][i % 3 * step]);
#pragma GCC unroll 2
                for (int j = 0; j < VECTORS; j++) sum[i][j] += pixel * filters[j];
            }
            w += kBlock;
#pragma GCC unroll 8
            for (int i = 0; i < kBases; i++) x[i] += lane;
        }
    }
    const auto each = [&](const auto& change) {
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS; j++) change(i, j, sum[i][j]);
        }
    };
    if (const float* residual = o.residual; residual != nullptr) {
        const int64_t residual_step = o.residual_step;
        const int64_t residual_vector = o.residual_vector;
        each([&](int i, int j, Vec<float>& value) {
            value += load(residual + i * residual_step + j * residual_vector);
        });
    }
    const auto [low, high] = o.clamp;
    if (low > -__builtin_inff() || high < __builtin_inff()) {  // Winograd's products, a tile each, have no end
        each([&](int, int, Vec<float>& value) { value = clamped<float>(value, low, high); });
    }
    float* y = o.y;
    const int64_t y_step = o.y_step;
    const int64_t y_vector = o.y_vector;
    each([&](int i, int j, const Vec<float>& value) { store(y + i * y_step + j * y_vector, value); });
}

// packed_tile<> with both sizes chosen at run time.
template <int VECTORS, int ROWS = kPackedRows>
static void packed_tile_rows(int64_t rows, const PackedTile& o) {
    if constexpr (ROWS == 1) {
        packed_tile<1, VECTORS>(o);
    } else if (rows == ROWS) {
        packed_tile<ROWS, VECTORS>(o);
    } else {
        packed_tile_rows<VECTORS, ROWS - 1>(rows, o);
    }
}

static inline void packed_tile_any(int64_t rows, int64_t vectors, const PackedTile& o) {
    vectors == 1 ? packed_tile_rows<1>(rows, o) : packed_tile_rows<2>(rows, o);
}

// `count` pixels in tiles of nearly equal height: body(first, height).
template <typename Body>
PYCNN_INLINE void packed_tiles(int64_t count, const Body& body) {
    const int64_t tiles = ceil_div(count, kPackedRows);
    for (int64_t i = 0, first = 0; i < tiles; i++) {
        const int64_t height = count / tiles + (i < count % tiles);
        body(first, height);
        first += height;
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
