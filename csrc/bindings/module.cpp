// pycnn._cpu: the native engine.  Checks, then pointers, then calls; the interpreter's lock is released around work.
#include "bindings/module.h"

#include <pybind11/stl.h>

#include <chrono>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "cpu/isa.h"
#include "cpu/memory.h"
#include "cpu/threads.h"
#include "identity.h"

namespace pycnn {
namespace {

// FLOP/s of back-to-back multiply-adds on every thread of the pool, float32, over about 20 ms.
double measure_fma_peak() {
    const ReleaseGil release;
    const auto& probe = cpu::kernels().f32.fma_probe;
    probe(100000);
    const auto start = std::chrono::steady_clock::now();
    const double flops = probe(1000000);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return flops / seconds.count();
}

void bind_machine(py::module_& m) {
    m.def("isa", [] { return std::string(cpu::kernels().name); }, "Name of the instruction set in force.");
    m.def(
        "set_isa", [](const std::string& name) { return cpu::set_isa(name.c_str()); }, py::arg("name"),
        "Force an instruction set, or 'auto'; False if it is unknown or cannot run here.");
    m.def("isa_supported", [](const std::string& name) { return cpu::isa_supported(name.c_str()); }, py::arg("name"));
    m.def("num_threads", &cpu::num_threads);
    m.def("set_num_threads", &cpu::set_num_threads, py::arg("count"));
    m.def("empty", &new_array<float>, py::arg("shape"), "An array of float32 on the engine's memory.");
    m.def(
        "made", [](const py::array& array) { return PyCapsule_IsValid(array.base().ptr(), kMemory) != 0; },
        py::arg("array").noconvert(), "Whether an array is one that the engine made, and no view of one.");
    m.def("cached_bytes", &cpu::cached_bytes, "Bytes the engine keeps for reuse.");
    m.def("release_cached", &cpu::release_cached, "Give the kept bytes back to the system.");
    m.attr("engine") = engine;
    m.def("measure_fma_peak", &measure_fma_peak, "FLOP/s of float32 multiply-adds on every thread.");
}

}  // namespace
}  // namespace pycnn

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "The native CPU engine of pycnn.";
    pycnn::bind_machine(m);
    pycnn::bind_conv(m);
    pycnn::bind_gemm(m);
    pycnn::bind_activation(m);
    pycnn::bind_boxes(m);
    pycnn::bind_half(m);
    pycnn::bind_loss(m);
    pycnn::bind_norm(m);
    pycnn::bind_optim(m);
    pycnn::bind_pool(m);
    pycnn::bind_program(m);
    pycnn::bind_random(m);
    pycnn::bind_sampling(m);
    pycnn::bind_shaping(m);
    pycnn::bind_windows(m);
    pycnn::bind_winograd(m);
}
