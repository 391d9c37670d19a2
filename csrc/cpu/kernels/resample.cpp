// Interpolation along the two axes of a plane, by tables of taps.
//
// A row goes through the table of the columns first where the plane grows, and each such row is kept for as long as rows
// of y need it; where it shrinks, rows are added up first, so that less is left to go through the columns.  Along a row
// the taps are gathered, run by run of neighbours that have equally many.
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/lanes.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

template <typename T, int COUNT>
static void gather(const TapTable<T>& u, int64_t begin, int64_t end, const T* __restrict x, T* __restrict y) {
    const int64_t* __restrict start = u.start;
    const T* __restrict weight = u.weight;
    for (int64_t q = begin; q < end; q++) {
        T sum = weight[q] * x[start[q]];
#pragma GCC unroll 8
        for (int64_t t = 1; t < COUNT; t++) sum += weight[t * u.out + q] * x[start[q] + t];
        y[q] = sum;
    }
}

// A row of y from a row of x.
template <typename T>
static void across(const TapTable<T>& u, const T* __restrict x, T* __restrict y) {
    for (int64_t r = 0; r < u.run_count; r++) {
        const TapRun run = u.runs[r];
        switch (run.count) {
            case 0:
                for (int64_t q = run.begin; q < run.end; q++) y[q] = T(0);
                break;
            case 1:
                gather<T, 1>(u, run.begin, run.end, x, y);
                break;
            case 2:
                gather<T, 2>(u, run.begin, run.end, x, y);
                break;
            case 3:
                gather<T, 3>(u, run.begin, run.end, x, y);
                break;
            case 4:
                gather<T, 4>(u, run.begin, run.end, x, y);
                break;
            default:
                gather<T, 4>(u, run.begin, run.end, x, y);
                for (int64_t q = run.begin; q < run.end; q++) {
                    T sum = y[q];
                    for (int64_t t = 4; t < run.count; t++) sum += u.weight[t * u.out + q] * x[u.start[q] + t];
                    y[q] = sum;
                }
        }
    }
}

// y = a*p + b*q, or y += that.
template <bool ADD, typename T>
PYCNN_INLINE void two_rows(int64_t width, T a, const T* __restrict p, T b, const T* __restrict q, T* __restrict y) {
    for (int64_t i = 0; i < width; i++) y[i] = (ADD ? y[i] : T(0)) + (a * p[i] + b * q[i]);
}

// Row i of y from rows of `width` elements; row(h) is where row h is.
template <typename T, typename Row>
PYCNN_INLINE void down(const TapTable<T>& v, int64_t i, int64_t width, const Row& row, T* __restrict y) {
    const int64_t start = v.start[i], count = v.count[i];
    const T* weight = v.weight + i;
    const auto at = [&](int64_t t) { return weight[t * v.out]; };
    if (count == 0) return fill(y, T(0), width);
    if (count == 1) {
        const T* __restrict x = row(start);
        const T w = at(0);
        if (w == T(1)) return copy(y, x, width);
        for (int64_t j = 0; j < width; j++) y[j] = w * x[j];
        return;
    }
    two_rows<false>(width, at(0), row(start), at(1), row(start + 1), y);
    int64_t t = 2;
    for (; t + 1 < count; t += 2) two_rows<true>(width, at(t), row(start + t), at(t + 1), row(start + t + 1), y);
    if (t < count) {
        const T* __restrict x = row(start + t);
        const T w = at(t);
        for (int64_t j = 0; j < width; j++) y[j] += w * x[j];
    }
}

// Rows that are added up before the first of them goes through the columns: single elements are read from where vectors
// were written, and a CPU has to wait for vectors that are still on their way to memory.
PYCNN_INLINE int64_t rows_at_once(int64_t width) {
    return most(1, least(16, kChunk / most(1, width)));
}

// Rows [begin, end) of one plane of y.  `room` holds rows on their way, `held` which ones.
template <typename T>
static void plane_rows(const Resample<T>& p, const T* x, T* y, int64_t begin, int64_t end, T* room, int64_t* held) {
    const TapTable<T>&v = p.rows, &u = p.columns;
    const auto given = [&](int64_t h) { return x + h * u.size; };
    if (v.start == nullptr) {
        for (int64_t i = begin; i < end; i++) across(u, given(i), y + i * u.out);
    } else if (u.start == nullptr) {
        for (int64_t i = begin; i < end; i++) down(v, i, u.size, given, y + i * u.out);
    } else if (v.out < v.size) {
        const int64_t together = rows_at_once(u.size);
        for (int64_t i = begin; i < end; i += together) {
            const int64_t rows = least(together, end - i);
            for (int64_t j = 0; j < rows; j++) down(v, i + j, u.size, given, room + j * u.size);
            for (int64_t j = 0; j < rows; j++) {
                across(u, static_cast<const T*>(room + j * u.size), y + (i + j) * u.out);
            }
        }
    } else {
        for (int64_t i = 0; i < v.most; i++) held[i] = -1;
        const auto kept = [&](int64_t h) {  // rows that one row of y needs are neighbours: each has a place of its own
            const int64_t slot = h % v.most;
            T* to = room + slot * u.out;
            if (held[slot] != h) {
                held[slot] = h;
                across(u, given(h), to);
            }
            return static_cast<const T*>(to);
        };
        for (int64_t i = begin; i < end; i++) down(v, i, u.out, kept, y + i * u.out);
    }
}

template <typename T>
void resample(const Resample<T>& p) {
    const TapTable<T>&v = p.rows, &u = p.columns;
    const int64_t plane = v.out * u.out, width = most(1, most(u.out, u.size));
    if (p.planes * plane == 0) return;
    // A task has whole planes, or some rows of one.
    const int64_t together = most(1, 2 * kChunk / most(plane, v.size * u.size));
    const int64_t rows = together > 1 ? v.out : least(v.out, ceil_div(4 * kChunk, width));
    const int64_t parts = ceil_div(v.out, rows);
    const int64_t kept = u.start != nullptr && v.start != nullptr
                             ? (v.out < v.size ? rows_at_once(u.size) * u.size : v.most * u.out)
                             : 0;
    parallel(ceil_div(p.planes, together) * parts, p.planes * (plane + v.size * u.size), [&](int64_t task) {
        Scratch<T> room(static_cast<std::size_t>(kept));
        Scratch<int64_t> held(static_cast<std::size_t>(v.most));
        const int64_t first = task / parts * together, begin = task % parts * rows;
        for (int64_t i = first; i < least(p.planes, first + together); i++) {
            plane_rows(p, p.x + i * v.size * u.size, p.y + i * plane, begin, least(v.out, begin + rows), room.get(),
                       held.get());
        }
    });
}

template void resample(const Resample<float>&);
template void resample(const Resample<double>&);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
