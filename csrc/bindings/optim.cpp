#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

using Arrays = std::vector<Array<float>>;

// The list that the kernels walk over; `first` and `second` are empty where a step has no such arrays.
std::vector<cpu::Stepped> stepped(Arrays& params, const Arrays& grads, Arrays& first, Arrays& second) {
    const auto fits = [&](const Arrays& arrays) {
        return arrays.size() == params.size() &&
               std::equal(arrays.begin(), arrays.end(), params.begin(), same_shape<float, float>);
    };
    require(fits(grads), "the gradients must have the parameters' shapes");
    require((first.empty() || fits(first)) && (second.empty() || fits(second)),
            "what is remembered must have the parameters' shapes");
    std::vector<cpu::Stepped> list;
    list.reserve(params.size() + 1);
    cpu::int64_t begin = 0;
    for (std::size_t i = 0; i < params.size(); i++) {
        list.push_back({begin, params[i].mutable_data(), grads[i].data(),
                        first.empty() ? nullptr : first[i].mutable_data(),
                        second.empty() ? nullptr : second[i].mutable_data()});
        begin += params[i].size();
    }
    list.push_back({begin, nullptr, nullptr, nullptr, nullptr});
    return list;
}

void sgd_step(Arrays params, const Arrays& grads, Arrays buffers, double lr, double momentum, double fresh,
              double weight_decay, bool nesterov, bool starts) {
    Arrays none;
    const std::vector<cpu::Stepped> list = stepped(params, grads, buffers, none);
    const cpu::SgdStep step = {
        .lr = static_cast<float>(lr),
        .momentum = static_cast<float>(momentum),
        .fresh = static_cast<float>(fresh),
        .weight_decay = static_cast<float>(weight_decay),
        .starts = starts,
        .nesterov = nesterov,
    };
    const ReleaseGil release;
    cpu::kernels().optim.sgd(step, static_cast<cpu::int64_t>(params.size()), list.data());
}

void adam_step(Arrays params, const Arrays& grads, Arrays first, Arrays second, double step_size, double root,
               double fresh1, double b2, double fresh2, double eps, double decay, double shrink) {
    require(first.size() == params.size() && second.size() == params.size(),
            "Adam needs two moments for each parameter");
    const std::vector<cpu::Stepped> list = stepped(params, grads, first, second);
    const cpu::AdamStep step = {
        .step_size = static_cast<float>(step_size),
        .root = static_cast<float>(root),
        .fresh1 = static_cast<float>(fresh1),
        .b2 = static_cast<float>(b2),
        .fresh2 = static_cast<float>(fresh2),
        .eps = static_cast<float>(eps),
        .decay = static_cast<float>(decay),
        .shrink = static_cast<float>(shrink),
    };
    const ReleaseGil release;
    cpu::kernels().optim.adam(step, static_cast<cpu::int64_t>(params.size()), list.data());
}

}  // namespace

void bind_optim(py::module_& m) {
    m.def("sgd_step", &sgd_step, py::arg("params").noconvert(), py::arg("grads").noconvert(),
          py::arg("buffers").noconvert(), py::arg("lr"), py::arg("momentum"), py::arg("fresh"), py::arg("weight_decay"),
          py::arg("nesterov"), py::arg("starts"));
    m.def("adam_step", &adam_step, py::arg("params").noconvert(), py::arg("grads").noconvert(),
          py::arg("first").noconvert(), py::arg("second").noconvert(), py::arg("step_size"), py::arg("root"),
          py::arg("fresh1"), py::arg("b2"), py::arg("fresh2"), py::arg("eps"), py::arg("decay"), py::arg("shrink"));
}

}  // namespace pycnn
