// Max pooling, with indices or without.
//
// A vector holds neighbouring outputs of a row.  For its taps to be plain loads whatever the stride, the rows that a
// block of outputs needs are first laid out by phase, with -inf around them (here stride 2, one column of padding):
//
//     row        x0 x1 x2 x3 x4 x5 ...
//     phase 0    -inf x1 x3 x5 ...         tap s of outputs q, q+1, ... begins at
//     phase 1    x0 x2 x4 ...              phase (s * dilation) % stride, element q + (s * dilation) / stride
//
// As in PyTorch a tap wins if it is greater than the maximum so far, or NaN: the first of equals, and the last NaN.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// Integers as wide as the elements: offsets from a window's corner, which the caller has seen to fit.
template <typename T>
struct OffsetOf;
template <>
struct OffsetOf<float> {
    typedef int32_t Scalar;
    typedef int32_t Vector __attribute__((vector_size(PYCNN_VECTOR_BYTES)));
};
template <>
struct OffsetOf<double> {
    typedef int64_t Scalar;
    typedef int64_t Vector __attribute__((vector_size(PYCNN_VECTOR_BYTES)));
};
template <typename T>
using Offset = typename OffsetOf<T>::Scalar;
template <typename T>
using Offsets = typename OffsetOf<T>::Vector;

template <typename T>
constexpr T kMinusInfinity = static_cast<T>(-__builtin_inf());

// Window by window: for windows of different sizes, and where a row has too few outputs to fill a vector.
template <typename T>
static void max_windows(const MaxPool<T>& p, const T* x, T* y, int64_t* indices) {
    for (int64_t i = 0; i < p.rows.out; i++) {
        const Span rows = p.rows.windows[i];
        for (int64_t j = 0; j < p.columns.out; j++) {
            const Span columns = p.columns.windows[j];
            T best = kMinusInfinity<T>;
            int64_t index = -1;
            for (int64_t h = rows.begin; h < rows.end; h += p.rows.step) {
                for (int64_t w = columns.begin; w < columns.end; w += p.columns.step) {
                    const T value = x[h * p.columns.size + w];
                    if (value > best || value != value || index < 0) {
                        best = value;
                        index = h * p.columns.size + w;
                    }
                }
            }
            *y++ = best;
            if (indices != nullptr) *indices++ = index;
        }
    }
}

// The layout above, for one problem.
template <typename T>
struct Phases {
    int64_t vectors;  // of outputs in a row
    int64_t phases, length;
    int64_t row;  // elements of one laid-out row

    explicit Phases(const PoolAxis& columns) {
        const int64_t reach = (columns.taps - 1) * columns.step;
        vectors = ceil_div(columns.out, kLanes<T>);
        phases = least(columns.stride, reach + 1);
        length = vectors * kLanes<T> + reach / columns.stride;
        row = phases * length;
    }

    // Where in a laid-out row tap s of output 0 lies.
    int64_t tap(const PoolAxis& columns, int64_t s) const {
        const int64_t offset = s * columns.step;
        return offset % columns.stride * length + offset / columns.stride;
    }

    void lay_out(const PoolAxis& columns, const T* from, T* to) const {
        for (int64_t phase = 0; phase < phases; phase++, to += length) {
            // Element j is column j * stride + phase - pad.
            const int64_t shift = columns.pad - phase;
            const int64_t first = least(length, shift > 0 ? ceil_div(shift, columns.stride) : 0);
            const int64_t inside = columns.size + shift;
            const int64_t last = most(first, least(length, inside > 0 ? ceil_div(inside, columns.stride) : 0));
            fill(to, kMinusInfinity<T>, first);
            if (first < last)
                copy_strided(to + first, from + (first * columns.stride - shift), columns.stride, last - first);
            fill(to + last, kMinusInfinity<T>, length - last);
        }
    }
};

// What all rows of a problem share.
template <typename T>
struct MaxRows {
    const MaxPool<T>& problem;
    Phases<T> phases;
    const int64_t* taps;      // where in a laid-out row each tap of output 0 lies
    const Offset<T>* firsts;  // for each output of a row, from its corner to its window's first column in the image
    bool empties;             // some window holds no pixel
};

// to[q] = origin + q * stride + offsets[q].
template <typename T>
static void place(int64_t n, int64_t origin, int64_t stride, const Offset<T>* __restrict offsets,
                  int64_t* __restrict to) {
    for (int64_t q = 0; q < n; q++) to[q] = origin + q * stride + offsets[q];
}

// Output rows [p0, p1) of one plane.  `rows` is room for the laid-out input rows, `offsets` for one row of outputs.
// TAPS is the width of the window where it is a usual one, so that its loop is unrolled; else 0.  `offsets` and
// `indices` are used only with INDICES.
template <typename T, int64_t TAPS, bool INDICES>
static void max_rows(const MaxRows<T>& shared, int64_t p0, int64_t p1, const T* x, T* rows, Offset<T>* offsets, T* y,
                     int64_t* indices) {
    const PoolAxis& v = shared.problem.rows;
    const PoolAxis& u = shared.problem.columns;
    const Phases<T>& phases = shared.phases;
    const int64_t taps = TAPS == 0 ? u.taps : TAPS;
    const int64_t top = most(0, p0 * v.stride - v.pad);
    const int64_t bottom = least(v.size, (p1 - 1) * v.stride - v.pad + (v.taps - 1) * v.step + 1);
    for (int64_t h = top; h < bottom; h++) phases.lay_out(u, x + h * u.size, rows + (h - top) * phases.row);
    for (int64_t i = p0; i < p1; i++) {
        const int64_t corner = i * v.stride - v.pad;
        const Span window = v.windows[i];
        for (int64_t j = 0; j < u.out; j += kLanes<T>) {
            Vec<T> best = broadcast(kMinusInfinity<T>);
            Offsets<T> found = {};
            if constexpr (INDICES) {
                __builtin_memcpy(&found, shared.firsts + j, sizeof found);
                found += static_cast<Offset<T>>((window.begin - corner) * u.size);
            }
            for (int64_t h = window.begin; h < window.end; h += v.step) {
                const T* row = rows + (h - top) * phases.row + j;
                Offset<T> offset = static_cast<Offset<T>>((h - corner) * u.size);
                for (int64_t s = 0; s < taps; s++, offset += static_cast<Offset<T>>(u.step)) {
                    const Vec<T> value = load(row + shared.taps[s]);
                    const Offsets<T> wins = (value > best) | (value != value);
                    best = wins ? value : best;
                    if constexpr (INDICES) found = wins ? Offsets<T>{} + offset : found;
                }
            }
            store_part(y + i * u.out + j, best, least(kLanes<T>, u.out - j));
            if constexpr (INDICES) __builtin_memcpy(offsets + j, &found, sizeof found);
        }
        if constexpr (!INDICES) continue;
        place<T>(u.out, corner * u.size - u.pad, u.stride, offsets, indices + i * u.out);
        if (!shared.empties) continue;
        for (int64_t j = 0; j < u.out; j++) {
            if (window.begin >= window.end || u.windows[j].begin >= u.windows[j].end) indices[i * u.out + j] = -1;
        }
    }
}

template <typename T, bool INDICES>
static auto max_rows_of(int64_t taps) {
    return taps == 3 ? max_rows<T, 3, INDICES> : taps == 2 ? max_rows<T, 2, INDICES> : max_rows<T, 0, INDICES>;
}

static bool any_empty(const PoolAxis& axis) {
    for (int64_t i = 0; i < axis.out; i++) {
        if (axis.windows[i].begin >= axis.windows[i].end) return true;
    }
    return false;
}

template <typename T>
void max_pool_fwd(const MaxPool<T>& p) {
    const int64_t image = p.rows.size * p.columns.size;
    const int64_t out = p.rows.out * p.columns.out;
    if (p.rows.taps == 0 || p.columns.taps == 0 || p.columns.out < 4) {
        const int64_t together = most(1, kChunk / most(image, 1));
        return parallel(ceil_div(p.planes, together), 8 * p.planes * image, [&](int64_t task) {
            for (int64_t i = task * together; i < least(p.planes, (task + 1) * together); i++) {
                max_windows(p, p.x + i * image, p.y + i * out, p.indices == nullptr ? nullptr : p.indices + i * out);
            }
        });
    }
    const Phases<T> phases(p.columns);
    Scratch<int64_t> taps(static_cast<std::size_t>(p.columns.taps));
    for (int64_t s = 0; s < p.columns.taps; s++) taps.get()[s] = phases.tap(p.columns, s);
    Scratch<Offset<T>> firsts(static_cast<std::size_t>(phases.vectors * kLanes<T>));
    for (int64_t q = 0; q < phases.vectors * kLanes<T>; q++) {
        const bool any = q < p.columns.out && p.columns.windows[q].begin < p.columns.windows[q].end;
        const int64_t corner = q * p.columns.stride - p.columns.pad;
        firsts.get()[q] = any ? static_cast<Offset<T>>(p.columns.windows[q].begin - corner) : 0;
    }
    const MaxRows<T> shared = {p, phases, taps.get(), firsts.get(), any_empty(p.rows) || any_empty(p.columns)};
    const auto run =
        p.indices == nullptr ? max_rows_of<T, false>(p.columns.taps) : max_rows_of<T, true>(p.columns.taps);
    // A task is a block of rows whose input stays in L2, or several small planes.
    constexpr int64_t kRoom = (256 << 10) / sizeof(T);
    const int64_t reach = (p.rows.taps - 1) * p.rows.step + 1;
    const int64_t fitting = (kRoom / phases.row - reach) / p.rows.stride + 1;
    const int64_t height = most(1, least(p.rows.out, fitting));
    const int64_t blocks = ceil_div(p.rows.out, height);
    const int64_t room = least(p.rows.size, (height - 1) * p.rows.stride + reach) * phases.row;
    const int64_t total = p.planes * blocks;
    const int64_t together = most(1, kChunk / 2 / most(1, image / blocks));
    parallel(ceil_div(total, together), 4 * p.planes * image, [&](int64_t task) {
        Scratch<T> rows(static_cast<std::size_t>(room));
        Scratch<Offset<T>> offsets(static_cast<std::size_t>(phases.vectors * kLanes<T>));
        for (int64_t i = task * together; i < least(total, (task + 1) * together); i++) {
            const int64_t plane = i / blocks;
            const int64_t p0 = i % blocks * height;
            run(shared, p0, least(p.rows.out, p0 + height), p.x + plane * image, rows.get(), offsets.get(),
                p.y + plane * out, p.indices == nullptr ? nullptr : p.indices + plane * out);
        }
    });
}

template void max_pool_fwd(const MaxPool<float>&);
template void max_pool_fwd(const MaxPool<double>&);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
