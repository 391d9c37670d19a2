// A batch of matrix products C = A * B whose operands are fetched, block by block, by two callbacks: GEMM packs or
// points into matrices, im2col unfolds an image on the way.
//
//   for each task = (batch, block of rows, block of columns):
//     for each kDepth of the reduction: fetch the rows' slivers of A (they stay in L2)
//       for each panel of B: fetch it (it stays in L1), run the register tile down the slivers
//
// A task owns a block of C and walks the whole reduction in order, so results do not depend on the number of threads.
#pragma once

#include "cpu/kernels/microkernel.h"
#include "cpu/kernels/pack.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// An operand as a tile walks it: step t of row (or vector) i at data[t * step + i * row].
template <typename T>
struct Walk {
    const T* data;
    int64_t step;
    int64_t row;
};

template <typename T>
struct Product {
    int64_t batch, m, n, k;
    bool accumulate;       // add to C instead of overwriting it
    const T* row_bias;     // m values for each `bias_batch` of the batch, or null
    int64_t bias_batch;    // batch entry i uses row_bias + i % bias_batch * m
    const T* column_bias;  // n values, or null
};

constexpr int64_t kDepth = PYCNN_VECTOR_BYTES == 64 ? 192 : 256;  // a panel of B, kDepth steps long, stays in L1

constexpr int kMostSlivers = 256 / kTileRows;  // in a task's block of A

// fetch_a(batch, i, rows, t, depth, uses, room) -> Walk of A's rows [i, i + rows) over steps [t, t + depth), which that
// many tiles will read; room for a copy.
// fetch_b(batch, j, width, panel, t, depth, uses, room) -> Walk of B's columns [j, j + width), readable up to `panel`
// columns. c_of(batch) -> C of that batch entry, rows c_row apart.
template <typename T, typename FetchA, typename FetchB, typename COf>
static void product(const Product<T>& p, int64_t c_row, const FetchA& fetch_a, const FetchB& fetch_b, const COf& c_of) {
    if (p.batch == 0 || p.m == 0 || p.n == 0) return;
    constexpr int64_t kMostStrips = 16;
    constexpr int64_t kTasks = 16;  // enough to keep several threads evenly busy
    const int64_t slivers = ceil_div(p.m, kTileRows);
    const Strips strips(ceil_div(p.n, kLanes<T>));
    int64_t sliver_block = least(slivers, kMostSlivers);
    int64_t strip_block = least(strips.count, kMostStrips);
    while (p.batch * ceil_div(slivers, sliver_block) * ceil_div(strips.count, strip_block) < kTasks) {
        if (strip_block > 1 && strip_block * kTileVectors * kLanes<T> >= sliver_block * kTileRows) {
            strip_block = ceil_div(strip_block, 2);
        } else if (sliver_block > 4) {
            sliver_block = ceil_div(sliver_block, 2);
        } else {
            break;
        }
    }
    const int64_t row_blocks = ceil_div(slivers, sliver_block);
    const int64_t column_blocks = ceil_div(strips.count, strip_block);
    parallel(p.batch * row_blocks * column_blocks, [&](int64_t task) {
        const int64_t batch = task / (row_blocks * column_blocks);
        const int64_t i0 = task % row_blocks * sliver_block * kTileRows;
        const int64_t rows = least(sliver_block * kTileRows, p.m - i0);
        const int64_t strip0 = task / row_blocks % column_blocks * strip_block;
        const int64_t strip1 = least(strip0 + strip_block, strips.count);
        const T* bias = p.row_bias == nullptr ? nullptr : p.row_bias + batch % p.bias_batch * p.m + i0;
        constexpr int64_t kPanel = kTileVectors * kLanes<T>;
        Scratch<T> room(ceil_div(rows, kTileRows) * kTileRows * kDepth + kPanel * kDepth + kTileRows * kPanel);
        T* room_a = room.get();
        T* room_b = room_a + ceil_div(rows, kTileRows) * kTileRows * kDepth;
        T* edge = room_b + kPanel * kDepth;
        Walk<T> a[kMostSlivers];
        T* c_block = c_of(batch) + i0 * c_row;
        for (int64_t t0 = 0; t0 == 0 || t0 < p.k; t0 += kDepth) {
            const int64_t depth = least(kDepth, p.k - t0);
            for (int64_t i = 0; i < rows; i += kTileRows) {
                a[i / kTileRows] =
                    fetch_a(batch, i0 + i, least(kTileRows, rows - i), t0, depth, strip1 - strip0, room_a + i * kDepth);
            }
            for (int64_t strip = strip0; strip < strip1; strip++) {
                const int64_t j = strips.start(strip) * kLanes<T>;
                const int64_t panel = strips.width(strip) * kLanes<T>;
                const int64_t width = least(panel, p.n - j);
                const Walk<T> b = fetch_b(batch, j, width, panel, t0, depth, ceil_div(rows, kTileRows), room_b);
                const bool add = t0 > 0 || p.accumulate;
                const bool whole = width == panel;
                for (int64_t i = 0; i < rows; i += kTileRows) {
                    const int64_t height = least(kTileRows, rows - i);
                    T* c = c_block + i * c_row + j;
                    tile_any<T, false>(height, strips.width(strip),
                                       {.depth = depth,
                                        .a = a[i / kTileRows].data,
                                        .a_step = a[i / kTileRows].step,
                                        .a_row = a[i / kTileRows].row,
                                        .b = b.data,
                                        .b_step = b.step,
                                        .b_offset = nullptr,
                                        .c = whole ? c : edge,
                                        .c_row = whole ? c_row : panel,
                                        .accumulate = whole && add,
                                        .bias = bias != nullptr && t0 == 0 ? bias + i : nullptr});
                    for (int64_t r = 0; r < height && !whole; r++) {
                        for (int64_t q = 0; q < width; q += kLanes<T>) {
                            const int64_t part = least(kLanes<T>, width - q);
                            Vec<T> sum = load(edge + r * panel + q);
                            if (add) sum += load_part(c + r * c_row + q, part);
                            store_part(c + r * c_row + q, sum, part);
                        }
                    }
                }
            }
        }
        if (p.column_bias == nullptr) return;
        for (int64_t i = 0; i < rows; i++) {
            const int64_t end = least(strips.start(strip1) * kLanes<T>, p.n);
            for (int64_t j = strips.start(strip0) * kLanes<T>; j < end; j += kLanes<T>) {
                const int64_t part = least(kLanes<T>, end - j);
                T* at = c_block + i * c_row + j;
                store_part(at, load_part(at, part) + load_part(p.column_bias + j, part), part);
            }
        }
    });
}

// The fetches of a plain matrix: read where it lies when few tiles would use a copy.
constexpr int64_t kFewUses = 4;

template <typename T>
PYCNN_INLINE Walk<T> fetch_rows(const T* a, int64_t a_row, int64_t a_col, int64_t rows, int64_t depth, int64_t uses,
                                T* room) {
    if (a_col == 1 && uses <= kFewUses) return {a, 1, a_row};
    if (a_row == 1 && uses <= kFewUses) return {a, a_col, 1};
    pack_sliver(a, a_row, a_col, rows, depth, room);
    return {room, rows, 1};
}

template <typename T>
PYCNN_INLINE Walk<T> fetch_panel(const T* b, int64_t b_row, int64_t b_col, int64_t width, int64_t panel, int64_t depth,
                                 int64_t uses, T* room) {
    if (b_col == 1 && width == panel && uses <= kFewUses) return {b, b_row, 0};
    pack_panel(b, b_row, b_col, depth, width, panel, room);
    return {room, panel, 0};
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
