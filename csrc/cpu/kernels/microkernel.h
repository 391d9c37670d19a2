// The one inner loop of the engine: a register tile of ROWS x (VECTORS vectors) accumulates an outer product a step.
//
//              B: one vector row a step, VECTORS vectors wide
//              +-----------------------------+
//              | b[t][0..lanes) ... vectors  |
//              +-----------------------------+
//     A        +-----------------------------+
//   a[t][0] -> | acc[0][0]  acc[0][1]  ...   |   each a is broadcast, each acc[i][j] += a[t][i] * b[t][j]
//   a[t][1] -> | acc[1][0]  acc[1][1]  ...   |
//     ...      +-----------------------------+
//
// GEMM packs B into panels (b_step = width).  Direct convolution points B straight into the padded image: the reduction
// runs over (c, r, s) and `b_offset[t]` says how far each tap lies from the first one.  A may be packed (a_row = 1) or
// be read where it lies (a_step = 1: `rows` streams along memory).
//
// A step issues ROWS * VECTORS multiply-adds and ROWS + VECTORS loads; with two of each a cycle the multiply-adds are
// the limit from VECTORS = 2 on.
#pragma once

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Tile sizes that keep both FMA pipes busy: ROWS * VECTORS accumulators + VECTORS of B + one broadcast (and one product
// where there is no FMA) fit the register file, 32 registers with AVX-512, else 16.
#if PYCNN_VECTOR_BYTES == 64
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#elif PYCNN_VECTOR_BYTES == 32
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
#else
constexpr int kTileRows = 4;
constexpr int kTileVectors = 2;
#endif

// How the operands of a tile are walked.
template <typename T>
struct TileOperands {
    int64_t depth;  // steps of the reduction
    const T* a;     // a(t, i) at a[t * a_step + i * a_row]
    int64_t a_step, a_row;
    const T* b;  // b(t) at b[t * b_step], or at b[b_offset[t]] for the Gathered tile
    int64_t b_step;
    const int32_t* b_offset;
    T* c;  // c(i, j) at c[i * c_row + j * lanes]; added to if `accumulate`
    int64_t c_row;
    bool accumulate;
    const T* bias = nullptr;  // one value a row, where the sum starts; null for zero
    // The walk of `depth` steps is done `repeat` times; a and b start that much further on each time.
    int64_t repeat = 1;
    int64_t a_repeat = 0;
    int64_t b_repeat = 0;
    // From a step's vectors to those of a later tile, which are asked for where every step lies in another page; or 0.
    int64_t b_next = 0;
};

template <typename T, int ROWS, int VECTORS, bool GATHERED>
__attribute__((noinline)) static void tile(const TileOperands<T>& o) {
    constexpr int kAhead = 64;              // steps: A comes from far away, and its next page from nowhere
    constexpr int kBases = (ROWS + 2) / 3;  // pointers into A: three rows of each are within reach of one address mode
    Vec<T> acc[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) acc[i][j] = o.bias != nullptr ? broadcast(o.bias[i]) : Vec<T>{};
    }
    const int64_t depth = o.depth;
    const int64_t row = o.a_row;
    const int64_t a_step = o.a_step;
    const int64_t b_step = o.b_step;
    for (int64_t turn = 0; turn < o.repeat; turn++) {
        const T* a[kBases];
        for (int i = 0; i < kBases; i++) a[i] = o.a + turn * o.a_repeat + 3 * i * row;
        const T* b = o.b + turn * o.b_repeat;
        for (int64_t t = 0; t < depth; t++) {
            __builtin_prefetch(a[0] + kAhead * a_step);
            const T* bt = GATHERED ? b + o.b_offset[t] : b;
            if (!GATHERED && o.b_next != 0) {
#pragma GCC unroll 8
                for (int j = 0; j < VECTORS; j++) __builtin_prefetch(bt + o.b_next + j * kLanes<T>, 0, 2);
            }
            Vec<T> bv[VECTORS];
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++) bv[j] = load(bt + j * kLanes<T>);
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) {
                const Vec<T> av = broadcast(a[i / 3][i % 3 * row]);
#pragma GCC unroll 8
                for (int j = 0; j < VECTORS; j++) acc[i][j] += av * bv[j];
            }
#pragma GCC unroll 8
            for (int i = 0; i < kBases; i++) a[i] += a_step;
            if (!GATHERED) b += b_step;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++) {
        T* c = o.c + i * o.c_row;
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) {
            T* at = c + j * kLanes<T>;
            store(at, o.accumulate ? load(at) + acc[i][j] : acc[i][j]);
        }
    }
}

// tile<> with the number of rows chosen at run time, 1..kTileRows.
template <typename T, int VECTORS, bool GATHERED, int ROWS = kTileRows>
static void tile_rows(int rows, const TileOperands<T>& o) {
    if constexpr (ROWS == 1) {
        tile<T, 1, VECTORS, GATHERED>(o);
    } else if (rows == ROWS) {
        tile<T, ROWS, VECTORS, GATHERED>(o);
    } else {
        tile_rows<T, VECTORS, GATHERED, ROWS - 1>(rows, o);
    }
}

// tile<> with both sizes chosen at run time, 1..kTileRows rows and 1..kTileVectors vectors.
template <typename T, bool GATHERED, int VECTORS = kTileVectors>
static void tile_any(int64_t rows, int64_t vectors, const TileOperands<T>& o) {
    if constexpr (VECTORS == 1) {
        tile_rows<T, 1, GATHERED>(static_cast<int>(rows), o);
    } else if (vectors == VECTORS) {
        tile_rows<T, VECTORS, GATHERED>(static_cast<int>(rows), o);
    } else {
        tile_any<T, GATHERED, VECTORS - 1>(rows, vectors, o);
    }
}

// Cuts `vectors` into strips of at most kTileVectors, as even as they come: 4 is 2 + 2, not 3 + 1.
struct Strips {
    int64_t vectors;
    int64_t count;
    explicit Strips(int64_t all) : vectors(all), count(ceil_div(all, kTileVectors)) {}
    int64_t start(int64_t strip) const { return strip * vectors / count; }
    int64_t width(int64_t strip) const { return start(strip + 1) - start(strip); }
};

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
