#include <pybind11/stl.h>

#include <cmath>

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/module.h"
#include "cpu/isa.h"

namespace pycnn {
namespace {

template <typename T>
cpu::ChannelShape channel_shape(const Array<T>& x) {
    require(x.ndim() >= 2, "x must be (N, C, ...)");
    cpu::ChannelShape shape = {x.shape(0), x.shape(1), 1};
    for (py::ssize_t i = 2; i < x.ndim(); i++) shape.L *= x.shape(i);
    return shape;
}

template <typename T>
bool one_a_channel(const Array<T>& values, const cpu::ChannelShape& shape) {
    return values.ndim() == 1 && values.shape(0) == shape.C;
}

template <typename T>
py::tuple batch_norm_fwd(const Array<T>& x, const std::optional<Array<T>>& weight, const std::optional<Array<T>>& bias,
                         double eps, const std::optional<Array<T>>& residual, bool relu) {
    const cpu::ChannelShape shape = channel_shape(x);
    require(!weight || one_a_channel(*weight, shape), "batch_norm: weight must have one value a channel");
    require(!bias || one_a_channel(*bias, shape), "batch_norm: bias must have one value a channel");
    require(!residual || same_shape(*residual, x), "batch_norm: residual and x must have one shape");
    Array<T> y = new_array<T>(shape_of(x));
    Array<T> mean = new_array<T>({x.shape(1)});
    Array<T> var = new_array<T>({x.shape(1)});
    const cpu::BatchNormFwd<T> problem = {
        .shape = shape,
        .eps = eps,
        .x = x.data(),
        .weight = data_or_null(weight),
        .bias = data_or_null(bias),
        .residual = data_or_null(residual),
        .relu = relu,
        .y = y.mutable_data(),
        .mean = mean.mutable_data(),
        .var = var.mutable_data(),
    };
    {
        const ReleaseGil release(4.0 * static_cast<double>(x.size()));
        cpu::operators<T>(cpu::kernels()).norm.batch_norm_fwd(problem);
    }
    return py::make_tuple(y, mean, var);
}

template <typename T>
py::tuple batch_norm_bwd(const Array<T>& dy, const Array<T>& x, const std::optional<Array<T>>& weight,
                         const Array<T>& mean, const Array<T>& var, double eps, const std::optional<Array<T>>& y) {
    const cpu::ChannelShape shape = channel_shape(x);
    require(same_shape(dy, x) && (!y || same_shape(*y, x)), "batch_norm: dy, y and x must have one shape");
    require(!weight || one_a_channel(*weight, shape), "batch_norm: weight must have one value a channel");
    require(one_a_channel(mean, shape) && one_a_channel(var, shape),
            "batch_norm: mean and var must have one value a channel");
    Array<T> dx = new_array<T>(shape_of(x));
    Array<T> dweight = new_array<T>({x.shape(1)});
    Array<T> dbias = new_array<T>({x.shape(1)});
    const cpu::BatchNormBwd<T> problem = {
        .shape = shape,
        .eps = eps,
        .dy = dy.data(),
        .x = x.data(),
        .weight = data_or_null(weight),
        .mean = mean.data(),
        .var = var.data(),
        .y = data_or_null(y),
        .dx = dx.mutable_data(),
        .dweight = dweight.mutable_data(),
        .dbias = dbias.mutable_data(),
    };
    {
        const ReleaseGil release(4.0 * static_cast<double>(x.size()));
        cpu::operators<T>(cpu::kernels()).norm.batch_norm_bwd(problem);
    }
    return py::make_tuple(dx, dweight, dbias);
}

// x in groups; the trailing axes are one.
template <typename T>
cpu::GroupShape group_shape(const Array<T>& x, py::ssize_t groups) {
    const cpu::ChannelShape shape = channel_shape(x);
    require(groups > 0 && shape.C % groups == 0, "group_norm: the groups must divide the channels");
    return {shape.N, groups, shape.C / groups, shape.L};
}

template <typename T>
bool one_a_channel(const std::optional<Array<T>>& values, const cpu::GroupShape& shape) {
    return !values || (values->ndim() == 1 && values->shape(0) == shape.G * shape.K);
}

template <typename T>
bool one_a_group(const Array<T>& values, const cpu::GroupShape& shape) {
    return values.ndim() == 2 && values.shape(0) == shape.N && values.shape(1) == shape.G;
}

template <typename T>
py::tuple group_norm_fwd(const Array<T>& x, py::ssize_t groups, const std::optional<Array<T>>& weight,
                         const std::optional<Array<T>>& bias, double eps, bool centred) {
    const cpu::GroupShape shape = group_shape(x, groups);
    require(one_a_channel(weight, shape) && one_a_channel(bias, shape),
            "group_norm: weight and bias must have one value a channel");
    Array<T> y = new_array<T>(shape_of(x));
    Array<T> mean = new_array<T>({x.shape(0), groups});
    Array<T> var = new_array<T>({x.shape(0), groups});
    const cpu::GroupNormFwd<T> problem = {
        .shape = shape,
        .eps = eps,
        .centred = centred,
        .x = x.data(),
        .weight = data_or_null(weight),
        .bias = data_or_null(bias),
        .y = y.mutable_data(),
        .mean = mean.mutable_data(),
        .var = var.mutable_data(),
    };
    {
        const ReleaseGil release(4.0 * static_cast<double>(x.size()));
        cpu::operators<T>(cpu::kernels()).norm.group_norm_fwd(problem);
    }
    return py::make_tuple(y, mean, var);
}

template <typename T>
py::tuple group_norm_bwd(const Array<T>& dy, const Array<T>& x, py::ssize_t groups,
                         const std::optional<Array<T>>& weight, const Array<T>& mean, const Array<T>& var, double eps,
                         bool centred, bool affine) {
    const cpu::GroupShape shape = group_shape(x, groups);
    require(same_shape(dy, x), "group_norm: dy and x must have one shape");
    require(one_a_channel(weight, shape), "group_norm: weight must have one value a channel");
    require(one_a_group(mean, shape) && one_a_group(var, shape),
            "group_norm: mean and var must have one value a group of each sample");
    Array<T> dx = new_array<T>(shape_of(x));
    std::optional<Array<T>> dweight, dbias;
    if (affine) {
        dweight = new_array<T>({x.shape(1)});
        dbias = new_array<T>({x.shape(1)});
    }
    const cpu::GroupNormBwd<T> problem = {
        .shape = shape,
        .eps = eps,
        .centred = centred,
        .dy = dy.data(),
        .x = x.data(),
        .weight = data_or_null(weight),
        .mean = mean.data(),
        .var = var.data(),
        .dx = dx.mutable_data(),
        .dweight = affine ? dweight->mutable_data() : nullptr,
        .dbias = affine ? dbias->mutable_data() : nullptr,
    };
    {
        const ReleaseGil release(4.0 * static_cast<double>(x.size()));
        cpu::operators<T>(cpu::kernels()).norm.group_norm_bwd(problem);
    }
    return py::make_tuple(dx, dweight, dbias);
}

template <typename T>
Array<T> channel_affine(const Array<T>& x, const std::optional<Array<T>>& scale, const Array<T>& shift) {
    const cpu::ChannelShape shape = channel_shape(x);
    require((!scale || one_a_channel(*scale, shape)) && one_a_channel(shift, shape),
            "channel_affine: scale and shift must have one value a channel");
    Array<T> y = new_array<T>(shape_of(x));
    const T* from = x.data();
    T* to = y.mutable_data();
    const ReleaseGil release(4.0 * static_cast<double>(x.size()));
    cpu::operators<T>(cpu::kernels()).norm.channel_affine(shape, from, data_or_null(scale), shift.data(), to);
    return y;
}

template <typename T>
Array<T> batch_norm_eval(const Array<T>& x, const Array<T>& mean, const Array<T>& var,
                         const std::optional<Array<T>>& weight, const std::optional<Array<T>>& bias, double eps) {
    const cpu::ChannelShape shape = channel_shape(x);
    require(one_a_channel(mean, shape) && one_a_channel(var, shape) && (!weight || one_a_channel(*weight, shape)) &&
                (!bias || one_a_channel(*bias, shape)),
            "batch_norm: mean, var, weight and bias must have one value a channel");
    std::vector<T> scale(static_cast<std::size_t>(shape.C));
    std::vector<T> shift(scale.size());
    for (std::size_t c = 0; c < scale.size(); c++) {
        const double factor = (weight ? static_cast<double>(weight->data()[c]) : 1.0) /
                              std::sqrt(static_cast<double>(var.data()[c]) + eps);
        scale[c] = static_cast<T>(factor);
        shift[c] = static_cast<T>((bias ? static_cast<double>(bias->data()[c]) : 0.0) - mean.data()[c] * factor);
    }
    Array<T> y = new_array<T>(shape_of(x));
    const T* from = x.data();
    T* to = y.mutable_data();
    const ReleaseGil release(4.0 * static_cast<double>(x.size()));
    cpu::operators<T>(cpu::kernels()).norm.channel_affine(shape, from, scale.data(), shift.data(), to);
    return y;
}

template <typename T>
cpu::LrnShape lrn_shape(const Array<T>& x, py::ssize_t size, double alpha, double beta, double k) {
    require(size >= 1, "lrn: size must be at least 1");
    return {channel_shape(x), size, alpha, beta, k};
}

template <typename T>
Array<T> lrn_fwd(const Array<T>& x, py::ssize_t size, double alpha, double beta, double k) {
    const cpu::LrnShape shape = lrn_shape(x, size, alpha, beta, k);
    Array<T> y = new_array<T>(shape_of(x));
    const T* from = x.data();
    T* to = y.mutable_data();
    const ReleaseGil release(4.0 * static_cast<double>(x.size()));
    cpu::operators<T>(cpu::kernels()).norm.lrn_fwd(shape, from, to);
    return y;
}

template <typename T>
Array<T> lrn_bwd(const Array<T>& dy, const Array<T>& x, py::ssize_t size, double alpha, double beta, double k) {
    require(same_shape(dy, x), "lrn: dy and x must have one shape");
    const cpu::LrnShape shape = lrn_shape(x, size, alpha, beta, k);
    Array<T> dx = new_array<T>(shape_of(x));
    const T* dy_from = dy.data();
    const T* x_from = x.data();
    T* to = dx.mutable_data();
    const ReleaseGil release(4.0 * static_cast<double>(x.size()));
    cpu::operators<T>(cpu::kernels()).norm.lrn_bwd(shape, dy_from, x_from, to);
    return dx;
}

template <typename T>
void bind(py::module_& m) {
    m.def("batch_norm_fwd", &batch_norm_fwd<T>, py::arg("x").noconvert(), py::arg("weight").noconvert(),
          py::arg("bias").noconvert(), py::arg("eps"), py::arg("residual").noconvert(), py::arg("relu"));
    m.def("batch_norm_bwd", &batch_norm_bwd<T>, py::arg("dy").noconvert(), py::arg("x").noconvert(),
          py::arg("weight").noconvert(), py::arg("mean").noconvert(), py::arg("var").noconvert(), py::arg("eps"),
          py::arg("y").noconvert());
    m.def("batch_norm_eval", &batch_norm_eval<T>, py::arg("x").noconvert(), py::arg("mean").noconvert(),
          py::arg("var").noconvert(), py::arg("weight").noconvert(), py::arg("bias").noconvert(), py::arg("eps"));
    m.def("group_norm_fwd", &group_norm_fwd<T>, py::arg("x").noconvert(), py::arg("groups"),
          py::arg("weight").noconvert(), py::arg("bias").noconvert(), py::arg("eps"), py::arg("centred"));
    m.def("group_norm_bwd", &group_norm_bwd<T>, py::arg("dy").noconvert(), py::arg("x").noconvert(), py::arg("groups"),
          py::arg("weight").noconvert(), py::arg("mean").noconvert(), py::arg("var").noconvert(), py::arg("eps"),
          py::arg("centred"), py::arg("affine"));
    m.def("channel_affine", &channel_affine<T>, py::arg("x").noconvert(), py::arg("scale").noconvert(),
          py::arg("shift").noconvert());
    m.def("lrn_fwd", &lrn_fwd<T>, py::arg("x").noconvert(), py::arg("size"), py::arg("alpha"), py::arg("beta"),
          py::arg("k"));
    m.def("lrn_bwd", &lrn_bwd<T>, py::arg("dy").noconvert(), py::arg("x").noconvert(), py::arg("size"),
          py::arg("alpha"), py::arg("beta"), py::arg("k"));
}

}  // namespace

void bind_norm(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace pycnn
