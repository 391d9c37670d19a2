#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

template <typename T>
Array<T> gemm(const Array<T>& a, const Array<T>& b, const std::optional<Array<T>>& bias, bool trans_a, bool trans_b) {
    require(a.ndim() == 2 && b.ndim() == 2, "gemm: a and b must be matrices");
    const py::ssize_t m = a.shape(trans_a ? 1 : 0);
    const py::ssize_t k = a.shape(trans_a ? 0 : 1);
    const py::ssize_t n = b.shape(trans_b ? 0 : 1);
    require(b.shape(trans_b ? 1 : 0) == k, "gemm: inner sizes differ");
    require(!bias || (bias->ndim() == 1 && bias->shape(0) == n), "gemm: bias must have one value a column");
    Array<T> c = new_array<T>({m, n});
    const cpu::Gemm<T> problem = {
        .m = m,
        .n = n,
        .k = k,
        .a = a.data(),
        .a_row = trans_a ? 1 : k,
        .a_col = trans_a ? m : 1,
        .b = b.data(),
        .b_row = trans_b ? 1 : n,
        .b_col = trans_b ? k : 1,
        .bias = data_or_null(bias),
        .c = c.mutable_data(),
        .c_row = n,
    };
    const ReleaseGil release(static_cast<double>(m * n) * static_cast<double>(k));
    cpu::operators<T>(cpu::kernels()).gemm(problem);
    return c;
}

template <typename T>
void bind(py::module_& m) {
    m.def("gemm", &gemm<T>, py::arg("a").noconvert(), py::arg("b").noconvert(),
          py::arg("bias").noconvert() = py::none(), py::arg("trans_a") = false, py::arg("trans_b") = false,
          "a' @ b' (+ bias) for C-contiguous matrices of one dtype, each transposed first if asked.");
}

}  // namespace

void bind_gemm(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
