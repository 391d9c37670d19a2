// The taps of a filter along each axis: the index arithmetic that direct convolution and its depthwise form share.
//
// Both fprop and dgrad are a sum over taps.  The image is seen as planes that hold one residue of the stride each, so
// that what a tap meets lies contiguously, at a fixed distance from the first output.
#pragma once

#include "cpu/kernels/conv.h"

namespace pycnn::cpu::PYCNN_ISA_NAMESPACE {

struct Tap {
    int64_t index;    // r (or s)
    int64_t residue;  // which of Axis::residue
    int64_t offset;   // of this tap from output 0, in elements of its plane
};

// The taps along one axis, ordered by output phase.  Output i of a phase sits at first + i * step of the result.
struct Phase {
    int64_t tap, taps;
    int64_t first, count;
};

struct Axis {
    Scratch<Tap> tap;
    Scratch<int64_t> residue;
    Scratch<Phase> phase;
    int64_t taps;
    int64_t met = 0;  // taps in `tap`: all, but those of dgrad whose phase lies beyond an image smaller than the stride
    int64_t residues = 0;
    int64_t phases = 0;
    int64_t stride = 1;  // between neighbours of a plane, in the image
    int64_t before = 0;  // element 0 of residue 0 lies this far before the image's first
    int64_t step = 1;    // between neighbours of a phase, in the result
    int64_t reach = 0;   // largest offset of a tap
    int64_t count = 0;   // largest Phase::count
    int64_t size;        // of the image
    int64_t out_size;    // of the result

    Axis(int64_t taps_, int64_t size_, int64_t out)
        : tap(taps_), residue(taps_), phase(taps_), taps(taps_), size(size_), out_size(out) {}
};

static void fprop_axis(Axis& axis, int64_t taps, int64_t pad, int64_t stride, int64_t dilation) {
    axis.stride = stride;
    axis.before = pad;
    axis.count = axis.out_size;
    axis.phases = 1;
    axis.met = taps;
    axis.phase.get()[0] = {0, taps, 0, axis.out_size};
    for (int64_t r = 0; r < taps; r++) {
        const int64_t residue = r * dilation % stride;
        int64_t slot = 0;
        while (slot < axis.residues && axis.residue.get()[slot] != residue) slot++;
        if (slot == axis.residues) axis.residue.get()[axis.residues++] = residue;
        axis.tap.get()[r] = {r, slot, r * dilation / stride};
        axis.reach = most(axis.reach, r * dilation / stride);
    }
}

static void dgrad_axis(Axis& axis, int64_t taps, int64_t pad, int64_t stride, int64_t dilation) {
    axis.step = stride;
    axis.residues = 1;
    axis.residue.get()[0] = 0;
    int64_t lowest = INT64_MAX;
    for (int64_t leader = 0; leader < taps; leader++) {
        const int64_t residue = leader * dilation % stride;
        bool seen = false;
        for (int64_t r = 0; r < leader && !seen; r++) seen = r * dilation % stride == residue;
        if (seen) continue;
        const int64_t first = ((residue - pad) % stride + stride) % stride;
        if (first >= axis.out_size) continue;
        Phase& phase = axis.phase.get()[axis.phases++];
        phase = {axis.met, 0, first, ceil_div(axis.out_size - first, stride)};
        axis.count = most(axis.count, phase.count);
        for (int64_t r = leader; r < taps; r++) {
            if (r * dilation % stride != residue) continue;
            const int64_t offset = (first + pad - r * dilation) / stride;
            axis.tap.get()[axis.met++] = {r, 0, offset};
            lowest = least(lowest, offset);
            phase.taps++;
        }
    }
    axis.before = -lowest;
    for (int64_t i = 0; i < axis.met; i++) {
        axis.tap.get()[i].offset -= lowest;
        axis.reach = most(axis.reach, axis.tap.get()[i].offset);
    }
}

// result[n][g][o] = bias + sum over c and taps of filters * x[n][g][c], where each tap meets its pixel.
template <typename T>
struct TapSum {
    const T* x;  // (images, groups, channels, h.size, w.size)
    T* y;        // (images, groups, outputs, h.out_size, w.out_size)
    const T* bias;
    const T* filters;
    int64_t filter_group, filter_output, filter_channel, filter_row;  // strides of the filters; columns are dense
    int64_t images, groups, channels, outputs;
    const Axis& h;
    const Axis& w;
};

// The two axes of a pass.  A 1x1 filter without stride or padding sees an image as one long row.
struct Axes {
    Axis h;
    Axis w;

    Axes(const ConvShape& s, bool fprop)
        : h(s.R, flat(s) ? 1 : (fprop ? s.H : s.P), flat(s) ? 1 : (fprop ? s.P : s.H)),
          w(s.S, flat(s) ? s.H * s.W : (fprop ? s.W : s.Q), flat(s) ? s.P * s.Q : (fprop ? s.Q : s.W)) {
        const auto build = fprop ? fprop_axis : dgrad_axis;
        build(h, s.R, s.pad_top, flat(s) ? 1 : s.stride_h, s.dilation_h);
        build(w, s.S, s.pad_left, flat(s) ? 1 : s.stride_w, s.dilation_w);
    }

  private:
    static bool flat(const ConvShape& s) { return is_pointwise(s); }
};

template <typename T>
static TapSum<T> fprop_sum(const ConvShape& s, const Axes& axes, const T* x, const T* w, const T* bias, T* y) {
    const int64_t channels = s.C / s.groups;
    const int64_t filters = s.K / s.groups;
    return {
        .x = x,
        .y = y,
        .bias = bias,
        .filters = w,
        .filter_group = filters * channels * s.R * s.S,
        .filter_output = channels * s.R * s.S,
        .filter_channel = s.R * s.S,
        .filter_row = s.S,
        .images = s.N,
        .groups = s.groups,
        .channels = channels,
        .outputs = filters,
        .h = axes.h,
        .w = axes.w,
    };
}

template <typename T>
static TapSum<T> dgrad_sum(const ConvShape& s, const Axes& axes, const T* dy, const T* w, T* dx) {
    const int64_t channels = s.C / s.groups;
    const int64_t filters = s.K / s.groups;
    return {
        .x = dy,
        .y = dx,
        .bias = nullptr,
        .filters = w,
        .filter_group = filters * channels * s.R * s.S,
        .filter_output = s.R * s.S,
        .filter_channel = channels * s.R * s.S,
        .filter_row = s.S,
        .images = s.N,
        .groups = s.groups,
        .channels = filters,
        .outputs = channels,
        .h = axes.h,
        .w = axes.w,
    };
}

// Rows [row, row + rows) of every residue's plane of an image, `length` columns from `column` on; planes lie `plane`
// apart.  The padding's zeros are written only if `padding`: they stay where they are from one image to the next.
template <typename T>
static void fill_planes_of(const TapSum<T>& p, const T* image, int64_t row, int64_t rows, int64_t column,
                           int64_t length, T* to, int64_t plane, bool padding) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    constexpr int64_t kAhead = 4096 / static_cast<int64_t>(sizeof(T));
    for (int64_t residue = 0; residue < p.h.residues * p.w.residues; residue++, to += plane) {
        const int64_t y0 = row * p.h.stride + p.h.residue.get()[residue / p.w.residues] - p.h.before;
        const int64_t x0 = column * p.w.stride + p.w.residue.get()[residue % p.w.residues] - p.w.before;
        const Inside y(y0, p.h.stride, p.h.size, rows);
        const Inside x(x0, p.w.stride, p.w.size, length);
        if (padding) {
            fill(to, T(0), y.begin * length);
            for (int64_t i = y.begin; i < y.end; i++) {
                fill(to + i * length, T(0), x.begin);
                fill(to + i * length + x.end, T(0), length - x.end);
            }
            fill(to + y.end * length, T(0), (rows - y.end) * length);
        }
        const int64_t count = x.end - x.begin;
        const int64_t step = p.h.stride * p.w.size;
        const T* from = image + (y0 + y.begin * p.h.stride) * p.w.size + x0 + x.begin * p.w.stride;
        T* at = to + y.begin * length + x.begin;
        for (int64_t i = y.begin; i < y.end; i++, at += length, from += step) {
            // With a stride the rows are no stream that the hardware would follow.
            for (int64_t j = 0; j < count * p.w.stride; j += kLine) __builtin_prefetch(from + kAhead + j);
            copy_strided(at, from, p.w.stride, count);
        }
    }
}

// Puts `count` results `step` apart.
template <typename T>
static void store_segment(T* y, const T* from, int64_t count, int64_t step, bool add) {
    if (step != 1) {
        for (int64_t j = 0; j < count; j++) y[j * step] = add ? y[j * step] + from[j] : from[j];
    } else if (add) {
        for (int64_t j = 0; j < count; j++) y[j] += from[j];
    } else {
        copy(y, from, count);
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA_NAMESPACE
