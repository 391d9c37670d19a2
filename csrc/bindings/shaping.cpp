#include "cpu/shaping.h"

#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"

namespace pycnn {
namespace {

constexpr py::ssize_t kLargest = py::ssize_t{1} << 40;

template <typename T>
Array<T> pad2d(const Array<T>& x, const std::array<py::ssize_t, 4>& padding, double value) {
    require(x.ndim() == 4, "pad2d: x must be (N, C, H, W)");
    for (const py::ssize_t side : padding) {
        require(side >= 0 && side <= kLargest, "pad2d: padding must be between 0 and 2**40");
    }
    const auto [top, bottom, left, right] = padding;
    Array<T> y = new_array<T>({x.shape(0), x.shape(1), top + x.shape(2) + bottom, left + x.shape(3) + right});
    const cpu::Pad2d<T> problem = {
        .planes = x.shape(0) * x.shape(1),
        .H = x.shape(2),
        .W = x.shape(3),
        .top = top,
        .bottom = bottom,
        .left = left,
        .right = right,
        .value = static_cast<T>(value),
        .x = x.data(),
        .y = y.mutable_data(),
    };
    const ReleaseGil release;
    cpu::pad2d(problem);
    return y;
}

template <typename T>
Array<T> concat(const std::vector<Array<T>>& arrays, py::ssize_t axis) {
    require(!arrays.empty(), "concat: at least one array is needed");
    const Array<T>& first = arrays.front();
    if (axis < 0) axis += first.ndim();
    require(axis >= 0 && axis < first.ndim(), "concat: axis out of range");
    std::vector<py::ssize_t> shape = shape_of(first);
    shape[axis] = 0;
    for (const Array<T>& array : arrays) {
        require(array.ndim() == first.ndim(), "concat: the arrays must have one rank");
        for (py::ssize_t i = 0; i < first.ndim(); i++) {
            require(i == axis || array.shape(i) == first.shape(i), "concat: sizes differ outside the axis");
        }
        shape[axis] += array.shape(axis);
    }
    py::ssize_t outer = 1;
    for (py::ssize_t i = 0; i < axis; i++) outer *= shape[i];
    std::vector<cpu::ConcatPart> parts;
    for (const Array<T>& array : arrays) {
        py::ssize_t bytes = sizeof(T);
        for (py::ssize_t i = axis; i < array.ndim(); i++) bytes *= array.shape(i);
        parts.push_back({reinterpret_cast<const std::byte*>(array.data()), bytes});
    }
    Array<T> y = new_array<T>(shape);
    std::byte* to = reinterpret_cast<std::byte*>(y.mutable_data());
    const ReleaseGil release;
    cpu::concat(outer, parts, to);
    return y;
}

Array<float> scaled_rows(const Array<float>& x, const Array<double>& scale) {
    require(x.ndim() >= 1 && scale.ndim() == 1 && scale.shape(0) == x.shape(0),
            "scaled_rows: scale must have one value a row");
    Array<float> y = new_array<float>(shape_of(x));
    const float* from = x.data();
    const double* factors = scale.data();
    float* to = y.mutable_data();
    const py::ssize_t rows = x.shape(0);
    const py::ssize_t columns = rows == 0 ? 0 : x.size() / rows;
    const ReleaseGil release;
    cpu::scaled_rows(rows, columns, from, factors, to);
    return y;
}

template <typename T>
void bind(py::module_& m) {
    m.def("pad2d", &pad2d<T>, py::arg("x").noconvert(), py::arg("padding"), py::arg("value"));
    m.def("concat", &concat<T>, py::arg("arrays").noconvert(), py::arg("axis"));
}

}  // namespace

void bind_shaping(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
    m.def("scaled_rows", &scaled_rows, py::arg("x").noconvert(), py::arg("scale").noconvert());
}

}  // namespace pycnn
