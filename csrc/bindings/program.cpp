// pycnn._cpu.Program and the classes that its steps take.
#include "bindings/program.h"

#include <pybind11/stl.h>

#include "bindings/gil.h"
#include "bindings/module.h"

namespace pycnn {
namespace program {
namespace {

Plain plain(const std::string& space, int64_t at) {
    require(space == "arena" || space == "input" || space == "output", "Plain: space is arena, input or output");
    require(at >= 0 && at <= kLargest, "Plain: at must be between 0 and 2**40");
    return {space == "arena" ? Plain::kArena : space == "input" ? Plain::kInput : Plain::kOutput, at};
}

}  // namespace

Program::Program(int64_t images, int64_t arena)
    : images_(images), program_(arena), kernels_(cpu::kernels()), lanes_(kernels_.vector_bytes / 4) {
    require(images >= 0 && images <= kLargest, "program: images must be between 0 and 2**40");
    require(arena >= 0 && arena <= kLargest, "program: the arena must be between 0 and 2**40");
}

Program::Arrays::Arrays(const Program& program, const std::vector<py::array>& from, const std::vector<py::array>& to) {
    require(from.size() >= program.inputs_.size() && to.size() >= program.outputs_.size(),
            "program: an input or output is missing");
    // By hand: a conversion would be a silent copy.
    for (const auto* arrays : {&from, &to}) {
        for (const py::array& array : *arrays) {
            require(py::isinstance<Floats>(array), "program: arrays must be float32 and C-contiguous");
        }
    }
    for (const py::array& array : from) inputs.push_back(static_cast<const float*>(array.data()));
    for (py::array array : to) outputs.push_back(static_cast<float*>(array.mutable_data()));
    for (std::size_t i = 0; i < program.inputs_.size(); i++) {
        require(from[i].size() >= program.inputs_[i], "program: an input is too small");
    }
    for (std::size_t i = 0; i < program.outputs_.size(); i++) {
        require(to[i].size() >= program.outputs_[i], "program: an output is too small");
    }
}

void Program::execute(const std::vector<py::array>& inputs, const std::vector<py::array>& outputs) const {
    const Arrays arrays(*this, inputs, outputs);
    const ReleaseGil release;
    program_.run(arrays.inputs.data(), arrays.outputs.data());
}

std::vector<double> Program::profile(const std::vector<py::array>& inputs, const std::vector<py::array>& outputs,
                                     int rounds) const {
    require(rounds >= 1, "program: rounds must be at least 1");
    const Arrays arrays(*this, inputs, outputs);
    const ReleaseGil release;
    return program_.profile(arrays.inputs.data(), arrays.outputs.data(), rounds);
}

}  // namespace program

void bind_program(py::module_& m) {
    using namespace program;
    m.def("lanes", &lanes, "Floats in a vector of the instruction set in force: channels of a block.");

    py::class_<View>(m, "View", "A packed tensor in a program's arena.")
        .def(py::init([](int64_t offset, int64_t channels, int64_t height, int64_t width, int64_t image, int64_t block,
                         int64_t row) { return View{offset, channels, height, width, image, block, row}; }),
             py::arg("offset"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("image"),
             py::arg("block"), py::arg("row"));
    py::class_<Plain>(m, "Plain", "A dense array: in the arena, an input or an output.")
        .def(py::init(&plain), py::arg("space"), py::arg("at"));
    py::class_<Images>(m, "Images", "An array in NCHW or channels-last, as it lies.")
        .def(py::init([](const Plain& array, int64_t channels, int64_t height, int64_t width, bool channels_last) {
                 return Images{array, channels, height, width, channels_last};
             }),
             py::arg("array"), py::arg("channels"), py::arg("height"), py::arg("width"),
             py::arg("channels_last") = false);

    bind_filters(m);

    using py::arg;
    py::class_<Program>(m, "Program", "A compiled network: steps over one arena.")
        .def(py::init<int64_t, int64_t>(), arg("images"), arg("arena"))
        .def_property_readonly("arena", &Program::arena)
        .def("__len__", &Program::size)
        .def("pack", &Program::pack, arg("x"), arg("y"))
        .def("unpack", &Program::unpack, arg("x"), arg("y"))
        .def("clear", &Program::clear, arg("x"))
        .def("conv", &Program::conv, arg("x"), arg("y"), arg("filters"), arg("bias").noconvert(), py::kw_only(),
             arg("stride"), arg("padding"), arg("dilation"), arg("residual"), arg("clamp"), arg("algo"), arg("keep"))
        .def("depthwise", &Program::depthwise, arg("x"), arg("y"), arg("filters"), arg("bias").noconvert(),
             py::kw_only(), arg("stride"), arg("padding"), arg("dilation"), arg("clamp"))
        .def("conv_nchw", &Program::conv_nchw, arg("x"), arg("y"), arg("w").noconvert(), arg("bias").noconvert(),
             py::kw_only(), arg("image"), arg("out"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"))
        .def("linear", &Program::linear, arg("x"), arg("y"), arg("filters"), arg("bias").noconvert(), py::kw_only(),
             arg("clamp"))
        .def("max_pool", &Program::max_pool, arg("x"), arg("y"), py::kw_only(), arg("kernel"), arg("stride"),
             arg("padding"), arg("dilation"))
        .def("avg_pool", &Program::avg_pool, arg("x"), arg("y"), py::kw_only(), arg("kernel"), arg("stride"),
             arg("padding"), arg("count_include_pad"), arg("divisor_override"))
        .def("adaptive_max_pool", &Program::adaptive_max_pool, arg("x"), arg("y"))
        .def("adaptive_avg_pool", &Program::adaptive_avg_pool, arg("x"), arg("y"))
        .def("mean", &Program::mean, arg("x"), arg("y"))
        .def("add", &Program::sum, arg("a"), arg("b"), arg("y"), arg("clamp"))
        .def("mul", &Program::mul, arg("a"), arg("b"), arg("y"), arg("clamp"))
        .def("affine", &Program::affine, arg("x"), arg("y"), arg("scale").noconvert(), arg("shift").noconvert(),
             arg("clamp"))
        .def("scale", &Program::scale, arg("x"), arg("scale"), arg("y"), arg("clamp"))
        .def("activation", &Program::activation, arg("name"), arg("x"), arg("y"), arg("count"), arg("a"), arg("b"),
             arg("c"))
        .def("unary", &Program::unary, arg("name"), arg("x"), arg("y"), arg("count"))
        .def("lrn", &Program::lrn, arg("x"), arg("y"), py::kw_only(), arg("channels"), arg("pixels"), arg("size"),
             arg("alpha"), arg("beta"), arg("k"))
        .def("softmax", &Program::softmax, arg("x"), arg("y"), py::kw_only(), arg("outer"), arg("count"), arg("inner"),
             arg("log"))
        .def("permute", &Program::permute, arg("x"), arg("y"), arg("shape"), arg("order"))
        .def("copy", &Program::copy, arg("x"), arg("y"), arg("count"))
        .def("run", &Program::execute, arg("inputs"), arg("outputs"))
        .def("profile", &Program::profile, arg("inputs"), arg("outputs"), arg("rounds"));
}

}  // namespace pycnn
