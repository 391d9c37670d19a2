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
// runs over (c, r, s) and `b_offset[t]` says how far each tap lies from the first one.
#pragma once

#include "cpu/kernels/simd.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Tile sizes that keep both FMA pipes busy: ROWS * VECTORS accumulators + VECTORS of B (+ one broadcast where the
// instruction set cannot multiply by a value in memory) fit the register file, 32 registers with AVX-512, else 16.
#if PYCNN_VECTOR_BYTES == 64
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
#elif PYCNN_VECTOR_BYTES == 32
constexpr int kTileRows = 4;
constexpr int kTileVectors = 3;
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
};

template <typename T, int ROWS, int VECTORS, bool GATHERED>
static void tile(const TileOperands<T>& o) {
    Vec<T> acc[ROWS][VECTORS] = {};
    const T* a = o.a;
    const T* b = o.b;
    const int64_t row = o.a_row;
    for (int64_t t = 0; t < o.depth; t++) {
        const T* bt = GATHERED ? b + o.b_offset[t] : b;
        Vec<T> bv[VECTORS];
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) bv[j] = load(bt + j * kLanes<T>);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            const Vec<T> av = broadcast(a[i * row]);
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++) acc[i][j] += av * bv[j];
        }
        a += o.a_step;
        if (!GATHERED) b += o.b_step;
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

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
