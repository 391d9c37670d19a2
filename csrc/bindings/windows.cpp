#include "cpu/windows.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"

namespace pycnn {
namespace {

using Pair = std::array<std::int64_t, 2>;

constexpr std::int64_t kLargest = std::int64_t{1} << 40;

cpu::WindowAxis axis_of(std::int64_t size, std::int64_t out, std::int64_t taps, std::int64_t stride,
                        std::int64_t before, std::int64_t dilation) {
    require(taps >= 1 && stride >= 1 && dilation >= 1 && out >= 0,
            "windows: kernel, stride and dilation must be at least 1, and out at least 0");
    require(std::max({size, out, taps, stride, before, -before, dilation}) <= kLargest / 4 &&
                out <= kLargest / stride && taps <= kLargest / dilation,
            "windows: sizes must stay below 2**40");
    return {size, taps, out, stride, before, dilation};
}

template <typename T>
Array<T> unfold2d(const Array<T>& x, const Pair& kernel, const Pair& stride, const Pair& before, const Pair& dilation,
                  const Pair& out, bool rows_first) {
    require(x.ndim() == 4, "unfold2d: x must be (N, C, H, W)");
    const cpu::Windows windows = {
        .N = x.shape(0),
        .C = x.shape(1),
        .rows = axis_of(x.shape(2), out[0], kernel[0], stride[0], before[0], dilation[0]),
        .columns = axis_of(x.shape(3), out[1], kernel[1], stride[1], before[1], dilation[1]),
        .rows_first = rows_first,
    };
    const std::int64_t taps = x.shape(1) * kernel[0] * kernel[1];
    Array<T> y = rows_first ? new_array<T>({x.shape(0), out[0], taps, out[1]})
                            : new_array<T>({x.shape(0), taps, out[0], out[1]});
    const T* from = x.data();
    T* to = y.mutable_data();
    const ReleaseGil release;
    cpu::unfold2d(windows, from, to);
    return y;
}

template <typename T>
Array<T> fold2d(const Array<T>& y, const Pair& size, const Pair& kernel, const Pair& stride, const Pair& before,
                const Pair& dilation) {
    require(y.ndim() == 4, "fold2d: y must be (N, C*R*S, P, Q)");
    require(size[0] >= 0 && size[1] >= 0, "fold2d: the size must not be negative");
    const cpu::WindowAxis rows = axis_of(size[0], y.shape(2), kernel[0], stride[0], before[0], dilation[0]);
    const cpu::WindowAxis columns = axis_of(size[1], y.shape(3), kernel[1], stride[1], before[1], dilation[1]);
    require(kernel[0] <= kLargest / kernel[1] && y.shape(1) % (kernel[0] * kernel[1]) == 0,
            "fold2d: y must have whole windows");
    const cpu::Windows windows = {
        .N = y.shape(0),
        .C = y.shape(1) / (kernel[0] * kernel[1]),
        .rows = rows,
        .columns = columns,
        .rows_first = false,
    };
    Array<T> dx = new_array<T>({windows.N, windows.C, size[0], size[1]});
    const T* from = y.data();
    T* to = dx.mutable_data();
    const ReleaseGil release;
    cpu::fold2d(windows, from, to);
    return dx;
}

template <typename T>
void bind(py::module_& m) {
    m.def("unfold2d", &unfold2d<T>, py::arg("x").noconvert(), py::arg("kernel"), py::arg("stride"), py::arg("before"),
          py::arg("dilation"), py::arg("out"), py::arg("rows_first"));
    m.def("fold2d", &fold2d<T>, py::arg("y").noconvert(), py::arg("size"), py::arg("kernel"), py::arg("stride"),
          py::arg("before"), py::arg("dilation"));
}

}  // namespace

void bind_windows(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
