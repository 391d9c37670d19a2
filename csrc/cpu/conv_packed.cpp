#include "cpu/conv_packed.h"

#include <algorithm>
#include <vector>

#include "cpu/isa.h"
#include "cpu/memory.h"

namespace pycnn::cpu {
namespace {

constexpr std::int64_t kGroupFloats = std::int64_t{1} << 20;  // of packed images at a time: they stay in cache

std::int64_t lanes_of(const Kernels& kernels) {
    return kernels.vector_bytes / static_cast<std::int64_t>(sizeof(float));
}

std::int64_t blocks_of(std::int64_t channels, std::int64_t lanes) {
    return (channels + lanes - 1) / lanes;
}

// Floats of the filters in the order that the packed kernels read.
std::size_t filter_floats(std::int64_t K, std::int64_t C, std::int64_t taps, std::int64_t lanes) {
    const std::int64_t depth = C < lanes ? C : blocks_of(C, lanes) * lanes;
    return static_cast<std::size_t>(blocks_of(K, lanes) * lanes * depth * taps);
}

// An NCHW array as the packed kernels see it.
PackedView planes(const float* data, std::int64_t channels, std::int64_t height, std::int64_t width,
                  std::int64_t lanes) {
    const std::int64_t plane = height * width;
    return {const_cast<float*>(data), channels, height, width, channels * plane, lanes * plane, width, 1, plane};
}

// Images of so many floats that are packed together.
std::int64_t images_at_once(std::int64_t floats, std::int64_t images) {
    const std::int64_t wanted = kGroupFloats / std::max<std::int64_t>(1, floats);
    return std::max<std::int64_t>(1, std::min(wanted, images));
}

// Packed images that have no memory yet.
PackedView packed(std::int64_t channels, std::int64_t height, std::int64_t width, std::int64_t lanes) {
    const std::int64_t row = width * lanes;
    const std::int64_t block = height * row;
    return {nullptr, channels, height, width, blocks_of(channels, lanes) * block, block, row, lanes, 1};
}

// Whole vectors of the bias, or null.
class PaddedBias {
  public:
    PaddedBias(const float* bias, std::int64_t K, std::int64_t lanes)
        : memory_(bias == nullptr ? 1 : static_cast<std::size_t>(blocks_of(K, lanes) * lanes)), any_(bias != nullptr) {
        if (any_) std::fill(std::copy_n(bias, K, memory_.get()), memory_.get() + blocks_of(K, lanes) * lanes, 0.0f);
    }
    const float* get() const { return any_ ? memory_.get() : nullptr; }

  private:
    const Scratch<float> memory_;
    const bool any_;
};

}  // namespace

std::vector<std::int64_t> tap_offsets(std::int64_t taps, std::int64_t padding, std::int64_t dilation) {
    std::vector<std::int64_t> offsets;
    for (std::int64_t r = 0; r < taps; r++) offsets.push_back(r * dilation - padding);
    return offsets;
}

void conv_fprop_packed(const ConvShape& s, const float* x, const float* w, const float* bias, float* y) {
    const Kernels& kernels = cpu::kernels();
    const std::int64_t lanes = lanes_of(kernels);
    const Scratch<float> filters(filter_floats(s.K, s.C, s.R * s.S, lanes));
    kernels.packed.filters(s.K, s.C, s.R * s.S, w, filters.get());
    const PaddedBias padded(bias, s.K, lanes);
    const std::vector<std::int64_t> rows = tap_offsets(s.R, s.pad_top, s.dilation_h);
    const std::vector<std::int64_t> columns = tap_offsets(s.S, s.pad_left, s.dilation_w);
    kernels.packed.conv({.images = s.N,
                         .x = planes(x, s.C, s.H, s.W, lanes),
                         .rows = {rows.data(), s.R, s.stride_h},
                         .columns = {columns.data(), s.S, s.stride_w},
                         .filters = filters.get(),
                         .bias = padded.get(),
                         .residual = nullptr,
                         .clamp = {},
                         .y = planes(y, s.K, s.P, s.Q, lanes)});
}

namespace {

// The taps that meet the elements of dx with one residue of the stride, along one axis: element residue + stride * i
// gets tap index[j] of dy at i + offset[j].
struct Residue {
    std::vector<std::int64_t> index, offset;
    std::int64_t count;  // of such elements

    Residue(std::int64_t residue, std::int64_t size, std::int64_t stride, std::int64_t pad, std::int64_t taps,
            std::int64_t dilation)
        : count(residue < size ? (size - residue + stride - 1) / stride : 0) {
        for (std::int64_t r = 0; r < taps; r++) {
            const std::int64_t at = residue + pad - r * dilation;
            if (at % stride != 0) continue;
            index.push_back(r);
            offset.push_back(at / stride);
        }
    }

    TapAxis axis() const { return {offset.data(), static_cast<std::int64_t>(offset.size()), 1}; }
};

}  // namespace

void conv_dgrad_packed(const ConvShape& s, const float* dy, const float* w, float* dx) {
    const Kernels& kernels = cpu::kernels();
    const std::int64_t lanes = lanes_of(kernels);
    std::vector<Residue> rows, columns;
    for (std::int64_t a = 0; a < s.stride_h; a++) rows.emplace_back(a, s.H, s.stride_h, s.pad_top, s.R, s.dilation_h);
    for (std::int64_t b = 0; b < s.stride_w; b++) {
        columns.emplace_back(b, s.W, s.stride_w, s.pad_left, s.S, s.dilation_w);
    }

    // Filters of one pair of residues after the other; every tap belongs to one pair.
    const std::int64_t inputs = blocks_of(s.K, lanes);
    const std::int64_t outputs = blocks_of(s.C, lanes);
    const std::int64_t square = std::min(lanes, s.K) * lanes;
    const auto taps = static_cast<std::size_t>(s.R * s.S);
    std::vector<std::int64_t> begin, place(taps), output(taps), input(taps);
    std::int64_t used = 0;
    for (const Residue& row : rows) {
        for (const Residue& column : columns) {
            begin.push_back(used);
            const auto count = static_cast<std::int64_t>(row.index.size() * column.index.size());
            std::int64_t at = used;
            for (const std::int64_t r : row.index) {
                for (const std::int64_t t : column.index) {
                    const auto tap = static_cast<std::size_t>(r * s.S + t);
                    place[tap] = at;
                    input[tap] = count * square;
                    output[tap] = inputs * count * square;
                    at += square;
                }
            }
            used += outputs * inputs * count * square;
        }
    }
    const Scratch<float> filters(static_cast<std::size_t>(used));
    kernels.packed.turned_filters(s.K, s.C, s.R * s.S, w, place.data(), output.data(), input.data(), filters.get());

    // With a stride, what a residue writes is no stretch of a plane's rows: dx is packed first, some images at a time.
    const bool apart = s.stride_h * s.stride_w > 1;
    PackedView whole = apart ? packed(s.C, s.H, s.W, lanes) : planes(dx, s.C, s.H, s.W, lanes);
    const std::int64_t group = apart ? images_at_once(whole.image, s.N) : s.N;
    const Scratch<float> memory(apart ? static_cast<std::size_t>(group * whole.image) : 1);
    if (apart) whole.data = memory.get();
    for (std::int64_t n = 0; n < s.N; n += group) {
        const std::int64_t images = std::min(group, s.N - n);
        auto first = begin.begin();
        for (std::size_t a = 0; a < rows.size(); a++) {
            for (std::size_t b = 0; b < columns.size(); b++) {
                PackedView part = whole;
                part.data += static_cast<std::int64_t>(a) * whole.row + static_cast<std::int64_t>(b) * whole.pixel;
                part.height = rows[a].count;
                part.width = columns[b].count;
                part.row *= s.stride_h;
                part.pixel *= s.stride_w;
                kernels.packed.conv({.images = images,
                                     .x = planes(dy + n * s.K * s.P * s.Q, s.K, s.P, s.Q, lanes),
                                     .rows = rows[a].axis(),
                                     .columns = columns[b].axis(),
                                     .filters = filters.get() + *first++,
                                     .bias = nullptr,
                                     .residual = nullptr,
                                     .clamp = {},
                                     .y = part});
            }
        }
        if (apart) {
            kernels.packed.unpack(images, whole, planes(dx + n * s.C * s.H * s.W, s.C, s.H, s.W, lanes));
        }
    }
}

void winograd_packed(const PackedOperators& run, const PackedWinograd& p, const std::int64_t* dilation) {
    if (dilation[0] == 1 && dilation[1] == 1) return run.winograd(p);
    // y[a + d i] sums x[a - pad + d (i + r)]: residue b of x, i + r - shift with a - pad = b - d shift.
    struct Part {
        std::int64_t from, to, shift;
        Part(std::int64_t a, std::int64_t pad, std::int64_t d)
            : from(((a - pad) % d + d) % d), to(a), shift((from - a + pad) / d) {}
    };
    const auto part_of = [&](PackedView view, std::int64_t row, std::int64_t column) {
        view.data += row * view.row + column * view.pixel;
        view.height = std::max<std::int64_t>(0, (view.height - row + dilation[0] - 1) / dilation[0]);
        view.width = std::max<std::int64_t>(0, (view.width - column + dilation[1] - 1) / dilation[1]);
        view.row *= dilation[0];
        view.pixel *= dilation[1];
        return view;
    };
    for (std::int64_t a = 0; a < std::min(dilation[0], p.y.height); a++) {
        for (std::int64_t b = 0; b < std::min(dilation[1], p.y.width); b++) {
            const Part rows(a, p.pad_top, dilation[0]);
            const Part columns(b, p.pad_left, dilation[1]);
            PackedWinograd part = p;
            part.x = part_of(p.x, rows.from, columns.from);
            part.y = part_of(p.y, rows.to, columns.to);
            const PackedView residual =
                p.residual == nullptr ? PackedView{} : part_of(*p.residual, rows.to, columns.to);
            if (p.residual != nullptr) part.residual = &residual;
            part.pad_top = rows.shift;
            part.pad_left = columns.shift;
            run.winograd(part);
        }
    }
}

namespace {

// `problem` from planes to planes.  Where dilation takes the pixels apart, by way of packed images, some at a time, and
// with filters that are transformed once for all residues.
void winograd_planes(const Kernels& kernels, PackedWinograd problem, const std::int64_t* dilation) {
    const PackedOperators& run = kernels.packed;
    if (dilation[0] == 1 && dilation[1] == 1) return run.winograd(problem);
    const std::int64_t lanes = lanes_of(kernels);
    PackedView from = problem.x;
    PackedView to = problem.y;
    const std::int64_t size = problem.tile + problem.taps - 1;
    const Scratch<float> transformed(static_cast<std::size_t>(
        blocks_of(from.channels, lanes) * blocks_of(to.channels, lanes) * lanes * lanes * size * size));
    run.winograd_filters(problem.tile, problem.taps, to.channels, from.channels, problem.filters, transformed.get());
    problem.transformed = transformed.get();
    problem.x = packed(from.channels, from.height, from.width, lanes);
    problem.y = packed(to.channels, to.height, to.width, lanes);
    const std::int64_t floats = problem.x.image + problem.y.image;
    const std::int64_t images = problem.images;
    const std::int64_t group = std::clamp<std::int64_t>(kGroupFloats / std::max<std::int64_t>(1, floats), 1,
                                                        std::max<std::int64_t>(1, images));
    const Scratch<float> memory(static_cast<std::size_t>(group * floats));
    problem.x.data = memory.get();
    problem.y.data = memory.get() + group * problem.x.image;
    for (std::int64_t n = 0; n < images; n += group) {
        problem.images = std::min(group, images - n);
        run.pack(problem.images, from, problem.x);
        winograd_packed(run, problem, dilation);
        run.unpack(problem.images, problem.y, to);
        from.data += problem.images * from.image;
        to.data += problem.images * to.image;
    }
}

}  // namespace

void winograd_fprop_packed(const ConvShape& s, std::int64_t tile, const float* x, const float* w, const float* bias,
                           float* y) {
    const Kernels& kernels = cpu::kernels();
    const std::int64_t lanes = lanes_of(kernels);
    const Scratch<float> filters(filter_floats(s.K, s.C, s.R * s.S, lanes));
    kernels.packed.filters(s.K, s.C, s.R * s.S, w, filters.get());
    const PaddedBias padded(bias, s.K, lanes);
    const std::int64_t dilation[] = {s.dilation_h, s.dilation_w};
    winograd_planes(kernels,
                    {.tile = tile,
                     .taps = s.R,
                     .images = s.N,
                     .x = planes(x, s.C, s.H, s.W, lanes),
                     .y = planes(y, s.K, s.P, s.Q, lanes),
                     .residual = nullptr,
                     .filters = filters.get(),
                     .transformed = nullptr,
                     .bias = padded.get(),
                     .pad_top = s.pad_top,
                     .pad_left = s.pad_left,
                     .clamp = {}},
                    dilation);
}

void winograd_dgrad_packed(const ConvShape& s, std::int64_t tile, const float* dy, const float* w, float* dx) {
    const Kernels& kernels = cpu::kernels();
    const std::int64_t lanes = lanes_of(kernels);
    const std::int64_t square = std::min(lanes, s.K) * lanes;
    const std::int64_t taps = s.R * s.S;
    std::vector<std::int64_t> place;  // turned by 180 degrees
    for (std::int64_t tap = 0; tap < taps; tap++) place.push_back((taps - 1 - tap) * square);
    const std::vector<std::int64_t> output(static_cast<std::size_t>(taps), blocks_of(s.K, lanes) * taps * square);
    const std::vector<std::int64_t> input(static_cast<std::size_t>(taps), taps * square);
    const Scratch<float> filters(filter_floats(s.C, s.K, taps, lanes));
    kernels.packed.turned_filters(s.K, s.C, taps, w, place.data(), output.data(), input.data(), filters.get());
    const std::int64_t dilation[] = {s.dilation_h, s.dilation_w};
    winograd_planes(kernels,
                    {.tile = tile,
                     .taps = s.R,
                     .images = s.N,
                     .x = planes(dy, s.K, s.P, s.Q, lanes),
                     .y = planes(dx, s.C, s.H, s.W, lanes),
                     .residual = nullptr,
                     .filters = filters.get(),
                     .transformed = nullptr,
                     .bias = nullptr,
                     .pad_top = (s.R - 1) * s.dilation_h - s.pad_top,
                     .pad_left = (s.S - 1) * s.dilation_w - s.pad_left,
                     .clamp = {}},
                    dilation);
}

}  // namespace pycnn::cpu
