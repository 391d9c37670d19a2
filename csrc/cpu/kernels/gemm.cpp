// Matrix product: packed panels of B, packed blocks of A, the register tile of microkernel.h.
//
//   for each block of kDepth of the reduction, for each kColumns columns: pack B into panels of one tile's width
//     for each kRows rows: pack A into slivers of one tile's height, then run tiles over rows x panels
//
// A task owns a block of C and walks the whole reduction, so results do not depend on the number of threads.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/microkernel.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T>
constexpr int kPanel = kTileVectors * kLanes<T>;  // columns of a tile

// A panel of B: rows [t0, t0+depth), columns [j0, j0+width), zero beyond `width` up to kPanel.
template <typename T>
static void pack_panel(const T* b, int64_t b_row, int64_t b_col, int64_t depth, int64_t width, T* to) {
    constexpr int kWidth = kPanel<T>;
    if (b_col == 1 && width == kWidth) {
        for (int64_t t = 0; t < depth; t++) __builtin_memcpy(to + t * kWidth, b + t * b_row, kWidth * sizeof(T));
        return;
    }
    if (b_row == 1) {  // a transposed B: read each column along memory
        for (int64_t j = 0; j < kWidth; j++) {
            for (int64_t t = 0; t < depth; t++) to[t * kWidth + j] = j < width ? b[t + j * b_col] : T(0);
        }
        return;
    }
    for (int64_t t = 0; t < depth; t++) {
        for (int64_t j = 0; j < kWidth; j++) to[t * kWidth + j] = j < width ? b[t * b_row + j * b_col] : T(0);
    }
}

// A sliver of A: `rows` rows, a[i][t] to to[t * rows + i].
template <typename T>
static void pack_sliver(const T* a, int64_t a_row, int64_t a_col, int64_t rows, int64_t depth, T* to) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t t = 0; t < depth; t++) to[t * rows + i] = a[i * a_row + t * a_col];
    }
}

template <typename T>
void gemm(const Gemm<T>& p) {
    constexpr int64_t kDepth = 256;            // a panel of B (kDepth x kPanel) stays in L1
    constexpr int64_t kRows = 12 * kTileRows;  // a block of A (kRows x kDepth) stays in L2
    constexpr int64_t kColumns = 4 * kPanel<T>;
    const int64_t row_blocks = ceil_div(p.m, kRows);
    const int64_t column_blocks = ceil_div(p.n, kColumns);
    parallel(row_blocks * column_blocks, [&](int64_t task) {
        const int64_t i0 = task % row_blocks * kRows;
        const int64_t j0 = task / row_blocks * kColumns;
        const int64_t rows = least(kRows, p.m - i0);
        const int64_t columns = least(kColumns, p.n - j0);
        Scratch<T> packed_a(kRows * kDepth);
        Scratch<T> packed_b(kColumns * kDepth);
        T edge[kTileRows * kPanel<T>];
        for (int64_t t0 = 0; t0 < most(p.k, 1); t0 += kDepth) {
            const int64_t depth = least(kDepth, p.k - t0);
            for (int64_t j = 0; j < columns; j += kPanel<T>) {
                pack_panel(p.b + t0 * p.b_row + (j0 + j) * p.b_col, p.b_row, p.b_col, depth,
                           least(kPanel<T>, columns - j), packed_b.get() + j * kDepth);
            }
            for (int64_t i = 0; i < rows; i += kTileRows) {
                pack_sliver(p.a + (i0 + i) * p.a_row + t0 * p.a_col, p.a_row, p.a_col, least(kTileRows, rows - i),
                            depth, packed_a.get() + i * kDepth);
            }
            for (int64_t j = 0; j < columns; j += kPanel<T>) {
                for (int64_t i = 0; i < rows; i += kTileRows) {
                    const int64_t height = least(kTileRows, rows - i);
                    const int64_t width = least(kPanel<T>, columns - j);
                    T* c = p.c + (i0 + i) * p.c_row + j0 + j;
                    const bool whole = width == kPanel<T>;
                    tile_rows<T, kTileVectors, false>(static_cast<int>(height), {.depth = depth,
                                                                                 .a = packed_a.get() + i * kDepth,
                                                                                 .a_step = height,
                                                                                 .a_row = 1,
                                                                                 .b = packed_b.get() + j * kDepth,
                                                                                 .b_step = kPanel<T>,
                                                                                 .b_offset = nullptr,
                                                                                 .c = whole ? c : edge,
                                                                                 .c_row = whole ? p.c_row : kPanel<T>,
                                                                                 .accumulate = whole && t0 > 0});
                    if (!whole) {
                        for (int64_t r = 0; r < height; r++) {
                            for (int64_t q = 0; q < width; q++) {
                                T* at = c + r * p.c_row + q;
                                *at = (t0 > 0 ? *at : T(0)) + edge[r * kPanel<T> + q];
                            }
                        }
                    }
                }
            }
        }
        if (p.bias != nullptr) {
            for (int64_t i = 0; i < rows; i++) {
                for (int64_t j = 0; j < columns; j++) p.c[(i0 + i) * p.c_row + j0 + j] += p.bias[j0 + j];
            }
        }
    });
}

template void gemm(const Gemm<float>&);
template void gemm(const Gemm<double>&);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
