#include "cpu/half.h"

#include <pybind11/pybind11.h>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

cpu::Half kind(bool bfloat16) {
    return bfloat16 ? cpu::Half::kBfloat16 : cpu::Half::kFloat16;
}

Array<float> widen(const Array<std::uint16_t>& x, bool bfloat16) {
    Array<float> y = new_array<float>(shape_of(x));
    const std::uint16_t* from = x.data();
    float* to = y.mutable_data();
    const py::ssize_t count = x.size();
    const ReleaseGil release;
    cpu::kernels().half.widen(kind(bfloat16), count, from, to);
    return y;
}

Array<std::uint16_t> narrow(const Array<float>& x, bool bfloat16) {
    Array<std::uint16_t> y = new_array<std::uint16_t>(shape_of(x));
    const float* from = x.data();
    std::uint16_t* to = y.mutable_data();
    const py::ssize_t count = x.size();
    const ReleaseGil release;
    cpu::kernels().half.narrow(kind(bfloat16), count, from, to);
    return y;
}

}  // namespace

void bind_half(py::module_& m) {
    m.def("widen", &widen, py::arg("x").noconvert(), py::arg("bfloat16"));
    m.def("narrow", &narrow, py::arg("x").noconvert(), py::arg("bfloat16"));
}

}  // namespace pycnn
