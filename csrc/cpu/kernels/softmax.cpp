// Softmax and log-softmax over one axis, and their gradients.
//
// Every slice along the axis is walked twice or three times: the maximum, the sum of exponentials, the result.  Along
// the last axis a slice lies in memory and is reduced across the vector; along another, a block of neighbouring slices
// is walked side by side, a lane each.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vecmath.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Long sums are added up in parts of this many terms a lane, so that rounding errors do not grow with the length.
constexpr int64_t kPart = 256;

// Sum over a row of term(i, lanes), where term gives 0 in lanes beyond `lanes`.
template <typename T, typename Term>
PYCNN_INLINE T sum_row(int64_t n, const Term& term) {
    Vec<T> total = {};
    for (int64_t start = 0; start < n; start += kPart * kLanes<T>) {
        Vec<T> part = {};
        for_vectors<T>(least(kPart * kLanes<T>, n - start),
                       [&](int64_t i, int64_t lanes)
                           __attribute__((always_inline)) { part += term(start + i, lanes); });
        total += part;
    }
    return sum_of<T>(total);
}

constexpr auto kLowest = -__builtin_inf();

template <typename T>
static void row_fwd(int64_t n, bool log, const T* x, T* y) {
    constexpr T kLow = static_cast<T>(kLowest);
    Vec<T> largest = broadcast(kLow);
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        largest = greater<T>(load_part(x + i, lanes, kLow), largest);
    });
    const T top = max_of<T>(largest);
    if (log) {
        const T sum = sum_row<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            return vexp<T>(load_part(x + i, lanes, kLow) - top);
        });
        const T log_sum = vlog<T>(broadcast(sum))[0];
        for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            store_part(y + i, (load_part(x + i, lanes) - top) - log_sum, lanes);
        });
        return;
    }
    const T sum = sum_row<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> e = vexp<T>(load_part(x + i, lanes, kLow) - top);
        store_part(y + i, e, lanes);
        return e;
    });
    const T scale = T(1) / sum;
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        store_part(y + i, load_part(y + i, lanes) * scale, lanes);
    });
}

template <typename T>
static void row_bwd(int64_t n, bool log, const T* dy, const T* y, T* dx) {
    const T sum = sum_row<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> d = load_part(dy + i, lanes);
        return log ? d : d * load_part(y + i, lanes);
    });
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> d = load_part(dy + i, lanes);
        const Vec<T> v = load_part(y + i, lanes);
        store_part(dx + i, log ? d - vexp<T>(v) * sum : v * (d - sum), lanes);
    });
}

// Slices that do not lie along memory: `width` of them, side by side.  Element t of all of them is a row of memory,
// which is walked as such; what belongs to a slice (its maximum, its sum) is in a row of `room`.  The block is narrow
// enough to stay in cache between the passes, and wide enough that its rows are long.
constexpr int64_t kColumns = 1024;
constexpr int64_t kColumnsRoom = 3 * kColumns;

// total[j] = the sum over t of row(t, j, lanes), added up in parts.
template <typename T, typename Row>
PYCNN_INLINE void sum_columns(int64_t n, int64_t width, T* total, T* part, const Row& row) {
    for (int64_t start = 0; start < n; start += kPart) {
        T* to = start == 0 ? total : part;
        for (int64_t j = 0; j < width; j += kLanes<T>) store(to + j, Vec<T>{});
        for (int64_t t = start; t < least(n, start + kPart); t++) {
            for_vectors<T>(width, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
                store(to + j, load(to + j) + row(t, j, lanes));
            });
        }
        if (start == 0) continue;
        for (int64_t j = 0; j < width; j += kLanes<T>) store(total + j, load(total + j) + load(part + j));
    }
}

template <typename T, bool LOG>
static void columns_fwd(int64_t n, int64_t step, int64_t width, const T* x, T* y, T* room) {
    constexpr T kLow = static_cast<T>(kLowest);
    T* top = room;
    T* total = top + kColumns;
    for (int64_t j = 0; j < width; j += kLanes<T>) store(top + j, broadcast(kLow));
    for (int64_t t = 0; t < n; t++) {
        for_vectors<T>(width, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
            store(top + j, greater<T>(load_part(x + t * step + j, lanes, kLow), load(top + j)));
        });
    }
    sum_columns(n, width, total, total + kColumns,
                [&](int64_t t, int64_t j, int64_t lanes) __attribute__((always_inline)) {
                    const int64_t at = t * step + j;
                    const Vec<T> e = vexp<T>(load_part(x + at, lanes, kLow) - load(top + j));
                    if (!LOG) store_part(y + at, e, lanes);
                    return e;
                });
    for (int64_t j = 0; j < width; j += kLanes<T>) {
        store(total + j, LOG ? vlog<T>(load(total + j)) : T(1) / load(total + j));
    }
    for (int64_t t = 0; t < n; t++) {
        for_vectors<T>(width, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
            const int64_t at = t * step + j;
            store_part(y + at,
                       LOG ? (load_part(x + at, lanes) - load(top + j)) - load(total + j)
                           : load_part(y + at, lanes) * load(total + j),
                       lanes);
        });
    }
}

template <typename T, bool LOG>
static void columns_bwd(int64_t n, int64_t step, int64_t width, const T* dy, const T* y, T* dx, T* room) {
    T* total = room;
    sum_columns(n, width, total, total + kColumns,
                [&](int64_t t, int64_t j, int64_t lanes) __attribute__((always_inline)) {
                    const Vec<T> d = load_part(dy + t * step + j, lanes);
                    return LOG ? d : d * load_part(y + t * step + j, lanes);
                });
    for (int64_t t = 0; t < n; t++) {
        for_vectors<T>(width, [&](int64_t j, int64_t lanes) __attribute__((always_inline)) {
            const int64_t at = t * step + j;
            const Vec<T> d = load_part(dy + at, lanes);
            const Vec<T> value = load_part(y + at, lanes);
            const Vec<T> sum = load(total + j);
            store_part(dx + at, LOG ? d - vexp<T>(value) * sum : value * (d - sum), lanes);
        });
    }
}

// row(offset) for every slice of the last axis, or columns(offset, width, room) for blocks of slices of another.
template <typename T, typename Row, typename Columns>
static void for_slices(const SoftmaxShape& s, const Row& row, const Columns& columns) {
    if (s.outer * s.count * s.inner == 0) return;
    if (s.inner == 1) {
        const int64_t rows = most(1, kChunk / 4 / s.count);  // exponentials are dear: smaller chunks
        return parallel(ceil_div(s.outer, rows), 8 * s.outer * s.count, [&](int64_t task) {
            for (int64_t i = task * rows; i < least(s.outer, (task + 1) * rows); i++) row(i * s.count);
        });
    }
    const int64_t fitting = 2 * kChunk / s.count / kLanes<T> * kLanes<T>;
    const int64_t width = most(4 * kLanes<T>, least(kColumns, fitting));
    const int64_t blocks = ceil_div(s.inner, width);
    const int64_t total = s.outer * blocks;
    const int64_t together = most(1, kChunk / 4 / (s.count * least(width, s.inner)));
    parallel(ceil_div(total, together), 8 * s.outer * s.count * s.inner, [&](int64_t task) {
        Scratch<T> room(static_cast<std::size_t>(kColumnsRoom));
        for (int64_t i = task * together; i < least(total, (task + 1) * together); i++) {
            const int64_t start = i % blocks * width;
            columns(i / blocks * s.count * s.inner + start, least(width, s.inner - start), room.get());
        }
    });
}

template <typename T>
void softmax_fwd(const SoftmaxShape& s, const T* x, T* y) {
    const auto columns = s.log ? columns_fwd<T, true> : columns_fwd<T, false>;
    for_slices<T>(
        s, [&](int64_t at) { row_fwd(s.count, s.log, x + at, y + at); },
        [&](int64_t at, int64_t width, T* room) { columns(s.count, s.inner, width, x + at, y + at, room); });
}

template <typename T>
void softmax_bwd(const SoftmaxShape& s, const T* dy, const T* y, T* dx) {
    const auto columns = s.log ? columns_bwd<T, true> : columns_bwd<T, false>;
    for_slices<T>(
        s, [&](int64_t at) { row_bwd(s.count, s.log, dy + at, y + at, dx + at); },
        [&](int64_t at, int64_t width, T* room) { columns(s.count, s.inner, width, dy + at, y + at, dx + at, room); });
}

template void softmax_fwd(const SoftmaxShape&, const float*, float*);
template void softmax_fwd(const SoftmaxShape&, const double*, double*);
template void softmax_bwd(const SoftmaxShape&, const float*, const float*, float*);
template void softmax_bwd(const SoftmaxShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
