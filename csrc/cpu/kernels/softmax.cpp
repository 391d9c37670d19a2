// Softmax and log-softmax over one axis, and their gradients.
//
// Every slice along the axis is walked twice or three times: the maximum, the sum of exponentials, the result.  Along
// the last axis a slice lies in memory and is reduced across the vector; along another, a block of neighbouring slices
// is walked side by side, a lane each, narrow enough that the block stays in cache between the passes.
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
    return sum_lanes<T>(total);
}

constexpr auto kLowest = -__builtin_inf();

template <typename T>
static void row_fwd(int64_t n, bool log, const T* x, T* y) {
    constexpr T kLow = static_cast<T>(kLowest);
    Vec<T> largest = broadcast(kLow);
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        largest = greater<T>(load_lanes(x + i, lanes, kLow), largest);
    });
    const T top = max_lanes<T>(largest);
    if (log) {
        const T sum = sum_row<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            return vexp<T>(load_lanes(x + i, lanes, kLow) - top);
        });
        const T log_sum = vlog<T>(broadcast(sum))[0];
        for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
            store_lanes(y + i, (load_lanes(x + i, lanes) - top) - log_sum, lanes);
        });
        return;
    }
    const T sum = sum_row<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> e = vexp<T>(load_lanes(x + i, lanes, kLow) - top);
        store_lanes(y + i, e, lanes);
        return e;
    });
    const T scale = T(1) / sum;
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        store_lanes(y + i, load_lanes(y + i, lanes) * scale, lanes);
    });
}

template <typename T>
static void row_bwd(int64_t n, bool log, const T* dy, const T* y, T* dx) {
    const T sum = sum_row<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> d = load_lanes(dy + i, lanes);
        return log ? d : d * load_lanes(y + i, lanes);
    });
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const Vec<T> d = load_lanes(dy + i, lanes);
        const Vec<T> v = load_lanes(y + i, lanes);
        store_lanes(dx + i, log ? d - vexp<T>(v) * sum : v * (d - sum), lanes);
    });
}

// VECTORS vectors of slices side by side; element t of them at x[t * step].
template <typename T, int VECTORS>
PYCNN_INLINE void column_fwd(int64_t n, int64_t step, int64_t lanes, bool log, const T* x, T* y) {
    constexpr int64_t kL = kLanes<T>;
    Vec<T> top[VECTORS];
    Vec<T> total[VECTORS] = {};
    for (int v = 0; v < VECTORS; v++) top[v] = broadcast(static_cast<T>(kLowest));
    for (int64_t t = 0; t < n; t++) {
        for (int v = 0; v < VECTORS; v++) top[v] = greater<T>(load_lanes(x + t * step + v * kL, lanes), top[v]);
    }
    for (int64_t start = 0; start < n; start += kPart) {
        Vec<T> part[VECTORS] = {};
        for (int64_t t = start; t < least(n, start + kPart); t++) {
            for (int v = 0; v < VECTORS; v++) {
                const Vec<T> e = vexp<T>(load_lanes(x + t * step + v * kL, lanes) - top[v]);
                if (!log) store_lanes(y + t * step + v * kL, e, lanes);
                part[v] += e;
            }
        }
        for (int v = 0; v < VECTORS; v++) total[v] += part[v];
    }
    for (int v = 0; v < VECTORS; v++) total[v] = log ? vlog<T>(total[v]) : T(1) / total[v];
    for (int64_t t = 0; t < n; t++) {
        for (int v = 0; v < VECTORS; v++) {
            const int64_t at = t * step + v * kL;
            const Vec<T> result =
                log ? (load_lanes(x + at, lanes) - top[v]) - total[v] : load_lanes(y + at, lanes) * total[v];
            store_lanes(y + at, result, lanes);
        }
    }
}

template <typename T, int VECTORS>
PYCNN_INLINE void column_bwd(int64_t n, int64_t step, int64_t lanes, bool log, const T* dy, const T* y, T* dx) {
    constexpr int64_t kL = kLanes<T>;
    Vec<T> total[VECTORS] = {};
    for (int64_t start = 0; start < n; start += kPart) {
        Vec<T> part[VECTORS] = {};
        for (int64_t t = start; t < least(n, start + kPart); t++) {
            for (int v = 0; v < VECTORS; v++) {
                const Vec<T> d = load_lanes(dy + t * step + v * kL, lanes);
                part[v] += log ? d : d * load_lanes(y + t * step + v * kL, lanes);
            }
        }
        for (int v = 0; v < VECTORS; v++) total[v] += part[v];
    }
    for (int64_t t = 0; t < n; t++) {
        for (int v = 0; v < VECTORS; v++) {
            const int64_t at = t * step + v * kL;
            const Vec<T> d = load_lanes(dy + at, lanes);
            const Vec<T> value = load_lanes(y + at, lanes);
            store_lanes(dx + at, log ? d - vexp<T>(value) * total[v] : value * (d - total[v]), lanes);
        }
    }
}

// row(offset) for every slice of the last axis; or for slices of another, four(offset) where four whole vectors of them
// lie side by side and one(offset, lanes) for the rest.
template <typename T, typename Row, typename Four, typename One>
static void for_slices(const SoftmaxShape& s, const Row& row, const Four& four, const One& one) {
    if (s.outer * s.count * s.inner == 0) return;
    if (s.inner == 1) {
        const int64_t rows = most(1, kChunk / 4 / s.count);  // exponentials are dear: smaller chunks
        parallel(ceil_div(s.outer, rows), [&](int64_t task) {
            for (int64_t i = task * rows; i < least(s.outer, (task + 1) * rows); i++) row(i * s.count);
        });
        return;
    }
    constexpr int64_t kWide = 4 * kLanes<T>;
    const int64_t width = most(kWide, kChunk / 4 / s.count / kWide * kWide);
    const int64_t blocks = ceil_div(s.inner, width);
    parallel(s.outer * blocks, [&](int64_t task) {
        const int64_t start = task % blocks * width;
        const int64_t offset = task / blocks * s.count * s.inner + start;
        const int64_t end = least(width, s.inner - start);
        int64_t j = 0;
        for (; j + kWide <= end; j += kWide) four(offset + j);
        for (; j < end; j += kLanes<T>) one(offset + j, least(kLanes<T>, end - j));
    });
}

template <typename T>
void softmax_fwd(const SoftmaxShape& s, const T* x, T* y) {
    for_slices<T>(
        s, [&](int64_t at) { row_fwd(s.count, s.log, x + at, y + at); },
        [&](int64_t at) { column_fwd<T, 4>(s.count, s.inner, kLanes<T>, s.log, x + at, y + at); },
        [&](int64_t at, int64_t lanes) { column_fwd<T, 1>(s.count, s.inner, lanes, s.log, x + at, y + at); });
}

template <typename T>
void softmax_bwd(const SoftmaxShape& s, const T* dy, const T* y, T* dx) {
    for_slices<T>(
        s, [&](int64_t at) { row_bwd(s.count, s.log, dy + at, y + at, dx + at); },
        [&](int64_t at) { column_bwd<T, 4>(s.count, s.inner, kLanes<T>, s.log, dy + at, y + at, dx + at); },
        [&](int64_t at, int64_t lanes) { column_bwd<T, 1>(s.count, s.inner, lanes, s.log, dy + at, y + at, dx + at); });
}

template void softmax_fwd(const SoftmaxShape&, const float*, float*);
template void softmax_fwd(const SoftmaxShape&, const double*, double*);
template void softmax_bwd(const SoftmaxShape&, const float*, const float*, float*);
template void softmax_bwd(const SoftmaxShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
