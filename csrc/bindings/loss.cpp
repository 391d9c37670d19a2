#include "cpu/loss.h"

#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"

namespace pycnn {
namespace {

using Target = Array<std::int64_t>;

constexpr const char* kBadClass = "target must hold classes of x, or the ignored one";

cpu::Reduction reduction_of(const std::string& name) {
    require(name == "mean" || name == "sum" || name == "none", "nll: reduction must be mean, sum or none");
    return name == "mean" ? cpu::Reduction::kMean : name == "sum" ? cpu::Reduction::kSum : cpu::Reduction::kNone;
}

template <typename T>
cpu::Nll<T> problem_of(const std::vector<py::ssize_t>& x, const Target& target, const std::optional<Array<T>>& weight,
                       std::int64_t ignored, const std::string& reduction) {
    require(x.size() >= 2, "nll: x must be (N, C, ...)");
    cpu::Nll<T> problem = {
        .N = x[0],
        .C = x[1],
        .L = 1,
        .target = target.data(),
        .weight = data_or_null(weight),
        .ignored = ignored,
        .reduction = reduction_of(reduction),
    };
    bool fits = target.ndim() + 1 == static_cast<py::ssize_t>(x.size()) && target.shape(0) == x[0];
    for (std::size_t i = 2; i < x.size(); i++) {
        require(x[i] >= 0, "nll: sizes must not be negative");
        problem.L *= x[i];
        fits = fits && target.shape(static_cast<py::ssize_t>(i) - 1) == x[i];
    }
    require(fits && x[1] >= 0, "nll: target must be (N, ...) for x (N, C, ...)");
    require(!weight || (weight->ndim() == 1 && weight->shape(0) == x[1]), "nll: weight must have one value a class");
    return problem;
}

template <typename T>
std::vector<py::ssize_t> loss_shape(const cpu::Nll<T>& problem, const Target& target) {
    return problem.reduction == cpu::Reduction::kNone ? shape_of(target) : std::vector<py::ssize_t>();
}

template <typename T>
Array<T> nll_fwd(const Array<T>& x, const Target& target, const std::optional<Array<T>>& weight, std::int64_t ignored,
                 const std::string& reduction) {
    const cpu::Nll<T> problem = problem_of(shape_of(x), target, weight, ignored, reduction);
    Array<T> y = new_array<T>(loss_shape(problem, target));
    const T* from = x.data();
    T* to = y.mutable_data();
    bool good;
    {
        const ReleaseGil release;
        good = cpu::nll_fwd(problem, from, to);
    }
    if (!good) throw py::index_error(kBadClass);
    return y;
}

template <typename T>
Array<T> nll_bwd(const Array<T>& dy, const Target& target, const std::optional<Array<T>>& weight,
                 const std::vector<py::ssize_t>& x_shape, std::int64_t ignored, const std::string& reduction) {
    const cpu::Nll<T> problem = problem_of(x_shape, target, weight, ignored, reduction);
    require(shape_of(dy) == loss_shape(problem, target), "nll: dy must have the loss's shape");
    Array<T> dx = new_array<T>(x_shape);
    const T* from = dy.data();
    T* to = dx.mutable_data();
    bool good;
    {
        const ReleaseGil release;
        good = cpu::nll_bwd(problem, from, to);
    }
    if (!good) throw py::index_error(kBadClass);
    return dx;
}

template <typename T>
void bind(py::module_& m) {
    m.def("nll_fwd", &nll_fwd<T>, py::arg("x").noconvert(), py::arg("target").noconvert(),
          py::arg("weight").noconvert(), py::arg("ignored"), py::arg("reduction"));
    m.def("nll_bwd", &nll_bwd<T>, py::arg("dy").noconvert(), py::arg("target").noconvert(),
          py::arg("weight").noconvert(), py::arg("x_shape"), py::arg("ignored"), py::arg("reduction"));
}

}  // namespace

void bind_loss(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
