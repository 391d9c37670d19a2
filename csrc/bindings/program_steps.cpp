// The steps of a program that have no filters: pooling, elementwise operators, normalisation and movement.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/activation.h"
#include "bindings/pool_windows.h"
#include "bindings/program.h"
#include "cpu/shaping.h"

namespace pycnn::program {

void Program::pool(const View& x, const View& y, PoolWindows rows, PoolWindows columns, bool largest) {
    inside(x);
    inside(y);
    require(x.channels == y.channels, "program: pooling keeps the channels");
    const auto windows =
        std::make_shared<const std::pair<PoolWindows, PoolWindows>>(std::move(rows), std::move(columns));
    add([=, this](const cpu::Frame& f) {
        const auto& [r, c] = *windows;
        (largest ? run().max_pool : run().avg_pool)({.images = images_,
                                                     .x = x.in(f),
                                                     .y = y.in(f),
                                                     .rows = r.windows.data(),
                                                     .columns = c.windows.data(),
                                                     .row_step = r.axis.step,
                                                     .column_step = c.axis.step,
                                                     .row_counts = r.counts.data(),
                                                     .column_counts = c.counts.data()});
    });
}

void Program::max_pool(const View& x, const View& y, const Pair& kernel, const Pair& stride, const Sides& padding,
                       const Pair& dilation) {
    pool(x, y, regular_axis(x.height, y.height, kernel[0], stride[0], padding[0], padding[1], dilation[0], true),
         regular_axis(x.width, y.width, kernel[1], stride[1], padding[2], padding[3], dilation[1], true), true);
}

void Program::avg_pool(const View& x, const View& y, const Pair& kernel, const Pair& stride, const Sides& padding,
                       bool count_include_pad, std::optional<int64_t> divisor_override) {
    require(!divisor_override || *divisor_override != 0, "avg_pool: divisor_override must not be 0");
    PoolWindows rows =
        regular_axis(x.height, y.height, kernel[0], stride[0], padding[0], padding[1], 1, count_include_pad);
    PoolWindows columns =
        regular_axis(x.width, y.width, kernel[1], stride[1], padding[2], padding[3], 1, count_include_pad);
    if (divisor_override) {
        rows.counts.assign(rows.counts.size(), static_cast<double>(*divisor_override));
        columns.counts.assign(columns.counts.size(), 1.0);
    }
    pool(x, y, std::move(rows), std::move(columns), false);
}

void Program::adaptive_max_pool(const View& x, const View& y) {
    pool(x, y, adaptive_axis(x.height, y.height), adaptive_axis(x.width, y.width), true);
}

void Program::adaptive_avg_pool(const View& x, const View& y) {
    pool(x, y, adaptive_axis(x.height, y.height), adaptive_axis(x.width, y.width), false);
}

void Program::mean(const View& x, const Plain& y) {
    inside(x);
    require(x.height * x.width > 0, "program: the mean of an empty plane");
    writes(y, images_ * x.channels);
    add([=, this](const cpu::Frame& f) { run().mean(images_, x.in(f), y.to(f)); });
}

void Program::binary(decltype(cpu::PackedOperators::add) function, const View& a, const View& b, const View& y,
                     const Bounds& clamp) {
    inside(a);
    inside(b);
    inside(y);
    same(sizes_of(a), sizes_of(y));
    same(sizes_of(b), sizes_of(y));
    const cpu::Clamp end = clamp_of(clamp);
    add([=, this](const cpu::Frame& f) { function(images_, a.in(f), b.in(f), y.in(f), end); });
}

void Program::sum(const View& a, const View& b, const View& y, const Bounds& clamp) {
    binary(run().add, a, b, y, clamp);
}

void Program::mul(const View& a, const View& b, const View& y, const Bounds& clamp) {
    binary(run().mul, a, b, y, clamp);
}

void Program::affine(const View& x, const View& y, const std::optional<Floats>& scale,
                     const std::optional<Floats>& shift, const Bounds& clamp) {
    inside(x);
    inside(y);
    same(sizes_of(x), sizes_of(y));
    const Memory slope = padded(scale, x.channels, lanes_, 1.0f);
    const Memory offset = padded(shift, x.channels, lanes_);
    const cpu::Clamp end = clamp_of(clamp);
    add([=, this](const cpu::Frame& f) { run().affine(images_, x.in(f), slope.get(), offset.get(), y.in(f), end); });
}

void Program::scale(const View& x, const View& scale, const View& y, const Bounds& clamp) {
    inside(x);
    inside(scale);
    inside(y);
    same(sizes_of(x), sizes_of(y));
    same(sizes_of(scale), {x.channels, 1, 1});
    const cpu::Clamp end = clamp_of(clamp);
    add([=, this](const cpu::Frame& f) { run().scale(images_, x.in(f), scale.in(f), y.in(f), end); });
}

void Program::unary(const std::string& name, const Plain& x, const Plain& y, int64_t count) {
    require(name == "relu" || name == "tanh" || name == "sigmoid", "program: unary is relu, tanh or sigmoid");
    const cpu::Unary function = name == "relu"   ? cpu::Unary::kRelu
                                : name == "tanh" ? cpu::Unary::kTanh
                                                 : cpu::Unary::kSigmoid;
    sizes({count});
    reads(x, count);
    writes(y, count);
    add([=, this](const cpu::Frame& f) { kernels_.f32.activation.unary(function, count, x.from(f), y.to(f)); });
}

void Program::activation(const std::string& name, const Plain& x, const Plain& y, int64_t count, double a, double b,
                         double c) {
    const cpu::ActivationFunction function = function_of(name, a, b, c);
    sizes({count});
    reads(x, count);
    writes(y, count);
    add([=, this](const cpu::Frame& f) {
        kernels_.f32.activation.activation_fwd(function, count, x.from(f), y.to(f));
    });
}

void Program::lrn(const Plain& x, const Plain& y, int64_t channels, int64_t pixels, int64_t size, double alpha,
                  double beta, double k) {
    sizes({images_, channels, pixels});
    require(size >= 1, "program: lrn's size must be at least 1");
    reads(x, images_ * channels * pixels);
    writes(y, images_ * channels * pixels);
    add([=, this](const cpu::Frame& f) {
        kernels_.f32.norm.lrn_fwd(
            {.shape = {images_, channels, pixels}, .size = size, .alpha = alpha, .beta = beta, .k = k}, x.from(f),
            y.to(f));
    });
}

void Program::softmax(const Plain& x, const Plain& y, int64_t outer, int64_t count, int64_t inner, bool log) {
    sizes({outer, count, inner});
    reads(x, outer * count * inner);
    writes(y, outer * count * inner);
    add([=, this](const cpu::Frame& f) {
        kernels_.f32.activation.softmax_fwd({.outer = outer, .count = count, .inner = inner, .log = log}, x.from(f),
                                            y.to(f));
    });
}

void Program::pack(const Images& x, const View& y) {
    reads(x);
    inside(y);
    same(sizes_of(x), sizes_of(y));
    add([=, this](const cpu::Frame& f) { run().pack(images_, x.from(f), y.in(f)); });
}

void Program::unpack(const View& x, const Images& y) {
    inside(x);
    writes(y);
    same(sizes_of(x), sizes_of(y));
    add([=, this](const cpu::Frame& f) { run().unpack(images_, x.in(f), y.to(f)); });
}

void Program::clear(const View& x) {
    inside(x);
    add([=, this](const cpu::Frame& f) { run().clear(images_, x.in(f)); });
}

void Program::copy(const Plain& x, const Plain& y, int64_t count) {
    sizes({count});
    reads(x, count);
    writes(y, count);
    add([=](const cpu::Frame& f) { std::copy_n(x.from(f), count, y.to(f)); });
}

void Program::permute(const Plain& x, const Plain& y, const std::vector<int64_t>& shape,
                      const std::vector<int64_t>& order) {
    require(order.size() == shape.size() && shape.size() <= 16, "program: an order for each of up to 16 axes");
    std::vector<int64_t> all{images_}, axes{0};
    std::vector<bool> seen(shape.size());
    for (std::size_t i = 0; i < shape.size(); i++) {
        const auto axis = static_cast<std::size_t>(order[i]);
        require(order[i] >= 0 && axis < shape.size() && !seen[axis], "program: order names each axis once");
        seen[axis] = true;
        sizes({shape[i]});
        all.push_back(shape[i]);
        axes.push_back(order[i] + 1);
    }
    int64_t count = 1;
    for (const int64_t size : all) {
        require(!__builtin_mul_overflow(count, size, &count), "program: sizes too large");
    }
    reads(x, count);
    writes(y, count);
    add([=](const cpu::Frame& f) { cpu::permuted(all, axes, x.from(f), y.to(f)); });
}

}  // namespace pycnn::program
