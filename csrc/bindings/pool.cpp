#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <limits>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "bindings/pool_windows.h"
#include "cpu/isa.h"
#include "cpu/plane_index.h"

namespace pycnn {
namespace {

using Pair = std::array<std::int64_t, 2>;
using Sides = std::array<std::int64_t, 4>;
using Indices = Array<std::int64_t>;

cpu::PoolAxis placed(const PoolWindows& axis) {
    cpu::PoolAxis result = axis.axis;
    result.windows = axis.windows.data();
    return result;
}

template <typename T>
py::tuple max_pool(const Array<T>& x, const PoolWindows& rows, const PoolWindows& columns, bool return_indices) {
    Array<T> y = new_array<T>({x.shape(0), x.shape(1), rows.axis.out, columns.axis.out});
    std::optional<Indices> indices;
    if (return_indices) indices = new_array<std::int64_t>(shape_of(y));
    // float kernels hold offsets within a window in 32 bits.
    const std::int64_t height = (rows.axis.taps - 1) * rows.axis.step + 1 + rows.axis.pad;
    require(rows.axis.taps == 0 || columns.axis.taps == 0 ||
                height < std::numeric_limits<std::int32_t>::max() / std::max<std::int64_t>(columns.axis.size, 1) - 1,
            "max pooling: a window must span less than 2**31 elements");
    const cpu::MaxPool<T> problem = {
        .planes = x.shape(0) * x.shape(1),
        .rows = placed(rows),
        .columns = placed(columns),
        .x = x.data(),
        .y = y.mutable_data(),
        .indices = indices ? indices->mutable_data() : nullptr,
    };
    {
        const ReleaseGil release;
        cpu::operators<T>(cpu::kernels()).pool.max_pool_fwd(problem);
    }
    return py::make_tuple(y, indices);
}

template <typename T>
py::tuple max_pool2d_fwd(const Array<T>& x, const Pair& kernel, const Pair& stride, const Sides& padding,
                         const Pair& dilation, const Pair& out, bool return_indices) {
    require(x.ndim() == 4, "max_pool2d: x must be (N, C, H, W)");
    require(out[0] >= 0 && out[1] >= 0, "max_pool2d: the output size must not be negative");
    return max_pool(x,
                    regular_axis(x.shape(2), out[0], kernel[0], stride[0], padding[0], padding[1], dilation[0], true),
                    regular_axis(x.shape(3), out[1], kernel[1], stride[1], padding[2], padding[3], dilation[1], true),
                    return_indices);
}

template <typename T>
py::tuple adaptive_max_pool2d_fwd(const Array<T>& x, const Pair& out, bool return_indices) {
    require(x.ndim() == 4, "adaptive_max_pool2d: x must be (N, C, H, W)");
    return max_pool(x, adaptive_axis(x.shape(2), out[0]), adaptive_axis(x.shape(3), out[1]), return_indices);
}

template <typename T>
cpu::PlaneIndex plane_index(const Indices& indices, py::ssize_t H, py::ssize_t W) {
    return {
        .planes = indices.shape(0) * indices.shape(1),
        .image = H * W,
        .count = indices.shape(2) * indices.shape(3),
        .indices = indices.data(),
    };
}

constexpr const char* kBadIndex = "indices must be flat positions inside their plane, or -1";

template <typename T>
Array<T> plane_add(const Array<T>& dy, const Indices& indices, const Sides& x_shape) {
    require(dy.ndim() == 4 && same_shape(dy, indices), "pooling: dy and indices must have one shape (N, C, P, Q)");
    for (const std::int64_t size : x_shape) {
        require(size >= 0 && size <= kLargestPool, "pooling: x_shape must be sizes between 0 and 2**40");
    }
    require(x_shape[0] == dy.shape(0) && x_shape[1] == dy.shape(1), "pooling: x_shape must have dy's N and C");
    Array<T> dx = new_array<T>({x_shape.begin(), x_shape.end()});
    const cpu::PlaneIndex index = plane_index<T>(indices, x_shape[2], x_shape[3]);
    const T* from = dy.data();
    T* to = dx.mutable_data();
    bool good;
    {
        const ReleaseGil release;
        good = cpu::plane_add(index, from, to);
    }
    if (!good) throw py::index_error(kBadIndex);
    return dx;
}

template <typename T>
Array<T> plane_take(const Array<T>& x, const Indices& indices) {
    require(x.ndim() == 4 && indices.ndim() == 4 && indices.shape(0) == x.shape(0) && indices.shape(1) == x.shape(1),
            "plane_take: x must be (N, C, H, W) and indices (N, C, P, Q)");
    Array<T> y = new_array<T>(shape_of(indices));
    const cpu::PlaneIndex index = plane_index<T>(indices, x.shape(2), x.shape(3));
    const T* from = x.data();
    T* to = y.mutable_data();
    bool good;
    {
        const ReleaseGil release;
        good = cpu::plane_take(index, from, to);
    }
    if (!good) throw py::index_error(kBadIndex);
    return y;
}

struct AvgWindows {
    PoolWindows rows, columns;
};

AvgWindows avg_windows(std::int64_t H, std::int64_t W, const Pair& out, const Pair& kernel, const Pair& stride,
                       const Sides& padding, bool count_include_pad, std::optional<std::int64_t> divisor_override) {
    require(out[0] >= 0 && out[1] >= 0, "avg_pool2d: the output size must not be negative");
    require(!divisor_override || *divisor_override != 0, "avg_pool2d: divisor_override must not be 0");
    AvgWindows windows = {
        regular_axis(H, out[0], kernel[0], stride[0], padding[0], padding[1], 1, count_include_pad),
        regular_axis(W, out[1], kernel[1], stride[1], padding[2], padding[3], 1, count_include_pad),
    };
    if (divisor_override) {
        windows.rows.counts.assign(windows.rows.counts.size(), static_cast<double>(*divisor_override));
        windows.columns.counts.assign(windows.columns.counts.size(), 1.0);
    }
    return windows;
}

template <typename T>
Array<T> avg_pool(bool forward, const Array<T>& in, const AvgWindows& windows) {
    const auto& [rows, columns] = windows;
    Array<T> out = forward ? new_array<T>({in.shape(0), in.shape(1), rows.axis.out, columns.axis.out})
                           : new_array<T>({in.shape(0), in.shape(1), rows.axis.size, columns.axis.size});
    const cpu::AvgPool<T> problem = {
        .planes = in.shape(0) * in.shape(1),
        .rows = placed(rows),
        .columns = placed(columns),
        .row_counts = rows.counts.data(),
        .column_counts = columns.counts.data(),
        .in = in.data(),
        .out = out.mutable_data(),
    };
    const ReleaseGil release;
    const auto& pool = cpu::operators<T>(cpu::kernels()).pool;
    (forward ? pool.avg_pool_fwd : pool.avg_pool_bwd)(problem);
    return out;
}

template <typename T>
Array<T> avg_pool2d_fwd(const Array<T>& x, const Pair& kernel, const Pair& stride, const Sides& padding,
                        const Pair& out, bool count_include_pad, std::optional<std::int64_t> divisor_override) {
    require(x.ndim() == 4, "avg_pool2d: x must be (N, C, H, W)");
    return avg_pool(
        true, x,
        avg_windows(x.shape(2), x.shape(3), out, kernel, stride, padding, count_include_pad, divisor_override));
}

template <typename T>
void require_gradient(const Array<T>& dy, const Sides& x_shape) {
    require(dy.ndim() == 4, "pooling: dy must be (N, C, P, Q)");
    require(x_shape[0] == dy.shape(0) && x_shape[1] == dy.shape(1) && x_shape[2] >= 0 && x_shape[3] >= 0,
            "pooling: x_shape must have dy's N and C");
}

template <typename T>
Array<T> avg_pool2d_bwd(const Array<T>& dy, const Sides& x_shape, const Pair& kernel, const Pair& stride,
                        const Sides& padding, bool count_include_pad, std::optional<std::int64_t> divisor_override) {
    require_gradient(dy, x_shape);
    return avg_pool(false, dy,
                    avg_windows(x_shape[2], x_shape[3], {dy.shape(2), dy.shape(3)}, kernel, stride, padding,
                                count_include_pad, divisor_override));
}

template <typename T>
Array<T> adaptive_avg_pool2d_fwd(const Array<T>& x, const Pair& out) {
    require(x.ndim() == 4, "adaptive_avg_pool2d: x must be (N, C, H, W)");
    return avg_pool(true, x, {adaptive_axis(x.shape(2), out[0]), adaptive_axis(x.shape(3), out[1])});
}

template <typename T>
Array<T> adaptive_avg_pool2d_bwd(const Array<T>& dy, const Sides& x_shape) {
    require_gradient(dy, x_shape);
    return avg_pool(false, dy, {adaptive_axis(x_shape[2], dy.shape(2)), adaptive_axis(x_shape[3], dy.shape(3))});
}

template <typename T>
void bind(py::module_& m) {
    m.def("max_pool2d_fwd", &max_pool2d_fwd<T>, py::arg("x").noconvert(), py::arg("kernel"), py::arg("stride"),
          py::arg("padding"), py::arg("dilation"), py::arg("out"), py::arg("return_indices"));
    m.def("adaptive_max_pool2d_fwd", &adaptive_max_pool2d_fwd<T>, py::arg("x").noconvert(), py::arg("out"),
          py::arg("return_indices"));
    m.def("plane_add", &plane_add<T>, py::arg("dy").noconvert(), py::arg("indices").noconvert(), py::arg("x_shape"));
    m.def("plane_take", &plane_take<T>, py::arg("x").noconvert(), py::arg("indices").noconvert());
    m.def("avg_pool2d_fwd", &avg_pool2d_fwd<T>, py::arg("x").noconvert(), py::arg("kernel"), py::arg("stride"),
          py::arg("padding"), py::arg("out"), py::arg("count_include_pad"), py::arg("divisor_override"));
    m.def("avg_pool2d_bwd", &avg_pool2d_bwd<T>, py::arg("dy").noconvert(), py::arg("x_shape"), py::arg("kernel"),
          py::arg("stride"), py::arg("padding"), py::arg("count_include_pad"), py::arg("divisor_override"));
    m.def("adaptive_avg_pool2d_fwd", &adaptive_avg_pool2d_fwd<T>, py::arg("x").noconvert(), py::arg("out"));
    m.def("adaptive_avg_pool2d_bwd", &adaptive_avg_pool2d_bwd<T>, py::arg("dy").noconvert(), py::arg("x_shape"));
}

}  // namespace

void bind_pool(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
