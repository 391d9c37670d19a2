// Matrix product: the blocked product of product.h; two kernels for few rows, where reading B once is the whole cost,
// and one for a short reduction, where writing C is.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/product.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Few rows against a transposed B (a linear layer on a small batch): dot products along memory, four columns of B and
// `ROWS` rows of A at a time, so that every element of B is read once and each of A a quarter as often.
constexpr int64_t kDotRows = 4;
constexpr int64_t kDotColumns = 4;

template <typename T, int ROWS>
static void dot_block(const Gemm<T>& p, int64_t i, int64_t j, int64_t columns) {
    Vec<T> acc[ROWS][kDotColumns] = {};
    const T* b[kDotColumns];
    for (int64_t q = 0; q < kDotColumns; q++) b[q] = p.b + (j + least(q, columns - 1)) * p.b_col;
    int64_t t = 0;
    for (; t + kLanes<T> <= p.k; t += kLanes<T>) {
        Vec<T> bv[kDotColumns];
#pragma GCC unroll 4
        for (int q = 0; q < kDotColumns; q++) bv[q] = load(b[q] + t);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const Vec<T> av = load(p.a + (i + r) * p.a_row + t);
#pragma GCC unroll 4
            for (int q = 0; q < kDotColumns; q++) acc[r][q] += av * bv[q];
        }
    }
    for (int r = 0; r < ROWS; r++) {
        for (int64_t q = 0; q < columns; q++) {
            const Vec<T> tail = load_part(p.a + (i + r) * p.a_row + t, p.k - t) * load_part(b[q] + t, p.k - t);
            const T sum = sum_of<T>(acc[r][q] + tail);
            p.c[(i + r) * p.c_row + j + q] = p.bias != nullptr ? sum + p.bias[j + q] : sum;
        }
    }
}

template <typename T>
static void gemm_dots(const Gemm<T>& p) {
    constexpr int64_t kBlock = 16 * kDotColumns;
    parallel(ceil_div(p.n, kBlock), p.n * p.k, [&](int64_t block) {
        const int64_t end = least(p.n, (block + 1) * kBlock);
        for (int64_t j = block * kBlock; j < end; j += kDotColumns) {
            const int64_t columns = least(kDotColumns, end - j);
            for (int64_t i = 0; i < p.m; i += kDotRows) {
                switch (least(kDotRows, p.m - i)) {
                    case 1:
                        dot_block<T, 1>(p, i, j, columns);
                        break;
                    case 2:
                        dot_block<T, 2>(p, i, j, columns);
                        break;
                    case 3:
                        dot_block<T, 3>(p, i, j, columns);
                        break;
                    default:
                        dot_block<T, 4>(p, i, j, columns);
                        break;
                }
            }
        }
    });
}

// Few rows against a plain B (the input gradient of that layer): rows of B, eight at a time, are added into C, a block
// of columns that stays in L1.  Whole rows are what the prefetcher likes; a panel of the blocked product is a narrow
// strip.
constexpr int64_t kSumRows = 4;
constexpr int64_t kSumDepth = 8;
constexpr int64_t kSumColumns = 512;

// c[i] += sum over DEPTH rows t of a[i][t] * b[t], on `columns` columns.
template <typename T, int DEPTH>
static void add_rows(const Gemm<T>& p, int64_t t, int64_t j, int64_t columns) {
    const T* b = p.b + t * p.b_row + j;
    for (int64_t i = 0; i < p.m; i++) {
        T factors[DEPTH];
#pragma GCC unroll 8
        for (int d = 0; d < DEPTH; d++) factors[d] = p.a[i * p.a_row + (t + d) * p.a_col];
        T* c = p.c + i * p.c_row + j;
        for_vectors<T>(columns, [&](int64_t q, int64_t lanes) __attribute__((always_inline)) {
            Vec<T> sum = load_part(c + q, lanes);
#pragma GCC unroll 8
            for (int d = 0; d < DEPTH; d++) sum += factors[d] * load_part(b + d * p.b_row + q, lanes);
            store_part(c + q, sum, lanes);
        });
    }
}

template <typename T>
static void gemm_sums(const Gemm<T>& p) {
    parallel(ceil_div(p.n, kSumColumns), p.n * p.k, [&](int64_t block) {
        const int64_t j = block * kSumColumns;
        const int64_t columns = least(kSumColumns, p.n - j);
        for (int64_t i = 0; i < p.m; i++) {
            if (p.bias != nullptr) {
                copy(p.c + i * p.c_row + j, p.bias + j, columns);
            } else {
                fill(p.c + i * p.c_row + j, T(0), columns);
            }
        }
        int64_t t = 0;
        for (; t + kSumDepth <= p.k; t += kSumDepth) add_rows<T, kSumDepth>(p, t, j, columns);
        for (; t < p.k; t++) add_rows<T, 1>(p, t, j, columns);
    });
}

// A short reduction over a plain B (the weight gradient of a small batch): C is written row by row, once.
constexpr int64_t kShort = 4;

template <typename T, int DEPTH>
static void short_row(const Gemm<T>& p, int64_t i) {
    T factors[DEPTH];
    for (int d = 0; d < DEPTH; d++) factors[d] = p.a[i * p.a_row + d * p.a_col];
    T* c = p.c + i * p.c_row;
    for_vectors<T>(p.n, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
        Vec<T> sum = factors[0] * load_part(p.b + j, lanes);
#pragma GCC unroll 4
        for (int d = 1; d < DEPTH; d++) sum += factors[d] * load_part(p.b + d * p.b_row + j, lanes);
        if (p.bias != nullptr) sum += load_part(p.bias + j, lanes);
        store_part(c + j, sum, lanes);
    });
}

template <typename T>
static void gemm_short(const Gemm<T>& p) {
    const auto row = p.k == 1   ? short_row<T, 1>
                     : p.k == 2 ? short_row<T, 2>
                     : p.k == 3 ? short_row<T, 3>
                                : short_row<T, 4>;
    const int64_t together = most(1, kChunk / p.n);
    parallel(ceil_div(p.m, together), p.m * p.n, [&](int64_t task) {
        for (int64_t i = task * together; i < least(p.m, (task + 1) * together); i++) row(p, i);
    });
}

template <typename T>
void gemm(const Gemm<T>& p) {
    if (p.m == 0 || p.n == 0) return;
    const bool plain = !p.accumulate && p.row_bias == nullptr;
    if (plain && p.m <= 3 * kDotRows && p.b_row == 1 && p.a_col == 1 && p.k >= kLanes<T>) return gemm_dots(p);
    if (plain && p.b_col == 1 && p.n >= kLanes<T> && 0 < p.k && p.k <= kShort) return gemm_short(p);
    if (plain && p.b_col == 1 && p.n >= kLanes<T> && p.m <= kSumRows) return gemm_sums(p);
    product<T>(
        {.batch = 1,
         .m = p.m,
         .n = p.n,
         .k = p.k,
         .accumulate = p.accumulate,
         .row_bias = p.row_bias,
         .bias_batch = 1,
         .column_bias = p.bias},
        p.c_row,
        [&](int64_t, int64_t i, int64_t rows, int64_t t, int64_t depth, int64_t uses, T* room) {
            return fetch_rows(p.a + i * p.a_row + t * p.a_col, p.a_row, p.a_col, rows, depth, uses, room);
        },
        [&](int64_t, int64_t j, int64_t width, int64_t panel, int64_t t, int64_t depth, int64_t uses, T* room) {
            return fetch_panel(p.b + t * p.b_row + j * p.b_col, p.b_row, p.b_col, width, panel, depth, uses, room);
        },
        [&](int64_t) { return p.c; });
}

template void gemm(const Gemm<float>&);
template void gemm(const Gemm<double>&);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
