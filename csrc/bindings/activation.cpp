#include "bindings/activation.h"

#include <unordered_map>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {

cpu::ActivationFunction function_of(const std::string& name, double a, double b, double c) {
    using cpu::Activation;
    static const std::unordered_map<std::string, Activation> functions = {
        {"elu", Activation::kElu},
        {"erf", Activation::kErf},
        {"gelu", Activation::kGelu},
        {"gelu_tanh", Activation::kGeluTanh},
        {"hardshrink", Activation::kHardshrink},
        {"hardsigmoid", Activation::kHardsigmoid},
        {"hardswish", Activation::kHardswish},
        {"hardtanh", Activation::kHardtanh},
        {"huber", Activation::kHuber},
        {"leaky_relu", Activation::kLeakyRelu},
        {"logsigmoid", Activation::kLogsigmoid},
        {"mish", Activation::kMish},
        {"silu", Activation::kSilu},
        {"softplus", Activation::kSoftplus},
        {"softshrink", Activation::kSoftshrink},
        {"softsign", Activation::kSoftsign},
        {"tanhshrink", Activation::kTanhshrink},
        {"threshold", Activation::kThreshold},
    };
    const auto found = functions.find(name);
    require(found != functions.end(), "activation: no function of this name");
    return {found->second, a, b, c};
}

namespace {

constexpr double kExponential = 32;  // operations of an element, in those of a sum

template <typename T>
Array<T> unary(cpu::Unary function, const Array<T>& x) {
    Array<T> y = new_array<T>(shape_of(x));
    const T* from = x.data();
    T* to = y.mutable_data();
    const py::ssize_t count = x.size();
    const ReleaseGil release(kExponential * static_cast<double>(count));
    cpu::operators<T>(cpu::kernels()).activation.unary(function, count, from, to);
    return y;
}

template <typename T>
Array<T> binary(cpu::Binary function, const Array<T>& a, const Array<T>& b) {
    require(same_shape(a, b), "the two arrays must have one shape");
    Array<T> y = new_array<T>(shape_of(a));
    const T* a_from = a.data();
    const T* b_from = b.data();
    T* to = y.mutable_data();
    const py::ssize_t count = a.size();
    const ReleaseGil release(3.0 * static_cast<double>(count));
    cpu::operators<T>(cpu::kernels()).activation.binary(function, count, a_from, b_from, to);
    return y;
}

template <typename T>
void add_to(Array<T>& a, const Array<T>& b) {
    require(same_shape(a, b), "the two arrays must have one shape");
    T* to = a.mutable_data();
    const T* from = b.data();
    const py::ssize_t count = a.size();
    const ReleaseGil release(3.0 * static_cast<double>(count));
    cpu::operators<T>(cpu::kernels()).activation.binary(cpu::Binary::kAdd, count, to, from, to);
}

// (before, along, after) the axis, which may be counted from the end.
template <typename T>
cpu::SoftmaxShape softmax_shape(const Array<T>& x, py::ssize_t axis, bool log) {
    if (axis < 0) axis += x.ndim();
    require(axis >= 0 && axis < x.ndim(), "softmax: axis out of range");
    cpu::SoftmaxShape shape = {1, x.shape(axis), 1, log};
    for (py::ssize_t i = 0; i < axis; i++) shape.outer *= x.shape(i);
    for (py::ssize_t i = axis + 1; i < x.ndim(); i++) shape.inner *= x.shape(i);
    return shape;
}

template <typename T>
Array<T> softmax_fwd(const Array<T>& x, py::ssize_t axis, bool log) {
    const cpu::SoftmaxShape shape = softmax_shape(x, axis, log);
    Array<T> y = new_array<T>(shape_of(x));
    const T* from = x.data();
    T* to = y.mutable_data();
    const ReleaseGil release(kExponential * static_cast<double>(x.size()));
    cpu::operators<T>(cpu::kernels()).activation.softmax_fwd(shape, from, to);
    return y;
}

template <typename T>
Array<T> softmax_bwd(const Array<T>& dy, const Array<T>& y, py::ssize_t axis, bool log) {
    require(same_shape(dy, y), "softmax: dy and y must have one shape");
    const cpu::SoftmaxShape shape = softmax_shape(dy, axis, log);
    Array<T> dx = new_array<T>(shape_of(dy));
    const T* dy_from = dy.data();
    const T* y_from = y.data();
    T* to = dx.mutable_data();
    const ReleaseGil release(kExponential * static_cast<double>(dy.size()));
    cpu::operators<T>(cpu::kernels()).activation.softmax_bwd(shape, dy_from, y_from, to);
    return dx;
}

template <typename T>
Array<T> activation_fwd(const Array<T>& x, const std::string& name, double a, double b, double c) {
    const cpu::ActivationFunction function = function_of(name, a, b, c);
    Array<T> y = new_array<T>(shape_of(x));
    const T* from = x.data();
    T* to = y.mutable_data();
    const py::ssize_t count = x.size();
    const ReleaseGil release(kExponential * static_cast<double>(count));
    cpu::operators<T>(cpu::kernels()).activation.activation_fwd(function, count, from, to);
    return y;
}

template <typename T>
Array<T> activation_bwd(const Array<T>& dy, const Array<T>& x, const std::string& name, double a, double b, double c) {
    require(same_shape(dy, x), "activation: dy and x must have one shape");
    const cpu::ActivationFunction function = function_of(name, a, b, c);
    Array<T> dx = new_array<T>(shape_of(x));
    const T* dy_from = dy.data();
    const T* x_from = x.data();
    T* to = dx.mutable_data();
    const py::ssize_t count = x.size();
    const ReleaseGil release(kExponential * static_cast<double>(count));
    cpu::operators<T>(cpu::kernels()).activation.activation_bwd(function, count, dy_from, x_from, to);
    return dx;
}

template <typename T>
void bind(py::module_& m) {
    const std::pair<const char*, cpu::Unary> unaries[] = {
        {"relu_fwd", cpu::Unary::kRelu}, {"tanh_fwd", cpu::Unary::kTanh}, {"sigmoid_fwd", cpu::Unary::kSigmoid},
        {"exp", cpu::Unary::kExp},       {"log", cpu::Unary::kLog},
    };
    for (const auto& [name, function] : unaries) {
        m.def(
            name, [function = function](const Array<T>& x) { return unary<T>(function, x); }, py::arg("x").noconvert());
    }
    const std::pair<const char*, cpu::Binary> backwards[] = {
        {"relu_bwd", cpu::Binary::kReluBackward},
        {"tanh_bwd", cpu::Binary::kTanhBackward},
        {"sigmoid_bwd", cpu::Binary::kSigmoidBackward},
    };
    for (const auto& [name, function] : backwards) {
        m.def(
            name, [function = function](const Array<T>& dy, const Array<T>& y) { return binary<T>(function, dy, y); },
            py::arg("dy").noconvert(), py::arg("y").noconvert());
    }
    m.def(
        "add", [](const Array<T>& a, const Array<T>& b) { return binary<T>(cpu::Binary::kAdd, a, b); },
        py::arg("a").noconvert(), py::arg("b").noconvert());
    m.def("add_to", &add_to<T>, py::arg("a").noconvert(), py::arg("b").noconvert());
    m.def("activation_fwd", &activation_fwd<T>, py::arg("x").noconvert(), py::arg("name"), py::arg("a"), py::arg("b"),
          py::arg("c"));
    m.def("activation_bwd", &activation_bwd<T>, py::arg("dy").noconvert(), py::arg("x").noconvert(), py::arg("name"),
          py::arg("a"), py::arg("b"), py::arg("c"));
    m.def("softmax_fwd", &softmax_fwd<T>, py::arg("x").noconvert(), py::arg("axis"), py::arg("log"));
    m.def("softmax_bwd", &softmax_bwd<T>, py::arg("dy").noconvert(), py::arg("y").noconvert(), py::arg("axis"),
          py::arg("log"));
}

}  // namespace

void bind_activation(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
