// Average pooling, regular and adaptive, forward and backward: a sum over a rectangle is taken down the columns first,
// along memory, a whole row of the image at once, and then across.  Backward the other way round.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

// A single window over everything there is; if so for columns, a window's rows are one run of memory.
static bool whole(const PoolAxis& axis) {
    return axis.out == 1 && axis.step == 1 && axis.windows[0].begin == 0 && axis.windows[0].end == axis.size;
}

template <typename T>
static T sum_run(const T* x, int64_t n) {
    Vec<T> sum = {};
    for_vectors<T>(n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) { sum += load_part(x + i, lanes); });
    return sum_of<T>(sum);
}

// sums[q] += padded[q * stride + s] over the taps s; the usual strides are constants, so that the loop becomes vectors.
template <typename T, int64_t STRIDE>
static void across(const T* __restrict padded, int64_t stride, int64_t taps, int64_t out, T* __restrict sums) {
    if (STRIDE != 0) stride = STRIDE;
    for (int64_t q = 0; q < out; q++) sums[q] = padded[q * stride];
    for (int64_t s = 1; s < taps; s++) {
        for (int64_t q = 0; q < out; q++) sums[q] += padded[q * stride + s];
    }
}

// Scratch: a row of the image with room for the padding on both sides, then a row of sums.
template <typename T>
static void avg_plane_fwd(const AvgPool<T>& p, const T* x, T* y, T* padded, T* sums) {
    const PoolAxis& u = p.columns;
    T* row = padded + u.pad;
    for (int64_t i = 0; i < p.rows.out; i++, y += u.out) {
        const Span rows = p.rows.windows[i];
        const T row_count = static_cast<T>(p.row_counts[i]);
        if (whole(u)) {
            const int64_t run = most(0, rows.end - rows.begin) * u.size;
            y[0] = sum_run(x + rows.begin * u.size, run) / (row_count * static_cast<T>(p.column_counts[0]));
            continue;
        }
        __builtin_memset(row, 0, static_cast<std::size_t>(u.size) * sizeof(T));
        for (int64_t h = rows.begin; h < rows.end; h++) {
            const T* __restrict from = x + h * u.size;
            T* __restrict to = row;
            for (int64_t w = 0; w < u.size; w++) to[w] += from[w];
        }
        if (u.taps == 0) {
            for (int64_t q = 0; q < u.out; q++) {
                T sum = 0;
                for (int64_t w = u.windows[q].begin; w < u.windows[q].end; w++) sum += row[w];
                sums[q] = sum;
            }
        } else if (u.stride == 1) {
            across<T, 1>(padded, 1, u.taps, u.out, sums);
        } else if (u.stride == 2) {
            across<T, 2>(padded, 2, u.taps, u.out, sums);
        } else {
            across<T, 0>(padded, u.stride, u.taps, u.out, sums);
        }
        for (int64_t q = 0; q < u.out; q++) y[q] = sums[q] / (row_count * static_cast<T>(p.column_counts[q]));
    }
}

template <typename T>
static void avg_plane_bwd(const AvgPool<T>& p, const T* dy, T* dx, T* row) {
    const PoolAxis& u = p.columns;
    __builtin_memset(dx, 0, static_cast<std::size_t>(p.rows.size * u.size) * sizeof(T));
    for (int64_t i = 0; i < p.rows.out; i++, dy += u.out) {
        const T row_count = static_cast<T>(p.row_counts[i]);
        __builtin_memset(row, 0, static_cast<std::size_t>(u.size) * sizeof(T));
        for (int64_t q = 0; q < u.out; q++) {
            const T share = dy[q] / (row_count * static_cast<T>(p.column_counts[q]));
            for (int64_t w = u.windows[q].begin; w < u.windows[q].end; w++) row[w] += share;
        }
        for (int64_t h = p.rows.windows[i].begin; h < p.rows.windows[i].end; h++) {
            const T* __restrict from = row;
            T* __restrict to = dx + h * u.size;
            for (int64_t w = 0; w < u.size; w++) to[w] += from[w];
        }
    }
}

// body(plane, scratch) for every plane; small planes share a task.
template <typename T, typename Body>
static void for_planes(const AvgPool<T>& p, int64_t scratch, const Body& body) {
    const int64_t together = most(1, kChunk / most(1, p.rows.size * p.columns.size));
    parallel(ceil_div(p.planes, together), 4 * p.planes * p.rows.size * p.columns.size, [&](int64_t task) {
        Scratch<T> room(static_cast<std::size_t>(scratch));
        for (int64_t i = task * together; i < least(p.planes, (task + 1) * together); i++) body(i, room.get());
    });
}

// body(plane) for every plane, where the whole of it is one window: global pooling.
template <typename T, typename Body>
static void for_whole_planes(const AvgPool<T>& p, const Body& body) {
    const int64_t together = most(1, kChunk / most(1, p.rows.size * p.columns.size));
    parallel(ceil_div(p.planes, together), 4 * p.planes * p.rows.size * p.columns.size, [&](int64_t task) {
        for (int64_t i = task * together; i < least(p.planes, (task + 1) * together); i++) body(i);
    });
}

template <typename T>
void avg_pool_fwd(const AvgPool<T>& p) {
    const PoolAxis& u = p.columns;
    if (whole(p.rows) && whole(u)) {
        const int64_t image = p.rows.size * u.size;
        const T count = static_cast<T>(p.row_counts[0]) * static_cast<T>(p.column_counts[0]);
        return for_whole_planes(p, [&](int64_t i) { p.out[i] = sum_run(p.in + i * image, image) / count; });
    }
    // The last window may reach beyond the padding (ceil_mode); what lies there counts as zero.
    const int64_t reach = u.taps == 0 ? u.size : (u.out - 1) * u.stride + u.taps;
    const int64_t padded = most(reach, u.pad + u.size);
    for_planes(p, padded + u.out, [&](int64_t plane, T* room) {
        for (int64_t w = 0; w < padded; w++) room[w] = T(0);
        avg_plane_fwd(p, p.in + plane * p.rows.size * u.size, p.out + plane * p.rows.out * u.out, room, room + padded);
    });
}

template <typename T>
void avg_pool_bwd(const AvgPool<T>& p) {
    const PoolAxis& u = p.columns;
    if (whole(p.rows) && whole(u)) {
        const int64_t image = p.rows.size * u.size;
        const T count = static_cast<T>(p.row_counts[0]) * static_cast<T>(p.column_counts[0]);
        return for_whole_planes(p, [&](int64_t i) { fill(p.out + i * image, p.in[i] / count, image); });
    }
    for_planes(p, u.size, [&](int64_t plane, T* room) {
        avg_plane_bwd(p, p.in + plane * p.rows.out * u.out, p.out + plane * p.rows.size * u.size, room);
    });
}

template void avg_pool_fwd(const AvgPool<float>&);
template void avg_pool_fwd(const AvgPool<double>&);
template void avg_pool_bwd(const AvgPool<float>&);
template void avg_pool_bwd(const AvgPool<double>&);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
