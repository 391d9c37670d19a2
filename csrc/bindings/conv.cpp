#include <pybind11/stl.h>

#include <array>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/conv_packed.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

using Pair = std::array<std::int64_t, 2>;
using Shape = std::array<py::ssize_t, 4>;

// What Python passes once for all passes: the sizes that do not follow from the arrays.
struct Geometry {
    Pair stride, padding, dilation;  // padding: top and left; bottom and right follow from the output's size
    std::int64_t groups;
};

cpu::ConvShape shape_of(const Shape& x, const Shape& w, const Shape& y, const Geometry& g) {
    require(g.groups >= 1 && x[1] == w[1] * g.groups && w[0] % g.groups == 0, "convolution: channels disagree");
    require(y[0] == x[0] && y[1] == w[0], "convolution: batch or filters disagree");
    for (int i = 0; i < 2; i++) {
        require(g.stride[i] >= 1 && g.dilation[i] >= 1 && g.padding[i] >= 0, "convolution: stride, padding, dilation");
        require(w[2 + i] >= 1 && y[2 + i] >= 1 && x[2 + i] >= 1, "convolution: an empty window or image");
    }
    return {.N = x[0],
            .C = x[1],
            .H = x[2],
            .W = x[3],
            .K = w[0],
            .R = w[2],
            .S = w[3],
            .P = y[2],
            .Q = y[3],
            .stride_h = g.stride[0],
            .stride_w = g.stride[1],
            .pad_top = g.padding[0],
            .pad_left = g.padding[1],
            .dilation_h = g.dilation[0],
            .dilation_w = g.dilation[1],
            .groups = g.groups};
}

// Or the elements of x, where these are more: dgrad writes them all.
double multiply_adds(const cpu::ConvShape& s) {
    const double inputs = static_cast<double>(s.N * s.C) * static_cast<double>(s.H * s.W);
    return std::max(inputs,
                    static_cast<double>(s.N * s.K * s.P * s.Q) * static_cast<double>(s.C / s.groups * s.R * s.S));
}

template <typename T>
Shape sizes(const Array<T>& array) {
    require(array.ndim() == 4, "convolution: arrays must have 4 dimensions");
    return {array.shape(0), array.shape(1), array.shape(2), array.shape(3)};
}

template <typename T>
Array<T> array_of(const Shape& shape) {
    return new_array<T>({shape.begin(), shape.end()});
}

template <typename T>
const cpu::ConvAlgorithm<T>& algorithm(const std::string& name) {
    const cpu::Operators<T>& operators = cpu::operators<T>(cpu::kernels());
    if (name == "direct") return operators.direct;
    if (name == "im2col_explicit") return operators.im2col_explicit;
    if (name == "im2col_implicit") return operators.im2col_implicit;
    if constexpr (sizeof(T) == 4) {
        static const cpu::ConvAlgorithm<float> packed = {cpu::conv_fprop_packed, cpu::conv_dgrad_packed, nullptr};
        if (name == "direct_packed") return packed;
    }
    throw py::value_error("convolution: unknown algorithm " + name);
}

template <typename T>
Array<T> fprop(const std::string& name, const Array<T>& x, const Array<T>& w, const std::optional<Array<T>>& b,
               const Shape& y_shape, const Pair& stride, const Pair& padding, const Pair& dilation,
               std::int64_t groups) {
    const auto& chosen = algorithm<T>(name);
    const cpu::ConvShape shape = shape_of(sizes(x), sizes(w), y_shape, {stride, padding, dilation, groups});
    require(!b || (b->ndim() == 1 && b->shape(0) == shape.K), "convolution: bias must have one value a filter");
    Array<T> y = array_of<T>(y_shape);
    const T* bias = data_or_null(b);
    const T* from_x = x.data();
    const T* from_w = w.data();
    T* to = y.mutable_data();
    const ReleaseGil release(multiply_adds(shape));
    if (shape.N > 0) chosen.fprop(shape, from_x, from_w, bias, to);
    return y;
}

template <typename T>
Array<T> dgrad(const std::string& name, const Array<T>& dy, const Array<T>& w, const Shape& x_shape, const Pair& stride,
               const Pair& padding, const Pair& dilation, std::int64_t groups) {
    const auto& chosen = algorithm<T>(name);
    const cpu::ConvShape shape = shape_of(x_shape, sizes(w), sizes(dy), {stride, padding, dilation, groups});
    Array<T> dx = array_of<T>(x_shape);
    const T* from_dy = dy.data();
    const T* from_w = w.data();
    T* to = dx.mutable_data();
    const ReleaseGil release(multiply_adds(shape));
    if (shape.N > 0) chosen.dgrad(shape, from_dy, from_w, to);
    return dx;
}

template <typename T>
Array<T> wgrad(const std::string& name, const Array<T>& dy, const Array<T>& x, const Shape& w_shape, const Pair& stride,
               const Pair& padding, const Pair& dilation, std::int64_t groups) {
    const auto& chosen = algorithm<T>(name);
    const cpu::ConvShape shape = shape_of(sizes(x), w_shape, sizes(dy), {stride, padding, dilation, groups});
    Array<T> dw = array_of<T>(w_shape);
    const T* from_dy = dy.data();
    const T* from_x = x.data();
    T* to = dw.mutable_data();
    require(chosen.wgrad != nullptr, "convolution: this algorithm has no wgrad");
    const ReleaseGil release(multiply_adds(shape));
    chosen.wgrad(shape, from_dy, from_x, to);
    return dw;
}

void require_tile(const cpu::ConvShape& s, std::int64_t tile) {
    const bool threes = s.R == 3 && (tile == 2 || tile == 4 || tile == 6);
    const bool fives = s.R == 5 && (tile == 2 || tile == 4);
    require(s.R == s.S && (threes || fives), "winograd: no such tile for these filters");
}

Array<float> winograd_fprop(const Array<float>& x, const Array<float>& w, const std::optional<Array<float>>& b,
                            const Shape& y_shape, const Pair& padding, const Pair& dilation, std::int64_t tile) {
    const cpu::ConvShape shape = shape_of(sizes(x), sizes(w), y_shape, {{1, 1}, padding, dilation, 1});
    require_tile(shape, tile);
    require(!b || (b->ndim() == 1 && b->shape(0) == shape.K), "convolution: bias must have one value a filter");
    Array<float> y = array_of<float>(y_shape);
    const float* bias = data_or_null(b);
    const float* from_x = x.data();
    const float* from_w = w.data();
    float* to = y.mutable_data();
    const ReleaseGil release(multiply_adds(shape));
    if (shape.N > 0) cpu::winograd_fprop_packed(shape, tile, from_x, from_w, bias, to);
    return y;
}

Array<float> winograd_dgrad(const Array<float>& dy, const Array<float>& w, const Shape& x_shape, const Pair& padding,
                            const Pair& dilation, std::int64_t tile) {
    const cpu::ConvShape shape = shape_of(x_shape, sizes(w), sizes(dy), {{1, 1}, padding, dilation, 1});
    require_tile(shape, tile);
    Array<float> dx = array_of<float>(x_shape);
    const float* from_dy = dy.data();
    const float* from_w = w.data();
    float* to = dx.mutable_data();
    const ReleaseGil release(multiply_adds(shape));
    if (shape.N > 0) cpu::winograd_dgrad_packed(shape, tile, from_dy, from_w, to);
    return dx;
}

template <typename T>
Array<T> channel_sum(const Array<T>& dy) {
    require(dy.ndim() >= 2, "channel_sum: at least 2 dimensions");
    py::ssize_t inner = 1;
    for (py::ssize_t i = 2; i < dy.ndim(); i++) inner *= dy.shape(i);
    Array<T> sum = new_array<T>({dy.shape(1)});
    const T* from = dy.data();
    T* to = sum.mutable_data();
    const py::ssize_t n = dy.shape(0);
    const py::ssize_t channels = dy.shape(1);
    const ReleaseGil release(static_cast<double>(dy.size()));
    cpu::operators<T>(cpu::kernels()).channel_sum(n, channels, inner, from, to);
    return sum;
}

template <typename T>
void bind(py::module_& m) {
    m.def("conv2d_fprop", &fprop<T>, py::arg("algorithm"), py::arg("x").noconvert(), py::arg("w").noconvert(),
          py::arg("b").noconvert(), py::arg("y_shape"), py::arg("stride"), py::arg("padding"), py::arg("dilation"),
          py::arg("groups"), "Convolution by the named algorithm; padding is (top, left).");
    m.def("conv2d_dgrad", &dgrad<T>, py::arg("algorithm"), py::arg("dy").noconvert(), py::arg("w").noconvert(),
          py::arg("x_shape"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
          "Gradient of the input by the named algorithm.");
    m.def("conv2d_wgrad", &wgrad<T>, py::arg("algorithm"), py::arg("dy").noconvert(), py::arg("x").noconvert(),
          py::arg("w_shape"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
          "Gradient of the filters by the named algorithm.");
    m.def("channel_sum", &channel_sum<T>, py::arg("dy").noconvert(), "Sum over all axes but the second.");
}

}  // namespace

void bind_conv(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
    m.def("winograd_packed_fprop", &winograd_fprop, py::arg("x").noconvert(), py::arg("w").noconvert(),
          py::arg("b").noconvert(), py::arg("y_shape"), py::arg("padding"), py::arg("dilation"), py::arg("tile"),
          "Square filters, stride 1, one group, by F(tile, R) in the packed layout.");
    m.def("winograd_packed_dgrad", &winograd_dgrad, py::arg("dy").noconvert(), py::arg("w").noconvert(),
          py::arg("x_shape"), py::arg("padding"), py::arg("dilation"), py::arg("tile"), "Its gradient by the input.");
}

}  // namespace pycnn
