// Depthwise convolution: a channel meets one filter, so a pass is a few taps over one plane and memory is the limit.
//
// A plane is copied with its padding, a residue of the stride at a time (taps.h), into a scratch that stays in L1; then
// every tap is one multiply-add on vectors of the plane, eight vectors of outputs at a time so that the additions of a
// tap do not wait for each other.
#include "cpu/kernels/conv.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/taps.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

namespace {

constexpr int64_t kPlane = 24 << 10;  // bytes of the planes of a block: L1 with room for the results

// to[0 .. VECTORS) = bias + sum over taps of weight[t] * plane[offset[t] ...]
template <typename T, int VECTORS>
void run(const T* plane, const int64_t* offset, const T* weight, int64_t taps, T bias, T* to) {
    Vec<T> acc[VECTORS];
#pragma GCC unroll 8
    for (int j = 0; j < VECTORS; j++) acc[j] = broadcast(bias);
    for (int64_t t = 0; t < taps; t++) {
        const Vec<T> w = broadcast(weight[t]);
#pragma GCC unroll 8
        for (int j = 0; j < VECTORS; j++) acc[j] += w * load(plane + offset[t] + j * kLanes<T>);
    }
#pragma GCC unroll 8
    for (int j = 0; j < VECTORS; j++) store(to + j * kLanes<T>, acc[j]);
}

// All of to[0 .. count), rounded up to eight vectors.
template <typename T>
void run_all(const T* plane, const int64_t* offset, const T* weight, int64_t taps, T bias, int64_t count, T* to) {
    constexpr int64_t kL = kLanes<T>;
    for (int64_t j = 0; j < count;) {
        if (count - j > 4 * kL) {
            run<T, 8>(plane + j, offset, weight, taps, bias, to + j);
            j += 8 * kL;
        } else if (count - j > 2 * kL) {
            run<T, 4>(plane + j, offset, weight, taps, bias, to + j);
            j += 4 * kL;
        } else {
            run<T, 2>(plane + j, offset, weight, taps, bias, to + j);
            j += 2 * kL;
        }
    }
}

// How many rows of outputs at a time, so that their planes fit.
template <typename T>
int64_t rows_of(int64_t residues, const Axis& h, const Axis& w) {
    const int64_t budget = kPlane / static_cast<int64_t>(sizeof(T));
    return most(1, least(h.count, budget / (residues * (w.count + w.reach)) - h.reach));
}

// How many planes make a task worth its start, where enough tasks remain.
int64_t planes_of(int64_t planes, int64_t blocks, int64_t size) {
    constexpr int64_t kElements = 64 << 10;
    constexpr int64_t kTasks = 32;
    return most(1, least(kElements / size, planes * blocks / kTasks));
}

// The distance of each tap of a phase from the first output, in planes of `plane` elements with rows of `row`.
void offsets_of(const Axis& h, const Axis& w, const Phase& ph, const Phase& pw, int64_t row, int64_t plane,
                int64_t* offset, int64_t* index) {
    for (int64_t r = 0; r < ph.taps; r++) {
        for (int64_t s = 0; s < pw.taps; s++) {
            const Tap& y = h.tap.get()[ph.tap + r];
            const Tap& x = w.tap.get()[pw.tap + s];
            *offset++ = (y.residue * w.residues + x.residue) * plane + y.offset * row + x.offset;
            *index++ = y.index * w.taps + x.index;
        }
    }
}

// sums[t] += gradient * plane at the distance of tap t, for up to TAPS taps: they share each vector of the gradient.
template <typename T, int TAPS>
void dot_rows(const T* gradient, int64_t rows, int64_t columns, const T* plane, int64_t row, const int64_t* offset,
              int64_t taps, Vec<T>* sums) {
    const T* tap[TAPS];
    Vec<T> acc[TAPS];
#pragma GCC unroll 16
    for (int64_t t = 0; t < TAPS; t++) {
        tap[t] = plane + offset[least(t, taps - 1)];
        acc[t] = Vec<T>{};
    }
    for (int64_t r = 0; r < rows; r++) {
        const T* line = gradient + r * columns;
        int64_t q = 0;
        for (; q + kLanes<T> <= columns; q += kLanes<T>) {
            const Vec<T> g = load(line + q);
#pragma GCC unroll 16
            for (int64_t t = 0; t < TAPS; t++) acc[t] += g * load(tap[t] + r * row + q);
        }
        if (q == columns) continue;
        const Vec<T> g = load_part(line + q, columns - q);
#pragma GCC unroll 16
        for (int64_t t = 0; t < TAPS; t++) acc[t] += g * load_part(tap[t] + r * row + q, columns - q);
    }
    for (int64_t t = 0; t < taps; t++) sums[t] += acc[t];
}

}  // namespace

template <typename T>
void depthwise_sum(const TapSum<T>& p) {
    constexpr int64_t kL = kLanes<T>;
    const int64_t residues = p.h.residues * p.w.residues;
    const int64_t row = p.w.count + p.w.reach;
    const int64_t block = rows_of<T>(residues, p.h, p.w);
    const int64_t plane = (block + p.h.reach) * row;
    const int64_t blocks = ceil_div(p.h.count, block);
    const int64_t sums_size = block * row + 8 * kL;  // of one column phase
    const int64_t all_taps = p.h.taps * p.w.taps;
    const int64_t planes = p.images * p.groups;
    // The taps of every phase, one phase after the other.
    const Scratch<int64_t> offset(all_taps);
    const Scratch<int64_t> index(all_taps);
    int64_t placed = 0;
    for (int64_t i = 0; i < p.h.phases * p.w.phases; i++) {
        const Phase& ph = p.h.phase.get()[i / p.w.phases];
        const Phase& pw = p.w.phase.get()[i % p.w.phases];
        offsets_of(p.h, p.w, ph, pw, row, plane, offset.get() + placed, index.get() + placed);
        placed += ph.taps * pw.taps;
    }
    const int64_t some = planes_of(planes, blocks, plane * residues);  // in a task
    parallel(ceil_div(planes, some) * blocks, [&](int64_t task) {
        const int64_t first_row = task % blocks * block;
        const int64_t in_block = least(block, p.h.count - first_row);
        const Scratch<T> image(residues * plane + 8 * kL);
        const Scratch<T> sums(p.w.phases * sums_size);
        const Scratch<T> weight(all_taps);
        const int64_t first_plane = task / blocks * some;
        const int64_t end_plane = least(planes, first_plane + some);
        for (int64_t at = first_plane; at < end_plane; at++) {
            fill_planes_of(p, p.x + at * p.h.size * p.w.size, first_row, in_block + p.h.reach, 0, row, image.get(),
                           plane, at == first_plane);
            const T* filter = p.filters + at % p.groups * all_taps;
            const T bias = p.bias == nullptr ? T(0) : p.bias[at % p.groups];
            for (int64_t t = 0; t < placed; t++) weight.get()[t] = filter[index.get()[t]];
            int64_t tap = 0;
            for (int64_t i = 0; i < p.h.phases; i++) {
                const Phase& ph = p.h.phase.get()[i];
                const int64_t rows = least(in_block, ph.count - first_row);
                for (int64_t j = 0; j < p.w.phases; j++) {
                    const Phase& pw = p.w.phase.get()[j];
                    const int64_t taps = ph.taps * pw.taps;
                    run_all(image.get(), offset.get() + tap, weight.get() + tap, taps, bias,
                            (rows - 1) * row + pw.count, sums.get() + j * sums_size);
                    tap += taps;
                }
                T* y = p.y + (at * p.h.out_size + ph.first + first_row * p.h.step) * p.w.out_size;
                for (int64_t r = 0; r < rows; r++, y += p.h.step * p.w.out_size) {
                    const T* line = sums.get() + r * row;
                    if (p.w.step == 2 && p.w.phases == 2) {
                        const int64_t even = p.w.phase.get()[0].first == 0 ? 0 : sums_size;
                        copy_zipped(y, line + even, line + sums_size - even, p.w.out_size);
                        continue;
                    }
                    for (int64_t j = 0; j < p.w.phases; j++) {
                        const Phase& pw = p.w.phase.get()[j];
                        store_segment(y + pw.first, line + j * sums_size, pw.count, p.w.step, false);
                    }
                }
            }
        }
    });
}

// dw[k][tap] = sum over n, p, q of dy * x; a channel is summed in one order.
template <typename T>
void depthwise_wgrad(const ConvShape& s, const T* dy, const T* x, T* dw) {
    constexpr int64_t kL = kLanes<T>;
    constexpr int64_t kTaps = 9;
    const Axes axes(s, true);
    const TapSum<T> p = fprop_sum<T>(s, axes, x, nullptr, nullptr, nullptr);
    const Axis& h = axes.h;
    const Axis& w = axes.w;
    const int64_t residues = h.residues * w.residues;
    const int64_t row = w.count + w.reach;
    const int64_t block = rows_of<T>(residues, h, w);
    const int64_t plane = (block + h.reach) * row;
    const int64_t taps = h.taps * w.taps;
    const int64_t some = planes_of(s.groups, 1, most(s.N, 1) * plane * residues);  // channels in a task
    parallel(ceil_div(s.groups, some), [&](int64_t task) {
        const Scratch<T> image(residues * plane + kL);
        const Scratch<int64_t> offset(2 * taps);
        const Scratch<Vec<T>> sums(taps);
        offsets_of(h, w, h.phase.get()[0], w.phase.get()[0], row, plane, offset.get(), offset.get() + taps);
        for (int64_t channel = task * some; channel < least(s.groups, (task + 1) * some); channel++) {
            for (int64_t t = 0; t < taps; t++) sums.get()[t] = Vec<T>{};
            for (int64_t n = 0; n < s.N; n++) {
                for (int64_t first_row = 0; first_row < h.count; first_row += block) {
                    const int64_t rows = least(block, h.count - first_row);
                    const int64_t at = n * s.groups + channel;
                    const bool padding = block < h.count || (channel == task * some && n == 0);
                    fill_planes_of(p, x + at * h.size * w.size, first_row, rows + h.reach, 0, row, image.get(), plane,
                                   padding);
                    const T* gradient = dy + (at * h.count + first_row) * w.count;
                    for (int64_t t0 = 0; t0 < taps; t0 += kTaps) {
                        dot_rows<T, kTaps>(gradient, rows, w.count, image.get(), row, offset.get() + t0,
                                           least(kTaps, taps - t0), sums.get() + t0);
                    }
                }
            }
            for (int64_t t = 0; t < taps; t++) dw[channel * taps + t] = sum_of<T>(sums.get()[t]);
        }
    });
}

template void depthwise_sum(const TapSum<float>&);
template void depthwise_sum(const TapSum<double>&);
template void depthwise_wgrad(const ConvShape&, const float*, const float*, float*);
template void depthwise_wgrad(const ConvShape&, const double*, const double*, double*);

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
