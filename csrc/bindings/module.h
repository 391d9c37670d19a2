// The parts of pycnn._cpu, one file of bindings a subject.
#pragma once

#include <pybind11/pybind11.h>

namespace pycnn {

namespace py = pybind11;

void bind_conv(py::module_& m);
void bind_gemm(py::module_& m);
void bind_boxes(py::module_& m);
void bind_activation(py::module_& m);
void bind_half(py::module_& m);
void bind_loss(py::module_& m);
void bind_norm(py::module_& m);
void bind_optim(py::module_& m);
void bind_pool(py::module_& m);
void bind_program(py::module_& m);
void bind_random(py::module_& m);
void bind_sampling(py::module_& m);
void bind_shaping(py::module_& m);
void bind_windows(py::module_& m);
void bind_winograd(py::module_& m);

}  // namespace pycnn
