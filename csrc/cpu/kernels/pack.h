// Transposed copies: how an operand that lies along the wrong axis gets into the order a tile walks it.
#pragma once

#include "cpu/kernels/masked.h"
#include "cpu/kernels/microkernel.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns.  Nothing else of `to` is changed.
template <typename T>
static void copy_transposed(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row) {
    constexpr int kL = kLanes<T>;
    // As many rows as lanes are more streams than the hardware follows: they are asked for four lines ahead.
    constexpr int64_t kAhead = 4 * 64 / static_cast<int64_t>(sizeof(T));
    for (int64_t i0 = 0; i0 < rows; i0 += kL) {
        const int64_t height = least(kL, rows - i0);
        int64_t j0 = 0;
        // Blocks of lanes x lanes; a part of one pays if it is at least half full.
        while (2 * height >= kL && (j0 + kL <= columns || (kMasks && 2 * (columns - j0) >= kL))) {
            const int64_t width = least(kL, columns - j0);
            Vec<T> block[kL];
#pragma GCC unroll 16
            for (int i = 0; i < kL; i++) {
                const T* row = from + (i0 + i) * from_row + j0;
                __builtin_prefetch(row + kAhead);
                block[i] = i >= height ? Vec<T>{} : width == kL ? load(row) : load_part(row, width);
            }
            transpose<T>(block);
            T* at = to + j0 * to_row + i0;
            // A short column may be stored whole where the columns after it will cover what it spills.
            if (width == kL &&
                (height == kL || (to_row == height && (j0 + kL - 1) * to_row + kL <= columns * to_row))) {
#pragma GCC unroll 16
                for (int j = 0; j < kL; j++) store(at + j * to_row, block[j]);
            } else {
#pragma GCC unroll 16
                for (int j = 0; j < kL; j++) {
                    if (j < width) store_part(at + j * to_row, block[j], height);
                }
            }
            j0 += width;
        }
        for (; j0 < columns; j0++) {
            for (int64_t i = i0; i < i0 + height; i++) to[j0 * to_row + i] = from[i * from_row + j0];
        }
    }
}

// A sliver of the left operand for a tile: to[t * rows + i] = a[i * a_row + t * a_col].
template <typename T>
static void pack_sliver(const T* a, int64_t a_row, int64_t a_col, int64_t rows, int64_t depth, T* to) {
    if (a_col == 1) {
        copy_transposed(a, a_row, rows, depth, to, rows);
        return;
    }
    if (a_row == 1 &&
        rows == kTileRows) {  // a size known while compiling: plain moves, several times a masked one's pace
        for (int64_t t = 0; t < depth; t++) {
            __builtin_memcpy(to + t * kTileRows, a + t * a_col, kTileRows * sizeof(T));
        }
        return;
    }
    if (kMasks && a_row == 1) {
        for (int64_t t = 0; t < depth; t++) copy(to + t * rows, a + t * a_col, rows);
        return;
    }
    for (int64_t t = 0; t < depth; t++) {
        for (int64_t i = 0; i < rows; i++) to[t * rows + i] = a[i * a_row + t * a_col];
    }
}

// A panel of the right operand: to[t * panel + j] = b[t * b_row + j * b_col], zero from `width` to `panel`, which is a
// whole number of vectors.
template <typename T>
static void pack_panel(const T* b, int64_t b_row, int64_t b_col, int64_t depth, int64_t width, int64_t panel, T* to) {
    if (b_col == 1) {
        for (int64_t t = 0; t < depth; t++) {
            for (int64_t j = 0; j < panel; j += kLanes<T>) {
                const int64_t left = width - j;
                store(to + t * panel + j,
                      left >= kLanes<T> ? load(b + t * b_row + j) : load_part(b + t * b_row + j, left));
            }
        }
        return;
    }
    if (width < panel) fill(to, T(0), depth * panel);
    if (b_row == 1) {
        copy_transposed(b, b_col, width, depth, to, panel);
        return;
    }
    for (int64_t t = 0; t < depth; t++) {
        for (int64_t j = 0; j < width; j++) to[t * panel + j] = b[t * b_row + j * b_col];
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
