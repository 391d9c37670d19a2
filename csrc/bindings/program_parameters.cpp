#include "bindings/program_parameters.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/gil.h"

namespace pycnn::program {
namespace {

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

}  // namespace

Memory memory(int64_t floats) {
    return {static_cast<float*>(cpu::allocate(static_cast<std::size_t>(floats) * sizeof(float))), cpu::deallocate};
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

Memory padded(const std::optional<Floats>& values, int64_t count, int64_t lanes, float otherwise) {
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

void bind_filters(py::module_& m) {
    using py::arg;
    py::class_<Filters, SharedFilters>(m, "Filters", "Filters in the order their kernels read them.")
        .def(py::init(&empty_filters), arg("kind"), arg("shape"))
        .def("fill", &fill_filters, arg("first"), arg("w").noconvert())
        .def("plain", &plain_filters)
        .def_property_readonly("nbytes", [](const Filters& filters) { return 4 * filters.floats(); });
}

}  // namespace pycnn::program
