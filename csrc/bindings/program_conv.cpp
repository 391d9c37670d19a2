// The steps of a program that have filters: convolutions and linear layers.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bindings/program.h"
#include "cpu/conv_packed.h"

namespace pycnn::program {
namespace {

// The tile of F(tile x tile, taps x taps), 0 for direct convolution.
int64_t winograd_tile(const std::string& algo, int64_t taps) {
    if (algo == "direct") return 0;
    for (const int64_t tile : {2, 4, 6}) {
        const std::string m = std::to_string(tile);
        const std::string r = std::to_string(taps);
        if (algo != "winograd_f" + m + "x" + m + "_" + r + "x" + r) continue;
        require(taps == 3 || (taps == 5 && tile < 6), "program: no such tile");
        return tile;
    }
    throw py::value_error("program: algo must be direct or one of Winograd's for these filters, got " + algo);
}

Memory copied(const Floats& array) {
    Memory result = memory(array.size());
    std::copy_n(array.data(), array.size(), result.get());
    return result;
}

}  // namespace

void Program::conv(const Tensor& x, const Tensor& y, const SharedFilters& filters, const std::optional<Floats>& bias,
                   const Pair& stride, const Pair& padding, const Pair& dilation, const std::optional<View>& residual,
                   const Bounds& clamp, const std::string& algo, bool keep) {
    const Sizes in = sizes_of(x);
    const Sizes out = sizes_of(y);
    fits(*filters, Filters::kConv, out.channels, in.channels);
    const auto [K, C, R, S] = filters->shape;
    window(in, out, {R, S}, stride, padding, dilation);
    reads(x);
    writes(y);
    if (residual) {
        inside(*residual);
        same(sizes_of(*residual), out);
        require(std::holds_alternative<View>(y), "program: a residual is added in the packed layout");
    }
    const Memory b = padded(bias, K, lanes_);
    const cpu::Clamp end = clamp_of(clamp);
    const int64_t tile = winograd_tile(algo, R);
    if (tile == 0) {
        const std::vector<int64_t> rows = cpu::tap_offsets(R, padding[0], dilation[0]);
        const std::vector<int64_t> columns = cpu::tap_offsets(S, padding[1], dilation[1]);
        add([=, this](const cpu::Frame& f) {
            const cpu::PackedView r = residual ? residual->in(f) : cpu::PackedView{};
            run().conv({.images = images_,
                        .x = source(x, f),
                        .rows = {rows.data(), R, stride[0]},
                        .columns = {columns.data(), S, stride[1]},
                        .filters = filters->data.get(),
                        .bias = b.get(),
                        .residual = residual ? &r : nullptr,
                        .clamp = end,
                        .y = target(y, f)});
        });
        return;
    }
    require(R == S && stride == Pair{1, 1}, "program: Winograd's filters are square, with stride 1");
    const bool dilated = dilation != Pair{1, 1};
    require(has_tiles(x, dilated) && has_tiles(y, dilated), "program: Winograd here is for packed tensors");
    const Memory u = keep ? winograd_filters(run(), *filters, tile) : nullptr;
    add([=, this](const cpu::Frame& f) {
        const cpu::PackedView r = residual ? residual->in(f) : cpu::PackedView{};
        cpu::winograd_packed(run(),
                             {.tile = tile,
                              .taps = R,
                              .images = images_,
                              .x = source(x, f),
                              .y = target(y, f),
                              .residual = residual ? &r : nullptr,
                              .filters = filters->data.get(),
                              .transformed = u.get(),
                              .bias = b.get(),
                              .pad_top = padding[0],
                              .pad_left = padding[1],
                              .clamp = end},
                             dilation.data());
    });
}

void Program::depthwise(const Tensor& x, const Tensor& y, const SharedFilters& filters,
                        const std::optional<Floats>& bias, const Pair& stride, const Pair& padding,
                        const Pair& dilation, const Bounds& clamp) {
    const Sizes in = sizes_of(x);
    const Sizes out = sizes_of(y);
    fits(*filters, Filters::kDepthwise, out.channels, 1);
    require(in.channels == out.channels, "program: depthwise convolution keeps the channels");
    require(has_vectors(x) && has_vectors(y) && x.index() == y.index(),
            "program: depthwise convolution here is for packed tensors");
    const auto [K, C, R, S] = filters->shape;
    window(in, out, {R, S}, stride, padding, dilation);
    reads(x);
    writes(y);
    const Memory b = padded(bias, K, lanes_);
    const cpu::Clamp end = clamp_of(clamp);
    add([=, this](const cpu::Frame& f) {
        run().depthwise({.images = images_,
                         .x = source(x, f),
                         .y = target(y, f),
                         .filters = filters->data.get(),
                         .bias = b.get(),
                         .R = R,
                         .S = S,
                         .stride_h = stride[0],
                         .stride_w = stride[1],
                         .pad_top = padding[0],
                         .pad_left = padding[1],
                         .dilation_h = dilation[0],
                         .dilation_w = dilation[1],
                         .clamp = end});
    });
}

void Program::conv_nchw(const Plain& x, const Plain& y, const Floats& w, const std::optional<Floats>& bias,
                        const std::array<int64_t, 3>& image, const Pair& out, const Pair& stride, const Pair& padding,
                        const Pair& dilation, int64_t groups) {
    const auto [C, H, W] = image;
    sizes({images_, C, H, W});
    sizes({images_, w.ndim() == 4 ? w.shape(0) : 0, out[0], out[1]});
    sizes({padding[0], padding[1]});
    require(w.ndim() == 4 && groups >= 1 && w.shape(1) * groups == C && w.shape(0) % groups == 0 && w.shape(2) >= 1 &&
                w.shape(3) >= 1 && H >= 1 && W >= 1 && out[0] >= 1 && out[1] >= 1,
            "program: filters and channels disagree");
    const cpu::ConvShape shape = {.N = images_,
                                  .C = C,
                                  .H = H,
                                  .W = W,
                                  .K = w.shape(0),
                                  .R = w.shape(2),
                                  .S = w.shape(3),
                                  .P = out[0],
                                  .Q = out[1],
                                  .stride_h = stride[0],
                                  .stride_w = stride[1],
                                  .pad_top = padding[0],
                                  .pad_left = padding[1],
                                  .dilation_h = dilation[0],
                                  .dilation_w = dilation[1],
                                  .groups = groups};
    steps(stride, dilation);
    require(!bias || (bias->ndim() == 1 && bias->shape(0) == shape.K), "program: one bias for every filter");
    reads(x, images_ * C * H * W);
    writes(y, images_ * shape.K * out[0] * out[1]);
    const Memory filters = copied(w);
    const Memory b = bias ? copied(*bias) : nullptr;
    add([=, this](const cpu::Frame& f) {
        kernels_.f32.direct.fprop(shape, x.from(f), filters.get(), b.get(), y.to(f));
    });
}

void Program::linear(const Plain& x, const Plain& y, const SharedFilters& filters, const std::optional<Floats>& bias,
                     const Bounds& clamp) {
    fits(*filters, Filters::kLinear, filters->shape[0], filters->shape[1]);
    const int64_t outputs = filters->shape[0];
    const int64_t inputs = filters->shape[1];
    sizes({images_, inputs});
    sizes({images_, outputs});
    reads(x, images_ * inputs);
    writes(y, images_ * outputs);
    const Memory b = padded(bias, outputs, lanes_);
    const cpu::Clamp end = clamp_of(clamp);
    add([=, this](const cpu::Frame& f) {
        run().linear({.rows = images_,
                      .inputs = inputs,
                      .outputs = outputs,
                      .x = x.from(f),
                      .filters = filters->data.get(),
                      .bias = b.get(),
                      .y = y.to(f),
                      .clamp = end});
    });
}

}  // namespace pycnn::program
