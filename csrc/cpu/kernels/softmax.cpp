// Softmax and log-softmax over one axis, and their gradients.
//
// Every slice along the axis is walked twice or three times: the maximum, the sum of exponentials, the result.  Along
// the last axis a slice lies in memory and is reduced across the vector; along another, a block of neighbouring slices
// is walked side by side, a lane each, narrow enough that the block stays in cache between the passes.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/vecmath.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Long sums are added up in parts, each short enough that its rounding errors stay small.
constexpr int64_t kPart = 4096;

// Sum over a row of term(i, lanes), where term gives 0 in lanes beyond `lanes`.
template <typename T, typename Term>
PYCNN_INLINE T sum_row(int64_t n, const Term& term) {
    Vec<T> total = {};
    for (int64_t start = 0; start < n; start += kPart) {
        Vec<T> part = {};
        for_vectors<T>(least(kPart, n - start), [&](int64_t i, int64_t lanes)
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

// One vector of slices side by side; element t of them at x[t * step].
template <typename T>
PYCNN_INLINE void column_fwd(int64_t n, int64_t step, int64_t lanes, bool log, const T* x, T* y) {
    Vec<T> top = broadcast(static_cast<T>(kLowest));
    for (int64_t t = 0; t < n; t++) top = greater<T>(load_lanes(x + t * step, lanes), top);
    Vec<T> total = {};
    for (int64_t start = 0; start < n; start += kPart) {
        Vec<T> part = {};
        for (int64_t t = start; t < least(n, start + kPart); t++) {
            const Vec<T> e = vexp<T>(load_lanes(x + t * step, lanes) - top);
            if (!log) store_lanes(y + t * step, e, lanes);
            part += e;
        }
        total += part;
    }
    if (log) {
        const Vec<T> log_sum = vlog<T>(total);
        for (int64_t t = 0; t < n; t++) {
            store_lanes(y + t * step, (load_lanes(x + t * step, lanes) - top) - log_sum, lanes);
        }
    } else {
        const Vec<T> scale = T(1) / total;
        for (int64_t t = 0; t < n; t++) {
            store_lanes(y + t * step, load_lanes(y + t * step, lanes) * scale, lanes);
        }
    }
}

template <typename T>
PYCNN_INLINE void column_bwd(int64_t n, int64_t step, int64_t lanes, bool log, const T* dy, const T* y, T* dx) {
    Vec<T> total = {};
    for (int64_t start = 0; start < n; start += kPart) {
        Vec<T> part = {};
        for (int64_t t = start; t < least(n, start + kPart); t++) {
            const Vec<T> d = load_lanes(dy + t * step, lanes);
            part += log ? d : d * load_lanes(y + t * step, lanes);
        }
        total += part;
    }
    for (int64_t t = 0; t < n; t++) {
        const Vec<T> d = load_lanes(dy + t * step, lanes);
        const Vec<T> v = load_lanes(y + t * step, lanes);
        store_lanes(dx + t * step, log ? d - vexp<T>(v) * total : v * (d - total), lanes);
    }
}

// row(offset) for every slice of the last axis, or column(offset, lanes) for every vector of slices of another.
template <typename T, typename Row, typename Column>
static void for_slices(const SoftmaxShape& s, const Row& row, const Column& column) {
    if (s.outer * s.count * s.inner == 0) return;
    if (s.inner == 1) {
        const int64_t rows = most(1, kChunk / 4 / s.count);  // exponentials are dear: smaller chunks
        parallel(ceil_div(s.outer, rows), [&](int64_t task) {
            for (int64_t i = task * rows; i < least(s.outer, (task + 1) * rows); i++) row(i * s.count);
        });
        return;
    }
    const int64_t width = most(kLanes<T>, kChunk / 4 / s.count / kLanes<T> * kLanes<T>);
    const int64_t blocks = ceil_div(s.inner, width);
    parallel(s.outer * blocks, [&](int64_t task) {
        const int64_t start = task % blocks * width;
        const int64_t offset = task / blocks * s.count * s.inner + start;
        for_vectors<T>(least(width, s.inner - start),
                       [&](int64_t j, int64_t lanes) __attribute__((always_inline)) { column(offset + j, lanes); });
    });
}

template <typename T>
void softmax_fwd(const SoftmaxShape& s, const T* x, T* y) {
    for_slices<T>(
        s, [&](int64_t at) { row_fwd(s.count, s.log, x + at, y + at); },
        [&](int64_t at, int64_t lanes)
            __attribute__((always_inline)) { column_fwd(s.count, s.inner, lanes, s.log, x + at, y + at); });
}

template <typename T>
void softmax_bwd(const SoftmaxShape& s, const T* dy, const T* y, T* dx) {
    for_slices<T>(
        s, [&](int64_t at) { row_bwd(s.count, s.log, dy + at, y + at, dx + at); },
        [&](int64_t at, int64_t lanes)
            __attribute__((always_inline)) { column_bwd(s.count, s.inner, lanes, s.log, dy + at, y + at, dx + at); });
}

template void softmax_fwd(const SoftmaxShape&, const float*, float*);
template void softmax_fwd(const SoftmaxShape&, const double*, double*);
template void softmax_bwd(const SoftmaxShape&, const float*, const float*, float*);
template void softmax_bwd(const SoftmaxShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
