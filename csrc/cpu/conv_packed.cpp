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

// One axis of an input that is read from `first` to `last`, both of which may lie outside [0, size): what has to be
// around it in memory.
struct Border {
    std::int64_t before, after;
    Border(std::int64_t first, std::int64_t last, std::int64_t size)
        : before(std::max<std::int64_t>(0, -first)), after(std::max<std::int64_t>(0, last + 1 - size)) {}
};

struct Packed {
    PackedView view;
    std::int64_t floats;  // of one image
    std::int64_t sides[4];

    Packed(std::int64_t channels, std::int64_t height, std::int64_t width, const Border& rows, const Border& columns,
           std::int64_t lanes)
        : sides{rows.before, rows.after, columns.before, columns.after} {
        const std::int64_t row = (columns.before + width + columns.after) * lanes;
        const std::int64_t block = (rows.before + height + rows.after) * row;
        floats = blocks_of(channels, lanes) * block;
        view = {nullptr, channels, height, width, floats, block, row};
        first = rows.before * row + columns.before * lanes;
    }

    void place(float* memory) { view.data = memory + first; }

  private:
    std::int64_t first;  // pixel within an image
};

// body(first image, images) with both sides packed around it; `from` and `to` are NCHW.
template <typename Body>
void for_groups(const PackedOperators& run, std::int64_t images, Packed& in, Packed& out, const float* from, float* to,
                const Body& body) {
    const std::int64_t group =
        std::clamp<std::int64_t>(kGroupFloats / std::max<std::int64_t>(1, in.floats + out.floats), 1, images);
    const Scratch<float> memory(static_cast<std::size_t>(group * (in.floats + out.floats)));
    in.place(memory.get());
    out.place(memory.get() + group * in.floats);
    run.clear_border(group, in.view, in.sides);
    const std::int64_t in_image = in.view.channels * in.view.height * in.view.width;
    const std::int64_t out_image = out.view.channels * out.view.height * out.view.width;
    for (std::int64_t first = 0; first < images; first += group) {
        const std::int64_t count = std::min(group, images - first);
        run.pack(count, from + first * in_image, in.view);
        body(count);
        run.unpack(count, out.view, to + first * out_image);
    }
}

}  // namespace

void conv_fprop_packed(const ConvShape& s, const float* x, const float* w, const float* bias, float* y) {
    const Kernels& kernels = cpu::kernels();
    const PackedOperators& run = kernels.packed;
    const std::int64_t lanes = lanes_of(kernels);
    const std::int64_t filters = blocks_of(s.K, lanes) * lanes;
    const auto last = [](std::int64_t out, std::int64_t stride, std::int64_t pad, std::int64_t taps,
                         std::int64_t dilation) { return (out - 1) * stride - pad + (taps - 1) * dilation; };
    Packed in(s.C, s.H, s.W, Border(-s.pad_top, last(s.P, s.stride_h, s.pad_top, s.R, s.dilation_h), s.H),
              Border(-s.pad_left, last(s.Q, s.stride_w, s.pad_left, s.S, s.dilation_w), s.W), lanes);
    Packed out(s.K, s.P, s.Q, Border(0, 0, s.P), Border(0, 0, s.Q), lanes);
    const Scratch<float> packed(
        static_cast<std::size_t>(filters * blocks_of(s.C, lanes) * lanes * s.R * s.S + filters));
    float* padded = packed.get() + filters * blocks_of(s.C, lanes) * lanes * s.R * s.S;
    run.filters(s.K, s.C, s.R * s.S, w, packed.get());
    if (bias != nullptr) std::fill(std::copy_n(bias, s.K, padded), padded + filters, 0.0f);
    std::vector<std::int64_t> taps;
    for (std::int64_t r = 0; r < s.R; r++) {
        for (std::int64_t t = 0; t < s.S; t++) {
            taps.push_back((r * s.dilation_h - s.pad_top) * in.view.row + (t * s.dilation_w - s.pad_left) * lanes);
        }
    }
    for_groups(run, s.N, in, out, x, y, [&](std::int64_t images) {
        run.conv({.images = images,
                  .x = in.view,
                  .x_row = s.stride_h * in.view.row,
                  .x_step = s.stride_w * lanes,
                  .taps = taps.data(),
                  .count = s.R * s.S,
                  .filters = packed.get(),
                  .bias = bias != nullptr ? padded : nullptr,
                  .residual = nullptr,
                  .relu = false,
                  .y = out.view,
                  .y_step = lanes});
    });
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
};

std::vector<Residue> residues(std::int64_t size, std::int64_t stride, std::int64_t pad, std::int64_t taps,
                              std::int64_t dilation) {
    std::vector<Residue> all;
    for (std::int64_t a = 0; a < stride; a++) all.emplace_back(a, size, stride, pad, taps, dilation);
    return all;
}

Border border_of(const std::vector<Residue>& all, std::int64_t size) {
    std::int64_t first = 0;
    std::int64_t last = 0;
    for (const Residue& one : all) {
        for (const std::int64_t offset : one.offset) {
            first = std::min(first, offset);
            last = std::max(last, one.count - 1 + offset);
        }
    }
    return {first, last, size};
}

}  // namespace

void conv_dgrad_packed(const ConvShape& s, const float* dy, const float* w, float* dx) {
    const Kernels& kernels = cpu::kernels();
    const PackedOperators& run = kernels.packed;
    const std::int64_t lanes = lanes_of(kernels);
    const std::vector<Residue> rows = residues(s.H, s.stride_h, s.pad_top, s.R, s.dilation_h);
    const std::vector<Residue> columns = residues(s.W, s.stride_w, s.pad_left, s.S, s.dilation_w);
    Packed in(s.K, s.P, s.Q, border_of(rows, s.P), border_of(columns, s.Q), lanes);
    Packed out(s.C, s.H, s.W, Border(0, 0, s.H), Border(0, 0, s.W), lanes);

    // Filters of one pair of residues after the other; every tap belongs to one pair.
    struct Pair {
        const Residue *rows, *columns;
        std::int64_t filters;  // where they begin
        std::int64_t first;    // element of dx within an image
        std::vector<std::int64_t> taps;
    };
    const std::int64_t square = lanes * lanes;
    const std::int64_t inputs = blocks_of(s.K, lanes);
    const std::int64_t outputs = blocks_of(s.C, lanes);
    std::vector<Pair> pairs;
    std::vector<std::int64_t> place(s.R * s.S), output(s.R * s.S), input(s.R * s.S);
    std::int64_t used = 0;
    for (std::size_t a = 0; a < rows.size(); a++) {
        for (std::size_t b = 0; b < columns.size(); b++) {
            Pair pair = {&rows[a],
                         &columns[b],
                         used,
                         static_cast<std::int64_t>(a) * out.view.row + static_cast<std::int64_t>(b) * lanes,
                         {}};
            const auto count = static_cast<std::int64_t>(rows[a].index.size() * columns[b].index.size());
            for (std::size_t i = 0; i < rows[a].index.size(); i++) {
                for (std::size_t j = 0; j < columns[b].index.size(); j++) {
                    const std::int64_t tap = rows[a].index[i] * s.S + columns[b].index[j];
                    place[tap] = used + static_cast<std::int64_t>(pair.taps.size()) * square;
                    input[tap] = count * square;
                    output[tap] = inputs * count * square;
                    pair.taps.push_back(rows[a].offset[i] * in.view.row + columns[b].offset[j] * lanes);
                }
            }
            used += outputs * inputs * count * square;
            pairs.push_back(std::move(pair));
        }
    }
    const Scratch<float> filters(static_cast<std::size_t>(used));
    run.turned_filters(s.K, s.C, s.R * s.S, w, place.data(), output.data(), input.data(), filters.get());

    for_groups(run, s.N, in, out, dy, dx, [&](std::int64_t images) {
        for (const Pair& pair : pairs) {
            PackedView part = out.view;
            part.data += pair.first;
            part.height = pair.rows->count;
            part.width = pair.columns->count;
            part.row *= s.stride_h;
            run.conv({.images = images,
                      .x = in.view,
                      .x_row = in.view.row,
                      .x_step = lanes,
                      .taps = pair.taps.data(),
                      .count = static_cast<std::int64_t>(pair.taps.size()),
                      .filters = filters.get() + pair.filters,
                      .bias = nullptr,
                      .residual = nullptr,
                      .relu = false,
                      .y = part,
                      .y_step = s.stride_w * lanes});
        }
    });
}

void winograd_packed(const PackedOperators& run, const PackedWinograd& p, const std::int64_t* dilation) {
    if (dilation[0] == 1 && dilation[1] == 1) return run.winograd(p);
    // y[a + d i] sums x[a - pad + d (i + r)]: residue b of x, i + r - shift with a - pad = b - d shift.
    struct Part {
        std::int64_t from, to, shift;
        Part(std::int64_t a, std::int64_t pad, std::int64_t d)
            : from(((a - pad) % d + d) % d), to(a), shift((from - a + pad) / d) {}
    };
    const auto part_of = [](PackedView view, std::int64_t row, std::int64_t column, std::int64_t step,
                            const std::int64_t* d) {
        view.data += row * view.row + column * step;
        view.height = std::max<std::int64_t>(0, (view.height - row + d[0] - 1) / d[0]);
        view.width = std::max<std::int64_t>(0, (view.width - column + d[1] - 1) / d[1]);
        view.row *= d[0];
        return view;
    };
    for (std::int64_t a = 0; a < std::min(dilation[0], p.y.height); a++) {
        for (std::int64_t b = 0; b < std::min(dilation[1], p.y.width); b++) {
            const Part rows(a, p.pad_top, dilation[0]);
            const Part columns(b, p.pad_left, dilation[1]);
            PackedWinograd part = p;
            part.x = part_of(p.x, rows.from, columns.from, p.x_step, dilation);
            part.x_step = p.x_step * dilation[1];
            part.y = part_of(p.y, rows.to, columns.to, p.y_step, dilation);
            part.y_step = p.y_step * dilation[1];
            const PackedView residual =
                p.residual == nullptr ? PackedView{} : part_of(*p.residual, rows.to, columns.to, p.y_step, dilation);
            if (p.residual != nullptr) part.residual = &residual;
            part.pad_top = rows.shift;
            part.pad_left = columns.shift;
            run.winograd(part);
        }
    }
}

namespace {

// Filters as Winograd's products read them: transformed beforehand where several images of residues share them.
struct WinogradFilters {
    const Scratch<float> filters, transformed;
    const bool kept;

    WinogradFilters(const ConvShape& s, std::int64_t tile, std::int64_t outputs, std::int64_t inputs,
                    std::int64_t lanes)
        : filters(static_cast<std::size_t>(outputs * inputs * lanes * lanes * s.R * s.S)),
          transformed(s.dilation_h * s.dilation_w == 1 ? 1
                                                       : static_cast<std::size_t>(outputs * inputs * lanes * lanes *
                                                                                  (tile + s.R - 1) * (tile + s.S - 1))),
          kept(s.dilation_h * s.dilation_w > 1) {}
};

}  // namespace

void winograd_fprop_packed(const ConvShape& s, std::int64_t tile, const float* x, const float* w, const float* bias,
                           float* y) {
    const Kernels& kernels = cpu::kernels();
    const PackedOperators& run = kernels.packed;
    const std::int64_t lanes = lanes_of(kernels);
    const std::int64_t filters = blocks_of(s.K, lanes) * lanes;
    Packed in(s.C, s.H, s.W, Border(0, 0, s.H), Border(0, 0, s.W), lanes);
    Packed out(s.K, s.P, s.Q, Border(0, 0, s.P), Border(0, 0, s.Q), lanes);
    const WinogradFilters packed(s, tile, blocks_of(s.K, lanes), blocks_of(s.C, lanes), lanes);
    run.filters(s.K, s.C, s.R * s.S, w, packed.filters.get());
    if (packed.kept) run.winograd_filters(tile, s.R, s.K, s.C, packed.filters.get(), packed.transformed.get());
    const Scratch<float> padded(static_cast<std::size_t>(filters));
    if (bias != nullptr) std::fill(std::copy_n(bias, s.K, padded.get()), padded.get() + filters, 0.0f);
    const std::int64_t dilation[] = {s.dilation_h, s.dilation_w};
    for_groups(run, s.N, in, out, x, y, [&](std::int64_t images) {
        winograd_packed(run,
                        {.tile = tile,
                         .taps = s.R,
                         .images = images,
                         .x = in.view,
                         .x_step = lanes,
                         .y = out.view,
                         .y_step = lanes,
                         .residual = nullptr,
                         .filters = packed.filters.get(),
                         .transformed = packed.kept ? packed.transformed.get() : nullptr,
                         .bias = bias != nullptr ? padded.get() : nullptr,
                         .pad_top = s.pad_top,
                         .pad_left = s.pad_left,
                         .relu = false},
                        dilation);
    });
}

void winograd_dgrad_packed(const ConvShape& s, std::int64_t tile, const float* dy, const float* w, float* dx) {
    const Kernels& kernels = cpu::kernels();
    const PackedOperators& run = kernels.packed;
    const std::int64_t lanes = lanes_of(kernels);
    const std::int64_t inputs = blocks_of(s.K, lanes);
    const std::int64_t outputs = blocks_of(s.C, lanes);
    Packed in(s.K, s.P, s.Q, Border(0, 0, s.P), Border(0, 0, s.Q), lanes);
    Packed out(s.C, s.H, s.W, Border(0, 0, s.H), Border(0, 0, s.W), lanes);
    const WinogradFilters packed(s, tile, outputs, inputs, lanes);
    const std::int64_t square = lanes * lanes;
    const std::int64_t taps = s.R * s.S;
    std::vector<std::int64_t> place;  // turned by 180 degrees
    for (std::int64_t tap = 0; tap < taps; tap++) place.push_back((taps - 1 - tap) * square);
    const std::vector<std::int64_t> output(static_cast<std::size_t>(taps), inputs * taps * square);
    const std::vector<std::int64_t> input(static_cast<std::size_t>(taps), taps * square);
    run.turned_filters(s.K, s.C, taps, w, place.data(), output.data(), input.data(), packed.filters.get());
    if (packed.kept) run.winograd_filters(tile, s.R, s.C, s.K, packed.filters.get(), packed.transformed.get());
    const std::int64_t dilation[] = {s.dilation_h, s.dilation_w};
    for_groups(run, s.N, in, out, dy, dx, [&](std::int64_t images) {
        winograd_packed(run,
                        {.tile = tile,
                         .taps = s.R,
                         .images = images,
                         .x = in.view,
                         .x_step = lanes,
                         .y = out.view,
                         .y_step = lanes,
                         .residual = nullptr,
                         .filters = packed.filters.get(),
                         .transformed = packed.kept ? packed.transformed.get() : nullptr,
                         .bias = nullptr,
                         .pad_top = (s.R - 1) * s.dilation_h - s.pad_top,
                         .pad_left = (s.S - 1) * s.dilation_w - s.pad_left,
                         .relu = false},
                        dilation);
    });
}

}  // namespace pycnn::cpu
