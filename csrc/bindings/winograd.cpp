#include <pybind11/stl.h>

#include <array>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/cook_toom.h"
#include "cpu/isa.h"
#include "cpu/threads.h"

namespace pycnn {
namespace {

using Shape = std::array<py::ssize_t, 4>;
using Pair = std::array<py::ssize_t, 2>;     // of rows, of columns
using Padding = std::array<py::ssize_t, 4>;  // top, bottom, left, right

thread_local std::int64_t last_multiplies = 0;

Shape shape_of(const py::array& array, const char* message) {
    require(array.ndim() == 4, message);
    return {array.shape(0), array.shape(1), array.shape(2), array.shape(3)};
}

// The sizes that all three operators share, checked against one another.
void check(const Shape& x, const Shape& w, const Shape& y, const Padding& pad, const Pair& dilation,
           py::ssize_t groups) {
    require(groups >= 1 && w[0] % groups == 0 && x[1] == w[1] * groups, "winograd: channels disagree");
    require(x[0] == y[0] && y[1] == w[0], "winograd: batch or filters disagree");
    for (const py::ssize_t side : pad) require(side >= 0, "winograd: padding must not be negative");
    for (int i = 0; i < 2; i++) {
        const py::ssize_t reach = (w[2 + i] - 1) * dilation[i];
        require(dilation[i] >= 1 && y[2 + i] >= 1 && y[2 + i] == x[2 + i] + pad[2 * i] + pad[2 * i + 1] - reach,
                "winograd: output size disagrees");
    }
}

void check_3x3(int tile, const Shape& x, const Shape& w, const Shape& y, const Padding& pad, py::ssize_t groups) {
    require(tile == 2 || tile == 4 || tile == 6, "winograd: tile must be 2, 4 or 6");
    require(w[2] == 3 && w[3] == 3, "winograd: w must be 3x3");
    check(x, w, y, pad, {1, 1}, groups);
}

template <typename T>
cpu::Winograd<T> fprop_problem(int tile, const Shape& x, const Shape& w, const Shape& y, const Padding& pad,
                               py::ssize_t groups) {
    check_3x3(tile, x, w, y, pad, groups);
    const py::ssize_t k = w[0] / groups;
    return {
        .tile = tile,
        .N = x[0],
        .groups = groups,
        .C = w[1],
        .H = x[2],
        .W = x[3],
        .K = k,
        .P = y[2],
        .Q = y[3],
        .pad_top = pad[0],
        .pad_left = pad[2],
        .x = nullptr,
        .w = nullptr,
        .w_group = k * w[1] * 9,
        .w_k = w[1] * 9,
        .w_c = 9,
        .turned = false,
        .bias = nullptr,
        .y = nullptr,
    };
}

template <typename T>
cpu::Winograd<T> dgrad_problem(int tile, const Shape& dy, const Shape& w, const Shape& x, const Padding& pad,
                               py::ssize_t groups) {
    check_3x3(tile, x, w, dy, pad, groups);
    const py::ssize_t k = w[0] / groups;
    return {
        .tile = tile,
        .N = x[0],
        .groups = groups,
        .C = k,
        .H = dy[2],
        .W = dy[3],
        .K = w[1],
        .P = x[2],
        .Q = x[3],
        .pad_top = 2 - pad[0],
        .pad_left = 2 - pad[2],
        .x = nullptr,
        .w = nullptr,
        .w_group = k * w[1] * 9,
        .w_k = 9,
        .w_c = w[1] * 9,
        .turned = true,
        .bias = nullptr,
        .y = nullptr,
    };
}

template <typename T>
cpu::WinogradWgrad<T> wgrad_problem(int tile, const Shape& dy, const Shape& x, const Shape& w, const Padding& pad,
                                    const Pair& dilation, py::ssize_t groups) {
    const bool threes = w[2] == 3 && (tile == 2 || tile == 4 || tile == 6);
    const bool fives = w[2] == 5 && (tile == 2 || tile == 4);
    require(w[2] == w[3] && (threes || fives), "winograd: no such tile for these filters");
    check(x, w, dy, pad, dilation, groups);
    return {
        .tile = tile,
        .taps = w[2],
        .N = x[0],
        .groups = groups,
        .C = w[1],
        .H = x[2],
        .W = x[3],
        .K = w[0] / groups,
        .P = dy[2],
        .Q = dy[3],
        .pad_top = pad[0],
        .pad_left = pad[2],
        .dilation_h = dilation[0],
        .dilation_w = dilation[1],
        .x = nullptr,
        .dy = nullptr,
        .dw = nullptr,
    };
}

template <typename T>
Array<T> fresh(const Shape& shape) {
    return new_array<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

// Those of the convolution itself, or the elements of x where these are more.
template <typename Problem>
double multiply_adds(const Problem& p, int64_t taps = 3) {
    const double outputs = static_cast<double>(p.N * p.groups * p.K) * static_cast<double>(p.P * p.Q);
    const double inputs = static_cast<double>(p.N * p.groups * p.C) * static_cast<double>(p.H * p.W);
    return std::max(inputs, static_cast<double>(taps * taps * p.C) * outputs);
}

template <typename T>
Array<T> fprop(const Array<T>& x, const Array<T>& w, const std::optional<Array<T>>& bias, const Padding& padding,
               py::ssize_t groups, int tile) {
    const Shape xs = shape_of(x, "winograd: x must have 4 dimensions");
    const Shape ws = shape_of(w, "winograd: w must have 4 dimensions");
    const Shape ys = {xs[0], ws[0], xs[2] + padding[0] + padding[1] - 2, xs[3] + padding[2] + padding[3] - 2};
    cpu::Winograd<T> problem = fprop_problem<T>(tile, xs, ws, ys, padding, groups);
    require(!bias || (bias->ndim() == 1 && bias->shape(0) == ws[0]), "winograd: bias must have one value a filter");
    Array<T> y = fresh<T>(ys);
    problem.x = x.data();
    problem.w = w.data();
    problem.bias = data_or_null(bias);
    problem.y = y.mutable_data();
    const ReleaseGil release(multiply_adds(problem));
    last_multiplies = cpu::operators<T>(cpu::kernels()).winograd(problem);
    return y;
}

template <typename T>
Array<T> dgrad(const Array<T>& dy, const Array<T>& w, const Shape& x_shape, const Padding& padding, py::ssize_t groups,
               int tile) {
    const Shape ys = shape_of(dy, "winograd: dy must have 4 dimensions");
    const Shape ws = shape_of(w, "winograd: w must have 4 dimensions");
    cpu::Winograd<T> problem = dgrad_problem<T>(tile, ys, ws, x_shape, padding, groups);
    Array<T> dx = fresh<T>(x_shape);
    problem.x = dy.data();
    problem.w = w.data();
    problem.y = dx.mutable_data();
    const ReleaseGil release(multiply_adds(problem));
    last_multiplies = cpu::operators<T>(cpu::kernels()).winograd(problem);
    return dx;
}

template <typename T>
Array<T> wgrad(const Array<T>& dy, const Array<T>& x, const Shape& w_shape, const Padding& padding,
               const Pair& dilation, py::ssize_t groups, int tile) {
    const Shape ys = shape_of(dy, "winograd: dy must have 4 dimensions");
    const Shape xs = shape_of(x, "winograd: x must have 4 dimensions");
    cpu::WinogradWgrad<T> problem = wgrad_problem<T>(tile, ys, xs, w_shape, padding, dilation, groups);
    Array<T> dw = fresh<T>(w_shape);
    problem.dy = dy.data();
    problem.x = x.data();
    problem.dw = dw.mutable_data();
    const ReleaseGil release(multiply_adds(problem, problem.taps));
    last_multiplies = cpu::operators<T>(cpu::kernels()).winograd_wgrad(problem);
    return dw;
}

template <typename T>
std::int64_t workspace(const std::string& operation, const Shape& x, const Shape& w, const Shape& y,
                       const Padding& padding, const Pair& dilation, py::ssize_t groups, int tile) {
    const auto& run = cpu::operators<T>(cpu::kernels());
    const int threads = cpu::num_threads();
    if (operation == "fprop") return run.winograd_workspace(fprop_problem<T>(tile, x, w, y, padding, groups), threads);
    if (operation == "dgrad") return run.winograd_workspace(dgrad_problem<T>(tile, y, w, x, padding, groups), threads);
    require(operation == "wgrad", "winograd: operator must be fprop, dgrad or wgrad");
    return run.winograd_wgrad_workspace(wgrad_problem<T>(tile, y, x, w, padding, dilation, groups), threads);
}

template <typename T>
void bind(py::module_& m) {
    m.def("winograd_fprop", &fprop<T>, py::arg("x").noconvert(), py::arg("w").noconvert(), py::arg("b").noconvert(),
          py::arg("padding"), py::arg("groups"), py::arg("tile"), "3x3 convolution, stride 1, by F(tile, 3).");
    m.def("winograd_dgrad", &dgrad<T>, py::arg("dy").noconvert(), py::arg("w").noconvert(), py::arg("x_shape"),
          py::arg("padding"), py::arg("groups"), py::arg("tile"), "Its gradient by the input, by F(tile, 3).");
    m.def("winograd_wgrad", &wgrad<T>, py::arg("dy").noconvert(), py::arg("x").noconvert(), py::arg("w_shape"),
          py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("tile"),
          "Gradient of square filters of 3 or 5 taps, stride 1, by F(taps, tile).");
}

template <int ROWS, int COLUMNS>
std::vector<std::vector<double>> rows_of(const cpu::Matrix<ROWS, COLUMNS>& matrix) {
    std::vector<std::vector<double>> rows;
    for (const auto& row : matrix.at) rows.emplace_back(row, row + COLUMNS);
    return rows;
}

template <int M, int R>
py::tuple matrices_of() {
    using Tile = cpu::CookToom<M, R>;
    return py::make_tuple(rows_of(Tile::AT), rows_of(Tile::G), rows_of(Tile::BT));
}

py::tuple matrices(int m, int r) {
    if (m == 2 && r == 3) return matrices_of<2, 3>();
    if (m == 4 && r == 3) return matrices_of<4, 3>();
    if (m == 6 && r == 3) return matrices_of<6, 3>();
    if (m == 3 && r == 2) return matrices_of<3, 2>();
    if (m == 3 && r == 4) return matrices_of<3, 4>();
    if (m == 3 && r == 6) return matrices_of<3, 6>();
    if (m == 5 && r == 2) return matrices_of<5, 2>();
    require(m == 5 && r == 4, "winograd: no such tile");
    return matrices_of<5, 4>();
}

}  // namespace

void bind_winograd(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
    m.def(
        "winograd_workspace",
        [](const std::string& operation, const Shape& x, const Shape& w, const Shape& y, const Padding& padding,
           const Pair& dilation, py::ssize_t groups, int tile, bool wide) {
            return wide ? workspace<double>(operation, x, w, y, padding, dilation, groups, tile)
                        : workspace<float>(operation, x, w, y, padding, dilation, groups, tile);
        },
        py::arg("operator"), py::arg("x_shape"), py::arg("w_shape"), py::arg("y_shape"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups"), py::arg("tile"), py::arg("float64"),
        "Bytes of scratch a call holds at most.");
    m.def(
        "winograd_multiplies", [] { return last_multiplies; },
        "Multiply-adds in the matrix products of this thread's last Winograd call, counted as they ran.");
    m.def("winograd_matrices", &matrices, py::arg("m"), py::arg("r"), "AT, G and BT of F(m, r) as compiled in.");
}

}  // namespace pycnn
