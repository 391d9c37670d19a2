#include "cpu/sampling.h"

#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

using Integers = Array<std::int64_t>;

// One axis's table as Python gives it: size, start, count, weight; None for an axis that stays as it is.
template <typename T>
using Table = std::optional<std::tuple<std::int64_t, Integers, Integers, Array<T>>>;

template <typename T>
struct Axis {
    cpu::TapTable<T> table;
    std::vector<cpu::TapRun> runs;
};

template <typename T>
Axis<T> axis_of(const Table<T>& given, py::ssize_t size) {
    Axis<T> axis{};
    axis.table.size = axis.table.out = size;
    if (!given) return axis;
    const auto& [expected, start, count, weight] = *given;
    require(expected == size, "resample: a table is for an axis of another size");
    require(start.ndim() == 1 && same_shape(start, count), "resample: start and count must be of one length");
    require(weight.ndim() == 2 && weight.shape(1) == start.shape(0), "resample: weight must be (most, out)");
    axis.table.out = start.shape(0);
    axis.table.most = weight.shape(0);
    axis.table.start = start.data();
    axis.table.count = count.data();
    axis.table.weight = weight.data();
    const cpu::TapTable<T>& table = axis.table;
    for (std::int64_t i = 0; i < table.out; i++) {
        const std::int64_t first = table.start[i], taps = table.count[i];
        require(taps >= 0 && taps <= table.most && first >= 0 && first <= size - taps,
                "resample: a table looks outside its axis");
        if (axis.runs.empty() || axis.runs.back().count != taps) axis.runs.push_back({i, i, taps});
        axis.runs.back().end = i + 1;
    }
    return axis;
}

template <typename T>
cpu::TapTable<T> placed(const Axis<T>& axis) {
    cpu::TapTable<T> table = axis.table;
    table.runs = axis.runs.data();
    table.run_count = static_cast<std::int64_t>(axis.runs.size());
    return table;
}

template <typename T>
Array<T> resample(const Array<T>& x, const Table<T>& rows, const Table<T>& columns) {
    require(x.ndim() >= 2 && (rows || columns), "resample: x must have rows and columns, one of them a table");
    std::vector<py::ssize_t> shape = shape_of(x);
    const Axis<T> v = axis_of<T>(rows, shape[shape.size() - 2]);
    const Axis<T> u = axis_of<T>(columns, shape.back());
    cpu::Resample<T> problem = {.planes = 1, .rows = placed(v), .columns = placed(u), .x = x.data(), .y = nullptr};
    for (std::size_t i = 0; i + 2 < shape.size(); i++) problem.planes *= shape[i];
    shape[shape.size() - 2] = v.table.out;
    shape.back() = u.table.out;
    Array<T> y = new_array<T>(shape);
    problem.y = y.mutable_data();
    const ReleaseGil release(static_cast<double>(2 * (x.size() + y.size())));
    cpu::operators<T>(cpu::kernels()).sampling.resample(problem);
    return y;
}

// Whether all lie from `least` on below `end`.
bool within(const Integers& values, std::int64_t least, std::int64_t end) {
    const std::int64_t* at = values.data();
    bool bad = false;
    for (py::ssize_t i = 0; i < values.size(); i++) {
        bad |= at[i] < least || at[i] >= end;
    }
    return !bad;
}

cpu::Samples samples_of(const Integers& image, const Integers& index, std::int64_t images, std::int64_t channels,
                        std::int64_t size) {
    require(image.ndim() == 1 && index.ndim() == 3 && index.shape(0) == image.shape(0),
            "sample: image must be (R) and index (R, K, P)");
    if (!within(image, 0, images)) throw py::index_error("image must hold numbers of images");
    if (!within(index, -1, size)) throw py::index_error("index must hold positions inside an image, or -1");
    return {.rows = index.shape(0),
            .taps = index.shape(1),
            .points = index.shape(2),
            .images = images,
            .channels = channels,
            .image_size = size,
            .image = image.data(),
            .index = index.data()};
}

double work(const cpu::Samples& s) {
    return static_cast<double>(s.rows) * static_cast<double>(s.channels * s.points * (s.taps + 1)) +
           static_cast<double>(s.images * s.channels * s.image_size);
}

template <typename T>
Array<T> sample_fwd(const Array<T>& x, const Integers& image, const Integers& index, const Array<T>& weight) {
    require(x.ndim() == 3 && same_shape(weight, index), "sample: x must be (N, C, S) and weight of index's shape");
    const cpu::Samples s = samples_of(image, index, x.shape(0), x.shape(1), x.shape(2));
    Array<T> y = new_array<T>({s.rows, s.channels, s.points});
    const T *from = x.data(), *w = weight.data();
    T* to = y.mutable_data();
    const ReleaseGil release(work(s));
    cpu::operators<T>(cpu::kernels()).sampling.sample_fwd(s, from, w, to);
    return y;
}

template <typename T>
Array<T> sample_dx(const Array<T>& dy, const Integers& image, const Integers& index, const Array<T>& weight,
                   const std::array<std::int64_t, 3>& x_shape) {
    require(dy.ndim() == 3 && index.ndim() == 3 && dy.shape(0) == index.shape(0) && dy.shape(2) == index.shape(2) &&
                same_shape(weight, index),
            "sample: dy must be (R, C, P) and weight of index's shape");
    require(x_shape[0] >= 0 && x_shape[1] == dy.shape(1) && x_shape[2] >= 0, "sample: x_shape must be (N, C, S)");
    const cpu::Samples s = samples_of(image, index, x_shape[0], x_shape[1], x_shape[2]);
    Array<T> dx = new_array<T>({x_shape.begin(), x_shape.end()});
    const T *from = dy.data(), *w = weight.data();
    T* to = dx.mutable_data();
    const ReleaseGil release(work(s));
    cpu::operators<T>(cpu::kernels()).sampling.sample_dx(s, from, w, to);
    return dx;
}

template <typename T>
Array<T> sample_dw(const Array<T>& dy, const Array<T>& x, const Integers& image, const Integers& index) {
    require(dy.ndim() == 3 && x.ndim() == 3 && index.ndim() == 3 && dy.shape(0) == index.shape(0) &&
                dy.shape(1) == x.shape(1) && dy.shape(2) == index.shape(2),
            "sample: dy must be (R, C, P) and x (N, C, S)");
    const cpu::Samples s = samples_of(image, index, x.shape(0), x.shape(1), x.shape(2));
    Array<T> dw = new_array<T>(shape_of(index));
    const T *from = dy.data(), *values = x.data();
    T* to = dw.mutable_data();
    const ReleaseGil release(work(s));
    cpu::operators<T>(cpu::kernels()).sampling.sample_dw(s, from, values, to);
    return dw;
}

template <typename T>
void bind(py::module_& m) {
    m.def("resample", &resample<T>, py::arg("x").noconvert(), py::arg("rows"), py::arg("columns"));
    m.def("sample_fwd", &sample_fwd<T>, py::arg("x").noconvert(), py::arg("image").noconvert(),
          py::arg("index").noconvert(), py::arg("weight").noconvert());
    m.def("sample_dx", &sample_dx<T>, py::arg("dy").noconvert(), py::arg("image").noconvert(),
          py::arg("index").noconvert(), py::arg("weight").noconvert(), py::arg("x_shape"));
    m.def("sample_dw", &sample_dw<T>, py::arg("dy").noconvert(), py::arg("x").noconvert(), py::arg("image").noconvert(),
          py::arg("index").noconvert());
}

}  // namespace

void bind_sampling(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
