#include "cpu/boxes.h"

#include <pybind11/stl.h>

#include <cstdint>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"

namespace pycnn {
namespace {

using Integers = Array<std::int64_t>;

// Pairs (begin, end) with 0 <= begin and end <= size; windows may be empty.
bool inside(const Integers& pairs, std::int64_t size) {
    const std::int64_t* at = pairs.data();
    bool good = true;
    for (py::ssize_t i = 0; i < pairs.size(); i += 2) good &= at[i] >= 0 && at[i + 1] <= size;
    return good;
}

template <typename T>
py::tuple roi_max(const Array<T>& x, const Integers& image, const Integers& rows, const Integers& columns) {
    require(x.ndim() == 4 && image.ndim() == 1, "roi_max: x must be (N, C, H, W) and image (R)");
    require(rows.ndim() == 3 && rows.shape(0) == image.shape(0) && rows.shape(2) == 2, "roi_max: rows: (R, P, 2)");
    require(columns.ndim() == 3 && columns.shape(0) == image.shape(0) && columns.shape(2) == 2,
            "roi_max: columns: (R, Q, 2)");
    const cpu::Regions regions = {
        .count = image.shape(0),
        .P = rows.shape(1),
        .Q = columns.shape(1),
        .images = x.shape(0),
        .channels = x.shape(1),
        .H = x.shape(2),
        .W = x.shape(3),
        .image = image.data(),
        .rows = rows.data(),
        .columns = columns.data(),
    };
    for (py::ssize_t i = 0; i < image.size(); i++) {
        if (regions.image[i] < 0 || regions.image[i] >= regions.images) {
            throw py::index_error("image must hold numbers of images");
        }
    }
    require(inside(rows, regions.H) && inside(columns, regions.W), "roi_max: a window reaches outside the image");
    const std::vector<py::ssize_t> shape = {regions.count, regions.channels, regions.P, regions.Q};
    Array<T> y = new_array<T>(shape);
    Integers indices = new_array<std::int64_t>(shape);
    const T* from = x.data();
    T* to = y.mutable_data();
    std::int64_t* where = indices.mutable_data();
    {
        const ReleaseGil release;
        cpu::roi_max(regions, from, to, where);
    }
    return py::make_tuple(y, indices);
}

template <typename T>
Integers nms(const Array<T>& boxes, const std::optional<Integers>& groups, double threshold) {
    require(boxes.ndim() == 2 && boxes.shape(1) == 4, "nms: boxes must be (K, 4)");
    require(!groups || (groups->ndim() == 1 && groups->shape(0) == boxes.shape(0)), "nms: groups must be (K)");
    Integers keep = new_array<std::int64_t>({boxes.shape(0)});
    const T* from = boxes.data();
    const std::int64_t* of = data_or_null(groups);
    std::int64_t* to = keep.mutable_data();
    const py::ssize_t count = boxes.shape(0);
    const ReleaseGil release;
    cpu::nms(count, from, of, threshold, to);
    return keep;
}

template <typename T>
void bind(py::module_& m) {
    m.def("roi_max", &roi_max<T>, py::arg("x").noconvert(), py::arg("image").noconvert(), py::arg("rows").noconvert(),
          py::arg("columns").noconvert());
    m.def("nms", &nms<T>, py::arg("boxes").noconvert(), py::arg("groups"), py::arg("threshold"));
}

}  // namespace

void bind_boxes(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
