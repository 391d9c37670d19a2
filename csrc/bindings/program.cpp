// pycnn._cpu.Program: a compiled network, built step by step from Python and run without it.
//
// Every step is checked as it is added: what it reads and writes must lie within the arena, so that a plan read from a
// damaged file is refused and cannot reach foreign memory.
#include "cpu/program.h"

#include <pybind11/stl.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <variant>

#include "bindings/activation.h"
#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "bindings/pool_windows.h"
#include "cpu/conv_packed.h"
#include "cpu/isa.h"
#include "cpu/shaping.h"

namespace pycnn {
namespace {

using std::int64_t;
using Pair = std::array<int64_t, 2>;
using Sides = std::array<int64_t, 4>;  // top, bottom, left, right
using Floats = Array<float>;
using Memory = std::shared_ptr<float>;

constexpr int64_t kLargest = int64_t{1} << 40;

int64_t lanes() {
    return cpu::kernels().vector_bytes / static_cast<int64_t>(sizeof(float));
}

int64_t blocks_of(int64_t channels, int64_t lanes) {
    return (channels + lanes - 1) / lanes;
}

Memory memory(int64_t floats) {
    return {static_cast<float*>(cpu::allocate(static_cast<std::size_t>(floats) * sizeof(float))), cpu::deallocate};
}

// A packed tensor in the arena; see cpu/packed.h.
struct View {
    int64_t offset, channels, height, width, image, block, row;
    int64_t pixel = lanes();

    cpu::PackedView in(const cpu::Frame& frame) const {
        return {frame.arena + offset, channels, height, width, image, block, row, pixel, 1};
    }
};

// A dense array in C order: `at` is an offset into the arena, or the number of an input or output.
struct Plain {
    enum Space { kArena, kInput, kOutput } space;
    int64_t at;

    const float* from(const cpu::Frame& frame) const {
        return space == kArena ? frame.arena + at : space == kInput ? frame.inputs[at] : frame.outputs[at];
    }
    float* to(const cpu::Frame& frame) const { return space == kArena ? frame.arena + at : frame.outputs[at]; }
};

// An array in NCHW or channels-last, as it lies.
struct Images {
    Plain array;
    int64_t channels, height, width;
    bool channels_last;
    int64_t lanes = pycnn::lanes();

    cpu::PackedView of(float* data) const {
        const int64_t plane = height * width;
        cpu::PackedView view = {data, channels, height, width, channels * plane, lanes * plane, width, 1, plane};
        if (channels_last) {
            view.block = lanes;
            view.row = width * channels;
            view.pixel = channels;
            view.lane = 1;
        }
        return view;
    }
    cpu::PackedView from(const cpu::Frame& frame) const { return of(const_cast<float*>(array.from(frame))); }
    cpu::PackedView to(const cpu::Frame& frame) const { return of(array.to(frame)); }
};

using Tensor = std::variant<View, Images>;

cpu::PackedView source(const Tensor& x, const cpu::Frame& frame) {
    const View* view = std::get_if<View>(&x);
    return view != nullptr ? view->in(frame) : std::get<Images>(x).from(frame);
}

cpu::PackedView target(const Tensor& y, const cpu::Frame& frame) {
    const View* view = std::get_if<View>(&y);
    return view != nullptr ? view->in(frame) : std::get<Images>(y).to(frame);
}

// Whether the pixels of a tensor consist of whole vectors of channels.
bool has_vectors(const Tensor& tensor) {
    const Images* images = std::get_if<Images>(&tensor);
    return images == nullptr || (images->channels_last && images->channels % images->lanes == 0);
}

// Whether Winograd's transforms can take the tensor as it lies.
bool has_tiles(const Tensor& tensor, bool dilated) {
    const Images* images = std::get_if<Images>(&tensor);
    return images == nullptr || (!dilated && (!images->channels_last || has_vectors(tensor)));
}

struct Sizes {
    int64_t channels, height, width;
};

Sizes sizes_of(const Tensor& tensor) {
    return std::visit([](const auto& of) { return Sizes{of.channels, of.height, of.width}; }, tensor);
}

Plain plain(const std::string& space, int64_t at) {
    require(space == "arena" || space == "input" || space == "output", "Plain: space is arena, input or output");
    require(at >= 0 && at <= kLargest, "Plain: at must be between 0 and 2**40");
    return {space == "arena" ? Plain::kArena : space == "input" ? Plain::kInput : Plain::kOutput, at};
}

// Filters in the order their kernels read them, shared by all the programs of a network.
struct Filters {
    enum Kind { kConv, kDepthwise, kLinear } kind;
    std::array<int64_t, 4> shape;  // K, C, R, S as in NCHW; (out, in, 1, 1) of a linear layer
    int64_t lanes;
    Memory data;
    std::mutex mutex;
    std::map<int64_t, Memory> transformed;  // by Winograd tile

    Filters(Kind kind, const std::array<int64_t, 4>& shape)
        : kind(kind), shape(shape), lanes(pycnn::lanes()), data(memory(floats())) {}

    // In whole vectors of the instruction set that they were made for.
    int64_t padded(int64_t channels) const { return (channels + lanes - 1) / lanes * lanes; }

    // A single block of channels is only as deep as there are channels.
    int64_t depth() const { return kind == kConv && shape[1] > lanes ? padded(shape[1]) : shape[1]; }

    int64_t taps() const { return shape[2] * shape[3]; }

    int64_t floats() const { return padded(shape[0]) * depth() * taps(); }

    // Where w[k][c][tap] lies.
    int64_t place(int64_t k, int64_t c, int64_t tap) const {
        const int64_t row = k / lanes * depth() * taps();  // in vectors, as all of these
        const int64_t block = std::min(lanes, depth());
        const int64_t vector = kind == kConv ? (c / lanes * taps() + tap) * block + c % lanes : c * taps() + tap;
        return (row + vector) * lanes + k % lanes;
    }
};

using SharedFilters = std::shared_ptr<Filters>;

SharedFilters empty_filters(const std::string& name, const std::vector<int64_t>& sizes) {
    require(name == "conv" || name == "depthwise" || name == "linear", "filters: kind is conv, depthwise or linear");
    const Filters::Kind kind = name == "conv"        ? Filters::kConv
                               : name == "depthwise" ? Filters::kDepthwise
                                                     : Filters::kLinear;
    require(sizes.size() == (kind == Filters::kLinear ? 2 : 4), "filters: a wrong number of dimensions");
    std::array<int64_t, 4> shape = {1, 1, 1, 1};
    int64_t all = kLargest >> 10;
    for (std::size_t i = 0; i < sizes.size(); i++) {
        require(sizes[i] >= 1 && sizes[i] <= all, "filters: a dimension that is empty or too large");
        shape[i] = sizes[i];
        all /= sizes[i];
    }
    require(kind != Filters::kDepthwise || shape[1] == 1, "filters: depthwise filters have one channel");
    return std::make_shared<Filters>(kind, shape);
}

// Rows of w, from a whole vector of them on.  All rows must have been filled before a program is run.
void fill_filters(Filters& filters, int64_t first, const Floats& w) {
    require(filters.lanes == lanes(), "filters: made for another instruction set");
    require(w.ndim() == (filters.kind == Filters::kLinear ? 2 : 4), "filters: a wrong number of dimensions");
    for (py::ssize_t i = 1; i < w.ndim(); i++) {
        require(w.shape(i) == filters.shape[static_cast<std::size_t>(i)], "filters: rows of another shape");
    }
    const int64_t rows = w.shape(0);
    require(first >= 0 && first % filters.lanes == 0 && first <= filters.shape[0] && rows <= filters.shape[0] - first &&
                (rows % filters.lanes == 0 || first + rows == filters.shape[0]),
            "filters: rows must begin and end at whole vectors");
    const float* from = w.data();
    float* to = filters.data.get() + filters.place(first, 0, 0);
    const cpu::PackedOperators& run = cpu::kernels().packed;
    const ReleaseGil release;
    filters.kind == Filters::kConv ? run.filters(rows, filters.shape[1], filters.taps(), from, to)
                                   : run.rows(rows, filters.shape[1] * filters.taps(), from, to);
}

// The filters as they were given.
Floats plain_filters(const Filters& filters) {
    const auto [K, C, R, S] = filters.shape;
    Floats w = filters.kind == Filters::kLinear ? new_array<float>({K, C}) : new_array<float>({K, C, R, S});
    float* to = w.mutable_data();
    const ReleaseGil release;
    for (int64_t k = 0; k < K; k++) {
        for (int64_t c = 0; c < C; c++) {
            for (int64_t tap = 0; tap < R * S; tap++) *to++ = filters.data.get()[filters.place(k, c, tap)];
        }
    }
    return w;
}

Memory winograd_filters(const cpu::PackedOperators& run, Filters& filters, int64_t tile) {
    const std::lock_guard lock(filters.mutex);
    Memory& kept = filters.transformed[tile];
    if (kept == nullptr) {
        const int64_t size = tile + filters.shape[2] - 1;
        kept = memory(filters.padded(filters.shape[0]) * filters.padded(filters.shape[1]) * size * size);
        run.winograd_filters(tile, filters.shape[2], filters.shape[0], filters.shape[1], filters.data.get(),
                             kept.get());
    }
    return kept;
}

// Values for whole vectors, zeros where there are none.
Memory padded(const std::optional<Floats>& values, int64_t count, int64_t lanes, float otherwise = 0.0f) {
    const int64_t size = blocks_of(count, lanes) * lanes;
    Memory result = memory(size);
    std::fill_n(result.get(), size, 0.0f);
    require(!values || (values->ndim() == 1 && values->shape(0) == count), "program: one value for every channel");
    if (values) {
        std::copy_n(values->data(), count, result.get());
    } else {
        std::fill_n(result.get(), count, otherwise);
    }
    return result;
}

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

class Program {
  public:
    Program(int64_t images, int64_t arena)
        : images_(images), program_(arena), kernels_(cpu::kernels()), lanes_(kernels_.vector_bytes / 4) {
        require(images >= 0 && images <= kLargest, "program: images must be between 0 and 2**40");
        require(arena >= 0 && arena <= kLargest, "program: the arena must be between 0 and 2**40");
    }

    int64_t arena() const { return program_.arena(); }
    std::size_t size() const { return program_.size(); }

    void pack(const Images& x, const View& y) {
        reads(x);
        inside(y);
        same(sizes_of(x), sizes_of(y));
        add([=, this](const cpu::Frame& f) { run().pack(images_, x.from(f), y.in(f)); });
    }

    void unpack(const View& x, const Images& y) {
        inside(x);
        writes(y);
        same(sizes_of(x), sizes_of(y));
        add([=, this](const cpu::Frame& f) { run().unpack(images_, x.in(f), y.to(f)); });
    }

    void clear(const View& x) {
        inside(x);
        add([=, this](const cpu::Frame& f) { run().clear(images_, x.in(f)); });
    }

    void conv(const Tensor& x, const Tensor& y, const SharedFilters& filters, const std::optional<Floats>& bias,
              const Pair& stride, const Pair& padding, const Pair& dilation, const std::optional<View>& residual,
              bool relu, const std::string& algo, bool keep) {
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
                            .relu = relu,
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
                                  .relu = relu},
                                 dilation.data());
        });
    }

    void depthwise(const Tensor& x, const Tensor& y, const SharedFilters& filters, const std::optional<Floats>& bias,
                   const Pair& stride, const Pair& padding, const Pair& dilation, bool relu) {
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
                             .relu = relu});
        });
    }

    void conv_nchw(const Plain& x, const Plain& y, const Floats& w, const std::optional<Floats>& bias,
                   const std::array<int64_t, 3>& image, const Pair& out, const Pair& stride, const Pair& padding,
                   const Pair& dilation, int64_t groups) {
        const auto [C, H, W] = image;
        sizes({images_, C, H, W});
        sizes({images_, w.ndim() == 4 ? w.shape(0) : 0, out[0], out[1]});
        sizes({padding[0], padding[1]});
        require(w.ndim() == 4 && groups >= 1 && w.shape(1) * groups == C && w.shape(0) % groups == 0 &&
                    w.shape(2) >= 1 && w.shape(3) >= 1 && H >= 1 && W >= 1 && out[0] >= 1 && out[1] >= 1,
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

    void linear(const Plain& x, const Plain& y, const SharedFilters& filters, const std::optional<Floats>& bias,
                bool relu) {
        fits(*filters, Filters::kLinear, filters->shape[0], filters->shape[1]);
        const int64_t outputs = filters->shape[0];
        const int64_t inputs = filters->shape[1];
        sizes({images_, inputs});
        sizes({images_, outputs});
        reads(x, images_ * inputs);
        writes(y, images_ * outputs);
        const Memory b = padded(bias, outputs, lanes_);
        add([=, this](const cpu::Frame& f) {
            run().linear({.rows = images_,
                          .inputs = inputs,
                          .outputs = outputs,
                          .x = x.from(f),
                          .filters = filters->data.get(),
                          .bias = b.get(),
                          .y = y.to(f),
                          .relu = relu});
        });
    }

    void max_pool(const View& x, const View& y, const Pair& kernel, const Pair& stride, const Sides& padding,
                  const Pair& dilation) {
        pool(x, y, regular_axis(x.height, y.height, kernel[0], stride[0], padding[0], padding[1], dilation[0], true),
             regular_axis(x.width, y.width, kernel[1], stride[1], padding[2], padding[3], dilation[1], true), true);
    }

    void avg_pool(const View& x, const View& y, const Pair& kernel, const Pair& stride, const Sides& padding,
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

    void adaptive_max_pool(const View& x, const View& y) {
        pool(x, y, adaptive_axis(x.height, y.height), adaptive_axis(x.width, y.width), true);
    }

    void adaptive_avg_pool(const View& x, const View& y) {
        pool(x, y, adaptive_axis(x.height, y.height), adaptive_axis(x.width, y.width), false);
    }

    void mean(const View& x, const Plain& y) {
        inside(x);
        require(x.height * x.width > 0, "program: the mean of an empty plane");
        writes(y, images_ * x.channels);
        add([=, this](const cpu::Frame& f) { run().mean(images_, x.in(f), y.to(f)); });
    }

    void sum(const View& a, const View& b, const View& y, bool relu) { binary(run().add, a, b, y, relu); }

    void mul(const View& a, const View& b, const View& y, bool relu) { binary(run().mul, a, b, y, relu); }

    void affine(const View& x, const View& y, const std::optional<Floats>& scale, const std::optional<Floats>& shift,
                bool relu) {
        inside(x);
        inside(y);
        same(sizes_of(x), sizes_of(y));
        const Memory slope = padded(scale, x.channels, lanes_, 1.0f);
        const Memory offset = padded(shift, x.channels, lanes_);
        add([=, this](const cpu::Frame& f) {
            run().affine(images_, x.in(f), slope.get(), offset.get(), y.in(f), relu);
        });
    }

    // The scale has one pixel.
    void scale(const View& x, const View& scale, const View& y, bool relu) {
        inside(x);
        inside(scale);
        inside(y);
        same(sizes_of(x), sizes_of(y));
        same(sizes_of(scale), {x.channels, 1, 1});
        add([=, this](const cpu::Frame& f) { run().scale(images_, x.in(f), scale.in(f), y.in(f), relu); });
    }

    // Elementwise on dense memory, so also on a whole packed tensor where f(0) is 0.
    void unary(const std::string& name, const Plain& x, const Plain& y, int64_t count) {
        require(name == "relu" || name == "tanh" || name == "sigmoid", "program: unary is relu, tanh or sigmoid");
        const cpu::Unary function = name == "relu"   ? cpu::Unary::kRelu
                                    : name == "tanh" ? cpu::Unary::kTanh
                                                     : cpu::Unary::kSigmoid;
        sizes({count});
        reads(x, count);
        writes(y, count);
        add([=, this](const cpu::Frame& f) { kernels_.f32.activation.unary(function, count, x.from(f), y.to(f)); });
    }

    void activation(const std::string& name, const Plain& x, const Plain& y, int64_t count, double a, double b,
                    double c) {
        const cpu::ActivationFunction function = function_of(name, a, b, c);
        sizes({count});
        reads(x, count);
        writes(y, count);
        add([=, this](const cpu::Frame& f) {
            kernels_.f32.activation.activation_fwd(function, count, x.from(f), y.to(f));
        });
    }

    void lrn(const Plain& x, const Plain& y, int64_t channels, int64_t pixels, int64_t size, double alpha, double beta,
             double k) {
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

    void softmax(const Plain& x, const Plain& y, int64_t outer, int64_t count, int64_t inner, bool log) {
        sizes({outer, count, inner});
        reads(x, outer * count * inner);
        writes(y, outer * count * inner);
        add([=, this](const cpu::Frame& f) {
            kernels_.f32.activation.softmax_fwd({.outer = outer, .count = count, .inner = inner, .log = log}, x.from(f),
                                                y.to(f));
        });
    }

    void copy(const Plain& x, const Plain& y, int64_t count) {
        sizes({count});
        reads(x, count);
        writes(y, count);
        add([=](const cpu::Frame& f) { std::copy_n(x.from(f), count, y.to(f)); });
    }

    // Axis i of y is axis order[i] of x, which has `shape` for each image; the images stay first.
    void permute(const Plain& x, const Plain& y, const std::vector<int64_t>& shape, const std::vector<int64_t>& order) {
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

    void execute(const std::vector<py::array>& inputs, const std::vector<py::array>& outputs) const {
        const Arrays arrays(*this, inputs, outputs);
        const ReleaseGil release;
        program_.run(arrays.inputs.data(), arrays.outputs.data());
    }

    std::vector<double> profile(const std::vector<py::array>& inputs, const std::vector<py::array>& outputs,
                                int rounds) const {
        require(rounds >= 1, "program: rounds must be at least 1");
        const Arrays arrays(*this, inputs, outputs);
        const ReleaseGil release;
        return program_.profile(arrays.inputs.data(), arrays.outputs.data(), rounds);
    }

  private:
    struct Arrays {
        std::vector<const float*> inputs;
        std::vector<float*> outputs;

        Arrays(const Program& program, const std::vector<py::array>& from, const std::vector<py::array>& to) {
            require(from.size() >= program.inputs_.size() && to.size() >= program.outputs_.size(),
                    "program: an input or output is missing");
            // By hand: a conversion would be a silent copy.
            for (const auto* arrays : {&from, &to}) {
                for (const py::array& array : *arrays) {
                    require(py::isinstance<Floats>(array), "program: arrays must be float32 and C-contiguous");
                }
            }
            for (const py::array& array : from) inputs.push_back(static_cast<const float*>(array.data()));
            for (py::array array : to) outputs.push_back(static_cast<float*>(array.mutable_data()));
            for (std::size_t i = 0; i < program.inputs_.size(); i++) {
                require(from[i].size() >= program.inputs_[i], "program: an input is too small");
            }
            for (std::size_t i = 0; i < program.outputs_.size(); i++) {
                require(to[i].size() >= program.outputs_[i], "program: an output is too small");
            }
        }
    };

    const cpu::PackedOperators& run() const { return kernels_.packed; }

    void add(cpu::Program::Step step) { program_.add(std::move(step)); }

    void pool(const View& x, const View& y, PoolWindows rows, PoolWindows columns, bool largest) {
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

    void binary(decltype(cpu::PackedOperators::add) function, const View& a, const View& b, const View& y, bool relu) {
        inside(a);
        inside(b);
        inside(y);
        same(sizes_of(a), sizes_of(y));
        same(sizes_of(b), sizes_of(y));
        add([=, this](const cpu::Frame& f) { function(images_, a.in(f), b.in(f), y.in(f), relu); });
    }

    static void sizes(std::initializer_list<int64_t> values) {
        int64_t product = 1;
        for (const int64_t value : values) {
            require(value >= 0 && value <= kLargest, "program: a size below 0 or over 2**40");
            if (value > 1) require(!__builtin_mul_overflow(product, value, &product), "program: sizes too large");
        }
    }

    static void steps(const Pair& stride, const Pair& dilation) {
        for (int i = 0; i < 2; i++) {
            require(stride[i] >= 1 && stride[i] <= kLargest && dilation[i] >= 1 && dilation[i] <= kLargest >> 10,
                    "program: stride and dilation must be at least 1");
        }
    }

    // The sizes of x, y and a window agree well enough to be multiplied and compared.
    void window(const Sizes& x, const Sizes& y, const Pair& taps, const Pair& stride, const Pair& padding,
                const Pair& dilation) const {
        sizes({images_, x.channels, x.height, x.width});
        sizes({images_, y.channels, y.height, y.width});
        sizes({padding[0], padding[1]});
        steps(stride, dilation);
        for (int i = 0; i < 2; i++) {
            require(taps[i] <= kLargest >> 20 && (i == 0 ? y.height : y.width) <= kLargest / stride[i],
                    "program: sizes too large");
        }
    }

    void fits(const Filters& filters, Filters::Kind kind, int64_t K, int64_t C) const {
        require(filters.kind == kind, "program: filters packed for another step");
        require(filters.lanes == lanes_, "program: filters packed for another instruction set");
        require(filters.shape[0] == K && filters.shape[1] == C, "program: filters and channels disagree");
    }

    static void same(const Sizes& a, const Sizes& b) {
        require(a.channels == b.channels && a.height == b.height && a.width == b.width,
                "program: two tensors must have one shape");
    }

    // The whole tensor lies in the arena.
    void inside(const View& v) const {
        require(v.pixel == lanes_, "program: a tensor of another instruction set");
        sizes({images_, v.channels, v.height, v.width});
        sizes({v.offset});
        for (const int64_t step : {v.image, v.block, v.row}) sizes({step});
        if (images_ * v.channels * v.height * v.width == 0) return;
        require(v.row <= arena() && v.block <= arena() && v.image <= arena() && std::max(v.height, v.width) <= arena(),
                "program: a tensor does not lie in the arena");
        const __int128 last = static_cast<__int128>(v.offset) + static_cast<__int128>(images_ - 1) * v.image +
                              static_cast<__int128>(blocks_of(v.channels, lanes_) - 1) * v.block +
                              static_cast<__int128>(v.height - 1) * v.row + static_cast<__int128>(v.width) * v.pixel;
        require(last <= arena(), "program: a tensor does not lie in the arena");
    }

    void reads(const Tensor& x) {
        if (const View* view = std::get_if<View>(&x)) return inside(*view);
        const Images& array = std::get<Images>(x);
        require(array.lanes == lanes_, "program: a tensor of another instruction set");
        sizes({images_, array.channels, array.height, array.width});
        reads(array.array, images_ * array.channels * array.height * array.width);
    }

    void writes(const Tensor& y) {
        if (const View* view = std::get_if<View>(&y)) return inside(*view);
        const Images& array = std::get<Images>(y);
        require(array.lanes == lanes_, "program: a tensor of another instruction set");
        sizes({images_, array.channels, array.height, array.width});
        writes(array.array, images_ * array.channels * array.height * array.width);
    }

    void reads(const Plain& x, int64_t count) {
        if (x.space == Plain::kOutput) {
            require(
                static_cast<std::size_t>(x.at) < outputs_.size() && outputs_[static_cast<std::size_t>(x.at)] >= count,
                "program: an output is read before it is written");
            return;
        }
        touches(x, count, inputs_);
    }

    void writes(const Plain& y, int64_t count) {
        require(y.space != Plain::kInput, "program: inputs are not written");
        touches(y, count, outputs_);
    }

    void touches(const Plain& array, int64_t count, std::vector<int64_t>& outside) const {
        require(count >= 0, "program: sizes too large");
        if (array.space == Plain::kArena) {
            require(array.at <= arena() && count <= arena() - array.at, "program: an array does not lie in the arena");
            return;
        }
        require(array.at < 1024, "program: at most 1024 inputs and outputs");
        const auto index = static_cast<std::size_t>(array.at);
        if (outside.size() <= index) outside.resize(index + 1);
        outside[index] = std::max(outside[index], count);
    }

    static Memory copied(const Floats& array) {
        Memory result = memory(array.size());
        std::copy_n(array.data(), array.size(), result.get());
        return result;
    }

    int64_t images_;
    cpu::Program program_;
    const cpu::Kernels& kernels_;  // of the instruction set in force when it was made
    const int64_t lanes_;
    std::vector<int64_t> inputs_, outputs_;  // floats that the steps touch
};

}  // namespace

void bind_program(py::module_& m) {
    m.def("lanes", &lanes, "Floats in a vector of the instruction set in force: channels of a block.");

    py::class_<View>(m, "View", "A packed tensor in a program's arena.")
        .def(py::init([](int64_t offset, int64_t channels, int64_t height, int64_t width, int64_t image, int64_t block,
                         int64_t row) { return View{offset, channels, height, width, image, block, row}; }),
             py::arg("offset"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("image"),
             py::arg("block"), py::arg("row"));
    py::class_<Plain>(m, "Plain", "A dense array: in the arena, an input or an output.")
        .def(py::init(&plain), py::arg("space"), py::arg("at"));
    py::class_<Images>(m, "Images", "An array in NCHW or channels-last, as it lies.")
        .def(py::init([](const Plain& array, int64_t channels, int64_t height, int64_t width, bool channels_last) {
                 return Images{array, channels, height, width, channels_last};
             }),
             py::arg("array"), py::arg("channels"), py::arg("height"), py::arg("width"),
             py::arg("channels_last") = false);

    using py::arg;
    py::class_<Filters, SharedFilters>(m, "Filters", "Filters in the order their kernels read them.")
        .def(py::init(&empty_filters), arg("kind"), arg("shape"))
        .def("fill", &fill_filters, arg("first"), arg("w").noconvert())
        .def("plain", &plain_filters)
        .def_property_readonly("nbytes", [](const Filters& filters) { return 4 * filters.floats(); });

    py::class_<Program>(m, "Program", "A compiled network: steps over one arena.")
        .def(py::init<int64_t, int64_t>(), arg("images"), arg("arena"))
        .def_property_readonly("arena", &Program::arena)
        .def("__len__", &Program::size)
        .def("pack", &Program::pack, arg("x"), arg("y"))
        .def("unpack", &Program::unpack, arg("x"), arg("y"))
        .def("clear", &Program::clear, arg("x"))
        .def("conv", &Program::conv, arg("x"), arg("y"), arg("filters"), arg("bias").noconvert(), py::kw_only(),
             arg("stride"), arg("padding"), arg("dilation"), arg("residual"), arg("relu"), arg("algo"), arg("keep"))
        .def("depthwise", &Program::depthwise, arg("x"), arg("y"), arg("filters"), arg("bias").noconvert(),
             py::kw_only(), arg("stride"), arg("padding"), arg("dilation"), arg("relu"))
        .def("conv_nchw", &Program::conv_nchw, arg("x"), arg("y"), arg("w").noconvert(), arg("bias").noconvert(),
             py::kw_only(), arg("image"), arg("out"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"))
        .def("linear", &Program::linear, arg("x"), arg("y"), arg("filters"), arg("bias").noconvert(), py::kw_only(),
             arg("relu"))
        .def("max_pool", &Program::max_pool, arg("x"), arg("y"), py::kw_only(), arg("kernel"), arg("stride"),
             arg("padding"), arg("dilation"))
        .def("avg_pool", &Program::avg_pool, arg("x"), arg("y"), py::kw_only(), arg("kernel"), arg("stride"),
             arg("padding"), arg("count_include_pad"), arg("divisor_override"))
        .def("adaptive_max_pool", &Program::adaptive_max_pool, arg("x"), arg("y"))
        .def("adaptive_avg_pool", &Program::adaptive_avg_pool, arg("x"), arg("y"))
        .def("mean", &Program::mean, arg("x"), arg("y"))
        .def("add", &Program::sum, arg("a"), arg("b"), arg("y"), arg("relu"))
        .def("mul", &Program::mul, arg("a"), arg("b"), arg("y"), arg("relu"))
        .def("affine", &Program::affine, arg("x"), arg("y"), arg("scale").noconvert(), arg("shift").noconvert(),
             arg("relu"))
        .def("scale", &Program::scale, arg("x"), arg("scale"), arg("y"), arg("relu"))
        .def("activation", &Program::activation, arg("name"), arg("x"), arg("y"), arg("count"), arg("a"), arg("b"),
             arg("c"))
        .def("unary", &Program::unary, arg("name"), arg("x"), arg("y"), arg("count"))
        .def("lrn", &Program::lrn, arg("x"), arg("y"), py::kw_only(), arg("channels"), arg("pixels"), arg("size"),
             arg("alpha"), arg("beta"), arg("k"))
        .def("softmax", &Program::softmax, arg("x"), arg("y"), py::kw_only(), arg("outer"), arg("count"), arg("inner"),
             arg("log"))
        .def("permute", &Program::permute, arg("x"), arg("y"), arg("shape"), arg("order"))
        .def("copy", &Program::copy, arg("x"), arg("y"), arg("count"))
        .def("run", &Program::execute, arg("inputs"), arg("outputs"))
        .def("profile", &Program::profile, arg("inputs"), arg("outputs"), arg("rounds"));
}

}  // namespace pycnn
